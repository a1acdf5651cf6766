"""Measures of finished runs: what is recorded, not repeated or refused, and exact answers through the whole table."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special

from tests.measures.exact_run import ExactRun, exact_run  # noqa: F401  a fixture
from tests.trained_runs import trained  # noqa: F401  a fixture
from vae_rd import config, measures
from vae_rd.analysis import tables
from vae_rd.datasets import random_streams
from vae_rd.measures import annealed, finished_run, information, memorisation, neighbours, record
from vae_rd.measures.registry import is_share
from vae_rd.storage import ending, files, runs

_SAMPLES = dict(query_images=25, num_samples=60)
SMALL = {"information": dict(query_images=25, minibatch=32), "log_marginal": _SAMPLES,
         "annealed": dict(_SAMPLES, ais_chains=4, ais_steps=16), "memorisation": dict(query_images=25),
         "distortion": dict(posterior_samples=3), "refinement": dict(query_images=25, refinement_steps=20)}
QUICK = ("information", "neighbours", "memorisation", "pictures")


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the MLP's run."""
    return _copy(trained[0], tmp_path / "runs")


def _copy(run, folder):
    return runs.RunDir(pathlib.Path(shutil.copytree(run.path, folder / run.path.name)))


@pytest.fixture(scope="module")
def measured(trained, data_dir, tmp_path_factory):
    """The MLP's run, opened, with every measure made."""
    opened = finished_run.open_run(_copy(trained[0], tmp_path_factory.mktemp("measured")).path, data_dir)
    assert _measure(opened, *measures.MEASURES) == []
    return opened


@pytest.fixture
def opened(run, data_dir):
    return finished_run.open_run(run.path, data_dir)


def _measure(opened, *names, settings=SMALL, **options):
    return measures.measure_run(opened, names, settings=settings, progress=False, **options)


@pytest.mark.slow
def test_every_measure_is_recorded(measured):
    """Numbers in measures.json, values per image beside rate and distortion, pictures; NaN for images left out."""
    run = measured.run
    recorded = run.read_measures()["last"]
    assert list(recorded) == list(measures.MEASURES)
    for partition in ("train", "test"):
        arrays = measured.per_example(partition)
        np.testing.assert_array_equal(arrays["index"], getattr(measured.split, partition).index)
        assert all(array.dtype.kind in "fi" for array in arrays.values())
        assert {name for name, array in arrays.items() if array.shape != (300,)} == {"rate_per_dimension"}
        chosen = np.isfinite(arrays["mutual_information" if partition == "train" else "novelty"])
        expected = np.where(chosen, arrays["rate"], np.nan)
        np.testing.assert_allclose(arrays["rate_per_dimension"].sum(1), expected, rtol=1e-4)
        assert np.isfinite(arrays["rate"]).all() and np.isfinite(arrays["log_px"]).sum() == 25
        for measure, name in (("log_marginal", "log_px"), ("memorisation", "perplexity"),
                              ("memorisation", "perplexity_at_mean"), ("distortion", "expected_distortion")):
            assert recorded[measure][partition][name] == pytest.approx(np.nanmean(arrays[name]))
        log_px = recorded["log_marginal"][partition]
        elbo = -(arrays["rate"] + arrays["distortion"])
        rows = np.flatnonzero(np.isfinite(arrays["log_px"]))
        np.testing.assert_array_equal(rows, random_streams.evaluation_subset(arrays["index"], 25))
        assert log_px["log_px_k1"] == pytest.approx(elbo[rows].mean(), abs=8)  # one sample per image
        assert log_px["log_px_k1"] < log_px["log_px"] < log_px["log_px_ceiling"]
        pixels = measured.partition(partition).images[rows].reshape(25, -1) / 255
        floor = (scipy.special.entr(pixels) + scipy.special.entr(1 - pixels)).sum(1)
        assert log_px["log_px_ceiling"] == pytest.approx(-floor.mean())
    for picture in ("memorisation", "reconstructions", "samples", "traversals"):
        assert run.picture(picture).read_bytes().startswith(b"\x89PNG")
    strip = files.read_arrays(run.path / "reconstruction.npz")
    assert strip["input"].shape == strip["reconstruction"].shape == (8, 8, 3) and strip["input"].dtype == np.uint8


