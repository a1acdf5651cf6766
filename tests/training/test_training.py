"""The loop: what a run directory holds when it ends, and how runs are stopped, lost, continued and opened."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import scipy.special
import scipy.stats

from data_gen import generate
from tests.numpy_vae import NumpyVae
from tests.outcomes import CLOCKS, differences, leftovers, outcome
from vae_rd import model
from vae_rd.analysis import tables
from vae_rd.config import Config
from vae_rd.datasets import random_streams, splits
from vae_rd.datasets.records import RecordsError
from vae_rd.measures import finished_run
from vae_rd.model import likelihoods
from vae_rd.storage import checkpoints, files, runs
from vae_rd.training import column as column_module, devices, evaluation, loop, preparation, signals, train_and_measure

TINY = Config(split="cd_300", image_size=8, hidden_units=16, latent_dim=4, batch_size=32, train_steps=60, eval_every=20,
              learning_rate=3e-3)


pytestmark = pytest.mark.usefixtures("kept_columns")


@pytest.fixture(scope="module")
def finish(data_dir):
    """finish(runs_dir, *configs) trains them together, without XLA, and returns their directories."""
    def go(runs_dir, *configs, **options):
        train_and_measure.train_and_measure(list(configs), runs_dir=runs_dir, data_dir=data_dir, jit=False,
                                            progress=False, **options)
        return [runs.run_dir(runs_dir, config) for config in configs]
    return go


@pytest.fixture(scope="module")
def pair(finish, tmp_path_factory):
    """Two finished runs that were trained together; evaluations in between saw 100 images per partition."""
    configs = [TINY.replace(beta=beta, seed=seed, eval_images=100) for beta, seed in ((0.1, 0), (1.0, 3))]
    return finish(tmp_path_factory.mktemp("pair"), *configs)


# 40 training images: the test objective is best before the end.
OVERFITTING = TINY.replace(split="cd_40", beta=0.0, learning_rate=3e-2, hidden_units=64, train_steps=500,
                           eval_every=100)


@pytest.fixture(scope="module")
def overfitted(finish, tmp_path_factory):
    """The run of OVERFITTING, never stopped."""
    return finish(tmp_path_factory.mktemp("overfitted"), OVERFITTING)[0]


def numpy_values(vae, partition):
    """Rate, distortion, mean, stddev and logits of each image, by NumPy."""
    noise = random_streams.evaluation_noise(partition.index, vae.latent_dim)
    weights = [weight.numpy() for weight in vae.trainable_variables]
    return NumpyVae(weights, 1).forward(partition.images / 255, noise)[:5]


# What a finished run holds


@pytest.mark.parametrize("checkpoint", ["last", "best"])
@pytest.mark.parametrize("partition", ["train", "test"])
def test_values_per_image_are_those_of_the_saved_model(pair, data_dir, split, partition, checkpoint):
    for run in pair:
        opened = finished_run.open_run(run.path, data_dir, checkpoint)
        values = opened.per_example(partition)
        images = getattr(split, partition)
        rate, distortion, *_ = numpy_values(opened.vae, images)
        np.testing.assert_array_equal(values["index"], images.index)
        np.testing.assert_allclose(values["rate"], rate, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values["distortion"], distortion, rtol=1e-5)
        np.testing.assert_allclose(values["entropy_floor"], likelihoods.entropy_floor(images.images))


def test_results_are_the_means_over_every_image(pair, data_dir, split):
    for run in pair:
        results, config = run.read_results(), run.read_config()
        assert (results["status"], results["step"]) == ("finished", 60)
        assert (results["num_train"], results["num_test"]) == (300, 300)
        assert results["content_sha256"] == split.info.content_sha256
        assert {"wall_seconds", "steps_per_second", "versions", "machine", "best"} <= set(results)
        vae = model.load(run.model)
        half = random_streams.select_half(split.test.index)
        for name, images in (("train", split.train), ("test", split.test),
                             ("test_select", splits.Partition(*(values[half] for values in split.test))),
                             ("test_compare", splits.Partition(*(values[~half] for values in split.test)))):
            rate, distortion, mean, _, logits = numpy_values(vae, images)
            errors = images.images.reshape(len(rate), -1) / 255 - scipy.special.expit(logits)
            expected = {"num_images": len(rate), "rate": rate.mean(), "distortion": distortion.mean(),
                        "elbo": -rate.mean() - distortion.mean(),
                        "objective": distortion.mean() + config.beta * rate.mean(),
                        "active_units": (mean.var(0) > 0.01).sum(),
                        "entropy_floor": likelihoods.entropy_floor(images.images).mean(),
                        "mean_squared_error": np.square(errors).mean(), "rate_se": scipy.stats.sem(rate),
                        "distortion_se": scipy.stats.sem(distortion),
                        "mean_squared_error_se": scipy.stats.sem(np.square(errors).mean(1))}
            assert results[name] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["normal_learned_scale", "discretized_logistic"])
def test_results_have_the_squared_error_of_every_likelihood_and_its_scale(finish, tmp_path, data_dir, likelihood):
    run, = finish(tmp_path, OVERFITTING.replace(likelihood=likelihood))
    results = run.read_results()
    assert results["best"]["step"] < 500
    for checkpoint, block in (("last", results), ("best", results["best"])):
        opened = finished_run.open_run(run.path, data_dir, checkpoint)
        codes = opened.codes("test")
        errors = opened.squared_errors("test", np.arange(len(codes)), codes)
        assert block["test"]["mean_squared_error"] == pytest.approx(errors.mean(), rel=1e-5)
        if likelihood == "normal_learned_scale":
            scale = np.exp(opened.vae.trainable_variables[-1].numpy())
            assert block["train"]["likelihood_scale"] == block["test"]["likelihood_scale"] == pytest.approx(scale)
        else:
            assert "likelihood_scale" not in block["train"]
    row = tables.collect(tmp_path).query("partition == 'test' and checkpoint == 'last'").iloc[0]
    assert row["mean_squared_error"] == results["test"]["mean_squared_error"]
    assert ("likelihood_scale" in row) == (likelihood == "normal_learned_scale")


def test_the_history_has_a_row_per_evaluation_and_partition(pair):
    for run in pair:
        rows = run.read_history()
        assert [(row["step"], row["partition"]) for row in rows] == [
            (step, partition) for step in (0, 20, 40, 60) for partition in runs.PARTITIONS]
        for row in rows:
            whole = {"train": 300, "test": 300}.get(row["partition"], 150)
            if row["step"] == 60:
                assert row["num_images"] == whole
            elif row["partition"] in ("train", "test"):
                assert row["num_images"] == 100
            assert row["elbo"] == pytest.approx(-row["rate"] - row["distortion"])
        for step in (0, 20, 40):
            assert sum(row["num_images"] for row in rows
                       if row["step"] == step and row["partition"].startswith("test_")) == 100
        last = {row["partition"]: row for row in rows if row["step"] == 60}
        for partition in runs.PARTITIONS:
            results = run.read_results()[partition]
            results = {name: results[name] for name in ("num_images", *runs.METRICS)}  # the history has no others
            assert results == {name: last[partition][name] for name in ("num_images", *runs.METRICS)}


def test_the_first_rows_are_those_of_the_untrained_model(pair, split):
    for run in pair:
        vae = model.build(run.read_config(), split.train.images.shape[1:], 300)
        rows = {row["partition"]: row for row in run.read_history() if row["step"] == 0}
        for partition in ("train", "test"):
            images = getattr(split, partition)
            chosen = random_streams.evaluation_subset(images.index, 100)
            rate, distortion, *_ = numpy_values(vae, splits.Partition(*(values[chosen] for values in images)))
            assert rows[partition]["rate"] == pytest.approx(rate.mean(), rel=1e-4)
            assert rows[partition]["distortion"] == pytest.approx(distortion.mean(), rel=1e-5)


def test_the_subset_of_all_but_the_last_evaluation_is_the_seeded_one(split):
    config = TINY.replace(eval_images=50)
    column = column_module.Column([config], split.train.images, strategy=devices.place(config).strategy, jit=False,
                                  stacked=False)
    evaluator = evaluation.Evaluator(split, config)
    assert (evaluator.num_images(True), evaluator.num_images(False)) == (600, 100)
    whole, part = (evaluator.evaluate(column, whole=whole)[0] for whole in (True, False))
    for name in ("train", "test"):
        rows = random_streams.evaluation_subset(getattr(split, name).index, 50)
        for field in evaluation.PerExample._fields:
            np.testing.assert_array_equal(getattr(part[name], field), getattr(whole[name], field)[rows])
    selected = part["test_select"].objective.mean(dtype=np.float64)
    score = evaluator.score(whole, config.beta)
    assert score == evaluator.score(part, config.beta) == pytest.approx(selected, rel=1e-12)
    assert score != pytest.approx(whole["test_select"].objective.mean(), rel=1e-4)  # of other images
    for images in (1, 2, 3):  # of which none may select
        few = evaluation.Evaluator(split, config.replace(eval_images=images))
        assert few.score(whole, 1.0) == few.score(few.evaluate(column, whole=False)[0], 1.0)


@pytest.mark.slow
def test_slow_steps_are_timed_too(finish, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e-9)  # no chunk is ever longer than a step
    run, = finish(tmp_path, TINY.replace(train_steps=5, eval_every=5))
    assert run.read_results()["steps_per_second"] > 0


def test_a_run_that_is_being_measured_elsewhere_is_left_alone_or_named(finish, tmp_path, monkeypatch, pair):
    def busy(*arguments, **options):
        raise runs.InUse("it is in use by host a, process 1")
    config, wanted = pair[0].read_config(), [train_and_measure.Wanted("last", "pictures")]
    monkeypatch.setattr(train_and_measure.measures, "measure_run", busy)
    finish(pair[0].path.parent, config, wanted={config: wanted}, skip_busy=True)
    with pytest.raises(runs.RunError, match="in use by host a"):
        finish(pair[0].path.parent, config, wanted={config: wanted})


def test_what_an_earlier_attempt_left_goes_when_a_later_one_ends_well(finish, pair, monkeypatch, capsys):
    pair[0].failure.write_text("Traceback: no memory")
    monkeypatch.setattr(train_and_measure.measures, "measure_run",
                        lambda *arguments, **options: ["pictures is there with other"])
    config = pair[0].read_config()
    finish(pair[0].path.parent, config, wanted={config: [train_and_measure.Wanted("last", "pictures")]})
    assert not pair[0].failure.exists() and "pictures is there with other" in capsys.readouterr().out


def test_the_run_directory_holds_what_the_contract_says(pair):
    for run in pair:
        names = {path.name for path in run.path.iterdir()}
        assert names - {path.name for path in run.event_files()} == {
            "config.json", "history.csv", "results.json", "manifest.json", "model.keras", "checkpoints", "lock",
            "per_example_train.npz", "per_example_test.npz", "per_example_train_best.npz", "per_example_test_best.npz"}
        assert len(run.event_files()) == 1 and leftovers(run) == []
        assert len(list(run.checkpoints.iterdir())) == 2  # last and the best of now: older ones are removed


@pytest.mark.slow
def test_a_column_gives_the_runs_that_single_commands_give(finish, pair, tmp_path):
    alone, = finish(tmp_path, pair[1].read_config())
    one, other = outcome(alone), outcome(pair[1])
    assert one.keys() == other.keys()
    for name in one:
        if name.startswith(("per_example", "model.keras")):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-3, atol=1e-5, err_msg=name)
    for row, expected in zip(one["history"], other["history"], strict=True):
        assert row.pop("partition") == expected.pop("partition")
        assert row == pytest.approx(expected, rel=1e-3)


# Early stopping


@pytest.mark.slow
def test_the_best_evaluation_has_the_lowest_objective_on_the_selecting_half(overfitted):
    results = overfitted.read_results()
    scores = {row["step"]: row["objective"] for row in overfitted.read_history() if row["partition"] == "test_select"}
    assert list(scores) == [0, 100, 200, 300, 400, 500]
    assert results["best"]["step"] == min(scores, key=scores.get) < 500
    assert results["best"]["test_select"]["objective"] == pytest.approx(min(scores.values()), rel=1e-6)
    assert results["best"]["test_compare"]["objective"] < results["test_compare"]["objective"]
    assert results["best"]["train"]["objective"] > results["train"]["objective"]  # the end is better only in training


def test_the_best_model_can_be_opened(overfitted, data_dir):
    best, last = (finished_run.open_run(overfitted.path, data_dir, checkpoint) for checkpoint in ("best", "last"))
    _, distortion, *_ = numpy_values(best.vae, best.split.test)
    np.testing.assert_allclose(best.per_example("test")["distortion"], distortion, rtol=1e-4)
    assert not np.allclose(best.per_example("test")["distortion"], last.per_example("test")["distortion"])


@pytest.mark.parametrize("part", ["both", "mutual_information", "marginal_kl"])
def test_the_score_has_the_whole_rate_whatever_part_is_penalised(split, part):
    """Codes far from all training codes have a low marginal KL, and must not make an evaluation the best."""
    evaluator, random = evaluation.Evaluator(split, TINY.replace(rate_terms=part)), np.random.default_rng(0)
    rate, distortion = random.uniform(1, 9, (2, 300)).astype(np.float32)
    values = evaluation.PerExample(split.test.index, rate, distortion, np.full(300, -1e6), rate, rate, rate)
    half = random_streams.select_half(split.test.index)
    expected = (distortion[half] + 0.25 * rate[half].astype(np.float64)).mean()
    assert evaluator.score({"test": values}, 0.25) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_a_run_that_penalises_a_part_of_the_rate_keeps_the_evaluation_with_the_best_whole(finish, tmp_path):
    config = TINY.replace(rate_terms="mutual_information", seed=3)
    run, = finish(tmp_path, config)
    rows = {row["step"]: row for row in run.read_history() if row["partition"] == "test_select"}
    whole = {step: row["distortion"] + row["rate"] for step, row in rows.items()}
    best = run.read_results()["best"]
    assert best["step"] == min(whole, key=whole.get) != min(rows, key=lambda step: rows[step]["objective"])
    assert best["test_select"]["distortion"] == pytest.approx(rows[best["step"]]["distortion"], rel=1e-6)


# rate_terms in evaluation


@pytest.mark.slow
@pytest.mark.parametrize("part", ["mutual_information", "marginal_kl"])
def test_the_evaluated_objective_has_the_exact_part_of_the_rate(finish, tmp_path, split, part):
    config = TINY.replace(rate_terms=part, beta=2.0, train_steps=40, eval_images=60)
    run, = finish(tmp_path, config)
    vae = model.load(run.model)
    _, _, means, stddevs, _ = numpy_values(vae, split.train)
    for name in ("train", "test"):
        partition = getattr(split, name)
        _, distortion, mean, stddev, _ = numpy_values(vae, partition)
        noise = random_streams.evaluation_noise(partition.index, 4)
        codes = mean + stddev * noise
        densities = scipy.stats.norm.logpdf(codes[:, None], means, stddevs).sum(2)  # each code under each training code
        log_aggregate = scipy.special.logsumexp(densities, axis=1) - np.log(300)
        parts = {"mutual_information": scipy.stats.norm.logpdf(codes, mean, stddev).sum(1) - log_aggregate,
                 "marginal_kl": log_aggregate - scipy.stats.norm.logpdf(codes).sum(1)}
        expected = distortion.mean() + 2.0 * parts[part].mean()
        assert run.read_results()[name]["objective"] == pytest.approx(expected, rel=1e-4)
    middle = [row for row in run.read_history() if row["step"] == 20]
    assert all(np.isfinite(row["objective"]) and row["num_images"] <= 60 for row in middle)


@pytest.mark.slow
def test_dynamic_binarization_is_scored_on_fixed_black_and_white_images(finish, tmp_path, data_dir, split):
    run, = finish(tmp_path, TINY.replace(binarization="dynamic", train_steps=20))
    assert run.read_results()["test"]["entropy_floor"] == 0
    opened = finished_run.open_run(run.path, data_dir)
    assert set(np.unique(opened.split.test.images)) == {0, 255}
    _, distortion, *_ = numpy_values(opened.vae, splits.binarized(split.test))
    np.testing.assert_allclose(opened.per_example("test")["distortion"], distortion, rtol=1e-4)


def test_test_images_are_those_that_are_evaluated(split):
    shown = split.test.images[random_streams.evaluation_subset(split.test.index, 7)]
    np.testing.assert_array_equal(evaluation.Evaluator(split, TINY).test_images(7), shown)
    dynamic = evaluation.Evaluator(split, TINY.replace(binarization="dynamic")).test_images(7)
    assert dynamic.shape == shown.shape and set(np.unique(dynamic)) == {0, 255} != set(np.unique(shown))


# Runs that are lost


def poisoned(monkeypatch, member, step, weight="decoder.3.bias", value=np.nan):
    """Makes a weight of one member NaN, or another value, when training reaches a step, once."""
    original, waiting = column_module.Column.train, [True]

    def train(self, first_step, num_steps):
        if waiting and first_step >= step:
            waiting.clear()
            state = self.state()
            state[weight][member] = value
            self.set_weights(state)
        return original(self, first_step, num_steps)
    monkeypatch.setattr(column_module.Column, "train", train)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_member_that_diverges_is_named_and_the_others_end_well(finish, tmp_path, monkeypatch, pair, capsys, lost):
    configs = [run.read_config() for run in pair]
    with monkeypatch.context() as patch:
        poisoned(patch, lost, 25)
        made = finish(tmp_path, *configs)
    gone, kept = made[lost], made[1 - lost]
    results = gone.read_results()
    assert results["status"] == "diverged" and results["diverged"]["quantity"] in ("rate", "distortion")
    assert 25 <= results["diverged"]["step"] < 40 and results["step"] == 20
    printed = "".join(capsys.readouterr())
    assert configs[lost].run_name in printed and "is not finite at step" in printed
    assert "checkpoint of step 20 is kept" in printed
    state = files.read_arrays(gone.last_checkpoint)
    assert state["progress.step"] == 20
    assert all(np.isfinite(state[name]).all() for name in state if name.startswith(("encoder", "decoder")))
    assert {row["step"] for row in gone.read_history()} == {0, 20}
    assert kept.status() == "finished"
    found = differences(outcome(kept), outcome(pair[1 - lost]))
    assert found == []  # to the bit what it is beside a member that does not diverge

    finish(tmp_path, *configs)  # without retry a diverged run stays as it is
    assert gone.read_results() == results
    finish(tmp_path, configs[lost], retry=True)
    assert gone.status() == "finished" and kept.status() == "finished"


def test_a_run_that_diverges_at_once_says_so(finish, tmp_path):
    run, = finish(tmp_path, TINY.replace(beta=1e38))
    results = run.read_results()
    assert results["status"] == "diverged" and 0 < results["diverged"]["step"] < 60
    assert not run.model.exists()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_run_that_diverges_names_its_checkpoint_if_there_is_one(finish, tmp_path, monkeypatch, capsys, at_once):
    if at_once:  # in the evaluation at step 0
        original = column_module.Column.evaluate
        monkeypatch.setattr(column_module.Column, "evaluate", lambda *arguments: (
            original(*arguments)._replace(distortion=np.full([1, 300], np.nan))))
    else:
        poisoned(monkeypatch, 0, 25)
    run, = finish(tmp_path, TINY)
    said = "".join(capsys.readouterr())
    assert run.status() == "diverged" and "--retry repeats this one" in said
    assert run.last_checkpoint.exists() == ("checkpoint of step" in said) == (not at_once)


def test_a_weight_that_is_lost_is_found_even_if_no_output_shows_it(finish, tmp_path, monkeypatch):
    """ReLU can turn NaN into 0, so finite rates and distortions prove nothing: a checkpoint holds finite weights."""
    poisoned(monkeypatch, 0, 25, "encoder.0.kernel")
    run, = finish(tmp_path, TINY)
    assert run.status() == "diverged"
    assert all(np.isfinite(value).all()
               for name, value in files.read_arrays(run.last_checkpoint).items() if "coder" in name)


@pytest.mark.slow
def test_a_diverged_member_is_no_matter_where_the_exact_mixture_is_needed(finish, tmp_path, monkeypatch):
    configs = [TINY.replace(rate_terms="mutual_information", beta=beta) for beta in (0.1, 1.0)]
    poisoned(monkeypatch, 0, 25)
    made = finish(tmp_path, *configs)
    assert [run.status() for run in made] == ["diverged", "finished"]


@pytest.mark.slow
def test_a_posterior_of_no_width_is_no_matter_to_the_others_either(finish, tmp_path, monkeypatch):
    """exp(-110) is 0 in float32: the mixture has no density there, and the member's rate is infinite."""
    configs = [TINY.replace(rate_terms="marginal_kl", beta=beta) for beta in (0.1, 1.0)]
    poisoned(monkeypatch, 0, 25, "encoder.5.bias", -110.0)
    made = finish(tmp_path, *configs)
    assert [run.status() for run in made] == ["diverged", "finished"]


