"""A run that is interrupted and resumed equals an uninterrupted one to the bit."""

import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import PATIENCE, Interrupting, config_file, on_devices, outcome, result_of, run, start, tiny

from jaxtrain.replay.pair import diff_runs
from jaxtrain.replay.pair_report import pair_lines
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

LONG = {"train.duration": "300 steps", "eval.every": "60 steps", "checkpoint.every": "75 steps"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was never interrupted."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    train_and_evaluate(tiny(LONG), directory, quiet=True)
    return directory


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize("seconds", [1e-9, 0.004, 5.0])
def test_resumed_equals_uninterrupted_however_the_calls_are_cut(whole, tmp_path, monkeypatch, seconds):
    """Calls of one step, of several and of as many as possible: the rows, norms included, are the same."""
    monkeypatch.setattr("jaxtrain.training.loop.CALL_SECONDS", seconds)
    interrupted = []
    for step in (20, 120, 200):
        result = train_and_evaluate(tiny(LONG), tmp_path, trackers=[Interrupting(step)], quiet=True)
        assert (result.status, result.exit_code) == ("interrupted", 143)
        interrupted.append(result.step)
        assert result.last["train"]["loss"] > 0
        assert result.test is None
    assert interrupted == sorted(set(interrupted))
    assert train_and_evaluate(tiny(LONG), tmp_path, quiet=True).status == "done"
    pair = diff_runs(tmp_path, whole)
    assert pair.are_the_same, "\n".join(pair_lines(pair))
    assert outcome(tmp_path) == outcome(whole)


def test_a_run_interrupted_before_its_first_step_saves_it_and_goes_on(whole, tmp_path):
    class Early(Interrupting):
        def text(self, name: str, text: str, step: int = 0) -> None:
            self.write(99, "train", {})
            time.sleep(0.1)  # so that the signal arrives before the first call is dispatched

    result = train_and_evaluate(tiny(LONG), tmp_path, trackers=[Early(0)], quiet=True)
    assert (result.status, result.step) == ("interrupted", 0)
    assert "loss" in result.last["train"]
    assert train_and_evaluate(tiny(LONG), tmp_path, quiet=True).status == "done"
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize("lost", ["result.json", "metrics.jsonl's last line"])
def test_a_run_killed_after_its_last_save_ends_as_one_that_was_not(whole, tmp_path, lost):
    """A kill between the last save and result.json, with or without the row of the test split."""
    config = tiny(LONG)
    train_and_evaluate(config, tmp_path, quiet=True)
    (tmp_path / "result.json").unlink()
    if lost != "result.json":
        rows = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "metrics.jsonl").write_text("".join(rows[:-1]))
    train_and_evaluate(config, tmp_path, quiet=True)
    assert outcome(tmp_path) == outcome(whole)


def test_an_early_stop_is_remembered_by_a_resume(tmp_path):
    """Patience counts from the best step before the interruption."""
    given = {"train.early_stopping": "80 steps", "optimizer.learning_rate": 0.0, "eval.every": "20 steps"}
    whole = train_and_evaluate(tiny(given), tmp_path / "whole", quiet=True)
    assert whole.status == "done"
    given |= {"train.duration": "500 steps"}
    train_and_evaluate(tiny(given), tmp_path / "whole-long", quiet=True)
    train_and_evaluate(tiny(given), tmp_path / "cut", trackers=[Interrupting(60)], quiet=True)
    train_and_evaluate(tiny(given), tmp_path / "cut", quiet=True)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole-long")
    assert result_of(tmp_path / "cut")["step"] == 100


def wait_for(found: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


MOMENTS: dict[str, Callable[[Path], object]] = {
    "before the data are read": lambda workdir: (workdir / ".lock").exists(),
    "while the program is compiled": lambda workdir: (workdir / "metrics.jsonl").exists(),
    "after the first row": lambda workdir: read_rows(workdir / "metrics.jsonl"),
    "while a step is saved": lambda workdir: list(workdir.glob("checkpoints/unfinished-*")),
    "late": lambda workdir: (workdir / "checkpoints" / "2000").exists(),
}


@pytest.mark.slow
def test_signals_to_the_command_save_and_stop_it_and_the_same_command_goes_on(tmp_path):
    """Sends SIGTERM or SIGINT to processes at moments from start-up to the last steps."""
    given = {"train.duration": "3000 steps", "log.every": "50 steps", "eval.every": "500 steps"}
    config = config_file(tmp_path, given | {"checkpoint.every": "500 steps"})
    for number, (moment, reached) in enumerate(MOMENTS.items()):
        asked = (signal.SIGTERM, signal.SIGINT)[number % 2]
        workdir = tmp_path / moment
        cache = tmp_path / ("another" if "compiled" in moment else "cache")  # a new one: compiles anew
        variables = {"XDG_CACHE_HOME": str(cache)}
        process = start(tmp_path, f"--config={config}", f"--workdir={workdir}", **variables)
        wait_for(lambda reached=reached, workdir=workdir: reached(workdir))
        process.send_signal(asked)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + asked, f"{moment}: {out}{err}"
        result = result_of(workdir)
        assert (result["status"], result["signal"]) == ("interrupted", asked), moment
        assert result["step"] < 3000
        assert f"--workdir={shlex.quote(str(workdir))}" in out, "the command that resumes can be pasted"
        again = run(tmp_path, f"--config={config}", f"--workdir={workdir}", **variables)
        assert again.returncode == 0, again.stderr
        assert "resuming at step" in again.stderr
    assert run(tmp_path, f"--config={config}", "--workdir=whole").returncode == 0
    for moment in MOMENTS:
        assert outcome(tmp_path / moment) == outcome(tmp_path / "whole"), moment


@pytest.mark.slow
def test_saved_on_four_devices_and_resumed_on_one(tmp_path):
    """With `parallel.mesh` None, which uses all devices: the state is restored, and losses agree up to rounding."""
    given = {"parallel.mesh": None, "train.duration": "600 steps", "log.every": "10 steps", "model.dropout": None}
    config = config_file(tmp_path, given | {"optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": None}})
    process = start(tmp_path, f"--config={config}", "--workdir=moved", **on_devices(4))
    wait_for(lambda: read_rows(tmp_path / "moved" / "metrics.jsonl"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert 0 < result_of(tmp_path / "moved")["step"] < 600
    for workdir in ("moved", "one"):
        assert run(tmp_path, f"--config={config}", f"--workdir={workdir}").returncode == 0
    moved, one = (outcome(tmp_path / workdir)["rows"] for workdir in ("moved", "one"))
    assert [row["step"] for row in moved] == [row["step"] for row in one]
    np.testing.assert_allclose([row["loss"] for row in moved], [row["loss"] for row in one], rtol=0, atol=1e-4)
