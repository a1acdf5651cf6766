"""The paper's claims C1-C9 as tests on the table of runs, each with statistic, interval and verdict.

Every test is one number with an interval, and a side of a margin on which the whole interval must lie. The margins are
the constants below, fixed before any result was looked at. Curves over beta are paired by seed: a restart counts if it
has finished at all betas of the curve, and, where curves are compared, on all of them.

Three things were changed AFTER first results on Fashion-MNIST had been seen:
- The rise of D in C2, C6 and C7, and the gap in C1, were shares of D, and are shares of D above the entropy floor. At
  beta 0.001, 0.1, 1, 5 the mean test D of 1 layer was 238.2, 234.9, 236.8, 253.9 nats, 188.6 of which no model can
  avoid: the rise of 3.3 nats is 1% of D, so that one curve both fell and had an interior minimum, but 7% of what is
  left to the models.
- Memorisation in C3 was the bare share of memorised images, which a constant mean image raises just as well.
- Log p(x) in C3 counted with up to half of the test images flagged, whatever the training images (`columns.TRUSTED`).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from vae_rd.analysis import statistics
from vae_rd.analysis.naming import describe
from vae_rd.analysis.paired import NotEnough, Runs
from vae_rd.analysis.quantities import (
    LOG_PX,
    MARGINAL_KL,
    MEMORISED,
    MEMORISED_CONTROL,
    MUTUAL_INFORMATION,
    NEAREST,
    TRUSTED,
    UNRELIABLE,
)
from vae_rd.analysis.statistics import Interval
from vae_rd.sweeps import experiments
from vae_rd.sweeps.experiments import CNNS, MLPS, ONE_LAYER, THREE_LAYERS

SUPPORTED, NOT_SUPPORTED, NOT_ENOUGH = "supported", "not supported", "not enough runs"
BEST_BETA = 0.1  # where C3 places the best ELBO
SAME = 0.05  # up to this share, differences in distortion count as none: of what lies above the floor for no gap (C1)
#   and for monotone (C2, C6, C7), of all of it for weak dependence (C4)
STRONG = 0.10  # from this share on, distortion depends strongly on the size of the training set
ALIKE = 0.10  # C5: two splits generalise alike if their test distortions differ by less than this share
ALIKE_DISTANCE = 0.20  # C5: and their nearest-neighbour distances by less than this share
BEST_WITHIN = 1.0  # C3: nats by which another beta may be better than BEST_BETA
SATURATED = 0.05  # C8: share of log N that may be missing
SHARE_OF_GROWTH = 0.90  # C8: of the rate's growth, due to the marginal KL
MOST = 0.5  # headline: "most" settings are more than this share of them


class Claim(NamedTuple):
    """One test: `compute` gives the number, `side` and `margin` say where its whole interval must lie."""

    claim: str
    statement: str
    statistic: str
    side: str  # "above" or "below"
    margin: float
    compute: Callable[[Runs], Interval | statistics.InteriorMinimum]


def evaluate(table: pd.DataFrame, scale: str = "paper") -> pd.DataFrame:
    """The claims table: claim, statement, statistic, estimate, low, high, p_value, must_be, verdict, note.

    Args:
        table: what `tables.collect` returned.
        scale: the scale whose runs count.
    """
    runs = Runs(table, experiments.SCALES[scale])
    return pd.DataFrame([_judged(claim, runs) for claim in all_claims(runs.scale)])


def overall(judged: pd.DataFrame) -> pd.Series:
    """One verdict per claim: supported if all its tests are, not supported if one is not, else not enough runs."""
    def worst(verdicts):
        return next((one for one in (NOT_SUPPORTED, NOT_ENOUGH) if one in set(verdicts)), SUPPORTED)
    return judged.groupby("claim", sort=False)["verdict"].agg(worst)


def as_text(judged: pd.DataFrame) -> str:
    """The claims table for a terminal: verdict, number and interval of each test, under the verdict of its claim."""
    lines = []
    for claim, verdict in overall(judged).items():
        lines.append(f"{claim}: {verdict}")
        for row in judged[judged["claim"] == claim].itertuples():
            p_value = "" if np.isnan(row.p_value) else f", p = {row.p_value:.2g}"
            number = row.note or (f"{row.estimate:.3g} [{row.low:.3g}, {row.high:.3g}]{p_value}, must be "
                                  f"{row.must_be}: {row.statistic}")
            lines.append(f"  {row.verdict:16} {row.statement}: {number}")
    return "\n".join(lines)


def all_claims(scale: experiments.Scale) -> list[Claim]:
    """Every test, with the splits that play the paper's parts at this scale."""
    return [*_no_gap_on_the_large_set(scale), *_shape_of_one_layer(scale), *_best_beta_of_three_layers(scale),
            *_training_set_size(scale), *_checkerboard(scale), *_shapes_of_cnns(scale), *_other_datasets(scale),
            *_saturation(scale), *_rate_terms(scale), *_headline(scale)]


