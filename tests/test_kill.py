"""A run killed six times with `kill -9` ends as one that was never killed, in every file."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_trackers import read_scalars
from tiny_runs import config_file, outcome, run, start

from jaxtrain.trackers.jsonl import read_rows

STEPS = 1500
KILLS = 6
GIVEN = {
    "train.duration": f"{STEPS} steps",
    "train.early_stopping": f"{STEPS // 2} steps",
    "checkpoint.every": "30 steps",
    "log.every": "10 steps",
    "eval.every": "60 steps",
}


def newest(workdir: Path) -> int:
    """Returns the newest saved step, -1 if there is none."""
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=-1)


def unfinished(workdir: Path) -> set[str]:
    return {path.name for path in workdir.glob("checkpoints/unfinished-*")}


def aims(workdir: Path, dice: random.Random) -> dict[str, Callable[[], bool]]:
    """Returns name -> predicate, polled until it is true, for each kind of moment at which to kill a session.

    Three of four wait for a newly saved step, so that the run advances; "at any time" also kills during imports and
    compilation.
    """
    before = newest(workdir)
    left = unfinished(workdir)
    began = time.monotonic()
    delay = dice.uniform(0.0, 0.3)
    saved: list[float] = []

    def after_a_save() -> bool:
        if not saved and newest(workdir) > before:
            saved.append(time.monotonic())
        return bool(saved) and time.monotonic() > saved[0] + delay

    return {
        "some time after a save": after_a_save,
        "as a save begins": lambda: newest(workdir) > before and bool(unfinished(workdir) - left),
        "as a save ends": lambda: newest(workdir) > before,
        "at any time": lambda: time.monotonic() > began + 8 * delay,
    }


def without_speed(scalars: dict[tuple[int, str], float]) -> dict[tuple[int, str], float]:
    """Returns the scalars that two runs have in common: their speeds differ."""
    return {key: value for key, value in scalars.items() if not key[1].startswith("performance/")}


@pytest.mark.slow
def test_six_kills_leave_the_run_that_was_never_killed(tmp_path):
    """Compares digest, best, test, and the rows of metrics.jsonl and of the event files; the kills are seeded."""
    dice = random.Random(2)  # draws every moment once or twice in six
    config = config_file(tmp_path, GIVEN)
    arguments = [f"--config={config}", "--quiet"]
    assert run(tmp_path, *arguments, "--workdir=whole").returncode == 0
    killed, begun = tmp_path / "killed", []
    for number in range(KILLS):
        before = newest(killed)
        questions = aims(killed, dice)
        if number == 0:  # the first step lies behind every kill
            questions.pop("at any time")
        moment = dice.choice(list(questions))
        process = start(tmp_path, *arguments, f"--workdir={killed}")
        # A fast disk must not bring the run to its end before the last kill.
        while not questions[moment]() and newest(killed) < before + STEPS // (KILLS + 5):
            assert process.poll() is None, f"it ended before kill {number}: {process.communicate()}"
            time.sleep(0.001)
        process.kill()
        process.communicate()
        begun.append(before)
        assert 0 < newest(killed) < STEPS
        assert not (killed / "result.json").exists()
    assert len(set(begun)) > KILLS // 2, "the kills lie all over the run"
    ended = run(tmp_path, *arguments, f"--workdir={killed}")
    assert ended.returncode == 0, ended.stderr
    assert outcome(killed) == outcome(tmp_path / "whole")
    assert outcome(killed)["step"] == STEPS
    scalars, whole = (read_scalars(folder) for folder in (killed, tmp_path / "whole"))
    assert without_speed(scalars) == without_speed(whole)
    assert len({step for step, _ in scalars}) == len({row["step"] for row in read_rows(killed / "metrics.jsonl")})
    assert not unfinished(killed)
