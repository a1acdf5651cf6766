"""What runs cost: parameters counted by hand, hours and bytes by plain arithmetic, and durations in words."""

import pytest

from data_gen.builders import DATASETS
from vae_rd.catalogue import NETWORKS
from vae_rd.config import Config
from vae_rd.sweeps.cost import LIKELIHOOD_MS, STEP_MS, cost, duration, num_parameters, step_seconds


def test_parameters_against_a_count_by_hand():
    assert num_parameters(Config()) == (3072 * 512 + 512) + 2 * (512 * 10 + 10) + (10 * 512 + 512) + (512 * 3072 + 3072)
    assert num_parameters(Config(num_layers=3)) - num_parameters(Config()) == 4 * (512 * 512 + 512)
    assert num_parameters(Config(architecture="cnn")) == (
        (16 * 3 * 64 + 64) + 2 * (16384 * 10 + 10) + (10 * 16384 + 16384) + (16 * 64 * 3 + 3))
    assert num_parameters(Config(num_layers=3, conditioning="beta")) - num_parameters(Config(num_layers=3)) == 6 * 1024
    grey = Config(dataset="mnist")
    assert num_parameters(grey) == (1024 * 512 + 512) + 2 * (512 * 10 + 10) + (10 * 512 + 512) + (512 * 1024 + 1024)


def test_cost_is_steps_times_measured_time():
    for (architecture, layers), milliseconds in STEP_MS.items():
        config = Config(architecture=architecture, num_layers=layers)
        assert step_seconds(config) == pytest.approx(milliseconds / 1000)
    assert step_seconds(Config(batch_size=256)) == pytest.approx(2 * step_seconds(Config()))
    steps, images = 1000, 2 * 163_840 + 20 * 2 * 512
    expected = 0.011 * (steps + images / 3 / 128) / 3600
    assert cost([Config(train_steps=steps, eval_images=512)] * 2).hours == pytest.approx(2 * expected)
    assert cost([Config()]).gigabytes == pytest.approx((20 * 3_165_204 + 64 * 163_840) / 1e9)
    assert cost([]) == (0, 0, 0)


def test_runs_that_are_one_training_cost_its_steps_once():
    ordinary = Config(train_steps=1000, eval_images=512)
    evaluations = cost([ordinary]).hours - 0.011 * 1000 / 3600
    runs = [ordinary.replace(conditioning="beta", beta=beta) for beta in (0.1, 0.5, 1.0)]
    steps = step_seconds(runs[0]) * 1000 / 3600
    assert steps == pytest.approx(0.011 * 1000 / 3600, rel=1e-3)  # but for the gates
    assert cost(runs).hours == pytest.approx(steps + 3 * evaluations, rel=1e-3)
    assert cost([*runs, ordinary]).hours == pytest.approx(cost(runs).hours + cost([ordinary]).hours)
    assert cost([runs[0], runs[0].replace(seed=1)]).hours == pytest.approx(2 * cost(runs[:1]).hours)


def test_image_counts_are_those_of_the_data_sets():
    for name, images in (("mnist", 70_000), ("smallnorb", 48_600), ("shapes3d", 480_000), ("dsprites", 737_280)):
        config = Config(dataset=name)
        assert DATASETS[name].num_images == images
        assert cost([config]).gigabytes == pytest.approx((20 * num_parameters(config) + 64 * images) / 1e9)
    assert cost([Config(dataset="someones_own")]) == cost([Config()])


@pytest.mark.parametrize("seconds, words", [
    (20, "less than a minute"), (90, "about 2 minutes"), (600, "about 10 minutes"), (3590, "about 1.0 hours"),
    (5400, "about 1.5 hours"), (4_320_000, "about 1,200.0 hours")])
def test_durations_below_an_hour_are_in_minutes(seconds, words):
    assert duration(seconds / 3600) == words


def test_a_prior_and_an_architecture_count_with_their_weights(monkeypatch):
    assert num_parameters(Config(prior="learned_normal")) == num_parameters(Config()) + 2 * 10
    toy = NETWORKS["mlp"]._replace(num_parameters=lambda config, shape, channels: 2 * num_parameters(Config()))
    weights = num_parameters(Config(prior="vamp")) / num_parameters(Config())
    assert step_seconds(Config(prior="vamp")) == pytest.approx(1.5 * weights * step_seconds(Config()))
    assert step_seconds(Config(prior="exemplar")) == pytest.approx(2 * step_seconds(Config()), rel=1e-5)
    monkeypatch.setitem(NETWORKS, "toy", toy)
    assert step_seconds(Config(architecture="toy")) == pytest.approx(2 * step_seconds(Config()))


def test_a_likelihood_adds_its_own_time_by_the_values_in_an_image():
    for (architecture, likelihood), milliseconds in LIKELIHOOD_MS.items():
        config = Config(architecture=architecture, likelihood=likelihood)
        weights = num_parameters(config) / num_parameters(Config()) if architecture == "mlp" else 1
        network = weights * STEP_MS[architecture, 1] / 1000
        assert step_seconds(config) == pytest.approx(network + milliseconds / 1000)
        small = config.replace(image_size=16, dataset="mnist", batch_size=256)
        without = small.replace(likelihood="bernoulli")
        more = 1 if architecture == "cnn" else num_parameters(small) / num_parameters(without)
        added = step_seconds(small) - more * step_seconds(without)
        assert added == pytest.approx(2 * milliseconds / 1000 / 4 / 3)
        exemplar = config.replace(prior="exemplar")
        assert step_seconds(exemplar) == pytest.approx(2 * network + milliseconds / 1000, rel=1e-5)
    assert cost([Config(likelihood="normal")]) == cost([Config()])