def _judged(claim: Claim, runs: Runs) -> dict:
    row = {"claim": claim.claim, "statement": claim.statement, "statistic": claim.statistic, "estimate": np.nan,
           "low": np.nan, "high": np.nan, "p_value": np.nan, "must_be": f"{claim.side} {claim.margin:g}"}
    try:
        result = claim.compute(runs)
    except NotEnough as reason:
        return {**row, "verdict": NOT_ENOUGH, "note": str(reason)}
    interval = result
    if isinstance(result, statistics.InteriorMinimum):
        interval, row["p_value"] = result.depth, result.p_value
    holds = interval.low > claim.margin if claim.side == "above" else interval.high < claim.margin
    return {**row, **interval._asdict(), "verdict": SUPPORTED if holds else NOT_SUPPORTED, "note": ""}


def _no_gap_on_the_large_set(scale: experiments.Scale) -> Iterator[Claim]:
    for network in MLPS:
        yield Claim("C1", f"{describe({'split': scale.large, **network})}: no generalisation gap to speak of",
                    "largest gap in D over beta, share of test D above its floor", "below", SAME,
                    lambda runs, network=network: statistics.largest(_relative_gap(runs, network, scale.large)))
    for metric in ("rate", "distortion"):
        yield Claim("C1", f"{describe({'split': scale.large})}: more layers lower the {metric}",
                    f"test {metric} of 3 layers minus 1 layer, mean over beta (nats)", "below", 0.0,
                    lambda runs, metric=metric: _difference(runs, (metric, THREE_LAYERS, scale.large, {}),
                                                            (metric, ONE_LAYER, scale.large, {})))


def _shape_of_one_layer(scale: experiments.Scale) -> Iterator[Claim]:
    where = describe({"split": scale.small, **ONE_LAYER})
    yield _monotone("C2", f"{where}: train D falls as beta falls", ONE_LAYER, scale.small, partition="train")
    yield _dips("C2", f"{where}: test D has an interior minimum", ONE_LAYER, scale.small)
    yield _monotone("C2", f"{where}: with early stopping test D falls as beta falls", ONE_LAYER, scale.small,
                    partition="test_compare", checkpoint="best")


def _best_beta_of_three_layers(scale: experiments.Scale) -> Iterator[Claim]:
    where = describe({"split": scale.small, **THREE_LAYERS})
    for quantity, word in (("elbo", "ELBO"), (LOG_PX, "log p(x)")):
        yield Claim("C3", f"{where}: test {word} is best at beta = {BEST_BETA:g}",
                    f"largest {word} of another beta minus that at {BEST_BETA:g} (nats)", "below", BEST_WITHIN,
                    lambda runs, quantity=quantity: _over_best(runs, quantity, +1, ("test",), scale.small))
    for quantity, word, sign in (("distortion", "D", -1), (LOG_PX, "log p(x)", +1)):
        yield Claim("C3", f"{where}: the gap in {word} is smallest at beta = {BEST_BETA:g}",
                    f"gap at {BEST_BETA:g} minus the smallest gap of another beta (nats)", "below", BEST_WITHIN,
                    lambda runs, quantity=quantity, sign=sign: _over_best(runs, quantity, sign, ("test", "train"),
                                                                          scale.small))
    yield Claim("C3", f"{where}: memorisation shows at large beta, not at small",
                "share of test images reconstructed as a training image less that as another test image, largest minus "
                "smallest beta", "above", 0.0, lambda runs: _memorisation_growth(runs, THREE_LAYERS, scale.small))


