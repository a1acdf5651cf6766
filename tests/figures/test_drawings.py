"""Each experiment's figures: right panels and curves from its finished runs, and the rest named."""

import functools
import math

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from tests.fabricate import fabricate_run, fabricate_table, metrics
from vae_rd import catalogue
from vae_rd.analysis import naming, quantities, tables
from vae_rd.config import split_size
from vae_rd.figures import against_beta, distances, drawings
from vae_rd.storage.runs import RunDir
from vae_rd.sweeps import experiments
from vae_rd.sweeps.experiments import experiment

SCALE = experiments.SCALES["smoke"]


def point(config, partition, checkpoint):
    """Values with every measure; each a known function of beta and of the training-set size."""
    values = metrics(config, partition)
    information = min(values["rate"], math.log(split_size(config.split) or 81920))
    counts = {"information.minibatch": 512, "log_marginal.query_images": 200}
    return values | counts | {
        "distortion": values["distortion"] - 5 * (checkpoint == "best"), quantities.MUTUAL_INFORMATION: information,
        quantities.MARGINAL_KL: values["rate"] - information, quantities.LOG_PX: values["elbo"] + 3,
        quantities.UNRELIABLE: 0.9 * (config.beta < 0.1), quantities.MEMORISED_AT_MEAN: 0.2,
        quantities.MEMORISED_AT_MEAN_CONTROL: 0.15, quantities.MEMORISED: 0.5, quantities.MEMORISED_CONTROL: 0.4,
        quantities.AVERAGED_AT_MEAN: 0.1,
        quantities.PERPLEXITY_AT_MEAN: 1 + config.beta, "log_px_k1": values["elbo"], "log_px_k10": values["elbo"] + 2,
        quantities.MUTUAL_INFORMATION + quantities.MINIBATCH: information + 0.4, quantities.GAP: 20.0,
        quantities.GAP_ENCODER: 8.0, quantities.GAP_DECODER: 12.0, quantities.RATE_SAVED + quantities.MIXTURE: 3.0,
        quantities.RATE_SAVED + quantities.KERNEL: 4.0, quantities.MEAN_SQUARED_ERROR: 1 / values["rate"]}


@functools.cache
def drawn(name, scale="smoke"):
    """An experiment's figures from a table alone: its runs have no directories. Drawn once, for all that look at it."""
    wanted = experiment(name, scale)
    return drawings.draw(fabricate_table(list(wanted.configs), point), wanted, "nowhere")


def key_of(figure):
    return {text.get_text() for text in figure.legends[0].get_texts()}


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


LAYOUTS = {
    "figure3": ["CV(4000), 1-layer MLP", "CV(4000), 3-layer MLP", "CV(500), 1-layer MLP", "CV(500), 3-layer MLP"],
    "figure4": ["1 layer, constant volume", "3 layers, constant volume", "1 layer, constant density",
                "3 layers, constant density"],
    "figure5": ["1 layer", "3 layers"], "figure6": ["MLP", "CNN"],
    "figure7": ["Fashion-MNIST", "SmallNORB", "MNIST", "3dShapes"],
    "figure7_sizes": [f"{name}, {layers}" for name in ("Fashion-MNIST", "SmallNORB", "MNIST", "3dShapes")
                      for layers in ("1 layer", "3 layers")],
    "figure8": ["1-layer MLP", "3-layer MLP"], "early_stopping": ["1 layer", "3 layers"],
    "log_likelihood": ["CV(500)", "CV(4000)"], "rate_terms": ["1 layer", "3 layers"],
    "one_training": ["1 layer", "3 layers"],
    "memorisation": ["CV(500)", "CV(4000)"], "latent_dim": ["1 layer", "3 layers"], "priors": ["1 layer", "3 layers"],
    "likelihoods": ["Bernoulli likelihood", "continuous Bernoulli likelihood", "normal likelihood",
                    "normal likelihood of learned scale", "discretized logistic likelihood"]}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ("figure3", "figure8") else pytest.mark.slow)
                                  for name in LAYOUTS])
def test_panels_are_those_of_the_paper(name):
    result = drawn(name)
    assert list(result.figures)[0] == name
    assert titles(result.figures[name]) == LAYOUTS[name]
    assert set(result.curves["split"]) == {config.split for config in experiment(name, "smoke").configs}


