"""Names of what measures write and the study reads: columns of the table of runs, and arrays of values per image."""

MUTUAL_INFORMATION, MARGINAL_KL = "mutual_information", "marginal_kl"  # exact, against all training codes
MINIBATCH = "_minibatch"  # suffix of the paper's estimates of both
LOG_PX_SAMPLES = "log_px_k"  # prefix, before the number of importance samples
LOG_PX = "log_px"  # importance-sampled log p(x), mean over the images
UNRELIABLE = "log_px_unreliable"  # share of images whose log p(x) cannot be trusted
TRUSTED = 0.1  # largest share of such images with which the mean log p(x) of a run still counts: each may be off by
#   ten nats, and C3 asks whether means differ by one; it was 0.5 until first results had been seen
LOG_PX_AIS = "log_px_ais"  # annealed importance sampling, the check
NEAREST = "nearest_distance"  # L2 distance to the nearest training image, pixels on the [0, 1] scale
MEMORISED = "memorised"  # share of test images whose reconstruction lies nearer to a training image than to its input
MEMORISED_CONTROL = "memorised_control"  # ... nearer to one of as many OTHER TEST images: what blur alone brings about
AVERAGED = "averaged"  # ... nearer to the infinite-capacity decoder's output than to its input
PERPLEXITY = "perplexity"  # of that decoder's weights on the training images
SHARES = (MEMORISED, MEMORISED_CONTROL, AVERAGED)  # of images: between 0 and 1
