"""The rooms of the project and the direction of imports, read from the source text."""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOORS = {"data_gen.main", "vae_rd.main", "vae_rd.sweep", "vae_rd.evaluate", "vae_rd.export"}
LEAVES = {"vae_rd.config", "vae_rd.datasets.tfrecord", "vae_rd.datasets.random_streams", "vae_rd.storage.files",
          "vae_rd.model.networks", "vae_rd.model.priors", "vae_rd.model.likelihoods", "vae_rd.analysis.statistics",
          "vae_rd.analysis.naming", "vae_rd.figures.style", "data_gen.drawing", "data_gen.randomness"}
# Imports run from higher to lower numbers, or stay in the room; the entry points come last.
LEVELS = {"vae_rd.config": 0, "vae_rd.datasets": 1, "vae_rd.storage": 1, "vae_rd.cli": 2, "vae_rd.model": 2,
          "data_gen": 3, "vae_rd.measures": 3, "vae_rd.training": 4, "vae_rd.sweeps": 5, "vae_rd.analysis": 6,
          "vae_rd.figures": 7} | dict.fromkeys(DOORS | {"vae_rd.command"}, 8)
MAY_GENERATE = {"vae_rd.main", "vae_rd.sweep", "vae_rd.sweeps"}  # those that make missing data, and ask what it costs
FOR_GENERATOR = {"vae_rd.config", "vae_rd.datasets", "vae_rd.storage.files", "vae_rd.cli"}  # what data_gen may use
LIGHT = ("vae_rd.config", "vae_rd.storage", "vae_rd.datasets", "vae_rd.sweeps", "vae_rd.analysis", "vae_rd.figures",
         "data_gen", *DOORS)
HEAVY = {"tensorflow", "keras", "tensorflow_probability", "tf_keras", "jax", "torch"}
VAGUE = {"utils", "util", "common", "helpers", "misc", "tools"}