@pytest.mark.parametrize("name", experiments.names())
def test_the_drawing_of_every_experiment_is_known(name):
    assert callable(drawings.DRAWINGS[experiment(name).drawing])


def test_an_added_experiment_is_drawn_by_its_entry_alone(monkeypatch):
    def narrow(scale):
        return [config for units in (8, 16) for config in
                experiments.product(scale, [experiments.ONE_LAYER], [scale.small], hidden_units=units)]
    monkeypatch.setitem(experiments.EXPERIMENTS, "narrow", experiments.Entry("a narrow network", narrow))
    result = drawn("narrow")
    assert titles(result.figures["narrow"]) == ["Tetrominoes, CV(500)"]
    labels = {text.get_text() for axes in result.figures["narrow"].axes for text in axes.texts}
    assert {"hidden units 8", "hidden units 16"} <= labels


def test_every_experiment_is_drawn_or_says_who_draws_it():
    known = set(LAYOUTS) | {"nearest_neighbours", "convergence", "ten_times"}
    for name in set(experiments.names()) - known:
        with pytest.raises(tables.TableError, match="data_gen.main --preview"):
            drawn(name)


@pytest.mark.slow
def test_sizes_are_told_apart_by_colour_and_key(tmp_path):
    figure = drawn("figure4").figures["figure4"]
    labels = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"N = 500", "N = 4,000"} <= labels
    wanted = experiment("figure4", "paper")
    few = [config for config in wanted.configs if config.seed == 0 and config.beta in (0.1, 1.0)]
    many = drawings.draw(fabricate_table(few, point), wanted, tmp_path).figures["figure4"]
    assert {"N = 8,192", "N = 81,920"} <= {text.get_text() for text in many.legends[0].get_texts()}


def test_early_stopping_compares_on_the_other_half():
    result = drawn("early_stopping")
    axes = result.figures["early_stopping"].axes[0]
    lines = [container.lines[0].get_ydata().astype(float) for container in axes.containers]
    assert len(lines) == 2 and np.allclose(np.abs(lines[0] - lines[1]), 5)
    assert "test (other half)" in {text.get_text() for text in result.figures["early_stopping"].legends[0].get_texts()}


@pytest.mark.slow
def test_reconstructions_of_the_first_restart_stand_above_their_panel(tmp_path):
    wanted = experiment("figure3", "smoke")
    for config in wanted.configs:
        run = fabricate_run(tmp_path, config)
        shade = np.full((16, 16, 3), int(100 * config.beta), np.uint8)
        if config.split == SCALE.small:
            run.write_arrays(run.path / "reconstruction.npz", {"input": shade * 0, "reconstruction": shade})
    figure = drawings.draw(tables.collect(tmp_path), wanted, tmp_path).figures["figure3"]
    strips = [axes for axes in figure.axes if axes.get_title()]
    assert [len(axes.images) for axes in strips] == [0, 0, 4, 4]
    assert [text.get_text() for text in strips[2].texts] == ["input", "0.01", "0.1", "1"]
    assert [int(image.get_array()[0, 0, 0]) for image in strips[2].images] == [0, 1, 10, 100]


def test_what_is_missing_is_named(tmp_path):
    wanted = experiment("figure8", "smoke")
    table = fabricate_table(list(wanted.configs[:-2]), lambda *run: metrics(*run[:2]))
    assert drawings.missing(table, wanted) == wanted.run_names[-2:]
    result = drawings.draw(table, wanted, tmp_path)
    assert not result.figures
    assert "made by python -m vae_rd.sweep --experiment=" in result.notes[0]
    notes = drawings.draw(fabricate_table(list(wanted.configs), point), experiment("figure3", "smoke"), tmp_path).notes
    assert "no run has reconstructions of its final model; made by python -m vae_rd.sweep" in notes[0]


def test_runs_under_their_earlier_names_are_drawn_and_counted(tmp_path):
    wanted = experiment("figure3", "smoke")
    for config in wanted.configs:
        run = fabricate_run(tmp_path, config)
        run.path.rename(tmp_path / config.earlier_run_name)
    table = tables.collect(tmp_path)
    assert drawings.fullest_scale(table, "figure3") == "smoke" and drawings.complete_parts(table, wanted) == wanted
    assert drawings.missing(table, wanted) == []
    assert set(drawings.draw(table, wanted, tmp_path).curves["rate_n"]) == {1}
    assert set(table["run"]) == {config.earlier_run_name for config in wanted.configs}


