"""The page to explore: which pages there are, their texts, and what a real browser shows of one without a network."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from tests.browser import chromium
from tests.fabricate import LEVELS, fabricate_run
from vae_rd.analysis import tables, verdicts
from vae_rd.config import Config
from vae_rd.figures import page, page_plots, page_texts
from vae_rd.measures import gallery
from vae_rd.storage import published
from vae_rd.sweeps import experiments

pytestmark = pytest.mark.slow  # a browser
MEASURES = {"last": {
    "information": {"settings": {}, "train": {"mutual_information": 9.25}},
    "log_marginal": {"settings": {}, "test": {"log_px": -81.5, "log_px_unreliable": 0.34},
                     "train": {"log_px": -70.25, "log_px_unreliable": 0.01}},
    "annealed": {"settings": {"query_images": 16, "version": 2}, "test": {"log_px_ais": -80.25, "log_px_ais_se": 0.5},
                 "run": {"bidirectional_gap": 0.125}}}}
HOSTILE = '<img src=x onerror="document.title=`owned`">'


def _arrays(seed, channels=3):
    """A gallery of noise: inputs that all runs share, reconstructions of the run's own."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    shape, distance = (12, 16, 16, channels), shared.gamma(9, 0.25, 500)
    return {"inputs": shared.integers(0, 256, shape, np.uint8), "index": np.arange(12),
            "reconstructions": own.integers(0, 256, shape, np.uint8),
            "nearest_distance": np.sort(distance)[np.linspace(0, 499, 12).astype(int)],
            **gallery.by_distance(distance, 60 + 3 * distance + own.gamma(3, 2, 500))._asdict()}


def _decoded(address):
    """The pixels [height, width, 3] of a picture within a page."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


def _strips(images):
    """Both strips of a gallery's images, without the white lines between them."""
    return [np.concatenate(list(half), 1) for half in (images[:6], images[6:])]


def _without_lines(strip, size=16):
    return strip[:, np.arange(strip.shape[1]) % (size + 1) < size]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Figure 3's runs at scale smoke, all but the last with a gallery, and one with HTML for a name."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    made = [fabricate_run(folder, config, measures=MEASURES)
            for config in experiments.experiment("figure3", "smoke").configs]
    for seed, run in enumerate(made[:-1]):
        run.write_arrays(run.arrays("gallery"), _arrays(seed))
    made[-1].model.touch()  # which could make the gallery that it lacks
    other = fabricate_run(folder, Config(train_steps=77, beta=0.5))
    (other.path / "manifest.json").unlink()
    results = json.loads(other.results.read_text())
    results.pop("run", None)
    other.results.write_text(json.dumps(results))
    other.path.rename(folder / HOSTILE)
    return made


