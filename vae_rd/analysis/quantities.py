"""Names of the measured quantities that the analysis reads, from each measure's own file; what counts as trusted."""
# ruff: noqa: F401

from vae_rd.measures.annealed import LOG_PX_AIS
from vae_rd.measures.information import MARGINAL_KL, MINIBATCH, MUTUAL_INFORMATION, RATE_PER_DIMENSION
from vae_rd.measures.log_marginal import LOG_PX, LOG_PX_SAMPLES, UNRELIABLE
from vae_rd.measures.memorisation import (
    AVERAGED,
    AVERAGED_AT_MEAN,
    MEMORISED,
    MEMORISED_AT_MEAN,
    MEMORISED_AT_MEAN_CONTROL,
    MEMORISED_CONTROL,
    PERPLEXITY,
    PERPLEXITY_AT_MEAN,
    SHARES,
)
from vae_rd.measures.neighbours import NEAREST

TRUSTED = 0.1  # largest share of flagged images with which the mean log p(x) of a run still counts: each may be off by
#   ten nats, and C3 asks whether means differ by one; it was 0.5 until first results had been seen