def test_the_overview_has_the_curves_of_the_paper_in_a_panel_per_architecture():
    """Those of other priors and likelihoods, and those of two betas, only where there is nothing else."""
    base = experiments.SCALES["tenth"].base
    paper_like = [base.replace(architecture=name, num_layers=layers, beta=beta) for name in ("mlp", "cnn")
                  for layers in (1, 3) for beta in (0.1, 1.0)]
    others = [base.replace(prior="flow", beta=beta) for beta in (0.1, 1.0)]
    complete = [base.replace(beta=beta) for beta in (0.1, 1.0, 5.0)]
    for configs, curves, panels in ((paper_like + others, 4, 2), (others, 2, 1), (paper_like + complete, 2, 1)):
        points = tables.curves(fabricate_table(configs, lambda *run: metrics(*run[:2])))
        figure = drawings.overview(points[points["checkpoint"] == "last"])
        assert len(figure.axes) == panels
        assert [len(axes.containers) for axes in figure.axes] == [curves] * panels
        assert not any("smoke scale" in text.get_text() for text in figure.texts)


def test_the_overview_is_at_smoke_scale_if_what_it_draws_is():
    base = experiments.SCALES["tenth"].base
    complete = [base.replace(beta=beta) for beta in (0.1, 1.0, 5.0)]
    short = [config.replace(train_steps=40) for config in complete]
    for configs, marked in ((complete + short[:2], False), (short, True)):
        figure = drawings.overview(tables.curves(fabricate_table(configs, lambda *run: metrics(*run[:2]))))
        assert any("smoke scale" in text.get_text() for text in figure.texts) == marked


@pytest.mark.parametrize("name, field, value, alone", [
    ("figure3", "split", SCALE.small, True), ("memorisation", "split", SCALE.small, True),
    ("figure5", "split", SCALE.small, False), ("figure7", "dataset", "mnist", True)])
def test_some_figures_are_published_before_all_of_their_panels_are_there(name, field, value, alone):
    """Split by split, or data set by data set; but of those that are there no curve may be missing."""
    wanted = experiment(name, "smoke")
    part = [config for config in wanted.configs if getattr(config, field) == value]
    for configs, expected in ((wanted.configs, True), (part, alone), (part[:1], False)):
        found = drawings.complete_parts(fabricate_table(list(configs), point), wanted).configs
        assert found == (tuple(configs) if expected else ())


def test_a_split_of_which_training_has_begun_is_not_published():
    """One beta of each curve is there; the curves of the other split are complete."""
    wanted = experiment("figure3", "smoke")
    whole, begun = ([config for config in wanted.configs if config.split == split]
                    for split in (SCALE.small, SCALE.large))
    table = fabricate_table([*whole, *(config for config in begun if config.beta == 0.1)], point)
    assert set(drawings.complete_parts(table, wanted).configs) == set(whole)


@pytest.mark.parametrize("name, quantity", [("log_likelihood", quantities.LOG_PX),
                                            ("memorisation", quantities.MEMORISED_AT_MEAN)])
def test_a_split_without_the_measure_has_no_panel(name, quantity):
    table = fabricate_table(list(experiment(name, "smoke").configs), point)
    table.loc[table["split"] == SCALE.large, quantity] = np.nan
    figure = drawings.draw(table, experiment(name, "smoke"), "nowhere").figures[name]
    assert titles(figure) == [naming.split_words(SCALE.small)]


@pytest.mark.parametrize("name, lines, marks", [("convergence", 4, 0), ("ten_times", 4, 1)])
def test_distortion_and_rate_are_drawn_over_the_training(tmp_path, name, lines, marks):
    wanted = experiment(name, "smoke")
    for config in wanted.configs:
        fabricate_run(tmp_path, config, history=[
            {"step": step, "partition": name, "distortion": 100.0 * config.beta + step} for step in (10, 20)
            for name in ("train", "test")])
    result = drawings.draw(tables.collect(tmp_path), wanted, tmp_path)
    axes = result.figures[name].axes
    assert [panel.get_title() for panel in axes] == ["1-layer MLP", "3-layer MLP", "", ""]
    for panel in axes:
        assert len([line for line in panel.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] == 10]) == lines
        assert len(panel.lines) == lines + marks
    assert list(axes[0].lines[0].get_ydata()) == [20.0, 30.0], "test images at beta = 0.1"
    assert set(result.tables[f"{name}_history"]["step"]) == {10, 20}


