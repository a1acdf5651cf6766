"""Columns: their steps against NumPy, a member against the same run alone, evaluation of every image once."""

import numpy as np
import pytest
import tensorflow as tf

from tests.numpy_vae import NumpyVae
from vae_rd.config import Config
from vae_rd.datasets import random_streams, splits
from vae_rd.model import likelihoods
from vae_rd.storage import runs
from vae_rd.training import column as column_module
from vae_rd.training.column import Column

SMALL = Config(split="cd_300", image_size=8, hidden_units=16, latent_dim=4, batch_size=32, learning_rate=3e-3)
CNN = Config(split="cd_300", image_size=8, architecture="cnn", channels=4, latent_dim=4, batch_size=32,
             learning_rate=3e-3)


def column(configs, split, jit=False, stacked=False, strategy=None):
    """A column on this machine."""
    return Column(configs, split.train.images, strategy=strategy or tf.distribute.get_strategy(), jit=jit,
                  stacked=stacked)


def trained(configs, split, steps, **options):
    """A column after some steps; `trace` [steps, 2, members] holds its training rate and distortion."""
    made = column(configs, split, **options)
    made.trace = made.train(0, steps)
    return made


def members(config, betas=(0.01, 1.0, 3.0), seeds=(0,)):
    """Configs that differ in beta and seed."""
    return [config.replace(beta=beta, seed=seed) for seed in seeds for beta in betas]


def distance(one, other):
    """The largest difference of two states, as a share of each tensor's norm."""
    assert list(one) == list(other)
    return max(np.linalg.norm(one[name] - other[name]) / max(np.linalg.norm(other[name]), 1e-30) for name in one)


def member_state(made, place):
    """One member's weights and moments."""
    return {name: values[place] for name, values in made.state().items()}


def training_noise(config, step):
    """The noise of a step, as documented: seed folded with stream and step."""
    seed = tf.random.fold_in(tf.random.fold_in([config.seed, 0], step), 0)
    return tf.random.stateless_normal([config.batch_size, config.latent_dim], seed, dtype=config.precision).numpy()


def training_images(config, images, step):
    """uint8 images of a step in [0, 1]: grey, or white with their grey value as probability."""
    if config.binarization == "none":
        return images / 255
    seed = tf.random.fold_in(tf.random.fold_in([config.seed, 1], step), 1)
    return (255 * tf.random.stateless_uniform(images.shape, seed, dtype=config.precision).numpy() < images) * 1.0


@pytest.mark.parametrize("num_layers, jit, stacked, binarization", [
    pytest.param(1, True, False, "none", marks=pytest.mark.slow), (3, False, False, "none"), (1, False, True, "none"),
    (1, False, False, "dynamic")])
def test_training_takes_the_steps_of_numpy(split, num_layers, jit, stacked, binarization):
    """Batch order, noise, binarization, gradients, Adam: 12 steps in float64, more than one pass over the images."""
    small = SMALL.replace(num_layers=num_layers, precision="float64", binarization=binarization)
    configs = members(small, (0.3, 2.0), (0, 5))[1:3]
    made = column(configs, split, jit, stacked)
    checks = [NumpyVae([values[place] for values in list(made.state().values())[:len(made.weight_names)]], num_layers)
              for place in range(2)]
    trace = made.train(0, 12)
    for place, (config, check) in enumerate(zip(configs, checks)):
        rows = random_streams.batch_indices(300, 32, config.seed, 0, 12)
        for step in range(12):
            images = training_images(config, split.train.images[rows[step]], step)
            noise = training_noise(config, step)
            rate, distortion, *_ = check.forward(images, noise)
            np.testing.assert_allclose(trace[step, :, place], [rate.mean(), distortion.mean()], rtol=1e-7)
            check.step(images, noise, config.beta, config.learning_rate)
        for name, expected in zip(made.weight_names, check.weights):
            np.testing.assert_allclose(made.state()[name][place], expected, rtol=1e-7, atol=1e-9)


