"""Memorisation of decoders that memorise, that average and that reconstruct, and the weighted mean by Bayes' rule."""

import types

import numpy as np
import pytest
import scipy.special
import scipy.stats

from vae_rd.measures import memorisation
from vae_rd.measures.progress import silent


@pytest.fixture
def images():
    """40 training and 15 test images, all different."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 6, 6, 3), np.uint8), rng.integers(0, 256, (15, 6, 6, 3), np.uint8)


def _codes(num_images, num_train, stddev=0.5):
    rng = np.random.default_rng(1)
    return rng.normal(size=(num_images, 2)), rng.normal(size=(num_train, 2)), np.full((num_train, 2), stddev)


def test_weighted_mean_and_perplexity_by_bayes_rule(images):
    train, _ = images
    codes, means, stddevs = _codes(15, 40)
    weights = scipy.special.softmax(scipy.stats.norm.logpdf(codes[:, None], means, stddevs).sum(-1), axis=1)
    found = memorisation.infinite_capacity(codes, means, stddevs, train)
    np.testing.assert_allclose(found.images, np.einsum("nm,mhwc->nhwc", weights, train / 255), atol=1e-5)
    np.testing.assert_allclose(found.perplexity, np.exp(scipy.stats.entropy(weights, axis=1)), rtol=1e-5)


def test_blocks_of_any_size_agree(images, monkeypatch):
    train, _ = images
    whole = memorisation.infinite_capacity(*_codes(15, 40), train)
    monkeypatch.setattr(memorisation, "PAIRS_PER_BLOCK", 7 * 40)  # 7, 7 and a last block of 1
    monkeypatch.setattr(memorisation, "IMAGES_PER_PRODUCT", 13)
    parts = memorisation.infinite_capacity(*_codes(15, 40), train)
    np.testing.assert_allclose(parts.images, whole.images, atol=1e-6)
    np.testing.assert_allclose(parts.perplexity, whole.perplexity, rtol=1e-6)


def test_perplexity_from_one_image_to_all_of_them(images):
    train, _ = images
    codes, means, _ = _codes(15, 40)
    apart = memorisation.infinite_capacity(means[:15], means, np.full((40, 2), 1e-4), train)
    np.testing.assert_allclose(apart.perplexity, 1, atol=1e-6)
    np.testing.assert_allclose(apart.images, train[:15] / 255, atol=1e-6)
    collapsed = memorisation.infinite_capacity(codes, np.zeros((40, 2)), np.ones((40, 2)), train)
    np.testing.assert_allclose(collapsed.perplexity, 40, rtol=1e-5)
    np.testing.assert_allclose(collapsed.images, np.broadcast_to(train.mean(0) / 255, (15, 6, 6, 3)), atol=1e-5)


def test_memorising_decoder_is_found_out(images):
    """A decoder that answers every code with a training image."""
    train, test = images
    found = memorisation.compare(test, train[:15] / 255, np.zeros(test.shape), train)
    assert found.memorised.all() and not found.averaged.any()
    np.testing.assert_array_equal(found.position, np.arange(15))
    np.testing.assert_allclose(found.to_training_image, 0, atol=1e-9)
    difference = (train[:15].astype(float) - test) / 255
    np.testing.assert_allclose(found.to_input, np.sqrt(np.square(difference).sum((1, 2, 3))))


def _against_others(reconstructions, train, test, rows, count=None):
    chosen = np.arange(len(test))[:count]
    others = memorisation.other_test_images(test, chosen, rows)
    return memorisation.compare(test[rows], reconstructions, np.zeros(test[rows].shape), train, others=others)


def test_a_constant_mean_image_is_no_memorisation():
    """It is nearer to some training image than to most inputs, but just as often nearer to another test image."""
    rng = np.random.default_rng(0)
    train = np.clip(rng.normal(128, 40, (60, 6, 6, 1)), 0, 255).astype(np.uint8)
    test = np.clip(train + rng.normal(0, 10, train.shape), 0, 255).astype(np.uint8)
    rows = np.arange(60)
    blurred = _against_others(np.broadcast_to(train.mean(0) / 255, test.shape), train, test, rows)
    assert blurred.memorised.mean() > 0.9 and blurred.memorised_control.mean() > 0.9
    copied = _against_others(train / 255, train, test, rows)
    assert copied.memorised.all() and not copied.memorised_control.any()
    faithful = _against_others(test / 255, train, test, rows)
    assert not faithful.memorised_control.any(), "the image itself is no other"


def test_the_control_is_the_nearest_of_the_chosen_others(images):
    """Of 9 chosen test images every input meets 8: not itself, or else not the first."""
    train, test = images
    rows, reconstructions = np.array([2, 5, 8, 11, 14]), np.random.default_rng(3).random((5, 6, 6, 3))
    found = _against_others(reconstructions, train, test, rows, count=9)
    distances = np.sqrt(np.square(reconstructions[:, None] - test[:9] / 255).sum((2, 3, 4)))
    distances[np.arange(5), [2, 5, 8, 0, 0]] = np.inf
    np.testing.assert_allclose(found.to_other_test_image, distances.min(1))
    np.testing.assert_array_equal(found.memorised_control, distances.min(1) < found.to_input - memorisation.TIE)


@pytest.mark.parametrize("num_test, controlled", [(40, True), (39, False)])
def test_fewer_test_images_than_training_images_are_no_control(num_test, controlled):
    """The nearest of fewer lies farther away, and memorisation would show where there is none."""
    random = np.random.default_rng(0)
    sets = {name: random.integers(0, 256, (count, 6, 6, 3), np.uint8) for name, count in
            (("train", 40), ("test", num_test))}

    class Run:
        progress = staticmethod(silent)
        partition = staticmethod(lambda name: types.SimpleNamespace(images=sets[name]))
        rows = staticmethod(lambda name, size: np.arange(min(size, len(sets[name]))))
        posteriors = staticmethod(lambda name: (np.zeros((40, 2)), np.ones((40, 2))))
        decode = staticmethod(lambda codes: np.zeros((len(codes), 6, 6, 3), np.float32))

    found = memorisation._reconstructed(Run(), "test", np.arange(5), np.zeros((5, 2))).found
    assert (found.to_other_test_image is not None) == controlled


def test_averaging_decoder_is_found_out(images):
    train, test = images
    average = np.broadcast_to(train.mean(0) / 255, test.shape)
    found = memorisation.compare(test, average, average, train)
    assert found.averaged.all()


def test_faithful_decoder_is_not_accused(images):
    train, test = images
    found = memorisation.compare(test, test / 255, np.broadcast_to(train.mean(0) / 255, test.shape), train)
    assert not found.memorised.any() and not found.averaged.any()


def test_training_images_are_not_their_own_neighbours(images):
    """A faithful reconstruction of a training image is no memorisation of another one."""
    train, _ = images
    found = memorisation.compare(train, train / np.float32(255), train / np.float32(255), train, excluded=np.arange(40))
    assert not found.memorised.any() and (found.position != np.arange(40)).all()
    assert not found.averaged.any(), "the weighted mean is the input itself: a tie, not nearer"
