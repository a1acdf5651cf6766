"""The command `vae-rd`: its words lead to the entry points, with their flags."""

import pytest

from tests import commands
from vae_rd import command


def run(*words):
    return commands.run("vae_rd.command", *words)


@pytest.mark.parametrize("name, flag", [("train", "--beta"), ("sweep", "--experiment"), ("measure", "--measures"),
                                        ("export", "--out_dir"), ("generate", "--split")])
def test_each_word_shows_the_flags_of_its_entry_point(name, flag):
    done = run(name, "--help")
    assert done.returncode == 0 and flag in done.stdout + done.stderr


def test_the_flags_arrive():
    done = run("sweep", "--experiment=figure8", "--scale=smoke", "--list")
    assert done.returncode == 0 and "runs in" in done.stdout


def test_help_and_an_unknown_word_list_the_commands():
    for done, status in ((run("--help"), 0), (run("trian"), 1), (run(), 1)):
        assert done.returncode == status
        assert all(name in done.stdout + done.stderr for name in command.COMMANDS)
