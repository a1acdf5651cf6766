"""Importance-sampled log p(x) against the closed form, and the flags that must rise where it fails."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from tests.linear_gaussian import LinearGaussian
from tests.measures.exact_run import ExactRun, exact_run  # noqa: F401  a fixture
from vae_rd.measures import log_marginal


@pytest.fixture(scope="module")
def model():
    return LinearGaussian()


def _weights(model, images, narrow=1.0, num_samples=2000, **options):
    means, stddevs = model.posterior(images)
    return log_marginal.log_importance_weights(images, np.arange(len(images)), means, narrow * stddevs, model.prior(),
                                               model.likelihood, num_samples, **options)


def test_exact_posterior_gives_log_px_from_one_sample(model):
    """log w = log p(x) whatever the sample: the bound is tight, all samples count, nothing is flagged."""
    images = model.images(7)
    weights = _weights(model, images, num_samples=50)
    np.testing.assert_allclose(weights, np.broadcast_to(model.log_px(images)[:, None], weights.shape), rtol=1e-9)
    judged = log_marginal.reliability(_weights(model, images))
    np.testing.assert_allclose(judged.ess, 2000)
    assert not judged.unreliable.any()


def test_wider_encoder_converges_to_log_px(model):
    images = model.images(20)
    weights = _weights(model, images, narrow=1.3)
    np.testing.assert_allclose(log_marginal.importance_bound(weights), model.log_px(images), atol=0.1)
    assert not log_marginal.reliability(weights).unreliable.any()


def test_curve_rises_from_the_elbo_to_log_px(model):
    images = model.images(20)
    weights, sizes = _weights(model, images, narrow=1.5), log_marginal.curve_sizes(2000)
    curve = [log_marginal.importance_bound(weights, size).mean() for size in sizes]
    rate = 3 * (1.5**2 - 1 - 2 * np.log(1.5)) / 2  # KL(q, exact posterior) in 3 dimensions
    assert curve[0] == pytest.approx(model.log_px(images).mean() - rate, abs=0.05)
    assert (np.diff(curve) > -1e-3).all() and curve[-1] == pytest.approx(model.log_px(images).mean(), abs=0.02)


@pytest.mark.parametrize("latent_dim, narrow, loss", [(10, 0.3, -3.3), (10, 0.1, -12.9), (1, 0.1, -1.0)])
def test_encoder_narrower_than_the_posterior_is_flagged(latent_dim, narrow, loss):
    """The known failure: nats are missing. In one dimension the sample size looks good, and the tail index speaks."""
    model = LinearGaussian(latent_dim, 12)
    images = model.images(12)
    weights = _weights(model, images, narrow=narrow, num_samples=5000)
    missing = log_marginal.importance_bound(weights) - model.log_px(images)
    judged = log_marginal.reliability(weights)
    assert missing.mean() == pytest.approx(loss, abs=0.9)
    if latent_dim == 10:
        assert judged.unreliable.all() and np.median(judged.ess) < 30
    else:
        assert judged.unreliable.mean() > 0.8
        assert (judged.ess > log_marginal.MIN_ESS).any(), "the sample size alone would not have told"


def test_widened_proposal_repairs_a_narrow_encoder():
    model = LinearGaussian(10, 12)
    images = model.images(8)
    weights = _weights(model, images, narrow=0.4, num_samples=5000, widen=2.5)
    np.testing.assert_allclose(log_marginal.importance_bound(weights), model.log_px(images), atol=0.1)
    assert not log_marginal.reliability(weights).unreliable.any()


@pytest.mark.parametrize("num_samples", [9, 10, 11, 21])
def test_blocks_of_any_size_agree(model, monkeypatch, num_samples):
    images = model.images(3)
    whole = _weights(model, images, 0.7, num_samples)
    monkeypatch.setattr(log_marginal, "CODES_PER_BLOCK", 10)
    np.testing.assert_allclose(_weights(model, images, 0.7, num_samples), whole, rtol=1e-12)


def test_samples_belong_to_the_image_and_not_to_its_place(model):
    images = model.images(4)
    means, stddevs = model.posterior(images)
    chosen = [2, 0]
    some = log_marginal.log_importance_weights(images[chosen], np.array(chosen), means[chosen], 0.7 * stddevs[chosen],
                                               model.prior(), model.likelihood, 30)
    np.testing.assert_allclose(some, _weights(model, images, 0.7, 30)[chosen], rtol=1e-12)


def test_bound_uses_all_groups():
    weights = np.log(np.arange(1, 8, dtype=float))[None]
    np.testing.assert_allclose(log_marginal.importance_bound(weights, 3),
                               [np.mean([np.log(np.mean([1, 2, 3])), np.log(np.mean([4, 5, 6]))])])
    np.testing.assert_allclose(log_marginal.importance_bound(weights, 1), np.log(np.arange(1, 8)).mean())
    np.testing.assert_allclose(log_marginal.importance_bound(weights), np.log(4))


def test_effective_sample_size():
    weights = np.array([[3.0] * 8, [700.0, *[-700.0] * 7]])
    np.testing.assert_allclose(log_marginal.effective_sample_size(weights), [8, 1])


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9, 1.5])
def test_tail_index_of_pareto_weights(shape):
    weights = scipy.stats.genpareto(shape).rvs(size=(30, 20_000), random_state=1) + 1
    assert log_marginal.tail_index(np.log(weights)).mean() == pytest.approx(shape, abs=0.08)


def test_tail_index_of_weights_without_a_tail():
    assert (log_marginal.tail_index(np.zeros((2, 500))) == -np.inf).all()
    assert log_marginal.tail_index(np.log(np.random.default_rng(0).random((5, 5000)))).max() < 0.3


def test_weights_of_few_values_have_no_tail():
    """As those of a posterior that is nearly exact, in single precision; one weight above all others still counts."""
    weights = np.where(np.random.default_rng(1).random((5, 5000)) < 0.005, 1e-3, 0.0)
    assert not log_marginal.reliability(weights).unreliable.any()
    rounded = np.float32(-1000 + 1e-4 * np.random.default_rng(2).normal(size=(5, 5000))).astype(float)
    assert len(np.unique(rounded)) < 20 and not log_marginal.reliability(rounded).unreliable.any()
    weights[:, 0] = 800
    assert log_marginal.reliability(weights).unreliable.all()


def test_too_few_samples_to_tell_are_not_trusted():
    judged = log_marginal.reliability(np.zeros((2, 10)))
    assert np.isnan(judged.tail_index).all() and judged.unreliable.all()


def test_a_posterior_between_two_numbers_is_not_trusted(exact_run):
    """All of its samples are its mean, or a step from it: weights that look equal, and say nothing."""
    means, stddevs = np.float32([[1, 1], [1, 1], [0.01, 100]]), np.float32([[1e-6, 1], [1e-8, 1], [1e-8, 1e-6]])
    assert log_marginal.unresolved(means, stddevs).tolist() == [False, True, True]
    assert not log_marginal.unresolved(means.astype(float), stddevs.astype(float)).any()
    run = ExactRun.of(exact_run, narrow=1e-18)
    settings = log_marginal.LogMarginalSettings(query_images=4, num_samples=200)
    assert not log_marginal.reliability(log_marginal.weights_of(run, "test", np.arange(4), settings)).unreliable.all()
    without_a_floor = run.config.replace(likelihood="continuous_bernoulli")
    outcome = log_marginal.measure(dataclasses.replace(run, config=without_a_floor), settings)
    assert outcome.scalars["test"][log_marginal.UNRELIABLE] == 1


def test_curve_sizes():
    assert log_marginal.curve_sizes(5000) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    assert log_marginal.curve_sizes(1) == [1]


@pytest.mark.parametrize("options", [dict(num_samples=0), dict(widen=0.5), dict(widen=float("nan"))])
def test_refuses_what_is_no_proposal(model, options):
    with pytest.raises(ValueError, match="must be 1 or more"):
        _weights(model, model.images(2), **options)
