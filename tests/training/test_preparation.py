"""Which members of a column go back to the checkpoint before the last after a kill."""

import numpy as np
import pytest

from vae_rd.config import Config
from vae_rd.storage import checkpoints, runs
from vae_rd.training import preparation
from vae_rd.training.members import Member

CONFIGS = [Config(beta=beta) for beta in (0.1, 1.0, 5.0)]


@pytest.fixture
def save(tmp_path):
    """save(number, step, members) makes this the last checkpoint of a run, the one before being kept."""
    made = [runs.run_dir(tmp_path, config) for config in CONFIGS]

    def write(number, step, members):
        checkpoints.keep_previous(made[number])
        column = tuple(made[member].path.name for member in members)
        checkpoints.save(made[number], checkpoints.START._replace(step=step, column=column), {"x": np.ones(1)}, [])
        return made[number]
    return write


def steps(made):
    """Where runs stand for a training that begins."""
    members = [Member(config, run) for config, run in zip(CONFIGS, made)]
    return [member.progress.step for member in preparation.at_one_step(members, write=True)]


@pytest.mark.parametrize("before, members", [(100, [0, 1]), (100, [0, 1, 2]), (0, [0])])
def test_a_member_that_was_saved_alone_goes_back(save, before, members):
    """Also where the save is the first of a new composition; at step 0 the earlier one does not count."""
    save(0, before, members)
    made = [save(0, 200, [0, 1]), save(1, before, members)]
    assert steps(made) == [before, before]
    assert not made[0].previous_checkpoint.exists()


def test_a_save_at_the_same_step_in_a_new_composition_is_undone(save):
    save(0, 100, [0, 1, 2])
    made = [save(0, 100, [0, 1]), save(1, 100, [0, 1, 2])]
    members = preparation.at_one_step([Member(config, run) for config, run in zip(CONFIGS, made)], write=True)
    assert len(preparation.resumed_columns(members, made[0].path.parent)) == 1


@pytest.mark.parametrize("damaged", ["checkpoint", "config", "results", "file system"])
def test_a_damaged_member_keeps_no_other_from_going_on(save, damaged, monkeypatch):
    """Alone, as a sweep tries it where a column fails; were the member whole, the others would keep its slot."""
    made = [save(number, 100, [0, 1, 2]) for number in range(3)]
    for run, config in zip(made, CONFIGS):
        run.config.write_text(config.to_json())
        if run != made[0]:
            run.results.write_text('{"status": "diverged", "step": 3, "diverged": {"step": 3, "quantity": "rate"}}')

    def resumed():
        columns = preparation.resumed_columns([Member(CONFIGS[0], made[0])], made[0].path.parent)
        return [len(column) for column in columns]

    assert resumed() == [3]
    if damaged == "checkpoint":
        made[1].results.unlink()  # it has not ended
    files = {"checkpoint": made[1].last_checkpoint, "config": made[1].config, "results": made[1].results}
    if damaged in files:
        files[damaged].write_text("")
    else:
        monkeypatch.setattr(runs.RunDir, "read_config", lambda run: (_ for _ in ()).throw(OSError("stale")))
    assert resumed() == [1]


def test_a_member_that_was_trained_apart_stays_where_it_is(save):
    save(0, 100, [0, 1])
    made = [save(0, 200, [0]), save(1, 100, [0, 1])]
    assert steps(made) == [200, 100]


def test_a_checkpoint_of_another_step_is_not_put_back(save):
    save(0, 150, [0, 1])
    made = [save(0, 200, [0, 1]), save(1, 100, [0, 1])]
    assert steps(made) == [200, 100]
    assert not made[0].previous_checkpoint.exists()


def test_a_kept_checkpoint_that_is_damaged_is_named_with_a_remedy_that_works(save):
    save(0, 100, [0, 1])
    made = [save(0, 200, [0, 1]), save(1, 100, [0, 1])]
    made[0].previous_checkpoint.write_bytes(b"damaged")
    with pytest.raises(runs.RunError, match="previous.npz cannot be read, .*: remove it, and run the same command"):
        steps(made)
    made[0].previous_checkpoint.unlink()
    assert steps(made) == [200, 100]