@pytest.mark.slow
def test_best_weights_that_are_lost_on_images_not_seen_before_end_the_run_as_diverged(finish, tmp_path, monkeypatch,
                                                                                     capsys):
    """The evaluations before saw a part of the images; a mean that is no number would make results.json unreadable."""
    original, whole_sets = evaluation.Evaluator.evaluate, []

    def evaluate(self, column, *, whole, **options):
        values = original(self, column, whole=whole, **options)
        whole_sets.extend([whole] * whole)
        if len(whole_sets) == 2:  # the first is of the last weights
            values[0]["test"].rate[0] = np.inf
        return values
    monkeypatch.setattr(evaluation.Evaluator, "evaluate", evaluate)
    run, = finish(tmp_path, OVERFITTING.replace(eval_images=30))
    assert run.status() == "diverged" and "test rate of the best weights is not finite" in capsys.readouterr().out


# Runs that are stopped


def stop_in(monkeypatch, method, call, number):
    """Sends a signal to this process just before the n-th call of a method of the column."""
    original, calls = getattr(column_module.Column, method), iter(range(1, 10_000))

    def wrapped(*args, **kwargs):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)
    monkeypatch.setattr(column_module.Column, method, wrapped)


# evaluate: calls 1, 2 at step 0, ... 11, 12 at step 500, and 13, 14 with the best weights
@pytest.mark.parametrize("method, call, number, status", [
    ("train", 5, signal.SIGINT, 130),
    *(pytest.param(*stop, marks=pytest.mark.slow) for stop in (
        ("train", 1, signal.SIGTERM, 85), ("evaluate", 4, signal.SIGUSR1, 85), ("evaluate", 14, signal.SIGINT, 130),
        *(("evaluate", call, signal.SIGTERM, 85) for call in (1, 11, 13))))])
