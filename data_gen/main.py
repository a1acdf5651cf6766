"""Makes data sets on disk: python -m data_gen.main --dataset=tetrominoes --split=cd_25k --data_dir=data --seed=0."""

from absl import flags

from data_gen import generate
from vae_rd import cli
from vae_rd.config import BINARIZATIONS, DataSpec

_DATASET = flags.DEFINE_string("dataset", "tetrominoes", f"data set: {', '.join(generate.DATASETS)}")
_SPLIT = flags.DEFINE_string("split", "cv_16k", "default, checkerboard, official, cd_<size>, cv_<size> (size: a whole "
                                                "number, or 8k, 16k, ... as in the paper), or all")
_SEED = flags.DEFINE_integer("seed", 0, "data seed: factor draws, splits, static binarization", 0, 2**31 - 1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "height and width of the images in pixels", 1)
_BINARIZATION = flags.DEFINE_enum("binarization", "none", BINARIZATIONS,
                                  "none: grey values; static: every pixel drawn once; dynamic: grey values on disk, "
                                  "drawn anew in every training step")
_DATA_DIR, _RAW_DIR = cli.data_dir(), cli.raw_dir()
_PROGRESS, _IMPORT = cli.progress(), cli.modules()
_NUM_SHARDS = flags.DEFINE_integer("num_shards", None, "files per partition (default: one for every 8192 images)", 1)
_NUM_WORKERS = flags.DEFINE_integer("num_workers", None, "processes (default: one for each CPU)", 1)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace a split that exists already")
_PREVIEW = flags.DEFINE_string("preview", None, "draw samples and the four kinds of split into this file (.png, "
                                                ".pdf), and make no split")


def _make_splits() -> None:
    names = [_SPLIT.value]
    if _SPLIT.value == "all":
        names = generate.all_splits(_DATASET.value, _IMAGE_SIZE.value)
    for name in names:
        spec = DataSpec(_DATASET.value, name, _IMAGE_SIZE.value, _BINARIZATION.value, _SEED.value)
        path = generate.generate(_DATA_DIR.value, spec, raw_dir=_RAW_DIR.value, num_shards=_NUM_SHARDS.value,
                                 num_workers=_NUM_WORKERS.value, overwrite=_OVERWRITE.value,
                                 progress=_PROGRESS.value)
        print(f"{path} is complete.")


def _draw_preview(path: str) -> None:
    from data_gen import preview  # Matplotlib takes longer to load than a small split to make
    preview.save(path, generate.open_dataset(_DATASET.value, _SEED.value, _IMAGE_SIZE.value,
                                             _RAW_DIR.value or f"{_DATA_DIR.value}/raw"))
    print(f"{path} is drawn.")


def main(argv: list[str]) -> None:
    """Does what the flags ask."""
    with cli.failures_in_words(argv):
        cli.import_modules(_IMPORT.value)
        if _PREVIEW.value:
            _draw_preview(_PREVIEW.value)
        else:
            _make_splits()


if __name__ == "__main__":
    cli.run(main)