def sources() -> dict[str, str]:
    """The text of every module of the two packages, by dotted name; a package's name stands for its `__init__`."""
    texts = {}
    for package in ("vae_rd", "data_gen"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            texts[name.removesuffix(".__init__")] = path.read_text()
    return texts


def imports(texts: dict[str, str], module: str, everywhere: bool = True) -> set[str]:
    """Dotted names that a module imports, anywhere in it or only when it is itself imported."""
    names = set()
    for node in ast.walk(ast.parse(texts[module])) if everywhere else _at_import(ast.parse(texts[module])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in texts else node.module for name in inner}
    return names


def _at_import(tree: ast.AST):
    """The nodes of a module that run when it is imported: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from _at_import(node)


def room(module: str) -> str:
    """The longest known part of a module's name: a file of the top level, or a room."""
    known = [name for name in LEVELS if module == name or module.startswith(name + ".")]
    assert known, f"{module} belongs to no room; the rooms are {', '.join(LEVELS)}"
    return max(known, key=len)


def wrong_direction(texts: dict[str, str]) -> list[str]:
    """Imports of our own modules that go up, sideways, or into a door."""
    found = []
    for module in texts:
        for other in imports(texts, module) & set(texts):
            if other in ("vae_rd", "data_gen") or module in ("vae_rd", "data_gen"):
                continue  # the packages themselves hold a docstring and a version
            allowed = (room(module) == room(other) or LEVELS[room(other)] < LEVELS[room(module)]) and other not in DOORS
            if module.startswith("vae_rd") and other.startswith("data_gen"):
                allowed = (module in MAY_GENERATE or room(module) in MAY_GENERATE) and other in (
                    "data_gen.generate", "data_gen.builders")
            if module.startswith("data_gen") and other.startswith("vae_rd"):
                allowed = other in FOR_GENERATOR or room(other) in FOR_GENERATOR
            if module in LEAVES or not allowed:
                found.append(f"{module} imports {other}")
    return sorted(found)


def loaded_by(texts: dict[str, str], module: str) -> set[str]:
    """Every dotted name that importing a module imports, through our own modules and their packages."""
    seen, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        parts = name.split(".")
        parents = {".".join(parts[:length]) for length in range(1, len(parts))} & set(texts)
        waiting |= (parents | (imports(texts, name, everywhere=False) if name in texts else set())) - seen
    return seen


def heavy_at_import(texts: dict[str, str]) -> dict[str, set[str]]:
    """Light modules that load a framework when they are imported, and which."""
    light = [name for name in texts if any(name == part or name.startswith(part + ".") for part in LIGHT)]
    heavy = {name: {other.split(".")[0] for other in loaded_by(texts, name)} & HEAVY for name in light}
    return {name: frameworks for name, frameworks in heavy.items() if frameworks}


def without_docstring(texts: dict[str, str]) -> list[str]:
    """Modules, public functions, public classes and their public methods that do not say what they are."""
    found = []
    for module, text in texts.items():
        tree = ast.parse(text)
        if not ast.get_docstring(tree):
            found.append(f"{module} has no docstring")
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        for node in [*tree.body, *(child for parent in classes for child in parent.body)]:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    found.append(f"{module}, line {node.lineno}: {node.name} has no docstring")
    return found


def effects_at_import(texts: dict[str, str]) -> list[str]:
    """Statements at module level that only have an effect, but for a door's flags; and flags elsewhere."""
    found = []
    for module, text in texts.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                if module not in DOORS or not ast.unparse(node.value.func).startswith(("_define", "flags.")):
                    found.append(f"{module}, line {node.lineno}: {ast.unparse(node)}")
        runs_flags = any(name.split(".")[0] == "absl" for name in imports(texts, module))
        if runs_flags and module not in DOORS | {"vae_rd.cli"}:  # which runs the doors
            found.append(f"{module} reads flags")
    return found


def test_every_module_of_the_plan_is_there():
    missing = (LEAVES | set(LEVELS)) - set(sources())
    assert not missing, f"named in this test, but not there: {sorted(missing)}"


def test_imports_run_one_way():
    assert wrong_direction(sources()) == []


@pytest.mark.parametrize("module, text", [
    ("vae_rd.config", "from vae_rd.storage import runs"),
    ("vae_rd.model.vae", "from vae_rd.training import column"),
    ("vae_rd.model.vae", "def late():\n    import data_gen.generate"),
    ("vae_rd.evaluate", "from data_gen import generate"),
    ("vae_rd.main", "from data_gen import splits"),
    ("vae_rd.main", "from vae_rd.sweep import plan"),
    ("vae_rd.analysis.tables", "import vae_rd.export"),
    ("vae_rd.analysis.statistics", "from vae_rd.analysis import tables"),
    ("data_gen.generate", "from vae_rd.model import vae"),
])
def test_an_import_in_the_wrong_direction_is_found(module, text):
    texts = dict.fromkeys(sources(), "") | {module: text}
    assert len(wrong_direction(texts)) == 1


def test_light_modules_load_no_framework():
    assert heavy_at_import(sources()) == {}


def test_a_framework_behind_two_imports_and_a_package_is_found():
    texts = {"vae_rd": "", "vae_rd.model": "import keras", "vae_rd.model.names": "NAMES = ()",
             "vae_rd.figures": "from vae_rd.model import names", "vae_rd.storage.runs": "def late():\n    import tensorflow",
             "vae_rd.export": "from vae_rd import figures"}
    assert heavy_at_import(texts) == {"vae_rd.figures": {"keras"}, "vae_rd.export": {"keras"}}


def test_all_that_is_public_has_a_docstring():
    assert without_docstring(sources()) == []


def test_a_missing_docstring_is_found():
    texts = {"first": "import os", "second": '"""Says it."""\ndef shown():\n    pass\ndef _hidden():\n    pass'}
    assert len(without_docstring(texts)) == 2


def test_importing_has_no_effects():
    assert effects_at_import(sources()) == []


def test_an_effect_is_found():
    assert len(effects_at_import({"vae_rd.datasets.splits": "from absl import flags\n_define_flags()"})) == 2
    assert len(effects_at_import({"vae_rd.main": "from absl import flags\n_define_flags()\nseed(0)"})) == 1


def test_every_file_has_a_noun_for_a_name():
    names = {part for module in sources() for part in module.split(".")}
    assert not names & VAGUE


def test_no_path_of_a_machine_is_written_into_the_project():
    listing = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout, so what belongs to the project is not known")
    private = re.compile("/(?:" + "|".join(["work", "root", "home", "Users", "mnt"]) + r")/\w")
    found = []
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".pdf", ".npz", ".keras", ".gz"):
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                found += [f"{name}:{number}: {line.strip()}"] if private.search(line) else []
    assert found == []
    assert private.search("/" + "root/data") and not private.search("the root/of things")