CASES = [pytest.param(SMALL, True, False, marks=pytest.mark.slow),
         pytest.param(CNN, False, False, marks=pytest.mark.slow),
         (SMALL.replace(rate_terms="mutual_information"), False, True),
         pytest.param(SMALL.replace(prior="mixture", rate_terms="marginal_kl", binarization="dynamic", num_layers=2),
                      False, False, marks=pytest.mark.slow)]


@pytest.mark.parametrize("config, jit, stacked", CASES)
def test_a_member_is_the_run_trained_alone(split, config, jit, stacked):
    configs = members(config.replace(precision="float64"), (0.01, 2.0), (3, 0))[::3]
    together = trained(configs, split, 100, jit=jit, stacked=stacked)
    alone = trained(configs[1:2], split, 100, jit=jit, stacked=stacked)
    limit = 1e-9 if stacked else 0  # members that take turns run the program of the single run
    assert distance(member_state(together, 1), member_state(alone, 0)) <= limit
    np.testing.assert_allclose(together.trace[:, :, 1], alone.trace[:, :, 0], rtol=limit)
    assert distance(member_state(together, 0), member_state(alone, 0)) > 0.1  # not by all being the same


@pytest.mark.parametrize("stacked", [False, True])
def test_the_estimator_knows_which_images_a_batch_has_twice(split, stacked):
    """A batch of 400 out of 300 images: the first moments are a tenth of the gradient with their rows, and not without.
    """
    config = SMALL.replace(batch_size=400, rate_terms="marginal_kl", precision="float64", seed=5)
    made = column([config], split, stacked=stacked)
    single = made.member_model(0, member_state(made, 0))
    rows = random_streams.batch_indices(300, 400, 5, 0, 1)[0]
    images, noise = split.train.images[rows] / 255, training_noise(config, 0)

    def gradients(known):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(single.terms(images, noise, config.beta, known).objective)
        return [gradient.numpy() for gradient in tape.gradient(loss, list(single.named_weights().values()))]

    made.train(0, 1)
    moments = [values[0] for name, values in made.state().items() if name.startswith("momentum.")]
    expected, without = gradients(rows), gradients(None)
    for moment, gradient in zip(moments, expected, strict=True):
        np.testing.assert_allclose(10 * moment, gradient, rtol=1e-7, atol=1e-9)
    assert max(np.abs(one - other).max() for one, other in zip(expected, without)) > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("config, jit, stacked", CASES[:2])
def test_a_member_is_the_run_trained_alone_in_float32(split, config, jit, stacked):
    configs = members(config, (0.01, 2.0), (3, 0))[::3]
    together, alone = (trained(chosen, split, 10, jit=jit, stacked=stacked) for chosen in (configs, configs[1:2]))
    assert distance(member_state(together, 1), member_state(alone, 0)) == 0


@pytest.mark.parametrize("precision", ["bfloat16", "tensorfloat32"])
def test_other_precisions_train(split, precision):
    made = trained(members(SMALL.replace(precision=precision), (1.0,)), split, 200)
    assert made.trace[-1, 1, 0] < 0.9 * made.trace[0, 1, 0]
    assert made.state()["encoder.0.kernel"].dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("config, jit", [(SMALL, True), (CNN, False)])
def test_cutting_the_steps_into_calls_changes_no_bit(split, config, jit):
    whole, pieces = (column(members(config, (0.5,)), split, jit) for _ in range(2))
    whole.train(0, 23)
    step = 0
    for size in (1, 1, 2, 4, 8, 7):
        pieces.train(step, size)
        step += size
    assert all(np.array_equal(values, whole.state()[name]) for name, values in pieces.state().items())


@pytest.mark.slow
def test_a_restored_column_goes_on_to_the_same_bits(split):
    configs = members(SMALL, (0.1, 1.0))
    whole, half = trained(configs, split, 30), trained(configs, split, 13)
    other = column(configs, split)
    other.restore(half.state())
    other.train(13, 17)
    assert all(np.array_equal(values, whole.state()[name]) for name, values in other.state().items())


