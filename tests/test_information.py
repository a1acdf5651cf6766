"""Mutual information and marginal KL against closed forms, quadrature and the published wrong estimators."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from vae_rd.measures import information


def _codes(rng, num_images, latent_dim, stddev, spread=1.0):
    means = (spread * rng.normal(size=(num_images, latent_dim))).astype(np.float32)
    stddevs = (stddev * np.exp(0.3 * rng.normal(size=means.shape))).astype(np.float32)
    return (means + stddevs * rng.normal(size=means.shape)).astype(np.float32), means, stddevs


def _mixture_by_scipy(codes, means, stddevs):
    logs = scipy.stats.norm.logpdf(codes[:, None].astype(float), means.astype(float), stddevs.astype(float)).sum(-1)
    return scipy.special.logsumexp(logs, axis=1) - np.log(len(means))


@pytest.mark.parametrize("stddev", [0.003, 0.1, 1.0])
def test_mixture_equals_scipy_at_every_scale(stddev):
    codes, means, stddevs = _codes(np.random.default_rng(0), 500, 10, stddev, spread=0.01)
    np.testing.assert_allclose(information.aggregate_log_density(codes, means, stddevs),
                               _mixture_by_scipy(codes, means, stddevs), atol=1e-4)


def test_matrix_product_shortcut_would_lose_the_density():
    """Negative control: the expanded square in float32 is wrong by far more than the tolerance that ours keeps."""
    codes, means, stddevs = _codes(np.random.default_rng(1), 300, 10, 0.003)
    precision = 1 / np.square(stddevs)
    squares = np.square(codes) @ precision.T - 2 * codes @ (means * precision).T + np.square(means * stddevs**-1).sum(1)
    logs = -0.5 * squares - np.log(stddevs).sum(1) - 5 * np.log(2 * np.pi)
    shortcut = scipy.special.logsumexp(logs, axis=1) - np.log(300)
    exact = _mixture_by_scipy(codes, means, stddevs)
    assert np.abs(shortcut - exact).max() > 0.1
    assert np.abs(information.aggregate_log_density(codes, means, stddevs) - exact).max() < 1e-3


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_last_block_of_any_size(monkeypatch, extra):
    monkeypatch.setattr(information, "MAX_BLOCK", 32)
    rng = np.random.default_rng(2)
    codes, means, stddevs = _codes(rng, 40, 3, 0.2)
    many = np.resize(codes, (64 + extra, 3))
    ours = information.aggregate_log_density(many, means, stddevs)
    assert ours.shape == (64 + extra,)
    np.testing.assert_allclose(ours, _mixture_by_scipy(many, means, stddevs), atol=1e-4)


def test_large_mixture_is_summed_accurately():
    """Equal components: whatever N, the mixture is the component itself."""
    codes = np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
    ours = information.aggregate_log_density(codes, np.zeros((200_000, 2), np.float32), np.ones((200_000, 2), np.float32))
    np.testing.assert_allclose(ours, scipy.stats.norm.logpdf(codes.astype(float)).sum(-1), atol=1e-4)


def test_float64_inputs_are_computed_in_float64():
    codes, means, stddevs = (values.astype(np.float64) for values in _codes(np.random.default_rng(4), 50, 4, 0.01))
    np.testing.assert_allclose(information.aggregate_log_density(codes, means, stddevs),
                               _mixture_by_scipy(codes, means, stddevs), rtol=1e-12, atol=1e-11)


def test_reports_progress_by_block(monkeypatch):
    monkeypatch.setattr(information, "MAX_BLOCK", 8)
    seen = []
    codes, means, stddevs = _codes(np.random.default_rng(5), 20, 2, 0.2)
    information.aggregate_log_density(codes, means, stddevs,
                                      progress=lambda blocks, desc: seen.append((len(blocks), desc)) or blocks)
    assert seen == [(3, "aggregate posterior")]


@pytest.mark.parametrize("change, words", [
    (dict(means=np.zeros((4, 3))), "do not fit"),
    (dict(codes=np.full((2, 2), np.nan)), "codes hold 4 values that are not finite"),
    (dict(stddevs=np.zeros((4, 2))), "above 0"),
    (dict(means=np.zeros((0, 2)), stddevs=np.ones((0, 2))), "N of 1 or more")])
def test_refuses_what_is_no_mixture(change, words):
    good = dict(codes=np.zeros((2, 2)), means=np.zeros((4, 2)), stddevs=np.ones((4, 2)))
    with pytest.raises(ValueError, match=words):
        information.aggregate_log_density(**good | change)