def test_a_run_stopped_anywhere_ends_as_if_it_had_not_been(finish, tmp_path, monkeypatch, overfitted, method, call,
                                                           number, status):
    with monkeypatch.context() as patch:
        stop_in(patch, method, call, number)
        with pytest.raises(signals.Interrupted, match="the same command continues") as caught:
            finish(tmp_path, OVERFITTING)
    assert caught.value.exit_status == status
    assert runs.run_dir(tmp_path, OVERFITTING).status() == "unfinished"
    run, = finish(tmp_path, OVERFITTING)
    assert differences(outcome(run), outcome(overfitted)) == [] and leftovers(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    *({"prior": prior} for prior in ("learned_normal", "mixture", "vamp", "flow", "exemplar")),
    *({"likelihood": likelihood} for likelihood in ("continuous_bernoulli", "normal_learned_scale")),
    {"binarization": "dynamic"}, {"rate_terms": "marginal_kl"}, {"precision": "float64"},
    {"conditioning": "beta", "precision": "bfloat16"},
    {"split": "cd_2", "batch_size": 5, "eval_images": 1}, {"split": "cd_1", "batch_size": 2}], ids=str)
def test_every_kind_of_run_ends_and_can_be_stopped(finish, tmp_path, monkeypatch, data_dir, changes):
    """Also where a prior keeps images, a floor is not known, or there are fewer images than a batch takes."""
    config = TINY.replace(**changes)
    generate.ensure(data_dir, config.data, progress=False)
    direct, = finish(tmp_path / "direct", config)
    with monkeypatch.context() as patch:
        stop_in(patch, "train", 6, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, config)
    run, = finish(tmp_path, config)
    assert len([row for row in run.read_history() if row["partition"] == "test"]) == 4
    assert differences(outcome(run), outcome(direct)) == [] and leftovers(run) == []
    assert set(tables.collect(tmp_path)["status"]) == {"finished"}


