"""Measures contestants interleaved and holds their medians against limits; rows for the table and the JSON file."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping

PAUSE = 0.05  # seconds between contestants: idle threads spin for some milliseconds
HELD, MISSED, FAILED = "held", "MISSED", "FAILED"
ABSENT = "not installed"

Contestant = Callable[[], float]  # one repetition; returns its figure
Figures = dict[str, list[float]]  # of each contestant, one per repetition


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: our figure, the reference's, and what is allowed.

    `limit` is on the ratio ours / reference; on our figure itself where there is no reference or `absolute` is set.
    """

    name: str
    unit: str
    ours: tuple[float, ...] = ()
    reference: str = ""
    theirs: tuple[float, ...] = ()
    limit: float | None = None
    at_least: bool = False
    absolute: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Median over repetitions of ours / theirs: neighbours in time are compared, so the machine's drift cancels."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def ratios(self) -> tuple[float, ...]:
        """ours / theirs of each repetition."""
        return tuple(own / other for own, other in zip(self.ours, self.theirs))

    @property
    def verdict(self) -> str:
        """`held` or `MISSED` where there is a limit, `FAILED` where the measurement broke, else nothing."""
        if self.note.startswith(FAILED):
            return FAILED
        judged = statistics.median(self.ours) if self.absolute and self.ours else self.ratio
        if self.limit is None or judged is None:
            return ""
        return HELD if (judged >= self.limit if self.at_least else judged <= self.limit) else MISSED

    def to_dict(self) -> dict:
        """All of it, for JSON."""
        return dataclasses.asdict(self) | {"ratio": self.ratio, "verdict": self.verdict}


def measure(contestants: Mapping[str, Contestant | None], repeats: int,
            report: Callable[[str], None] = lambda text: None, warm_up: bool = True) -> Figures:
    """Runs every contestant once unmeasured, then all of them in turn, `repeats` times.

    Args:
        contestants: by name; None for one that cannot run here: it gets no figures.
        repeats: repetitions.
        report: told what is running.
        warm_up: whether to run each once before: the first call compiles.
    """
    present = {name: contestant for name, contestant in contestants.items() if contestant is not None}
    for name, contestant in present.items() if warm_up else ():
        report(f"warm-up of {name}")
        contestant()
    figures = {name: [] for name in contestants}
    for number in range(repeats):
        for name, contestant in present.items():
            report(f"repetition {number + 1} of {repeats}: {name}")
            time.sleep(PAUSE)
            figures[name].append(contestant())
    return figures


def compare(name: str, unit: str, figures: Figures, ours: str, reference: str, **rule) -> Row:
    """The row of one contestant against another; `rule` is limit, at_least and note of Row."""
    theirs = tuple(figures[reference])
    if not theirs:
        rule["note"] = ABSENT
    return Row(name, unit, tuple(figures[ours]), reference, theirs, **rule)


def alone(name: str, unit: str, ours: list[float], limit: float | None = None, **rule) -> Row:
    """The row of a figure that is held against a fixed limit, not against a reference."""
    return Row(name, unit, tuple(ours), limit=limit, absolute=True, **rule)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def table(rows: list[Row]) -> str:
    """The rows as text, medians throughout; the ratio's range over the repetitions in brackets."""
    lines = [f"{'':42} {'ours':>10} {'unit':12} {'reference':>10} {'':22} {'ratio':>7} {'(range)':15} {'limit':>11}"
             "  verdict"]
    for row in rows:
        spread = f"({min(row.ratios):.2f}-{max(row.ratios):.2f})" if row.ratios else ""
        sense, unit = ">=" if row.at_least else "<=", "" if row.absolute else " x"
        limit = "" if row.limit is None else f"{sense} {row.limit:g}{unit}"
        lines.append(f"{row.name:42} {_short(row.ours):>10} {row.unit:12} {_short(row.theirs):>10} {row.reference:22} "
                     f"{'' if row.ratio is None else f'{row.ratio:.3f}':>7} {spread:15} {limit:>11}  {row.verdict:6}"
                     f" {row.note}".rstrip())
    return "\n".join(lines)


def _short(figures: tuple[float, ...]) -> str:
    if not figures:
        return "-"
    value = statistics.median(figures)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
