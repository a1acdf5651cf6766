"""What the entry points have in common: their shared flags, and every foreseeable failure as one line of words."""

import contextlib
import dataclasses
import difflib
import errno
import importlib
import os
import re
import select
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from absl import app, flags

from vae_rd.config import ConfigError
from vae_rd.datasets.records import RecordsError
from vae_rd.storage.files import FileError

FORESEEABLE = (ConfigError, RecordsError, FileError)
INTERRUPTED = 130  # exit status after Ctrl-C, as a shell gives it
BROKEN_PIPE = 141  # and after a reader such as `head` has closed the pipe
QUIET = "3"  # of TensorFlow's log levels: nothing
_NEWS = re.compile(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog")
HELP = ("--help", "--helpfull", "--helpshort", "-help", "-h")
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_REMEDIES = {**dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room, or name another folder"),
             **dict.fromkeys((errno.EACCES, errno.EPERM), "You need permission for it: get it, or name another folder"),
             errno.EROFS: "It cannot be written: name another folder"}
_LATER: list[Callable[[], None]] = []  # definitions of flags that have to wait for --import
_WRONG_PLACES = {errno.EISDIR: "is a folder where a file should be",
                 errno.ENOTDIR: "has a file in its path where a folder should be",
                 errno.EEXIST: "is a file where a folder should be"}


def data_dir() -> flags.FlagHolder[str]:
    """Defines --data_dir for the entry point that calls; so do the functions that follow."""
    return _define(flags.DEFINE_string, "data_dir", "data", "folder of the data sets")


def raw_dir() -> flags.FlagHolder[str | None]:
    """Defines --raw_dir."""
    return _define(flags.DEFINE_string, "raw_dir", None, "folder of original data files (default: <data_dir>/raw)")


def runs_dir() -> flags.FlagHolder[str]:
    """Defines --runs_dir."""
    return _define(flags.DEFINE_string, "runs_dir", "runs", "folder with one directory per run")


def retry() -> flags.FlagHolder[bool]:
    """Defines --retry."""
    return _define(flags.DEFINE_bool, "retry", False, "run diverged and failed runs again")


def progress() -> flags.FlagHolder[bool]:
    """Defines --progress."""
    return _define(flags.DEFINE_bool, "progress", True, "show progress bars")


def modules() -> flags.FlagHolder[list[str]]:
    """Defines --import; `import_modules` does it."""
    return _define(flags.DEFINE_list, "import", [], "modules of your own, which add priors, likelihoods, networks, "
                   "measures, experiments or data sets to the tables of vae_rd and data_gen")


def settings(known: Mapping[str, Any]) -> dict[str, flags.FlagHolder]:
    """Defines a flag for each setting of these measures, which all share that have it; without, it has its default.

    What --import adds to them gets its flags once it is imported, before the command line is read.

    Args:
        known: the table of measures, by name.

    Returns:
        The flags by name.
    """
    defined: dict[str, flags.FlagHolder] = {}
    _define_settings(defined, known)
    _LATER.append(lambda: _define_settings(defined, known, module_name=sys.argv[0]))
    return defined


def given(defined: Mapping[str, flags.FlagHolder]) -> dict[str, Any]:
    """The values of those flags that were given."""
    return {name: flag.value for name, flag in defined.items() if flag.value is not None}


def _define_settings(defined: dict[str, flags.FlagHolder], known: Mapping[str, Any], **owner: str) -> None:
    fields: dict[str, list[dataclasses.Field]] = {}
    for measure in known.values():
        for field in dataclasses.fields(measure.settings):
            fields.setdefault(field.name, []).append(field)
    for name, same in fields.items():
        default = repr(same[0].default) if len({field.default for field in same}) == 1 else "each measure's own number"
        text = f"{same[0].metadata['text']} (default: {default})"
        if name in defined:
            flags.FLAGS[name].help = text
            continue
        if name in flags.FLAGS:
            raise ConfigError(f"a setting of a measure must not have the name of another flag (got {name!r}). Rename "
                              "it.")
        define = flags.DEFINE_float if "float" in str(same[0].type) else flags.DEFINE_integer
        defined[name] = _define(define, name, None, text, **owner)


def import_modules(names: Iterable[str]) -> str:
    """Imports the modules that --import names, before the tables that they add to are read.

    Returns:
        Their names as Config.imports has them.

    Raises:
        ConfigError: for a module that cannot be found, or whose import fails.
    """
    for name in names:
        try:
            with quietly():
                importlib.import_module(name)
        except Exception as error:  # whatever the user's module raises
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                remedy = (f"Try {name.removesuffix('.py')}, without .py" if name.endswith(".py") else
                          "Try it in the folder that holds the module, by python -m, or add that folder to PYTHONPATH")
                raise ConfigError(f"import must name modules that Python finds (got {name!r}). {remedy}.") from error
            raise ConfigError(f"import of {name} failed ({type(error).__name__}: {error}). Fix that module."
                              ) from error
    return ",".join(names)


def _define(define: Callable[..., flags.FlagHolder], *arguments: object, **options: str) -> flags.FlagHolder:
    flags.disclaim_key_flags()  # --help lists a flag under the entry point that asked for it, not under this module
    return define(*arguments, **options)


def measures(values: list[str], known: Iterable[str]) -> list[str]:
    """The measures that --measures names; `all` stands for all.

    Raises:
        ConfigError: for an unknown one.
    """
    known = list(known)
    unknown = [name for name in values if name not in known and values != ["all"]]
    if unknown:
        raise ConfigError(f"measures must be among {', '.join(known)}, or all (got {', '.join(unknown)}).")
    return known if values == ["all"] else values


def run(main: Callable[[list[str]], None]) -> None:
    """Runs an entry point with its flags read; unlike absl's own, help that was asked for is a success."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", QUIET)  # else it reports a missing GPU as an error
    try:
        try:
            app.run(main, flags_parser=_parsed)
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        if ended.code == 1 and set(HELP) & set(sys.argv[1:]):
            sys.exit(0)
        raise
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        sys.exit(BROKEN_PIPE)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """For importing TensorFlow: drops what it logs before it reads TF_CPP_MIN_LOG_LEVEL; passes the rest on.

    With the variable set to anything below 3, everything is shown.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != QUIET:
        yield
        return
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not _NEWS.match(line)))


