"""Neighbours of a split: right in pixels and factors, kept with the data, and not taken from other data."""

import dataclasses

import numpy as np
import pytest
import scipy.spatial.distance

from data_gen import tetrominoes
from vae_rd import runs
from vae_rd.measures import split_neighbours


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "split"


def _forbidden(*arguments):
    raise AssertionError("computed again")


def test_nearest_in_pixels_and_in_factors_by_exhaustive_search(split):
    found = split_neighbours.compute(split)
    flat = [part.images.reshape(len(part.images), -1).astype(float) / 255 for part in (split.test, split.train)]
    distances = scipy.spatial.distance.cdist(*flat)
    np.testing.assert_array_equal(found.nearest_index, split.train.index[distances.argmin(1)])
    np.testing.assert_allclose(found.nearest_distance, distances.min(1))
    low, high = np.array([[0, 0, 2, tetrominoes.MARGIN, tetrominoes.MARGIN],  # of all Tetrominoes, not of the split
                          [360, 0.875, 5, 32 - tetrominoes.MARGIN, 32 - tetrominoes.MARGIN]])
    difference = (split.test.factors[:, None].astype(float) - split.train.factors) / (high - low)
    turn = 360 / (high - low)[0]
    difference[..., 0] = np.minimum(np.abs(difference[..., 0]), turn - np.abs(difference[..., 0]))
    distances = np.sqrt(np.square(difference).sum(-1))
    np.testing.assert_array_equal(found.nearest_factor_index, split.train.index[distances.argmin(1)])
    np.testing.assert_allclose(found.nearest_factor_distance, distances.min(1), rtol=1e-6)
    assert not set(found.nearest_index) & set(split.test.index)


def test_data_without_factors(split):
    bare = split._replace(**{name: getattr(split, name)._replace(factors=np.zeros((300, 0), np.float32))
                             for name in ("train", "test")})
    found = split_neighbours.compute(bare)
    assert (found.nearest_factor_index == -1).all() and np.isnan(found.nearest_factor_distance).all()
    np.testing.assert_array_equal(found.nearest_distance, split_neighbours.compute(split).nearest_distance)


def test_computed_once_and_kept_with_the_data(split, folder, monkeypatch):
    first = split_neighbours.of_split(split, folder)
    monkeypatch.setattr(split_neighbours, "compute", _forbidden)
    for one, other in zip(first, split_neighbours.of_split(split, folder)):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(AssertionError, match="computed again"):
        split_neighbours.of_split(split, folder, dynamic=True)  # other images, another file


@pytest.mark.parametrize("harm", ["cut", "other data", "older form"])
def test_what_does_not_belong_to_the_data_is_computed_again(split, folder, harm):
    first = split_neighbours.of_split(split, folder)
    path = folder / split_neighbours.FILE
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif harm == "other data":
        other = dataclasses.replace(split.info, content_sha256={"train": "a" * 64, "test": "b" * 64})
        split_neighbours.of_split(split._replace(info=other), folder)
        arrays = runs.read_arrays(path)
        runs.write_arrays(path, arrays | {"nearest_distance": arrays["nearest_distance"] + 1})
    else:
        runs.write_arrays(path, {"nearest_distance": np.zeros(300)})
    np.testing.assert_array_equal(split_neighbours.of_split(split, folder).nearest_distance, first.nearest_distance)


def test_data_that_cannot_be_written_to_are_no_obstacle(split, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    found = split_neighbours.of_split(split, tmp_path / "file")
    assert len(found.nearest_index) == 300 and "computed again next time" in capsys.readouterr().err
