"""The benchmark program: one tiny pass, its verdicts, its counting, and references that compute what ours computes."""

import json
import re
import runpy
import sys

import numpy as np
import pytest

from tests import commands
from tests.benchmarks import contest, kernels, material, training
from tests.benchmarks.contest import Row
from vae_rd import model


def run_program(*arguments: str) -> None:
    """What `python -m tests.benchmarks` does."""
    sys.argv = ["tests.benchmarks", *arguments]
    runpy.run_module("tests.benchmarks", run_name="__main__", alter_sys=True)


def failing_group(*arguments: str) -> None:
    """The program, with a reader that breaks."""
    from tests.benchmarks import input

    def broken(*arguments):
        raise OSError("no such disk")
    input.loading = broken
    run_program(*arguments)


@pytest.mark.slow
def test_one_tiny_pass_measures_every_group(tmp_path):
    flags = ["--tiny", f"--json={tmp_path / 'speed.json'}"]
    command = commands.Command(run_program, *flags, output=tmp_path / "output.txt")
    command.wait()
    assert command.status == 0, command.text
    content = json.loads((tmp_path / "speed.json").read_text())
    assert content["machine"]["cores"] >= 1 and set(content["machine"]["versions"]) >= {"tensorflow", "jax"}
    rows = content["rows"]
    assert len(rows) >= 30 and all(len(row["ours"]) == 1 for row in rows)
    assert all(row["ours"][0] > 0 for row in rows if "beyond" not in row["name"])  # a difference of two measurements
    table = command.text[command.text.index("unit"):]
    assert all(re.search(rf"^{re.escape(row['name'])} .* {re.escape(row['unit'])} ", table, re.M) for row in rows)
    named = {row["name"].split(":")[0] for row in rows}
    assert {"mlp1", "mlp3", "cnn1", "cnn3", "memory bandwidth", "vae_rd.main --help"} <= named
    limits = {(row["name"], row["reference"]): row["limit"] for row in rows}
    assert limits["mlp1: training step", "bare compiled step"] == 1.03
    assert limits["mlp1: training step", "roofline"] == pytest.approx(1 / 0.75)
    assert limits["mlp1: column of 2, training step", "2 single runs"] == 1.05
    assert limits["cnn1: column of 2, evaluation", "2 single runs"] == 1.15


@pytest.mark.slow
def test_tables_without_limits_in_a_tiny_pass(tmp_path):
    command = commands.Command(run_program, "--tiny", "--only=growth,precision", f"--json={tmp_path / 'tables.json'}",
                               output=tmp_path / "output.txt").wait()
    assert command.status == 0, command.text
    rows = {row["name"]: row for row in json.loads((tmp_path / "tables.json").read_text())["rows"]}
    assert rows["mlp: num_layers 2"]["theirs"][0] > 0 and "GFLOP" in rows["mlp: training images 80"]["note"]
    unchanged, changed = (rows[f"smoke scale, 40 steps: distortion, {name}"] for name in ("tensorfloat32", "bfloat16"))
    assert unchanged["ours"] == [0, 0, 0], "on CPU TensorFloat-32 is float32"
    assert 0 < max(map(abs, changed["ours"])) < 5


@pytest.mark.slow
def test_a_group_that_breaks_is_said_and_leaves_the_others_alone(tmp_path):
    command = commands.Command(failing_group, "--tiny", "--only=loading,aggregate", output=tmp_path / "output.txt")
    command.wait()
    assert command.status == 1
    assert "FAILED: OSError: no such disk" in command.text and "exact aggregate density" in command.text


def test_unknown_groups_are_refused_with_the_known_ones(tmp_path):
    command = commands.Command(run_program, "--only=mlp1,speed", output=tmp_path / "output.txt").wait()
    assert command.status == 2
    assert "speed not known; choose among machine, mlp1," in command.text


