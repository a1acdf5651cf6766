"""What every entry point has in common: it takes flags only, and says each foreseeable failure in a line of words."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from absl import app

from vae_rd.config import ConfigError
from vae_rd.datasets.records import RecordsError
from vae_rd.storage.files import FileError

FORESEEABLE = (ConfigError, RecordsError, FileError)
INTERRUPTED = 130  # exit status after Ctrl-C, as a shell gives it
HELP = ("--help", "--helpfull", "--helpshort", "-help", "-h")


def run(main: Callable[[list[str]], None]) -> None:
    """Runs an entry point with its flags read; unlike absl's own, help that was asked for is a success."""
    try:
        app.run(main)
    except SystemExit as ended:
        if ended.code == 1 and set(HELP) & set(sys.argv[1:]):
            sys.exit(0)
        raise


@contextlib.contextmanager
def opened(argv: list[str]) -> Iterator[None]:
    """The body of an entry point.

    Args:
        argv: what is left of the command line after its flags: the program's name alone, or it is refused.

    Raises:
        SystemExit: with a line of words for what the user can mend; with an error's own `exit_status` if it has one.
            An error of any other kind is ours, and keeps its traceback.
    """
    try:
        if argv[1:]:
            raise ConfigError(f"{argv[1]!r} is no flag. Write --name=value; --help lists the names.")
        yield
    except FORESEEABLE as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}. What is on disk is whole; make room, or name another folder, and run the same "
                 "command.")
    except KeyboardInterrupt:
        print("interrupted: what is on disk is whole, and the same command continues.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "exit_status"):
            raise
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
