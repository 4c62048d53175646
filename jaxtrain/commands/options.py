"""Options shared by all commands: config, overrides, directory, quiet."""

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtrain.commands.document import Document
from jaxtrain.config.schema import Text
from jaxtrain.errors import OnlyInOrderError, StorageError, UsageError, Words, printable
from jaxtrain.files import exists, guarded, read_json, working_directory

USAGE = "python -m jaxtrain.main [verb] --config=configs/x.py [--workdir=DIR] [--config.section.knob=value ...]"

LONGEST_NAME = 200
"""Bytes of a run's name: file systems take 255, and digits and endings are appended."""


@dataclass(frozen=True)
class Options:
    """A parsed command line: words after the verb, overrides (dotted name -> text), the options, and when it began.

    `document` prints what the verb found for programs, if they ask for it.
    """

    words: tuple[str, ...]
    overrides: Mapping[str, Text]
    document: Document
    config: str | None = None
    workdir: str | None = None
    quiet: bool = False
    accept_edited: bool = False
    trust: tuple[str, ...] = ()
    seed: int | None = None
    output: str | None = None
    ensemble: bool = False
    profile: int | None = None
    metric: str | None = None
    sort: str | None = None
    export: str | None = None
    host: str | None = None
    port: int | None = None
    deadline: int | None = None
    most_requests: int | None = None
    most_megabytes: int | None = None
    data: tuple[str, ...] = ()
    fold: int | None = None
    step: int | None = None
    trial: int | None = None
    save: bool = False
    skip_bad: bool = False
    length: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    precision: str | None = None
    quantize: str | None = None
    format: str | None = None
    uri: str | None = None
    only: str | None = None
    skip: str | None = None
    began: float = field(default_factory=time.perf_counter)

    def resolve(self) -> tuple[dict[str, Any], Path]:
        """Resolves and prints the config; returns it with the run's directory."""
        assert self.config is not None
        from jaxtrain.commands.summary import config_lines
        from jaxtrain.config.identity import digest, from_default
        from jaxtrain.config.resolve import load

        path = Path(self.config)
        loaded = load(path, self.overrides, self.trust)
        if not self.quiet:
            lines = [*loaded.notes, *config_lines(loaded.config, from_default(loaded.config))]
            print("\n".join(map(printable, lines)), flush=True)
        use_float64_of(loaded.config)
        default = Path("runs") / f"{self.name}-{digest(loaded.config)}"
        return loaded.config, Path(self.workdir or default)

    @property
    def name(self) -> str:
        """The name of the config."""
        assert self.config is not None
        return _run_name(Path(self.config))

    def again(self) -> list[str]:
        """Returns the arguments that select this config and directory again."""
        chosen = [f"--config={self.config}", *(f"--config.{key}={value}" for key, value in self.overrides.items())]
        return chosen + ([f"--workdir={self.workdir}"] if self.workdir else [])

    def explain_preparation(self, error: OnlyInOrderError) -> OnlyInOrderError:
        """Returns the error with the command that writes the data of this config to arrays."""
        words = [argument for argument in self.again() if not argument.startswith("--workdir=")]
        hint = f"Write it to arrays once, then train on these: {command()} prepare {join(words)} --output=prepared"
        return OnlyInOrderError(error.key, error.got, error.expected, hint)

    def show(self, lines: Sequence[str], error: str = "") -> None:
        """Prints the final lines of a command, control characters escaped; with `--quiet` only the error, if any."""
        if not self.quiet:
            print("\n".join(map(printable, lines)))
        elif error:
            print(f"error: {error}", file=sys.stderr)


def split_overrides(words: Sequence[str]) -> tuple[dict[str, Text], list[str]]:
    """Splits a command line into its overrides and the rest: `--config.a.b=value` becomes {"a.b": value}.

    `--config.a.b value` is accepted, too.
    """
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
    """Makes one JAX device per CPU core, for lanes. Call it before JAX starts; a user's XLA_FLAGS are kept."""
    use_host_devices(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def use_host_devices(count: int) -> None:
    """Makes this number of JAX devices of the CPU. Call it before JAX starts; a user's XLA_FLAGS are kept."""
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={count}")


def use_float64_of(config: Mapping[str, Any]) -> None:
    """Turns float64 on in JAX, for this process, where a config computes in it."""
    if config["train"].get("precision") == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)


def use_recorded_float64(workdir: Path) -> None:
    """Turns float64 on where the run of a directory computes in it."""
    with contextlib.suppress(StorageError, TypeError, AttributeError, KeyError):  # the command says what is wrong
        use_float64_of(read_json(workdir / "config.json"))


def recorded_devices(workdir: Path) -> int:
    """Returns the number of devices that the run of a directory had, 1 where it is not known."""
    path = workdir / "environment.json"
    return len(read_json(path).get("devices", ())) or 1 if exists(path) else 1


def command() -> str:
    """Returns the command to paste: `python -m jaxtrain.main`, with the path of this Python if `python` is another."""
    running = Path(sys.executable)
    on_path = shutil.which("python")
    if on_path and Path(on_path) == running:
        return "python -m jaxtrain.main"
    here = working_directory()
    shown = running.relative_to(here) if here and running.is_relative_to(here) else running
    return f"{quote(shown)} -m jaxtrain.main"


def quote(word: str | Path) -> str:
    r"""Quotes a word for a shell: as `shlex.quote`, or as $'two\x0alines' where it would not be one printable line."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    escaped = (chr(b) if 32 <= b < 127 and chr(b) not in "'\\" else f"\\x{b:02x}" for b in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def join(words: Iterable[str | Path]) -> str:
    """Joins words to a command that a shell splits into them again."""
    return " ".join(map(quote, words))


def _run_name(path: Path) -> str:
    """Returns the name of a run: the stem of the config file, or the directory of a run's config.json.

    It is cut to LONGEST_NAME bytes, so that a file system that takes it takes it with a suffix, too.
    """
    with guarded(path, "read"):
        name = path.resolve().parent.name if path.name == "config.json" else path.stem
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[:-1]
    return name
