"""Conditioning on beta: one training whose networks are told beta, evaluated at several betas, each of them a run."""

import os
import signal

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.outcomes import differences, outcome
from vae_rd.config import Config
from vae_rd.measures import finished_run
from vae_rd.storage import files, runs
from vae_rd.training import column as column_module, signals, train_and_measure
from vae_rd.training.column import Column

TINY = Config(split="cd_300", image_size=8, hidden_units=16, latent_dim=4, batch_size=32, train_steps=60, eval_every=20,
              learning_rate=3e-3, conditioning="beta")
CNN = Config(split="cd_300", image_size=8, architecture="cnn", channels=4, num_layers=2, latent_dim=4, batch_size=32,
             conditioning="beta")
BETAS = (0.001, 0.1, 5.0)


def column(configs, split, jit=False, stacked=False):
    """A column on this machine."""
    return Column(configs, split.train.images, strategy=tf.distribute.get_strategy(), jit=jit, stacked=stacked)


def trained(configs, split, steps, **options):
    """A column after some steps; `trace` [steps, 2, members] holds its training rate and distortion."""
    made = column(configs, split, **options)
    made.trace = made.train(0, steps)
    return made


def at(betas, config=TINY, **changes):
    """One training, to be evaluated at some betas."""
    return [config.replace(beta=beta, **changes) for beta in betas]


@pytest.fixture(scope="module")
def finish(data_dir):
    """finish(runs_dir, *configs) trains them together, without XLA, and returns their directories."""
    def go(runs_dir, *configs):
        train_and_measure.train_and_measure(list(configs), runs_dir=runs_dir, data_dir=data_dir, jit=False,
                                            progress=False)
        return [runs.run_dir(runs_dir, config) for config in configs]
    return go


# 40 training images: the smaller beta, the earlier the best evaluation.
OVERFITTING = TINY.replace(split="cd_40", learning_rate=3e-2, hidden_units=64, train_steps=300, eval_every=50)


@pytest.fixture(scope="module")
def overfitted(finish, tmp_path_factory):
    """The runs of one training of OVERFITTING, never stopped."""
    return finish(tmp_path_factory.mktemp("one_training"), *at(BETAS, OVERFITTING))


# Steps


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, CNN], ids=["mlp", "cnn"])
def test_with_open_gates_and_a_range_of_no_width_it_is_an_ordinary_run(split, config):
    """Gates that are open for every beta have no gradient: the other weights stay those of a plain run."""
    config = config.replace(precision="float64", beta=0.3, beta_range="0.3,0.3")
    made, plain = column([config], split), column([config.replace(conditioning="none", beta_range="0.001,5")], split)
    state = made.state()
    gates = [name for name in state if name.endswith((".slope", ".offset")) and name.count(".") == 2]
    assert len(gates) == 2 * 2 * config.num_layers
    for name in gates:
        is_offset, is_encoder = name.endswith("offset"), name.startswith("encoder")
        state[name][:] = (80.0 if is_encoder else -80.0) if is_offset else 0.0
    closed = column([config], split)
    made.restore(state)
    traces = [one.train(0, 12) for one in (made, plain, closed)]
    np.testing.assert_allclose(traces[0], traces[1], rtol=1e-9)
    assert not np.allclose(traces[2], traces[1], rtol=1e-3)  # with the gates as they begin it is another model
    weights = [values for name, values in made.state().items() if not name.endswith((".slope", ".offset"))]
    for one, other in zip(weights, plain.state().values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-12)


def test_every_image_of_a_step_has_its_own_beta_log_uniform_over_the_range(split):
    made = column([TINY.replace(precision="float64")], split)
    betas = np.stack([made._betas(0, step).numpy() for step in range(100)])
    share = (np.log(betas) - np.log(0.001)) / (np.log(5) - np.log(0.001))
    assert scipy.stats.kstest(share.ravel(), "uniform").pvalue > 0.01
    assert scipy.stats.kstest(betas.ravel() / 5, "uniform").pvalue < 1e-9  # and not uniform in beta itself
    assert len(np.unique(betas)) == betas.size
    np.testing.assert_array_equal(made._betas(0, 7), betas[7])
    assert not np.array_equal(made._betas(1, 7), betas[7])
    narrow = column([TINY.replace(beta=0.3, beta_range="0.3,0.3")], split)
    np.testing.assert_array_equal(narrow._betas(0, 7), np.full(32, np.float32(0.3)))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"stacked": True}, {"jit": True}],
                         ids=str)
