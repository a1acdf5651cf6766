"""Config: canonical names, refusals by their words, and run names that later fields leave alone."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from vae_rd import config as config_module
from vae_rd.config import SPLIT_SIZES, Config, ConfigError, canonical_split, split_size


@pytest.mark.parametrize("name, canonical, size", [
    ("default", "default", None), ("checkerboard", "checkerboard", None), ("official", "official", None),
    ("cv_8192", "cv_8k", 8192), ("cd_16384", "cd_16k", 16384), ("cv_82k", "cv_82k", 81920),
    ("cv_81920", "cv_82k", 81920), ("cd_81920", "cd_81920", 81920), ("cv_1000", "cv_1000", 1000), ("cd_1", "cd_1", 1),
])
def test_a_split_has_one_name_and_one_size(name, canonical, size):
    assert canonical_split(name) == canonical
    assert Config(split=name).split == canonical
    assert split_size(name) == size


def test_the_papers_sizes_are_a_table():
    assert SPLIT_SIZES == {"8k": 8192, "16k": 16384, "25k": 24576, "33k": 32768, "41k": 40960, "49k": 49152,
                           "57k": 57344, "65k": 65536, "82k": 81920}


@pytest.mark.parametrize("name", ["", "random", "cv", "cv_", "cv_0", "cv_-5", "cv_08192", "cv_9k", "cd_82k", "CV_16k",
                                  "cv_1e3", "cv_16k ", "default_5"])
def test_an_unknown_split_is_refused_with_the_known_kinds(name):
    with pytest.raises(ConfigError) as caught:
        Config(split=name)
    for word in (repr(name), "default", "checkerboard", "official", "cd_<size>", "cv_<size>", "8k, 16k, 25k"):
        assert word in str(caught.value)


@pytest.mark.parametrize("changes, words", [
    ({"beta": -0.1}, "beta must be a finite number, 0 or more"),
    ({"beta": float("nan")}, "beta must be a finite number, 0 or more"),
    ({"beta": float("inf")}, "beta must be a finite number"),
    ({"beta": "1"}, "beta must be a number"),
    ({"beta": 1e39}, "beta must be a finite number, 0 or more, that float32 holds"),
    ({"learning_rate": 1e39}, "learning_rate must be a finite number above 0 that float32 holds"),
    ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
    ({"train_steps": 0}, "train_steps must be a whole number, 1 or more"),
    ({"train_steps": 10.5}, "train_steps must be a whole number"),
    ({"batch_size": -1}, "batch_size must be a whole number, 1 or more"),
    ({"num_layers": True}, "num_layers must be a whole number"),
    ({"seed": -1}, "seed must be a whole number from 0"),
    ({"data_seed": 2**31}, "must be a whole number from 0 to 2**31 - 1"),
    ({"eval_every": 0}, "eval_every must be a whole number, 1 or more"),
    ({"eval_images": 0}, "eval_images must be a whole number, 1 or more"),
    ({"architecture": "resnet"}, "architecture must be one of mlp, cnn"),
    ({"prior": "laplace"}, "flow, exemplar, or one that --import adds (got 'laplace')"),
    ({"prior": "flow", "latent_dim": 1}, "latent_dim must be 2 or more with prior=flow"),
    ({"likelihood": "poisson"}, "likelihood must be one of bernoulli, continuous_bernoulli, normal"),
    ({"rate_terms": "tc"}, "rate_terms must be one of both, mutual_information, marginal_kl"),
    ({"binarization": "yes"}, "binarization must be one of none, static, dynamic"),
    ({"precision": "float16"}, "precision must be one of float32"),
    ({"dataset": "../data"}, "dataset must be a name of small letters"),
    ({"architecture": "cnn", "hidden_units": 64}, "hidden_units must be left at 512 with architecture=cnn"),
    ({"channels": 32}, "channels must be left at 64 with architecture=mlp"),
    ({"architecture": "cnn", "num_layers": 3, "image_size": 28},
     "image_size must be a multiple of 2**num_layers = 8"),
    ({"rate_terms": "marginal_kl", "batch_size": 1}, "batch_size must be 2 or more with rate_terms=marginal_kl"),
    ({"conditioning": "noise"}, "conditioning must be one of none, beta"),
    ({"beta_range": "0.1,1"}, "beta_range must be left at 0.001,5 with conditioning=none"),
    *(({"conditioning": "beta", "beta_range": text}, "beta_range must be two finite numbers above 0, the lower one "
       "first, as in 0.001,5") for text in ("", "1", "0,1", "1,0.1", "0.1,inf", "0.1,nan", "0.1,1,2", "a,b")),
    ({"conditioning": "beta", "beta": 5.1}, "beta must be within beta_range=0.001,5 with conditioning=beta"),
    ({"conditioning": "beta", "beta": 0.0}, "beta must be within beta_range=0.001,5 with conditioning=beta"),
    ({"rate_terms": "mutual_information", "prior": "mixture"}, "prior must be one without weights with rate_terms=mut"),
    ({"conditioning": "beta", "rate_terms": "marginal_kl"}, "rate_terms must be both with conditioning=beta"),
    ({"conditioning": "beta", "prior": "vamp"}, "prior must be one without weights with conditioning=beta"),
    ({"conditioning": "beta", "likelihood": "normal_learned_scale"},
     "likelihood must be one without weights with conditioning=beta"),
])
def test_a_bad_value_is_refused_by_rule_and_value(changes, words):
    with pytest.raises(ConfigError) as caught:
        Config(**changes)
    assert words in str(caught.value) and repr([*changes.values()][-1]) in str(caught.value)


def test_the_defaults_are_the_papers_protocol():
    paper = Config()
    assert (paper.train_steps, paper.batch_size, paper.latent_dim, paper.hidden_units, paper.channels,
            paper.learning_rate, paper.prior) == (257_000, 128, 10, 512, 64, 1e-3, "standard_normal")


# Written down once: a change of any of these names orphans the finished runs of everyone.
@pytest.mark.parametrize("config, name", [
    (Config(), "tetrominoes-cv_16k-mlp1-beta1-seed0-44136fa3"),
    (Config(beta=0.001, seed=4), "tetrominoes-cv_16k-mlp1-beta0.001-seed4-acaa6a98"),
    (Config(architecture="cnn", num_layers=3, split="checkerboard"),
     "tetrominoes-checkerboard-cnn3-beta1-seed0-4adb069a"),
    (Config(dataset="mnist", image_size=28, split="cv_1000", train_steps=5000, eval_every=100),
     "mnist-cv_1000-mlp1-image28-beta1-seed0-f1523d63"),
    (Config(num_layers=3, beta=5, train_steps=25_700, eval_images=16_384),
     "tetrominoes-cv_16k-mlp3-beta5-seed0-ae611c95"),
])
def test_run_names_stay_as_they_are(config, name):
    assert config.run_name == name


def test_numbers_of_numpy_are_numbers():
    plain, config = Config(beta=2.0, seed=3), Config(beta=np.int64(2), seed=np.int32(3))
    assert config == plain and config.to_json() == plain.to_json() and config.run_name == plain.run_name
    assert Config(beta=np.float64(0.1)).run_name == Config(beta=0.1).run_name
    for changes in ({"beta": np.float32(0.1)}, {"seed": np.float64(3)}, {"num_layers": np.bool_(True)},
                    {"beta": 10**400}):
        with pytest.raises(ConfigError, match="number"):
            Config(**changes)


def test_the_name_before_choices_were_named():
    config = Config(dataset="mnist", image_size=28, split="cv_1000", train_steps=5000, eval_every=100)
    assert config.earlier_run_name == "mnist-cv_1000-mlp1-beta1-seed0-f1523d63"
    assert Config(beta=0.3, train_steps=7).earlier_run_name == Config(beta=0.3, train_steps=7).run_name


@pytest.mark.parametrize("choices, words", [
    ({"prior": "mixture"}, "mixture"), ({"likelihood": "normal"}, "normal"),
    ({"rate_terms": "marginal_kl"}, "marginal_kl"), ({"latent_dim": 5}, "latent5"),
    ({"binarization": "dynamic"}, "dynamic"), ({"hidden_units": 32}, "hidden32"),
    ({"precision": "bfloat16"}, "bfloat16"), ({"batch_size": 64}, "batch64"),
    ({"learning_rate": 3e-5}, "learning3e-05"),
    ({"learning_rate": 1e30}, "learning1e30"), ({"image_size": 16}, "image16"),
    ({"data_seed": 7}, "data7"), ({"latent_dim": 2, "prior": "flow"}, "latent2-flow"),
    ({"conditioning": "beta"}, "conditioned_on_beta"),
    ({"conditioning": "beta", "beta_range": "1e-2,0.5"}, "conditioned_on_beta-from0.01to0.5"),
])
def test_every_choice_that_differs_is_named(choices, words):
    config = Config(beta=0.3, seed=2, **choices)
    assert config.run_name.startswith(f"tetrominoes-cv_16k-mlp1-{words}-beta0.3-seed2-")
    assert config.earlier_run_name.startswith("tetrominoes-cv_16k-mlp1-beta0.3-seed2-")
    assert config.run_name[-8:] == config.earlier_run_name[-8:]


def test_channels_are_named_too():
    assert Config(architecture="cnn", channels=8).run_name.startswith("tetrominoes-cv_16k-cnn1-channels8-beta1-")


def test_how_long_and_how_observed_is_in_the_hash_only():
    plain, other = Config(), Config(train_steps=9, eval_every=2, eval_images=5, imports="json")
    assert plain.run_name[:-8] == other.run_name[:-8] and plain.run_name != other.run_name


def test_a_field_added_later_leaves_the_names_of_old_runs(monkeypatch):
    before = [Config(), Config(beta=0.3, split="cd_8k")]
    names = [config.run_name for config in before]
    later = dataclasses.make_dataclass("Later", [("warmup", int, config_module._field(0, "new"))], bases=(Config,),
                                       frozen=True)
    monkeypatch.setattr(config_module, "Config", later)
    assert [later().run_name, later(beta=0.3, split="cd_8k").run_name] == names
    assert later(warmup=5).run_name.startswith("tetrominoes-cv_16k-mlp1-warmup5-beta1-seed0-")
    text = dataclasses.make_dataclass("Text", [("ends", str, config_module._field("", "new"))], bases=(Config,),
                                      frozen=True)
    monkeypatch.setattr(config_module, "Config", text)
    assert text(ends="0.1:10/x").run_name.startswith("tetrominoes-cv_16k-mlp1-ends0.1_10_x-beta1-seed0-")
    monkeypatch.setattr(config_module, "Config", later)
    assert later.from_dict(json.loads(before[1].to_json())).run_name == names[1]  # its config.json lacks the field


def test_every_field_changes_the_name():
    other = {"dataset": "mnist", "data_seed": 1, "image_size": 64, "binarization": "static", "split": "cd_8k",
             "architecture": "cnn", "num_layers": 2, "hidden_units": 256, "latent_dim": 2, "prior": "mixture",
             "likelihood": "normal", "beta": 0.5, "rate_terms": "marginal_kl", "train_steps": 10, "batch_size": 64,
             "learning_rate": 1e-4, "seed": 1, "precision": "float64", "eval_every": 7, "eval_images": 8,
             "imports": "json"}
    configs = [Config(**{name: value}) for name, value in other.items()]
    configs += [Config(architecture="cnn", channels=32), Config(conditioning="beta"),
                Config(conditioning="beta", beta_range="0.5,1")]
    assert {field.name for field in dataclasses.fields(Config)} == set(other) | {"channels", "conditioning",
                                                                                 "beta_range"}
    assert len({config.run_name for config in [Config(), *configs]}) == len(configs) + 1


def test_equal_configs_are_written_alike():
    assert Config(beta=1).run_name == Config(beta=1.0).run_name
    assert Config(beta=-0.0).run_name == Config(beta=0.0).run_name
    assert Config(split="cv_16384") == Config()
    assert Config(train_steps=1000, eval_every=50) == Config(train_steps=1000)  # train_steps / 20, said or not
    assert Config(train_steps=1000, eval_every=50).run_name == Config(train_steps=1000).run_name


def test_a_range_of_betas_has_one_spelling():
    assert {Config(conditioning="beta", beta_range=text) for text in ("1e-3,5", " 0.001, 5.0", "0.001,5")} == {
        Config(conditioning="beta")}
    assert Config(conditioning="beta", beta_range="1e-3,1e5").beta_bounds == (0.001, 100_000.0)


def test_runs_are_one_training_where_they_are_conditioned_on_beta_and_differ_in_nothing_else():
    one = Config(conditioning="beta")
    assert one.training_key == one.replace(beta=0.1).training_key
    others = [Config(), Config(beta=0.1), one.replace(seed=1), one.replace(beta_range="0.1,5")]
    assert len({config.training_key for config in [one, *others]}) == 5


def test_betas_that_print_alike_have_different_names():
    names = {Config(beta=beta, seed=seed).run_name for beta, seed in
             itertools.product([1e-7, 1.0000000001, 1.0, 0.3, 0.1 + 0.2], range(3))}
    assert len(names) == 15


@pytest.mark.parametrize("steps, every, interval", [(257_000, None, 12_850), (7, None, 1), (100, 33, 33)])
def test_the_evaluation_interval_is_a_twentieth_unless_given(steps, every, interval):
    assert Config(train_steps=steps, eval_every=every).evaluation_interval == interval


def test_json_keeps_every_field():
    config = Config(beta=0.1 + 0.2, split="cv_5", seed=3, eval_images=7, architecture="cnn", channels=8)
    assert Config.from_dict(json.loads(config.to_json())) == config
    assert set(json.loads(config.to_json())) == {field.name for field in dataclasses.fields(Config)}


def test_unknown_fields_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="fields of a Config must be among dataset, data_seed.*got depth"):
        Config.from_dict({"depth": 3})
