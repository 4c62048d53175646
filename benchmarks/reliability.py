"""Attacks runs for some minutes with kills, signals, damage, moved steps, edits and bad input; counts what held.

python benchmarks/reliability.py [PROMISE ...] [--minutes=10] [--seed=0] [--output=FILE.json] [--quick]

Each promise gets an equal share of the time. The seed decides every choice, except where a kill falls.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timing

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import JaxtrainError
from jaxtrain.main import main as run_command
from jaxtrain.storage.seals import without_seal
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.training.train import train_and_evaluate

GIVEN: dict[str, Any] = {
    "data": {"name": "digits", "batch_size": 64},
    "model": {"name": "mlp", "hidden": (16,), "dropout": 0.1},
    "train": {"duration": "60 steps", "ema": 0.9},
    **{section: {"every": "10 steps"} for section in ("log", "eval", "checkpoint")},
    "parallel": {"mesh": 1},
    "track": {"tensorboard": False},
}
LONG = "4000 steps"
"""Duration of the runs that are killed: about two seconds after the compilation."""

CODES = {0, 2, 3, 4, 5}
"""Exit codes of the command: done, usage or config, data, diverged, storage."""


@dataclass
class Count:
    """Numbers of cases tried and held, and the first cases that did not hold."""

    tried: int = 0
    held: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, case: str, failure: str) -> None:
        """Counts one case; `failure` is empty where the promise held."""
        self.tried += 1
        self.held += not failure
        if failure and len(self.failures) < 10:
            self.failures.append(f"{case}: {failure}")


class _Stopping(MemoryTracker):
    """Interrupts the run in this process at a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        if step == self._at and split == "validation":
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Attack:
    """The runs that are attacked: one that was left alone, and one that was stopped at step 40, to be copied."""

    folder: Path
    dice: random.Random
    config: Config
    whole: dict[str, Any]
    number: int = 0

    @classmethod
    def prepare(cls, folder: Path, seed: int) -> "Attack":
        """Trains both runs."""
        config = resolve_config(GIVEN).config
        train_and_evaluate(config, folder / "whole", quiet=True)
        train_and_evaluate(config, folder / "stopped", trackers=[_Stopping(40)], quiet=True)
        return cls(folder, random.Random(seed), config, outcome(folder / "whole"))

    def copy(self) -> Path:
        """Returns a fresh copy of the stopped run."""
        self.number += 1
        shutil.rmtree(self.folder / f"run-{self.number - 1}", ignore_errors=True)
        return shutil.copytree(self.folder / "stopped", self.folder / f"run-{self.number}")

    def resume(self, workdir: Path) -> str:
        """Resumes a run; returns how it differs from the run that was left alone, empty where it does not.

        An error of ours, in one line, is no failure: nothing wrong was trained.
        """
        try:
            train_and_evaluate(self.config, workdir, quiet=True)
        except JaxtrainError:
            return ""
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
        found = outcome(workdir)
        return ", ".join(key for key in found if found[key] != self.whole[key])


