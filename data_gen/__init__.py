"""The data generator: draws or reads data sets, splits them and writes them as TFRecord shards."""

import vae_rd  # refuses a Python that lacks the packages of both
