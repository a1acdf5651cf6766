"""The claims on synthetic tables: all supported in a world made to the paper's words, all refused in its opposite."""

import functools
import itertools
import math
import zlib

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tests import fabricate
from tests.fabricate import fabricate_table
from vae_rd.analysis import best_beta, claims, paired, rate_parts, statistics, verdicts
from vae_rd.analysis.verdicts import NOT_ENOUGH, NOT_SUPPORTED, SUPPORTED, UNDECIDED
from vae_rd.catalogue import LIKELIHOODS
from vae_rd.config import split_size
from vae_rd.measures.annealed import LOG_PX_AIS
from vae_rd.measures.distortion import EXPECTED_DISTORTION, ONE_SAMPLE_ERROR
from vae_rd.measures.information import MUTUAL_INFORMATION
from vae_rd.measures.log_marginal import LOG_PX, UNRELIABLE
from vae_rd.measures.memorisation import MEMORISED_AT_MEAN, MEMORISED_AT_MEAN_CONTROL
from vae_rd.measures.neighbours import NEAREST
from vae_rd.storage.files import write_arrays
from vae_rd.storage.runs import RunDir
from vae_rd.sweeps import experiments

SCALE = experiments.SCALES["laptop"]
NAMES = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "headline")
CONFIGS = list(dict.fromkeys(itertools.chain.from_iterable(
    experiments.experiment(name, "laptop").configs for name in experiments.names())))


def as_the_paper_says(config, partition, checkpoint):
    """Values in which C1-C9 hold, with a restart's noise of 0.05 nats."""
    decades, size = math.log10(config.beta), split_size(config.split) or split_size(SCALE.small)
    three, constant_density = config.num_layers == 3, config.split.startswith("cd")
    train = 60 - 6 * three + 4 * config.beta**0.7 + 0.3 * decades
    crowded = math.log(split_size(SCALE.large) / size)
    gap = 0.5 if constant_density else 0.5 + 4 * crowded
    if constant_density:
        train -= 0.3 * crowded
    u_shaped = not three and (constant_density or crowded > 1)
    if config.dataset == "shapes3d":
        u_shaped = three
    if u_shaped and checkpoint == "last":
        gap += 3 * max(0, -decades)
    if three and config.architecture == "mlp" and config.split == SCALE.small and config.dataset == "tetrominoes":
        gap += 1.5 * abs(decades + 1)
    change = {"both": 0, "mutual_information": -2, "marginal_kl": -0.4}[config.rate_terms]
    rate = 20 * config.beta**-0.3 - 3 * three
    information = math.log(size) * min(1.0, config.beta**-0.5)
    return noisy(config, partition, {
        "rate": rate, "distortion": train + (partition != "train") * (gap + change),
        "elbo": -100 - 5 * (decades + 1)**2,
        "entropy_floor": 20.0, "mutual_information": information, "marginal_kl": rate - information,
        LOG_PX: -90 - 5 * (decades + 1)**2 - (partition != "train") * (2 + 2 * abs(decades + 1)),
        UNRELIABLE: 0.05, MEMORISED_AT_MEAN: 0.4 + 0.1 * decades, MEMORISED_AT_MEAN_CONTROL: 0.3,
        NEAREST: 5.0 if config.split == "checkerboard" else 5.0 + 0.5 * (crowded < 1)})


