"""A fixture of two small finished runs, for the tests that measure; the second file to ask finds them finished."""

import pytest

from vae_rd import config
from vae_rd.storage import runs


@pytest.fixture(scope="module")
def trained(data_dir):
    """Finished runs on the tiny data: an MLP, and a CNN with a mixture prior. They are shared: work on copies."""
    from vae_rd.training import train_and_measure
    folder = data_dir.with_name("trained_runs")
    shared = config.Config(split="cd_300", image_size=8, batch_size=32, train_steps=60, hidden_units=16, beta=0.1)
    cnn = config.Config(split="cd_300", image_size=8, batch_size=32, train_steps=10, architecture="cnn", channels=4,
                        prior="mixture", latent_dim=3)
    for one in (shared, cnn):
        train_and_measure.train_and_measure([one], runs_dir=folder, data_dir=data_dir, jit=False,
                                            progress=False)
    return [runs.run_dir(folder, one) for one in (shared, cnn)]
