"""The figure of scales against beta, from made-up runs whose scales are known."""

import numpy as np
import pytest

from tests.fabricate import fabricate_table, metrics
from vae_rd.figures import drawings
from vae_rd.sweeps.experiments import experiment

RATE = 20  # nats per image at beta = 1


def scale_of(config):
    """What the run reports: as the errors grow with beta, so does a learned scale."""
    return {"normal": 0.1, "normal_learned_scale": 0.05 * (1 + config.beta)}.get(config.likelihood)


def point(config, partition, checkpoint):
    """Values whose squared errors are those that the learned scale belongs to."""
    scale = 0.05 * (1 + config.beta)
    return metrics(config, partition) | {"likelihood_scale": scale_of(config), "mean_squared_error": scale**2,
                                         "rate": RATE / config.beta}


@pytest.fixture(scope="module")
def figure():
    """The likelihoods' figure of scales."""
    wanted = experiment("likelihoods", "smoke")
    return drawings.draw(fabricate_table(list(wanted.configs), point), wanted, "nowhere").figures["likelihoods_scale"]


def test_only_likelihoods_with_a_scale_are_drawn_a_column_per_network(figure):
    assert [axes.get_title() for axes in figure.axes] == ["1 layer", "3 layers", "", ""]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == 4 and names[2] == "root of the mean squared error, train"  # two likelihoods, and the bars
    assert [len(axes.containers) for axes in figure.axes] == [2, 2, 2, 2]


def test_a_learned_scale_changes_the_beta_and_a_fixed_one_does_not(figure):
    scales, rates = figure.axes[0], figure.axes[2]
    for place, expected in ((0, lambda beta: 0.1 + 0 * beta), (1, lambda beta: 0.05 * (1 + beta))):
        beta, scale = (np.array(data, float) for data in scales.containers[place].lines[0].get_data())
        np.testing.assert_allclose(scale, expected(beta))
        effective, rate = (np.array(data, float) for data in rates.containers[place].lines[0].get_data())
        np.testing.assert_allclose(effective, beta * (expected(beta) / 0.1)**2)
        np.testing.assert_allclose(rate, RATE / beta)
    root = [line for line in scales.lines if line.is_dashed()][1]
    np.testing.assert_allclose(root.get_ydata(), 0.05 * (1 + root.get_xdata()))
