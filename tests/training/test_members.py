"""Members: their clock, and what a worker that is not the chief writes."""

import json

from vae_rd.config import Config
from vae_rd.storage import checkpoints, runs
from vae_rd.training import members


def test_the_clock_goes_on_where_the_run_was_and_leaves_out_compilation(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(members.time, "monotonic", lambda: now[0])
    clock = members.Clock(checkpoints.START._replace(train_seconds=7.0, wall_seconds=20.0))
    now[0] = 105.5
    clock.add_training(4.0)  # compiles
    assert clock.train_seconds == 7.0 and clock.wall_seconds() == 25.5
    clock.add_training(0.5)
    clock.add_training(1.0)
    assert clock.train_seconds == 8.5


def test_a_member_that_never_began_ends_without_writing(tmp_path, capsys):
    """Workers other than the chief see that a member diverges, and leave its files to the chief."""
    config = Config()
    member = members.Member(config, runs.run_dir(tmp_path, config))
    assert member.active
    member.diverge(3, "rate")
    assert not member.active and list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_a_member_that_has_ended_is_not_active(tmp_path):
    run = runs.run_dir(tmp_path, Config())
    run.path.mkdir()
    run.results.write_text(json.dumps({"status": "diverged", "step": 0, "diverged": {"step": 1, "quantity": "rate"}}))
    member = members.Member(Config(), run)
    assert not member.active and member.progress == checkpoints.START
