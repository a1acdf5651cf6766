"""The table of claims: every test of `claims` computed, judged, counted and written as text."""

import contextlib
from typing import Any

import numpy as np
import pandas as pd

from vae_rd.analysis.claims import Claim, all_claims
from vae_rd.analysis.finding import Finding
from vae_rd.analysis.paired import Images, NotEnough, Runs
from vae_rd.analysis.statistics import Interval
from vae_rd.sweeps import experiments

SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_ENOUGH = "supported", "not supported", "undecided", "not enough runs"


def evaluate(table: pd.DataFrame, scale: str = "paper", images: Images | None = None) -> pd.DataFrame:
    """The claims table, a row per test.

    Columns: claim, statement, statistic, must_be, estimate, low, high (95% interval), p_value (of interior minima:
    below 0.05 exactly where the interval is above the margin), restarts and betas (the fewest of the curves that the
    number was made from; none where it is of the data alone), verdict, note. A test with too few restarts gives the
    estimate without an interval, if one restart is complete, and of two restarts the number of each in its note.

    Args:
        table: what `tables.collect` returned.
        scale: the scale whose runs count.
        images: values per image, as from `paired.images_of`; without them, claims about log p(x) are not tested.
    """
    runs = Runs(table, experiments.SCALES[scale], images)
    judged = pd.DataFrame([_judged(claim, runs) for claim in all_claims(runs.scale)])
    return judged.astype({"restarts": "Int64", "betas": "Int64"})


def overall(judged: pd.DataFrame) -> pd.Series:
    """One verdict per claim: the first of not supported, not enough runs, undecided that a test has, else supported."""
    def worst(verdicts: pd.Series) -> str:
        return next((one for one in (NOT_SUPPORTED, NOT_ENOUGH, UNDECIDED) if one in set(verdicts)), SUPPORTED)
    return judged.groupby("claim", sort=False)["verdict"].agg(worst)


def as_text(judged: pd.DataFrame) -> str:
    """The claims table for a terminal: verdict, number and interval of each test, under the verdict of its claim."""
    lines = []
    for claim, verdict in overall(judged).items():
        lines.append(f"{claim}: {verdict}")
        lines += [f"  {row.verdict:16} {row.statement}: {number(row)}"
                  for row in judged[judged["claim"] == claim].itertuples()]
    return "\n".join(lines)


def number(row: Any) -> str:
    """A test's number, its interval and the runs behind it, as text; `row` is one of the claims table's tuples."""
    parts = []
    if not np.isnan(row.estimate):
        p_value = "" if np.isnan(row.p_value) else f", p = {row.p_value:.2g}"
        parts.append(f"{with_interval(row)}{p_value}, must be {row.must_be}: {row.statistic}")
    if not pd.isna(row.restarts):
        parts.append(f"{row.restarts} restart{'s' if row.restarts > 1 else ''}, {row.betas} betas")
    return "; ".join([*parts, *([row.note] if row.note else [])])


def with_interval(row: Any) -> str:
    """A test's number, with its interval if it has one: `0.12 [0.1, 0.14]`; `row` as in `number`."""
    return f"{row.estimate:.3g}" + ("" if np.isnan(row.low) else f" [{row.low:.3g}, {row.high:.3g}]")


def _judged(claim: Claim, runs: Runs) -> dict:
    row = {"claim": claim.claim, "statement": claim.statement, "statistic": claim.statistic,
           "must_be": f"{claim.side} {claim.margin:g}"}
    try:
        found, counts = _computed(claim, runs)
        verdict = verdict_on(claim, found)
    except NotEnough as reason:
        found, counts = _plain(claim, runs, str(reason))
        verdict = NOT_ENOUGH
    return {**row, **found.interval._asdict(), "p_value": found.p_value, **counts, "verdict": verdict,
            "note": found.note}


def _computed(claim: Claim, runs: Runs) -> tuple[Finding, dict]:
    with runs.counting() as used:
        found = claim.compute(runs)
    return found, {name: min(counts, default=None) for name, counts in
                   zip(("restarts", "betas"), zip(*used) if used else ((), ()))}


def _plain(claim: Claim, runs: Runs, reason: str) -> tuple[Finding, dict]:
    """The plain difference over the restarts available, without an interval, and why it has none; of two, both."""
    nothing = Finding(Interval(np.nan, np.nan, np.nan), reason)
    try:
        with runs.any_restarts():
            found, counts = _computed(claim, runs)
    except NotEnough:
        return nothing, {"restarts": None, "betas": None}
    if counts["restarts"] == 2:
        nothing = nothing._replace(note=f"the two restarts give {_each_restart(claim, runs)}; {reason}")
    return nothing._replace(interval=found.interval._replace(low=np.nan, high=np.nan)), counts


def _each_restart(claim: Claim, runs: Runs) -> str:
    """The number of each restart by itself, as far as it is complete."""
    numbers = []
    for seed in range(runs.scale.restarts):
        with runs.any_restarts(seed), contextlib.suppress(NotEnough):
            numbers.append(f"{claim.compute(runs).interval.estimate:.3g}")
    return " and ".join(numbers)


def verdict_on(claim: Claim, found: Finding) -> str:
    """The verdict: on which side of the claim's margin the whole interval lies."""
    _, low, high = found.interval
    holds, fails = low > claim.margin, high < claim.margin
    if claim.side == "below":
        holds, fails = fails, holds
    return SUPPORTED if holds else NOT_SUPPORTED if fails else NOT_ENOUGH if found.missing else UNDECIDED
