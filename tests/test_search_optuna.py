"""Optuna's samplers behind the `Sampler` protocol."""

import importlib.util
import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.search_space import intersection_search_space
from shared_workers import FreeSpace, space

from jaxtrain.errors import ConfigError
from jaxtrain.search.optuna_samplers import NEEDS, OptunaSampler, optuna_sampler, refuse_unpickling
from jaxtrain.search.optuna_trials import suggest
from jaxtrain.search.space import Dimension, Point
from jaxtrain.search.trials import Outcome

PLANE = (Dimension("a.x", "uniform", -5.0, 10.0), Dimension("a.y", "uniform", 0.0, 15.0))
EVERY_KIND = (
    Dimension("a.choice", "choice", choices=((1, 2), None, "z")),
    Dimension("a.grid", "grid", choices=(0.1, 1, True)),
    Dimension("a.int", "int", 3, 5),
    Dimension("a.int_step", "int", 16, 64, step=16),
    Dimension("a.log_int", "log_int", 1, 100),
    Dimension("a.log", "log_uniform", 1e-5, 1e-1),
    Dimension("a.uniform", "uniform", 0.0, 2.0),
)


def branin(point: Point) -> float:
    """Returns Branin's function, whose minimum is 0.398."""
    x, y = point["a.x"], point["a.y"]
    slope = y - 5.1 * x * x / (4 * math.pi**2) + 5 * x / math.pi - 6
    return slope**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def ended(number: int, point: Point, value: float | None, status: str = "done", step: int = 1) -> Outcome:
    curve = [] if value is None else [[step, value]]
    return Outcome(number, status, value, {0: value}, step, point, {}, curve, 0.0)


def run(
    searched: FreeSpace, judge: Callable[[int, Point], Outcome], trials: int = 60, batch: int = 10, higher: bool = False
) -> list[Outcome]:
    """Asks for trials and tells their outcomes in batches; returns the outcomes."""
    sampler, found = OptunaSampler(searched, searched.config["search"]["sampler"], higher), []
    for begin in range(0, trials, batch):
        numbers = range(begin, begin + batch)
        outcomes = [judge(number, point) for number, point in zip(numbers, sampler.ask(numbers), strict=True)]
        sampler.tell(outcomes)
        found += outcomes
    return found


def plane(seed: int = 0, sampler: str = "tpe", own: Point | None = None) -> FreeSpace:
    return space(sampler, own or {"a.x": 2.5, "a.y": 7.5}, seed, PLANE)


def on_branin(number: int, point: Point) -> Outcome:
    return ended(number, point, branin(point))