def test_a_run_in_a_few_lines(measured):
    lines = repr(measured).splitlines()
    found = measured.run.read_results()
    assert len(lines) == 4 and lines[0] == f"FinishedRun {measured.run.path.name}"
    assert lines[1].strip() == "finished, checkpoint last, step 60"
    assert lines[2].strip() == (f"train: 300 images, rate {found['train']['rate']:.2f}, distortion "
                                f"{found['train']['distortion']:.2f} nats per image")
    best = dataclasses.replace(measured, checkpoint="best")
    assert f"rate {found['best']['test']['rate']:.2f}" in repr(best) and "checkpoint best" in repr(best)


def test_the_first_sample_is_that_of_every_evaluation(measured):
    """And the further ones are others, each image's keyed by its index."""
    for name in ("train", "test"):
        rows, codes = np.arange(300), measured.codes(name)
        distortion = measured.per_example(name)["distortion"]
        np.testing.assert_allclose(-measured.log_likelihood(name, rows, codes), distortion, rtol=1e-5)
        noise = [(measured.codes(name, sample) - measured.posteriors(name).means) / measured.posteriors(name).stddevs
                 for sample in range(3)]
        assert abs(np.corrcoef(np.reshape(noise, (3, -1))) - np.eye(3)).max() < 0.1
    rows = np.array([7, 3])
    np.testing.assert_array_equal(measured.codes("test", rows=rows), measured.codes("test")[rows])


def test_an_image_is_encoded_once_and_only_if_it_is_asked_for(measured, monkeypatch):
    """A measure of a hundred images needs no posteriors of the other hundred thousand."""
    fresh, encoded, rows = dataclasses.replace(measured), [], np.array([5, 299, 0])
    monkeypatch.setattr(finished_run.FinishedRun, "_encoded", lambda run, images: encoded.append(len(images)) or
                        finished_run.Posteriors(*np.full((2, len(images), run.config.latent_dim), len(encoded))))
    assert (fresh.posteriors("test", rows).means == 1).all() and encoded == [3]
    fresh.posteriors("test", rows[:2])
    assert encoded == [3]
    assert fresh.posteriors("test").means[:, 0].tolist() == [1 if row in rows else 2 for row in range(300)]
    fresh.codes("test")
    assert encoded == [3, 297]


@pytest.mark.parametrize("decoded", ["mean", "sample"])
def test_memorisation_at_the_posterior_mean_and_at_a_sample(measured, decoded):
    """By exhaustive search over the 300 training images; the control has as many test images, without the input."""
    found = measured.run.read_measures()["last"]["memorisation"]["test"]
    rows = measured.rows("test", 25)
    codes = measured.posteriors("test").means if decoded == "mean" else measured.codes("test")
    made = measured.vae.likelihood(codes[rows]).mean().numpy().reshape(25, -1)
    train, test = (measured.partition(name).images.reshape(300, -1) / 255 for name in ("train", "test"))
    to_input = np.linalg.norm(made - test[rows], axis=1)
    others = np.array([np.linalg.norm(np.delete(test, row, 0) - one, axis=1).min() for row, one in zip(rows, made)])
    nearest = scipy.spatial.distance.cdist(made, train).min(1)
    suffix = "_at_mean" if decoded == "mean" else ""
    assert found["distance_to_input" + suffix] == pytest.approx(to_input.mean(), rel=1e-5)
    assert found["distance_to_training_image" + suffix] == pytest.approx(nearest.mean(), rel=1e-5)
    assert found["memorised" + suffix] == pytest.approx((nearest < to_input - 1e-4).mean())
    control = "memorised_at_mean_control" if decoded == "mean" else "memorised_control"
    assert found[control] == pytest.approx((others < to_input - 1e-4).mean())
    average = memorisation.infinite_capacity(codes[rows], *measured.posteriors("train"), measured.split.train.images)
    assert found["perplexity" + suffix] == pytest.approx(average.perplexity.mean())