def test_no_finished_run_is_a_sentence_with_a_remedy(tmp_path):
    with pytest.raises(tables.TableError, match="none of its 12 runs at scale smoke has finished. Train them with"):
        drawings.draw(tables.collect(tmp_path), experiment("figure3", "smoke"), tmp_path)


def test_the_scale_with_most_finished_runs_is_drawn():
    table = fabricate_table(list(experiment("figure3", "smoke").configs), point)
    assert drawings.fullest_scale(table, "figure3") == "smoke"
    none = table[table["status"] == "diverged"]
    assert drawings.fullest_scale(none, "figure3") == experiments.DEFAULT_SCALE == "laptop"


def test_information_has_caps_bounds_and_both_estimates():
    result = drawn("figure8", "laptop")
    panel = result.figures["figure8"].axes[0]
    size = split_size(experiments.SCALES["laptop"].small)
    assert {f"log N = {math.log(size):.2f}", "log 512 = 6.24"} <= {text.get_text() for text in panel.texts}
    means = result.curves.query("num_layers == 1 and partition == 'train' and checkpoint == 'last'")
    drawn_values = [container.lines[0].get_ydata() for container in panel.containers]
    np.testing.assert_allclose(drawn_values[1], means.sort_values("beta")["mutual_information_mean"])
    np.testing.assert_allclose(drawn_values[0], drawn_values[1] + 0.4)
    assert len(panel.collections) >= 1  # the band of the bounds
    assert key_of(result.figures["figure8"]) == {
        "exact", "estimate from minibatches of 512", "bars: standard deviation (3 restarts)",
        "where the mutual information must lie: max(0, log N \N{MINUS SIGN} D) to R"}


@pytest.mark.parametrize("likelihood, band, ceiling", [
    ("discretized_logistic", 1, ""), ("continuous_bernoulli", 0, ""),
    ("normal", 0, "ceiling of a perfect reconstruction 4250.6")])
def test_bounds_of_other_likelihoods_stand_only_where_they_hold(likelihood, band, ceiling):
    """I >= H - D holds for probabilities; log p(x) <= - floor wherever there is a floor."""
    scale = SCALE._replace(base=SCALE.base.replace(likelihood=likelihood))
    points = tables.curves(fabricate_table(experiments.product(scale, experiments.MLPS, [scale.small]), point))
    points = points[points["checkpoint"] == "last"]
    figure = against_beta.information_figure(points)
    filled = [len([one for one in axes.collections if isinstance(one, PolyCollection)]) for axes in figure.axes]
    assert filled == [band, band, 0, 0]
    assert any("where the mutual information must lie" in text for text in key_of(figure)) == bool(band)
    assert {"log N = 6.21"} <= {text.get_text() for text in figure.axes[0].texts}
    axes, = against_beta.log_px_figure(points).axes
    assert [text.get_text() for text in axes.texts] == ([ceiling] if ceiling else [])
    assert not any(np.isnan(np.asarray(line.get_ydata(), float)).any() for line in axes.lines)


@pytest.mark.parametrize("size, words, lines", [(64, "minibatches of 64", {"log 64 = 4.16", "log N = 6.21"}),
                                                (512, "minibatches of 500", {"log N = 6.21"})])
def test_the_minibatch_is_that_which_was_used(tmp_path, size, words, lines):
    wanted = experiment("figure8", "smoke")
    table = fabricate_table(list(wanted.configs), point).assign(**{"information.minibatch": size})
    figure = drawings.draw(table, wanted, tmp_path).figures["figure8"]
    assert f"estimate from {words}" in key_of(figure)
    assert lines == {text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("log")}