def the_opposite(config, partition, checkpoint):
    """Values in which none of C1-C9 holds."""
    decades, size = math.log10(config.beta), split_size(config.split) or split_size(SCALE.large)
    three, constant_density = config.num_layers == 3, config.split.startswith("cd")
    crowded = math.log(split_size(SCALE.large) / size)
    gap = 8 + (3 * crowded if constant_density else 0)
    if three or config.dataset == "shapes3d" or checkpoint == "best":
        gap += 3 * max(0, -decades)
    change = {"both": 0, "mutual_information": 0.4, "marginal_kl": 5}[config.rate_terms]
    sign = -1 if not three and config.dataset == "tetrominoes" else 1
    train = 60 + 6 * three - sign * decades
    if partition != "train" and config.split == "checkerboard":
        gap += 25
    rate = 20 * config.beta**-0.3 + 3 * three
    return noisy(config, partition, {
        "rate": rate, "distortion": train + (partition != "train") * (gap + change),
        "elbo": -100 - 5 * (decades - 0.7)**2,
        "entropy_floor": 49.0, "mutual_information": rate - 5, "marginal_kl": 5.0,
        LOG_PX: -90 - 5 * (decades - 0.7)**2 - (partition != "train") * 10 * abs(decades),
        UNRELIABLE: 0.05, MEMORISED_AT_MEAN: 0.4 - 0.1 * decades, MEMORISED_AT_MEAN_CONTROL: 0.3,
        NEAREST: 9.0 if config.split == "checkerboard" else 5.0})


def noisy(config, partition, values):
    random = np.random.default_rng(zlib.crc32(f"{config.run_name} {partition}".encode()))
    return {name: value + 0.05 * random.standard_normal() * (name in ("rate", "distortion", "elbo"))
            for name, value in values.items()}


def images_of(table, count=16, spread=1.0, quantities=(LOG_PX, LOG_PX_AIS)):
    """Values per image whose means are the table's; every image has its own level, the same in all runs."""
    means = table.set_index(["run", "partition", "checkpoint"])
    columns = {name: means[name].to_dict() for name in quantities if name in means}
    levels = 20 * np.random.default_rng(0).standard_normal(count)

    def read(run, partition, checkpoint):
        random = np.random.default_rng(zlib.crc32(f"{run} {partition}".encode()))
        others = spread * random.standard_normal(count)
        whole = levels - levels.mean() + others - others.mean()
        return {name: np.append(np.nan, column[run, partition, checkpoint] + whole) for name, column in columns.items()}
    return read


