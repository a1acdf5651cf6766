"""Numbers of claim C3: at which beta log p(x), the ELBO and the gaps are best, and where memorisation grows."""

import contextlib
from collections.abc import Callable

import numpy as np

from vae_rd.analysis import statistics
from vae_rd.analysis.finding import Finding, nearest
from vae_rd.analysis.paired import CurveSpec, NotEnough, Runs
from vae_rd.measures.annealed import BIDIRECTIONAL_GAP, LOG_PX_AIS
from vae_rd.measures.distortion import EXPECTED_DISTORTION, ONE_SAMPLE_ERROR
from vae_rd.measures.log_marginal import LOG_PX, TRUSTED, UNRELIABLE
from vae_rd.measures.memorisation import MEMORISED_AT_MEAN, MEMORISED_AT_MEAN_CONTROL
from vae_rd.sweeps.experiments import THREE_LAYERS

_MANY = 10**6  # degrees of freedom of an error that thousands of images tell


def peak(runs: Runs, quantity: str, sign: int, partitions: tuple[str, ...], split: str, at: float,
         margin: float) -> Finding:
    """By how much a 3-layer curve misses a peak at one beta: below 0 where it has one.

    A curve has its peak there if no beta is better by the margin or more, and both ends are worse by more than
    the margin: so a flat curve has none. The number, in nats, is the largest over the other betas of how much better
    each is, less the margin for an inner beta, plus the margin for an end.

    Args:
        runs: of one scale.
        quantity: a metric, or LOG_PX for the best estimate of log p(x) available.
        sign: +1 if large values are good, -1 if small ones are.
        partitions: of one the quantity itself is meant, of two the first minus the second.
        split: of the training set.
        at: the beta of the peak.
        margin: in nats.
    """
    note = ""
    if quantity == LOG_PX:
        betas, images, note = _log_px(runs, partitions, split)
        parts = [part.mean(2) for part in images]
    else:
        wanted = [(quantity, THREE_LAYERS, split, {"partition": name}) for name in partitions]
        betas, parts = runs.curves(wanted)
    best = nearest(betas, at)
    others = np.delete(np.arange(len(betas)), best)
    found = statistics.between(sign * (parts[0] if len(parts) == 1 else parts[0] - parts[1]), others, [best])
    if quantity == LOG_PX:
        errors = [_image_error(part.mean(0), others, best) for part in images]
        found = found._replace(image_error=np.sqrt(sum(error**2 for error in errors)),
                               image_freedom=min(part.shape[2] for part in images) - 1)
    else:
        found = found._replace(image_error=_sampling_error(runs, wanted, betas)(others, best), image_freedom=_MANY)
    shift = np.where(np.isin(others, (0, len(betas) - 1)), margin, -margin)
    return Finding(statistics.largest(found._replace(mean=found.mean + shift)), note)


def memorisation_growth(runs: Runs, network: dict, split: str, small: float, large: float) -> Finding:
    """Memorised share beyond the control: the largest at betas from `large` on, minus the largest up to `small`."""
    betas, (memorised, control) = runs.curves([(name, network, split, {}) for name in
                                               (MEMORISED_AT_MEAN, MEMORISED_AT_MEAN_CONTROL)])
    high, low = np.flatnonzero(betas >= large), np.flatnonzero(betas <= small)
    return Finding(statistics.largest_smallest(statistics.between(memorised - control, high[:, None], low[None])))


def _log_px(runs: Runs, partitions: tuple[str, ...], split: str) -> tuple[np.ndarray, list[np.ndarray], str]:
    """Betas, log p(x) per image of each partition [restarts, betas, images], and how and on how many it was estimated.

    By annealed importance sampling where runs have it of every partition; else by importance sampling, if that can be
    trusted. The two err by different amounts, so a gap never has one on each side.
    """
    def wanted(quantity: str) -> list[CurveSpec]:
        return [(quantity, THREE_LAYERS, split, {"partition": name}) for name in partitions]

    quantity, way = LOG_PX_AIS, "annealed importance sampling"
    try:
        runs.curves(wanted(quantity))
    except NotEnough:
        quantity, way = LOG_PX, "importance sampling"
        betas, shares = runs.curves(wanted(UNRELIABLE))
        for name, share in zip(partitions, shares):
            if (flagged := share.mean(0) > TRUSTED).any():
                raise NotEnough(f"{split}, {name}: importance-sampled log p(x) is unreliable at beta = "
                                f"{', '.join(f'{beta:g}' for beta in betas[flagged])}, and there is no annealed "
                                "estimate at enough betas") from None
    betas, parts = runs.image_curves(wanted(quantity))
    counts = " and ".join(f"{part.shape[2]} {name}" for part, name in zip(parts, partitions))
    bias = f", {_bias(runs, split)}" if quantity == LOG_PX_AIS else ""
    return betas, parts, f"{counts} images by {way}{bias}"


def _bias(runs: Runs, split: str) -> str:
    """How far annealed log p(x) may lie too low, which no interval contains, in words."""
    try:
        _, (gaps,) = runs.curves([(BIDIRECTIONAL_GAP, THREE_LAYERS, split, {})], counted=False)
    except NotEnough:
        return "lower bounds, whose bias is not in the interval and was not measured"
    low, high = (max(0.0, bound) for bound in (gaps.mean(0).min(), gaps.mean(0).max()))  # below 0 by chance alone
    return (f"lower bounds, whose bias is not in the interval: at most {low:.2g} to {high:.2g} nats, by beta, on "
            "simulated images")


def _sampling_error(runs: Runs, wanted: list[CurveSpec], betas: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    """Standard error of a difference in D between betas that comes from one posterior sample per image.

    All restarts share the sample, so their scatter does not show it. It is what the measure `distortion` found; 0 where
    that was not made at each of these betas.
    """
    squares = np.zeros(len(betas))
    with contextlib.suppress(NotEnough):
        found, errors = runs.curves([(EXPECTED_DISTORTION + ONE_SAMPLE_ERROR, *one[1:]) for one in wanted],
                                    counted=False)
        if np.array_equal(found, betas):
            squares = sum((error**2).mean(0) for error in errors)
    return lambda first, second: np.sqrt(squares[first] + squares[second])


def _image_error(values: np.ndarray, first: np.ndarray, second: int) -> np.ndarray:
    """Standard errors over images of differences between columns of [betas, images], paired by image."""
    paired = values[first] - values[[second]]
    return paired.std(1, ddof=1) / np.sqrt(paired.shape[1])
