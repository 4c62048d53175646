"""Tiny runs for the tests: a small network on the digits, the command as a user starts it, and what must be equal."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import forked_commands
import programs
from forked_commands import PATIENCE as PATIENCE

from jaxtrain.config.defaults import Config
from jaxtrain.config.resolve import resolve_config
from jaxtrain.storage.seals import without_seal
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.memory import MemoryTracker

ROOT = Path(__file__).parent.parent
GIVEN: dict[str, Any] = {
    "data": {"name": "digits", "batch_size": 64},
    "model": {"name": "mlp", "hidden": (16,), "dropout": 0.1},
    "train": {"duration": "60 steps", "ema": 0.9},
    "log": {"every": "20 steps"},
    "eval": {"every": "20 steps"},
    "checkpoint": {"every": "20 steps"},
    "parallel": {"mesh": 1},
    "track": {"histograms": None, "pictures": None},
}
"""One program for most tests, so that it is compiled once in a process: gradients and pictures would take others."""

SHOWN = {"track.pictures": "10 %"}
"""Turns the pictures on, as they are by default."""

RATE_OF = {
    **{"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3, "rprop": 1e-3, "rmsprop": 3e-3, "adagrad": 0.1, "adadelta": 2.0},
    **{"nadam": 3e-3, "radam": 0.02, "adabelief": 3e-3, "amsgrad": 5e-3, "yogi": 0.01, "lion": 3e-3, "lamb": 0.01},
    **{
        "lars": 3.0,
        "adafactor": 0.03,
        "adan": 5e-3,
        "muon": 0.02,
        "schedule_free_sgd": 1.0,
        "schedule_free_adamw": 0.01,
    },
}
"""A learning rate that fits each optimizer, on a network of this size."""


def tiny(overrides: Mapping[str, Any] | None = None) -> Config:
    """Resolves the tiny config with overrides by dotted names."""
    return resolve_config(GIVEN, overrides or {}).config


def config_file(folder: Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """Writes the tiny config as a user's own file."""
    path = folder / "tiny.py"
    lines = [f"config.update_from_flattened_dict({{{key!r}: {value!r}}})" for key, value in (overrides or {}).items()]
    text = f"""\
        from ml_collections import ConfigDict


        def get_config():
            config = ConfigDict({GIVEN!r})
            config.unlock()
            {"; ".join(lines)}
            return config
    """
    path.write_text(textwrap.dedent(text))
    return path


def command(*arguments: object) -> list[str]:
    """Returns the command line of `python -m jaxtrain.main` with these arguments."""
    return [sys.executable, "-m", "jaxtrain.main", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Returns the variables of a command: this checkout's package, compiled as by this test, with the run's programs.

    Where XDG_CACHE_HOME is given, the command keeps its programs there, as a user's does.
    """
    inherited = {
        name: value for name, value in os.environ.items() if name != programs.CACHE or "XDG_CACHE_HOME" not in more
    }
    return {**inherited, "PYTHONPATH": forked_commands.PYTHONPATH, "XLA_FLAGS": programs.flags(), **more}


def on_devices(count: int) -> dict[str, str]:
    """Returns the variable that gives a command so many devices."""
    return {"XLA_FLAGS": f"{programs.flags()} --xla_force_host_platform_device_count={count}"}


def run(folder: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder to its end."""
    return forked_commands.run(command(*arguments), folder, environment(**more))


def start(folder: Path, *arguments: object, **more: str) -> subprocess.Popen[str]:
    """Starts the command in a folder, in a process that the test ends.

    It keeps its programs to itself: a kill in the middle of a write to the cache would spoil those of other tests.
    """
    variables = environment(**{"XDG_CACHE_HOME": str(folder / "cache"), **more})
    return forked_commands.start(command(*arguments), folder, variables)


class Interrupting(MemoryTracker):
    """Sends this process a signal when a row of some step is written: an interruption at a known place."""

    def __init__(self, at: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self._at, self._number = at, number

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        super().write(step, split, values)
        if step >= self._at and self._number:
            os.kill(os.getpid(), self._number)
            self._number = 0


def result_of(workdir: Path) -> dict[str, Any]:
    """Reads result.json, without its seal."""
    return without_seal(json.loads((workdir / "result.json").read_text()))


def outcome(workdir: Path) -> dict[str, Any]:
    """Returns all of a finished run that must be equal to the bit however often it was interrupted."""
    result = result_of(workdir)
    kept = {name: result[name] for name in ("status", "step", "state_digest", "best", "test", "last", "reason")}
    return kept | {"rows": sorted(timeless_rows(workdir), key=lambda row: (row["step"], row["split"]))}


def timeless_rows(workdir: Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl without the times at which the rows were written."""
    return [
        {name: value for name, value in row.items() if name != "time"} for row in read_rows(workdir / "metrics.jsonl")
    ]
