"""docs/explore.ipynb: as committed it is whole, small and clean, and it still runs to its end."""

import json
import os
import pathlib
import shutil

import pytest

from tests.fabricate import fabricate_run
from vae_rd.config import Config

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/explore.ipynb"
MOST_BYTES = 300_000


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(cell, mime):
    """What a cell shows of one kind, as text."""
    return ["".join(one["data"][mime]) for one in cell["outputs"] if mime in one.get("data", {})]


def check(notebook):
    """Every cell was run once, in order, without an error or a warning; there are pictures, and no machine's paths."""
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = [one for cell in cells for one in cell["outputs"]]
    assert {one["output_type"] for one in shown} <= {"stream", "display_data", "execute_result"}
    assert {one.get("name") for one in shown} <= {None, "stdout"}
    assert len([picture for cell in cells for picture in outputs(cell, "image/png")]) == 3
    said = ["".join(one.get("text", "")) for one in shown]
    said += [text for cell in cells for mime in ("text/plain", "text/html") for text in outputs(cell, mime)]
    assert not [text for text in said if "/tmp" in text or "/home" in text]
    assert len(json.dumps(notebook)) < MOST_BYTES


def test_the_committed_notebook_is_executed_small_and_clean():
    check(json.loads(NOTEBOOK.read_text()))
    assert NOTEBOOK.stat().st_size < MOST_BYTES


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """With the published runs and some more, where it leaves nothing; the table that it shows is as committed."""
    nbclient = pytest.importorskip("nbclient")
    import nbformat
    (tmp_path / "docs").mkdir()
    shutil.copytree(ROOT / "results/runs", tmp_path / "results/runs")
    for later in (Config(beta=0.1, latent_dim=5, train_steps=25_700), Config(split="cd_8k"), Config(beta=0.7)):
        fabricate_run(tmp_path / "results/runs", later)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    committed = json.loads(NOTEBOOK.read_text())
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    nbclient.NotebookClient(notebook, timeout=400, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path / "docs")}}
                            ).execute(env=os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"})
    check(notebook)
    old, new = (next(outputs(cell, "text/plain") for cell in code_cells(one) if "load_runs" in "".join(cell["source"]))
                for one in (committed, notebook))
    assert new == old
    assert list((tmp_path / "docs").iterdir()) == []
