"""The data generator: draws or reads data sets, splits them and writes them as TFRecord shards."""