def test_a_training_image_is_not_memorised_by_being_itself(measured):
    found = measured.run.read_measures()["last"]["memorisation"]["train"]
    rows = measured.rows("train", 25)
    made = measured.vae.likelihood(measured.posteriors("train").means[rows]).mean().numpy().reshape(25, -1)
    train = measured.split.train.images.reshape(300, -1) / 255
    others = [np.linalg.norm(np.delete(train, row, 0) - one, axis=1).min() for row, one in zip(rows, made)]
    assert found["distance_to_training_image_at_mean"] == pytest.approx(np.mean(others), rel=1e-5)


def test_distances_to_the_training_set_and_the_image_that_figure_3_shows(measured):
    """By exhaustive search."""
    found = measured.run.read_measures()["last"]["neighbours"]["test"]
    train, test = (measured.partition(name).images.reshape(300, -1) / 255 for name in ("train", "test"))
    distances = scipy.spatial.distance.cdist(test, train).min(1)
    assert found["nearest_distance"] == pytest.approx(distances.mean())
    assert found["nearest_distance_p90"] == pytest.approx(np.percentile(distances, 90))
    strip = files.read_arrays(measured.run.path / "reconstruction.npz")
    row = np.flatnonzero(measured.split.test.index == strip["index"])
    assert (distances < distances[row]).sum() <= 0.9 * 300 <= (distances <= distances[row]).sum() + 1e-9
    made = measured.vae.likelihood(measured.posteriors("test").means[row]).mean().numpy()[0]
    np.testing.assert_array_equal(strip["reconstruction"], np.round(255 * made).astype(np.uint8))
    np.testing.assert_array_equal(strip["input"], measured.partition("test").images[row][0])


def test_identity_rate_is_information_plus_marginal_kl(opened, run):
    _measure(opened, "information", settings={"information": dict(minibatch=32)})
    found, rate = run.read_measures()["last"]["information"], run.read_results()
    for partition, parts in (("train", ("mutual_information", "marginal_kl")), ("test", ("novelty", "typicality"))):
        total = sum(found[partition][part] for part in parts)
        assert abs(total - rate[partition]["rate"]) < 5 * found[partition]["rate_residual_se"]
        assert total - rate[partition]["rate"] == pytest.approx(found[partition]["rate_residual"], abs=1e-3)
    assert 0 < found["train"]["mutual_information"] < np.log(300) + 0.01
    assert found["train"]["marginal_kl"] > 0
    assert found["train"]["mutual_information_minibatch"] > 0


def test_what_a_measure_declares_is_a_column_of_the_table(measured):
    """Its headlines, of the partition that they name, and its shares, which lie between 0 and 1."""
    rows = tables.collect(measured.run.path.parent).query("checkpoint == 'last'").set_index("partition")
    for measure in measures.MEASURES.values():
        for part, name in (tag.split("/") for tag in measure.headlines):
            assert rows.loc[["train", "test"] if part == "run" else [part], name].notna().all(), name
        assert all(is_share(name) and 0 <= rows.loc["test", name] <= 1 for name in measure.shares), measure.name
    assert not is_share(memorisation.PERPLEXITY)
    estimates = [name + information.MINIBATCH for name in (information.MUTUAL_INFORMATION, information.MARGINAL_KL)]
    assert rows.loc["train", estimates].notna().all()
    assert {neighbours.NEAREST, information.RATE_PER_DIMENSION} <= set(measured.per_example("test"))


