"""Modules of a user's own, --import: that of docs/python.md trains, is measured, recorded, and asked for in words."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from vae_rd import api, cli
from vae_rd.config import Config, ConfigError, NotImported
from vae_rd.storage import runs

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs/python.md"
CODE = re.search(r"Here `my_parts.py`:\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The run of a command with --import, in a process of its own; this process has not imported the module."""
    folder = tmp_path_factory.mktemp("imports")
    (folder / "my_parts.py").write_text(CODE)
    small = ["--split=cd_300", "--image_size=8", "--hidden_units=16", "--batch_size=32", "--train_steps=20"]
    command(folder, "main", "--import=my_parts", "--prior=laplace", "--measures=badly_reconstructed", "--noprogress",
            "--bad_from=121.5", f"--data_dir={data_dir}", *small)
    run, = runs.find_runs(folder / "runs")
    return run


def command(folder, module, *flags):
    ended = subprocess.run([sys.executable, "-m", f"vae_rd.{module}", *flags], cwd=folder, capture_output=True,
                           text=True, env=os.environ | {"PYTHONPATH": str(PAGE.parents[1])})
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_names_that_the_module_added_train_and_are_recorded(trained):
    recorded = json.loads(trained.config.read_text())
    assert (recorded["imports"], recorded["prior"]) == ("my_parts", "laplace")
    share = trained.read_measures()["last"]["badly_reconstructed"]["test"]["bad_share"]
    distortion = trained.read_arrays(trained.per_example("test"))["distortion"]
    assert share == (distortion > 121.5).mean() != (distortion > 20).mean()
    assert trained.read_measures()["last"]["badly_reconstructed"]["settings"]["bad_from"] == 121.5
    assert trained.read_results()["status"] == runs.FINISHED


def test_a_run_is_not_read_without_its_module_and_never_imports_it(trained, data_dir):
    with pytest.raises(runs.RunError, match="config.json: imports must be modules that are imported already .got "
                                            "'my_parts'.. Try --import=my_parts"):
        api.open_run(trained.path, data_dir)
    row, = api.load_runs(trained.path.parent).itertuples()
    assert row.status == "unreadable" and "Try --import=my_parts" in row.note
    assert "my_parts" not in sys.modules


@pytest.mark.slow
def test_evaluate_and_export_take_the_module(trained, data_dir):
    folder = trained.path.parents[1]
    assert "measured" in command(folder, "evaluate", "--import=my_parts", f"--run={trained.path}", "--overwrite",
                                 f"--data_dir={data_dir}", "--measures=badly_reconstructed,information",
                                 "--bad_from=15")
    assert trained.read_measures()["last"]["badly_reconstructed"]["settings"]["bad_from"] == 15.0
    assert "1 finished runs" in command(folder, "export", "--import=my_parts")
    assert "laplace" in (folder / "figures/runs.csv").read_text()


def test_sweeps_hand_the_modules_and_settings_to_their_workers():
    from vae_rd.sweeps.sweep import Sweep
    names = ["log_likelihood", "memorisation"]
    sweep = Sweep(names, scale="smoke", modules=["json", "math"], settings={"num_samples": 70})
    assert {"--import=json,math", "--num_samples=70"} <= set(sweep.command(0))
    assert sweep.settings["log_marginal"] == {"query_images": 8, "num_samples": 70}  # the first is the scale's
    assert sweep.settings["memorisation"] == {"query_images": 200}
    with pytest.raises(ConfigError, match="num_samples must be 1 or more .got 0.."):
        Sweep(names, scale="smoke", settings={"num_samples": 0})
    with pytest.raises(ConfigError, match="none at all with the measures neighbours, gallery .got num_samples"):
        Sweep(["figure3"], scale="smoke", settings={"num_samples": 7})


LIGHT = """
import dataclasses
from vae_rd.measures.measure import Measure, Outcome, Settings, setting
from vae_rd.measures.registry import MEASURES

@dataclasses.dataclass(frozen=True)
class BadSettings(Settings):
    bad_from: float = setting(20.0, "distortion that is much", least=0)
    num_samples: int = setting(7, "as other measures have it, with another default")

MEASURES["bad"] = Measure("bad", lambda run, settings: Outcome(), "share of bad test images", BadSettings)
"""


@pytest.mark.slow
@pytest.mark.parametrize("module, flags", [
    ("main", ["--measures=bad"]), ("evaluate", ["--run=x", "--measures=bad"]),
    ("sweep", ["--experiment=figure3", "--list"])])
