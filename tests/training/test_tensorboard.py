"""TensorBoard: scalars that agree with the history, and the pages of a real server in a real browser."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest

from tests.browser import chromium
from vae_rd import model
from vae_rd.config import Config
from vae_rd.datasets import random_streams
from vae_rd.storage import runs
from vae_rd.training import tensorboard, train_and_measure

TINY = Config(split="cd_300", image_size=8, hidden_units=64, latent_dim=4, batch_size=32, train_steps=600,
              eval_every=100, learning_rate=1e-2)
BETAS = (0.01, 0.1, 1.0)
PICTURES = ("test images/1 inputs", "test images/2 reconstructions", "samples/prior")


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A folder of three finished runs that differ in beta."""
    folder = tmp_path_factory.mktemp("board") / "runs"
    train_and_measure.train_and_measure([TINY.replace(beta=beta) for beta in BETAS], runs_dir=folder,
                                        data_dir=data_dir, jit=False, progress=False)
    return folder


def events(run):
    """Everything in a run's event file, unthinned."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    accumulator = EventAccumulator(str(run.path), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(run):
    """{tag: {step: value}} of a run's event file."""
    import tensorflow as tf
    found = events(run)
    tags = [tag for tag in found.Tags()["tensors"] if tag.startswith(("train/", "test/"))]
    return {tag: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in found.Tensors(tag)]
            for tag in tags}


def expected_scalars(run):
    """The same from history.csv."""
    return {f"{partition}/{name}": [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in run.read_history()
                                    if row["partition"] == partition]
            for partition in ("train", "test") for name in tensorboard.SCALARS}


@pytest.mark.slow
def test_scalars_agree_with_the_history(trained):
    for run in runs.find_runs(trained):
        assert scalars(run) == expected_scalars(run)
        assert len(scalars(run)["test/rate"]) == 7


def test_a_view_can_be_rewritten_from_the_history(trained, tmp_path):
    """What a restart does: the old file, with events of steps that were lost, goes."""
    source = runs.find_runs(trained)[0]
    run = runs.RunDir(pathlib.Path(shutil.copytree(source.path, tmp_path / "copy")))
    history = [row for row in run.read_history() if row["step"] <= 200]
    run.results.unlink()
    run.write_history(history)
    tensorboard.Board(run, run.read_config(), history).finish(runs.FINISHED)
    assert len(run.event_files()) == 1
    assert scalars(run) == expected_scalars(run)
    assert [step for step, _ in scalars(run)["train/elbo"]] == [0, 100, 200]


def test_pictures_show_images_reconstructions_and_samples(trained, split):
    import tensorflow as tf
    shown = split.test.images[random_streams.evaluation_subset(split.test.index, 16)]
    for run in runs.find_runs(trained):
        found = events(run)
        pictures = {name: tf.io.decode_png(tf.make_ndarray(found.Tensors(name)[0].tensor_proto)[2]).numpy()
                    for name in PICTURES}
        inputs, reconstructions = (pictures[name].reshape(2, 8, 8, 8, 3).swapaxes(1, 2).reshape(16, 8, 8, 3)
                                   for name in PICTURES[:2])  # row, column, height, width, channels
        np.testing.assert_array_equal(inputs, shown)
        reconstructed = model.load(run.model)(shown / np.float32(255)).numpy()
        np.testing.assert_allclose(reconstructions / 255, reconstructed, atol=0.01)
        assert pictures["samples/prior"].shape == (16, 64, 3) and pictures["samples/prior"].std() > 0
        assert "own prior, standard_normal" in found.SummaryMetadata("samples/prior").summary_description


