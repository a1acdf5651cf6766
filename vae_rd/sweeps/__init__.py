"""Experiments: which runs they consist of, what those cost, and how they are trained together."""
