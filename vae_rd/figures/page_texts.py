"""The HTML texts of the page to explore: headings, a run's numbers and pictures, the verdicts; names are escaped."""

import base64
import html
import io
import pathlib
import shlex
from typing import Any, NamedTuple

import matplotlib.image
import numpy as np
import pandas as pd

from vae_rd.analysis import naming, quantities, verdicts
from vae_rd.figures import style
from vae_rd.figures.against_beta import AIS_IMAGES
from vae_rd.measures.gallery import GALLERY
from vae_rd.measures.measure import STANDARD_ERROR
from vae_rd.storage.files import FileError
from vae_rd.storage.runs import RunDir

STRIP = 6  # images side by side
NOT_MEASURED = "not measured"
PARTITIONS = {"last": ("test", "train"), "best": ("test_compare", "train")}  # that are shown, by checkpoint
MEASURED = {"train": "train", "test": "test", "test_compare": "test"}  # the partition whose measures stand for it
_VERDICT_COLOURS = {verdicts.SUPPORTED: style.COLOURS[2], verdicts.NOT_SUPPORTED: style.COLOURS[1],
                    verdicts.UNDECIDED: style.COLOURS[5], verdicts.NOT_ENOUGH: style.QUIET}
STYLE = """
:host { font-size: 13px; line-height: 1.45; color: #222 }
h1 { font-size: 19px; margin: 4px 0 0 } h2 { font-size: 14px; margin: 4px 0; overflow-wrap: anywhere }
p { margin: 2px 0 6px } .quiet { color: #6a6a6a } code { font-size: 12px; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: 4px 0 } th { font-weight: 600; text-align: left }
th, td { padding: 2px 14px 2px 0; vertical-align: top } .numbers td { font-variant-numeric: tabular-nums }
.strip { display: grid; grid-template-columns: 104px 1fr; align-items: center; margin-bottom: 3px }
.strip img { width: 100%; image-rendering: pixelated; display: block }
.distances { display: grid; grid-template-columns: repeat(6, 1fr); text-align: center }
.verdict { color: white; border-radius: 3px; padding: 0 7px; white-space: nowrap; display: inline-block }
summary { cursor: pointer; padding: 3px 0 } details table { margin-left: 18px; font-size: 12px }
"""


class Shown(NamedTuple):
    """What a click on a run shows."""

    text: str  # HTML: its name, numbers and pictures
    histogram: list[Any] | None  # farthest distance, lowest and highest distortion, counts (flat), means; None: none


def shown(folder: pathlib.Path, rows: pd.DataFrame) -> Shown:
    """What a click on a run shows; where it has no gallery but its model, the command that makes it.

    Args:
        folder: the run directory.
        rows: of the run in the table, one for each partition.
    """
    run = RunDir(folder)
    head = f"<h2>{html.escape(folder.name)}</h2>{_numbers(rows)}"
    checkpoint = rows["checkpoint"].iloc[0]
    path = run.arrays(GALLERY, checkpoint)
    if not path.is_file():
        missing = f"{head}<p>Reconstructions and histogram: {NOT_MEASURED}.</p>"
        if not run.model.is_file():  # as in published results
            return Shown(missing, None)
        command = f"python -m vae_rd.evaluate --run={shlex.quote(str(folder))} --measures={GALLERY}"
        command += "" if checkpoint == "last" else f" --checkpoint={checkpoint}"
        return Shown(f"{missing}<p>Made by</p><p><code>{html.escape(command)}</code></p>", None)
    try:
        arrays = run.read_arrays(path)
    except FileError as error:
        return Shown(f"{head}<p>{html.escape(str(error))}</p>", None)
    mean = [None if np.isnan(value) else round(float(value), 4) for value in arrays["mean_distortion"]]
    low, high = arrays["distortion_edges"][[0, -1]]
    return Shown(head + _pictures(arrays), [float(arrays["distance_edges"][-1]), float(low), float(high),
                                            arrays["counts"].ravel().tolist(), mean])


def log_px(row: pd.Series) -> str:
    """log p(x) in nats per image, and whether it is flagged, in words."""
    value, share = (row.get(name, np.nan) for name in (quantities.LOG_PX, quantities.UNRELIABLE))
    if pd.isna(value):
        return NOT_MEASURED
    if pd.isna(share):
        return f"{value:.2f} (reliability {NOT_MEASURED})"
    words = "flagged" if share > quantities.TRUSTED else "trusted"
    return f"{value:.2f} ({words}: {share:.0%} of images unreliable)"


