"""Neighbours of a split: right in pixels and factors, kept with the data, and not taken from other data."""

import dataclasses

import numpy as np
import pytest
import scipy.spatial.distance

from data_gen import generate
from data_gen.builders import tetrominoes
from vae_rd.datasets import records
from vae_rd.measures import split_neighbours
from vae_rd.storage import files


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "split"


def _with_factors(split, units, ranges, train, test):
    """The split with other factors."""
    info = dataclasses.replace(split.info, factor_units=tuple(units), factor_ranges=tuple(ranges))
    return split._replace(info=info, train=split.train._replace(factors=np.asarray(train, np.float32)),
                          test=split.test._replace(factors=np.asarray(test, np.float32)))


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
    found = split_neighbours.compute(_with_factors(split, [], [], np.zeros((300, 0)), np.zeros((300, 0))))
    assert (found.nearest_factor_index == -1).all() and np.isnan(found.nearest_factor_distance).all()
    np.testing.assert_array_equal(found.nearest_distance, split_neighbours.compute(split).nearest_distance)


def test_an_orientation_in_radians_wraps_and_a_class_takes_no_part(split):
    """dSprites' factors: a shape that differs says nothing of distance, and a full turn less a bit is a bit."""
    rng = np.random.default_rng(0)
    train, test = (np.stack([rng.integers(1, 4, 300), rng.uniform(0, 2 * np.pi, 300)], 1) for _ in range(2))
    train[7, 1], test[0, 1] = 0.0, 2 * np.pi - 1e-4
    train[8, 1] = 2 * np.pi - 2e-2
    train[:, 1][np.setdiff1d(np.arange(300), [7, 8])] = rng.uniform(0.5, 6, 298)
    found = split_neighbours.compute(_with_factors(split, ["class", "radians"], [(1, 3), (0, 2 * np.pi)], train, test))
    assert found.nearest_factor_index[0] == split.train.index[7]
    assert found.nearest_factor_distance[0] == pytest.approx(1e-4 / (2 * np.pi), rel=1e-2)
    apart = np.abs(test[:, None, 1] - train[:, 1])
    expected = np.minimum(apart, 2 * np.pi - apart).min(1) / (2 * np.pi)
    np.testing.assert_allclose(found.nearest_factor_distance, expected, atol=1e-6)


def test_labels_are_no_factors_to_measure_distances_by(split):
    labels = np.random.default_rng(0).integers(0, 10, (300, 1))
    found = split_neighbours.compute(_with_factors(split, ["class"], [(0, 9)], labels, labels))
    assert (found.nearest_factor_index == -1).all() and np.isnan(found.nearest_factor_distance).all()


@pytest.mark.parametrize("kind", generate.DATASETS.values(), ids=generate.DATASETS)
def test_the_unit_tells_which_factors_have_an_order(kind):
    """info.json has units but no `ordered_factors`: `class` stands for the rest."""
    units = dict(zip(kind.factor_names, kind.factor_units, strict=True))
    ordered = tuple(name for name, unit in units.items() if unit != records.CLASS)
    assert ordered == kind.ordered_factors


def test_computed_once_and_kept_with_the_data(split, folder, monkeypatch):
    first = split_neighbours.of_split(split, folder)
    monkeypatch.setattr(split_neighbours, "compute", _forbidden)
    for one, other in zip(first, split_neighbours.of_split(split, folder)):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(AssertionError, match="computed again"):
        split_neighbours.of_split(split, folder, dynamic=True)  # other images, another file


@pytest.mark.parametrize("harm", ["cut", "other data", "older form", "older rules"])
def test_what_does_not_belong_to_the_data_is_computed_again(split, folder, harm):
    first = split_neighbours.of_split(split, folder)
    path = folder / split_neighbours.FILE
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif harm == "other data":
        other = dataclasses.replace(split.info, content_sha256={"train": "a" * 64, "test": "b" * 64})
        split_neighbours.of_split(split._replace(info=other), folder)
        arrays = files.read_arrays(path)
        files.write_arrays(path, arrays | {"nearest_distance": arrays["nearest_distance"] + 1})
    elif harm == "older rules":
        arrays = files.read_arrays(path)
        older = {"key": np.array(["1", *arrays["key"][1:]]), "nearest_distance": arrays["nearest_distance"] + 1}
        files.write_arrays(path, arrays | older)
    else:
        files.write_arrays(path, {"nearest_distance": np.zeros(300)})
    np.testing.assert_array_equal(split_neighbours.of_split(split, folder).nearest_distance, first.nearest_distance)


def test_data_that_cannot_be_written_to_are_no_obstacle(split, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    found = split_neighbours.of_split(split, tmp_path / "file")
    assert len(found.nearest_index) == 300 and "computed again next time" in capsys.readouterr().err
