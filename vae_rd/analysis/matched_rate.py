"""Distortion at matched rate: how far one kind of run lies above another where both have the same rate.

Priors, networks and likelihoods move a run along the curve as well as off it, so runs of one beta cannot be compared.
Each restart's curve is distortion as a function of log rate, by monotone interpolation between its betas (PCHIP); two
curves are compared, restart by restart, at rates that all of them reach. Between few betas an interpolation misses the
curve; how much that matters is seen by leaving betas out.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vae_rd.analysis import statistics
from vae_rd.analysis.tables import POINT_COLUMNS

NUM_RATES = 9
WITHOUT_A_BETA = "without_a_beta"  # the largest change of a difference if one beta were left out
COLUMNS = ("rate", "difference", "low", "high", WITHOUT_A_BETA, "restarts")


def differences(rows: pd.DataFrame, field: str, reference: str) -> pd.DataFrame:
    """The distortion of each kind of run minus that of the reference, at equal rates.

    Args:
        rows: of `tables.collect`, of finished runs and one checkpoint.
        field: of Config, in which the kinds differ.
        reference: its value in the runs that are subtracted.

    Returns:
        A row per panel (the other fields of Config in which trainings differ, but for `imports`, and partition), kind
        and rate: `rate` (nats per image, NUM_RATES in equal ratios), `difference` (nats per image), `low`, `high` (95%
        interval over restarts, Student's t; NaN below three), `without_a_beta` and `restarts`. The last but one is the
        largest change of the difference, up or down, if one of the betas between the ends were left out of all curves
        (NaN if there is none): a difference that is smaller may be the interpolation's. Kinds without a restart in
        common with the reference, or without a rate in common, have no rows.
    """
    panels = [name for name in POINT_COLUMNS[:-2] if name not in (field, "beta", "imports")  # a kind's own modules
              and rows[name].nunique(dropna=False) > 1] + ["partition"]
    found = []
    for values, panel in rows.groupby(panels, sort=False):
        kinds = {kind: _restarts(of_kind) for kind, of_kind in panel.groupby(field, sort=False)}
        for kind, restarts in kinds.items():
            if kind != reference and reference in kinds:
                block = pd.DataFrame(_compared(restarts, kinds[reference]), columns=list(COLUMNS))
                found.append(block.assign(**dict(zip(panels, values)), **{field: kind}))
    return pd.concat(found, ignore_index=True)[[*panels, field, *COLUMNS]] if found else pd.DataFrame(
        columns=[*panels, field, *COLUMNS])


def distortion_at(curve: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Distortion [k] at some rates [k] along a curve [points, 2 or more] of (rate, distortion, ...).

    Its rates are ascending and distinct. NaN beyond the curve's ends: nothing is extrapolated.
    """
    from scipy.interpolate import PchipInterpolator  # takes half a second to load
    return PchipInterpolator(np.log(curve[:, 0]), curve[:, 1], extrapolate=False)(np.log(rates))


def _restarts(rows: pd.DataFrame) -> dict[int, np.ndarray]:
    """The curve [points, 3] of each restart that has two points or more: rate, distortion and beta, by rate."""
    curves = {}
    for seed, points in rows.groupby("seed"):
        points = points[points["rate"] > 0].drop_duplicates("beta").drop_duplicates("rate").sort_values("rate")
        if len(points) > 1:
            curves[seed] = points[["rate", "distortion", "beta"]].to_numpy(float)
    return curves


def _compared(restarts: dict[int, np.ndarray], reference: dict[int, np.ndarray]) -> list[tuple]:
    """A row of COLUMNS for each rate that all these curves reach."""
    seeds = sorted(set(restarts) & set(reference))
    pairs = [(restarts[seed], reference[seed]) for seed in seeds]
    if not pairs:
        return []
    low = max(curve[0, 0] for pair in pairs for curve in pair)
    high = min(curve[-1, 0] for pair in pairs for curve in pair)
    if not low < high:
        return []
    rates = np.geomspace(low, high, NUM_RATES)
    rates = np.clip(rates, low, high)  # rounding must not leave the curves
    values = _difference(pairs, rates)
    return [(rate, *statistics.t_interval(column), change, len(pairs))
            for rate, column, change in zip(rates, values.T, _without_a_beta(pairs, rates, values.mean(0)))]


def _without_a_beta(pairs: Sequence[tuple[np.ndarray, ...]], rates: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The largest change of the mean difference [rates] if one beta, no curve's end, were left out of all curves."""
    curves = [curve for pair in pairs for curve in pair]
    inner = set(np.concatenate([curve[1:-1, 2] for curve in curves])) - {curve[end, 2] for curve in curves
                                                                         for end in (0, -1)}
    if not inner or min(map(len, curves)) < 3:
        return np.full(len(rates), np.nan)
    fewer = [[tuple(curve[curve[:, 2] != beta] for curve in pair) for pair in pairs] for beta in sorted(inner)]
    return np.abs([_difference(left, rates).mean(0) - difference for left in fewer]).max(0)


def _difference(pairs: Sequence[tuple[np.ndarray, ...]], rates: np.ndarray) -> np.ndarray:
    """Distortion of the first of each pair of curves minus that of the second, [pairs, rates]."""
    return np.array([distortion_at(one, rates) - distortion_at(other, rates) for one, other in pairs])
