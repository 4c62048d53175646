"""The options that every command takes: which config, which directory, what to print."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrain.config.schema import Text
from jaxtrain.errors import UsageError, Words

USAGE = "python -m jaxtrain.main [verb] --config=configs/x.py [--workdir=DIR] [--config.section.knob=value ...]"


@dataclass(frozen=True)
class Options:
    """A parsed command line: the words after the verb, the options, and the overrides as dotted name -> text."""

    words: tuple[str, ...]
    overrides: Mapping[str, Text]
    config: str | None = None
    workdir: str | None = None
    quiet: bool = False

    def resolve(self) -> tuple[dict[str, Any], Path]:
        """Resolves the config, shows it, and chooses the directory."""
        if self.config is None:
            raise UsageError("--config", Words("nothing"), "a config file", f"Usage: {USAGE}")
        from jaxtrain.commands.summary import config_lines
        from jaxtrain.config.identity import digest, from_default
        from jaxtrain.config.resolve import load

        path = Path(self.config)
        loaded = load(path, self.overrides)
        if not self.quiet:
            print("\n".join([*loaded.notes, *config_lines(loaded.config, from_default(loaded.config))]), flush=True)
        default = Path("runs") / f"{_run_name(path)}-{digest(loaded.config)}"
        return loaded.config, Path(self.workdir or default)

    def again(self) -> list[str]:
        """Returns the options of a command that chose the config and the directory."""
        chosen = [f"--config={self.config}", *(f"--config.{key}={value}" for key, value in self.overrides.items())]
        return chosen + ([f"--workdir={self.workdir}"] if self.workdir else [])

    def show(self, lines: Sequence[str], error: str = "") -> None:
        """Prints the lines that a command ends with; a quiet command prints the error alone, where there is one."""
        if not self.quiet:
            print("\n".join(lines))
        elif error:
            print(f"error: {error}", file=sys.stderr)


def split_overrides(words: Sequence[str]) -> tuple[dict[str, Text], list[str]]:
    """Takes `--config.a.b=value` (or `--config.a.b value`) out of a command line: {"a.b": value}, and the rest."""
    overrides: dict[str, Text] = {}
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--config.").partition("=")
        if not all(key.split(".")):
            raise UsageError(word, Words("an incomplete key"), "--config.SECTION.KNOB=VALUE")
        if not equals and (value := next(remaining, "--")).startswith("--"):
            raise UsageError(f"--config.{key}", Words("no value"), f"--config.{key}=VALUE")
        if key in overrides:
            got = Words(f"two values, {str(overrides[key])!r} and {value!r}")
            raise UsageError(f"--config.{key}", got, "one value")
        overrides[key] = Text(value)
    return overrides, rest


def use_a_host_device_per_core() -> None:
    """Makes a device of each core of a CPU, for lanes; before JAX starts, and never over a user's own XLA_FLAGS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")


def command() -> str:
    """Returns the command in a form that can be pasted: with the Python on the path, else with that which runs now."""
    running, found = Path(sys.executable), shutil.which("python")
    if found and Path(found) == running:
        return "python -m jaxtrain.main"
    shown = running.relative_to(Path.cwd()) if running.is_relative_to(Path.cwd()) else running
    return f"{shlex.quote(str(shown))} -m jaxtrain.main"


def _run_name(path: Path) -> str:
    """Returns what a run is called after: the config file, or for a run's config.json the directory it lies in."""
    return path.resolve().parent.name if path.name == "config.json" else path.stem