@pytest.mark.slow
def test_mixture_prior_and_convolutions(trained, tmp_path, data_dir):
    run = _copy(trained[1], tmp_path)
    _measure(finished_run.open_run(run.path, data_dir), *measures.MEASURES)
    found = run.read_measures()["last"]
    assert abs(found["information"]["train"]["rate_residual"]) < 1e-3, "the rate itself is measured at the same codes"
    assert np.isfinite(found["annealed"]["test"]["log_px_ais"])


def test_a_measure_is_not_repeated(opened, run, monkeypatch):
    _measure(opened, "information", "neighbours")
    before = run.measures.read_bytes()
    forbidden = {name: dataclasses.replace(entry, function=None) for name, entry in measures.MEASURES.items()}
    monkeypatch.setattr(record, "MEASURES", forbidden)
    assert _measure(opened, "information", "neighbours") == [] and run.measures.read_bytes() == before


def test_other_settings_are_named_and_measured_only_when_told(opened, run):
    _measure(opened, "information")
    before = run.measures.read_bytes()
    other = SMALL | {"information": dict(query_images=None, minibatch=32)}
    notes = _measure(opened, "information", settings=other)
    assert len(notes) == 1
    assert all(words in notes[0] for words in ("query_images=25", "query_images=all", "--overwrite"))
    assert "minibatch" not in notes[0] and "version" not in notes[0], "they are the same"
    assert run.measures.read_bytes() == before
    assert _measure(opened, "information", settings=other, overwrite=True) == []
    assert run.read_measures()["last"]["information"]["settings"] == {"step": 60, "query_images": None, "minibatch": 32}


def test_a_run_trained_on_since_is_measured_again(opened, run):
    _measure(opened, "neighbours")
    results = run.read_results()
    run.results.unlink()
    ending.end(run, results | {"step": 90})
    assert record.recorded(run, "last", "neighbours") is None
    _measure(opened, "neighbours")
    assert run.read_measures()["last"]["neighbours"]["settings"]["step"] == 90


def test_best_has_a_record_of_its_own(run, data_dir):
    _measure(finished_run.open_run(run.path, data_dir, "best"), "information")
    assert list(run.read_measures()) == ["best"]
    assert "mutual_information" in files.read_arrays(run.per_example("train", "best"))
    assert "mutual_information" not in files.read_arrays(run.per_example("train"))


def _failing(error):
    def function(run, settings):
        raise error
    return dataclasses.replace(measures.MEASURES["log_marginal"], function=function)