def _training_set_size(scale: experiments.Scale) -> Iterator[Claim]:
    for network in MLPS:
        words = describe(network)
        yield Claim("C4", f"CV, {words}: test D depends strongly on the training-set size",
                    "excess D of the smallest minus the largest set, share of D", "above", STRONG,
                    lambda runs, network=network: _size_effect(runs, network, scale.cv))
        yield Claim("C4", f"CD, {words}: test D depends weakly on the training-set size",
                    "the same at constant density, absolute", "below", SAME,
                    lambda runs, network=network: _absolute(_size_effect(runs, network, scale.cd)))
        yield Claim("C4", f"CD, {words}: generalisation even improves as the set shrinks",
                    "the same at constant density", "below", 0.0,
                    lambda runs, network=network: _size_effect(runs, network, scale.cd))
    yield _dips("C4", f"{describe({'split': scale.cd[0], **ONE_LAYER})}: the interior minimum persists", ONE_LAYER,
                scale.cd[0])


def _checkerboard(scale: experiments.Scale) -> Iterator[Claim]:
    small = describe({"split": scale.small})
    for network in MLPS:
        yield Claim("C5", f"checkerboard, {describe(network)}: generalises like {small}",
                    "absolute difference in excess test D, share of D, mean over beta", "below", ALIKE,
                    lambda runs, network=network: _absolute(_excess_difference(runs, network, "checkerboard",
                                                                               scale.small)))
    yield Claim("C5", f"checkerboard: nearest-neighbour distances like those of {small}",
                "absolute difference in mean distance, share of it", "below", ALIKE_DISTANCE,
                lambda runs: _distance_difference(runs, "checkerboard", scale.small))


def _shapes_of_cnns(scale: experiments.Scale) -> Iterator[Claim]:
    small = describe({"split": scale.small})
    one, three = CNNS
    yield _monotone("C6", f"{small}, {describe(three)}: test D falls as beta falls", three, scale.small)
    yield _dips("C6", f"{small}, {describe(one)}: test D has an interior minimum", one, scale.small)


def _other_datasets(scale: experiments.Scale) -> Iterator[Claim]:
    for dataset in experiments.OTHER_DATASETS:
        where = describe({"dataset": dataset, "split": scale.other})
        if dataset == "shapes3d":  # the exception of the claim; that it is the U which is missing is our reading
            yield _monotone("C7", f"{where}, 1 layer: no interior minimum here", ONE_LAYER, scale.other,
                            dataset=dataset)
            continue
        yield _dips("C7", f"{where}, 1 layer: test D has an interior minimum", ONE_LAYER, scale.other, dataset=dataset)
        yield _monotone("C7", f"{where}, 3 layers: test D falls as beta falls", THREE_LAYERS, scale.other,
                        dataset=dataset)


def _saturation(scale: experiments.Scale) -> Iterator[Claim]:
    for network in MLPS:
        where = describe({"split": scale.small, **network})
        yield Claim("C8", f"{where}: MI is saturated at log N below beta = 1",
                    "largest share of log N missing, beta < 1", "below", SATURATED,
                    lambda runs, network=network: _missing_information(runs, network, scale.small))
        yield Claim("C8", f"{where}: below beta = 1 it is the marginal KL that keeps growing",
                    "share of the rate's growth that is marginal KL", "above", SHARE_OF_GROWTH,
                    lambda runs, network=network: _share_of_growth(runs, network, scale.small))


