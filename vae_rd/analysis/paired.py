"""Curves over beta of the finished runs of one scale, complete and paired by seed."""

import numpy as np
import pandas as pd

from vae_rd.analysis.naming import describe
from vae_rd.analysis.tables import finished
from vae_rd.sweeps import experiments

MIN_RESTARTS = 3  # complete restarts below which nothing is tested


class NotEnough(Exception):
    """Raised where the runs, or a measure on them, that a test needs are not there; the message says which."""


class Runs:
    """The finished runs of one scale, by the Configs of its experiments.

    Args:
        table: what `tables.collect` returned.
        scale: an entry of `experiments.SCALES`.
    """

    def __init__(self, table: pd.DataFrame, scale: experiments.Scale):
        self.scale = scale
        self._rows = finished(table).set_index(["run", "partition", "checkpoint"])
        self._columns: dict[str, dict] = {}  # of the quantities asked for so far

    def curve(self, quantity: str, network: dict, split: str, **where) -> tuple[np.ndarray, np.ndarray]:
        """Betas [b] and values [restarts, b] of one curve; raises NotEnough."""
        betas, (values,) = self.curves([(quantity, network, split, where)])
        return betas, values

    def curves(self, wanted: list[tuple[str, dict, str, dict]]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Several curves at the same betas and restarts: each (quantity, network, split, further conditions).

        Conditions: `partition` (test), `checkpoint` (last), and fields of Config that differ from the scale's protocol.
        """
        frames = [self._frame(*one[:3], **one[3]) for one in wanted]
        betas = [beta for beta in self.scale.betas
                 if all(beta in frame and frame[beta].count() >= MIN_RESTARTS for frame in frames)]
        complete = [frame.reindex(columns=betas).dropna() for frame in frames]
        seeds = set.intersection(*(set(frame.index) for frame in complete))
        absent = [beta for beta in self.scale.few_betas if beta not in betas]
        if absent or len(seeds) < MIN_RESTARTS:
            at = "every beta" if not betas else f"beta = {', '.join(f'{beta:g}' for beta in absent)}"
            what = f"too few restarts at {at}" if absent else f"{len(seeds)} restarts are complete over beta"
            raise NotEnough(f"{_named(wanted[0])}: {what} ({MIN_RESTARTS} needed)")
        return np.array(betas), [frame.loc[sorted(seeds)].to_numpy(float) for frame in complete]

    def one_value(self, quantity: str, split: str, partition: str = "test") -> float:
        """A quantity that is the same for all runs on the same images, from any of them; raises NotEnough."""
        rows, base = self._rows, self.scale.base
        same = [rows[field] == getattr(base, field) for field in ("dataset", "data_seed", "image_size", "binarization")]
        chosen = rows[np.all([rows.index.get_level_values("partition") == partition, rows["split"] == split, *same], 0)]
        values = chosen[quantity].dropna() if quantity in chosen else chosen.iloc[:0, 0]
        if values.empty:
            raise NotEnough(f"{split}: no run has {quantity}")
        return float(values.iloc[0])

    def _frame(self, quantity: str, network: dict, split: str, partition: str = "test", checkpoint: str = "last",
               **fields) -> pd.DataFrame:
        """Values by seed (rows) and beta (columns)."""
        if quantity not in self._rows:
            raise NotEnough(f"no run has {quantity}")
        column = self._columns.setdefault(quantity, self._rows[quantity].to_dict())
        keys = {(config.seed, config.beta): (config.run_name, partition, checkpoint)
                for config in experiments.product(self.scale, [network], [split], **fields)}
        values = {point: column[key] for point, key in keys.items() if key in column}
        return pd.Series(values, dtype=float).unstack() if values else pd.DataFrame()


def _named(wanted: tuple[str, dict, str, dict]) -> str:
    quantity, network, split, where = wanted
    return f"{quantity}, {describe({'split': split, **network})}" + "".join(f", {value}" for value in where.values())