def test_a_checkpoint_that_lacks_weights_is_refused(split):
    made = column(members(SMALL, (1.0,)), split)
    for name in ("decoder.0.kernel", "velocity.decoder.0.kernel"):
        state = made.state()
        del state[name]
        with pytest.raises(runs.RunError, match=f"lacks {name}: it is damaged, or of another version. To start"):
            made.restore(state)


@pytest.mark.slow
def test_the_state_of_an_earlier_version_is_restored_without_its_betas(split):
    configs = members(SMALL, (0.1, 1.0))
    half = trained(configs, split, 13)
    other = column(configs, split)
    other.restore({"beta": np.array([7.0, 7.0])} | half.state())
    half.train(13, 4)
    other.train(13, 4)
    assert all(np.array_equal(values, half.state()[name]) for name, values in other.state().items())


@pytest.mark.slow
def test_states_of_members_make_the_state_of_a_column(split):
    state = trained(members(SMALL, (0.1, 1.0)), split, 3).state()
    parts = [column_module.member_state(state, place) for place in range(2)]
    del parts[1]["velocity.encoder.0.kernel"]
    joined = column_module.stacked_state(parts)
    assert set(state) - set(joined) == {"velocity.encoder.0.kernel"}
    assert all(np.array_equal(values, state[name]) for name, values in joined.items())

@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_a_member_that_is_lost_does_not_hurt_the_others(split, stacked):
    configs = members(SMALL, (1e38, 1.0))
    made = trained(configs, split, 20, stacked=stacked)
    assert np.isnan(made.trace[-1, :, 0]).any()
    alone = trained(configs[1:], split, 20, stacked=stacked)
    assert np.isfinite(made.trace[:, :, 1]).all()
    np.testing.assert_allclose(made.trace[:, :, 1], alone.trace[:, :, 0], rtol=1e-3)
    evaluated, expected = made.evaluate(split.test), alone.evaluate(split.test)
    np.testing.assert_allclose(evaluated.distortion[1], expected.distortion[0], rtol=1e-3)


def test_restarts_differ_and_betas_of_a_restart_share_batches_and_noise(split):
    made = column(members(SMALL, (0.1, 1.0), (4, 2)), split)
    assert made.seeds == [2, 4] and made.batches(0, 3).shape == (3, 2, 32)
    start = made.state()["encoder.0.kernel"]
    np.testing.assert_array_equal(start[0], start[1])
    assert not np.allclose(start[0], start[2])
    np.testing.assert_array_equal(made.batches(0, 3)[:, 1], random_streams.batch_indices(300, 32, 4, 0, 3))


def test_noise_of_steps_and_restarts_is_independent():
    draws = np.stack([training_noise(SMALL.replace(seed=seed), step).ravel()
                      for seed in range(3) for step in range(40)])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.5 and abs(draws.mean()) < 0.05 and abs(draws.std() - 1) < 0.05


def test_weights_are_named_by_what_they_are(split):
    made = column(members(SMALL.replace(prior="mixture"), (1.0,)), split)
    state = made.state()
    shapes = {name: state[name].shape[1:] for name in made.weight_names}
    assert shapes == {
        "encoder.0.kernel": (192, 16), "encoder.1.bias": (16,), "encoder.2.kernel": (16, 4), "encoder.3.bias": (4,),
        "encoder.4.kernel": (16, 4), "encoder.5.bias": (4,), "decoder.0.kernel": (4, 16), "decoder.1.bias": (16,),
        "decoder.2.kernel": (16, 192), "decoder.3.bias": (192,), "prior.0.means": (16, 4),
        "prior.1.log_scales": (16, 4), "prior.2.logits": (16,)}
    assert len(state) == 3 * 13


def test_members_that_cannot_share_a_program_are_refused(split):
    with pytest.raises(ValueError, match="may differ in beta and seed only; train the others as a column of their own"):
        column([SMALL, SMALL.replace(num_layers=2)], split)