def outcome(workdir: Path) -> dict[str, Any]:
    """Returns what must be equal to the bit: digest, best, test and last metrics, and all rows without their times."""
    result = json.loads((workdir / "result.json").read_text())
    rows = [without_seal(json.loads(line)) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    kept = {key: result[key] for key in ("status", "step", "state_digest", "best", "test", "last")}
    return kept | {"rows": [{key: row[key] for key in row if key != "time"} for row in rows]}


def spoil(path: Path, dice: random.Random) -> str:
    """Damages a file at random; returns how."""
    content = bytearray(path.read_bytes())
    at = dice.randrange(len(content)) if content else 0
    how = dice.choice(("flipped", "cut", "erased", "inserted", "emptied", "deleted", "doubled"))
    if how == "deleted":
        path.unlink()
        return how
    if how == "flipped" and content:
        content[at] ^= 1 << dice.randrange(8)
    elif how == "cut":
        del content[at:]
    elif how == "erased":
        del content[at : at + dice.randint(1, 64)]
    elif how == "inserted":
        content[at:at] = dice.randbytes(dice.randint(1, 8))
    elif how == "doubled":
        content *= 2
    else:
        content.clear()
    path.write_bytes(bytes(content))
    return f"{how} at {at}"


# The promises: each tries one case, chosen by the dice, and returns (case, how it failed).


def damage(attack: Attack) -> tuple[str, str]:
    """Damages one file of a checkpoint."""
    workdir = attack.copy()
    files = sorted(path for path in (workdir / "checkpoints").rglob("*") if path.is_file())
    path = attack.dice.choice(files)
    return f"{path.relative_to(workdir)} {spoil(path, attack.dice)}", attack.resume(workdir)


def edit(attack: Attack) -> tuple[str, str]:
    """Damages rows, result, identity or config of a run."""
    workdir = attack.copy()
    path = workdir / attack.dice.choice(("metrics.jsonl", "metrics.jsonl", "result.json", "run.json", "config.json"))
    return f"{path.name} {spoil(path, attack.dice)}", attack.resume(workdir)


def move(attack: Attack) -> tuple[str, str]:
    """Renames, copies or swaps steps, within a run or from another."""
    workdir = attack.copy()
    place = workdir / "checkpoints"
    steps = sorted(path.name for path in place.iterdir() if path.name.isdigit())
    kind = attack.dice.choice(("rename", "copy", "swap", "foreign", "old memory"))
    one = attack.dice.choice(steps)
    other = attack.dice.choice([*steps, str(attack.dice.randint(1, 60))])
    if kind == "foreign":
        source = attack.folder / "whole" / "checkpoints"
        one = attack.dice.choice([path.name for path in source.iterdir() if path.name.isdigit()])
        shutil.copytree(source / one, place / one, dirs_exist_ok=True)
    elif kind == "old memory":
        shutil.copy(place / steps[0] / "memory.json", place / steps[-1] / "memory.json")
    elif one != other:
        if (place / other).exists():
            (place / other).rename(place / "between")
        (shutil.copytree if kind == "copy" else shutil.move)(place / one, place / other)
        if kind == "swap" and (place / "between").exists():
            (place / "between").rename(place / one)
        shutil.rmtree(place / "between", ignore_errors=True)
    return f"{kind} {one} {other}", attack.resume(workdir)


def bad_input(attack: Attack) -> tuple[str, str]:
    """Gives a key of the config a value of a wrong kind: at most one line on stderr, and a code that is promised."""
    values = ("", "nan", "-inf", "-1", "0", "1e400", "10**12", "1000000000000", "[]", "{}", "None", "'", "x" * 5000)
    values += (
        "(1,)" * 3,
        "((((((((((1,),),),),),),),),),)",
        "../..",
        "/dev/zero",
        "os:system",
        "\udcff",
        "é\n",
        "1e-400",
    )
    key = attack.dice.choice(sorted(flatten(attack.config)))
    value = attack.dice.choice(values)
    file = attack.folder / "attacked.py"
    file.write_text(f"def get_config():\n    return {GIVEN!r}\n")
    attack.number += 1
    arguments = [
        "plan",
        f"--config={file}",
        f"--config.{key}={value}",
        f"--workdir={attack.folder / 'plan'}",
        "--quiet",
    ]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = run_command(arguments)
    except BaseException as error:
        return f"{key}={value[:40]!r}", f"{type(error).__name__}: {str(error)[:200]}"
    lines = [line for line in said.getvalue().splitlines() if not line.startswith("warning: ")]
    fits = code in CODES and len(lines) == (code != 0)
    return f"{key}={value[:40]!r}", "" if fits else f"exit code {code}, {len(lines)} lines"


def _start(folder: Path, workdir: Path) -> subprocess.Popen[bytes]:
    file = folder / "long.py"
    long = GIVEN | {"train": {"duration": LONG, "ema": 0.9}, "checkpoint": {"every": "50 steps"}}
    file.write_text(f"def get_config():\n    return {long!r}\n")
    line = [sys.executable, "-m", "jaxtrain.main", f"--config={file}", f"--workdir={workdir}", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(timing.ROOT)}
    return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Killing:
    """Kills a process of a long run at a random time, or stops it by a signal, until the run has ended."""

    def __init__(self, number: int) -> None:
        """Takes the number of the signal."""
        self._number = number
        self._whole: dict[str, Any] = {}
        self._runs = 0

    def __call__(self, attack: Attack) -> tuple[str, str]:
        """Stops the run once; where it ended before, compares it with the run that was left alone."""
        if not self._whole:
            _start(attack.folder, attack.folder / f"long-{self._number}").communicate()
            self._whole = outcome(attack.folder / f"long-{self._number}")
        workdir = attack.folder / f"stopped-{self._number}-{self._runs}"
        process = _start(attack.folder, workdir)
        delay = attack.dice.uniform(0.5, 6.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(self._number)
        _, stderr = process.communicate()
        case = f"signal {self._number} after {delay:.2f} s"
        if process.returncode == 0:
            self._runs += 1
            found = outcome(workdir)
            return case, ", ".join(key for key in found if found[key] != self._whole[key])
        expected = (-self._number,) if self._number == signal.SIGKILL else (128 + self._number, -self._number)
        return case, "" if process.returncode in expected else f"code {process.returncode}: {stderr[-200:]!r}"


PROMISES: dict[str, tuple[str, Callable[[Attack], tuple[str, str]]]] = {
    "kills": ("a killed run resumes and ends with the same bits as an undisturbed one", Killing(signal.SIGKILL)),
    "signals": ("a signal saves the run, which resumes and ends with the same bits", Killing(signal.SIGTERM)),
    "damage": ("a damaged checkpoint is never trained from", damage),
    "moves": ("a step is only taken for what it is", move),
    "edits": ("rows, results and configs that were changed are not believed", edit),
    "inputs": ("bad input ends in one line and a promised exit code", bad_input),
}


def main() -> None:
    """Attacks the promises named on the command line, by default all of them."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("names", nargs="*", metavar="PROMISE", help=f"of {', '.join(PROMISES)} (all)")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file to write the counts to")
    parser.add_argument("--quick", action="store_true", help="two cases of each, as a smoke test")
    options = parser.parse_args()
    names = options.names or list(PROMISES)
    counts = {name: Count() for name in names}
    where = timing.environment()
    print("\n".join(timing.environment_lines(where)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack.prepare(Path(folder), options.seed)
        for name in names:
            end = time.monotonic() + 60 * options.minutes / len(names)
            while counts[name].tried < 2 if options.quick else time.monotonic() < end:
                counts[name].add(*PROMISES[name][1](attack))
            print(f"{name:<9} {counts[name].held:>5} of {counts[name].tried:>5} held: {PROMISES[name][0]}", flush=True)
            print("".join(f"    {failure}\n" for failure in counts[name].failures), end="")
    promises = {name: {"promise": PROMISES[name][0], **asdict(counts[name])} for name in names}
    settings = {"seed": options.seed, "minutes": options.minutes, "environment": where}
    timing.save(settings | {"promises": promises}, options.output)
    sys.exit(any(count.held < count.tried for count in counts.values()))


if __name__ == "__main__":
    main()
