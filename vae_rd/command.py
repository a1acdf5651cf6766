"""One command for everything: `vae-rd train --beta=0.1` is `python -m vae_rd.main --beta=0.1`."""

import importlib
import sys

from vae_rd import cli

COMMANDS = {"train": ("vae_rd.main", "train runs"),
            "sweep": ("vae_rd.sweep", "run an experiment, or a part of it"),
            "measure": ("vae_rd.evaluate", "measure finished runs"),
            "export": ("vae_rd.export", "write tables, figures and verdicts"),
            "generate": ("data_gen.main", "make a data set")}


def main() -> None:
    """Runs the entry point that the first word of the command line names, with the rest as its flags."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in cli.HELP:
        print(_usage())
        return
    if name not in COMMANDS:
        sys.exit(f"error: the first word must be a command (got {name!r}).\n{_usage()}")
    module = COMMANDS[name][0]
    entry = importlib.import_module(module)
    sys.argv = [module, *sys.argv[2:]]  # absl prints the flags of the module that it finds here
    cli.run(entry.main)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}; the same as python -m {module}" for name, (module, text) in COMMANDS.items()]
    return "\n".join(["Usage: vae-rd COMMAND [--flag=value ...]", *lines, "vae-rd COMMAND --help lists its flags."])


if __name__ == "__main__":
    main()
