"""What all entry points share: flags only, and failures in words."""

import errno
import subprocess
import sys

import pytest

from vae_rd import cli
from vae_rd.analysis.tables import TableError
from vae_rd.config import ConfigError
from vae_rd.datasets.records import RecordsError
from vae_rd.storage.runs import RunError


def ended(error: BaseException | None, argv=("program",)):
    """What the process would end with if the body of an entry point raised this."""
    with pytest.raises(SystemExit) as caught, cli.opened(list(argv)):
        if error is not None:
            raise error
    return caught.value.code


def test_a_body_that_ends_well_is_left_alone():
    with cli.opened(["program"]):
        pass


@pytest.mark.parametrize("kind", [ConfigError, RecordsError, RunError, TableError])
def test_what_the_user_can_mend_is_one_line(kind):
    assert ended(kind("beta=-1.0: must be 0 or more.")) == "error: beta=-1.0: must be 0 or more."


def test_a_full_disk_is_said_with_what_to_do():
    words = ended(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    assert words.startswith("error: ") and "No space left on device: 'runs/a'" in words and "make room" in words


def test_words_that_are_no_flags_are_refused_before_anything_runs():
    assert ended(None, ("program", "figure3")) == ("error: 'figure3' is no flag. Write --name=value; --help lists the "
                                                   "names.")


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
    with pytest.raises(type(error)), cli.opened(["program"]):
        raise error


@pytest.mark.parametrize("argument, status", [("--help", 0), ("--helpfull", 0), ("--nonsense", 1)])
def test_help_that_was_asked_for_is_a_success(argument, status):
    command = [sys.executable, "-m", "data_gen.main", argument]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status and ("--split" in done.stdout) == (status == 0)
