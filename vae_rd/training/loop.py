"""The training loop: a column's steps, evaluations and checkpoints; it can be stopped at any point and resumed."""

import contextlib
import os
import signal
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from vae_rd.config import Config
from vae_rd.datasets import splits
from vae_rd.storage import checkpoints, runs
from vae_rd.training import devices, preparation, signals, tensorboard
from vae_rd.training.column import Column, member_state, stacked_state
from vae_rd.training.evaluation import Evaluator, PerExample
from vae_rd.training.members import Clock, Member

CHECKPOINT_SECONDS = 300
CHUNK_SECONDS = 0.5  # what a call of Column.train should take: signals are handled between calls
TURNS_SECONDS = 2.0  # the same where members take turns: starting a turn costs about 10 ms


def train(configs: list[Config], split: splits.Split, *, runs_dir: str | os.PathLike, placement: devices.Placement,
          retry: bool = False, skip_busy: bool = False, progress: bool = True) -> None:
    """Trains the runs that have not ended, in columns of runs that stand at the same step.

    Args:
        configs: differing in STACKABLE_FIELDS only.
        split: their data.
        runs_dir: gets one directory per run.
        placement: where, from `devices.place`.
        retry: start diverged runs again, from scratch.
        skip_busy: skip runs that another process works on, instead of raising.
        progress: show a bar with the time left.

    Raises:
        signals.Interrupted: after a signal, with everything saved.
        runs.RunError: if another process works on one of the runs, or a directory disagrees with its Config.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.lost_workers_named())
        configs = list(dict.fromkeys(configs))
        if placement.chief:
            configs = preparation.lock(configs, runs_dir, skip_busy, stack)
        members = [preparation.prepare(config, runs.run_dir(runs_dir, config), retry, write=placement.chief)
                   for config in configs]
        members = preparation.at_one_step(members, write=placement.chief)
        request = stack.enter_context(signals.listening())
        for column in preparation.resumed_columns(members, runs_dir):
            Training(column, split, placement, request, progress).run()
            request.raise_if_received()  # a signal that came while final files were written


class Training:
    """Trains one column from its current step to the last.

    Args:
        members: of the column; those that have ended keep their slot in it.
        split: their data.
        placement: where.
        request: to stop, from `signals.listening`.
        show: whether to show a progress bar.
    """

    def __init__(self, members: list[Member], split: splits.Split, placement: devices.Placement,
                 request: signals.Request, show: bool):
        self.members, self.split, self.placement, self.request, self.show = members, split, placement, request, show
        self.config = members[0].config
        for member in self._active():
            member.check_data(split.info.content_sha256)
        self.column = Column([member.config for member in members], split.train.images, strategy=placement.strategy,
                             jit=placement.jit, stacked=placement.stacked)
        first = next(member for member in members if member.active)
        self.step, self.clock = first.progress.step, Clock(first.progress)
        self.saved_at, self.steps_per_call = time.monotonic(), 1
        if self.step and first.state is not None:  # at step 0 every member has its own initial weights
            self.column.restore(stacked_state(self._states(first.state)))
        for member in members:
            member.state = None  # only needed here, and as large as the column
        if placement.chief:
            self.evaluator = Evaluator(split, self.config)
            facts = self._facts()
            for member in self._active():
                member.begin(self.clock, facts)

    def run(self) -> None:
        """Trains, evaluates and saves until the last step or until every member has diverged."""
        if len(self.members) > 1 and any(not member.trained_with(self.members) for member in self._active()):
            self._save()  # of whom the column consists, before one of them may end
        evaluated = None
        with self._bar(self.config.train_steps, "training", "step", self.step) as bar:
            while self._active():
                if self.placement.chief and self._evaluation_due():
                    evaluated = self._record_evaluation()
                if self.step == self.config.train_steps:
                    break
                evaluated = None  # only the last one is used; it is as large as the column
                self._train_chunk(bar)
                if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
                    self._save()
                if self._agree_on_stopping():
                    self._save()
                    self.request.raise_if_received()
        if evaluated and self._active():  # on the chief
            self._finish(*evaluated)

    def _states(self, other: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """What was restored for each slot of the column; `other` where its members have ended."""
        found = {slot: member.state for slot, member in zip(self.column.slots, self.members)
                 if member.state is not None}
        return [found.get(slot, other) for slot in sorted(set(self.column.slots))]

    def _active(self) -> list[Member]:
        return [member for member in self.members if member.active]

    def _evaluation_due(self) -> bool:
        if self.step == self.config.train_steps:
            return True
        known = all(any(row["step"] == self.step for row in member.history) for member in self._active())
        return self.step % self.config.evaluation_interval == 0 and not known

    def _record_evaluation(self) -> tuple[list[dict[str, PerExample]], dict[str, np.ndarray]]:
        """Records an evaluation of every member, and saves; returns values per member, and the column's state."""
        values = self._evaluate(whole=self.step == self.config.train_steps)
        state = self.column.state()
        for member, slot, found in zip(self.members, self.column.slots, values):
            if member.active:
                weights = {name: state[name][slot] for name in self.column.weight_names}
                member.record(self.step, found, self.evaluator.score(found, member.config.beta), weights)
        self._save(state)
        return values, state

    def _evaluate(self, whole: bool, save: bool = True) -> list[dict[str, PerExample]]:
        """The evaluator's values per member; a signal stops a single worker, after saving if `save`."""
        with self._bar(self.evaluator.num_images(whole), f"evaluating step {self.step}", "image", leave=False) as bar:
            def report(done: int) -> None:
                bar.update(done)
                if self.request.number is not None and not _several_workers(self.placement.strategy):
                    if save:
                        self._save()
                    self.request.raise_if_received()
            return self.evaluator.evaluate(self.column, whole=whole, report=report)

    def _train_chunk(self, bar: tqdm) -> None:
        """Trains up to the next evaluation or as long as CHUNK_SECONDS, and ends members that are not finite."""
        interval = self.config.evaluation_interval
        limit = min(self.config.train_steps, (self.step // interval + 1) * interval) - self.step
        size = min(self.steps_per_call, limit)  # the first call compiles, and is one step
        begun = time.monotonic()
        trace = self.column.train(self.step, size)
        seconds = time.monotonic() - begun
        if not self.clock.compiled:
            bar.unpause()  # keeps compilation out of the time left
        self.clock.add_training(seconds)
        for number, member in enumerate(self.members):
            bad = np.argwhere(~np.isfinite(trace[:, :, number]))
            if member.active and len(bad):
                step, quantity = bad[0]
                member.diverge(self.step + int(step), ("rate", "distortion")[quantity])
        self.step += size
        bar.update(size)
        shown = next((number for number, member in enumerate(self.members) if member.active), 0)
        bar.set_postfix_str(f"beta {self.members[shown].config.beta:g}: distortion {trace[-1, 1, shown]:.1f}, "
                            f"rate {trace[-1, 0, shown]:.1f}", refresh=False)
        if _several_workers(self.placement.strategy):
            self.steps_per_call = 10  # the same on every worker, whatever its clock says
        elif size == self.steps_per_call:
            allowed = TURNS_SECONDS if self.column.num_turns > 1 else CHUNK_SECONDS
            self.steps_per_call = max(1, min(2 * self.steps_per_call, int(allowed / seconds * size)))

    def _agree_on_stopping(self) -> bool:
        """Whether to stop: all workers do if one was asked to. A member that ended on the chief ends everywhere."""
        if not _several_workers(self.placement.strategy):
            return self.request.number is not None
        asked, *active = self._sum_over_workers([self.request.number is not None, *(
            self.placement.chief and member.active for member in self.members)])
        for member, count in zip(self.members, active):
            member.active = member.active and count > 0
        if asked and self.request.number is None:
            self.request.number = signal.SIGTERM
        if asked or self.step == self.config.train_steps or not self._active():
            with contextlib.suppress(*devices.LOST):  # none leaves before all have heard the sums
                self._sum_over_workers([0])
        return bool(asked)

    def _sum_over_workers(self, numbers: list[float]) -> np.ndarray:
        parts = self.placement.strategy.run(lambda: tf.cast(numbers, tf.float32))
        return self.placement.strategy.reduce("SUM", parts, axis=None).numpy()

    def _save(self, state: dict[str, np.ndarray] | None = None) -> None:
        """Writes every active member's history and checkpoint; `state` is the column's, where known."""
        self.saved_at = time.monotonic()
        if self.placement.chief:
            state = state or self.column.state()
            if len(self._active()) > 1:
                for member in self._active():
                    checkpoints.keep_previous(member.run)
            for member, slot in zip(self.members, self.column.slots):
                if member.active:
                    member.save(self.step, member_state(state, slot))
            for member in self._active():
                member.clean()

    def _finish(self, last: list[dict[str, PerExample]], state: dict[str, np.ndarray]) -> None:
        """Evaluates the best weights, and lets every member write its final files."""
        final = [member_state(state, slot) for slot in self.column.slots]
        weights = [checkpoints.load_best(member.run, member.progress.best_step) if member.active else ended
                   for member, ended in zip(self.members, final)]
        best = last
        if any(member.progress.best_step != self.step for member in self._active()):
            self.column.set_weights(stacked_state(weights))
            best = self._evaluate(whole=True, save=False)  # or the best weights would be saved as the last
        images = self.evaluator.test_images(tensorboard.NUM_PICTURES) / np.float32(255)
        for number, member in enumerate(self.members):
            if member.active:
                vae = self.column.member_model(number, weights[number])
                reported = {"best": vae.likelihood_layer.reported()}
                vae.assign_weights(final[number])
                reported["last"] = vae.likelihood_layer.reported()
                member.finish(vae, {"last": last[number], "best": best[number]}, reported, images)

    def _facts(self) -> dict:
        """What results.json says of every member alike."""
        info, placement = self.split.info, self.placement
        return {"num_train": info.num_train, "num_test": info.num_test, "content_sha256": info.content_sha256,
                "column": [member.run.path.name for member in self.members], "versions": devices.versions(),
                "machine": {**devices.machine(), "replicas": placement.strategy.num_replicas_in_sync,
                            "jit": placement.jit, "stacked": placement.stacked}}

    def _bar(self, total: int, text: str, unit: str, initial: int = 0, leave: bool = True) -> tqdm:
        name = self.config.run_name if len(self.members) == 1 else f"{len(self.members)} runs"
        quiet = not (self.show and self.placement.chief)
        return tqdm(total=total, initial=initial, desc=f"{name}, {text}", unit=unit, unit_scale=True, leave=leave,
                    disable=quiet, dynamic_ncols=True, mininterval=0.2 if os.isatty(2) else 30)


def _several_workers(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
