"""Measurements on a trained model: information, log marginal likelihood, nearest neighbours, memorisation, pictures."""

from vae_rd.measures.record import log_measures, measure_run
from vae_rd.measures.registry import MEASURES
