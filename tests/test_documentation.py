"""The pages of documentation: their links lead somewhere, their commands have their flags, their example runs."""

import json
import pathlib
import re
import runpy

import numpy as np
import pytest

from data_gen import generate
from tests import commands
from vae_rd.config import DataSpec
from vae_rd.datasets import records

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("launch/*.md")])
ENTRY_POINTS = ("data_gen.main", "vae_rd.main", "vae_rd.sweep", "vae_rd.evaluate", "vae_rd.export")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if not link.startswith("https://")]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_published_number_of_a_measure_is_explained():
    page = (ROOT / "docs/measures.md").read_text()
    explained = set(re.findall(r"`(\w+)`", page))
    recorded = set()
    for path in (ROOT / "results").rglob("measures.json"):
        for measures in json.loads(path.read_text()).values():
            recorded |= {name for entry in measures.values() for part in ("train", "test", "run")
                         for name in entry.get(part, {})}
    assert len(recorded) > 80
    suffixes = r"(_se|_at_mean|_control|_sampling_share|_one_sample_se)+$"
    unknown = {name for name in recorded if re.sub(suffixes, "", re.sub(r"_k\d+$", "", name)) not in explained}
    assert not unknown


def test_the_readme_is_one_page_and_links_every_other():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    others = {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md", "launch/README.md"}
    assert others <= set(re.findall(r"\]\(([^)#]+)", text))


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_flags_in_commands_are_flags_of_the_command(module):
    shown = commands.run(module, "--help").stdout
    known = set(re.findall(r"^  --(?:\[no\])?(\w+)", shown, re.MULTILINE)) | {"help"}
    used = set()
    for page in PAGES:
        text = page.read_text()
        known |= set(re.findall(r"^    (\w+): .* = setting\(", text, re.MULTILINE))  # of the page's own measures
        for command in re.findall(rf"python -m {re.escape(module)}\b([^`|#\n]*)", text):
            used |= set(re.findall(r"--(\w+)", command))
    assert used and used <= known


def test_the_data_set_of_the_page_about_extending_can_be_made(tmp_path, monkeypatch):
    code = re.search(r"## A data set\n.*?```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    (tmp_path / "squares.py").write_text(code.group(1))
    monkeypatch.setitem(generate.DATASETS, "squares", runpy.run_path(str(tmp_path / "squares.py"))["Squares"])
    folder = generate.generate(tmp_path, DataSpec("squares", "cv_100"), num_workers=1, progress=False)
    images, index, factors = records.load_partition(folder, records.read_info(folder), "train")
    np.testing.assert_array_equal(images.sum(axis=(1, 2, 3), dtype=int),
                                  factors[:, 0] ** 2 * np.where(factors[:, 2] == 1, 255, 128))
