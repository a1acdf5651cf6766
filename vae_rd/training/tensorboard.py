"""TensorBoard's view of a run: scalars, pictures and the HParams entry, rewritten from the history at every start."""

import dataclasses
import os

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2, summary as hparams_summary, summary_v2 as hparams

from vae_rd import model
from vae_rd.config import Config
from vae_rd.measures import MEASURES
from vae_rd.storage import runs

SCALARS = ("rate", "distortion", "elbo", "objective", "active_units")
HPARAMS_METRICS = ("test/rate", "test/distortion", "train/rate", "train/distortion", "test/elbo", "train/elbo")
# TensorBoard refuses None, which eval_* may be; imports are no hyperparameter
HPARAMS_FIELDS = tuple(field.name for field in dataclasses.fields(Config)
                       if field.name not in ("eval_every", "eval_images", "imports"))
SHOWN_FIELDS = ("architecture", "beta", "num_layers", "seed", "split")  # TensorBoard ticks five fields and five metrics
NUM_PICTURES, PICTURE_COLUMNS = 16, 8
_EARLIER_ROOT_FILE = "events.out.tfevents.0000000000.hparams"  # it made a run of the root


class Board:
    """The event file of one run; old ones are removed and their scalars written again from the history."""

    def __init__(self, run: runs.RunDir, config: Config, history: list[dict]):
        for old in [*run.event_files(), run.path.parent / _EARLIER_ROOT_FILE]:
            old.unlink(missing_ok=True)
        self._prior = config.prior
        self._writer = tf.summary.create_file_writer(os.fsencode(run.path))
        with self._writer.as_default():
            tf.summary.experimental.write_raw_pb(_hparams_config(), step=0)
            _, beta, seed_and_hash = config.run_name.rpartition("-beta")
            trial = f"{beta[1:]}{seed_and_hash}"  # the column is too narrow for more
            hparams.hparams({name: getattr(config, name) for name in HPARAMS_FIELDS}, trial_id=trial)
        self.scalars(history)

    def scalars(self, rows: list[dict]) -> None:
        """Writes rows of the history under `train/...` and `test/...`."""
        with self._writer.as_default():
            for row in rows:
                if row["partition"] in ("train", "test"):
                    for name in SCALARS:
                        tf.summary.scalar(f"{row['partition']}/{name}", row[name], step=row["step"])
        self._writer.flush()

    def pictures(self, vae: model.VAE, images: np.ndarray, step: int) -> None:
        """Writes images [num, height, width, channels], their reconstructions and as many samples, each under its name.

        The same place in each picture is the same image; samples are decoded codes from the run's own prior.
        """
        samples = vae.picture(vae.prior().sample(len(images), seed=[0, 0])).numpy()
        with self._writer.as_default():
            for name, shown, words in (
                    ("test images/1 inputs", images, "test images"),
                    ("test images/2 reconstructions", vae(tf.constant(images)).numpy(), "the same, reconstructed"),
                    ("samples/prior", samples, f"decoded codes from the run's own prior, {self._prior}")):
                tf.summary.image(name, _tiled(shown), step=step, description=words)

    def finish(self, status: str) -> None:
        """Says in the HParams entry that the run has finished or diverged, and closes."""
        known = {runs.FINISHED: api_pb2.STATUS_SUCCESS, runs.DIVERGED: api_pb2.STATUS_FAILURE}
        with self._writer.as_default():
            ended = hparams_summary.session_end_pb(known[status])
            tf.summary.experimental.write_raw_pb(ended.SerializeToString(), step=0)
        self._writer.close()


def _hparams_config() -> bytes:
    """The record that declares hyperparameters and metrics, in this order; every run has the same, and one is read.

    In a file at the root of the runs it would make TensorBoard list the root as a run of its own.
    """
    tags = [*HPARAMS_METRICS, *(tag for measure in MEASURES.values() for tag in measure.headlines)]
    metrics = [hparams.Metric(tag, display_name=tag.replace("/", " ").replace("_", " ")) for tag in tags]
    record = hparams.hparams_config_pb([hparams.HParam(name) for name in HPARAMS_FIELDS], metrics)
    plugin_data = record.value[0].metadata.plugin_data
    content = plugin_data_pb2.HParamsPluginData.FromString(plugin_data.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in SHOWN_FIELDS
    plugin_data.content = content.SerializeToString()
    return record.SerializeToString()


def _tiled(images: np.ndarray) -> np.ndarray:
    """One picture [1, height, width, channels] of full rows of images."""
    columns = min(PICTURE_COLUMNS, len(images))
    rows = [images[first:first + columns] for first in range(0, len(images) - columns + 1, columns)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])[np.newaxis]
