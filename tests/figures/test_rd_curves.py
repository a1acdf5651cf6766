"""The figures: every number drawn is in the table, and nothing is drawn on top of a text."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.fabricate import LEVELS, fabricate_run
from vae_rd.analysis import naming, tables
from vae_rd.config import Config
from vae_rd.figures import curve_names, rd_curves, style
from vae_rd.figures.labels import Labeller

SMALL = Config(split="cd_8k", train_steps=100)
BETAS = (0.001, 0.1, 0.5, 1.0, 5.0)


def curves(folder, *configs, seeds=3):
    for config in configs:
        for beta in BETAS:
            for seed in range(seeds):
                fabricate_run(folder, config.replace(beta=beta, seed=seed))
    return tables.curves(tables.collect(folder)).query("checkpoint == 'last'")


def texts(axes):
    return [text.get_text() for text in axes.texts]


def elbos(axes):
    """ELBO by label, and rate and distortion where it stands."""
    return [(float(text.get_text().removeprefix("ELBO ").replace("\N{MINUS SIGN}", "-")), text.get_position())
            for text in axes.texts if text.get_text().startswith("ELBO")]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return curves(tmp_path_factory.mktemp("runs"), *(SMALL.replace(split=split, num_layers=layers)
                                                     for split in ("cv_16k", "cv_82k") for layers in (1, 3)))


def test_a_panel_per_facet_and_a_curve_per_difference(four):
    figure = rd_curves.rd_figure(four)
    assert [axes.get_title() for axes in figure.axes] == ["CV(16k)", "CV(82k)"]
    for axes in figure.axes:
        assert {"1-layer MLP", "3-layer MLP"} <= set(texts(axes))
        assert axes.get_xlabel() == "rate (nats per image)"
    assert figure.axes[0].get_ylabel() == "distortion (nats per image)"


def test_modules_name_a_curve_only_where_nothing_else_does(tmp_path):
    """Of one network, runs that imported a module and runs that did not are two curves, whatever else differs."""
    rows = curves(tmp_path, SMALL, SMALL.replace(num_layers=3), seeds=1)
    one = rows.assign(imports=np.where(rows["num_layers"] == 3, "parts", ""))
    assert curve_names.differing(one, ()) == ["architecture", "num_layers"]
    mixed = pd.concat([rows, rows.assign(imports="parts")])
    assert curve_names.differing(mixed, ()) == ["architecture", "num_layers", "imports"]
    assert curve_names.differing(mixed[mixed["num_layers"] == 1], ()) == ["imports"]


def test_points_bars_and_stars_are_those_of_the_table(four):
    chosen = four.query("split == 'cv_16k' and num_layers == 1 and partition == 'test'").sort_values("beta")
    axes = rd_curves.rd_figure(four, partitions=("test",)).axes[0]
    points, _, (across, upright) = axes.containers[0].lines
    np.testing.assert_allclose(points.get_xdata().astype(float), chosen["rate_mean"])
    np.testing.assert_allclose(points.get_ydata().astype(float), chosen["distortion_mean"])
    half = [np.ptp(segment[:, 1]) / 2 for segment in upright.get_segments()]
    np.testing.assert_allclose(half, chosen["distortion_std"])
    star = next(line for line in axes.lines if line.get_marker() == "*")
    at_one = chosen[chosen["beta"] == 1]
    assert star.get_xdata()[0] == at_one["rate_mean"].item() and star.get_markerfacecolor() == "white"


def test_two_restarts_are_drawn_as_both_values(tmp_path):
    for seed, distortion in ((0, 60.0), (1, 70.0)):
        fabricate_run(tmp_path, SMALL.replace(beta=0.1, seed=seed), distortion=distortion)
    points = tables.curves(tables.collect(tmp_path)).query("checkpoint == 'last'")
    figure = rd_curves.rd_figure(points, partitions=("test",))
    _, _, (_, upright) = figure.axes[0].containers[0].lines
    np.testing.assert_allclose(upright.get_segments()[0][:, 1], [60, 70])
    assert "bars: both values (2 restarts)" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert points[["distortion_low", "distortion_high"]].isna().all(axis=None)


def test_both_curves_of_a_panel_have_their_betas(four):
    for axes in rd_curves.rd_figure(four, partitions=("test",)).axes:
        colours = {text.get_color() for text in axes.texts if text.get_text() in ("0.1", "\u03b2 = 5", "\u03b2 = 0.01")}
        assert colours == set(style.COLOURS[:2])


def test_every_beta_is_joined_to_its_own_point(four):
    """A thin line leads from each value to a marker of its colour at that beta, and crosses no other such line."""
    for axes in rd_curves.rd_figure(four, partitions=("test",)).axes:
        leaders = [line for line in axes.lines if line.get_linewidth() == 0.4 and line.get_zorder() == 2]
        assert leaders
        for leader in leaders:
            start, end = leader.get_xydata()
            text = min((text for text in axes.texts if text.get_color() == leader.get_color()),
                       key=lambda text: np.hypot(*(axes.transData.transform(text.get_position())
                                                   - axes.transData.transform(end))))
            value = float(text.get_text().removeprefix("\u03b2 = "))
            at = four[(four["beta"] == value) & (four["partition"] == "test")]
            assert np.isclose(at[["rate_mean", "distortion_mean"]].to_numpy(float), start).all(axis=1).any()


def test_diagonals_carry_the_elbo_of_their_points(four):
    figure = rd_curves.rd_figure(four)
    found = 0
    for axes in figure.axes:
        for value, (rate, distortion) in elbos(axes):
            assert -(rate + distortion) == pytest.approx(value, abs=4)  # the text lies beside its line
            found += 1
    assert found >= 4


@pytest.mark.slow
def test_rates_that_span_decades_get_a_logarithmic_axis_whose_diagonals_still_tell_the_elbo(four):
    wide = four.assign(rate_mean=np.where(four["beta"] < 0.01, 600.0, four["rate_mean"]))
    assert rd_curves.rd_figure(four).axes[0].get_xscale() == "linear"
    assert rd_curves.rd_figure(four, rate_axis="log").axes[0].get_xscale() == "log"
    axes = rd_curves.rd_figure(wide).axes[0]
    assert axes.get_xscale() == "log" and rd_curves.rd_figure(wide, rate_axis="linear").axes[0].get_xscale() == "linear"
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 200]
    sums = [np.unique(line.sum(axis=1).round(6)) for line in lines]
    assert len(lines) > 4 and all(len(value) == 1 for value in sums)


def test_the_entropy_floor_is_in_sight_and_absent_for_binary_targets(tmp_path, four):
    axes = rd_curves.rd_figure(four).axes[0]
    assert any(text.startswith("entropy floor 49.0") for text in texts(axes)) and axes.get_ylim()[0] < 49
    for beta in BETAS:
        fabricate_run(tmp_path, SMALL.replace(beta=beta), entropy_floor=0.0)
    binary = rd_curves.rd_figure(tables.curves(tables.collect(tmp_path)).query("checkpoint == 'last'")).axes[0]
    assert not any("floor" in text for text in texts(binary)) and binary.get_ylim()[0] > 0


@pytest.mark.parametrize("other, drawn", [(49.8, True), (53.0, False)])
def test_one_floor_is_drawn_only_for_curves_that_share_it(tmp_path, other, drawn):
    """One line would lie 4 nats from the floor of some curve; within a nat, the range stands beside it."""
    for split, floor in (("cd_8k", 49.0), ("cd_65k", other)):
        for beta in BETAS:
            fabricate_run(tmp_path, SMALL.replace(split=split, beta=beta), entropy_floor=floor)
    points = tables.curves(tables.collect(tmp_path)).query("checkpoint == 'last'")
    (axes,) = rd_curves.rd_figure(points, facet=("dataset",)).axes
    assert (f"entropy floor 49.0 to {other}" in texts(axes)) == drawn
    assert any("floor" in text for text in texts(axes)) == drawn


@pytest.mark.parametrize("rate_axis", ["linear", "log"])
@pytest.mark.parametrize("likelihood, floor", [
    ("normal", ["perfect reconstruction \N{MINUS SIGN}4250.6"]), ("continuous_bernoulli", []),
    ("discretized_logistic", [])])
def test_floor_and_diagonals_of_any_sign(tmp_path, likelihood, floor, rate_axis):
    points = curves(tmp_path, SMALL.replace(likelihood=likelihood), seeds=1)
    axes, = rd_curves.rd_figure(points, rate_axis=rate_axis).axes
    assert [text for text in texts(axes) if "floor" in text or "perfect" in text] == floor
    assert (axes.get_ylim()[0] < LEVELS[likelihood]) == bool(floor)
    assert len(elbos(axes)) >= 2 and not any("-" in text for text in texts(axes))
    for value, (rate, distortion) in elbos(axes):
        assert value == pytest.approx(-(rate + distortion), abs=4) and (value > 0) == (LEVELS[likelihood] < 0)


def test_curves_without_a_floor_hide_that_of_others(four):
    """A line at 49 nats would lie above what the others may reach."""
    some = four.assign(entropy_floor_mean=np.where(four["num_layers"] == 1, 49.0, np.nan))
    assert not any("floor" in text for axes in rd_curves.rd_figure(some).axes for text in texts(axes))


def test_likelihoods_share_no_axis(tmp_path):
    points = curves(tmp_path, *(SMALL.replace(likelihood=likelihood) for likelihood in LEVELS), seeds=1)
    axes = rd_curves.rd_figure(points).axes
    names = {naming.describe({"likelihood": likelihood}) for likelihood in LEVELS}
    assert {one.get_title().removeprefix("1-layer MLP, ") for one in axes} == names
    assert all(np.ptp(one.get_ylim()) < 200 for one in axes)
    words = r"must be of one likelihood.*\(got .*normal.*Try the rows of one of them, or likelihood among the facets"
    for draw in (lambda: rd_curves.draw_rd(Figure().add_subplot(), points),
                 lambda: rd_curves.rd_figure(points, facet=("split",))):
        with pytest.raises(tables.TableError, match=words):
            draw()


def test_no_text_covers_a_curve_or_another_text(four):
    figure = rd_curves.rd_figure(four)
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_rotation() == 0]
        assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])
        for container in axes.containers:
            pixels = axes.transData.transform(np.stack(container.lines[0].get_data(), axis=1))
            assert not any(box.contains(*point) for box in boxes for point in pixels)


def test_one_curve_is_named_in_the_title(tmp_path):
    axes, = rd_curves.rd_figure(curves(tmp_path / "paper", SMALL, seeds=1)).axes
    assert axes.get_title() == "Tetrominoes, CD(8k), 1-layer MLP"
    axes, = rd_curves.rd_figure(curves(tmp_path / "other", SMALL.replace(likelihood="normal"), seeds=1)).axes
    assert axes.get_title() == "Tetrominoes, CD(8k), 1-layer MLP, normal likelihood"


def test_one_point_alone_can_be_drawn(tmp_path):
    fabricate_run(tmp_path, SMALL.replace(beta=0.1))
    figure = rd_curves.rd_figure(tables.curves(tables.collect(tmp_path)).query("checkpoint == 'last'"))
    assert len(figure.axes) == 1


def test_a_taken_place_is_left_alone():
    figure = style.figure(3, 3)
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    labeller = Labeller(axes)
    centre = [tuple(labeller.pixels([(0.5, 0.5)])[0])]
    labeller.avoid([(0, 0), (1, 1)])
    assert not labeller.place("on the line", centre) and not axes.texts
    assert labeller.place("must be said", centre, required=True)
    assert not labeller.place("outside", [(-50.0, 10.0)], required=True)


@pytest.mark.parametrize("values, text", [
    ({"architecture": "mlp", "num_layers": 1}, "1-layer MLP"), ({"num_layers": 3}, "3 layers"),
    ({"num_layers": 1}, "1 layer"), ({"dataset": "fashion_mnist", "split": "cv_8k"}, "Fashion-MNIST, CV(8k)"),
    ({"dataset": "mine", "split": "checkerboard"}, "mine, checkerboard"), ({"train_steps": 257000}, "257,000 steps"),
    ({"rate_terms": "marginal_kl"}, "marginal KL only"), ({}, "")])
def test_words_for_values(values, text):
    assert naming.describe(values) == text


def test_curves_are_drawn_on_axes_of_the_caller(tmp_path):
    for beta in (0.01, 0.1, 1.0):
        for layers in (1, 3):
            fabricate_run(tmp_path, Config(beta=beta, num_layers=layers))
    curves = tables.curves(tables.collect(tmp_path))
    last = curves[curves["checkpoint"] == "last"]
    axes = Figure().add_subplot()
    assert rd_curves.draw_rd(axes, last) is axes
    shown = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 3]
    expected = last[(last["num_layers"] == 3) & (last["partition"] == "test")].sort_values("beta")
    points = expected[["rate_mean", "distortion_mean"]].to_numpy(float)
    assert any(np.array_equal(line, points) for line in shown)
    assert {text.get_text() for text in axes.get_legend().get_texts()} >= {"train", "test", "1 restart, no bars"}


def test_many_curves_have_their_betas_where_they_lie_apart(tmp_path):
    """Five curves far apart: each has betas. In one place: those of the outer two serve all."""
    for split in ("cv_8k", "cv_16k", "cv_25k", "cv_33k", "cv_41k"):
        for beta in BETAS:
            fabricate_run(tmp_path, SMALL.replace(split=split, beta=beta))
    points = tables.curves(tables.collect(tmp_path)).query("checkpoint == 'last' and partition == 'test'")
    numbers = points["split"].rank(method="dense") - 1
    for apart, curves_with_betas in ((40.0, 5), (0.2, 2)):
        place = points.assign(rate_mean=20 - 4 * np.log(points["beta"]), distortion_mean=70 + apart * numbers)
        axes, = rd_curves.rd_figure(place, facet=("dataset",), hue=("split",)).axes
        betas = {f"{prefix}{beta:g}" for beta in BETAS for prefix in ("", "\u03b2 = ")}
        assert len({tuple(text.get_color()) for text in axes.texts if text.get_text() in betas}) == curves_with_betas


def test_a_tall_legend_takes_no_height_from_the_panel(tmp_path):
    """Twenty curves are named in a legend; the panel is as high as that of one curve, and stands above the legend."""
    for latent_dim in range(2, 12):
        for prior in ("standard_normal", "vamp"):
            fabricate_run(tmp_path, SMALL.replace(latent_dim=latent_dim, prior=prior, beta=0.1))
    points = tables.curves(tables.collect(tmp_path)).query("checkpoint == 'last' and partition == 'test'")
    few, many = (rd_curves.rd_figure(chosen, facet=("dataset",), hue=("latent_dim", "prior"))
                 for chosen in (points.query("latent_dim == 2 and prior == 'vamp'"), points))
    height = [figure.axes[0].get_position().height * figure.get_figheight() for figure in (few, many)]
    assert len(many.legends[0].get_texts()) > 20
    assert height[1] == pytest.approx(height[0], rel=0.15)
    assert many.legends[0].get_window_extent().y1 < many.axes[0].get_tightbbox().y0