def test_samples_come_from_the_prior_of_the_run(tmp_path):
    """From the codes' values, which the decoder paints: 0.25 and 0.75 in equal parts, not those of N(0, I)."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    tfd, painted = tfp.distributions, []

    class Model:
        def prior(self):
            return tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]),
                                         tfd.Independent(tfd.Normal([[0.25], [0.75]], [[1e-3], [1e-3]]), 1))

        def picture(self, codes):
            painted.extend(np.ravel(codes))
            return tf.tile(tf.reshape(codes, [-1, 1, 1, 1]), [1, 4, 4, 1])

        def __call__(self, images):
            return images

    run = runs.RunDir(tmp_path / "run")
    run.path.mkdir()
    tensorboard.Board(run, Config(), []).pictures(Model(), np.zeros((16, 4, 4, 1), np.float32), 0)
    shares = np.isclose(np.array(painted)[:, None], [0.25, 0.75], atol=0.01).mean(0)
    assert len(painted) == 16 and shares.sum() == 1 and 0 < shares[0] < 1
    shown = tf.io.decode_png(tf.make_ndarray(events(run).Tensors("samples/prior")[0].tensor_proto)[2]).numpy() / 255
    np.testing.assert_allclose(shown[::4, ::4, 0].ravel(), painted, atol=0.01)


@pytest.mark.parametrize("count, rows", [(1, 1), (7, 1), (8, 1), (15, 1), (16, 2)])
def test_pictures_of_few_images_are_full_rows(count, rows):
    images = np.random.default_rng(0).random((count, 4, 4, 1))
    picture = tensorboard._tiled(images)
    assert picture.shape == (1, 4 * rows, 4 * min(count, 8), 1)
    np.testing.assert_array_equal(picture[0, -4:, :4], images[8 * (rows - 1)])


def test_hyperparameters_are_declared_alike_and_given_by_each_run(trained):
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
    assert [path.name for path in trained.iterdir() if path.is_file()] == []  # it would be a run named "."
    declared = set()
    for run, beta in zip(runs.find_runs(trained), BETAS):
        experiment = events(run).SummaryMetadata("_hparams_/experiment").plugin_data.content
        declared.add(experiment)
        metrics = plugin_data_pb2.HParamsPluginData.FromString(experiment).experiment.metric_infos
        assert [metric.name.tag for metric in metrics][:2] == ["test/rate", "test/distortion"]
        content = events(run).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        given = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        assert given["beta"].number_value == beta and given["split"].string_value == "cd_300"
        assert set(given) == set(tensorboard.HPARAMS_FIELDS)
        assert not [tag for tag in scalars(run) if "floor" in tag]
        ended = events(run).SummaryMetadata("_hparams_/session_end_info").plugin_data.content
        assert plugin_data_pb2.HParamsPluginData.FromString(ended).session_end_info.status == api_pb2.STATUS_SUCCESS
    assert len({content_without_time(content) for content in declared}) == 1


def content_without_time(content):
    from tensorboard.plugins.hparams import plugin_data_pb2
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    data.experiment.time_created_secs = 0
    return data.SerializeToString()


def test_the_record_that_earlier_versions_left_at_the_root_goes(tmp_path):
    """With it TensorBoard listed a run named "."."""
    old = tmp_path / "events.out.tfevents.0000000000.hparams"
    old.write_text("")
    run = runs.RunDir(tmp_path / "run")
    tensorboard.Board(run, TINY, [])
    assert not old.exists()


def test_a_run_that_goes_on_or_is_lost_has_its_entry_too(tmp_path):
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
    run = runs.RunDir(tmp_path)
    shown = tensorboard.Board(run, TINY, [])
    shown.scalars([])
    assert "_hparams_/session_start_info" in events(run).summary_metadata
    assert "_hparams_/session_end_info" not in events(run).summary_metadata
    shown.finish(runs.DIVERGED)
    ended = events(run).SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    assert plugin_data_pb2.HParamsPluginData.FromString(ended).session_end_info.status == api_pb2.STATUS_FAILURE


# In the browser


@pytest.fixture(scope="module")
def server(trained):
    """Address of a real TensorBoard that shows the runs."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", trained, "--port", "0", "--host", "127.0.0.1",
               "--load_fast", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"at (http://\S+?)/? \(", line):
                break
        else:
            pytest.fail("".join(lines))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or a full pipe would stop it
        try:
            wait_for(lambda: all(
                run.path.name in urllib.request.urlopen(f"{found[1]}/data/runs", timeout=60).read().decode()
                for run in runs.find_runs(trained)))
            yield found[1]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    with chromium("--window-size=2400,1300") as opened:
        yield opened


ALL = """const all = selector => { const found = [];
  const walk = root => { found.push(...root.querySelectorAll(selector));
    for (const node of root.querySelectorAll('*')) if (node.shadowRoot) walk(node.shadowRoot); };
  walk(document); return found; };
  const seen = selector => all(selector).filter(node => node.getBoundingClientRect().width > 0);
  """


