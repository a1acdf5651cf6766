"""What all entry points share: flags only, and failures in words."""

import errno
import subprocess
import sys

import pytest

from tests import commands
from vae_rd import cli
from vae_rd.analysis.tables import TableError
from vae_rd.config import ConfigError
from vae_rd.datasets.records import RecordsError
from vae_rd.storage.runs import RunError


def ended(error: BaseException | None, argv=("program",)):
    """What the process would end with if the body of an entry point raised this."""
    with pytest.raises(SystemExit) as caught, cli.failures_in_words(list(argv)):
        if error is not None:
            raise error
    return caught.value.code


def test_a_body_that_ends_well_is_left_alone():
    with cli.failures_in_words(["program"]):
        pass


@pytest.mark.parametrize("kind", [ConfigError, RecordsError, RunError, TableError])
def test_what_the_user_can_mend_is_one_line(kind):
    assert ended(kind("beta must be 0 or more (got -1.0).")) == "error: beta must be 0 or more (got -1.0)."


@pytest.mark.parametrize("error, words", [
    (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "You need permission for it"),
    (OSError(errno.EROFS, "Read-only file system", "runs/a"), "It cannot be written: name another folder"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", ".b", None, "runs/a"),
     "runs/a is a folder where a file should be. Move it away"),
    (FileExistsError(errno.EEXIST, "File exists", "runs/a"), "runs/a is a file where a folder should be"),
    (OSError(errno.EIO, "Input/output error", "runs/a"), "Fix that, or name another folder")])
def test_what_the_system_refuses_has_its_own_remedy(error, words):
    said = ended(error)
    assert "runs/a" in said and words in said and "ake room" not in said


def test_a_full_disk_is_said_with_what_to_do():
    words = ended(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    assert words.startswith("error: ") and "No space left on device: 'runs/a'" in words and "Make room" in words


def test_words_that_are_no_flags_are_refused_before_anything_runs():
    assert ended(None, ("program", "figure3")) == (
        "error: 'figure3' is not a flag. Write --name=value; --help lists the names.")


def test_ctrl_c_ends_as_a_shell_expects(capsys):
    assert ended(KeyboardInterrupt()) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_an_error_with_a_status_of_its_own_keeps_it(capsys):
    stopped = RuntimeError("stopped by SIGTERM; the same command continues")
    stopped.exit_status = 85
    assert ended(stopped) == 85
    assert capsys.readouterr().err == "stopped by SIGTERM; the same command continues\n"


@pytest.mark.parametrize("error", [ValueError("shapes differ"), KeyError("rate"), ZeroDivisionError()])
def test_an_error_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)), cli.failures_in_words(["program"]):
        raise error


@pytest.mark.parametrize("argument, status", [("--help", 0), ("--helpfull", 0), ("--nonsense", 1)])
def test_help_that_was_asked_for_is_a_success(argument, status):
    done = commands.run("data_gen.main", argument)
    assert done.returncode == status and ("--split" in done.stdout) == (status == 0)


@pytest.mark.parametrize("module, argument, words", [
    ("vae_rd.main", "--bta=1", "--bta is not a flag. Did you mean --beta?"),
    ("vae_rd.main", "--train_steps=1.5", "train_steps must be a whole number (got '1.5')."),
    ("vae_rd.main", "--learning_rate=fast", "learning_rate must be a number (got 'fast')."),
    ("vae_rd.main", "--strategy=two", "strategy must be one of auto, one_device, mirrored, multi_worker (got 'two')."),
    ("vae_rd.sweep", "--workers=0", "workers must be a whole number, 1 or more (got '0')."),
    ("vae_rd.sweep", "--retry=maybe", "retry must be true or false (got 'maybe')."),
    ("data_gen.main", "--seed=-1", "seed must be a whole number from 0 to 2147483647 (got '-1')."),
    ("data_gen.main", "--colour", "--colour is not a flag. --help lists the flags.")])
def test_wrong_flags_are_refused_in_words(module, argument, words):
    done = commands.run(module, argument)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {words}") and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["vae_rd.main --help", "vae_rd.sweep --experiment=figure4 --scale=paper --list"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(command):
    process = subprocess.Popen([sys.executable, "-m", *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() in (0, cli.BROKEN_PIPE)


@pytest.mark.parametrize("module", ["vae_rd.main", "vae_rd.sweep", "vae_rd.evaluate"])
def test_shared_flags_are_listed_by_every_entry_point_that_has_them(module):
    shown = commands.run(module, "--help").stdout
    assert "--data_dir: folder of the data sets" in shown and "--[no]progress: show progress bars" in shown


def test_all_stands_for_all_measures_and_unknown_ones_are_named():
    known = {"information": 1, "pictures": 2}
    assert cli.measures(["all"], known) == ["information", "pictures"]
    assert cli.measures(["pictures"], known) == ["pictures"] and cli.measures([], known) == []
    with pytest.raises(ConfigError, match=r"measures must be among information, pictures, or all \(got fun\)"):
        cli.measures(["pictures", "fun"], known)


@pytest.mark.slow
def test_tensorflow_starts_without_its_news_and_real_warnings_pass(monkeypatch):
    program = ("import os, sys; from vae_rd import cli\nos.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', cli.QUIET)\n"
               "with cli.quietly():\n    import tensorflow\n    os.write(2, b'W0000 low on memory\\n')\n"
               "os.write(2, b'I0000 afterwards\\n')")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "W0000 low on memory\nI0000 afterwards\n"
