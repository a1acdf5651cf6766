"""Curves over beta of the finished runs of one scale, complete and paired by seed."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd

from vae_rd.analysis.naming import describe
from vae_rd.analysis.tables import finished, finished_names
from vae_rd.catalogue import LIKELIHOODS
from vae_rd.storage.files import FileError, read_arrays
from vae_rd.storage.runs import RunDir
from vae_rd.sweeps import experiments

MIN_RESTARTS = 3  # complete restarts below which nothing is tested
FLOOR = "entropy_floor"

CurveSpec = tuple[str, dict, str, dict]  # quantity, network, split, further conditions
Images = Callable[[str, str, str], Mapping[str, np.ndarray]]  # (run, partition, checkpoint) -> values per image by name


class NotEnough(Exception):
    """Raised where runs or measures that a test needs are missing; the message says which."""


def images_of(runs_dir: str | os.PathLike) -> Images:
    """Reads values per image from the run directories: {} for a run without them; NotEnough if the file is damaged."""
    def read(run: str, partition: str, checkpoint: str) -> Mapping[str, np.ndarray]:
        path = RunDir(pathlib.Path(runs_dir) / run).per_example(partition, checkpoint)
        try:
            return read_arrays(path) if path.is_file() else {}
        except FileError as error:
            raise NotEnough(str(error)) from error
    return read


class Runs:
    """The finished runs of one scale, by the Configs of its experiments.

    Args:
        table: what `tables.collect` returned.
        scale: an entry of `experiments.SCALES`.
        images: values per image of these runs; None where there are none.
        least: complete restarts that a curve must have.
    """

    def __init__(self, table: pd.DataFrame, scale: experiments.Scale, images: Images | None = None,
                 least: int = MIN_RESTARTS):
        self.scale = scale
        self._table = table
        self._rows = finished(table).set_index(["run", "partition", "checkpoint"])
        self._columns: dict[str, dict] = {}  # of the quantities asked for so far
        self._run_names: dict[tuple, dict] = {}  # of the curves asked for so far
        self._images = images or (lambda *run: {})
        self._least = least
        self._only: int | None = None  # seed of the one restart that counts; None: all
        self._used: list[tuple[int, int]] = []  # restarts and betas of the curves returned

    @contextmanager
    def counting(self) -> Iterator[list[tuple[int, int]]]:
        """The numbers of restarts and of betas of each curve that is returned within the block."""
        self._used = []
        yield self._used

    @contextmanager
    def any_restarts(self, only: int | None = None) -> Iterator[None]:
        """Within the block one complete restart is enough, or that of seed `only`: for numbers without intervals."""
        least, self._least, self._only = self._least, 1, only
        try:
            yield
        finally:
            self._least, self._only = least, None

    def curve(self, quantity: str, network: dict, split: str, **where: str | float) -> tuple[np.ndarray, np.ndarray]:
        """Betas [b] and values [restarts, b] of one curve; raises NotEnough."""
        betas, (values,) = self.curves([(quantity, network, split, where)])
        return betas, values

    def curves(self, wanted: list[CurveSpec], counted: bool = True) -> tuple[np.ndarray, list[np.ndarray]]:
        """Several curves at the same betas and restarts: each (quantity, network, split, further conditions).

        Conditions: `partition` (test), `checkpoint` (last), and fields of Config that differ from the scale's protocol.
        `counted=False` is for auxiliary curves, such as errors: `counting` does not see them.
        """
        betas, seeds, frames = self._complete(wanted, counted)
        return np.array(betas), [frame.loc[seeds, betas].to_numpy(float) for frame in frames]

    def image_curves(self, wanted: list[CurveSpec]) -> tuple[np.ndarray, list[np.ndarray]]:
        """The same with values per image: [restarts, b, images], of the images that all runs of a curve measured."""
        betas, seeds, _ = self._complete(wanted)
        return np.array(betas), [self._values_per_image(one, betas, seeds) for one in wanted]

    def one_value(self, quantity: str, split: str, partition: str = "test") -> float:
        """A quantity that is the same for all runs on the same images, from any of them; raises NotEnough."""
        rows, base = self._rows, self.scale.base
        same = [rows[field] == getattr(base, field) for field in ("dataset", "data_seed", "image_size", "binarization")]
        chosen = rows[np.all([rows.index.get_level_values("partition") == partition, rows["split"] == split, *same], 0)]
        values = chosen[quantity].dropna() if quantity in chosen else chosen.iloc[:0, 0]
        if values.empty:
            raise NotEnough(f"{split}: no run has {quantity}")
        return float(values.iloc[0])

    def _complete(self, wanted: list[CurveSpec], counted: bool = True
                  ) -> tuple[list[float], list[int], list[pd.DataFrame]]:
        """The betas and seeds at which all curves are complete, and the values of each by seed and beta.

        Every beta of `few_betas` is needed; others are kept where enough restarts have them for a verdict, or all
        of fewer restarts. The seeds are those that have all of these betas.
        """
        frames = [self._frame(*one[:3], **one[3]) for one in wanted]
        having = {beta: set.intersection(*(set(frame[beta].dropna().index) if beta in frame else set()
                                           for frame in frames)) for beta in self.scale.betas}
        if self._only is not None:
            having = {beta: seeds & {self._only} for beta, seeds in having.items()}
        needed = self.scale.few_betas
        absent = [beta for beta in needed if len(having[beta]) < self._least]
        seeds = set.intersection(*(having[beta] for beta in needed))
        if absent or len(seeds) < self._least:
            every = max(map(len, having.values())) < self._least
            at = "every beta" if every else f"beta = {', '.join(f'{beta:g}' for beta in absent)}"
            what = f"too few restarts at {at}" if absent else f"{len(seeds)} restarts have finished at every beta"
            fewest = min(zip(wanted, frames), key=lambda pair: sum(pair[1][beta].count() for beta in needed
                                                                   if beta in pair[1]))[0]
            raise NotEnough(f"{_label(fewest)}: {what} ({self._least} needed)")
        kept = list(needed)
        for beta in sorted(set(self.scale.betas) - set(needed)):
            if len(seeds & having[beta]) >= max(self._least, min(len(seeds), MIN_RESTARTS)):
                seeds &= having[beta]
                kept.append(beta)
        if counted:
            self._used.append((len(seeds), len(kept)))
        return sorted(kept), sorted(seeds), frames

    def _frame(self, quantity: str, network: dict, split: str, partition: str = "test", checkpoint: str = "last",
               **fields: str | float) -> pd.DataFrame:
        """Values by seed (rows) and beta (columns)."""
        if quantity not in self._rows:
            raise NotEnough(f"no run has {quantity}")
        if quantity not in self._columns:
            self._columns[quantity] = self._rows[quantity].to_dict()
        column = self._columns[quantity]
        keys = {point: (run, partition, checkpoint) for point, run in self._runs_of(network, split, fields).items()}
        values = pd.Series({point: column[key] for point, key in keys.items() if key in column}, dtype=float)
        if quantity == FLOOR and len(values):
            likelihood = (network | fields).get("likelihood", self.scale.base.likelihood)
            _check_excess(likelihood, values, describe({"split": split, **network}))
        return values.unstack() if len(values) else pd.DataFrame()

    def _runs_of(self, network: dict, split: str, fields: dict) -> dict[tuple[int, float], str]:
        """The finished runs of a curve by seed and beta."""
        key = (*sorted(network.items()), split, *sorted(fields.items()))
        if key not in self._run_names:
            configs = experiments.product(self.scale, [network], [split], **fields)
            self._run_names[key] = {(config.seed, config.beta): name
                                    for config, name in finished_names(self._table, configs).items()}
        return self._run_names[key]

    def _values_per_image(self, wanted: CurveSpec, betas: list[float], seeds: list[int]) -> np.ndarray:
        quantity, network, split, where = wanted
        fields = {name: value for name, value in where.items() if name not in ("partition", "checkpoint")}
        runs = self._runs_of(network, split, fields)
        kind = where.get("partition", "test"), where.get("checkpoint", "last")
        rows = [self._images(runs[seed, beta], *kind).get(quantity) for seed in seeds for beta in betas]
        sizes = {None if row is None else len(row) for row in rows}
        if None in sizes or len(sizes) > 1:
            raise NotEnough(f"{_label(wanted)}: the runs have no values of the same images. Published runs have none: "
                            "test this where the runs were trained, or measure them again there")
        values = np.array(rows, float)
        values = values[:, np.isfinite(values).all(0)]
        if values.shape[1] < 2:
            raise NotEnough(f"{_label(wanted)}: fewer than 2 images were measured in all runs. Measure more of them")
        return values.reshape(len(seeds), len(betas), -1)


def _check_excess(likelihood: str, floors: pd.Series, where: str) -> None:
    """Raises NotEnough where excess D, as a share of D, is not defined: D has no floor, or may be negative."""
    if LIKELIHOODS[likelihood].is_density:
        reason = "is a density, so that D may be negative"
    elif floors.isna().all():
        reason = "has no floor of D"
    else:
        return
    raise NotEnough(f"{where}: the likelihood of these runs ({likelihood}) {reason}: excess D, as a share of D, is not "
                    "defined")


def _label(wanted: CurveSpec) -> str:
    quantity, network, split, where = wanted
    return f"{quantity}, {describe({'split': split, **network})}" + "".join(f", {value}" for value in where.values())
