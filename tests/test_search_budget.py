"""The budget of a search: the trials and rungs, what is refused, and that a resumed study keeps it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny

from jaxtrain.commands.plan import _search_lines
from jaxtrain.config.defaults import Config
from jaxtrain.config.search_budget import budget_seconds, full_runs
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.search import pace
from jaxtrain.search.budget import buy, survivors_by_rung, with_trials
from jaxtrain.search.programs import Programs
from jaxtrain.search.run import run_search
from jaxtrain.storage.seals import without_seal
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.plan import plan

RATES = {"optimizer": {"learning_rate": ("log_uniform", 1e-4, 1e-1)}}
VALUES = {"optimizer": {"learning_rate": ("grid", tuple(10.0**-n for n in range(1, 7)))}}


def config(space: Any = None, **search: Any) -> Config:
    """Returns a search of tiny runs of 60 steps, evaluated every 5."""
    given = {"space": space or RATES, "compare_seeds": 0, **search}
    return tiny({"eval.every": "5 steps"} | {f"search.{name}": value for name, value in given.items()})


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return build(config())


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures out of the reports."""
    monkeypatch.setattr("jaxtrain.search.report.page.FIGURES", {})


@pytest.mark.parametrize(
    ("text", "runs", "seconds"),
    [
        *(("10 full runs", 10.0, None), ("1 full run", 1.0, None), ("2.5 full runs", 2.5, None)),
        *(("90 seconds", None, 90.0), ("20 minutes", None, 1200.0), ("1 hour", None, 3600.0)),
    ],
)
def test_a_budget_is_a_number_of_full_runs_or_a_time(text: str, runs: float | None, seconds: float | None):
    assert config(budget=text)["search"]["budget"] == text
    assert (full_runs(text), budget_seconds(text)) == (runs, seconds)


@pytest.mark.parametrize("text", ["10", "10 runs", "0 full runs", "10 epochs", "5 %", "ten full runs"])
def test_other_budgets_are_refused_and_the_forms_shown(text: str):
    with pytest.raises(ConfigError, match=r"search\.budget: got .*'10 full runs' or '20 minutes'"):
        config(budget=text)


@pytest.mark.parametrize(
    ("batch", "rungs", "halving", "counts"),
    [
        (9, 2, "successive", [9, 3, 1]),
        (8, 2, "successive", [8, 2, 1]),
        (2, 2, "successive", [2, 1, 1]),
        (7, 0, None, [7]),
    ],
)
def test_how_many_trials_of_a_batch_reach_each_rung(batch: int, rungs: int, halving: str | None, counts: list[int]):
    assert survivors_by_rung(batch, rungs, {"halving": halving, "reduction": 3}) == counts


def test_hyperband_keeps_those_of_later_brackets_until_their_rung():
    counts = survivors_by_rung(32, 2, {"halving": "hyperband", "reduction": 3})
    assert counts[0] == 32
    assert counts[0] > counts[1] > counts[2]
    assert counts[2] > survivors_by_rung(32, 2, {"halving": "successive", "reduction": 3})[2]


def test_a_budget_buys_the_most_trials_that_it_pays_for(experiment: Experiment):
    """Trials that train to step 20 of 60, of which a third goes on."""
    bought = buy(config(budget="10 full runs"), experiment, 10.0)
    assert bought.halving == "successive"
    assert [step for step, _ in bought.stages] == [20, 60]
    counts = [count for _, count in bought.stages]
    assert counts == [bought.trials, bought.trials // 3]
    assert bought.runs == pytest.approx((counts[0] * 20 + counts[1] * 40) / 60)
    assert 9.5 < bought.runs <= 10.0
    with_two_seeds = buy(config(budget="10 full runs", seeds=2), experiment, 10.0)
    assert with_two_seeds.trials == pytest.approx(bought.trials / 2, abs=2)
    assert f"{bought.trials} trials, by successive halving: {bought.trials} train to step 20" in bought.line


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"halving": "successive"}, [5, 20, 60]),
        ({"first_rung": "10 %"}, [5, 20, 60]),
        ({"reduction": 4}, [15, 60]),
        ({"reduction": 2}, [30, 60]),
    ],
)
def test_the_rungs_that_a_budget_pays_for(given: Any, steps: list[int], experiment: Experiment):
    bought = buy(config(budget="10 full runs", **given), experiment, 10.0)
    assert [step for step, _ in bought.stages] == steps


def test_halving_that_was_chosen_is_kept(experiment: Experiment):
    assert buy(config(budget="10 full runs", halving="hyperband"), experiment, 10.0).halving == "hyperband"