def test_memorisation_is_drawn_beyond_its_control_and_no_marker_hides_another():
    result = drawn("memorisation")
    panel, betas = result.figures["memorisation"].axes[0], SCALE.betas
    one, three = (container.lines[0] for container in panel.containers)
    for line in (one, three):
        np.testing.assert_allclose(line.get_ydata().astype(float), 0.05)  # 0.2 - 0.15
        np.testing.assert_allclose(line.get_xdata(), betas, rtol=0.2)
    sampled = result.figures["memorisation"].axes[2].containers[0].lines[0]
    np.testing.assert_allclose(sampled.get_ydata().astype(float), 0.1)  # 0.5 - 0.4
    assert (np.array(three.get_xdata()) > 1.05 * np.array(one.get_xdata())).all()
    assert one.get_marker() != three.get_marker() and "memorised \N{MINUS SIGN} control" in panel.get_ylabel()


@pytest.mark.slow
def test_log_px_says_how_many_images_it_is_a_mean_of(tmp_path):
    figure = drawn("log_likelihood").figures["log_likelihood"]
    assert "log p(x), importance sampling (200 images)" in key_of(figure)
    wanted = experiment("log_likelihood", "smoke")
    table = fabricate_table(list(wanted.configs), point)
    table["log_marginal.query_images"] = np.where(table["beta"] == 1, 1000, 8)
    figure = drawings.draw(table, wanted, tmp_path).figures["log_likelihood"]
    assert "log p(x), importance sampling (8 to 1,000 images)" in key_of(figure)
    assert {"8", "1,000"} <= {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure3", "figure8", "log_likelihood", "memorisation", "priors", "likelihoods"])
def test_a_figure_at_smoke_scale_says_so(name):
    for scale, marked in (("smoke", True), ("laptop", False)):
        for figure in drawn(name, scale).figures.values():
            assert any("smoke scale" in text.get_text() for text in figure.texts) == marked


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_no_legend_is_wider_than_its_figure(name):
    for figure in drawn(name, "laptop").figures.values():
        box = figure.legends[0].get_window_extent()
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width


def test_unreliable_log_px_is_hollow_and_the_ceiling_named():
    axes = drawn("log_likelihood").figures["log_likelihood"].axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white" and line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in hollow] == [[0.01], [0.01]]
    assert any("ceiling of grey targets \N{MINUS SIGN}49.0" in text.get_text() for text in axes.texts)


def test_log_px_rises_with_the_number_of_samples():
    figure = drawn("log_likelihood").figures["log_px_samples"]
    assert titles(figure) == [f"{naming.describe({'split': SCALE.small})}, {layers}-layer MLP" for layers in (1, 3)]
    for line in figure.axes[0].lines:
        assert list(line.get_xdata()) == [1, 10] and np.diff(line.get_ydata()) == pytest.approx(2)


def test_betas_whose_log_px_was_not_measured_are_not_in_the_key():
    points = drawn("log_likelihood").curves
    points = points[points["checkpoint"] == "last"].copy()
    points.loc[points["beta"] == 0.1, ["log_px_k1_mean", "log_px_k10_mean"]] = np.nan
    assert key_of(against_beta.samples_figure(points)) == {"\u03b2 = 0.01", "\u03b2 = 1", "not to be trusted",
                                                           "restarts: 1"}


@pytest.mark.parametrize("flagged, hollow", [(0.2, True), (0.1, False)])
def test_samples_of_images_that_are_flagged_are_hollow(flagged, hollow):
    points = drawn("log_likelihood").curves
    points = points[points["checkpoint"] == "last"].copy()
    points["log_px_unreliable_mean"] = flagged
    lines = [line for axes in against_beta.samples_figure(points).axes for line in axes.lines]
    assert lines and {line.get_markerfacecolor() == "white" for line in lines} == {hollow}


@pytest.mark.parametrize("unmeasured", [SCALE.small, SCALE.large])
def test_samples_are_drawn_of_the_smallest_split_that_was_measured(unmeasured):
    points = drawn("log_likelihood").curves
    points = points[points["checkpoint"] == "last"].copy()
    points["num_train"] = points["split"].map({SCALE.small: 500, SCALE.large: 4000})
    points["log_px_k10_mean"] = points["num_train"].astype(float)
    points.loc[points["split"] == unmeasured, ["log_px_k1_mean", "log_px_k10_mean"]] = np.nan
    for axes in against_beta.samples_figure(points).axes:
        assert {line.get_ydata()[1] for line in axes.lines} == {500 if unmeasured == SCALE.large else 4000}


def test_a_split_without_measures_has_no_panel():
    points = drawn("log_likelihood").curves
    points = points[points["checkpoint"] == "last"].copy()
    points.loc[points["split"] == SCALE.large, "log_px_mean"] = np.nan
    figure = against_beta.measures_figure(points, {"log_px": "log p(x)"})
    assert titles(figure) == [naming.describe({"split": SCALE.small})]


def test_priors_that_share_no_rate_are_drawn_and_not_compared(tmp_path):
    wanted = experiment("priors", "smoke")
    alone = [config for config in wanted.configs if config.prior == "standard_normal"]
    result = drawings.draw(fabricate_table(alone, point), wanted, tmp_path)
    assert "priors" in result.figures and "priors_matched_rate" not in result.figures
    assert any("no prior shares a restart with N(0, I)" in note for note in result.notes)


def test_samples_of_runs_with_other_numbers_of_samples_are_drawn_as_far_as_they_go():
    points = drawn("log_likelihood").curves
    points = points[points["checkpoint"] == "last"].copy()
    points[["log_px_k20_mean", "log_px_k20_n"]] = points[["log_px_k10_mean", "log_px_k10_n"]]
    points.loc[points["num_layers"] == 1, "log_px_k20_mean"] = np.nan
    points.loc[points["num_layers"] == 3, "log_px_k10_mean"] = np.nan
    one, three = against_beta.samples_figure(points).axes
    assert [list(axes.lines[0].get_xdata()) for axes in (one, three)] == [[1, 10], [1, 20]]


def test_samples_that_only_some_restarts_have_are_left_out():
    """With the rest of the line they would be a mean over other restarts: a step that no restart makes."""
    points = drawn("log_likelihood").curves
    points = points[points["checkpoint"] == "last"].copy()
    points[["log_px_k1_n", "log_px_k10_n", "log_px_k20_n"]] = 2, 2, 1
    points["log_px_k20_mean"] = points["log_px_k10_mean"] - 10
    figure = against_beta.samples_figure(points)
    assert {tuple(line.get_xdata()) for axes in figure.axes for line in axes.lines} == {(1, 10)}
    assert "restarts: 2" in key_of(figure)


def test_what_only_early_stopped_models_have_is_named_as_missing():
    wanted = experiment("log_likelihood", "smoke")
    table = fabricate_table(list(wanted.configs), point)
    table.loc[table["checkpoint"] == "last", quantities.LOG_PX] = np.nan
    result = drawings.draw(table, wanted, "nowhere")
    assert not result.figures and "no run has log_px" in result.notes[0]


@pytest.mark.slow
def test_priors_have_their_curves_their_gap_and_their_distortion_at_matched_rate(tmp_path):
    wanted = experiment("priors", "laptop")
    result = drawings.draw(fabricate_table(list(wanted.configs), point), wanted, tmp_path)
    assert list(result.figures) == ["priors", *(f"priors_{part}" for part in ("matched_rate", "information", "gap",
                                                                              "refitted"))]
    assert not result.notes
    names = ["standard normal prior", "learned normal prior", "mixture prior", "VampPrior", "flow prior",
             "exemplar prior"]
    key = [text.get_text() for text in result.figures["priors"].legends[0].get_texts()]
    assert [text for text in key if text in names] == names
    key = key_of(result.figures["priors_matched_rate"])
    assert key == {*names[1:], "leaving out one \u03b2 changes it by more than its size",
                   "bars: 95% interval over 3 restarts"}
    assert titles(result.figures["priors_gap"]) == ["1 layer", "3 layers"]
    for axes, height in zip(result.figures["priors_gap"].axes[::2], (20, 8, 12)):
        assert [list(container.lines[0].get_ydata()) for container in axes.containers] == [[height] * 6] * 6
    assert set(result.tables["priors_matched_rate"]["prior"]) == set(catalogue.PRIORS) - {"standard_normal"}


@pytest.mark.slow
def test_priors_that_are_not_measured_still_have_their_curves(tmp_path):
    wanted = experiment("priors", "smoke")
    result = drawings.draw(fabricate_table(list(wanted.configs), lambda *run: metrics(*run[:2])), wanted, tmp_path)
    assert list(result.figures) == ["priors", "priors_matched_rate"]
    assert "1 restart, no bars" in key_of(result.figures["priors_matched_rate"])
    assert len(result.notes) == 7 and all("made by python -m vae_rd.sweep" in note for note in result.notes)


@pytest.mark.slow
def test_squared_error_is_drawn_against_the_rate(tmp_path):
    result = drawn("likelihoods", "laptop")
    axes = result.figures["likelihoods_squared_error"].axes[0]
    assert len(axes.containers) == 5 * 2
    for container in axes.containers:
        rate, error = (np.array(data, float) for data in container.lines[0].get_data())
        np.testing.assert_allclose(error, 1 / rate, rtol=0.05)
    wanted = experiment("likelihoods", "smoke")
    bare = drawings.draw(fabricate_table(list(wanted.configs), lambda *run: metrics(*run[:2])), wanted, tmp_path)
    assert list(bare.figures) == ["likelihoods"] and "no run has mean_squared_error" in bare.notes[0]


def test_distances_come_from_the_runs_and_gaps_rise_with_them(tmp_path):
    wanted = experiment("nearest_neighbours", "smoke")
    random = np.random.default_rng(0)
    for config in wanted.configs:
        run = fabricate_run(tmp_path, config)
        near = random.gamma(5, 1, 1000)
        run.write_arrays(run.per_example("test"), {quantities.NEAREST: near, "distortion": 70 + near,
                                               "entropy_floor": np.full(1000, 49.0)})
    result = drawings.draw(tables.collect(tmp_path), wanted, tmp_path)
    assert list(result.figures) == ["nearest_neighbours", "gap_by_distance"]
    assert titles(result.figures["nearest_neighbours"]) == ["constant volume", "constant density", "other splits"]
    for line in result.figures["gap_by_distance"].axes[0].lines[:2]:
        assert (np.diff(line.get_ydata()) > 0).all()


def test_gap_by_distance_is_the_mean_of_equal_groups():
    distortions = np.array([30.0, 10, 20, 40, 99])
    near, gap = distances.gap_by_distance(np.array([3.0, 1, 2, 4, np.nan]), distortions, 5.0, bins=2)
    np.testing.assert_array_equal(near, [1.5, 3.5])
    unknown = distances.gap_by_distance(np.arange(5.0), np.full(5, np.nan), 0.0)  # as without a floor
    assert [len(part) for part in unknown] == [0, 0]
    np.testing.assert_array_equal(gap, [10, 30])
    assert len(distances.gap_by_distance(np.ones(3), np.ones(3), 0.0, bins=10)[0]) == 3


def test_a_run_directory_that_vanished_is_no_crash(tmp_path):
    wanted = experiment("nearest_neighbours", "smoke")
    result = drawings.draw(fabricate_table(list(wanted.configs), point), wanted, tmp_path)
    assert not result.figures and quantities.NEAREST in result.notes[0]
    assert not RunDir(tmp_path / wanted.run_names[0]).path.exists()


@pytest.mark.slow
def test_one_training_says_how_many_steps_both_ways_are():
    """40 steps, for three betas or for one; a beta that was trained one way only does not count."""
    wanted = experiment("one_training", "smoke")
    table = fabricate_table(list(wanted.configs), point)
    remarks = ["one training: 40 steps; a training for each of 3 \u03b2: 3 \u00d7 40"]
    result = drawings.draw(table, wanted, "nowhere")
    assert result.notes == remarks and set(remarks) <= key_of(result.figures["one_training"])
    labels = {text.get_text() for axes in result.figures["one_training"].axes for text in axes.texts}
    assert {"one training", "a training for each \N{GREEK SMALL LETTER BETA}"} <= labels
    fewer = table[(table["beta"] != 0.1) | (table["conditioning"] == "beta") | (table["num_layers"] == 3)]
    notes = drawings.draw(fewer, wanted, "nowhere").notes
    assert [note[:8] for note in notes] == ["1 layer:", "3 layers"] and notes[0].endswith("2 \u00d7 40")