def test_the_training_depends_on_the_seed_and_not_on_the_betas_it_is_evaluated_at(split, options):
    several = trained([*at(BETAS), *at(BETAS[:2], seed=1)], split, 20, **options)
    one, other = trained(at([0.3]), split, 20, **options), trained(at([0.3], seed=1), split, 20, **options)
    assert several.slots == [0, 0, 0, 1, 1]
    for name, values in several.state().items():
        assert len(values) == 2
        np.testing.assert_allclose(values[0], one.state()[name][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(values[1], other.state()[name][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(several.trace[:, :, 0], several.trace[:, :, 2])
    assert not np.array_equal(several.trace[:, :, 0], several.trace[:, :, 3])


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, CNN], ids=["mlp", "cnn"])
def test_the_state_of_a_training_is_the_same_to_the_bit_whatever_the_betas(split, config):
    one, several = trained(at([0.3], config), split, 20), trained(at(BETAS, config), split, 20)
    assert all(np.array_equal(values, one.state()[name]) for name, values in several.state().items())
    wider = trained(at([0.3], config, beta_range="0.001,6"), split, 20)
    assert not all(np.array_equal(values, one.state()[name]) for name, values in wider.state().items())


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_members_are_evaluated_at_their_own_betas(split, stacked):
    made = trained(at(BETAS), split, 30, stacked=stacked)
    evaluated = made.evaluate(split.test)
    for place, config in enumerate(made.configs):
        alone = trained([config], split, 30, stacked=stacked).evaluate(split.test)
        np.testing.assert_allclose(evaluated.rate[place], alone.rate[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(evaluated.distortion[place], alone.distortion[0], rtol=1e-5)
    assert not np.allclose(evaluated.rate[0], evaluated.rate[2], rtol=1e-3)


# Runs


@pytest.mark.slow
def test_each_beta_is_a_run_as_if_it_had_been_alone(finish, tmp_path, overfitted):
    alone, = finish(tmp_path, at(BETAS, OVERFITTING)[1])
    one, other = outcome(alone), outcome(overfitted[1])
    assert one.keys() == other.keys()
    for name in one:
        if name.startswith(("per_example", "model.keras")):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_model_of_a_run_is_told_the_beta_of_the_run(overfitted, data_dir):
    for run, beta in zip(overfitted, BETAS):
        for checkpoint in ("last", "best"):
            opened = finished_run.open_run(run.path, data_dir, checkpoint)
            assert opened.vae.beta == beta and opened.vae.conditioning == "beta"
            values, images = opened.per_example("test"), opened.images("test", np.arange(40))
            noise = (opened.codes("test") - opened.posteriors("test").means) / opened.posteriors("test").stddevs
            terms = opened.vae.terms(images, noise.astype(np.float32), beta)
            np.testing.assert_allclose(values["rate"], terms.rate, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(values["distortion"], terms.distortion, rtol=1e-4)
            np.testing.assert_allclose(-opened.log_likelihood("test", np.arange(40), opened.codes("test")),
                                       values["distortion"], rtol=1e-4)
            other = opened.vae.terms(images, noise.astype(np.float32), 0.03)
            assert not np.allclose(values["distortion"], other.distortion, rtol=1e-3)


def test_each_beta_keeps_the_best_evaluation_of_its_own(overfitted):
    """They stand at different steps of the one training, and each is scored with its own weights."""
    steps = [run.read_results()["best"]["step"] for run in overfitted]
    assert len(set(steps)) > 1
    for run, step in zip(overfitted, steps):
        scores = {row["step"]: row["objective"] for row in run.read_history() if row["partition"] == "test_select"}
        assert step == min(scores, key=scores.get)
        assert run.read_results()["best"]["test_select"]["objective"] == pytest.approx(scores[step], rel=1e-5)


def test_the_checkpoints_of_the_runs_are_one_training(overfitted):
    states = [files.read_arrays(run.last_checkpoint) for run in overfitted]
    names = [name for name in states[0] if not name.startswith(("progress", "bound"))]
    assert names and all(np.array_equal(state[name], states[0][name]) for state in states for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("method, call", [("train", 3), ("evaluate", 6), ("evaluate", 16)])
def test_one_that_is_stopped_goes_on_to_the_same_bits(finish, tmp_path, monkeypatch, overfitted, method, call):
    configs, original, calls = at(BETAS, OVERFITTING), getattr(Column, method), iter(range(1, 1000))

    def wrapped(*args, **kwargs):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)
    with monkeypatch.context() as patch:
        patch.setattr(column_module.Column, method, wrapped)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, *configs)
    for run, expected in zip(finish(tmp_path, *configs), overfitted):
        assert differences(outcome(run), outcome(expected)) == []
