"""The gallery: images spread by distance and the same for all runs, their reconstructions, the histogram's sums."""

import pathlib
import shutil

import numpy as np
import pytest
import scipy.spatial.distance

from tests.trained_runs import trained  # noqa: F401  a fixture
from vae_rd import measures
from vae_rd.measures import finished_run, gallery


@pytest.fixture(scope="module")
def measured(trained, data_dir, tmp_path_factory):
    """The two runs, opened, with their galleries."""
    folder, opened = tmp_path_factory.mktemp("galleries"), []
    for run in trained:
        copy = pathlib.Path(shutil.copytree(run.path, folder / run.path.name))
        opened.append(finished_run.open_run(copy, data_dir))
        assert measures.measure_run(opened[-1], ["gallery"], progress=False) == []
    return opened


def _arrays(opened):
    return opened.run.read_arrays(opened.run.arrays("gallery"))


@pytest.mark.slow
def test_the_images_are_spread_from_the_nearest_to_the_farthest(measured):
    """By exhaustive search over the 300 training images."""
    split, found = measured[0].split, _arrays(measured[0])
    flat = [part.images.reshape(300, -1) / 255 for part in (split.test, split.train)]
    distance = scipy.spatial.distance.cdist(*flat).min(1)
    np.testing.assert_allclose(found["nearest_distance"], np.sort(distance)[[0, 27, 54, 82, 109, 136, 163, 190, 217,
                                                                            245, 272, 299]], rtol=1e-6)
    rows = np.searchsorted(split.test.index, found["index"])
    np.testing.assert_array_equal(split.test.images[rows], found["inputs"])
    np.testing.assert_allclose(distance[rows], found["nearest_distance"], rtol=1e-6)


def test_the_same_images_and_other_reconstructions_for_another_run(measured):
    mlp, cnn = (_arrays(one) for one in measured)
    for name in ("inputs", "index", "nearest_distance", "distance_edges"):
        np.testing.assert_array_equal(mlp[name], cnn[name])
    assert (mlp["reconstructions"] != cnn["reconstructions"]).any()


def test_reconstructions_are_decoded_from_the_posterior_mean(measured):
    for opened in measured:
        found = _arrays(opened)
        mean = opened.vae.posterior(found["inputs"] / np.float32(255)).mean()
        expected = opened.vae.likelihood(mean).mean().numpy()
        assert found["reconstructions"].dtype == np.uint8
        np.testing.assert_allclose(found["reconstructions"] / 255, expected, atol=0.5 / 255 + 1e-5)


def test_every_image_is_counted_once(measured):
    for opened in measured:
        found, distortion = _arrays(opened), opened.per_example("test")["distortion"]
        assert found["counts"].sum() == 300 and found["counts"].shape == (gallery.BINS, gallery.BINS)
        images = found["counts"].sum(1)
        assert np.nansum(images * found["mean_distortion"]) == pytest.approx(distortion.sum())
        assert np.isnan(found["mean_distortion"][images == 0]).all()
        assert found["distortion_edges"][[0, -1]] == pytest.approx([distortion.min(), distortion.max()])


def test_the_histogram_by_hand():
    found = gallery.by_distance(np.array([0.0, 0.4, 1.9, 2.0]), np.array([10.0, 12.0, 30.0, 20.0]), bins=2)
    np.testing.assert_array_equal(found.counts, [[2, 0], [0, 2]])
    np.testing.assert_allclose(found.distance_edges, [0, 1, 2])
    np.testing.assert_allclose(found.distortion_edges, [10, 20, 30])
    np.testing.assert_allclose(found.mean_distortion, [11, 25])


def test_images_that_are_all_alike():
    """No test image is new, and all have one distortion."""
    found = gallery.by_distance(np.zeros(5), np.full(5, 7.0), bins=4)
    assert found.counts.sum() == 5 and found.mean_distortion[0] == 7
    np.testing.assert_array_equal(gallery.near_to_far(np.zeros(5)), np.arange(5))
