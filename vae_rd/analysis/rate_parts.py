"""Numbers of the two parts of the rate, mutual information and marginal KL, over beta (claims C8 and C9)."""

import numpy as np

from vae_rd.analysis import statistics
from vae_rd.analysis.finding import Finding, above_one, nearest, single
from vae_rd.analysis.paired import Runs
from vae_rd.measures.information import MARGINAL_KL, MUTUAL_INFORMATION


def missing_information(runs: Runs, network: dict, split: str) -> Finding:
    """The largest share of log N that MI lacks below beta = 1."""
    betas, (values, sizes) = runs.curves([(name, network, split, {"partition": "train"})
                                          for name in (MUTUAL_INFORMATION, "num_train")])
    return Finding(statistics.largest(statistics.differences((1 - values / np.log(sizes))[:, betas < 1])))


def information_lost(runs: Runs, network: dict, split: str) -> Finding:
    """MI at beta = 1 minus that at the largest beta, share of log N."""
    betas, (values, sizes) = runs.curves([(name, network, split, {"partition": "train"})
                                          for name in (MUTUAL_INFORMATION, "num_train")])
    above_one(betas)
    shares = values / np.log(sizes)  # saturated below beta = 1, without any spread to be pooled
    return Finding(single(statistics.differences(shares[:, [nearest(betas, 1.0)]] - shares[:, -1:])))


def marginal_kl_left(runs: Runs, network: dict, split: str) -> Finding:
    """The largest marginal KL above beta = 1, share of that at the smallest beta."""
    betas, values = runs.curve(MARGINAL_KL, network, split, partition="train")
    return Finding(statistics.largest(statistics.differences((values / values[:, :1])[:, above_one(betas)])))


def share_of_growth(runs: Runs, network: dict, split: str) -> Finding:
    """The part of the rate's growth below beta = 1 that is marginal KL."""
    betas, parts = runs.curves([(name, network, split, {"partition": "train"})
                                for name in (MUTUAL_INFORMATION, MARGINAL_KL)])
    information, marginal = (values[:, 0] - values[:, betas < 1][:, -1] for values in parts)
    return Finding(statistics.t_interval(marginal / (information + marginal)))


def gap_changes(runs: Runs, network: dict, split: str) -> Finding:
    """Absolute change of the gap in D without the marginal KL minus that without the MI, each of the mean over beta."""
    _, parts = runs.curves([("distortion", network, split, {"rate_terms": terms, "partition": partition})
                            for terms in ("mutual_information", "marginal_kl", "both")
                            for partition in ("test", "train")])
    without_kl, without_mi, both = ((test - train).mean(1) for test, train in zip(parts[::2], parts[1::2]))
    one, other = without_kl - both, without_mi - both
    # |one| - |other| is the largest over signs s of the smallest over signs t of s one + t other
    signed = np.stack([s * one + t * other for s in (1, -1) for t in (1, -1)], axis=1).reshape(-1, 2, 2)
    return Finding(statistics.largest_smallest(statistics.differences(signed)))
