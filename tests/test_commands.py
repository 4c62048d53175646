"""What a verb says at its end: how it went, what is there, and commands that can be pasted."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from jaxtrain.commands.evaluate import evaluation_report
from jaxtrain.commands.train import train_report
from jaxtrain.storage.result import Result

DONE = Result(
    status="done",
    step=1200,
    seconds=12.3,
    last={
        "train": {"loss": 0.25, "accuracy": 0.9, "norm_gradient": 3.0, "optimizer.learning_rate": 0.1},
        "validation": {"loss": 0.5, "accuracy": 0.8},
    },
    best={"step": 900, "metric": "loss", "value": 0.45},
    test={"step": 900, "loss": 0.55, "accuracy": 0.75},
    state_digest="0" * 64,
    throughput={
        "examples_per_second": 12345.6,
        "milliseconds_per_step": 0.51,
        "compile_seconds": 1.5,
        "data_wait_share": 0.02,
    },
)


def test_a_finished_run_shows_its_numbers_and_what_they_were_measured_with(tmp_path):
    text = "\n".join(train_report(DONE, tmp_path))
    for part in ("done at step 1,200 after 12.3 s", "loss 0.25", "accuracy 0.8", "loss 0.45 on validation at step 900"):
        assert part in text
    assert re.search(r"test .*accuracy 0\.75.* step 900", text)
    for part in ("12,346 examples/s", "0.51 ms/step", "1.5 s of compilation", "2.0%"):
        assert part in text
    assert "norm_gradient" not in text, "norms are curves, not results"


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        ("diverged", "diverged at step 7 with a rate of 3", "rate of 3"),
        ("interrupted", "stopped by signal 15 at step 40", "signal 15"),
        ("done", "stopped early at step 40", "early"),
    ],
)
def test_the_reason_is_said(tmp_path, status, reason, says):
    result = dataclasses.replace(DONE, status=status, reason=reason, test=None, best=None)
    assert says in "\n".join(train_report(result, tmp_path))


def test_only_files_that_are_there_are_named(tmp_path):
    assert not [line for line in train_report(DONE, tmp_path) if line.startswith("  metrics.jsonl")]
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "events.out.tfevents.1").touch()
    names = [
        line.split()[0] for line in train_report(DONE, tmp_path) if line.startswith(("  metrics.jsonl", "  events"))
    ]
    assert names == ["metrics.jsonl", "events.*"]


def commands(result: Result, workdir: Path) -> list[list[str]]:
    lines = train_report(result, workdir)
    return [shlex.split(line, comments=True) for line in lines[lines.index("next:") + 1 :]]


@pytest.mark.parametrize("name", ["plain", "with space", "it's $HOME; `x`"])
def test_commands_can_be_pasted_whatever_the_directory_is_called(tmp_path, name):
    workdir = tmp_path / name
    assert [*commands(DONE, workdir)[0]][1:] == ["-m", "jaxtrain.main", "evaluate", f"--workdir={workdir}"]
    assert commands(DONE, workdir)[1] == ["tensorboard", f"--logdir={workdir}"]
    interrupted = commands(dataclasses.replace(DONE, status="interrupted"), workdir)
    assert interrupted[0][3:] == [f"--config={workdir}/config.json", f"--workdir={workdir}"]


def test_numbers_that_are_none_do_not_break_the_report(tmp_path):
    """As after reading result.json, where what is not finite is null."""
    result = dataclasses.replace(DONE, last={"train": {"loss": None}}, test={"step": 3, "loss": None})  # pyright: ignore[reportArgumentType]
    assert "loss nan" in "\n".join(train_report(result, tmp_path))
    spread = {"mean": 0.5, "std": None, "low": None, "high": None, "values": {"0": 0.5}}
    alone = dataclasses.replace(DONE, seeds={"train": {"loss": spread}, "diverged": {"1": 4}})
    assert "0.5  nan  nan to nan" in "\n".join(train_report(alone, tmp_path)), "one of two seeds is left"


def test_an_evaluation_names_its_step_splits_and_file(tmp_path):
    text = "\n".join(evaluation_report({"step": 900, "test": {"loss": 0.5, "accuracy": 0.75}}, tmp_path))
    for part in ("step 900", "test", "accuracy 0.75", f"{tmp_path}/evaluation.json"):
        assert part in text