@pytest.mark.slow
def test_a_signal_while_final_files_are_written_is_not_forgotten(finish, tmp_path, monkeypatch):
    """Measures would go on for hours after it."""
    with monkeypatch.context() as patch:
        stop_in(patch, "member_model", 1, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, TINY)
    assert runs.run_dir(tmp_path, TINY).status() == "finished"


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt), signals.listening() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_members_of_a_column_that_was_stopped_go_on_together(finish, tmp_path, monkeypatch, pair):
    configs = [run.read_config() for run in pair]
    with monkeypatch.context() as patch:
        stop_in(patch, "train", 6, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, *configs)
    made = finish(tmp_path, *configs)
    for run, expected in zip(made, pair):
        assert differences(outcome(run), outcome(expected)) == []


@pytest.mark.slow
def test_a_diverged_member_keeps_its_slot_when_the_column_goes_on(finish, tmp_path, monkeypatch, pair):
    configs = [run.read_config() for run in pair]
    with monkeypatch.context() as patch:
        poisoned(patch, 0, 5)
        stop_in(patch, "evaluate", 4, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, *configs)
    made = finish(tmp_path, *configs)
    assert [run.status() for run in made] == ["diverged", "finished"]
    assert differences(outcome(made[1]), outcome(pair[1])) == []


