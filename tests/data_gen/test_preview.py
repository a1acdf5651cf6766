"""The preview: Figure 1's samples and Figure 2's splits, drawn from the split functions themselves."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from data_gen import preview
from data_gen.builders.tetrominoes import Tetrominoes
from vae_rd.config import ConfigError


@pytest.fixture(scope="module")
def data():
    return Tetrominoes()


@pytest.fixture(scope="module")
def drawn(data):
    return preview.figure(data.name, preview.sample_images(data), *preview.two_factor_points(0))


def _panels(drawn):
    return drawn.subfigs[1].axes


def test_samples_are_images_of_the_set(data):
    images = preview.sample_images(data)
    assert images.shape == (80, 32, 32, 3)
    assert len(np.unique(images.reshape(80, -1), axis=0)) == 80
    assert ((images > 0).any(axis=(1, 2, 3))).all()


def test_montage_keeps_every_image_in_its_place():
    images = np.arange(80, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)
    picture = preview.montage(images)
    assert picture.shape == (5 * 5, 16 * 7, 3)
    for row, column in ((0, 0), (0, 15), (4, 0), (2, 7)):
        block = picture[row * 5 + 1:row * 5 + 5, column * 7 + 1:column * 7 + 7]
        assert (block == row * 16 + column).all()


def test_panels_show_the_four_kinds_of_split_with_the_papers_sizes(drawn):
    sizes = [[len(points.get_offsets()) for points in panel.collections] for panel in _panels(drawn)]
    assert sizes == [[300, 300], [300, 300], [60, 540], [60, 60]]
    titles = [panel.get_title() for panel in _panels(drawn)]
    for title, words in zip(titles, ("Random halves", "Checkerboard", "Constant volume", "Constant density")):
        assert words in title
    assert "60 train, 540 test" in titles[2]


def test_panels_show_what_they_say(drawn):
    train, test = ([np.asarray(points.get_offsets()) for points in panel.collections] for panel in _panels(drawn)[1::2])
    upper = (train[0] >= 0.5).sum(axis=1) % 2, (train[1] >= 0.5).sum(axis=1) % 2
    assert not upper[0].any() and upper[1].all()  # the checkerboard
    for points in test:  # constant density: 120 of 600 points in a centred square of a fifth of the area
        assert np.abs(points - 0.5).max() < 0.5 * np.sqrt(0.2) + 0.03


def test_train_and_test_differ_in_colour_and_marker(drawn):
    for panel in _panels(drawn):
        train, test = panel.collections
        assert matplotlib.colors.to_hex(train.get_edgecolor()[0]) == "#0072b2"
        assert matplotlib.colors.to_hex(test.get_edgecolor()[0]) == "#e69f00"
        assert len(train.get_paths()[0].vertices) != len(test.get_paths()[0].vertices)
        assert panel.get_xlabel() == "factor 1 (unit interval)"


def test_save_writes_a_picture(data, tmp_path):
    preview.save(tmp_path / "out.png", data)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (1800, 1320)
        assert len(picture.convert("RGB").getcolors(10**6)) > 500
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_unknown_ending_is_refused_with_the_known_ones(data, tmp_path):
    with pytest.raises(ConfigError, match=r"must end in one of .*\.pdf.*\.png"):
        preview.save(tmp_path / "out.xyz", data)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_command_draws_and_makes_no_split(tmp_path):
    done = subprocess.run([sys.executable, "-m", "data_gen.main", f"--preview={tmp_path}/out.png",
                           f"--data_dir={tmp_path}/data"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{tmp_path}/out.png is drawn."
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
