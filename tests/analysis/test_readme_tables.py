"""The tables of results/README.md, against the numbers that they were made from."""

import itertools
import math
import shutil

import pytest

from tests.fabricate import fabricate_run
from vae_rd.analysis import readme_tables, tables, verdicts
from vae_rd.sweeps import experiments

TABLE = "before\n<!-- table: {} -->\nold\n<!-- end -->\nafter"
PROTOCOL = experiments.SCALES["tenth"].base
DISTORTIONS = {(0.001, 0): 58.0, (0.1, 0): 60.0, (0.1, 1): 62.5, (1.0, 0): 80.0, (5.0, 0): 99.0}  # by beta and seed


@pytest.fixture(scope="module")
def fill(tmp_path_factory):
    """Fills the table of a name, made from five runs: two restarts of beta = 0.1, one of every other."""
    folder = tmp_path_factory.mktemp("runs")
    for (beta, seed), distortion in DISTORTIONS.items():
        information = {"information": {"settings": {"step": PROTOCOL.train_steps},
                                       "train": {"mutual_information": 5.0 + seed}}}
        fabricate_run(folder, PROTOCOL.replace(beta=beta, seed=seed), distortion=distortion, rate=20.0,
                      measures={"last": information} if beta == 0.1 else None)
    table = tables.collect(folder)
    points, judged = tables.curves(table), verdicts.evaluate(table, "tenth")
    return lambda name: readme_tables.fill(TABLE.format(name), table, points, judged, folder)


def filled(name, table, folder):
    """The text with the table of a name, made from all runs of a folder."""
    points, judged = tables.curves(table), verdicts.evaluate(table, "tenth")
    return readme_tables.fill(TABLE.format(name), table, points, judged, folder)


def rows(text):
    """Lines of a Markdown table as cells, under its headings."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], line)) for line in lines[2:]]


def test_a_table_is_replaced_and_the_text_around_it_stays(fill):
    text = fill("curves")
    assert text.startswith("before\n<!-- table: curves -->\n|") and text.endswith("|\n<!-- end -->\nafter")
    assert "old" not in text


def test_two_restarts_are_both_values(fill):
    """As in the table for terminals and in the figures."""
    _, first, second, _ = rows(fill("curves"))
    assert first["test D"] == "60.0, 62.5"
    assert (first["beta"], first["restarts"]) == ("0.1", "2")
    assert (second["test D"], second["beta"], second["restarts"]) == ("80.0", "1", "1")


def test_restarts_that_differ_between_the_measures_of_a_line_are_a_range(tmp_path):
    for seed in (0, 1):
        made = {"mutual_information": 5.0} | ({"marginal_kl": 3.0} if seed else {})
        fabricate_run(tmp_path, PROTOCOL.replace(seed=seed), measures={
            "last": {"information": {"settings": {"step": PROTOCOL.train_steps}, "train": made}}})
    (line,) = rows(filled("information", tables.collect(tmp_path), tmp_path))
    assert (line["MI"], line["marginal KL"], line["restarts"]) == ("5.000, 5.000", "3.00", "1 to 2")


def test_a_point_without_the_measure_has_no_line(fill):
    (line,) = rows(fill("information"))
    assert (line["beta"], line["MI"], line["marginal KL"]) == ("0.1", "5.000, 6.000", "")
    assert "Not measured yet." in fill("log_px")


def test_a_setting_is_named_by_what_differs_among_the_lines_of_its_table(tmp_path):
    """Only Bernoulli runs have the measure, so its table need not say it."""
    information = {"information": {"settings": {"step": PROTOCOL.train_steps}, "train": {"mutual_information": 5.0}}}
    fabricate_run(tmp_path, PROTOCOL, measures={"last": information})
    fabricate_run(tmp_path, PROTOCOL.replace(likelihood="normal"))
    table = tables.collect(tmp_path)
    settings = {name: [line["setting"] for line in rows(filled(name, table, tmp_path))]
                for name in ("information", "curves")}
    assert settings == {"information": ["1-layer MLP"],
                        "curves": [f"1-layer MLP, {likelihood} likelihood" for likelihood in ("Bernoulli", "normal")]}


def test_runs_are_counted_with_their_hours(fill):
    (line,) = rows(fill("runs"))
    assert (line["beta"], line["seeds"], line["runs"]) == ("0.001, 0.1, 1, 5", "0, 1", "5")
    assert line["hours, all"] == f"{5 * 60 / 3600:.1f}"


def test_convergence_says_what_was_at_each_share_of_the_steps(tmp_path):
    """On the images that all evaluations have in common: the last step, which sees more of them, does not count."""
    for seed in (0, 1):
        values = [(1285 * number, partition, 500 if number < 20 or partition == "train" else 9000,
                   (100.0 if partition == "test" else 50.0) - number + seed)
                  for number in range(21) for partition in ("train", "test")]
        fabricate_run(tmp_path, PROTOCOL.replace(seed=seed), history=[
            {"step": step, "partition": partition, "num_images": count, "distortion": value, "rate": value / 10}
            for step, partition, count, value in values])
    table = tables.collect(tmp_path)
    text = filled("convergence", table, tmp_path)
    (line,) = rows(text)
    assert line["steps"] == "2,570 \u2192 12,850 \u2192 24,415" and line["restarts"] == "2"
    assert line["test D"] == "98.5 \u2192 90.5 \u2192 81.5"
    assert line["train D"] == "48.5 \u2192 40.5 \u2192 31.5" and line["train R"] == "4.8 \u2192 4.0 \u2192 3.2"


def test_convergence_is_at_steps_that_all_restarts_have(tmp_path):
    """The mean at a step of one of them alone would show a change that no training made."""
    for seed, every in ((0, 2570), (1, 1285)):
        values = [(step, partition) for step in range(0, 25_700, every) for partition in ("train", "test")]
        fabricate_run(tmp_path, PROTOCOL.replace(seed=seed, eval_every=every), history=[
            {"step": step, "partition": partition, "distortion": 100.0 + 10 * seed} for step, partition in values])
    table = tables.collect(tmp_path)
    (line,) = rows(filled("convergence", table, tmp_path))
    assert (line["steps"], line["restarts"]) == ("2,570 \u2192 12,850 \u2192 23,130", "2")
    assert line["test D"] == "105.0 \u2192 105.0 \u2192 105.0"
    for run in tmp_path.iterdir():
        shutil.rmtree(run)
    for seed, every in ((0, 1000), (1, 700)):  # of which no step is the same
        fabricate_run(tmp_path, PROTOCOL.replace(seed=seed, eval_every=every), history=[
            {"step": every, "partition": partition} for partition in ("train", "test")])
    table = tables.collect(tmp_path)
    assert not rows(filled("convergence", table, tmp_path))


@pytest.mark.parametrize("restarts, interval", [(3, " [-3.0, -3.0]"), (2, "")])
def test_distortion_at_matched_rate_is_listed_by_prior(tmp_path, restarts, interval):
    """Curves 100 - 20 log R: the flow's lies 3 nats lower, at other rates."""
    for seed, beta, prior in itertools.product(range(restarts), (0.01, 0.1, 1.0, 5.0), ("standard_normal", "flow")):
        rate = 30 / (0.3 + beta) * (1.4 if prior == "flow" else 1)
        fabricate_run(tmp_path, PROTOCOL.replace(beta=beta, seed=seed, prior=prior), rate=rate,
                      distortion=100 - 20 * math.log(rate) - 3 * (prior == "flow") + seed)
    table = tables.collect(tmp_path)
    text = filled("matched_rate", table, tmp_path)
    found = rows(text)
    assert [line["test R"] for line in found] == ["8", "28", "97"]
    assert {(line["setting"], line["restarts"]) for line in found} == {("flow prior", str(restarts))}
    for line in found:
        assert line["train D less that of N(0, I) [95% interval]"] == "-3.0" + interval
        assert float(line["test change if one beta is left out"]) < 0.2


