"""TensorBoard's view of a run: scalars, pictures and the HParams entry, rewritten from the history at every start."""

import os
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary
from tensorboard.plugins.hparams import summary_v2 as hparams

from vae_rd import runs
from vae_rd.config import Config
from vae_rd.measures import MEASURES

SCALARS = ("rate", "distortion", "elbo", "objective", "active_units", "entropy_floor")
HPARAMS_METRICS = ("rate", "distortion", "elbo")
HPARAMS_FIELDS = ("dataset", "split", "architecture", "num_layers", "latent_dim", "prior", "beta", "rate_terms",
                  "train_steps", "batch_size", "learning_rate", "seed", "precision")
_ROOT_FILE = "events.out.tfevents.0000000000.hparams"


class Board:
    """The event file of one run; old ones are removed and their scalars written again from the history."""

    def __init__(self, run: runs.RunDir, history: list[dict]):
        for old in run.event_files():
            old.unlink()
        self._writer = tf.summary.create_file_writer(str(run.path))
        self.scalars(history)

    def scalars(self, rows: list[dict]) -> None:
        """Writes rows of the history under `train/...` and `test/...`."""
        with self._writer.as_default():
            for row in rows:
                if row["partition"] in ("train", "test"):
                    for name in SCALARS:
                        tf.summary.scalar(f"{row['partition']}/{name}", row[name], step=row["step"])
        self._writer.flush()

    def pictures(self, pictures: dict[str, np.ndarray], step: int) -> None:
        """Writes images [num, height, width, channels] in [0, 1] by name."""
        with self._writer.as_default():
            for name, images in pictures.items():
                tf.summary.image(name, images, step=step, max_outputs=len(images))

    def finish(self, config: Config) -> None:
        """Writes the run's HParams entry, and closes."""
        with self._writer.as_default():
            hparams.hparams({name: getattr(config, name) for name in HPARAMS_FIELDS}, trial_id=config.run_name)
            ended = hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(ended.SerializeToString(), step=0)
        self.close()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


def write_hparams_config(runs_dir: str | os.PathLike) -> None:
    """Declares hyperparameters and metrics once at the root of the runs; TensorBoard reads one such record only."""
    target = pathlib.Path(runs_dir) / _ROOT_FILE
    if target.exists():
        return
    tags = [f"{partition}/{name}" for name in HPARAMS_METRICS for partition in ("train", "test")]
    tags += [tag for measure in MEASURES.values() for tag in measure.headlines]
    metrics = [hparams.Metric(tag, display_name=tag.replace("/", " ").replace("_", " ")) for tag in tags]
    with tempfile.TemporaryDirectory(dir=runs_dir, prefix=".hparams") as folder:
        with tf.summary.create_file_writer(folder).as_default() as writer:
            hparams.hparams_config([hparams.HParam(name) for name in HPARAMS_FIELDS], metrics)
            writer.close()
        shutil.move(next(pathlib.Path(folder).iterdir()), target)
