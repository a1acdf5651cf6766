"""Refined posteriors against the best ones of a linear-Gaussian VAE, which are known for every beta."""

import dataclasses

import numpy as np
import pytest

from tests.measures.exact_run import ExactRun
from vae_rd.config import Config
from vae_rd.measures import measure, refinement
from vae_rd.measures.finished_run import Posteriors
from vae_rd.storage import runs

IMAGES = 60
SPREAD = np.ones(3, np.float32)  # of the codes, about


def _best(run, partition):
    """Means and standard deviations [n, 3] of q(z|x) ~ p(z) p(x|z)^(1/beta), the minimum of D + beta R."""
    model, noise = run.model, run.model.noise * np.sqrt(run.config.beta)
    precision = 1 + np.square(model.weights).sum(1) / noise**2
    means = (run.flat(partition) - model.offset) @ model.weights.T / noise**2 / precision
    return means, np.tile(1 / np.sqrt(precision), (len(means), 1))


def _terms(run, partition, means, stddevs):
    """Objective, rate and distortion [n] of Gaussian posteriors, by algebra."""
    weights, noise = run.model.weights, run.model.noise
    residual = run.flat(partition) - means @ weights - run.model.offset
    squares = np.square(residual).sum(1) + np.square(stddevs) @ np.square(weights).sum(1)
    distortion = 0.5 * squares / noise**2 + 0.5 * residual.shape[1] * np.log(2 * np.pi * noise**2)
    rate = 0.5 * (means**2 + stddevs**2 - 1 - 2 * np.log(stddevs)).sum(1)
    return distortion + run.config.beta * rate, rate, distortion


def _start(run, partition):
    """The encoder's posteriors, as the refiner takes them."""
    means, stddevs = run.posteriors(partition)
    return refinement.Gaussians(means, np.log(stddevs))


class _Run(ExactRun):
    """An exact run whose encoder misses the best posterior: by `shift` of its standard deviations, `wide` as wide."""

    miss = {"train": (0.0, 1.0), "test": (0.0, 1.0)}  # (shift, wide)

    def posteriors(self, partition, rows=None):
        """The best ones, spoiled."""
        (means, stddevs), (shift, wide) = _best(self, partition), self.miss[partition]
        signs = np.sign(np.cos(np.arange(means.size))).reshape(means.shape)
        rows = slice(None) if rows is None else rows
        return Posteriors((means + shift * stddevs * signs)[rows], (wide * stddevs)[rows])


def _run(path, beta, **miss):
    run = dataclasses.replace(_Run.of(runs.RunDir(path), num_images=IMAGES), config=Config(split="default", beta=beta))
    object.__setattr__(run, "miss", {"train": (0.0, 1.0), "test": (0.0, 1.0)} | miss)
    return run


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_a_spoiled_encoder_is_mended(tmp_path, beta):
    """Means 3 standard deviations off and a third as wide, or 2 off and 3 times as wide: the known optimum is found."""
    run = _run(tmp_path, beta, train=(3.0, 1 / 3), test=(-2.0, 3.0))
    rows = np.arange(IMAGES)
    refiner = refinement.Refiner(run.prior_of(), run.vae.likelihood, beta, 200, SPREAD)
    for name in ("train", "test"):
        best, spoiled = (_terms(run, name, *posteriors) for posteriors in (_best(run, name), run.posteriors(name)))
        assert (spoiled[0] - best[0]).min() > 10 * beta, "there was much to gain"
        found = refiner.refine(run.images(name, rows), rows, _start(run, name))
        means, log_scales = found.posteriors
        missed = _terms(run, name, means, np.exp(log_scales))[0] - best[0]
        assert missed.min() > -1e-9 and missed.max() < 0.1 * beta and missed.mean() < 0.025 * beta, "nats, exactly"
        widths = np.exp(log_scales) / _best(run, name)[1]
        assert np.abs(widths.mean(0) - 1).max() < 0.05 and widths.std(0).max() < 0.15
        for reported, exact in zip(found.reported, (spoiled, _terms(run, name, means, np.exp(log_scales)))):
            for values, truth in zip(reported, exact):
                error, spread = measure.estimate(values - truth)
                assert abs(error) < 4 * spread + 1e-9


@pytest.mark.parametrize("width", [1.0, 0.1])
def test_a_posterior_many_of_its_widths_away_is_found(tmp_path, width):
    """At beta = 0.001 codes are spread over many posterior widths: means 60 of them off, and widths off as well."""
    run = _run(tmp_path, 0.001, test=(60.0, width))
    best, spoiled = (_terms(run, "test", *posteriors) for posteriors in (_best(run, "test"), run.posteriors("test")))
    stddevs = _best(run, "test")[1]
    assert 0.5 < (60 * stddevs).min() and (60 * stddevs).max() < 1.5, "of the order of the spread"
    rows = np.arange(IMAGES)
    refiner = refinement.Refiner(run.prior_of(), run.vae.likelihood, 0.001, 200, SPREAD)
    means, log_scales = refiner.refine(run.images("test", rows), rows, _start(run, "test")).posteriors
    missed = _terms(run, "test", means, np.exp(log_scales))[0] - best[0]
    assert missed.mean() < 0.001 * (spoiled[0] - best[0]).mean()