def _rate_terms(scale: experiments.Scale) -> Iterator[Claim]:
    for network in MLPS:
        where = describe({"split": scale.small, **network})
        yield Claim("C9", f"{where}: the marginal KL is what affects generalisation",
                    "change of test D without the marginal KL minus change without the MI (absolute, mean over beta)",
                    "above", 0.0, lambda runs, network=network: _effect_of_terms(runs, network, scale.small))


def _headline(scale: experiments.Scale) -> Iterator[Claim]:
    yield Claim("headline", f"lowering beta from 1 to {BEST_BETA:g} lowers test D in most settings",
                "share of settings in which it does", "above", MOST, _lower_beta_helps)
    yield Claim("headline", "reducing the MI underfits in most settings",
                "share of settings in which train D at the largest beta is above that at 1", "above", MOST,
                _less_mi_underfits)


def _monotone(claim: str, statement: str, network: dict, split: str, **where) -> Claim:
    def compute(runs: Runs) -> Interval:
        _, (values, floor) = runs.curves([(name, network, split, where) for name in ("distortion", "entropy_floor")])
        return _scaled(statistics.largest(statistics.backtracks(values)), (values - floor).mean(0).min())
    return Claim(claim, statement, "largest rise of D as beta falls, share of the lowest D above its floor", "below",
                 SAME, compute)


def _dips(claim: str, statement: str, network: dict, split: str, **where) -> Claim:
    def compute(runs: Runs) -> statistics.InteriorMinimum:
        return statistics.interior_minimum(runs.curve("distortion", network, split, **where)[1])
    return Claim(claim, statement, "depth of the lowest interior point below the lower end (nats)", "above", 0.0,
                 compute)


def _relative_gap(runs: Runs, network: dict, split: str) -> np.ndarray:
    _, (test, floor, train) = runs.curves([
        (name, network, split, {"partition": partition}) for name, partition in
        (("distortion", "test"), ("entropy_floor", "test"), ("distortion", "train"))])
    return (test - train) / (test - floor).mean(0)


def _difference(runs: Runs, first: tuple, second: tuple) -> Interval:
    _, (one, other) = runs.curves([first, second])
    return statistics.t_interval((one - other).mean(1))


def _over_best(runs: Runs, quantity: str, sign: int, partitions: tuple[str, ...], split: str) -> Interval:
    """By how much some other beta beats BEST_BETA in the quantity, or in its gap between two partitions."""
    names = (quantity, UNRELIABLE) if quantity == LOG_PX else (quantity,)
    betas, found = runs.curves([(name, THREE_LAYERS, split, {"partition": partition}) for name in names
                                for partition in partitions])
    values, flagged = found[:len(partitions)], found[len(partitions):]
    for partition, shares in zip(partitions, flagged):
        if (shares.mean(0) > TRUSTED).any():
            raise NotEnough(f"{split}, {partition}: log p(x) is unreliable at beta = "
                            f"{', '.join(f'{beta:g}' for beta in betas[shares.mean(0) > TRUSTED])}")
    values = values[0] if len(values) == 1 else values[0] - values[1]
    best = _at(betas, BEST_BETA)
    return statistics.largest(sign * np.delete(values - values[:, [best]], best, axis=1))


def _memorisation_growth(runs: Runs, network: dict, split: str) -> Interval:
    """By how much more test images are memorised at the largest than at the smallest beta, beyond the control."""
    _, (memorised, control) = runs.curves([(name, network, split, {}) for name in (MEMORISED, MEMORISED_CONTROL)])
    beyond = memorised - control
    return statistics.t_interval(beyond[:, -1] - beyond[:, 0])


def _excess_difference(runs: Runs, network: dict, first: str, second: str) -> Interval:
    """Test D above the entropy floor on one split minus another, mean over beta, as a share of the latter's D."""
    _, (one, floor, other, other_floor) = runs.curves([(quantity, network, split, {}) for split in (first, second)
                                                       for quantity in ("distortion", "entropy_floor")])
    return statistics.t_interval(((one - floor - other + other_floor) / other.mean(0)).mean(1))