def judge(table, scale="laptop", images=images_of, of=""):
    """The claims table, or its rows whose claim and statement hold one of these words, separated by |."""
    def chosen(scale):
        return [claim for claim in claims.all_claims(scale)
                if any(words in f"{claim.claim}: {claim.statement}" for words in of.split("|"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, "all_claims", chosen)
        return verdicts.evaluate(table, scale, images(table))


def row_of(judged, words):
    """The one row whose statement holds these words."""
    (found,) = [row for _, row in judged.iterrows() if words in row["statement"]]
    return found


def one_row(table, words, images=images_of):
    """The one row whose statement holds these words, the only one that is computed."""
    return row_of(judge(table, images=images, of=words), words)


@pytest.fixture(scope="module")
def agreeing():
    return fabricate_table(CONFIGS, as_the_paper_says)


@pytest.fixture(scope="module")
def disagreeing():
    return fabricate_table(CONFIGS, the_opposite)


def test_every_test_is_supported_in_a_world_like_the_papers(agreeing):
    judged = judge(agreeing)
    wrong = judged[judged["verdict"] != SUPPORTED]
    assert wrong.empty, wrong[["claim", "statement", "estimate", "low", "high", "note"]].to_string()
    assert dict(verdicts.overall(judged)) == dict.fromkeys(NAMES, SUPPORTED)
    assert set(judged["restarts"].dropna()) == {3} and set(judged["betas"].dropna()) == {len(SCALE.betas), 4}


@pytest.mark.slow
def test_every_claim_falls_in_the_opposite_world(disagreeing):
    judged = judge(disagreeing)
    assert dict(verdicts.overall(judged)) == dict.fromkeys(NAMES, NOT_SUPPORTED), judged.to_string()


def test_no_runs_are_not_enough_runs(agreeing):
    judged = judge(agreeing.iloc[:0])
    assert set(judged["verdict"]) == {NOT_ENOUGH} and (judged["note"] != "").all()
    assert judged["estimate"].isna().all() and judged["restarts"].isna().all()


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [1, 2])
def test_too_few_restarts_give_plain_differences_without_intervals(agreeing, restarts):
    judged = judge(agreeing[agreeing["seed"] < restarts])
    tests = judged[~judged["statistic"].str.contains("mean distance")]  # of the data, not of restarts
    assert set(tests["verdict"]) == {NOT_ENOUGH} and set(tests["restarts"]) == {restarts}
    assert np.isfinite(tests["estimate"]).all() and tests[["low", "high"]].isna().all(axis=None)
    assert "too few restarts at every beta (3 needed)" in tests.iloc[0]["note"]
    row = row_of(judged, "more layers lower the rate")
    chosen = agreeing.query("seed < @restarts and split == @SCALE.large and architecture == 'mlp'"
                            " and partition == 'test' and checkpoint == 'last' and dataset == 'tetrominoes'"
                            " and latent_dim == 10")
    means = chosen.groupby("num_layers")["rate"].mean()
    assert row["estimate"] == pytest.approx(means[3] - means[1])
    both = ""
    if restarts == 2:
        each = chosen.groupby(["seed", "num_layers"])["rate"].mean().unstack()
        both = "the two restarts give {:.3g} and {:.3g}; ".format(*(each[3] - each[1]))
    assert (f"{restarts} restart{'s' if restarts > 1 else ''}, 6 betas; {both}rate, CV(16k)"
            in verdicts.as_text(judged))


def test_a_missing_measure_is_named(agreeing):
    judged = judge(agreeing.drop(columns=MUTUAL_INFORMATION))
    rows = judged[judged["statement"].str.contains("MI is saturated|MI decreases")]
    assert len(rows) == 4 and set(rows["note"]) == {"no run has mutual_information"}
    assert verdicts.overall(judged)["C2"] == SUPPORTED


def test_runs_of_another_scale_do_not_count(agreeing):
    judged = judge(agreeing, "paper")
    assert set(judged["verdict"]) <= {NOT_ENOUGH, SUPPORTED}
    assert verdicts.overall(judged)["C2"] == NOT_ENOUGH


def test_scales_without_a_beta_above_one_are_judged():
    configs = [config for name in experiments.names() for config in experiments.experiment(name, "smoke").configs]
    judged = judge(fabricate_table(list(dict.fromkeys(configs)), as_the_paper_says), "smoke")
    assert set(judged["verdict"]) <= {NOT_ENOUGH, SUPPORTED}
    assert np.isfinite(row_of(judged, "test ELBO is best")["estimate"])
    assert np.isnan(row_of(judged, "the interior minimum persists")["estimate"])  # two betas have no interior


class TestLogMarginal:
    """Log p(x) goes by annealed importance sampling where it is there, else by importance sampling that is trusted."""

    def test_unreliable_importance_sampling_is_not_tested(self, agreeing):
        judged = judge(agreeing.assign(**{UNRELIABLE: 0.8}), of="log p")
        rows = judged[judged["statement"].str.contains("log p")]
        words = "cv_2000, test: importance-sampled log p\\(x\\) is unreliable at beta = 0.001"
        assert rows["note"].str.contains(words).all()
        assert set(rows["verdict"]) == {NOT_ENOUGH} and rows["estimate"].isna().all()

    @pytest.mark.parametrize("share, verdict", [(0.09, SUPPORTED), (0.2, NOT_ENOUGH)])
    def test_unreliable_training_images_leave_the_gap_untested(self, agreeing, share, verdict):
        """The gap in log p(x) is made of both partitions; a fifth of one is enough to move a mean by a nat."""
        judged = judge(agreeing.assign(**{UNRELIABLE: np.where(agreeing["partition"] == "train", share, 0.0)}),
                       of="log p(x)")
        assert row_of(judged, "the gap in log p(x) is smallest")["verdict"] == verdict
        assert row_of(judged, "test log p(x) is best")["verdict"] == SUPPORTED

    def test_annealed_estimates_decide_where_they_are(self, agreeing):
        """The importance-sampled curve is flat and flagged; the annealed one peaks at 0.1."""
        judged = judge(agreeing.assign(**{LOG_PX_AIS: agreeing[LOG_PX], LOG_PX: -80.0, UNRELIABLE: 1.0}), of="log p(x)")
        row = row_of(judged, "test log p(x) is best")
        bias = ", lower bounds, whose bias is not in the interval and was not measured"
        assert (row["verdict"], row["note"]) == (SUPPORTED, f"16 test images by annealed importance sampling{bias}")
        row = row_of(judged, "the gap in log p(x) is smallest")
        assert (row["verdict"], row["note"]) == (
            SUPPORTED, f"16 test and 16 train images by annealed importance sampling{bias}")

    @pytest.mark.parametrize("share, verdict", [(1.0, NOT_ENOUGH), (0.0, SUPPORTED)])
    def test_a_gap_has_one_way_of_estimation(self, agreeing, share, verdict):
        """Records of the first version have test images alone: their gap is importance-sampled, or not tested."""
        annealed = agreeing[LOG_PX].where(agreeing["partition"] == "test") + 50
        judged = judge(agreeing.assign(**{LOG_PX_AIS: annealed, UNRELIABLE: share}), of="log p(x)")
        assert row_of(judged, "test log p(x) is best")["verdict"] == SUPPORTED
        row = row_of(judged, "the gap in log p(x) is smallest")
        assert row["verdict"] == verdict
        assert row["note"].startswith("16 test and 16 train images by importance" if share == 0.0 else
                                      "cv_2000, test: importance-sampled log p(x) is unreliable")

    def test_the_interval_of_a_gap_holds_the_errors_of_both_partitions(self, agreeing):
        """Estimates of images that are all alike scatter by the Monte Carlo error alone: of 2 nats, here."""
        table = agreeing.assign(**{LOG_PX_AIS: agreeing[LOG_PX]})
        means = table.set_index(["run", "partition", "checkpoint"])[LOG_PX_AIS].to_dict()

        def images(run, partition, checkpoint):
            error = np.random.default_rng(zlib.crc32(f"{run} {partition}".encode())).standard_normal(16)
            return {LOG_PX_AIS: means[run, partition, checkpoint] + 2 * error}
        runs = paired.Runs(table, SCALE, images)
        found = best_beta.peak(runs, LOG_PX, +1, ("test", "train"), SCALE.small, 0.1, 2.0).interval
        _, parts = runs.image_curves([(LOG_PX_AIS, experiments.THREE_LAYERS, SCALE.small, {"partition": partition})
                                      for partition in ("test", "train")])
        over_restarts = statistics.between(parts[0].mean(2) - parts[1].mean(2), [0, 1, 3, 4, 5], [2])
        ends = []
        for column, mean, error in zip((0, 1, 3, 4, 5), over_restarts.mean, over_restarts.error):
            errors = [scipy.stats.sem(part[:, column].mean(0) - part[:, 2].mean(0)) for part in parts]
            assert 0.2 < errors[0] < 0.8  # 2 * sqrt(2 / 3 restarts / 16 images) = 0.41
            half = np.hypot(scipy.stats.t(10).ppf(0.975) * error, scipy.stats.t(15).ppf(0.975) * np.hypot(*errors))
            ends.append(mean + half + (2 if column in (0, 5) else -2))
        assert found.high == pytest.approx(max(ends))

    def test_images_that_scatter_decide_nothing(self, agreeing):
        for count, verdict in ((16, UNDECIDED), (4000, SUPPORTED)):
            images = functools.partial(images_of, count=count, spread=30.0)
            assert one_row(agreeing, "test log p(x) is best", images)["verdict"] == verdict

    def test_the_interval_holds_restarts_and_images(self, agreeing):
        images = images_of(agreeing, spread=3.0)
        runs = paired.Runs(agreeing, SCALE, images)
        found = best_beta.peak(runs, LOG_PX, +1, ("test",), SCALE.small, 0.1, 2.0).interval
        betas, (values,) = runs.image_curves([(LOG_PX, experiments.THREE_LAYERS, SCALE.small, {})])
        assert values.shape == (3, 6, 16) and list(betas) == list(SCALE.betas)
        over_restarts = statistics.between(values.mean(2), [0, 1, 3, 4, 5], [2])
        ends = []
        for column, mean, error in zip((0, 1, 3, 4, 5), over_restarts.mean, over_restarts.error):
            paired_by_image = values[:, column].mean(0) - values[:, 2].mean(0)
            half = np.hypot(scipy.stats.t(10).ppf(0.975) * error,
                            scipy.stats.t(15).ppf(0.975) * scipy.stats.sem(paired_by_image))
            ends.append(mean + half + (2 if column in (0, 5) else -2))
        assert found.high == pytest.approx(max(ends))

    def test_values_per_image_are_needed_and_of_the_same_images(self, agreeing):
        row = one_row(agreeing, "test log p(x) is best", lambda table: None)
        assert row["verdict"] == NOT_ENOUGH and "the runs have no values of the same images" in row["note"]
        one = one_row(agreeing, "test log p(x) is best", functools.partial(images_of, count=1))
        assert "fewer than 2 images were measured in all runs" in one["note"]

    def test_values_per_image_are_read_from_the_run_directories(self, tmp_path):
        run = RunDir(tmp_path / "a_run")
        run.path.mkdir()
        write_arrays(run.per_example("test"), {LOG_PX: np.array([-1.0, np.nan])})
        read = paired.images_of(tmp_path)
        np.testing.assert_array_equal(read("a_run", "test", "last")[LOG_PX], [-1.0, np.nan])
        assert read("a_run", "train", "last") == {}
        run.per_example("test").write_bytes(b"cut")
        with pytest.raises(paired.NotEnough, match="cannot be read"):
            read("a_run", "test", "last")


def test_a_peak_of_memorisation_that_blurs_away_counts(agreeing):
    decades = np.log10(agreeing["beta"])
    peak = agreeing.assign(**{MEMORISED_AT_MEAN: np.where(agreeing["beta"] == 1, 0.4, 0.31)})
    assert one_row(peak, "memorisation shows at large beta")["verdict"] == SUPPORTED
    small = agreeing.assign(**{MEMORISED_AT_MEAN: np.where(decades == -1, 0.4, 0.31)})
    assert one_row(small, "memorisation shows at large beta")["verdict"] == NOT_SUPPORTED


def test_changes_of_the_gap_are_compared_by_size(agreeing):
    """Without the marginal KL the gap is 2 nats smaller, without the MI 0.4: whole rate 0."""
    found = rate_parts.gap_changes(paired.Runs(agreeing, SCALE), experiments.ONE_LAYER, SCALE.small).interval
    assert found.estimate == pytest.approx(2 - 0.4, abs=0.1) and 1 < found.low < found.estimate < found.high < 2.2


def test_a_curve_without_a_minimum_has_depth_zero():
    """Both curves fall all the way: that with 3 layers by less at its lower end shows no minimum."""
    def falling(config, partition, checkpoint):
        steep = 1.0 if config.num_layers == 3 else 5.0
        return noisy(config, partition, {"rate": 20.0, "distortion": 60 + steep * math.log10(config.beta),
                                         "elbo": -80.0, "entropy_floor": 49.0})
    row = one_row(fabricate_table(CONFIGS, falling), "the minimum is more pronounced with 3 layers")
    assert row["verdict"] == NOT_SUPPORTED and row["estimate"] == pytest.approx(-2, abs=0.2)


def test_blur_is_not_memorisation(agreeing):
    """What grows with beta as much against other test images as against training images shows nothing."""
    blurred = agreeing.assign(**{MEMORISED_AT_MEAN_CONTROL: agreeing[MEMORISED_AT_MEAN]})
    row = one_row(blurred, "memorisation shows at large beta")
    assert row["verdict"] == NOT_SUPPORTED and row["estimate"] == 0


def fashion(config, partition, checkpoint):
    """Fashion-MNIST's first curve everywhere: 3.3 nats of rise are 17% of its fall of 19."""
    means = {0.001: 238.2, 0.1: 234.9, 1.0: 236.8, 5.0: 253.9}
    return noisy(config, partition, {"rate": 20.0, "distortion": means.get(config.beta, 235.0), "elbo": -250.0,
                                     "entropy_floor": 188.6})


def test_one_curve_does_not_both_fall_and_turn():
    turns, falls = "CV(2000), 1-layer MLP: test D has", "early stopping test D falls"
    judged = judge(fabricate_table(CONFIGS, fashion), of=f"{turns}|{falls}")
    turns, falls = row_of(judged, turns), row_of(judged, falls)
    assert (turns["verdict"], falls["verdict"]) == (SUPPORTED, NOT_SUPPORTED)
    assert falls["estimate"] == pytest.approx(3.3 / 19, rel=0.05) == turns["estimate"]


def test_most_data_sets_are_counted_and_listed(agreeing):
    """One data set whose curve falls all the way and one without runs leave two of three with a minimum."""
    at = (agreeing["dataset"] == "mnist") & (agreeing["partition"] == "test")
    falling = agreeing.assign(distortion=agreeing["distortion"].where(~at, 70 + 3 * np.log10(agreeing["beta"])))
    row = one_row(falling, "test D has an interior minimum with 1 layer")
    assert row["verdict"] == SUPPORTED and list(row[["estimate", "low", "high"]]) == pytest.approx([2 / 3] * 3)
    assert row["note"] == "holds: Fashion-MNIST | SmallNORB; the opposite holds: MNIST"
    without = one_row(falling[falling["dataset"] != "smallnorb"], "test D has an interior minimum with 1 layer")
    assert without["verdict"] == NOT_ENOUGH and (without["low"], without["high"]) == pytest.approx((1 / 3, 2 / 3))
    assert without["note"] == "holds: Fashion-MNIST; the opposite holds: MNIST; not enough runs: SmallNORB"


def test_distortion_without_a_floor_is_refused_in_words(agreeing):
    judged = judge(agreeing.assign(entropy_floor=np.nan), of="C2:|CV, 1-layer MLP: test D depends strongly")
    row = row_of(judged, "CV, 1-layer MLP: test D depends strongly")
    assert row["verdict"] == NOT_ENOUGH and "the likelihood of these runs (bernoulli) has no floor of D" in row["note"]
    assert verdicts.overall(judged)["C2"] == SUPPORTED


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_share_of_the_distortion_is_tested_unless_it_is_of_a_density(monkeypatch, likelihood):
    """Runs of one likelihood everywhere: D rises by 20% of a level of 100 nats, above whatever the floor is."""
    scale = SCALE._replace(base=SCALE.base.replace(likelihood=likelihood))
    monkeypatch.setitem(experiments.SCALES, "laptop", scale)
    configs = experiments.product(scale, experiments.MLPS, scale.cv)
    floor = fabricate.FLOORS.get(likelihood, math.nan)

    def point(config, partition, checkpoint):
        above = 20 * (config.split == scale.cv[0])
        return noisy(config, partition, {"rate": 20.0, "distortion": above + fabricate.LEVELS[likelihood] + 51,
                                         "elbo": -80.0, "entropy_floor": floor})
    row = one_row(fabricate_table(configs, point), "CV, 1-layer MLP: test D depends strongly")
    if LIKELIHOODS[likelihood].is_density:
        assert row["verdict"] == NOT_ENOUGH and np.isnan(row["estimate"])
        assert f"({likelihood}) is a density, so that D may be negative: excess D, as a share of D" in row["note"]
    else:
        assert row["estimate"] == pytest.approx(20 / (fabricate.LEVELS[likelihood] + 51), rel=0.01)
        assert row["verdict"] == (SUPPORTED if likelihood == "bernoulli" else NOT_SUPPORTED)


@pytest.mark.slow
@pytest.mark.parametrize("error, verdict", [(0.0, SUPPORTED), (0.05, SUPPORTED), (8.0, UNDECIDED)])
def test_the_error_of_one_posterior_sample_widens_the_interval(agreeing, error, verdict):
    """All restarts share the sample: their scatter of 0.05 nats does not show it."""
    column = EXPECTED_DISTORTION + ONE_SAMPLE_ERROR
    words = "CV(2000), 3-layer MLP: the gap in D is smallest"
    plain, row = (row_of(judge(table), words) for table in (agreeing, agreeing.assign(**{column: error})))
    assert plain["verdict"] == SUPPORTED and row["verdict"] == verdict and row["estimate"] == plain["estimate"]
    assert (row["high"] - row["low"] > plain["high"] - plain["low"]) == (error > 0)
    some = agreeing.assign(**{column: np.where(agreeing["beta"] == 0.001, np.nan, error)})
    assert row_of(judge(some), words).drop("note").equals(plain.drop("note"))
    runs = paired.Runs(agreeing.assign(**{column: error}), SCALE)
    wanted = [("distortion", experiments.THREE_LAYERS, SCALE.small, {"partition": name}) for name in ("test", "train")]
    found = best_beta._sampling_error(runs, wanted, np.array(SCALE.betas))(np.array([0, 1]), 2)
    np.testing.assert_allclose(found, 2 * error)  # two partitions at two betas


def test_the_bias_of_annealing_stands_beside_the_interval(agreeing):
    runs = paired.Runs(agreeing.assign(bidirectional_gap=0.1 + 0.05 * agreeing["beta"]), SCALE)
    assert "at most 0.1 to 0.35 nats, by beta, on simulated images" in best_beta._bias(runs, SCALE.small)
    assert "was not measured" in best_beta._bias(paired.Runs(agreeing, SCALE), SCALE.small)


def test_a_noisy_flat_curve_supports_no_interior_minimum():
    def flat(config, partition, checkpoint):
        random = np.random.default_rng(zlib.crc32(f"{config.run_name} {partition}".encode()))
        return {"rate": 20.0, "distortion": 60 + random.standard_normal(), "elbo": -80.0, "entropy_floor": 49.0}

    judged = judge(fabricate_table(CONFIGS, flat), of="interior minimum")
    dips = judged[judged["statistic"].str.contains("depth of the lowest interior point")]
    assert len(dips) == 3 and (dips["verdict"] == UNDECIDED).all()


def test_p_is_below_its_level_exactly_where_the_interval_is_above_the_margin():
    for depth in np.linspace(0, 4, 30):
        curve = np.array([depth, 0, 0.5, 6]) + 0.4 * np.random.default_rng(int(100 * depth)).standard_normal((3, 4))
        for margin in (0.0, 0.6):
            found = statistics.interior_minimum(curve, margin)
            assert (found.p_value < 0.05) == (found.depth.low > margin)


def test_the_interval_decides_not_the_estimate(agreeing):
    """A gap of 1 nat whose restarts scatter by 20 is no evidence that there is no gap, nor that there is one."""
    scatter = agreeing.copy()
    chosen = (scatter["split"] == SCALE.large) & (scatter["partition"] == "test")
    scatter.loc[chosen, "distortion"] += 20 * np.random.default_rng(0).standard_normal(chosen.sum())
    assert verdicts.overall(judge(scatter, of="C1:"))["C1"] == UNDECIDED


@pytest.mark.parametrize("test, train, holds", [(4, 5, True), (2, 5, False), (5, 2, False), (-1, 1, False)])
def test_underfitting_is_a_rise_of_both(agreeing, test, train, holds):
    """At beta = 5, over that at 1: a rise on training images alone is what any regulariser brings about."""
    rises = np.where(agreeing["partition"] == "train", train, test) * (agreeing["beta"] == 5)
    row = one_row(agreeing.assign(distortion=60 + rises), "reducing the MI underfits")
    assert row["verdict"] == (SUPPORTED if holds else NOT_SUPPORTED) and row["estimate"] == holds


def test_curves_are_paired_by_seed_and_complete(agreeing):
    gone = (agreeing["seed"] == 1) & (agreeing["beta"] == 0.1) & (agreeing["split"] == SCALE.large)
    runs = paired.Runs(agreeing[~gone], SCALE)
    with pytest.raises(paired.NotEnough, match=r"distortion, CV\(16k\), 1-layer MLP: too few restarts at beta = 0.1 "):
        runs.curve("distortion", experiments.ONE_LAYER, SCALE.large)
    betas, values = runs.curve("distortion", experiments.ONE_LAYER, SCALE.small)
    assert values.shape == (3, len(SCALE.betas)) and list(betas) == list(SCALE.betas)
    point = SCALE.base.replace(**experiments.ONE_LAYER, split=SCALE.small, beta=0.3, seed=1)
    row = agreeing[(agreeing["run"] == point.run_name) & (agreeing["partition"] == "test")
                   & (agreeing["checkpoint"] == "last")]
    assert values[1, 3] == row["distortion"].item()


def test_a_beta_that_would_leave_too_few_restarts_is_left_out(agreeing):
    """Of the betas that no test needs, 0.01 finished with seed 0 only and 0.3 with seed 1 only."""
    there = agreeing["beta"].isin(SCALE.few_betas)
    for beta, seed in ((0.01, 0), (0.3, 1)):
        there |= (agreeing["beta"] == beta) & (agreeing["seed"] == seed)
    for seeds, least, expected in ((3, 3, 3), (3, 1, 3), (2, 1, 2)):
        rows = agreeing[there & (agreeing["seed"] < seeds)]
        betas, values = paired.Runs(rows, SCALE, least=least).curve("distortion", experiments.ONE_LAYER, SCALE.small)
        assert list(betas) == list(SCALE.few_betas) and values.shape == (expected, 4)
    alone = paired.Runs(agreeing[there & (agreeing["seed"] == 0)], SCALE, least=1)
    betas, values = alone.curve("distortion", experiments.ONE_LAYER, SCALE.small)
    assert list(betas) == [0.001, 0.01, 0.1, 1.0, 5.0] and values.shape == (1, 5)


def test_runs_under_their_earlier_names_have_the_same_curves(agreeing):
    earlier = {config.run_name: config.earlier_run_name for config in CONFIGS}
    assert any(name != old for name, old in earlier.items())
    renamed = agreeing.assign(run=agreeing["run"].map(earlier))
    values, expected = (paired.Runs(table, SCALE).curve("distortion", experiments.ONE_LAYER, SCALE.small,
                                                        rate_terms="marginal_kl")[1] for table in (renamed, agreeing))
    np.testing.assert_array_equal(values, expected)


def test_a_value_of_the_split_is_of_the_same_images(agreeing):
    """Distances on data of another seed, or binarised, are other distances."""
    others = [agreeing.assign(**{field: value, NEAREST: 77.0}) for field, value in
              (("data_seed", 1), ("binarization", "static"), ("dataset", "mnist"), ("image_size", 16))]
    runs = paired.Runs(pd.concat([*others, agreeing]), SCALE)
    assert runs.one_value(NEAREST, SCALE.large) == 5.5
    with pytest.raises(paired.NotEnough, match="cv_16k: no run has nearest_distance"):
        paired.Runs(pd.concat(others), SCALE).one_value(NEAREST, SCALE.large)


def test_margins_are_the_modules_constants(agreeing):
    row = one_row(agreeing, "CV(16k), 1-layer MLP: no generalisation gap to speak of")
    assert row["must_be"] == f"below {claims.TENTH:g}"
