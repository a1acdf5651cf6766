"""Annealed importance sampling against the closed form, and the acceptance rule that TFP's own annealing gets wrong."""

import numpy as np
import pytest

from tests.linear_gaussian import LinearGaussian
from vae_rd.measures import annealed


@pytest.fixture(scope="module")
def model():
    return LinearGaussian(noise=0.1)


@pytest.fixture(scope="module")
def found(model):
    """24 images in blocks of 16 (the last one ragged), as few steps as an answer to half a nat needs."""
    images = model.images(24)
    return model.log_px(images), annealed.annealed_log_marginal(
        images, model.prior(), model.likelihood, model.posterior(images)[1], num_chains=16, num_steps=160)


@pytest.mark.slow
def test_log_px_in_closed_form(found):
    truth, ours = found
    error = ours.log_px - truth
    assert ours.log_px.shape == (24,)
    assert np.abs(error).max() < 2 and -0.7 < error.mean() < 0.3
    assert np.exp(error).mean() == pytest.approx(1, abs=0.5), "exp(log w) is unbiased"


def test_chains_move_and_stay_many(found):
    assert (found[1].acceptance > 0.5).all() and (found[1].acceptance < 0.98).all()
    assert np.median(found[1].ess) > 2


@pytest.mark.slow
def test_a_wrong_guess_at_the_scales_changes_no_answer(model):
    images = model.images(4)
    ours = annealed.annealed_log_marginal(images, model.prior(), model.likelihood, np.ones((4, 3)), num_chains=16,
                                          num_steps=160)
    np.testing.assert_allclose(ours.log_px, model.log_px(images), atol=1.5)


@pytest.mark.slow
def test_bidirectional_bounds_enclose_the_truth(model):
    ours = annealed.bidirectional_check(model.prior(), lambda images: model.posterior(images)[1], model.likelihood, 20,
                                        num_chains=16, num_steps=160)
    _, images = annealed.simulate(model.prior(), model.likelihood, 20, seed=0)
    truth = model.log_px(images)
    assert (ours.lower - truth).mean() < 0.1 < 0.3 + (ours.upper - truth).mean()
    assert 0 < ours.gap.mean() < 1
    np.testing.assert_allclose((ours.lower + ours.upper) / 2, truth, atol=1.2)


@pytest.mark.slow
def test_few_steps_show_as_a_wide_gap(model):
    """The check must tell when annealing is too short to be trusted."""
    ours = annealed.bidirectional_check(model.prior(), lambda images: model.posterior(images)[1], model.likelihood, 12,
                                        num_chains=4, num_steps=16)
    assert ours.gap.mean() > 3


@pytest.mark.slow
def test_stale_acceptance_ratio_would_lose_nats(monkeypatch):
    """Negative control: TFP's kernel as it comes compares states at two different temperatures."""
    import tensorflow_probability as tfp
    model = LinearGaussian(4, 12, noise=0.04)
    images = model.images(16)
    errors = []
    for kernel in (annealed._kernel_class(), tfp.mcmc.HamiltonianMonteCarlo):
        monkeypatch.setattr(annealed, "_kernel_class", lambda kernel=kernel: kernel)
        ours = annealed.annealed_log_marginal(images, model.prior(), model.likelihood, model.posterior(images)[1],
                                              num_chains=16, num_steps=80)
        errors.append((ours.log_px - model.log_px(images)).mean())
    assert errors[0] > -1.5 and errors[1] < errors[0] - 0.7, errors


def test_temperatures_rise_from_0_to_1():
    ends = annealed.temperatures()
    assert ends[0] == 0 and ends[-1] == pytest.approx(1) and (np.diff(ends) > 0).all()


def test_fewer_steps_than_stages_are_refused(model):
    with pytest.raises(ValueError, match="num_steps must be 16 or more: .*got 15"):
        annealed.annealed_log_marginal(model.images(1), model.prior(), model.likelihood, np.ones((1, 3)), num_steps=15)