def test_what_is_too_slow_is_flagged():
    figures = contest.measure({"ours": lambda: 2.0, "theirs": lambda: 1.0}, 3)
    row = contest.compare("step", "ms", figures, "ours", "theirs", limit=1.9)
    assert row.ratio == 2.0 and row.verdict == "MISSED" and " MISSED" in contest.table([row])
    assert contest.compare("step", "ms", figures, "ours", "theirs", limit=2.0).verdict == "held"


@pytest.mark.parametrize("limit, rule, verdict", [
    (0.5, {}, "held"), (0.4, {}, "MISSED"), (0.5, {"at_least": True}, "held"), (0.6, {"at_least": True}, "MISSED"),
    (1.0, {"absolute": True}, "held"), (0.9, {"absolute": True}, "MISSED"), (None, {}, "")])
def test_limits_hold_at_most_or_at_least_of_the_ratio_or_the_figure(limit, rule, verdict):
    assert Row("a", "s", (1.0,), "b", (2.0,), limit=limit, **rule).verdict == verdict


def test_figures_are_medians_and_the_ratio_compares_neighbours_in_time():
    row = Row("a", "ms", (1.0, 20.0, 3.0), "b", (1.0, 10.0, 1.0))  # a machine that is ten times as slow for a while
    assert row.ratio == 2.0 and row.ratios == (1.0, 2.0, 3.0)
    assert re.search(r"a +3 ms +1 b +2\.000 \(1\.00-3\.00\)", contest.table([row]))


def test_contestants_take_turns_after_a_warm_up():
    order = []
    contest.measure({name: lambda name=name: order.append(name) or 1.0 for name in "ab"}, 2)
    assert "".join(order) == "ab" + "abab"


def test_a_reference_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "tests.benchmarks.plain_jax", raising=False)
    assert training._reference("plain_jax", None, None, "mlp1") is None
    figures = contest.measure({"ours": lambda: 1.0, "JAX": None}, 1)
    row = contest.compare("step", "ms", figures, "ours", "JAX", limit=1.0)
    assert row.verdict == "" and "not installed" in contest.table([row])


NETWORKS = ["mlp1", "mlp3", "cnn1", "cnn3"]


@pytest.fixture(params=NETWORKS)
def plain_case(request):
    """A network with weights far from their initial values, images and noise, and what our model says of them."""
    random = np.random.default_rng(0)
    config = material.Material(material.TINY, None).config(request.param, latent_dim=3, learning_rate=0.01)
    vae = model.build(config, (8, 8, 3), 40)
    weights = [0.3 * random.standard_normal(weight.shape).astype(np.float32) for weight in vae.trainable_variables]
    for variable, weight in zip(vae.trainable_variables, weights):
        variable.assign(weight)
    images = random.integers(0, 256, (16, 8, 8, 3), np.uint8)
    noise = random.standard_normal((16, 3)).astype(np.float32)
    terms = vae.terms(images.astype(np.float32) / 255, noise, config.beta)
    return config, weights, images, noise, np.stack([terms.rate, terms.distortion])


def test_jax_computes_the_same_training(plain_case):
    pytest.importorskip("jax", reason="the extra `bench` is not installed")
    from tests.benchmarks import plain_jax
    config, weights, images, noise, expected = plain_case
    terms = plain_jax.terms(weights, images.astype(np.float32) / 255, noise, config.architecture, config.num_layers)
    np.testing.assert_allclose(np.stack(terms), expected, rtol=1e-4)
    assert learns(plain_jax.Training(weights, one_image(images), config))


