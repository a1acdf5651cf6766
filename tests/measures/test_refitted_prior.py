"""The refitted prior: a known mixture, Gaussians in closed form, and codes that no fit may have seen."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.measures.exact_run import ExactRun
from vae_rd.measures import information, refitted_prior
from vae_rd.measures.finished_run import Posteriors
from vae_rd.measures.measure import estimate
from vae_rd.storage import runs

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-2.0, 0.0], [1.0, 2.0], [2.0, -2.0]])
STDDEVS = np.array([[0.5, 1.0], [1.0, 0.3], [0.4, 0.4]])
TRUE = refitted_prior.Mixture(WEIGHTS, MEANS, STDDEVS)


def _draw(count, seed):
    rng = np.random.default_rng(seed)
    component = rng.choice(3, size=count, p=WEIGHTS)
    return MEANS[component] + STDDEVS[component] * rng.normal(size=(count, 2))


def _log_true(codes):
    """The true mixture's log density, by SciPy."""
    logs = scipy.stats.norm.logpdf(codes[:, None], MEANS, STDDEVS).sum(-1)
    return scipy.special.logsumexp(logs, axis=1, b=WEIGHTS)


def test_mixture_density_is_scipys():
    codes = _draw(50, 0)
    np.testing.assert_allclose(TRUE.log_density(codes), _log_true(codes), rtol=1e-12)


def test_em_finds_a_known_mixture():
    fitted = refitted_prior.fit_mixture(_draw(20_000, 1), num_components=3)
    order = np.argsort(-fitted.weights)
    np.testing.assert_allclose(fitted.weights[order], WEIGHTS, atol=0.02)
    np.testing.assert_allclose(fitted.means[order], MEANS, atol=0.05)
    np.testing.assert_allclose(fitted.stddevs[order], STDDEVS, atol=0.03)


def test_one_component_is_the_codes_mean_and_standard_deviation():
    codes = _draw(500, 2) * [1, 100] + [0, 3]
    fitted = refitted_prior.fit_mixture(codes, num_components=1)
    np.testing.assert_allclose(fitted.means[0], codes.mean(0))
    np.testing.assert_allclose(fitted.stddevs[0], codes.std(0))


def test_bandwidth_is_that_of_the_highest_leave_one_out_likelihood():
    """By explicit sums over a fine grid, each code against all the others."""
    codes = np.random.default_rng(3).normal(size=(300, 1)) * 5
    pairs = np.square(codes - codes.T)[~np.eye(300, dtype=bool)].reshape(300, 299)
    grid = np.geomspace(0.5, 10, 300)
    logs = [np.log(scipy.stats.norm.pdf(np.sqrt(pairs), scale=width).mean(1)).mean() for width in grid]
    assert refitted_prior.fit_kernel(codes).stddevs[0] == pytest.approx(grid[np.argmax(logs)], rel=0.03)


def test_kernel_density_is_the_mean_over_its_centres():
    fitted, codes = refitted_prior.fit_kernel(_draw(200, 4)), _draw(30, 5)
    pairs = scipy.stats.norm.pdf(codes[:, None], fitted.centres, fitted.stddevs).prod(-1)
    np.testing.assert_allclose(fitted.log_density(codes), np.log(pairs.mean(1)), rtol=1e-10)


class _KnownRun(ExactRun):
    """A run whose codes are draws of the known mixture, and whose posterior is as wide as N(0, 0.1^2) in all."""

    def codes(self, partition, sample=0, rows=None):
        """Codes [n, 2] from the mixture."""
        codes = _draw(len(self.partition(partition).index), seed=10 + (partition == "test"))
        return codes if rows is None else codes[rows]

    def posteriors(self, partition, rows=None):
        """Centred at the codes."""
        codes = self.codes(partition, rows=rows)
        return Posteriors(codes, np.full_like(codes, 0.1))

    def log_posterior(self, partition, sample=0, rows=None):
        """At its centre."""
        return information.posterior_log_density(self.codes(partition, sample, rows), *self.posteriors(partition, rows))

    def log_prior(self, partition, rows, codes):
        """N(0, 1)."""
        return scipy.stats.norm.logpdf(codes).sum(-1)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """6,000 training and 6,000 test codes."""
    return _KnownRun.of(runs.RunDir(tmp_path_factory.mktemp("known")), num_images=6000)


@pytest.fixture(scope="module")
def outcome(known):
    return refitted_prior.measure(known, refitted_prior.RefittedPriorSettings())


