"""The nearest training image of every test image, and the reconstruction of one that lies far from all of them.

The estimator is `nearest.py`; `split_neighbours.py` keeps what it finds beside the data, where all runs share it.
"""

import numpy as np

from vae_rd.measures.finished_run import FinishedRun
from vae_rd.measures.measure import Measure, Outcome, Settings

NEAREST = "nearest_distance"  # L2 distance to the nearest training image, pixels on the [0, 1] scale


def at_percentile(distance: np.ndarray, percentile: float = 90) -> int:
    """Position of the image whose distance is nearest to the percentile from above: Figure 3's test image."""
    return int(np.argsort(distance, kind="stable")[int(np.ceil(percentile / 100 * len(distance))) - 1])


def measure(run: FinishedRun, settings: Settings) -> Outcome:
    """Distances of the test images, and Figure 3's test image with its reconstruction."""
    found = run.neighbours
    test = {NEAREST: float(found.nearest_distance.mean()),
            f"{NEAREST}_p90": float(np.percentile(found.nearest_distance, 90)),
            "nearest_factor_distance": float(found.nearest_factor_distance.mean())}
    row = np.array([at_percentile(found.nearest_distance)])
    image = run.partition("test").images[row]
    reconstruction = run.decode(run.posteriors("test", row).means)
    strip = {"input": image[0], "reconstruction": np.round(255 * reconstruction[0]).astype(np.uint8),
             "index": run.partition("test").index[row]}
    return Outcome({"test": test}, {"test": found._asdict()}, arrays={"reconstruction": strip})


MEASURE = Measure(
    "neighbours", measure, "nearest training image of every test image, in pixels and in factors (once per split: half "
    "a minute for cv_16k)", headlines=(f"test/{NEAREST}",), quick=True)