@pytest.mark.parametrize(("sampler", "trials"), [("grid", 6), ("random", 6)])
def test_a_space_that_is_paid_for_in_full_needs_no_halving(sampler: str, trials: int, experiment: Experiment):
    bought = buy(config(VALUES, sampler=sampler, budget="6 full runs"), experiment, 6.0)
    assert (bought.trials, bought.halving, bought.runs) == (trials, None, 6.0)


def test_without_a_rung_trials_are_bought_in_full():
    whole = tiny({"eval.every": "100 %", "search.space": RATES, "search.budget": "10 full runs"})
    bought = buy(whole, build(whole), 10.0)
    assert (bought.trials, bought.halving) == (10, None)


@pytest.mark.parametrize(
    ("more", "runs", "words"),
    [
        ({"seeds": 3, "halving": None}, 0.5, "at least .* full runs, for a trial with its seeds"),
        ({"space": VALUES, "sampler": "grid"}, 1.0, "at least .* full runs, for the 6 points of the grid"),
    ],
)
def test_a_budget_that_is_too_small_is_refused(more: Any, runs: float, words: str, experiment: Experiment):
    with pytest.raises(ConfigError, match=rf"search\.budget: got '9 full runs'; expected {words}"):
        buy(config(**more, budget="9 full runs"), experiment, runs)


def test_trials_and_a_budget_are_not_both_given():
    with pytest.raises(
        ConfigError, match=r"search\.trials: got 40; expected None beside search\.budget, '2 full runs'"
    ):
        with_trials(config(trials=40, budget="2 full runs"))
    assert with_trials(config())["search"]["trials"] == 32


def test_workers_share_no_budget_of_time():
    with pytest.raises(ConfigError, match=r"search\.budget: got '2 minutes'; expected full runs"):
        with_trials(config(storage="sqlite:///x.db", budget="2 minutes"))
    assert with_trials(config(storage="sqlite:///x.db", budget="2 full runs"))["search"]["trials"] is None


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "search" / "trials.jsonl").read_text().splitlines()
    return [without_seal(json.loads(line)) for line in lines]


def test_a_search_trains_what_it_bought_and_keeps_it(tmp_path, monkeypatch, capsys):
    """A resumed study does not buy again; with another budget it does, and goes on in the same way."""
    runs = [3.0, 5.0]
    monkeypatch.setattr("jaxtrain.search.run.affordable_runs", lambda *given, **more: runs.pop(0))
    run_search(config(budget="2 minutes"), tmp_path)
    first = rows(tmp_path)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("search.budget, 2 minutes")]
    assert len(told) == 1
    assert f" {len(first)} trials" in told[0]
    assert 2.0 < sum(row["step"] for row in first) / 60 <= 3.0
    run_search(config(budget="2 minutes"), tmp_path)
    assert rows(tmp_path) == first
    assert "as bought when the study began" in capsys.readouterr().err
    assert runs == [5.0]
    run_search(config(budget="3 minutes"), tmp_path, quiet=True)
    later = rows(tmp_path)
    assert later[: len(first)] == first
    assert len(later) > len(first)
    own = json.loads((tmp_path / "search/config.json").read_text())["search"]
    assert (own["budget"], own["trials"], own["halving"]) == (None, len(later), "successive")


def test_the_runs_that_fit_into_a_time(monkeypatch):
    monkeypatch.setattr(pace, "TIMED_SECONDS", 0.05)
    monkeypatch.setattr(pace, "MOST_AT_A_TIME", 4)
    monkeypatch.setattr(pace, "REPORT_SECONDS", 0.0)
    given = config(budget="1 hour", compare_seeds=3)
    programs = Programs()

    def affordable(seconds: float) -> float:
        began = pace.time.perf_counter()
        with count_compilations() as compiled:
            return pace.affordable_runs(
                given, programs, higher_is_better=False, seconds=seconds, began=began, compiled=compiled
            )

    assert 600 < affordable(3600) < 3600 * 1000
    with pytest.raises(ConfigError, match=r"search\.budget: got '1 hour'; expected at least \d+ seconds"):
        affordable(0.001)


def test_a_plan_says_what_a_budget_buys():
    given = config(budget="10 full runs", compare_seeds=2)
    line = _search_lines(given, plan(given))[0]
    assert "10 full runs: " in line
    assert "by successive halving" in line
    assert "the comparison, 4 full runs, comes on top" in line
    timed = {**given, "search": {**given["search"], "budget": "1 hour"}}
    assert "at the pace of a single run" in _search_lines(timed, plan(given))[0]
    assert _search_lines(config(), plan(given)) == ["a search of 32 trials, programs: one serves all trials"]