def wait_for(holds, seconds=60):
    """Waits until something holds, and returns it."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


def look(browser, script, *arguments):
    """What a script finds with all(selector), or with seen(selector): inside every shadow root."""
    return browser.execute_script(f"{ALL}return {script}", *arguments)


def texts(browser, selector):
    """Texts of the elements that can be seen."""
    return look(browser, "seen(arguments[0]).map(node => node.textContent.trim())", selector)


def click(browser, selector, text):
    """Clicks the element with this text."""
    wait_for(lambda: look(browser, "all(arguments[0]).some(node => node.textContent.trim() === arguments[1])",
                          selector, text))
    look(browser, "all(arguments[0]).find(node => node.textContent.trim() === arguments[1]).click()", selector, text)


def picture(browser, name):
    """Keeps a picture of the page in the folder that the variable SCREENSHOTS names, if any."""
    if folder := os.environ.get("SCREENSHOTS"):
        time.sleep(1)
        browser.save_screenshot(str(pathlib.Path(folder) / f"{name}.png"))


def open_tab(browser, server, tab):
    """Loads a dashboard afresh."""
    browser.get("about:blank")
    browser.get(f"{server}/#{tab}")


@pytest.mark.slow
def test_the_browser_shows_every_run_with_its_hyperparameters_and_results(browser, server, trained):
    open_tab(browser, server, "hparams")
    click(browser, "paper-checkbox", "train elbo")  # TensorBoard itself shows five metrics; the sixth is one click away
    metrics = [tag.replace("/", " ") for tag in tensorboard.HPARAMS_METRICS]
    wait_for(lambda: {"beta", *metrics} <= set(texts(browser, ".table-header"))
             and len(texts(browser, ".table-cell")) >= 52)
    picture(browser, "hparams_table")
    cells = look(browser, """seen('.table-cell').map(node => { const box = node.getBoundingClientRect();
        return [node.classList.contains('table-header'), Math.round(box.y / 20), box.x, node.textContent.trim()]; })
        .filter(cell => cell[3])""")
    titles = [re.sub(r"\s+", " ", text) for header, _, _, text in sorted(cells, key=lambda cell: cell[2]) if header]
    assert titles == ["Trial ID", "Show Metrics", *tensorboard.SHOWN_FIELDS, *metrics]
    rows = [[text for header, height, _, text in sorted(cells, key=lambda cell: cell[2])
             if not header and height == level]
            for level in sorted({height for header, height, _, _ in cells if not header})]
    for row, run in zip(rows, runs.find_runs(trained), strict=True):
        config, results = run.read_config(), run.read_results()
        shown = dict(zip([title for title in titles if title != "Show Metrics"], row, strict=True))
        assert run.path.name.endswith(shown["Trial ID"])
        assert (float(shown["beta"]), shown["split"], shown["architecture"]) == (config.beta, "cd_300", "mlp")
        for tag in tensorboard.HPARAMS_METRICS:
            partition, name = tag.split("/")
            assert float(shown[f"{partition} {name}"]) == pytest.approx(results[partition][name], rel=1e-4)


@pytest.mark.slow
def test_the_browser_draws_parallel_coordinates_and_scatter_plots(browser, server):
    open_tab(browser, server, "hparams")
    click(browser, "paper-checkbox", "train elbo")
    metrics = [tag.replace("/", " ") for tag in tensorboard.HPARAMS_METRICS]
    click(browser, "paper-tab", "PARALLEL COORDINATES VIEW")
    wait_for(lambda: len(texts(browser, "tf-hparams-parallel-coords-plot .axis-title, .axis-title")) == 11)
    assert texts(browser, ".axis-title") == [*tensorboard.SHOWN_FIELDS, *metrics]
    lines = look(browser, "seen('g.foreground path').map(node => node.getAttribute('d'))")
    picture(browser, "hparams_parallel_coordinates")
    assert len(set(lines)) == 3 and all(line.count("L") == 10 and "NaN" not in line for line in lines)
    click(browser, "paper-tab", "SCATTER PLOT MATRIX VIEW")
    wait_for(lambda: look(browser, "seen('circle.data-marker').length") == 3 * 11 * 6)
    labels = look(browser, "seen('.x-axis-label text').map(node => node.lastChild.textContent.trim())")
    assert labels == [*tensorboard.SHOWN_FIELDS, *metrics]
    picture(browser, "hparams_scatter")


@pytest.mark.slow
def test_the_browser_draws_training_and_test_curves_and_pictures(browser, server, trained):
    open_tab(browser, server, "scalars")
    tags = {f"{partition}/{name}" for partition in ("train", "test") for name in tensorboard.SCALARS}
    wait_for(lambda: set(look(browser, "all('tf-scalar-card').map(card => card.tag)")) == tags)
    # A curve is a path of one segment per evaluation.
    count = ("seen('vz-line-chart2').map(chart => [...chart.shadowRoot.querySelectorAll('path')].filter("
             "path => (path.getAttribute('d') || '').split('L').length === 7).length)")
    wait_for(lambda: (curves := look(browser, count)) and len(curves) == 10 and min(curves) >= 3)
    picture(browser, "scalars")
    open_tab(browser, server, "images")
    wait_for(lambda: look(browser, "seen('img').filter(image => image.naturalWidth > 0).length") == 9, 10)
    assert set(look(browser, "all('tf-image-loader').map(card => card.tag)")) == set(PICTURES)
    listed = json.loads(urllib.request.urlopen(f"{server}/data/runs").read())
    assert sorted(listed) == [run.path.name for run in runs.find_runs(trained)]
    picture(browser, "images")
