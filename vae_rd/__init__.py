"""Rate, distortion and generalisation of variational autoencoders: train, measure, draw."""

__version__ = "0.1.0"
