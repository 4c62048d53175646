"""Our own samplers: points are functions of seed and trial number, and cover the space as documented."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import ConfigError
from jaxtrain.search.budget import with_trials
from jaxtrain.search.samplers import batch_size, exhaustion, make_sampler, number_of_trials
from jaxtrain.search.space import Space, identify, read_space

ENTRIES = {"optimizer": {"learning_rate": ("log_uniform", 1e-4, 1e-2), "weight_decay": ("uniform", 0.0, 1.0)}}


def space(sampler: str, entries: Any = ENTRIES, **search: Any) -> Space:
    return read_space(with_trials(resolve_config({"search": {"space": entries, "sampler": sampler, **search}}).config))


def points(found: Space, numbers: range) -> list[dict[str, Any]]:
    return make_sampler(found, higher_is_better=False).ask(numbers)


@pytest.mark.parametrize("name", ["random", "sobol"])
def test_a_point_depends_on_seed_and_number_alone(name):
    found = space(name)
    whole = points(found, range(100))
    assert points(found, range(40, 60)) == whole[40:60]
    assert whole[0] == found.own
    other = read_space(resolve_config(found.config, {"seed": 1}).config)
    assert points(other, range(1, 5)) != whole[1:5]


@pytest.mark.parametrize("name", ["random", "sobol"])
def test_draws_are_uniform_in_the_range_or_its_logarithm(name):
    drawn = points(space(name), range(1, 512))
    rates = np.log10([point["optimizer.learning_rate"] for point in drawn])
    decays = np.array([point["optimizer.weight_decay"] for point in drawn])
    for parts in ((rates + 4) / 2, decays):
        assert kstest(parts, "uniform").pvalue > 0.01
        assert 0 <= parts.min() < 0.02 < 0.98 < parts.max() <= 1


def test_sobol_fills_every_cell_where_random_leaves_some_empty():
    def filled(name: str) -> int:
        drawn = points(space(name), range(1, 65))
        cells = {
            (int(4 * (np.log10(p["optimizer.learning_rate"]) + 4)), int(8 * p["optimizer.weight_decay"])) for p in drawn
        }
        return len(cells)

    assert filled("sobol") == 64 > filled("random")


def test_a_grid_comes_point_by_point_after_the_configs_own_values():
    found = space("grid", {"model": {"hidden": ("choice", ((4,), (8,))), "dropout": ("uniform", 0.0, 0.4, 3)}})
    assert number_of_trials(found) == 7
    asked = points(found, range(7))
    assert asked[0] == {"model.hidden": (128, 128), "model.dropout": None}
    assert [point["model.dropout"] for point in asked[1:]] == [0.0, 0.0, 0.2, 0.2, 0.4, 0.4]


def test_a_grid_with_the_configs_own_value_tries_it_once():
    found = space("grid", {"optimizer": {"learning_rate": ("log_uniform", 1e-5, 1e-1, 5)}})
    assert found.own == {"optimizer.learning_rate": 1e-3}
    assert number_of_trials(found) == 5
    rates = [point["optimizer.learning_rate"] for point in points(found, range(5))]
    assert rates == [1e-3, 1e-5, 1e-4, 1e-2, 1e-1]


SIX = {
    "model": {"hidden": ("choice", ((4,), (8,), (128, 128)))},
    "optimizer": {"learning_rate": ("grid", (1e-3, 1e-2))},
}
"""Six points, one of which is the config's own."""


@pytest.mark.parametrize("name", ["random", "sobol"])
@pytest.mark.parametrize("asked", [4, 6, 32])
def test_a_finite_space_is_drawn_without_a_repetition_until_it_is_exhausted(name, asked):
    found = space(name, SIX, trials=asked)
    trials = number_of_trials(found)
    assert trials == min(asked, 6)
    drawn = points(found, range(trials))
    assert len({identify(point) for point in drawn}) == trials
    assert points(found, range(2, trials)) == drawn[2:]
    line = (
        "search.trials: got 32; expected at most 6: the 6 points of the space. Each is tried once, and the search ends"
    )
    assert exhaustion(found) == ("" if asked <= 6 else line)


def test_the_configs_own_values_outside_a_finite_space_come_in_addition():
    found = space("random", {"model": {"hidden": ("choice", ((4,), (8,)))}})
    assert number_of_trials(found) == 3
    assert "the 2 points of the space and the config's own values" in exhaustion(found)


def test_members_without_a_range_are_drawn_once_beside_members_with_one():
    entries = {"optimizer": {"name": ("choice", ("adamw", "sgd")), "momentum": ("uniform", 0.0, 0.9)}}
    found = space("random", entries)
    assert number_of_trials(found) == 32
    assert exhaustion(found) == ""
    assert [point["optimizer.name"] for point in points(found, range(32))] == ["adamw", *["sgd"] * 31]


def test_rare_points_of_a_large_finite_space_are_found_in_the_end():
    found = space("random", {"data": {"batch_size": ("log_int", 1, 1000)}}, trials=1001)
    drawn = [point["data.batch_size"] for point in points(found, range(1000))]
    assert sorted(drawn) == [*range(1, 1001)]
    assert np.median(drawn[:100]) < 100, "the first are uniform in the logarithm"


def test_a_grid_too_large_says_how_large():
    found = space("grid", {"optimizer": {"learning_rate": ("uniform", 0.1, 0.2, 300), "b1": ("uniform", 0, 0.9, 300)}})
    with pytest.raises(ConfigError, match=r"search\.trials: got 32; expected at least 90,000, the points of the grid"):
        number_of_trials(found)


def test_a_grid_with_a_range_without_a_count_says_how_to_count():
    mixed = {"optimizer": {"learning_rate": ("grid", (0.1, 0.2)), "weight_decay": ("uniform", 0.0, 1.0)}}
    with pytest.raises(ConfigError, match=r"search\.space\.optimizer\.weight_decay.*\('uniform', 0\.0, 1\.0, 8\)"):
        number_of_trials(space("grid", mixed))


@pytest.mark.parametrize("name", ["sobel", "optun:GPSampler"])
def test_an_unknown_sampler_is_refused_with_the_list(name):
    with pytest.raises(ConfigError, match=r"search\.sampler.*grid, random, sobol, tpe, optuna:"):
        make_sampler(space(name), higher_is_better=False)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"sampler": "random", "trials": 32}, 32),
        ({"sampler": "tpe", "trials": 32}, 8),
        ({"sampler": "tpe", "trials": 3}, 1),
        ({"sampler": "optuna:GPSampler", "trials": 1000}, 32),
        ({"sampler": "tpe", "trials": 32, "batch": 20}, 20),
    ],
)
def test_a_sampler_that_learns_sees_results_before_its_second_quarter(search, expected):
    section = resolve_config({"search": search}).config["search"]
    assert batch_size(section) == expected
