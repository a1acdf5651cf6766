"""The members of a column: each is a run with its own history, checkpoint and files, and diverges on its own."""

import time
from typing import Any

import numpy as np
from tqdm import tqdm

from vae_rd import model
from vae_rd.config import Config
from vae_rd.model.vae import objective
from vae_rd.storage import checkpoints, contents, ending, files, runs
from vae_rd.training import tensorboard
from vae_rd.training.evaluation import PerExample


class Clock:
    """Seconds that a column has taken, over all interruptions; its members share it.

    Args:
        progress: of a run that is continued, or `checkpoints.START`.
    """

    def __init__(self, progress: checkpoints.Progress):
        self.train_seconds = progress.train_seconds
        self._wall_before, self._started, self.compiled = progress.wall_seconds, time.monotonic(), False

    def add_training(self, seconds: float) -> None:
        """Counts a call of the training program, but for the first, which compiles it."""
        self.train_seconds += seconds if self.compiled else 0.0
        self.compiled = True

    def wall_seconds(self) -> float:
        """Everything: training, evaluation, compilation, files."""
        return self._wall_before + time.monotonic() - self._started


class Member:
    """One run of a column, from where it stands on disk; `active` until it has ended.

    Args:
        config: of the run.
        run: its directory.

    Raises:
        files.FileError: if the checkpoint or the history is damaged.
    """

    def __init__(self, config: Config, run: runs.RunDir):
        self.config, self.run, self.active = config, run, run.read_results() is None
        resumed = checkpoints.resume(run, config.train_steps) if self.active else checkpoints.NOTHING
        self.progress, self.state, self.history, self._content_sha256 = resumed
        if config.rate_terms != "both" and self.state is not None and "beta" in self.state:
            self._rescore()
        self._written = False  # from `begin` on, which is called on the chief only

    def _rescore(self) -> None:
        """Scores the best evaluation of an earlier version's checkpoint anew; the step stays.

        Those versions, which kept beta in the checkpoint, scored by a part of the rate only.
        """
        scores = {row["step"]: objective(row["distortion"], row["rate"], self.config.beta) for row in self.history
                  if row["partition"] == "test_select"}
        self.progress = self.progress._replace(best_objective=scores.get(self.progress.best_step, np.inf))

    def check_data(self, content_sha256: dict[str, str]) -> None:
        """Raises RunError if the run was begun with other images than these."""
        if self._content_sha256 not in (None, content_sha256):
            data = self.config.data
            raise runs.RunError(f"{self.run.path} must go on with the data that it was begun with (its {data.dataset}/"
                                f"{data.split} has another content_sha256). Give that --data_dir; or "
                                f"{checkpoints.FROM_NOTHING}.")

    def begin(self, clock: Clock, facts: dict[str, Any]) -> None:
        """Opens TensorBoard's event files; from here on the run's files are written.

        Args:
            clock: of the column.
            facts: the entries of results.json that hold from the start: data, column, versions, machine.
        """
        self._written, self._clock, self._facts = True, clock, facts
        self._board = tensorboard.Board(self.run, self.config, self.history)

    def record(self, step: int, values: dict[str, PerExample], score: float, weights: dict[str, np.ndarray]) -> None:
        """Adds an evaluation to the history, and keeps the weights if no earlier score was as low.

        Args:
            step: of the evaluation; if one of its means is not finite, the run ends as diverged.
            values: per partition.
            score: from `Evaluator.score`.
            weights: of this member, by name.
        """
        seconds = round(self._clock.wall_seconds(), 3)
        means = {partition: values[partition].metrics() for partition in runs.PARTITIONS
                 if len(values[partition].index)}
        rows: list[dict[str, Any]] = [
            {"step": step, "partition": partition, **{name: found[name] for name in ("num_images", *runs.METRICS)},
             "wall_seconds": seconds} for partition, found in means.items()]
        for row in rows:
            bad = [name for name in contents.KNOWN_METRICS if not np.isfinite(row[name])]
            if bad:
                self.diverge(step, f"{row['partition']} {bad[0]} in evaluation")
                return
        self.history = [row for row in self.history if row["step"] < step] + rows
        self._board.scalars(rows)
        if score < self.progress.best_objective:
            self.progress = self.progress._replace(best_step=step, best_objective=score)
            checkpoints.save_best(self.run, step, weights)

    def save(self, step: int, state: dict[str, np.ndarray]) -> None:
        """Writes history and checkpoint, in this order; a weight that is not finite ends the run as diverged."""
        bad = [name for name, value in state.items() if not np.isfinite(value).all()]
        if bad:
            self.diverge(step, f"weight {bad[0]}")
            return
        self.progress = self.progress._replace(step=step, train_seconds=self._clock.train_seconds,
                                               wall_seconds=self._clock.wall_seconds(),
                                               column=tuple(self._facts["column"]))
        self.run.write_history(self.history)
        checkpoints.save(self.run, self.progress, state, self.history, self._facts.get("content_sha256"))

    def trained_with(self, members: "list[Member]") -> bool:
        """Whether its checkpoint is of a column of just these members."""
        return self.progress.column == tuple(member.run.path.name for member in members)

    def clean(self) -> None:
        """Removes what was kept in case the process died while the column was being saved."""
        checkpoints.clean(self.run, self.progress)

    def diverge(self, step: int, quantity: str) -> None:
        """Ends the run with status `diverged`; its last good checkpoint stays."""
        self.active = False
        if not self._written:
            return
        self.run.previous_checkpoint.unlink(missing_ok=True)
        kept = self.run.last_checkpoint.is_file()
        tqdm.write(f"{self.config.run_name}: {quantity} is not finite at step {step}; the run ends as diverged. "
                   + (f"Its checkpoint of step {self.progress.step} is kept. " if kept else "")
                   + "Try a lower learning rate or --precision=float64 (either makes another run); "
                   "--retry repeats this one.")
        trained = max(step, self.progress.step)  # the best weights, of an earlier step, are looked at last
        ending.end(self.run, {"status": runs.DIVERGED, "step": self.progress.step,
                              "diverged": {"step": step, "quantity": quantity}, **self._provenance(trained)})
        self._board.finish(runs.DIVERGED)

    def finish(self, vae: model.VAE, evaluations: dict[str, dict[str, PerExample]],
               reported: dict[str, dict[str, float]], images: np.ndarray) -> None:
        """Writes the final files of the run, results.json last.

        Args:
            vae: the final model.
            evaluations: of the whole sets, with the weights `last` and `best`: values per partition.
            reported: what the likelihood reported with each of the two weights.
            images: [num, height, width, channels] in [0, 1], for TensorBoard's reconstructions.
        """
        means = {checkpoint: {partition: {**values.metrics(), **reported[checkpoint]}
                              for partition, values in parts.items() if len(values.index)}
                 for checkpoint, parts in evaluations.items()}
        # The best weights were chosen on `eval_images`; here they see all images for the first time.
        bad = [f"{partition} {name}" for partition, found in means["best"].items() for name in contents.KNOWN_METRICS
               if not np.isfinite(found[name])]
        if bad:
            self.diverge(self.progress.best_step, f"{bad[0]} of the best weights")
            return
        for checkpoint, values in evaluations.items():
            for partition in ("train", "test"):
                ending.write_values(self.run, partition, checkpoint,
                                    {name: getattr(values[partition], name) for name in contents.VALUES})
        with files.whole_file(self.run.model) as beside:
            vae.save(beside)
        step = self.config.train_steps
        self._board.pictures(vae, images, step)
        self._board.finish(runs.FINISHED)
        ending.end(self.run, {"status": runs.FINISHED, "step": step, **means["last"],
                              "best": {"step": self.progress.best_step, **means["best"]}, **self._provenance(step)})
        self.run.failure.unlink(missing_ok=True)
        self.active = False

    def _provenance(self, step: int) -> dict[str, Any]:
        seconds = self._clock.train_seconds
        return {"wall_seconds": round(self._clock.wall_seconds(), 3),
                "steps_per_second": round(step / seconds, 3) if seconds else None, **self._facts}