@pytest.mark.slow
def test_a_column_that_an_earlier_version_began_goes_on_under_its_names(finish, tmp_path, monkeypatch, pair):
    configs = [run.read_config() for run in pair]
    with monkeypatch.context() as patch:
        patch.setattr(Config, "run_name", Config.earlier_run_name)
        poisoned(patch, 0, 5)
        stop_in(patch, "evaluate", 4, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, *configs)
    made = finish(tmp_path, *configs)
    assert [run.path.name for run in made] == [config.earlier_run_name for config in configs]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {run.path.name for run in made}
    assert [run.status() for run in made] == ["diverged", "finished"]
    assert differences(outcome(made[1]), outcome(pair[1])) == [
        "last.npz: bound.run", "last.npz: progress.column", "results"]  # names alone, as what follows says of results
    old, new = ({**run.read_results(), "machine": None, **dict.fromkeys(CLOCKS)} for run in (made[1], pair[1]))
    assert {name for name in new if old[name] != new[name]} == {"column"}


@pytest.mark.slow
def test_other_compositions_train_too(finish, tmp_path, monkeypatch, pair):
    """One member of a stopped column alone, then a column of the other with a new one: three at three steps."""
    configs = [run.read_config() for run in pair]
    with monkeypatch.context() as patch:
        stop_in(patch, "train", 6, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, *configs)
    alone, = finish(tmp_path, configs[0])
    others = finish(tmp_path, *configs, configs[0].replace(beta=7.0))
    assert [run.status() for run in others] == ["finished"] * 3
    for run, expected in zip(others, pair):
        assert run.read_results()["test"] == pytest.approx(expected.read_results()["test"], rel=1e-3)


