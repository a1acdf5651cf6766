"""Before the first step: locks, config.json, retries, runs that continue a shorter one, which runs train together."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import time

from vae_rd.config import Config
from vae_rd.storage import checkpoints, files, runs
from vae_rd.training.members import Member


def lock(configs: list[Config], runs_dir: str | os.PathLike, skip_busy: bool,
         stack: contextlib.ExitStack) -> list[Config]:
    """Locks the runs until the stack closes, without waiting, in one order for all processes.

    Args:
        configs: of the runs.
        runs_dir: folder of the run directories.
        skip_busy: leave out runs that another process works on, instead of refusing.
        stack: holds the locks.

    Returns:
        The Configs of the locked runs, in the order given.

    Raises:
        runs.InUse: without `skip_busy`, naming the holder.
    """
    left = sorted(configs, key=lambda config: config.run_name)
    while True:
        busy = []
        for config in left:
            try:
                stack.enter_context(runs.locked(runs.run_dir(runs_dir, config)))
            except runs.InUse:
                if not skip_busy:
                    raise
                busy.append(config)
        if len(busy) in (0, len(left)):  # else a process may just have ended that held all of a column
            return [config for config in configs if config not in busy]
        left = busy


def prepare(config: Config, run: runs.RunDir, retry: bool, write: bool = True) -> Member:
    """The run as it stands; writes config.json if it is new, and clears a diverged run that is to be retried.

    Args:
        config: of the run.
        run: its directory.
        retry: start a diverged run again, from scratch.
        write: False for workers other than the chief, which wait for the chief to clear.

    Raises:
        runs.RunError: if the directory holds another Config.
    """
    if run.config.is_file() and run.read_config() != config:
        raise runs.RunError(f"{run.config} must be the Config of this run (got another): it was changed by hand, or by "
                            "another version. Move the folder away, or choose another --runs_dir.")
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


def continue_run(source: runs.RunDir, config: Config, run: runs.RunDir, retry: bool = False) -> None:
    """Lets a new run with more steps begin where a finished run ended: copies its checkpoint, best weights and history.

    A run that has begun is left alone: training resumes it. With `retry`, one that diverged begins there again.

    Raises:
        runs.RunError: if the source has not finished, or its Config differs in more than the steps.
    """
    again = retry and run.status() == runs.DIVERGED
    if run.config.is_file() and not again:
        return
    if source.status() != runs.FINISHED:
        raise runs.RunError(f"{source.path} must be a finished run to be continued (it is {source.status()}).")
    old = source.read_config()
    changed = [field.name for field in dataclasses.fields(old) if field.name not in ("train_steps", "eval_every")
               and getattr(old, field.name) != getattr(config, field.name)]
    if changed:
        raise runs.RunError("only train_steps and eval_every may differ from the Config of the run that is continued, "
                            f"{source.path} (got another {', '.join(changed)}). Give the values of that run.")
    if config.train_steps <= old.train_steps:
        raise runs.RunError(f"train_steps must be more than the {old.train_steps} of {source.path} (got "
                            f"{config.train_steps}).")
    with runs.locked(run):
        if again:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
        checkpoints.copy(source, run)
        files.write_text(run.config, config.to_json())
        if again:
            run.results.unlink()  # last: until then the run has diverged, and other workers wait


def at_one_step(members: list[Member], write: bool) -> list[Member]:
    """Takes members back to the checkpoint before the last if a kill hit before all of their column had saved.

    Otherwise the column would go on in parts, which round differently.

    Args:
        members: as they stand on disk.
        write: False for workers other than the chief, which wait for the chief to put the checkpoints back.
    """
    stands = {member.run.path.name: member.progress for member in members if member.active}

    def unsaved(member: Member) -> list[checkpoints.Progress]:
        """Progress of the members of its column whose last save is missing."""
        column = [stands[name] for name in member.progress.column if name in stands]
        return [other for other in column if other.step < member.progress.step
                or other.step == member.progress.step and other.column != member.progress.column]

    found = []
    for member in members:
        if member.active and (others := unsaved(member)):
            if write:
                checkpoints.restore_previous(member.run, others)
            while member.run.previous_checkpoint.is_file():
                time.sleep(0.1)
            member = Member(member.config, member.run)
        found.append(member)
    return found


def resumed_columns(members: list[Member], runs_dir: str | os.PathLike) -> list[list[Member]]:
    """Active members that stand at the same step and were trained together, with those of their column that have ended.

    A column of the same members gives the same bits, so one that goes on keeps the slots of members that have ended.
    """
    groups: dict[tuple, list[Member]] = {}
    for member in members:
        if member.active:
            groups.setdefault(member.progress.place, []).append(member)
    for group in groups.values():
        composition = max((member.progress.column for member in group), key=len)  # at step 0 some may have none yet
        present = {member.run.path.name for member in group}
        if composition and present < set(composition):
            ended = [runs.RunDir(pathlib.Path(runs_dir) / name) for name in composition if name not in present]
            with contextlib.suppress(files.FileError, OSError):  # of one that cannot be read: it is named elsewhere
                slots = [Member(run.read_config(), run) for run in ended if run.read_results()]
                if len(slots) == len(ended) and not any(slot.active for slot in slots):
                    group += slots
                    group.sort(key=lambda member: composition.index(member.run.path.name))
    return list(groups.values())