@pytest.mark.parametrize("name", ["curves", "runs"])
def test_settings_come_in_the_order_of_the_paper_and_each_stays_together(tmp_path, name):
    """Tetrominoes first, splits by size, MLPs before CNNs; an alphabetical order would have it the other way."""
    settings = [{"split": "cv_8k"}, {"split": "cv_16k", "prior": "flow"}, {"split": "cv_16k"},
                {"split": "cv_16k", "num_layers": 3}, {"split": "cv_16k", "architecture": "cnn"},
                {"split": "cv_8k", "dataset": "fashion_mnist"}, {"split": "cv_8k", "dataset": "mnist"}]
    for changes in reversed(settings):
        for beta in (0.1, 1.0):
            fabricate_run(tmp_path, PROTOCOL.replace(beta=beta, **changes))
    table = tables.collect(tmp_path)
    text = filled(name, table, tmp_path)
    found = [line["setting"].replace(", standard normal prior", "") for line in rows(text)]
    assert list(dict.fromkeys(found)) == [
        "Tetrominoes, CV(8k), 1-layer MLP", "Tetrominoes, CV(16k), 1-layer MLP",
        "Tetrominoes, CV(16k), 1-layer MLP, flow prior", "Tetrominoes, CV(16k), 3-layer MLP",
        "Tetrominoes, CV(16k), 1-layer CNN", "Fashion-MNIST, CV(8k), 1-layer MLP", "MNIST, CV(8k), 1-layer MLP"]
    assert found == sorted(found, key=list(dict.fromkeys(found)).index)


def test_every_verdict_is_counted(fill):
    text = fill("claims")
    known, (total, *counts) = rows(text), [int(word) for word in text.split("Of ")[1].split() if word.isdigit()]
    assert known and sum(counts) == total
    assert {line["verdict"] for line in known} <= {"supported", "not supported", "undecided", "not enough runs"}


def test_an_unknown_table_is_refused(fill):
    with pytest.raises(tables.TableError, match="must be one of runs, claims, .*got 'curve'"):
        fill("curve")