def one_image(images: np.ndarray) -> np.ndarray:
    """As many images, all the same black and white one: there is nothing left to pay for once it is learned."""
    return np.repeat(images[:1] // 128 * 255, len(images), axis=0)


def learns(plain) -> bool:
    """Whether 100 steps halve rate + distortion."""
    trace = plain.train(np.tile(np.arange(16, dtype=np.int32), (100, 1)), 0)
    assert trace.shape == (100, 2) and np.isfinite(trace).all()
    return trace[-1].sum() < 0.5 * trace[0].sum()


def test_operations_of_a_step():
    config = material.Material(material.TINY, None).config("mlp1")
    vae = model.build(config, (8, 8, 3), 40)
    forward = 2 * 16 * np.array([192 * 8, 8 * 10, 8 * 10, 10 * 8, 8 * 192])
    assert training.step_flops(vae, 16) == 3 * forward.sum() - forward[0]
    cnn = model.build(material.Material(material.TINY, None).config("cnn1"), (8, 8, 3), 40)
    convolution, transposed = 2 * 16 * (4 * 4 * 3 * 2) * (4 * 4), 2 * 16 * (4 * 4 * 3 * 2) * (4 * 4)
    dense = 2 * 16 * (2 * 32 * 10 + 10 * 32)
    assert training.step_flops(cnn, 16) == 2 * convolution + 3 * transposed + 3 * dense


def test_share_of_evaluations_and_checkpoints():
    figures = {"step": [1000 / 257], "evaluation": [2.0], "checkpoint": [0.5]}  # 1,000 s of training
    assert training.upkeep_share(figures, 163_840) == pytest.approx([(22 * 2.0 + (22 + 1000 / 300) * 0.5) / 1000])
    assert training.upkeep_share(figures, 81_920)[0] > training.upkeep_share(figures, 163_840)[0]


def test_kernels_are_counted_in_the_entry_computation_only():
    text = """HloModule m

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %add.1 = f32[4]{0} add(%p, %p)
}

ENTRY %main (a: f32[4,4], b: f32[4]) -> (f32[4], f32[4,4]) {
  %a = f32[4,4]{1,0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %dot.1 = f32[4,4]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %sorted = (f32[4]{0}, s32[4]{0}) sort(%b, %b), dimensions={0}
  %x = f32[4]{0} get-tuple-element(%sorted), index=0
  %fusion = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %out = (f32[4]{0}, f32[4,4]{1,0}) tuple(%fusion, %dot.1)
}
"""
    found = kernels.read(text)
    assert kernels.count(found) == kernels.Kernels(products=1, convolutions=0, fusions=1, others=1)
    product, sort, fusion = found
    assert product == kernels.Kernel("dot", bytes=3 * 16 * 4, operations=2 * 4 * 4 * 4)
    assert sort.bytes == 16 + 16 + 2 * 16 and fusion.bytes == 2 * 16


def test_a_kernel_is_predicted_to_take_its_launch_its_bytes_or_its_operations():
    idle, moving = kernels.Kernel("fusion", 8, 0), kernels.Kernel("copy", int(4.8e12), 0)
    working = kernels.Kernel("dot", 8, int(67e12))
    assert kernels.predicted_seconds([idle] * 100) == pytest.approx(300e-6)
    assert kernels.predicted_seconds([idle, moving, working]) == pytest.approx(2, rel=1e-4)


def kernels_of(members: int, stacked: bool) -> kernels.Kernels:
    """Kernels of a compiled step of a tiny column."""
    config = material.Material(material.TINY, None).config("mlp1")
    configs = [config.replace(beta=beta) for beta in material.BETAS[:members]]
    found = kernels.of_step(configs, (8, 8, 3), stacked)
    operations = sum(kernel.operations for kernel in found)
    together = members if stacked else 1
    assert operations == together * training.step_flops(model.build(config, (8, 8, 3), 1), config.batch_size)
    return kernels.count(found)


@pytest.mark.slow
def test_members_that_take_turns_share_the_program_of_one():
    one, two = (kernels_of(members, stacked=False) for members in (1, 2))
    assert one == two and one.products == 14  # 5 layers forward, 9 products backward


@pytest.mark.slow
def test_a_stacked_column_launches_no_more_kernels_for_more_members():
    two, four = (kernels_of(members, stacked=True) for members in (2, 4))
    assert two.products == four.products == 14
    assert four.total <= two.total + 2


def test_a_program_that_is_compiled_for_every_batch_is_found():
    assert kernels._takes_images("HloModule m, entry_computation_layout={(u8[1,2]{1,0}, f32[2]{0})->f32[2]{0}}")
    assert not kernels._takes_images("HloModule m, entry_computation_layout={(f32[2]{0})->u8[2]{0}}")
