"""The published results: their tables, verdicts and figures are those of the run files that lie beside them."""

import base64
import gzip
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from vae_rd.config import Config
from vae_rd.storage import published, runs

RESULTS = pathlib.Path(__file__).parents[1] / "results"
FOLDERS = (RESULTS, RESULTS / "laptop")
TABLES = ("runs.csv", "rd_curves.csv", "claims.csv")


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def results(request):
    """A folder of published results."""
    return request.param


@pytest.fixture(scope="module")
def rebuilt(results, tmp_path_factory):
    """A folder that was made from the same runs alone."""
    folder = tmp_path_factory.mktemp("results")
    shutil.copytree(results / published.RUNS, folder / published.RUNS)
    text = (results / "README.md").read_text()
    folder.joinpath("README.md").write_text(re.sub(r"(<!-- table: \w+ -->\n).*?<!-- end -->", r"\1<!-- end -->", text,
                                                   flags=re.DOTALL))
    for page in results.glob("*.html"):
        (folder / page.name).touch()
    subprocess.run([sys.executable, "-m", "vae_rd.export", f"--from={folder}"], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_published_runs(results, rebuilt, name):
    pd.testing.assert_frame_equal(pd.read_csv(rebuilt / name), pd.read_csv(results / name), rtol=1e-9)


def test_the_table_to_read_is_that_of_the_published_runs(results, rebuilt):
    assert (rebuilt / "rd_table.txt").read_text() == (results / "rd_table.txt").read_text()


def test_the_tables_of_the_readme_are_made_from_the_published_runs(results, rebuilt):
    text = (results / "README.md").read_text()
    assert text.count("<!-- table: ") >= 3 and (rebuilt / "README.md").read_text() == text


def test_pages_are_those_of_the_published_runs(results, rebuilt):
    for page in results.glob("*.html"):
        (text, arrays), (published_text, published_arrays) = (_taken_apart(folder / page.name)
                                                              for folder in (rebuilt, results))
        assert text == published_text and arrays, page
        for array, other in zip(arrays, published_arrays, strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-9)  # last bits differ between processors


def _taken_apart(page):
    """A page without its arrays of double precision, and these."""
    text, pattern = page.read_text(), re.compile(r'"data":"([\w+/=]+)"(},"shape":\[\d+\],"dtype":"float64")')
    return pattern.sub(r"\2", text), [np.frombuffer(gzip.decompress(base64.b64decode(found[1])))
                                      for found in pattern.finditer(text)]


def test_figures_are_those_of_the_published_runs(results, rebuilt):
    made, committed = ({path.name for path in (folder / "figures").iterdir()} for folder in (rebuilt, results))
    assert made == committed and {"rd.png", "rd.pdf"} <= made


def test_a_changed_number_is_found(results, rebuilt):
    table = pd.read_csv(rebuilt / "runs.csv")
    table.loc[0, "distortion"] += 0.01
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(table, pd.read_csv(results / "runs.csv"), rtol=1e-9)


def test_published_runs_are_sealed_finished_and_carry_their_own_names(results):
    found = runs.find_runs(results / published.RUNS)
    assert found
    for run in found:
        assert run.status() == runs.FINISHED and run.remarks() == ""
        assert isinstance(run.read_config(), Config) and run.read_config().run_name == run.path.name
