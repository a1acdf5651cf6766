"""TensorBoard's view of a run: scalars, pictures and the HParams entry, rewritten from the history at every start."""

import contextlib
import os
import pathlib
import time

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2, summary as hparams_summary, summary_v2 as hparams

from vae_rd import model
from vae_rd.config import Config
from vae_rd.measures import MEASURES
from vae_rd.storage import files, runs

SCALARS = ("rate", "distortion", "elbo", "objective", "active_units")
HPARAMS_METRICS = ("test/rate", "test/distortion", "train/rate", "train/distortion", "test/elbo", "train/elbo")
HPARAMS_FIELDS = ("dataset", "split", "architecture", "num_layers", "latent_dim", "prior", "likelihood", "beta",
                  "rate_terms", "train_steps", "batch_size", "learning_rate", "seed", "precision")
SHOWN_FIELDS = ("architecture", "beta", "num_layers", "seed", "split")  # TensorBoard ticks five fields and five metrics
NUM_PICTURES, PICTURE_COLUMNS = 16, 8
_ROOT_FILE = "events.out.tfevents.0000000000.hparams"


class Board:
    """The event file of one run; old ones are removed and their scalars written again from the history."""

    def __init__(self, run: runs.RunDir, config: Config, history: list[dict]):
        for old in run.event_files():
            old.unlink()
        self._writer = tf.summary.create_file_writer(os.fsencode(run.path))
        with self._writer.as_default():
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
        """Writes images [num, height, width, channels] above their reconstructions, and as many model samples."""
        samples = vae.picture(vae.prior().sample(len(images), seed=[0, 0])).numpy()
        with self._writer.as_default():
            tf.summary.image("reconstructions", _tiled(images, vae(tf.constant(images)).numpy()), step=step)
            tf.summary.image("samples", _tiled(samples), step=step)

    def finish(self, status: str) -> None:
        """Says in the HParams entry that the run has finished or diverged, and closes."""
        known = {runs.FINISHED: api_pb2.STATUS_SUCCESS, runs.DIVERGED: api_pb2.STATUS_FAILURE}
        with self._writer.as_default():
            ended = hparams_summary.session_end_pb(known[status])
            tf.summary.experimental.write_raw_pb(ended.SerializeToString(), step=0)
        self._writer.close()


def write_hparams_config(runs_dir: str | os.PathLike) -> None:
    """Declares hyperparameters and metrics once at the root of the runs; TensorBoard reads one such record only."""
    target = pathlib.Path(runs_dir) / _ROOT_FILE
    if target.exists():
        return
    tags = [*HPARAMS_METRICS, *(tag for measure in MEASURES.values() for tag in measure.headlines)]
    metrics = [hparams.Metric(tag, display_name=tag.replace("/", " ").replace("_", " ")) for tag in tags]
    record = hparams.hparams_config_pb([hparams.HParam(name) for name in HPARAMS_FIELDS], metrics)
    plugin_data = record.value[0].metadata.plugin_data
    content = plugin_data_pb2.HParamsPluginData.FromString(plugin_data.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in SHOWN_FIELDS
    plugin_data.content = content.SerializeToString()
    with contextlib.suppress(FileNotFoundError), files.whole_file(target) as beside, \
            tf.io.TFRecordWriter(os.fsencode(beside)) as writer:
        writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
        writer.write(event_pb2.Event(wall_time=time.time(), summary=record).SerializeToString())
    for leftover in target.parent.glob(f"{files.UNFINISHED}{target.stem}-*"):
        leftover.unlink(missing_ok=True)  # of a killed process, or of one that now does without


def _tiled(*parts: np.ndarray) -> np.ndarray:
    """One picture [1, height, width, channels] of full rows of images, a row of each part in turn."""
    columns = min(PICTURE_COLUMNS, len(parts[0]))
    rows = [part[first:first + columns] for first in range(0, len(parts[0]) - columns + 1, columns) for part in parts]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])[np.newaxis]
