"""Measures of a finished run, one file each; `registry` lists them."""

from vae_rd.measures.record import measure_run
from vae_rd.measures.registry import MEASURES