def _size_effect(runs: Runs, network: dict, splits: tuple[str, ...]) -> Interval:
    return _excess_difference(runs, network, splits[0], splits[-1])


def _distance_difference(runs: Runs, first: str, second: str) -> Interval:
    one, other = runs.one_value(NEAREST, first), runs.one_value(NEAREST, second)
    share = abs(one - other) / other
    return Interval(share, share, share)  # of fixed data: no restarts, no interval


def _missing_information(runs: Runs, network: dict, split: str) -> Interval:
    betas, (values, sizes) = runs.curves([(name, network, split, {"partition": "train"})
                                          for name in (MUTUAL_INFORMATION, "num_train")])
    return statistics.largest((1 - values / np.log(sizes))[:, betas < 1])


def _share_of_growth(runs: Runs, network: dict, split: str) -> Interval:
    betas, parts = runs.curves([(name, network, split, {"partition": "train"})
                                for name in (MUTUAL_INFORMATION, MARGINAL_KL)])
    information, marginal = (values[:, 0] - values[:, betas < 1][:, -1] for values in parts)
    return statistics.t_interval(marginal / (information + marginal))


def _effect_of_terms(runs: Runs, network: dict, split: str) -> Interval:
    _, (both, information, marginal) = runs.curves([("distortion", network, split, {"rate_terms": terms}) for terms in
                                                    ("both", "mutual_information", "marginal_kl")])
    return statistics.t_interval((np.abs(information - both) - np.abs(marginal - both)).mean(1))


def _settings(scale: experiments.Scale) -> list[tuple[dict, str, dict]]:
    """Every network, split and data set of the paper's figures 3 to 7."""
    splits = dict.fromkeys((scale.large, scale.small, "checkerboard", *scale.cv, *scale.cd))
    others = [{"dataset": dataset} for dataset in experiments.OTHER_DATASETS]
    return [*((network, split, {}) for split in splits for network in MLPS),
            *((network, scale.small, {}) for network in CNNS),
            *((network, scale.other, other) for other in others for network in MLPS)]


def _lower_beta_helps(runs: Runs) -> Interval:
    return _share_of_settings(runs, "test", lambda betas: (_at(betas, 1.0), _at(betas, BEST_BETA)))


def _less_mi_underfits(runs: Runs) -> Interval:
    return _share_of_settings(runs, "train", lambda betas: (len(betas) - 1, _at(betas, 1.0)))


def _share_of_settings(runs: Runs, partition: str, ends: Callable[[np.ndarray], tuple[int, int]]) -> Interval:
    """Share of the settings in which D at the first end is above D at the second.

    The ends of the interval count the settings in which that is certain, and those in which it is possible.
    """
    found, settings = [], _settings(runs.scale)
    for network, split, where in settings:
        try:
            betas, values = runs.curve("distortion", network, split, partition=partition, **where)
        except NotEnough:
            continue
        upper, lower = ends(betas)
        found.append(statistics.t_interval(values[:, upper] - values[:, lower]))
    if 2 * len(found) < len(settings):
        raise NotEnough(f"{len(found)} of {len(settings)} settings have enough restarts")
    estimate, low, high = (np.array(ends) > 0 for ends in zip(*found))
    return Interval(float(estimate.mean()), float(low.mean()), float(high.mean()))


def _at(betas: np.ndarray, beta: float) -> int:
    return int(np.argmin(np.abs(betas - beta)))


def _absolute(interval: Interval) -> Interval:
    """The interval of the absolute value."""
    crosses = interval.low < 0 < interval.high
    ends = sorted((abs(interval.low), abs(interval.high)))
    return Interval(abs(interval.estimate), 0.0 if crosses else ends[0], ends[1])


def _scaled(interval: Interval, unit: float) -> Interval:
    return Interval(*(float(value / unit) for value in interval))
