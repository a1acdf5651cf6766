"""Names of the measured quantities that the figures draw, from each measure's own file."""
# ruff: noqa: F401

from vae_rd.measures.annealed import BIDIRECTIONAL_GAP, LOG_PX_AIS
from vae_rd.measures.distortion import MEAN_SQUARED_ERROR
from vae_rd.measures.information import MARGINAL_KL, MINIBATCH, MUTUAL_INFORMATION
from vae_rd.measures.log_marginal import LOG_PX, LOG_PX_SAMPLES, TRUSTED, UNRELIABLE
from vae_rd.measures.memorisation import (
    AVERAGED,
    AVERAGED_AT_MEAN,
    MEMORISED,
    MEMORISED_AT_MEAN,
    MEMORISED_AT_MEAN_CONTROL,
    MEMORISED_CONTROL,
    PERPLEXITY,
    PERPLEXITY_AT_MEAN,
)
from vae_rd.measures.neighbours import NEAREST
from vae_rd.measures.refinement import GAP, GAP_DECODER, GAP_ENCODER
from vae_rd.measures.refitted_prior import KERNEL, MIXTURE, RATE_SAVED