def log_px_ais(row: pd.Series) -> str:
    """Annealed log p(x) in nats per image: standard error over images, their number, and how far it may be too low."""
    value, error, gap = (row.get(name, np.nan) for name in (
        quantities.LOG_PX_AIS, quantities.LOG_PX_AIS + STANDARD_ERROR, quantities.BIDIRECTIONAL_GAP))
    if pd.isna(value):
        return NOT_MEASURED
    images = row.get(AIS_IMAGES, np.nan)
    parts = [] if pd.isna(images) else [f"{images:.0f} images"]
    parts.append("a lower bound" + ("" if pd.isna(gap) else f", {max(gap, 0):.2f} too low at most on simulated images"))
    return f"{value:.2f}" + ("" if pd.isna(error) else f" \u00b1 {error:.2f}") + f" ({'; '.join(parts)})"


def mutual_information(row: pd.Series) -> str:
    """Mutual information of images and codes, nats; it is defined for training images."""
    value = row.get(quantities.MUTUAL_INFORMATION, np.nan)
    return NOT_MEASURED if pd.isna(value) else f"{value:.2f}"


def heading(title: str, note: str, checkpoint: str = "last") -> str:
    """The head of the page, and how it is used."""
    state = "" if checkpoint == "last" else ", weights of the best evaluation (early stopping)"
    return (f"<h1>{html.escape(title)}</h1><p class=quiet>{html.escape(note + state)}. Click a point to see that run; "
            "point at it for its numbers. All quantities in nats per image.</p>")


def claims(judged: pd.DataFrame) -> str:
    """The verdicts as a list of claims that open to their tests."""
    parts = ["<h2>Verdicts on the paper's claims</h2>"]
    for claim, verdict in verdicts.overall(judged).items():
        tests = judged[judged["claim"] == claim]
        lines = "".join(f"<tr><td>{_chip(test.verdict)}</td><td>{html.escape(test.statement)}</td><td>"
                        f"{html.escape(verdicts.number(test))}</td></tr>" for test in tests.itertuples())
        count = f"{len(tests)} test{'s' if len(tests) > 1 else ''}"
        parts.append(f"<details><summary><b>{html.escape(str(claim))}</b> {_chip(verdict)} <span class=quiet>{count}"
                     f"</span></summary><table>{lines}</table></details>")
    return "".join(parts)


def _chip(verdict: str) -> str:
    return f'<span class=verdict style="background:{_VERDICT_COLOURS[verdict]}">{html.escape(verdict)}</span>'


def _numbers(rows: pd.DataFrame) -> str:
    """A table of the run's numbers, a line per partition."""
    own, first = rows.set_index("partition"), rows.iloc[0]
    lines = "".join(
        f"<tr><th>{naming.PARTITIONS[name]}</th><td>{row['rate']:.2f}</td><td>{row['distortion']:.2f}</td>"
        f"<td>{mutual_information(row) if name == 'train' else ''}</td><td>{log_px(own.loc[MEASURED[name]])}</td>"
        f"<td>{log_px_ais(own.loc[MEASURED[name]])}</td></tr>"
        for name, row in own.iterrows() if name in PARTITIONS[first["checkpoint"]])
    return (f"<p>\u03b2 = {first['beta']:g}, seed {first['seed']}, step {first['step']}</p><table class=numbers><tr>"
            "<th></th><th>rate</th><th>distortion</th><th>mutual information</th><th>log p(x), importance sampling"
            f"</th><th>log p(x), AIS</th></tr>{lines}</table>")


def _pictures(arrays: dict[str, np.ndarray]) -> str:
    """Inputs above their reconstructions, the nearest to the training set first, with their distances below."""
    parts = ["<p>Test images from near to far from the training set (L2 distance to the nearest training image)</p>"]
    for start in range(0, len(arrays["inputs"]), STRIP):
        chosen = slice(start, start + STRIP)
        for label, name in (("input", "inputs"), ("reconstruction", "reconstructions")):
            parts.append(f'<div class=strip><span>{label}</span><img class={name} alt="{label}" '
                         f'src="{_png(arrays[name][chosen])}"></div>')
        distances = "".join(f"<span>{value:.2f}</span>" for value in arrays["nearest_distance"][chosen])
        parts.append(f'<div class="strip quiet"><span>distance</span><div class=distances>{distances}</div></div>')
    return "".join(parts)


def _png(images: np.ndarray) -> str:
    """Images [n, height, width, channels] uint8 side by side, as the address of a picture within the page."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
    strip = np.concatenate(list(padded), 1)
    strip = np.pad(strip, ((0, 0), (0, (STRIP - len(images)) * padded.shape[2]), (0, 0)), constant_values=255)
    strip = strip if strip.shape[-1] == 3 else np.repeat(strip, 3, -1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, strip, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