@pytest.fixture(scope="module")
def table(runs):
    return tables.collect(runs[0].path.parent)


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    """The folder of pages that the command writes."""
    folder = tmp_path_factory.mktemp("pages")
    command = [sys.executable, "-m", "vae_rd.export", "--page", f"--runs_dir={runs[0].path.parent}",
               f"--out_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"see {folder / 'figure3.html'}" in done.stdout
    return folder


# Without a browser


def test_a_page_for_every_experiment_with_finished_runs_and_one_for_the_rest(table, written):
    shared = {"figure3", "log_likelihood", "memorisation", "figure8", "early_stopping"}
    found = {group.name: group for group in page.groups(table)}
    assert shared < set(found) and "figure7" not in found
    assert found["figure3"].runs == set(experiments.experiment("figure3", "smoke").run_names)
    assert found["other_runs"].runs == {HOSTILE} and found["figure3"].note == "scale smoke, 12 runs"
    assert {path.stem for path in written.iterdir()} == set(found)


def test_named_experiments_only_and_what_has_not_finished_is_counted(table):
    some = table[table["run"] != experiments.experiment("figure3", "smoke").run_names[0]]
    (group,) = page.groups(some, ["figure3"])
    assert group.note == "scale smoke, 11 runs, 1 not finished"
    with pytest.raises(tables.TableError, match="holds no finished run of figure7, so there is nothing to explore"):
        list(page.pages(table, "runs", ["figure7"]))


def test_claims_are_about_all_runs_not_only_those_on_the_page(table, monkeypatch):
    judged, some = [], table[table["run"].isin(experiments.experiment("figure8", "smoke").run_names)]
    monkeypatch.setattr(page.verdicts, "evaluate", lambda rows, *others: judged.append(len(rows)))
    monkeypatch.setattr(page, "page", lambda rows, *others: len(rows))
    assert list(page.pages(some, "runs", ["figure8"], all_runs=table)) == [("figure8", len(some))]
    assert list(page.pages(some, "runs", ["figure8"])) == [("figure8", len(some))]
    assert judged == [len(table), len(some)] and len(some) < len(table)


def test_likelihoods_have_a_page_each(tmp_path):
    wanted = experiments.experiment("likelihoods", "smoke")
    for config in wanted.configs:
        fabricate_run(tmp_path, config)
    table = tables.collect(tmp_path)
    found = {group.name: group for group in page.groups(table, ["likelihoods"], "smoke")}
    assert set(found) == {f"likelihoods_{likelihood}" for likelihood in LEVELS}
    one = found["likelihoods_normal"]
    assert one.title.endswith(", normal likelihood") and one.note == "scale smoke, 20 runs; 4 of them here"
    assert one.runs == {config.run_name for config in wanted.configs if config.likelihood == "normal"}
    assert "perfect reconstruction" in dict(page.pages(table, tmp_path, ["likelihoods"]))["likelihoods_normal"]


@pytest.mark.parametrize("values, words", [
    ({}, "not measured"), ({"log_px": np.nan}, "not measured"),
    ({"log_px": -81.5, "log_px_unreliable": 0.34}, "-81.50 (flagged: 34% of images unreliable)"),
    ({"log_px": -81.5, "log_px_unreliable": 0.1}, "-81.50 (trusted: 10% of images unreliable)"),
    ({"log_px": -81.5}, "-81.50 (reliability not measured)")])
def test_log_px_says_whether_it_is_flagged(values, words):
    assert page_texts.log_px(values) == words


@pytest.mark.parametrize("values, words", [
    ({}, "not measured"), ({"log_px_ais": -80.25}, "-80.25 (a lower bound)"),
    ({"log_px_ais": -80.25, "log_px_ais_se": 0.5, "annealed.query_images": 16, "bidirectional_gap": 0.125},
     "-80.25 \u00b1 0.50 (16 images; a lower bound, 0.12 too low at most on simulated images)")])
def test_annealed_log_px_says_its_error_and_its_bias(values, words):
    assert page_texts.log_px_ais(values) == words


@pytest.mark.parametrize("likelihood, floors, drawn", [
    ("bernoulli", (49.0, 49.8), ["entropy floor 49.0 to 49.8"]), ("bernoulli", (49.0, 53.0), []),
    ("bernoulli", (0, 0), []),
    ("normal", (-4250.6, -4250.6), ["perfect reconstruction \N{MINUS SIGN}4250.6"]),
    ("continuous_bernoulli", (np.nan, np.nan), []), ("discretized_logistic", (0, 0), [])])
@pytest.mark.parametrize("rates", [(20.0, 30.0), (5.0, 200.0)])
def test_floor_and_diagonals_are_those_of_the_printed_figure(likelihood, floors, drawn, rates):
    level = LEVELS[likelihood]
    points = pd.DataFrame({"likelihood": likelihood, "rate_mean": rates, "entropy_floor_mean": floors,
                           "distortion_mean": [level + 41, level + 21]})
    runs = pd.DataFrame({"rate": [rates[0] - 1, rates[1], -0.01], "distortion": [level + 41, level + 51, level + 41]})
    plot = page_plots.plane(points, runs)
    assert plot.x_range.start < rates[0] - 1 and plot.y_range.end > level + 51
    names = {renderer.name: renderer for renderer in plot.renderers}
    assert [text for name in ("floor",) if name in names for text in names[name].data_source.data["text"]] == drawn
    low = plot.y_range.start
    assert low < level if drawn else low > level + 11
    lines, labels = (names[name].data_source.data for name in ("diagonals", "elbo"))
    assert len(labels["text"]) > 2
    for x, y, text in zip(labels["x"], labels["y"], labels["text"]):
        assert -(x + y) == pytest.approx(float(text.removeprefix("ELBO ").replace("\N{MINUS SIGN}", "-")))
    for x, y in zip(lines["xs"], lines["ys"]):
        assert np.ptp(np.add(x, y)) < 1e-9
        assert min(x) >= plot.x_range.start and max(x) <= plot.x_range.end
        assert min(y) > low - 1e-9 and max(y) < plot.y_range.end + 1e-9


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_and_histogram_are_those_of_the_gallery(tmp_path, channels):
    run, arrays = fabricate_run(tmp_path, Config()), _arrays(5, channels)
    run.write_arrays(run.arrays("gallery"), arrays)
    shown = page_texts.shown(run.path, tables.collect(tmp_path).query("checkpoint == 'last'"))
    found = [_without_lines(_decoded(address)) for address in re.findall(r'src="(data:[^"]+)"', shown.text)]
    inputs, made = (_strips(np.broadcast_to(arrays[name], (12, 16, 16, 3))) for name in ("inputs", "reconstructions"))
    for one, other in zip(found, (inputs[0], made[0], inputs[1], made[1]), strict=True):
        np.testing.assert_array_equal(one, other)
    farthest, low, high, counts, mean = shown.histogram
    assert farthest == arrays["nearest_distance"][-1] and sum(counts) == 500 and low < high
    np.testing.assert_allclose([np.nan if value is None else value for value in mean], arrays["mean_distortion"],
                               atol=1e-4)


def test_few_images_leave_room(tmp_path):
    run, arrays = fabricate_run(tmp_path, Config()), _arrays(5)
    run.write_arrays(run.arrays("gallery"), {**arrays, **{name: arrays[name][:2] for name in (
        "inputs", "reconstructions", "index", "nearest_distance")}})
    shown = page_texts.shown(run.path, tables.collect(tmp_path).query("checkpoint == 'last'"))
    strips = [_decoded(address) for address in re.findall(r'src="(data:[^"]+)"', shown.text)]
    assert [strip.shape for strip in strips] == [(16, 6 * 17, 3)] * 2 and (strips[0][:, 34:] == 255).all()


def test_a_run_without_a_gallery_names_the_command_and_a_damaged_one_the_file(tmp_path):
    run = fabricate_run(tmp_path, Config())
    rows = tables.collect(tmp_path).query("checkpoint == 'last'")
    shown = page_texts.shown(run.path, rows)
    assert "histogram: not measured" in shown.text and "<code>" not in shown.text  # nothing can make it without a model
    run.model.touch()
    shown = page_texts.shown(run.path, rows)
    assert f"python -m vae_rd.evaluate --run={run.path} --measures=gallery" in shown.text and shown.histogram is None
    spaced = run.path.rename(run.path.with_name("my run; rm x"))
    shown = page_texts.shown(spaced, rows)
    assert f"--run=&#x27;{spaced}&#x27; --measures=gallery" in shown.text
    spaced.rename(run.path)
    run.arrays("gallery").write_bytes(b"no arrays")
    assert "gallery.npz" in page_texts.shown(run.path, rows).text


def test_a_run_named_like_one_of_bokeh_s_ids_keeps_its_name():
    name, other = "3f2b8c1a-1111-4222-8333-abcdefabcdef", "00112233-1111-4222-8333-abcdefabcdef"
    assert page._numbered(f"{other} {name} {other}", name).split()[1] == name
    assert other not in page._numbered(f"{other} {name}", name)


def test_the_page_of_early_stopped_weights_has_their_numbers(tmp_path):
    """Its test points are of the half that did not select; its pictures those of that checkpoint."""
    run = fabricate_run(tmp_path, Config(train_steps=77), measures={"best": MEASURES["last"]})
    results = run.read_results()
    results["best"]["test_compare"]["distortion"] = 77.75
    (run.path / "manifest.json").unlink()
    run.results.write_text(json.dumps({name: value for name, value in results.items() if name != "run"}))
    run.write_arrays(run.arrays("gallery", "best"), _arrays(3))
    table = tables.collect(tmp_path)
    (name, text), = page.pages(table, tmp_path, checkpoint="best")
    assert name == "other_runs" and "(early stopping)" in text and "77.75" in text
    shown, last = (page_texts.shown(run.path, table[table["checkpoint"] == name]) for name in ("best", "last"))
    for words in ("test (other half)", "77.75", "-80.25", "data:image/png"):
        assert words in shown.text and words not in last.text
    assert shown.histogram is not None and last.histogram is None


def test_verdicts_stand_beside_their_claims(table):
    judged = verdicts.evaluate(table, "smoke")
    text = page_texts.claims(judged)
    for claim, verdict in verdicts.overall(judged).items():
        assert re.search(rf"<b>{claim}</b> <span class=verdict [^>]*>{verdict}</span>", text)
    assert text.count("<tr>") == len(judged)


def test_galleries_are_published_where_a_page_shows_them(runs, tmp_path):
    measured = sorted(run.path.name for run in runs[:-1])
    for expected in ([], measured, []):
        (tmp_path / "figure3.html").touch() if expected else (tmp_path / "figure3.html").unlink(missing_ok=True)
        published.publish(runs[0].path.parent, tmp_path)
        assert sorted(path.parent.name for path in tmp_path.glob("runs/*/gallery.npz")) == expected


# In the browser


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that keeps a record of what it asks for."""
    logs = {"goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
    with chromium("--window-size=1500,1400", "--force-device-scale-factor=1", **logs) as opened:
        yield opened


ALL = """const all = selector => { const found = [];
  const walk = root => { found.push(...root.querySelectorAll(selector));
    for (const node of root.querySelectorAll('*')) if (node.shadowRoot) walk(node.shadowRoot); };
  walk(document); return found; };
  """


def look(browser, script, *arguments):
    """What a script finds with all(selector): inside every shadow root."""
    return browser.execute_script(f"{ALL}return {script}", *arguments)


def wait_for(holds, seconds=30):
    """Waits until something holds, and returns it."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def load(browser, path):
    """Opens a page, waits for it to be drawn, and returns the addresses that it asked for."""
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get(path.as_uri())
    wait_for(lambda: look(browser, "window.Bokeh !== undefined && Bokeh.documents.length === 1 && "
                                   "Bokeh.documents[0].is_idle && all('h2').length > 1"))
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in sent if event["method"] == "Network.requestWillBeSent"]