# What is brought back from the device


@pytest.mark.slow
def test_an_evaluation_downloads_the_column_once(finish, tmp_path, monkeypatch):
    """All three members improve at every evaluation; their best weights, checkpoints and models share one download."""
    downloads, passes = [], []
    state_of, evaluation_of = column_module.Column.state, column_module.Column.evaluate

    def state(column):
        downloads.append(column)
        return state_of(column)

    def evaluate(column, partition, report):
        passes.append(len(partition.index))
        return evaluation_of(column, partition, report)
    monkeypatch.setattr(loop, "Column", column_module.Column)  # a new one
    monkeypatch.setattr(column_module.Column, "state", state)
    monkeypatch.setattr(column_module.Column, "evaluate", evaluate)
    made = finish(tmp_path, *(TINY.replace(beta=beta) for beta in (0.1, 0.5, 1.0)))
    assert {run.read_results()["best"]["step"] for run in made} == {60}
    assert len(downloads) == 5  # at the start, steps 0, 20, 40, 60
    assert passes == [300] * 8  # train and test; not once more where the last evaluation is the best


# Runs of earlier versions


def as_earlier_versions_wrote(run, beta):
    """Puts beta, which was a weight, after the weights in a run's checkpoints, and takes away what binds the run."""
    run.manifest_file.unlink(missing_ok=True)
    if run.results.is_file():
        results = json.loads(run.results.read_text())
        files.write_json(run.results, {name: value for name, value in results.items() if name != "run"})
    for path in run.checkpoints.iterdir():
        arrays = {name: array for name, array in files.read_arrays(path).items() if not name.startswith("bound.")}
        names = list(arrays)
        place = names.index("decoder.3.bias") + 1
        files.write_arrays(path, {name: arrays[name] for name in names[:place]} | {"beta": np.float32(beta)}
                           | {name: arrays[name] for name in names[place:]})


@pytest.mark.slow
def test_a_run_begun_by_an_earlier_version_goes_on_to_the_same_bits(finish, tmp_path, monkeypatch, pair):
    configs = [run.read_config() for run in pair]
    with monkeypatch.context() as patch:
        stop_in(patch, "train", 6, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, *configs)
    as_earlier_versions_wrote(runs.run_dir(tmp_path, configs[1]), 7.0)  # of one member only: killed while saving
    made = finish(tmp_path, *configs)
    for run, expected in zip(made, pair):
        assert differences(outcome(run), outcome(expected)) == []


@pytest.mark.slow
def test_the_best_weights_of_an_earlier_version_are_opened(finish, tmp_path, data_dir):
    run, = finish(tmp_path, TINY)
    expected = finished_run.open_run(run.path, data_dir, "best").vae.named_weights()
    as_earlier_versions_wrote(run, 1.0)
    opened = finished_run.open_run(run.path, data_dir, "best").vae.named_weights()
    for name, weight in opened.items():
        np.testing.assert_array_equal(weight, expected[name])


