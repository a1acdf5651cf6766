"""The experiments: counts by hand, shared runs, valid Configs, laptop and smoke within their hours."""

import json
import subprocess
import sys

import pytest

from vae_rd.config import Config, ConfigError
from vae_rd.sweeps import experiments
from vae_rd.sweeps.cost import cost
from vae_rd.sweeps.experiments import experiment

PAPER_COUNTS = {"figure1": 0, "figure2": 0, "figure3": 2 * 2 * 12 * 5, "figure4": (9 + 8) * 2 * 12 * 5,
                "figure5": 3 * 2 * 12 * 5, "figure6": 4 * 12 * 5, "figure7": 4 * 2 * 12 * 5,
                "figure7_sizes": 3 * 4 * 2 * 12 * 5, "figure8": 2 * 12 * 5, "early_stopping": 2 * 12 * 5,
                "log_likelihood": 2 * 2 * 12 * 5, "nearest_neighbours": 2 + 9 + 8, "rate_terms": 3 * 2 * 12 * 5,
                "memorisation": 2 * 2 * 12 * 5, "priors": 6 * 2 * 12 * 5, "likelihoods": 5 * 2 * 12 * 5,
                "one_training": 2 * 2 * 12 * 5, "latent_dim": 6 * 2 * 12 * 5, "convergence": 2 * 12 * 5,
                "ten_times": 2 * 2}


def test_every_experiment_of_the_paper_has_its_count():
    assert {name: len(experiment(name).configs) for name in experiments.names()} == PAPER_COUNTS


@pytest.mark.parametrize("scale", experiments.SCALES)
@pytest.mark.parametrize("name", experiments.names())
def test_runs_are_distinct_and_named_alike_everywhere(name, scale):
    chosen = experiment(name, scale)
    assert len(set(chosen.run_names)) == len(chosen.configs) == len(set(chosen.configs))
    assert all(Config.from_dict(json.loads(config.to_json())) == config for config in chosen.configs)


def test_the_paper_scale_is_the_protocol():
    for config in experiment("figure3").configs:
        assert set(config.non_default) <= {"split", "num_layers", "beta", "seed"}
    assert {config.beta for config in experiment("figure3").configs} == set(experiments.PAPER_BETAS)
    assert {config.split for config in experiment("figure3").configs} == {"cv_82k", "cv_16k"}


@pytest.mark.parametrize("scale", experiments.SCALES)
@pytest.mark.parametrize("part, whole", [("figure8", "figure3"), ("early_stopping", "figure3"),
                                         ("memorisation", "figure3"), ("log_likelihood", "figure3")])
def test_figures_share_their_runs(scale, part, whole):
    assert set(experiment(part, scale).configs) <= set(experiment(whole, scale).configs)


@pytest.mark.parametrize("scale", experiments.SCALES)
@pytest.mark.parametrize("name", ["figure4", "figure5", "figure6", "rate_terms", "priors", "likelihoods", "latent_dim"])
def test_the_small_set_of_figure_3_comes_back_in_other_figures(name, scale):
    assert set(experiment(name, scale).configs) & set(experiment("figure3", scale).configs)


def test_ten_times_a_tenth_is_the_paper_s_protocol():
    for config in experiment("ten_times", "tenth").configs:
        assert set(config.non_default) <= {"dataset", "split", "num_layers", "beta"}
        assert (config.dataset, config.split) == ("tetrominoes_released", "cv_16k")


def test_rate_terms_and_data_sets_vary_where_they_should():
    assert {config.rate_terms for config in experiment("rate_terms").configs} == {"both", "mutual_information",
                                                                                  "marginal_kl"}
    assert {config.dataset for config in experiment("figure7").configs} == set(experiments.OTHER_DATASETS)
    assert experiment("early_stopping").checkpoints == ("last", "best")
    assert experiment("figure8").measures == ("information", "gallery")


@pytest.mark.parametrize("scale", experiments.SCALES.values(), ids=experiments.SCALES.keys())
def test_measures_and_their_settings_are_known_to_the_table_of_measures(scale):
    from vae_rd.measures import MEASURES
    wanted = {measure for name in experiments.names() for measure in experiment(name, scale.name).measures}
    assert wanted <= set(MEASURES)
    for name, settings in scale.settings.items():
        assert MEASURES[name].settings_with(settings)


@pytest.mark.parametrize("name", [name for name in experiments.names() if PAPER_COUNTS[name]])
def test_laptop_takes_an_hour_or_two_and_smoke_minutes(name):
    assert cost(experiment(name, "laptop").configs).hours <= (4.5 if name == "priors" else 2.2)
    assert cost(experiment(name, "smoke").configs).hours * 60 <= 2


@pytest.mark.parametrize("name, field, count", [("priors", "prior", 6), ("likelihoods", "likelihood", 5)])
def test_priors_and_likelihoods_are_compared_with_the_protocol_at_the_same_points(name, field, count):
    points = {}
    for config in experiment(name, "laptop").configs:
        points.setdefault(getattr(config, field), set()).add(config.replace(**{field: getattr(Config(), field)}))
    assert len(points) == count and len({frozenset(others) for others in points.values()}) == 1
    assert getattr(Config(), field) in points


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match="experiment must be one of these .got 'figure9'.: figure1.*figure3: train "
                                          "and test curves"):
        experiment("figure9")
    with pytest.raises(ConfigError, match="scale must be one of smoke, laptop, tenth, paper .got 'huge'"):
        experiment("figure3", "huge")


def test_listing_needs_no_framework():
    code = ("import sys; from vae_rd.sweeps import experiments as e; len(e.experiment('figure4').configs); "
            "sys.exit(bool({'tensorflow', 'keras', 'pandas', 'matplotlib'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