def place(browser, partition, run):
    """The point of a run in the window, pixels (x, y)."""
    return look(browser, """(() => {
      const plot = Bokeh.documents[0].get_model_by_name('curves'), view = Bokeh.index.find_one(plot)
      const {data} = plot.renderers.find(renderer => renderer.name === arguments[0]).data_source
      const at = data.run.indexOf(arguments[1]), box = view.canvas.el.getBoundingClientRect()
      const {x_scale, y_scale} = view.frame
      return [box.x + x_scale.compute(data.rate[at]), box.y + y_scale.compute(data.distortion[at])]
      })()""", partition, run)


def point(browser, at, click=False, drag_to=None):
    """Moves the mouse to a place in the window, and clicks there or drags what is there to another place."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    actions = ActionBuilder(browser)
    mouse = actions.pointer_action
    mouse.move_to_location(*(int(round(value)) for value in at))
    if click:
        mouse.click()
    if drag_to:
        mouse.pointer_down().move_to_location(*(int(round(value)) for value in drag_to)).pointer_up()
    actions.perform()


def pictures(browser):
    """Inputs and reconstructions that can be seen: two strips each."""
    found = [look(browser, "all(arguments[0]).filter(image => image.complete && image.naturalWidth > 0)"
                           ".map(image => image.src)", f"img.{name}") for name in ("inputs", "reconstructions")]
    return [[_without_lines(_decoded(address)) for address in addresses] for addresses in found]


def heading(browser):
    """The name of the run that is shown."""
    return look(browser, "all('h2')[0].textContent")


def pixel(browser, at):
    """The colour (r, g, b) in a place of the window."""
    shown = PIL.Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return shown.getpixel(tuple(int(round(value)) for value in at))


def same_colour(one, other):
    """Up to rounding, and to a line that shines through a point."""
    return np.abs(np.subtract(one, other)).max() <= 32


def keep(browser, name):
    """Keeps a picture of the page in the folder that the variable SCREENSHOTS names, if any."""
    if folder := os.environ.get("SCREENSHOTS"):
        time.sleep(0.5)
        browser.save_screenshot(os.path.join(folder, f"{name}.png"))


def test_the_page_needs_no_network_and_shows_a_run_at_once(browser, written, runs):
    asked = load(browser, written / "figure3.html")
    assert asked[0].startswith("file://") and all(address.startswith(("file://", "data:")) for address in asked)
    assert len([address for address in asked if address.startswith("file://")]) == 1
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    keep(browser, "page")
    assert "beta1-" in heading(browser)
    assert (written / "figure3.html").stat().st_size < 4e6


def test_a_click_on_a_point_changes_pictures_and_histogram(browser, written, runs):
    load(browser, written / "figure3.html")
    cells = "Bokeh.documents[0].get_model_by_name('histogram').renderers[0].data_source.data.count"
    for seed, partition in ((4, "test"), (1, "train")):
        arrays, before = _arrays(seed), pictures(browser)[1]
        point(browser, place(browser, partition, runs[seed].path.name), click=True)
        wait_for(lambda: heading(browser) == runs[seed].path.name)
        wait_for(lambda: len(pictures(browser)[1]) == 2)
        shown = pictures(browser)
        for found, name in zip(shown, ("inputs", "reconstructions")):
            np.testing.assert_array_equal(found, _strips(arrays[name]))
        assert not np.array_equal(shown[1], before)
        assert sum(look(browser, cells)) == 500
        assert sorted(look(browser, cells)) == sorted(arrays["counts"][arrays["counts"] > 0])


def test_a_run_without_a_gallery_is_in_the_curves_and_says_what_makes_it(browser, written, runs):
    load(browser, written / "figure3.html")
    point(browser, place(browser, "test", runs[-1].path.name), click=True)
    wait_for(lambda: heading(browser) == runs[-1].path.name)
    assert look(browser, "all('code')[0].textContent") == (
        f"python -m vae_rd.evaluate --run={runs[-1].path} --measures=gallery")
    assert pictures(browser) == [[], []]


def test_pointing_shows_the_numbers_and_the_flag(browser, written, runs):
    load(browser, written / "figure3.html")
    point(browser, place(browser, "test", runs[4].path.name))
    found = wait_for(lambda: look(browser, "all('.bk-tooltip-content').map(node => node.textContent).join(' ')"))
    results = runs[4].read_results()["test"]
    for words in (runs[4].path.name, f"{results['rate']:.2f}", f"{results['distortion']:.2f}", "9.25",
                  "-81.50 (flagged: 34% of images unreliable)", "-80.25 \u00b1 0.50 (16 images"):
        assert words in found
    keep(browser, "hover")


def test_controls_hide_curves_and_points(browser, written, runs):
    """By the colour of the pixel where a point was."""
    load(browser, written / "figure3.html")
    layers = [run.read_config().num_layers for run in runs]
    hidden, stays = (runs[layers.index(number)].path.name for number in (1, 3))
    where = {run: place(browser, "test", run) for run in (hidden, stays)}
    colours = {run: pixel(browser, at) for run, at in where.items()}
    assert all(colour != (255, 255, 255) for colour in colours.values())

    def press(label):
        look(browser, "all('.bk-btn').find(button => button.textContent.trim() === arguments[0]).click()", label)

    def shows(run):
        return same_colour(pixel(browser, where[run]), colours[run])
    for label in ("1 layer", "test"):
        press(label)
        wait_for(lambda: pixel(browser, where[hidden]) == (255, 255, 255) and shows(stays) == (label == "1 layer"))
        press(label)
        wait_for(lambda: shows(hidden) and shows(stays))


def test_the_slider_keeps_a_range_of_beta(browser, written, runs):
    load(browser, written / "figure3.html")
    betas = [run.read_config().beta for run in runs]
    low, high = (place(browser, "test", runs[betas.index(beta)].path.name) for beta in (0.01, 1.0))
    before, shown = pixel(browser, high), pixel(browser, low)
    handle = look(browser, "(box => [box.x + box.width / 2, box.y + box.height / 2])"
                           "(all('.noUi-handle')[0].getBoundingClientRect())")
    point(browser, handle, drag_to=(handle[0] + 700, handle[1]))
    wait_for(lambda: look(browser, "Bokeh.documents[0].get_model_by_name('beta').value") == [2, 2])
    wait_for(lambda: not same_colour(pixel(browser, low), shown) and same_colour(pixel(browser, high), before))
    lines = look(browser, "Bokeh.documents[0].get_model_by_name('curves').renderers"
                          ".filter(one => one.name === 'curve').map(one => one.data_source.data.x.length)")
    assert lines == [1] * 8


def test_the_name_of_a_run_is_text(browser, written):
    load(browser, written / "other_runs.html")
    assert heading(browser) == HOSTILE
    point(browser, place(browser, "test", HOSTILE))
    wait_for(lambda: HOSTILE in look(browser, "all('.bk-tooltip-content').map(node => node.textContent).join(' ')"))
    assert look(browser, "all('img[onerror]').length") == 0 and browser.title != "owned"