def optunas_own(seed: int, trials: int = 60, batch: int = 10) -> float:
    """Returns the best of Optuna's TPE used as its users do, in batches from the same first point."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(plane().own)
    for _ in range(0, trials, batch):
        asked = [study.ask() for _ in range(batch)]
        points = [{d.key: trial.suggest_float(d.key, d.low, d.high) for d in PLANE} for trial in asked]
        for trial, point in zip(asked, points, strict=True):
            study.tell(trial, branin(point))
    return study.best_value


@pytest.mark.slow
def test_tpe_is_optunas_own_and_good_on_branin():
    best = [min(found.value or 0.0 for found in run(plane(seed), on_branin)) for seed in range(20)]
    assert best == [optunas_own(seed) for seed in range(20)]
    assert statistics.median(best) < 0.8


def test_a_higher_value_is_better_where_the_metric_says_so():
    def upside_down(number: int, point: Point) -> Outcome:
        return ended(number, point, -branin(point))

    found = run(plane(), upside_down, higher=True)
    assert [outcome.point for outcome in found] == [outcome.point for outcome in run(plane(), on_branin)]


@pytest.mark.parametrize("sampler", ["tpe", "optuna:RandomSampler", "optuna:NSGAIISampler", "optuna:NSGAIIISampler"])
def test_the_same_seed_gives_the_same_trials(sampler: str):
    runs = [[outcome.point for outcome in run(plane(seed, sampler), on_branin, 30)] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][0] == {"a.x": 2.5, "a.y": 7.5}, "trial 0 is the config's own"


def test_own_values_outside_the_space_teach_nothing():
    runs = [run(plane(own={"a.x": x, "a.y": 7.5}), on_branin) for x in (-100.0, -200.0)]
    assert [found.point for found in runs[0][1:]] == [found.point for found in runs[1][1:]]


def test_own_values_partly_outside_leave_all_values_in_the_joint_space():
    sampler = OptunaSampler(plane(own={"a.x": -100.0, "a.y": 7.5}), "tpe", False)
    numbers = range(4)
    sampler.tell([on_branin(number, point) for number, point in zip(numbers, sampler.ask(numbers), strict=True)])
    trials = sampler._study.get_trials()
    assert len(trials) == 3
    assert intersection_search_space(trials, include_pruned=True).keys() == {"a.x", "a.y"}


@pytest.mark.parametrize(("status", "value"), [("diverged", None), ("stopped", 5.0)])
def test_tpe_leaves_where_trials_diverge_or_are_stopped(status: str, value: float | None):
    def judge(number: int, point: Point) -> Outcome:
        if point["a.x"] > 0:
            return ended(number, point, value, status)
        return ended(number, point, 7.0 + point["a.y"], step=9)

    late = [found.status for seed in range(5) for found in run(plane(seed), judge)[30:]]
    assert late.count("done") > 90, "of 150; without learning it is 50"


def test_a_stopped_trial_ranks_by_its_last_value():
    def judge(number: int, point: Point) -> Outcome:
        return ended(number, point, abs(point["a.x"] - 5.0), "stopped", 10)

    late = [found.point["a.x"] for found in run(plane(), judge)[30:]]
    assert sum(3.0 < x < 7.0 for x in late) > 15, "without learning it is 8 of 30"


def test_values_come_back_as_the_config_holds_them():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    searched = space(dimensions=EVERY_KIND)
    points = [searched.suggest(suggest(study.ask())) for _ in range(60)]
    seen: dict[str, set[Any]] = {d.key: {(type(point[d.key]), point[d.key]) for point in points} for d in EVERY_KIND}
    assert seen["a.choice"] == {(tuple, (1, 2)), (type(None), None), (str, "z")}
    assert seen["a.grid"] == {(float, 0.1), (int, 1), (bool, True)}
    assert seen["a.int"] == {(int, 3), (int, 4), (int, 5)}
    assert seen["a.int_step"] == {(int, 16), (int, 32), (int, 48), (int, 64)}
    assert {kind for kind, _ in seen["a.log_int"]} == {int}
    assert sum(point["a.log_int"] <= 10 for point in points) > 18, "a third is more than a tenth of the numbers"
    logs = [math.log10(point["a.log"]) for point in points]
    assert min(logs) > -5
    assert 15 < sum(log < -3 for log in logs) < 45, "half of the draws are below the middle of the logarithm"
    assert all(0 <= point["a.uniform"] <= 2 for point in points)


def test_a_stopped_trial_is_pruned_at_its_value_whichever_evaluations_it_is_read_from():
    sampler = OptunaSampler(plane(), "tpe", False)
    (point,) = sampler.ask([1])
    sampler.tell([Outcome(1, "stopped", 0.4, {0: 0.4}, 30, point, {}, [[10, 0.3], [20, 0.4], [30, 0.5]], 0.0)])
    (trial,) = sampler._study.get_trials()
    assert trial.value == 0.4
    assert trial.intermediate_values == {10: 0.3, 20: 0.4, 30: 0.4}


def test_optuna_says_nothing_and_its_level_is_given_back(caplog: pytest.LogCaptureFixture):
    before = optuna.logging.get_verbosity()
    with caplog.at_level("DEBUG"):
        run(plane(), on_branin, 20)
    assert not [record for record in caplog.records if record.name.startswith("optuna")]
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("name", ["optuna:GPSampel", "optuna:BaseSampler", "optuna:GridSampler", "optuna:nsgaii"])
def test_a_sampler_that_does_not_exist_or_cannot_be_made_is_refused_with_the_list(name: str):
    with pytest.raises(ConfigError, match=r"search\.sampler.*optuna:GPSampler, .*optuna:TPESampler") as caught:
        optuna_sampler(name, 0)
    assert "Base" not in caught.value.expected
    if name == "optuna:GPSampel":
        assert "Did you mean 'optuna:GPSampler'?" in str(caught.value)


@pytest.mark.parametrize(("name", "library"), NEEDS.items())
def test_a_sampler_that_needs_what_is_not_installed_says_what_to_install(name: str, library: str):
    if importlib.util.find_spec(library) is not None:
        pytest.skip(f"{library} is installed")
    with pytest.raises(ConfigError, match=rf"optuna:{name}.*pip install {library}"):
        optuna_sampler(f"optuna:{name}", 0)


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"search\.sampler: got 'tpe'.*pip install 'jaxtrain\[search\]'"):
        optuna_sampler("tpe", 0)


def test_only_samplers_that_unpickle_are_refused():
    refuse_unpickling("tpe")
    refuse_unpickling("optuna:RandomSampler")
    with pytest.raises(ConfigError, match=r"unpickle.*any program"):
        refuse_unpickling("optuna:CmaEsSampler")