def test_the_gap_is_divided_between_encoder_and_decoder(tmp_path):
    """The training images' encoder is perfect, the test images' is spoiled: by so much is the encoder's part."""
    run = _run(tmp_path, 1.0, test=(2.0, 0.5))
    outcome = refinement.measure(run, refinement.RefinementSettings())
    best, amortised = ({name: _terms(run, name, *posteriors(name))[0] for name in ("train", "test")}
                       for posteriors in (lambda name: _best(run, name), run.posteriors))
    parts = outcome.scalars["run"]
    spoiled = (amortised["test"] - best["test"]).mean()
    assert spoiled > 5
    assert parts["objective_gap_encoder"] == pytest.approx(spoiled, rel=0.02)
    assert parts["objective_gap_decoder"] == pytest.approx((best["test"].mean() - best["train"].mean()), abs=0.1)
    assert parts["objective_gap"] == pytest.approx(parts["objective_gap_encoder"] + parts["objective_gap_decoder"])
    spread = np.hypot(*(best[name].std(ddof=1) / np.sqrt(IMAGES) for name in best))
    assert parts["objective_gap_decoder_se"] == pytest.approx(spread, rel=0.1)
    for name in ("train", "test"):
        scalars, values = outcome.scalars[name], outcome.per_example[name]
        np.testing.assert_allclose(values["amortised_rate"], _terms(run, name, *run.posteriors(name))[1])
        assert set(values) == {f"{when}_{term}" for when in ("amortised", "refined")
                               for term in ("objective", "rate", "distortion")}
        for term, value in values.items():
            assert scalars[term] == pytest.approx(value.mean())
            assert scalars[f"{term}_se"] == pytest.approx(value.std(ddof=1) / np.sqrt(IMAGES))


def test_a_perfect_encoder_gains_nothing(tmp_path):
    scalars = refinement.measure(_run(tmp_path, 1.0), refinement.RefinementSettings()).scalars
    for part in (scalars["train"], scalars["test"]):
        assert -0.02 < part["amortisation_gap"] < 3 * part["amortisation_gap_se"], "the noise that chooses may err"


def test_the_refined_objective_is_never_above_the_amortised_one(tmp_path):
    """Image by image on the noise that chooses: images that steps made worse stay as they were."""
    run = _run(tmp_path, 1.0, test=(0.05, 1.0))
    rows, start = np.arange(IMAGES), _start(run, "test")
    refiner, images = refinement.Refiner(run.prior_of(), run.vae.likelihood, 1.0, 200, SPREAD), run.images("test", rows)
    found = refiner.refine(images, rows, start)
    before, after = found.choosing
    assert (after.objective <= before.objective).all()
    unchanged = (found.posteriors.means == start.means).all(1)
    assert 0 < unchanged.sum() < IMAGES
    np.testing.assert_array_equal(unchanged, after.objective == before.objective)
    amortised, refined = found.reported
    assert (refined.objective - amortised.objective)[unchanged].tolist() == [0] * unchanged.sum(), "the same noise"
    assert not np.isclose(amortised.objective, before.objective).any(), "other noise than that which chooses"
    np.testing.assert_allclose(after.objective, after.distortion + after.rate)


@pytest.mark.slow
def test_images_do_not_depend_on_those_beside_them(tmp_path, monkeypatch):
    run = _run(tmp_path, 1.0, train=(1.0, 0.5))
    settings = refinement.RefinementSettings(refinement_steps=5)
    whole = refinement.measure(run, settings).per_example["train"]["refined_objective"]
    monkeypatch.setattr(refinement, "IMAGES_PER_BLOCK", 16)
    np.testing.assert_allclose(refinement.measure(run, settings).per_example["train"]["refined_objective"], whole)


def test_a_prior_without_a_closed_form(tmp_path):
    """N(0, I) as a mixture of two equal parts: TFP knows no rate of it, and the same optimum is found by samples."""
    import tensorflow_probability as tfp
    tfd = tfp.distributions
    mixture = tfd.MixtureSameFamily(tfd.Categorical(np.zeros(2)),
                                    tfd.Independent(tfd.Normal(np.zeros((2, 3)), np.ones((2, 3))), 1))
    run, rows = _run(tmp_path, 1.0, test=(2.0, 0.5)), np.arange(IMAGES)
    refiner = refinement.Refiner(lambda images: mixture, run.vae.likelihood, 1.0, 200, SPREAD)
    found = refiner.refine(run.images("test", rows), rows, _start(run, "test"))
    means, log_scales = found.posteriors
    best, refined = _terms(run, "test", *_best(run, "test")), _terms(run, "test", means, np.exp(log_scales))
    assert (refined[0] - best[0]).mean() < 0.05
    assert found.reported[1].rate.mean() == pytest.approx(refined[1].mean(), abs=0.1)


def test_an_objective_of_whole_batches_is_refused(tmp_path):
    run = dataclasses.replace(_run(tmp_path, 1.0), config=Config(split="default", rate_terms="marginal_kl"))
    with pytest.raises(ValueError, match="rate_terms must be both .got marginal_kl.: else an image's objective"):
        refinement.measure(run, refinement.RefinementSettings())


def test_the_same_noise_at_every_step_would_be_fitted(tmp_path, monkeypatch):
    """Negative control: scales grow where the one noise is near 0, and fresh codes pay for it."""
    run, rows, drawn = _run(tmp_path, 1.0), np.arange(IMAGES), refinement._noise

    def repeated(keys, means, num_steps):
        first = drawn(keys, means, 1)[0]
        return [np.repeat(first, num_steps, 0), first, drawn(keys, means, 1)[2]]

    monkeypatch.setattr(refinement, "_noise", repeated)
    refiner = refinement.Refiner(run.prior_of(), run.vae.likelihood, 1.0, 200, SPREAD)
    amortised, refined = refiner.refine(run.images("test", rows), rows, _start(run, "test")).reported
    assert refined.objective.mean() > amortised.objective.mean() + 1
