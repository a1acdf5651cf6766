"""Measurements on a trained model: information, log marginal likelihood, nearest neighbours, memorisation, pictures."""
