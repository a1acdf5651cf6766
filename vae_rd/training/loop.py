"""The training loop: composes column, evaluation, checkpoints and board into runs that can be stopped anywhere."""

import contextlib
import os
import pathlib
import shutil
import time
import traceback
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from vae_rd.config import Config
from vae_rd.datasets import random_streams, splits
from vae_rd.storage import checkpoints, ending, files, runs
from vae_rd.training import devices, signals, tensorboard
from vae_rd.training.column import Column
from vae_rd.training.evaluation import Evaluator, PerExample

CHECKPOINT_SECONDS = 300
CHUNK_SECONDS = 0.5  # aim for one graph call; a signal waits no longer


class Member:
    """One run of a column: its directory, history and progress; `active` until it has ended."""

    def __init__(self, config: Config, run: runs.RunDir):
        self.config, self.run, self.active = config, run, run.read_results() is None
        resumed = checkpoints.resume(run, config.train_steps) if self.active else checkpoints.NOTHING
        self.progress, self.state, self.history = resumed
        self.per_example: dict[str, dict[str, PerExample]] = {}  # of the final evaluations: last and best
        self.board: tensorboard.Board | None = None


def train(configs: list[Config], split: splits.Split, *, runs_dir: str | os.PathLike, placement: devices.Placement,
          retry: bool = False, skip_busy: bool = False, progress: bool = True) -> None:
    """Trains the runs that have not ended, as columns of those that stand at the same step.

    Args:
        configs: differing in STACKABLE_FIELDS only.
        split: their data.
        runs_dir: gets one directory per run.
        placement: where, from `devices.place`.
        retry: start diverged runs again, from nothing.
        skip_busy: leave runs alone that another process works on, instead of refusing.
        progress: show a bar with the time left.

    Raises:
        signals.Interrupted: after a signal, with everything saved.
        runs.RunError: if another process works on one of the runs, or a directory disagrees with its Config.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.lost_workers_named())
        configs = list(dict.fromkeys(configs))
        if placement.chief:
            busy = _lock(configs, runs_dir, skip_busy, stack)
            configs = [config for config in configs if config not in busy]
        members = [prepare(config, runs.run_dir(runs_dir, config), retry, write=placement.chief) for config in configs]
        request = stack.enter_context(signals.listening())
        for group in _groups([member for member in members if member.active], runs_dir):
            _Training(group, split, placement, request, progress).run()


def _lock(configs: list[Config], runs_dir, skip_busy: bool, stack: contextlib.ExitStack) -> list[Config]:
    """Locks the runs without waiting, in one order for all processes; returns those that others hold."""
    busy = []
    for config in sorted(configs, key=lambda config: config.run_name):
        try:
            stack.enter_context(runs.locked(runs.run_dir(runs_dir, config)))
        except runs.InUse:
            if not skip_busy:
                raise
            busy.append(config)
    return busy


def prepare(config: Config, run: runs.RunDir, retry: bool, write: bool = True) -> Member:
    """The run as it stands; writes config.json if it is new, and clears a diverged run that is to be retried."""
    if run.config.is_file() and run.read_config() != config:
        raise runs.RunError(f"{run.config} does not hold the Config of this run: it was changed by hand or by another "
                            "version. Move the folder away, or choose another --runs_dir.")
    if write and retry:
        run.failure.unlink(missing_ok=True)
    if write and retry and run.status() == runs.DIVERGED:
        run.history.unlink(missing_ok=True)
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        run.results.unlink()  # last: other workers wait for it
    while retry and run.status() == runs.DIVERGED:
        time.sleep(0.1)
    if write and not run.config.is_file():
        files.write_text(run.config, config.to_json())
    return Member(config, run)


def continue_run(source: runs.RunDir, config: Config, run: runs.RunDir) -> None:
    """Lets a new run with more steps begin where a finished run ended: copies its checkpoint, best weights and history.

    Raises:
        runs.RunError: if the source has not finished, or its Config differs in more than the steps.
    """
    if run.config.is_file():
        return  # begun already: it goes on by itself
    if source.status() != runs.FINISHED:
        raise runs.RunError(f"{source.path} is {source.status()}: only a finished run can be continued to more steps.")
    old = source.read_config()
    if config.replace(train_steps=old.train_steps, eval_every=old.eval_every, eval_images=old.eval_images) != old:
        raise runs.RunError(f"{source.path} was trained with another Config: only train_steps, eval_every and "
                            "eval_images may differ when a run is continued.")
    if config.train_steps <= old.train_steps:
        raise runs.RunError(f"train_steps={config.train_steps}: must be more than the {old.train_steps} of "
                            f"{source.path}.")
    with runs.locked(run):
        checkpoints.copy(source, run)
        files.write_text(run.config, config.to_json())


def _groups(members: list[Member], runs_dir: str | os.PathLike) -> list[list[Member]]:
    """Members that stand at the same step and were trained together, with the slots of those that ended meanwhile."""
    groups: dict[tuple, list[Member]] = {}
    for member in members:
        groups.setdefault((member.progress.step, member.progress.column), []).append(member)
    for (_, composition), group in groups.items():
        present = {member.config.run_name for member in group}
        if composition and present < set(composition):
            ended = [runs.RunDir(pathlib.Path(runs_dir) / name) for name in composition if name not in present]
            slots = [Member(run.read_config(), run) for run in ended if run.config.is_file()]
            if len(slots) == len(ended) and not any(slot.active for slot in slots):
                group += slots
                group.sort(key=lambda member: composition.index(member.config.run_name))
    return list(groups.values())


class _Training:
    """One column from the step where it stands to its end."""

    def __init__(self, members: list[Member], split: splits.Split, placement: devices.Placement,
                 request: signals.Request, show: bool):
        self.members, self.split, self.placement, self.request, self.show = members, split, placement, request, show
        self.config = members[0].config
        self.column = Column([member.config for member in members], split.train.images, strategy=placement.strategy,
                             jit=placement.jit, stacked=placement.stacked)
        active = next(member for member in members if member.active)
        self.step, self.train_seconds = active.progress.step, active.progress.train_seconds
        self.wall_before, self.started = active.progress.wall_seconds, time.monotonic()
        self.saved_at, self.chunk, self.compiled = self.started, 1, False
        if active.state is not None:
            states = [member.state or active.state for member in members]
            self.column.restore(self._stacked(states, active.state), self.step)
        if placement.chief:
            self.evaluator = Evaluator(split, self.config)
            tensorboard.write_hparams_config(members[0].run.path.parent)
            for member in members:
                if member.active:
                    member.board = tensorboard.Board(member.run, member.config, member.history)

    def run(self) -> None:
        """Trains, evaluates and saves until the last step or until every member has diverged."""
        with self._bar(self.config.train_steps, "training", "step", self.step) as bar:
            while any(member.active for member in self.members):
                if self._evaluation_due():
                    self._evaluate()
                if self.step == self.config.train_steps:
                    break
                self._train_chunk(bar)
                if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
                    self._save()
                self._agree()
                if self.request.number is not None:
                    self._save()
                    self.request.raise_if_received()
        if self.placement.chief and any(member.active for member in self.members):
            self._finish()

    def _agree(self) -> None:
        """With several workers: all stop if one was asked to, and a member that ended on the chief ends everywhere."""
        if not _several_workers(self.placement.strategy):
            return
        told = [self.request.number is not None, *(self.placement.chief and member.active for member in self.members)]
        parts = self.placement.strategy.run(lambda: tf.cast(told, tf.float32))
        asked, *active = self.placement.strategy.reduce("SUM", parts, axis=None).numpy()
        if asked and self.request.number is None:
            self.request.number = signals.signal.SIGTERM
        for member, count in zip(self.members, active):
            member.active = member.active and count > 0

    def _evaluation_due(self) -> bool:
        if self.step == self.config.train_steps:
            return True
        known = any(row["step"] == self.step for member in self.members if member.active for row in member.history)
        return self.step % self.config.evaluation_interval == 0 and not known

    def _train_chunk(self, bar) -> None:
        interval = self.config.evaluation_interval
        limit = min(self.config.train_steps, (self.step // interval + 1) * interval) - self.step
        size = min(self.chunk, limit)
        begun = time.monotonic()
        trace = self.column.train(self.column.batches(self.step, size), tf.constant(self.step)).numpy()
        seconds = time.monotonic() - begun
        self.train_seconds += seconds if self.compiled else 0.0  # the first call compiles, and is one step
        self.compiled = True
        self._watch(trace)
        self.step += size
        bar.update(size)
        bar.set_postfix_str(f"distortion {trace[-1, 1, 0]:.1f}, rate {trace[-1, 0, 0]:.1f}", refresh=False)
        if _several_workers(self.placement.strategy):
            self.chunk = 10  # the same on every worker, whatever its clock says
        elif size == self.chunk:
            self.chunk = max(1, min(2 * self.chunk, int(CHUNK_SECONDS / seconds * size)))

    def _watch(self, trace: np.ndarray) -> None:
        """Ends members whose training rate or distortion [steps, 2, members] is no longer finite."""
        for place, member in enumerate(self.members):
            bad = np.argwhere(~np.isfinite(trace[:, :, place]))
            if member.active and len(bad):
                step, quantity = bad[0]
                self._diverge(member, self.step + int(step), ("rate", "distortion")[quantity])

    def _diverge(self, member: Member, step: int, quantity: str) -> None:
        """Ends one member with status `diverged`; its last good checkpoint stays."""
        member.active = False
        if not self.placement.chief:
            return
        tqdm.write(f"{member.config.run_name}: {quantity} is not finite at step {step}; the run ends as diverged. Its "
                   f"checkpoint of step {member.progress.step} is kept. Lower the learning rate, or --retry.")
        ending.end(member.run, {"status": runs.DIVERGED, "step": member.progress.step,
                                "diverged": {"step": step, "quantity": quantity}, **self._provenance(member)})
        member.board.finish(runs.DIVERGED)

    def _evaluate(self) -> None:
        """Adds a row per member and partition to the histories, keeps the best weights, and saves."""
        whole = self.step == self.config.train_steps
        if not self.placement.chief:
            return
        values = self._evaluated(whole)
        for member, own in zip(self.members, values):
            if member.active:
                self._record(member, own)
        if whole:
            for member, own in zip(self.members, values):
                member.per_example["last"] = own
        self._save()

    def _evaluated(self, whole: bool, save: bool = True) -> list[dict[str, PerExample]]:
        with self._bar(self.evaluator.num_images(whole), f"evaluating step {self.step}", "image", leave=False) as bar:
            def report(done):
                bar.update(done)
                if self.request.number is not None and not _several_workers(self.placement.strategy):
                    if save:
                        self._save()
                    self.request.raise_if_received()
            return self.evaluator.evaluate(self.column, whole=whole, report=report)

    def _record(self, member: Member, values: dict[str, PerExample]) -> None:
        seconds = round(self._wall_seconds(), 3)
        rows = [{"step": self.step, "partition": partition, **values[partition].metrics(), "wall_seconds": seconds}
                for partition in runs.PARTITIONS if len(values[partition].index)]
        for row in rows:
            bad = [name for name in runs.METRICS if not np.isfinite(row[name])]
            if bad:
                return self._diverge(member, self.step, f"{row['partition']} {bad[0]} in evaluation")
        member.history = [row for row in member.history if row["step"] < self.step] + rows
        member.board.scalars(rows)
        score = self.evaluator.score(values)
        if score < member.progress.best_objective:
            member.progress = member.progress._replace(best_step=self.step, best_objective=score)
            weights = self._member_state(member, self.column.state())
            checkpoints.save_best(member.run, self.step, {name: weights[name] for name in self.column.weight_names})

    def _save(self) -> None:
        """Writes every active member's history and checkpoint, in this order."""
        self.saved_at = time.monotonic()
        state = self.column.state() if self.placement.chief else {}
        for member in self.members:
            if not (member.active and self.placement.chief):
                continue
            own = self._member_state(member, state)
            bad = [name for name, value in own.items() if not np.isfinite(value).all()]
            if bad:
                self._diverge(member, self.step, f"weight {bad[0]}")
                continue
            names = tuple(other.config.run_name for other in self.members)
            member.progress = member.progress._replace(step=self.step, train_seconds=self.train_seconds,
                                                       wall_seconds=self._wall_seconds(), column=names)
            member.run.write_history(member.history)
            checkpoints.save(member.run, member.progress, own, member.history)

    def _finish(self) -> None:
        """Evaluates the best weights, then writes all that a finished run consists of, results.json last."""
        last = self.column.state()
        best = self._stacked([checkpoints.load_best(member.run, member.progress.best_step) if member.active
                              else self._member_state(member, last) for member in self.members],
                             self.column.weight_names)
        self.column.set_weights(best)
        if all(member.progress.best_step == self.step for member in self.members if member.active):
            values = [member.per_example["last"] for member in self.members]
        else:
            values = self._evaluated(whole=True, save=False)  # or the best weights would be saved as the last
        for member, own in zip(self.members, values):
            member.per_example["best"] = own
        self.column.set_weights(last)
        for place, member in enumerate(self.members):
            if member.active:
                self._finish_member(place, member)

    def _finish_member(self, place: int, member: Member) -> None:
        run, single = member.run, self.column.member_model(place)
        for checkpoint in runs.CHECKPOINT_NAMES:
            for partition in ("train", "test"):
                values = member.per_example[checkpoint][partition]
                ending.write_values(run, partition, checkpoint,
                                    {name: getattr(values, name)
                                     for name in ("index", "rate", "distortion", "entropy_floor")})
        with files.whole_file(run.model) as beside:
            single.save(beside)
        shown = random_streams.evaluation_subset(self.split.test.index, tensorboard.NUM_PICTURES)
        member.board.pictures(single, self.split.test.images[shown] / np.float32(255), self.step)
        member.board.finish(runs.FINISHED)
        summaries = {checkpoint: {partition: values.metrics()
                                  for partition, values in parts.items() if len(values.index)}
                     for checkpoint, parts in member.per_example.items()}
        ending.end(run, {"status": runs.FINISHED, "step": self.step, **summaries["last"],
                         "best": {"step": member.progress.best_step, **summaries["best"]},
                         **self._provenance(member)})
        run.failure.unlink(missing_ok=True)
        member.active = False

    def _provenance(self, member: Member) -> dict:
        info = self.split.info
        return {"wall_seconds": round(self._wall_seconds(), 3),
                "steps_per_second": round(self.step / self.train_seconds, 3) if self.train_seconds else None,
                "num_train": info.num_train, "num_test": info.num_test, "content_sha256": info.content_sha256,
                "column": [other.config.run_name for other in self.members], "versions": devices.versions(),
                "machine": {**devices.machine(), "replicas": self.placement.strategy.num_replicas_in_sync,
                            "jit": self.placement.jit, "stacked": self.placement.stacked}}

    def _stacked(self, states: list[dict[str, np.ndarray]], names: Iterable[str]) -> dict[str, np.ndarray]:
        return {name: np.stack([state[name] for state in states]) for name in names}

    def _member_state(self, member: Member, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        place = self.members.index(member)
        return {name: values[place] for name, values in state.items()}

    def _wall_seconds(self) -> float:
        return self.wall_before + time.monotonic() - self.started

    def _bar(self, total: int, text: str, unit: str, initial: int = 0, leave: bool = True):
        name = self.config.run_name if len(self.members) == 1 else f"{len(self.members)} runs"
        quiet = not (self.show and self.placement.chief)
        return tqdm(total=total, initial=initial, desc=f"{name}, {text}", unit=unit, unit_scale=True, leave=leave,
                    disable=quiet, dynamic_ncols=True, mininterval=0.2 if os.isatty(2) else 30)


def record_failure(run: runs.RunDir, error: BaseException) -> None:
    """Leaves the traceback of a failed attempt in the run directory."""
    files.write_text(run.failure, "".join(traceback.format_exception(error)))


def _several_workers(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
