"""What loads no TensorFlow, what has docstrings and no effects, and that the contracts about imports can fail.

The direction of imports itself is checked by import-linter, in launch/check.sh: its contracts are in pyproject.toml.
They cannot tell an import inside a function, which costs nothing at the start, from one at the top; the tests here can.
"""

import ast
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENTRY_POINTS = {"data_gen.main", "vae_rd.main", "vae_rd.sweep", "vae_rd.evaluate", "vae_rd.export"}
# What starts at once, because importing it loads no framework.
LIGHT = ("vae_rd.config", "vae_rd.storage", "vae_rd.datasets", "vae_rd.sweeps", "vae_rd.analysis", "vae_rd.figures",
         "data_gen", *ENTRY_POINTS)
HEAVY = {"tensorflow", "keras", "tensorflow_probability", "tf_keras", "jax"}
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
            shown = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if shown and not ast.get_docstring(node):
                found.append(f"{module}, line {node.lineno}: {node.name} has no docstring")
    return found


def effects_at_import(texts: dict[str, str]) -> list[str]:
    """Statements at module level that only have an effect, but for an entry point's flags; and flags elsewhere."""
    found = []
    for module, text in texts.items():
        for node in ast.parse(text).body:
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                continue
            if module not in ENTRY_POINTS or not ast.unparse(node.value.func).startswith(("_define", "flags.")):
                found.append(f"{module}, line {node.lineno}: {ast.unparse(node)}")
        runs_flags = any(name.split(".")[0] == "absl" for name in imports(texts, module))
        if runs_flags and module not in ENTRY_POINTS | {"vae_rd.cli"}:  # which runs them
            found.append(f"{module} reads flags")
    return found


def test_every_module_that_is_named_here_is_there():
    missing = (ENTRY_POINTS | set(LIGHT)) - set(sources())
    assert not missing, f"named in this test, but not there: {sorted(missing)}"


WRONG_IMPORTS = [  # importer, imported; inside a function too
    ("vae_rd.config", "vae_rd.storage.runs"),
    ("vae_rd.model.vae", "vae_rd.training.column"),
    ("vae_rd.model.vae", "data_gen.generate"),
    ("vae_rd.storage.runs", "vae_rd.datasets.records"),
    ("vae_rd.evaluate", "data_gen.generate"),
    ("vae_rd.main", "data_gen.splits"),
    ("vae_rd.main", "vae_rd.sweep"),
    ("vae_rd.analysis.tables", "vae_rd.export"),
    ("vae_rd.analysis.statistics", "vae_rd.analysis.tables"),
    ("vae_rd.sweeps.experiments", "vae_rd.figures.drawings"),
    ("data_gen.generate", "vae_rd.model.vae"),
    ("data_gen.dataset", "data_gen.builders"),
]


def lint_imports(folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Checks the contracts of pyproject.toml on the packages in a folder."""
    command = [pathlib.Path(sys.executable).parent / "lint-imports", "--no-cache", ROOT / "pyproject.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_imports_in_a_wrong_direction_break_the_contracts(tmp_path):
    for package in ("vae_rd", "data_gen"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for importer, imported in WRONG_IMPORTS:
        with (tmp_path / importer.replace(".", "/")).with_suffix(".py").open("a") as file:
            file.write(f"\n\ndef late():\n    import {imported}\n")
    (tmp_path / "vae_rd/toys.py").write_text('"""A room that no contract names."""')
    ran = lint_imports(tmp_path)
    assert ran.returncode == 1 and "Contracts: 0 kept" in ran.stdout  # none of them is empty
    for importer, imported in WRONG_IMPORTS:
        assert f"{importer} -> {imported} (" in ran.stdout
    assert "toys" in ran.stdout


@pytest.mark.slow
def test_light_modules_load_no_framework():
    assert heavy_at_import(sources()) == {}


def test_a_framework_behind_two_imports_and_a_package_is_found():
    texts = {"vae_rd": "", "vae_rd.model": "import keras", "vae_rd.model.names": "NAMES = ()",
             "vae_rd.figures": "from vae_rd.model import names",
             "vae_rd.storage.runs": "def late():\n    import tensorflow",
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