def test_the_best_so_far_of_an_earlier_version_is_scored_anew_where_it_had_a_part_of_the_rate(finish, tmp_path,
                                                                                              monkeypatch):
    config = TINY.replace(rate_terms="marginal_kl", beta=2.0)
    run = begun(finish, tmp_path, monkeypatch, config)
    progress, state, history, _ = checkpoints.resume(run, config.train_steps)
    assert progress.best_step == 0
    checkpoints.save(run, progress._replace(best_objective=-1e6), state, history)
    assert preparation.prepare(config, run, retry=False).progress.best_objective == -1e6
    checkpoints.save(run, progress._replace(best_objective=-1e6), state | {"beta": np.float32(2.0)}, history)
    again = preparation.prepare(config, run, retry=False).progress
    assert again == progress._replace(best_objective=pytest.approx(progress.best_objective, rel=1e-6))


# Runs that have ended


def test_a_finished_run_is_left_alone(finish, pair, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in pair[0].path.rglob("*") if path.name != "lock"}
    monkeypatch.setattr(loop, "Training", None)
    finish(pair[0].path.parent, pair[0].read_config())
    assert before == {path: path.stat().st_mtime_ns for path in pair[0].path.rglob("*") if path.name != "lock"}


@pytest.mark.slow
def test_a_continued_run_is_the_longer_run(finish, tmp_path, monkeypatch):
    short = TINY.replace(eval_every=20)
    longer = short.replace(train_steps=130, eval_every=20)
    source, = finish(tmp_path, short)
    untouched = outcome(source)
    target = runs.run_dir(tmp_path, longer)
    preparation.continue_run(source, longer, target)
    assert checkpoints.resume(target, 130).content_sha256 == source.read_results()["content_sha256"]
    with monkeypatch.context() as patch:  # and it can be stopped like any other
        stop_in(patch, "train", 3, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, longer)
    preparation.continue_run(source, longer, target)
    finish(tmp_path, longer)
    direct, = finish(tmp_path / "direct", longer)
    assert differences(outcome(target), outcome(direct)) == []
    assert differences(outcome(source), untouched) == []


@pytest.mark.slow
def test_a_continued_run_that_diverged_begins_again_where_it_was_continued(finish, pair, tmp_path, monkeypatch):
    source, config = pair[0], pair[0].read_config()
    longer = config.replace(train_steps=100, eval_every=20)
    target = runs.run_dir(tmp_path, longer)
    preparation.continue_run(source, longer, target)
    with monkeypatch.context() as patch:
        poisoned(patch, 0, 75)
        finish(tmp_path, longer)
    assert target.status() == "diverged"
    preparation.continue_run(source, longer, target)
    assert target.status() == "diverged"
    with monkeypatch.context() as patch:  # as on a full disk
        patch.setattr(checkpoints, "save", lambda *arguments: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            preparation.continue_run(source, longer, target, retry=True)
    assert target.status() == "diverged"
    preparation.continue_run(source, longer, target, retry=True)
    finish(tmp_path, longer, retry=True)
    direct = runs.run_dir(tmp_path / "direct", longer)
    preparation.continue_run(source, longer, direct)
    finish(tmp_path / "direct", longer)
    assert differences(outcome(target), outcome(direct)) == []


@pytest.mark.parametrize("changes, words", [
    ({"train_steps": 60}, "train_steps must be more than the 60 of .*got 60"),
    ({"train_steps": 90, "beta": 2.0}, "only train_steps and eval_every may differ"),
    ({"train_steps": 90, "eval_images": None}, "may differ .*got another eval_images.. Give the values")])
def test_what_cannot_be_continued_is_refused(pair, tmp_path, changes, words):
    longer = pair[0].read_config().replace(**changes)
    with pytest.raises(runs.RunError, match=words):
        preparation.continue_run(pair[0], longer, runs.run_dir(tmp_path, longer))
    with pytest.raises(runs.RunError, match="must be a finished run to be continued .it is missing"):
        preparation.continue_run(runs.RunDir(tmp_path / "none"), longer, runs.run_dir(tmp_path, longer))


# Damage and disagreement


def begun(finish, tmp_path, monkeypatch, config=TINY):
    """A run that was stopped after its first evaluations."""
    with monkeypatch.context() as patch:
        stop_in(patch, "evaluate", 4, signal.SIGTERM)
        with pytest.raises(signals.Interrupted):
            finish(tmp_path, config)
    return runs.run_dir(tmp_path, config)


def test_a_run_does_not_go_on_with_other_data(finish, tmp_path, monkeypatch):
    """Its history and its best weights would be of two data sets, and its results would vouch for the second."""
    save = checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", lambda run, progress, state, history, data: save(
            run, progress, state, history, data | {"train": "of other images"}))
        run = begun(finish, tmp_path, monkeypatch)
    with pytest.raises(runs.RunError, match="must go on with the data that it was begun with"):
        finish(tmp_path, TINY)
    assert run.status() == runs.UNFINISHED