@pytest.mark.parametrize("error, expected", [(ValueError("1 image is too few"), runs.RunError),
                                             (OSError("disk"), OSError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_what_was_measured_before_a_failure_stays(opened, run, monkeypatch, error, expected):
    monkeypatch.setattr(record, "MEASURES", measures.MEASURES | {"log_marginal": _failing(error)})
    with pytest.raises(expected, match="log_marginal cannot be .*: 1 image" if expected is runs.RunError else None):
        _measure(opened, "neighbours", "log_marginal", "pictures")
    assert list(run.read_measures()["last"]) == ["neighbours"]
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_another_measure_leaves_the_failure_of_a_sweep(opened, run):
    """Which may have been that of a measure that still fails: the next sweep would not know."""
    run.failure.write_text("Traceback\nMemoryError: no room")
    _measure(opened, "neighbours")
    assert run.failure.exists()


def test_a_full_disk_leaves_no_record(opened, run, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(runs.RunDir, "write_measures", full)
    with pytest.raises(OSError, match="No space"):
        _measure(opened, "neighbours")
    assert run.read_measures() == {} and len(opened.per_example("test")["rate"]) == 300


def test_values_of_other_images_are_not_mixed_in(opened, run):
    _measure(opened, "neighbours")
    arrays, before = opened.per_example("test"), run.read_measures()
    run.write_arrays(run.per_example("test"), arrays | {"index": arrays["index"] + 1})
    with pytest.raises(runs.RunError, match="must have the index of these images"):
        _measure(opened, "neighbours", overwrite=True)
    assert run.read_measures() == before


def test_unknown_measures_are_refused_before_any_work(opened, run):
    with pytest.raises(runs.RunError, match="measures must be among information, log_marginal.*got mutual"):
        _measure(opened, "information", "mutual")
    assert not run.measures.exists()


@pytest.mark.parametrize("changes, words", [(dict(minibatch=1), "minibatch must be 2 or more .got 1"),
                                            (dict(ais_steps=15), "ais_steps must be 16 or more .got 15"),
                                            (dict(widen=float("nan")), "widen must be 1 or more .got nan"),
                                            (dict(query_images=0), "query_images must be 1 or more .got 0"),
                                            (dict(query_images="3"), "query_images must be a whole number .got '3'"),
                                            (dict(query_images=3.5), "query_images must be a whole number .got 3.5"),
                                            (dict(widen=float("inf")), "widen must be finite .got inf"),
                                            (dict(widen=True), "widen must be a number .got True"),
                                            (dict(posterior_samples=1), "posterior_samples must be 2 or more"),
                                            (dict(chains=4), "settings of information must be among .*got chains")])
def test_settings_out_of_range(opened, run, changes, words):
    name = next((name for name, one in measures.MEASURES.items()
                 if set(changes) <= {field.name for field in dataclasses.fields(one.settings)}), "information")
    with pytest.raises(config.ConfigError, match=words):
        _measure(opened, "neighbours", name, settings={name: changes})
    assert not run.measures.exists()


@pytest.mark.slow
def test_a_record_of_another_version_is_left_out_of_tables_and_made_again(opened, run):
    """The first version of memorisation had sampled codes only."""
    _measure(opened, "memorisation", "neighbours")
    recorded, whole = run.read_measures(), tables.collect(run.path.parent)
    assert recorded["last"]["memorisation"]["settings"] == {"step": 60, "query_images": 25, "version": 2}
    assert whole[memorisation.MEMORISED_AT_MEAN].notna().any() and (whole["note"] == "").all()
    older = json.loads(json.dumps(recorded))
    del older["last"]["memorisation"]["settings"]["version"]
    run.write_measures(older)
    table = tables.collect(run.path.parent)
    assert not set(recorded["last"]["memorisation"]["test"]) & set(table) and neighbours.NEAREST in table
    assert set(table["note"]) == {"memorisation: of another version, left out; measure the run again"}
    before = run.read_measures()["last"]["neighbours"]
    assert _measure(opened, "memorisation", "neighbours") == []
    again = run.read_measures()["last"]
    assert again["neighbours"] == before
    for entry in (again["memorisation"], recorded["last"]["memorisation"]):
        entry.pop("seconds")
    assert again["memorisation"] == recorded["last"]["memorisation"]


def test_tensorboard_shows_the_measures_once(opened, run):
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    _measure(opened, "information")
    stale = {"run": {"objective_gap_encoder": 2.0}, "settings": {"step": 60}}  # of the first version: not shown
    run.write_measures({"last": run.read_measures()["last"] | {"refinement": stale}})
    _measure(opened, "neighbours")
    files = [path for path in run.event_files() if path.name.endswith(record.EVENT_SUFFIX)]
    assert len(files) == 1
    events = EventAccumulator(str(run.path)).Reload()
    shown = {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    assert shown["train/mutual_information"] == shown["test/nearest_distance"] == [60]
    assert shown["train/rate"][-1] == 60, "the training's own scalars are still there"
    assert not any("objective_gap" in tag for tag in shown)
    value = float(tf.make_ndarray(events.Tensors("train/mutual_information")[0].tensor_proto))
    assert value == pytest.approx(run.read_measures()["last"]["information"]["train"]["mutual_information"], rel=1e-5)
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_headlines_name_scalars_that_are_measured(measured):
    for name, entry in measured.run.read_measures()["last"].items():
        for partition, _, scalar in (headline.partition("/") for headline in measures.MEASURES[name].headlines):
            assert scalar in entry[partition]


def test_linear_gaussian_vae_through_the_table(exact_run):
    """With the exact posterior log p(x) is known per image, MI + marginal KL is the rate, and nothing is flagged."""
    exact = ExactRun.of(exact_run)
    _measure(exact, "information", "log_marginal", settings={
        "information": dict(query_images=50), "log_marginal": dict(query_images=50, num_samples=500)})
    found, values = exact_run.read_measures()["last"], files.read_arrays(exact_run.per_example("test"))
    rows = np.isfinite(values["log_px"])
    np.testing.assert_allclose(values["log_px"][rows], exact.model.log_px(exact.flat("test")[rows]), rtol=1e-6)
    np.testing.assert_allclose(values["ess"][rows], 500, rtol=1e-6)
    assert found["log_marginal"]["test"]["log_px_unreliable"] == 0
    train = found["information"]["train"]
    assert abs(train["rate_residual"]) < 5 * train["rate_residual_se"]
    precision = 1 + np.square(exact.model.weights).sum(1) / exact.model.noise**2
    population = 0.5 * np.log(precision).sum()  # mutual information of z and x; 400 images carry a little less
    assert population - 1.0 < train["mutual_information"] < population + 0.3


@pytest.mark.slow
def test_annealed_log_px_of_both_partitions_through_the_table(exact_run):
    exact = ExactRun.of(exact_run)
    _measure(exact, "annealed", settings={"annealed": dict(query_images=6, num_samples=50, ais_chains=16,
                                                           ais_steps=160)})
    found = exact_run.read_measures()["last"]["annealed"]
    for partition in ("train", "test"):
        values = files.read_arrays(exact_run.per_example(partition))["log_px_ais"]
        rows = np.flatnonzero(np.isfinite(values))
        np.testing.assert_array_equal(rows, exact.rows(partition, 6))
        np.testing.assert_allclose(values[rows], exact.model.log_px(exact.flat(partition)[rows]), atol=1.5)
        assert found[partition]["log_px_ais"] == pytest.approx(values[rows].mean())
        assert found[partition]["log_px_ais_se"] == pytest.approx(values[rows].std(ddof=1) / np.sqrt(6))
        excess = values[rows] - exact.model.log_px(exact.flat(partition)[rows])  # importance sampling is exact here
        assert found[partition]["ais_excess"] == pytest.approx(excess.mean(), abs=1e-3)
        assert found[partition]["ais_excess_se"] == pytest.approx(excess.std(ddof=1) / np.sqrt(6), abs=1e-3)
    check = annealed.bidirectional_check(exact.vae.prior(), lambda images: exact.encode(images).stddevs,
                                         exact.vae.likelihood, 6, num_chains=16, num_steps=160)
    assert found["run"]["bidirectional_gap"] == pytest.approx(check.gap.mean())
    assert found["run"]["bidirectional_gap_max"] == pytest.approx(check.gap.max())


def test_narrow_encoder_is_flagged_through_the_table(exact_run):
    exact = ExactRun.of(exact_run, narrow=0.1)
    _measure(exact, "log_marginal", settings={"log_marginal": dict(query_images=40, num_samples=1000)})
    found = exact_run.read_measures()["last"]["log_marginal"]["test"]
    rows = np.isfinite(files.read_arrays(exact_run.per_example("test"))["log_px"])
    assert found["log_px"] < exact.model.log_px(exact.flat("test")[rows]).mean() - 2
    assert found["log_px_unreliable"] > 0.9


def test_the_record_is_plain_json(opened, run):
    _measure(opened, "neighbours")
    assert json.loads(run.measures.read_text())["last"]["neighbours"]["seconds"] >= 0
