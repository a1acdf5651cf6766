"""Making data and loading it: images per second."""

import gzip

from tests.benchmarks.contest import Row, alone, compare, measure, timed
from tests.benchmarks.material import Material

LOADING, GENERATED_PER_SECOND = 1.5, 15_000


def loading(material: Material, repeats: int, report) -> list[Row]:
    """Loading a split, verified and into arrays, against decompressing and parsing its bytes and no more."""
    from vae_rd.datasets import splits
    folder = material.generate(material.sizes.split)
    figures = measure({"load": lambda: 1000 * timed(lambda: splits.load(folder)),
                       "decompress and parse": lambda: 1000 * timed(lambda: _parse(folder)),
                       "decompress": lambda: 1000 * timed(lambda: _decompress(folder))}, repeats, report)
    label = f"loading {material.sizes.split}"
    return [compare(label, "ms", figures, "load", "decompress and parse", limit=LOADING),
            compare(label, "ms", figures, "load", "decompress")]


def generator(material: Material, repeats: int, report) -> list[Row]:
    """Drawing, compressing and writing a split."""
    split, made = material.sizes.generated_split, []

    def generate() -> float:
        seconds = timed(lambda: made.append(material.generate(split, "generated", overwrite=True)))
        info = _info(made[-1])
        return (info.num_train + info.num_test) / seconds

    figures = measure({"generate": generate}, repeats, report, warm_up=False)
    return [alone(f"generating {split}", "images/s", figures["generate"], GENERATED_PER_SECOND, at_least=True)]


def _parse(folder) -> int:
    """Images in the split, each decompressed and parsed in TensorFlow's batches and thrown away."""
    import tensorflow as tf
    names = {"image": tf.string, "index": tf.int64}
    features = {name: tf.io.FixedLenFeature([], kind) for name, kind in names.items()}
    features["factors"] = tf.io.FixedLenFeature([len(_info(folder).factor_names)], tf.float32)
    files = sorted(map(str, folder.glob("*.gz")))
    total = 0
    for batch in tf.data.TFRecordDataset(files, "GZIP", buffer_size=1 << 20).batch(1024):
        parsed = tf.io.parse_example(batch, features)
        total += len(tf.io.decode_raw(parsed["image"], tf.uint8))
    return total


def _decompress(folder) -> int:
    return sum(len(gzip.decompress(path.read_bytes())) for path in folder.glob("*.gz"))


def _info(folder):
    from vae_rd.datasets import records
    return records.read_info(folder)