@pytest.mark.parametrize("partition", ["train", "test"])
@pytest.mark.parametrize("prior, lost", [("mixture", 0.03), ("kernel", 0.06)])
def test_refitted_rate_of_codes_from_a_known_mixture(known, outcome, partition, prior, lost):
    """The closed form log q - log p_true, at the same codes; fits to other codes can only be a little worse."""
    rows = known.rows(partition, 4096)
    codes = known.codes(partition)[rows]
    log_q = information.posterior_log_density(codes, *(values[rows] for values in known.posteriors(partition)))
    truth = log_q - _log_true(codes)
    values = outcome.per_example[partition][f"rate_refitted_{prior}"]
    assert np.isfinite(values).sum() == 4096
    excess, error = estimate(values[rows] - truth)
    assert -3 * error < excess < lost
    scalars = outcome.scalars[partition]
    assert scalars[f"rate_refitted_{prior}_se"] == pytest.approx(truth.std() / 64, rel=0.15)
    assert abs(scalars[f"rate_refitted_{prior}"] - truth.mean()) < 2 * scalars[f"rate_refitted_{prior}_se"]
    saved = _log_true(codes) - scipy.stats.norm.logpdf(codes).sum(-1)
    assert scalars[f"rate_saved_{prior}"] == pytest.approx((saved - (values[rows] - truth)).mean())
    assert scalars[f"rate_saved_{prior}_se"] == pytest.approx(saved.std() / 64, rel=0.15)


def test_train_and_test_codes_of_one_distribution_save_the_same(outcome):
    """So what a real run loses from train to test is its codes', not the measure's."""
    for prior in ("mixture", "kernel"):
        train, test = (outcome.scalars[name] for name in ("train", "test"))
        error = np.hypot(*(part[f"rate_saved_{prior}_se"] for part in (train, test)))
        assert abs(train[f"rate_saved_{prior}"] - test[f"rate_saved_{prior}"]) < 3 * error


@pytest.mark.parametrize("fit", [refitted_prior.fit_mixture, refitted_prior.fit_kernel])
def test_no_code_is_scored_by_a_fit_that_has_seen_it(fit):
    """Also where the same image stands in the set twice: both rows are in one fold."""
    index = np.repeat(np.arange(200), 2)
    codes, folds = np.repeat(_draw(200, 6), 2, axis=0), refitted_prior.image_folds(index)
    seen = []

    def watched(values):
        fitted = fit(values)

        class Watched:
            """A fit that counts the codes it scores and has seen."""

            def log_density(self, scored):
                seen.append(len(np.intersect1d(scored[:, 0], values[:, 0])))
                return fitted.log_density(scored)

        return Watched()

    found = refitted_prior.fit_and_score(watched, codes, folds, {"train": codes}, folds)["train"]
    assert seen == [0] * 5 and np.isfinite(found).all()
    by_row = np.arange(400) % 5  # folds by row: a code's duplicate is in the fit
    refitted_prior.fit_and_score(watched, codes, by_row, {"train": codes}, by_row)
    assert min(seen[5:]) == 80, "the watch sees it"


def test_a_kernel_that_has_seen_its_codes_would_save_too_much():
    """Negative control: 200 codes in 10 dimensions, of which none tells about another."""
    codes = np.random.default_rng(7).normal(size=(200, 10))
    folds = refitted_prior.image_folds(np.arange(200))
    fair = refitted_prior.fit_and_score(refitted_prior.fit_kernel, codes, folds, {"train": codes}, folds)["train"]
    truth = scipy.stats.norm.logpdf(codes).sum(1).mean()
    assert fair.mean() < truth
    assert refitted_prior.fit_kernel(codes).log_density(codes).mean() > fair.mean() + 1


def test_folds_are_of_the_image_and_equally_large():
    index = np.array([7, 3, 900, 3, 12, 55, 41, 8, 60, 77, 5])
    folds = refitted_prior.image_folds(index)
    assert folds[1] == folds[3]
    assert np.bincount(np.delete(folds, 3)).tolist() == [2] * 5
    np.testing.assert_array_equal(refitted_prior.image_folds(index[::-1]), folds[::-1])


def test_equal_codes_and_dead_dimensions_are_finite():
    codes = np.zeros((100, 2))
    codes[:50, 0] = 1
    for fit in (refitted_prior.fit_mixture, refitted_prior.fit_kernel):
        assert np.isfinite(fit(codes).log_density(np.array([[0.5, 0.0], [9.0, 0.1]]))).all()


def test_too_few_training_images_are_refused(tmp_path):
    few = _KnownRun.of(runs.RunDir(tmp_path), num_images=79)
    with pytest.raises(ValueError, match="training images must be 80 or more, for 16 components and 5 folds .got 79"):
        refitted_prior.measure(few, refitted_prior.RefittedPriorSettings())
