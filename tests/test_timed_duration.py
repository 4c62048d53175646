"""A run whose duration is a time: how many steps fit, what the run then is, and where a time is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Interrupting, outcome, result_of, tiny

from jaxtrain.commands.plan import plan_report
from jaxtrain.core.steps import train_step
from jaxtrain.errors import ConfigError
from jaxtrain.lr_range.from_config import lr_range_test
from jaxtrain.search.run import run_search
from jaxtrain.training import timed_duration
from jaxtrain.training.continuation import KEY
from jaxtrain.training.experiment import build
from jaxtrain.training.lengths import Lengths
from jaxtrain.training.plan import plan
from jaxtrain.training.signals import Interruption
from jaxtrain.training.timed_duration import Pace, most_steps
from jaxtrain.training.train import train_and_evaluate

PARTS = {"log.every": "10 %", "eval.every": "20 %", "checkpoint.every": "50 %"}


@pytest.fixture
def rehearsed(monkeypatch):
    """A rehearsal of a twentieth of a second; its calls are counted in the list."""
    monkeypatch.setattr(timed_duration, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(timed_duration, "MOST_SECONDS", 0.05)
    made: list[str] = []
    rehearse = timed_duration._rehearse
    monkeypatch.setattr(timed_duration, "_rehearse", lambda *given: made.append("one") or rehearse(*given))
    return made


def short(**more: Any):
    """Returns the tiny config with a duration of two minutes."""
    return tiny({"train.duration": "2 minutes", **PARTS, **more})


def ending_soon(monkeypatch, seconds: float = 1.0):
    """Leaves so many seconds for the steps after the first, in place of what is left of the time."""
    monkeypatch.setattr(timed_duration, "most_steps", lambda cost, limit: most_steps(cost, cost(1) + seconds))


def test_the_most_steps_within_a_time():
    assert most_steps(lambda steps: 0.5 * steps + 1, 11.2) == 20
    assert most_steps(lambda steps: 2.0, 1.0) == 0
    assert most_steps(lambda steps: 0.0, 1.0) == 2**31 - 1


@pytest.mark.parametrize("total", [1, 7, 12, 60, 61])
@pytest.mark.parametrize(("evaluate", "save"), [(4, 6), (5, 5), (60, 7), (1, 3)])
def test_the_pauses_of_a_run(total: int, evaluate: int, save: int):
    lengths = Lengths(total, 1, min(total, evaluate), min(total, save), None)
    assert lengths.pauses() == sum(lengths.pauses_at(step) for step in range(1, total + 1))


def test_the_seconds_of_a_run_count_steps_evaluations_saves_and_its_end():
    pace = Pace(step=0.1, evaluation=2.0, save=3.0, end=5.0)
    assert math.isclose(pace.seconds(Lengths(25, 1, 10, 20, None)), 2.5 + 3 * 2.0 + 3 * 3.0 + 5.0)


def test_a_run_of_a_time_equals_that_of_its_steps_and_goes_on_to_them(tmp_path, rehearsed, monkeypatch, capsys):
    """The timing changes nothing; a resumed run keeps the number of steps, so it ends where its schedule ends."""
    ending_soon(monkeypatch)
    timed = train_and_evaluate(short(), tmp_path / "timed")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("2 minutes: ")]
    assert len(told) == 1
    assert f"{timed.step:,} steps" in told[0]
    train_and_evaluate(short(**{"train.duration": f"{timed.step} steps"}), tmp_path / "steps", quiet=True)
    assert outcome(tmp_path / "timed") == outcome(tmp_path / "steps")

    ending_soon(monkeypatch)
    parts = Interrupting(1)
    first = train_and_evaluate(short(), tmp_path / "parts", trackers=[parts], quiet=True)
    assert first.status == "interrupted"
    assert len(rehearsed) == 2
    train_and_evaluate(short(), tmp_path / "parts", quiet=True)
    again = result_of(tmp_path / "parts")
    assert len(rehearsed) == 2, "a resumed run was timed again"
    config = short(**{"train.duration": f"{again['step']} steps"})
    train_and_evaluate(config, tmp_path / "whole", quiet=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_the_seconds_of_such_a_run_begin_with_its_time(tmp_path, rehearsed, monkeypatch):
    ending_soon(monkeypatch)
    result = train_and_evaluate(short(), tmp_path, quiet=True, began=timed_duration.time.perf_counter() - 50)
    assert 50 < result.seconds < 110


def test_a_signal_shortens_the_rehearsal(monkeypatch):
    monkeypatch.setattr(timed_duration, "LEAST_SECONDS", 0.05)
    experiment = build(tiny())
    runner = timed_duration.make_runner(experiment, train_step)
    began = timed_duration.time.perf_counter()
    timed_duration._time_steps(experiment, runner, 1e9, Interruption(15))
    assert timed_duration.time.perf_counter() - began < 60


def test_a_time_too_short_for_a_step_is_refused(tmp_path, rehearsed):
    with pytest.raises(ConfigError, match=r"train\.duration: got '0\.01 seconds'; expected at least \d+ seconds"):
        train_and_evaluate(tiny({"train.duration": "0.01 seconds"}), tmp_path, quiet=True)
    assert not any((tmp_path / "checkpoints").iterdir()), "files of the timing were left"


def test_a_plan_says_how_many_steps_fit(rehearsed):
    planned = plan(short())
    text = "\n".join(plan_report(planned, Path("x.png"), []))
    assert f"2 minutes: {planned.steps:,} steps, by" in text
    assert "a run times itself again" in text
    assert planned.steps > 60


@pytest.mark.parametrize("command", [run_search, lr_range_test])
def test_where_the_steps_must_be_known_before_a_time_is_refused(command, tmp_path):
    space = {"search.space": {"optimizer": {"learning_rate": ("log_uniform", 1e-3, 1e-1)}}}
    with pytest.raises(ConfigError, match=r"train\.duration: got '2 minutes'; expected epochs or steps in a .*plan"):
        command(short(**space), tmp_path)


def test_a_time_is_refused_in_a_run_that_continues_another(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.duration: got '2 minutes'; expected epochs or steps in a run"):
        train_and_evaluate(short(**{KEY: str(tmp_path)}), tmp_path / "new", quiet=True)