def test_a_damaged_checkpoint_is_named_and_once_removed_the_run_starts_again(finish, tmp_path, monkeypatch):
    run = begun(finish, tmp_path, monkeypatch)
    content = bytearray(run.last_checkpoint.read_bytes())
    content[len(content) // 2] ^= 0xFF
    run.last_checkpoint.write_bytes(content)
    with pytest.raises(files.FileError, match="last.npz cannot be read: .* not written by vae_rd: remove the"):
        finish(tmp_path, TINY)
    shutil.rmtree(run.checkpoints)
    finish(tmp_path, TINY)
    assert run.status() == "finished"


def test_a_foreign_checkpoint_is_refused(finish, tmp_path, monkeypatch):
    run = begun(finish, tmp_path, monkeypatch)
    files.write_arrays(run.last_checkpoint, {"weights": np.zeros(3)})
    with pytest.raises(runs.RunError, match="last.npz lacks .*progress.step, .* damaged, or was not written by vae_rd"):
        finish(tmp_path, TINY)


def test_a_config_that_disagrees_is_refused(finish, tmp_path, monkeypatch):
    run = begun(finish, tmp_path, monkeypatch)
    run.config.write_text(TINY.replace(beta=0.7).to_json())
    with pytest.raises(runs.RunError, match="must be the Config of this run .got that of .* Put the original back"):
        finish(tmp_path, TINY)


def test_a_lost_history_does_not_stop_the_run(finish, tmp_path, monkeypatch):
    run = begun(finish, tmp_path, monkeypatch)
    run.history.unlink()
    finish(tmp_path, TINY)
    assert {row["step"] for row in run.read_history()} == {0, 20, 40, 60}


def test_data_that_are_not_there_are_named(finish, tmp_path):
    with pytest.raises(RecordsError, match="cd_301 must be the folder of a split .* Make the split"):
        finish(tmp_path, TINY.replace(split="cd_301"))


# Opening


def test_only_finished_runs_of_these_data_are_opened(finish, tmp_path, monkeypatch, pair, data_dir):
    run = begun(finish, tmp_path, monkeypatch)
    with pytest.raises(runs.RunError, match="must be a finished run .it is unfinished.. Finish its training first"):
        finished_run.open_run(run.path, data_dir)
    with pytest.raises(runs.RunError, match="checkpoint must be one of last, best .got 'first'"):
        finished_run.open_run(pair[0].path, data_dir, "first")
    with pytest.raises(RecordsError, match="must be the folder of a split"):
        finished_run.open_run(pair[0].path, tmp_path / "elsewhere")
    results = pair[0].read_results()
    with monkeypatch.context() as patch:
        patch.setattr(runs.RunDir, "read_results",
                      lambda self: results | {"content_sha256": {"train": "0", "test": "0"}})
        with pytest.raises(runs.RunError, match="must hold the data that .* was trained on .* Give the data directory"):
            finished_run.open_run(pair[0].path, data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(runs.RunDir, "model", property(lambda self: self.path / "gone.keras"))
        with pytest.raises(runs.RunError, match="has no final model .* remove results.json and run the same"):
            finished_run.open_run(pair[0].path, data_dir)


def test_a_run_whose_results_were_removed_ends_again_the_same(finish, tmp_path, pair):
    config = pair[0].read_config()
    run, = finish(tmp_path, config)
    before = outcome(run)
    run.results.unlink()
    run.model.unlink()
    finish(tmp_path, config)
    assert differences(outcome(run), before) == []


# Devices


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="strategy must be one of auto, one_device, mirrored, "
                                         "multi_worker"):
        devices.place(TINY, "tpu")
    with pytest.raises(ValueError, match="needs TF_CONFIG with several workers, or a start by srun with several tasks"):
        devices.place(TINY, "multi_worker")


def test_one_device_is_the_default_here():
    placement = devices.place(TINY)
    assert placement.chief and placement.strategy.num_replicas_in_sync == 1


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["continuous_bernoulli", "normal", "normal_learned_scale",
                                        "discretized_logistic"])
def test_runs_of_every_likelihood_end_and_are_read(finish, tmp_path, data_dir, likelihood):
    """Their floor is that of the likelihood: a number, or nothing where the distortion has no lowest value."""
    run, = finish(tmp_path, TINY.replace(likelihood=likelihood))
    before = outcome(run)
    run.results.unlink()  # and they end again from their checkpoint, as a run does that was stopped
    finish(tmp_path, run.read_config())
    assert differences(outcome(run), before) == [] and len(run.read_history()) == 4 * len(runs.PARTITIONS)
    results, floor = run.read_results(), likelihoods.LIKELIHOODS[likelihood].floor(np.zeros((2, 8, 8, 3), np.uint8))
    assert results["status"] == "finished"
    if floor is None:
        assert results["test"]["entropy_floor"] is None
    else:
        assert results["test"]["distortion"] > results["test"]["entropy_floor"] >= floor.mean() - 1e-6
    opened = finished_run.open_run(run.path, data_dir)
    noise = random_streams.evaluation_noise(opened.split.test.index[:32], TINY.latent_dim)
    terms = opened.vae.terms(opened.images("test", np.arange(32)), noise, 1.0)
    np.testing.assert_allclose(terms.distortion, opened.per_example("test")["distortion"][:32], rtol=2e-4, atol=1e-2)