def _output_is_closed() -> bool:
    """Whether nobody reads what is printed; if so, what is left of it goes nowhere instead of raising once more."""
    closed = [stream.fileno() for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream.fileno())]
    for number in closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(closed)


def _has_no_reader(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _parsed(argv: list[str]) -> list[str]:
    """What is left of the command line after its flags.

    Raises:
        SystemExit: with a message, for an unknown flag or a value that it cannot have.
    """
    try:
        import_modules(_modules_named(argv) if "import" in flags.FLAGS else [])
        for define in _LATER:
            define()
        return flags.FLAGS(argv)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except flags.UnrecognizedFlagError as error:
        names = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(argv[0])} or set(flags.FLAGS)
        near = difflib.get_close_matches(error.flagname, names)
        hint = f"Did you mean {' or '.join(f'--{name}' for name in near)}? " if near else ""
        sys.exit(f"error: --{error.flagname} is not a flag. {hint}--help lists the flags.")
    except flags.IllegalFlagValueError as error:
        sys.exit(f"error: {_wrong_value(str(error))}")
    except flags.Error as error:
        sys.exit(f"error: {error}. --help lists the flags.")


def _modules_named(argv: list[str]) -> list[str]:
    """What --import says, looked up before the flags are read: its modules may define some of them."""
    names: list[str] = []
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in ("--import", "-import"):
            names = (value if equals else "".join(argv[position + 1:position + 2])).split(",")
    return [name.strip() for name in names if name.strip()]


def _wrong_value(message: str) -> str:
    """Words for absl's message about a value: what it must be, and what it was."""
    found = re.fullmatch(r"flag --(\w+)=(.*?): .*", message, re.DOTALL)
    if not found or found[1] not in flags.FLAGS:
        return message
    name, value = found.groups()
    parser = flags.FLAGS[name].parser
    low, high = getattr(parser, "lower_bound", None), getattr(parser, "upper_bound", None)
    if choices := getattr(parser, "enum_values", None):
        rule = f"one of {', '.join(choices)}"
    else:
        rule = _KINDS.get(flags.FLAGS[name].flag_type(), parser.syntactic_help)
    if low is not None:
        rule += f", {low} or more" if high is None else f" from {low} to {high}"
    return f"{name} must be {rule} (got {value!r})."


@contextlib.contextmanager
def failures_in_words(argv: list[str]) -> Iterator[None]:
    """Around the body of an entry point: failures that a user can mend end it with one line of words.

    Args:
        argv: what is left of the command line after its flags: the program's name alone, or it is refused.

    Raises:
        SystemExit: with one line for an error that the user can fix; with an error's own `exit_status` if it has one.
            Any other error is a bug, and keeps its traceback.
    """
    try:
        if argv[1:]:
            raise ConfigError(f"{argv[1]!r} is not a flag. Write --name=value; --help lists the names.")
        yield
    except FORESEEABLE as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.exit(f"error: {_os_words(error)}")
    except KeyboardInterrupt:
        print("interrupted: what is on disk is whole, and the same command continues.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "exit_status"):
            raise
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)


def _os_words(error: OSError) -> str:
    """What the system refused, and what to do."""
    if error.errno in _WRONG_PLACES and error.filename is not None:
        path = error.filename if error.filename2 is None else error.filename2
        return f"{path} {_WRONG_PLACES[error.errno]}. Move it away, or name another folder, and run the same command."
    remedy = _REMEDIES.get(error.errno or 0, "Fix that, or name another folder")
    return f"{error}. What is on disk is whole. {remedy}, and run the same command."