# Evaluation


@pytest.mark.parametrize("size", [
    31, 32, 33, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 64, 65, 300))])
def test_every_image_is_evaluated_once_with_its_own_noise(monkeypatch, split, size):
    """Against NumPy, on partitions just below, at and above a multiple of the batch."""
    monkeypatch.setattr(column_module, "EVALUATION_BATCH", 32)
    made = trained(members(SMALL.replace(precision="float64"), (0.1, 1.0)), split, 60)
    rows = np.random.default_rng(size).choice(300, size, replace=False)
    partition = splits.Partition(*(values[rows] for values in split.test))
    seen = []
    evaluated = made.evaluate(partition, seen.append)
    assert sum(seen) == size and max(seen) <= 32
    noise = random_streams.evaluation_noise(partition.index, 4)
    for place in range(2):
        check = NumpyVae([values[place] for values in list(made.state().values())[:10]], 1)
        rate, distortion, mean, stddev, *_ = check.forward(partition.images / 255, noise)
        codes = mean + stddev * noise
        log_prior = -0.5 * (codes**2 + np.log(2 * np.pi)).sum(1)
        log_posterior = -(0.5 * noise.astype(np.float64)**2 + np.log(stddev) + 0.5 * np.log(2 * np.pi)).sum(1)
        expected = (rate, distortion, mean, stddev, log_posterior, log_prior)
        for name, value in zip(evaluated._fields, expected):
            np.testing.assert_allclose(getattr(evaluated, name)[place], value, rtol=1e-7, atol=1e-9, err_msg=name)


def test_an_image_has_the_same_values_in_any_partition(split):
    made = trained(members(SMALL, (0.1,)), split, 30)
    whole = made.evaluate(split.test)
    rows = np.array([7, 250, 3])
    part = made.evaluate(splits.Partition(*(values[rows] for values in split.test)))
    for name in whole._fields:
        np.testing.assert_array_equal(getattr(part, name)[0], getattr(whole, name)[0][rows])


# What training does


def mean_image_distortion(images):
    """Distortion of the best decoder that ignores its code: the mean image for every image."""
    pixels = images.reshape(len(images), -1) / 255
    mean = pixels.mean(0).clip(1e-9, 1 - 1e-9)
    return -(pixels * np.log(mean) + (1 - pixels) * np.log1p(-mean)).sum(1).mean()


def learned(configs, split, steps=2500):
    """Rate and distortion [members] on the training set after training at a high learning rate."""
    made = trained([config.replace(learning_rate=1e-2) for config in configs], split, steps, jit=True)
    evaluated = made.evaluate(split.train)
    return evaluated.rate.mean(1), evaluated.distortion.mean(1)


@pytest.mark.slow
def test_a_huge_beta_collapses_to_the_mean_image_and_a_small_one_does_not(split):
    rate, distortion = learned(members(SMALL, (0.0, 0.1, 1000.0)), split)
    mean_image, floor = mean_image_distortion(split.train.images), likelihoods.entropy_floor(split.train.images).mean()
    assert rate[2] < 0.01 and distortion[2] == pytest.approx(mean_image, rel=0.02)
    assert rate[0] > rate[1] > 3  # lower beta, higher rate, lower distortion; never below the floor
    assert floor < distortion[0] < distortion[1] < 0.8 * mean_image


@pytest.mark.slow
def test_a_mean_over_pixels_would_collapse_where_the_sum_does_not(monkeypatch, split):
    """The negative control: with that well-known mistake beta = 0.1 means 19.2, and this suite notices."""
    monkeypatch.setattr("vae_rd.model.vae.objective", lambda distortion, rate, beta: distortion / 192 + beta * rate)
    rate, distortion = learned(members(SMALL, (0.1,)), split)
    assert rate[0] < 0.05 and distortion[0] > 0.95 * mean_image_distortion(split.train.images)
