"""Evaluation: every image of the training and the test set once, per image first, one mean at the end."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vae_rd.config import Config
from vae_rd.datasets import random_streams, splits
from vae_rd.measures import information
from vae_rd.measures.measure import STANDARD_ERROR, estimate
from vae_rd.model import likelihoods
from vae_rd.model.vae import objective
from vae_rd.training.column import Column, Evaluated

ACTIVE_VARIANCE = 0.01  # a latent dimension is active where the variance of its posterior mean is above this


class PerExample(NamedTuple):
    """One member's values for each image of a partition, in nats per image."""

    # [num] int64, identity of the image
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    rate: np.ndarray  # [num]
    distortion: np.ndarray  # [num]
    objective: np.ndarray  # [num], what the run minimises; under `rate_terms` with the exact part of the rate
    entropy_floor: np.ndarray  # [num], lowest distortion that the likelihood allows; NaN where it is unbounded below
    mean: np.ndarray  # [num, latent_dim], of the posterior
    mean_squared_error: np.ndarray  # [num], of the mean picture, over pixels and channels

    def rows(self, chosen: np.ndarray) -> "PerExample":
        """The values of some images."""
        return PerExample(*(values[chosen] for values in self))

    def metrics(self) -> dict[str, float]:
        """Means over the images, by the vocabulary's names; `_se`: standard errors, which a few outliers make large.

        `active_units` counts latent dimensions whose posterior mean has a variance above ACTIVE_VARIANCE (Burda et al.
        2016). It says something under a prior of fixed scale only: multiplying means, posterior scales and prior by
        0.03 changes no rate and no distortion, but may leave no unit active.
        """
        rate, distortion = self.rate.mean(dtype=np.float64), self.distortion.mean(dtype=np.float64)
        return {"num_images": len(self.index), "rate": float(rate), "distortion": float(distortion),
                "elbo": float(-(distortion + rate)), "objective": float(self.objective.mean(dtype=np.float64)),
                "active_units": int((self.mean.var(axis=0, dtype=np.float64) > ACTIVE_VARIANCE).sum()),
                "entropy_floor": float(self.entropy_floor.mean()),
                "mean_squared_error": float(self.mean_squared_error.mean(dtype=np.float64)),
                **{f"{name}{STANDARD_ERROR}": estimate(getattr(self, name)).standard_error
                   for name in ("rate", "distortion", "mean_squared_error")}}


class Evaluator:
    """Evaluates the members of a column on one split.

    Args:
        split: the data; with dynamic binarization a fixed draw per image takes the place of the grey values.
        config: of any member; says the subset of all evaluations but the last.
    """

    def __init__(self, split: splits.Split, config: Config):
        self._config = config
        self._whole = {name: getattr(split, name) for name in ("train", "test")}
        if config.binarization == "dynamic":
            self._whole = {name: splits.binarized(partition) for name, partition in self._whole.items()}
        floor = likelihoods.LIKELIHOODS[config.likelihood].floor
        self._floor = {name: np.full(len(partition.index), np.nan) if (lowest := floor(partition.images)) is None
                       else lowest for name, partition in self._whole.items()}
        self._select = random_streams.select_half(split.test.index)
        seen = self._rows("test", whole=False)
        selecting = seen[self._select[seen]]
        self._selecting = split.test.index[selecting if len(selecting) else seen]

    def num_images(self, whole: bool) -> int:
        """Images that `evaluate` looks at: training and test set together."""
        return sum(len(self._rows(name, whole)) for name in self._whole)

    def test_images(self, count: int) -> np.ndarray:
        """A fixed seeded subset of the test images as they are evaluated, [count, height, width, channels] uint8."""
        test = self._whole["test"]
        return test.images[random_streams.evaluation_subset(test.index, count)]

    def evaluate(self, column: Column, *, whole: bool, report: Callable[[int], None] = lambda done: None
                 ) -> list[dict[str, PerExample]]:
        """Per member: {"train", "test", "test_select", "test_compare"}: values of each image.

        Args:
            column: the members.
            whole: the whole sets; else the subset of `eval_images` per partition.
            report: called with the number of images done, now and then; may raise to stop.
        """
        rows = {name: self._rows(name, whole) for name in self._whole}
        evaluated = {name: column.evaluate(self._partition(name, rows[name]), report) for name in rows}
        mixture = None
        if self._config.rate_terms != "both":  # the exact aggregate posterior mixes ALL training codes
            complete = len(rows["train"]) == len(self._whole["train"].index)
            mixture = evaluated["train"] if complete else column.evaluate(self._whole["train"])
        members = []
        for member, config in enumerate(column.configs):
            values = {name: self._per_example(name, rows[name], evaluated[name], mixture, member, config)
                      for name in rows}
            select = self._select[rows["test"]]
            members.append(values | {"test_select": values["test"].rows(select),
                                     "test_compare": values["test"].rows(~select)})
        return members

    def score(self, values: dict[str, PerExample], beta: float) -> float:
        """What the best evaluation minimises: mean distortion + beta * rate over images of `test_select`.

        It has the whole rate even where training penalises one of its parts (`rate_terms`): the marginal KL alone is
        lowest for test images whose codes lie far from all training codes, which says nothing good of a model. With
        `rate_terms=both` it is the run's own objective.

        The mean is over those images that ALL evaluations see. The last evaluation sees more of them: its mean over
        those would be of other images than the means before. If none of the images seen is in the selecting half, all
        of them select.
        """
        test = values["test"]
        chosen = np.isin(test.index, self._selecting)
        whole_rate = objective(test.distortion, test.rate, beta)
        return float(whole_rate[chosen].mean(dtype=np.float64))

    def _rows(self, name: str, whole: bool) -> np.ndarray:
        return random_streams.evaluation_subset(self._whole[name].index, None if whole else self._config.eval_images)

    def _partition(self, name: str, rows: np.ndarray) -> splits.Partition:
        partition = self._whole[name]
        if len(rows) == len(partition.index):
            return partition
        return splits.Partition(partition.images[rows], partition.index[rows], partition.factors[rows])

    def _per_example(self, name: str, rows: np.ndarray, evaluated: Evaluated, mixture: Evaluated | None, member: int,
                     config: Config) -> PerExample:
        found = Evaluated(*(values[member] for values in evaluated))
        index = self._whole[name].index[rows]
        penalty = found.rate
        if mixture is not None:
            codes = found.mean + found.stddev * random_streams.evaluation_noise(index, config.latent_dim)
            parts = (codes, mixture.mean[member], mixture.stddev[member])
            diverged = not all(np.isfinite(values).all() for values in parts) or (parts[2] <= 0).any()  # underflowed
            log_aggregate = np.full(len(index), np.nan) if diverged else information.aggregate_log_density(*parts)
            if name == "train" and not diverged:
                log_aggregate += information.lost_noise(found.log_posterior, codes, found.mean, found.stddev)
            penalty = getattr(information.Information(found.log_posterior, log_aggregate, found.log_prior),
                              config.rate_terms)
        return PerExample(index, found.rate, found.distortion, objective(found.distortion, penalty, config.beta),
                          self._floor[name][rows], found.mean, found.mean_squared_error)