def test_settings_of_a_measure_of_the_users_are_flags(tmp_path, module, flags):
    """Listed by --help, refused by name where they are wrong; without the module they are not known."""
    (tmp_path / "light_parts.py").write_text(LIGHT)

    def words(*own):
        return subprocess.run([sys.executable, "-m", f"vae_rd.{module}", *own], cwd=tmp_path, capture_output=True,
                              text=True, env=os.environ | {"PYTHONPATH": str(PAGE.parents[1])})
    shown = words("--import", "light_parts", "--help")
    text = " ".join(shown.stdout.split())
    assert shown.returncode == 0 and "--bad_from: distortion that is much (default: 20.0)" in text
    assert "importance samples per image (default: each measure's own number)" in text
    if module == "sweep":
        low = "settings must be among none at all"  # the experiment does not need the measure
    else:
        low = "bad_from must be 0 or more (got -1"
    for own, expected in ((["--import=light_parts", "--bad_from=far"], "bad_from must be a number (got 'far')"),
                          (["--import=light_parts", "--bad_from=-1"], low),
                          (["--bad_from=3"], "--bad_from is not a flag")):
        ended = words(*own, *flags)
        assert ended.returncode == 1 and expected in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("module", ["vae_rd.main", "vae_rd.sweep", "vae_rd.evaluate", "vae_rd.export",
                                    "vae_rd.command", "data_gen.main"])
def test_a_python_without_the_packages_is_told_what_to_do(module):
    ended = subprocess.run([sys.executable, "-S", "-m", module, "--help"], cwd=PAGE.parents[1], capture_output=True,
                           text=True)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and not ended.stdout
    assert re.match("error: .* lacks absl, .*numpy.*. Activate the environment .*pip install", ended.stderr)


def test_the_packages_that_are_looked_for_are_those_that_setup_cfg_installs():
    import configparser

    import vae_rd
    setup = configparser.ConfigParser()
    setup.read(PAGE.parents[1] / "setup.cfg")
    names = [re.match(r"[\w-]+", line)[0] for line in setup["options"]["install_requires"].split("\n") if line]
    assert [name.removesuffix("-py").replace("-", "_") for name in names] == list(vae_rd._NEEDED)


def test_imports_are_part_of_the_name_only_where_there_are_some(monkeypatch):
    assert "imports" not in Config().non_default
    monkeypatch.setitem(sys.modules, "my_parts", sys)
    monkeypatch.setitem(sys.modules, "my_data", sys)
    config = Config(imports="my_parts,my_data")
    assert config == Config(imports="my_data,my_parts,my_data") and config.run_name != Config().run_name
    assert Config.from_dict(json.loads(config.to_json())) == config
    monkeypatch.delitem(sys.modules, "my_data")
    with pytest.raises(NotImported, match="got 'my_data'.. Try --import=my_data,my_parts; in Python, import"):
        Config.from_dict(json.loads(config.to_json()))


def test_a_part_that_is_not_known_is_no_damage(tmp_path):
    """As where a notebook trained with a part of its own, without naming its module in `imports`."""
    config = Config()
    run = runs.run_dir(tmp_path, config)
    run.path.mkdir()
    run.config.write_text(config.replace(prior="mixture").to_json().replace('"mixture"', '"mine"'))
    with pytest.raises(runs.RunError, match=r"config.json: prior must be one of .*, or one of your own whose module is "
                                            r"imported already \(got 'mine'\)\. Try --import=MODULE"):
        run.read_config()


def test_modules_that_cannot_be_imported_are_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_parts.py").write_text("PRIORS['mine'] = 1\n")
    (tmp_path / "needy_parts.py").write_text("import no_such_package\n")
    (tmp_path / "whole_parts.py").touch()
    (tmp_path / "plain_parts.py").write_text(LIGHT.replace('setting(20.0, "distortion that is much", least=0)', "20.0"))
    for name, words in (("whole_parts.py", "finds .got 'whole_parts.py'.. Try whole_parts, without .py"),
                        ("no_parts", "import must name modules that Python finds .got 'no_parts'.. Try it in"),
                        ("broken_parts", "import of broken_parts failed .NameError: name 'PRIORS' is not defined."),
                        ("plain_parts", "plain_parts failed .ConfigError: setting bad_from of measure bad must be "),
                        ("needy_parts", "import of needy_parts failed .ModuleNotFoundError: .*no_such_package")):
        with pytest.raises(ConfigError, match=words):
            cli.import_modules([name])
    assert cli.import_modules([]) == "" and cli.import_modules(["json", "math"]) == "json,math"
