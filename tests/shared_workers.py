"""Workers of a shared study, each a process with a real SharedStudy and an objective that costs nothing; no JAX runs.

`python shared_workers.py URL FOLDER '{"workers": 8, ...}'` runs their parent process, which imports all modules before
it forks, so that hundreds of workers start within seconds.
"""

import contextlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrain.search.shared import study as shared
from jaxtrain.search.space import Dimension, Point, Space, Trial
from jaxtrain.search.study import Ledger
from jaxtrain.search.trials import Outcome
from jaxtrain.training.signals import Interruption

DIMENSIONS = (Dimension("a.x", "uniform", 0.0, 1.0), Dimension("a.y", "choice", choices=((1, 2), None, "z")))
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class FreeSpace(Space):
    """A space over a config that is never resolved."""

    @property
    def own(self) -> Point:
        """The config's own values."""
        return dict(self.config["own"])

    def suggest(self, choose: Callable[[Dimension], Any]) -> Point:
        """Makes a point; all dimensions are active."""
        return {dimension.key: choose(dimension) for dimension in self.dimensions}

    def trial(self, number: int, point: Point) -> Trial:
        """Returns the trial of a point."""
        return Trial(number, point, {})


def space(sampler: str = "random", own: Point | None = None, seed: int = 0, dimensions: Any = DIMENSIONS) -> FreeSpace:
    """Makes a space with a sampler."""
    point = {"a.x": 0.5, "a.y": None} if own is None else own
    return FreeSpace({"seed": seed, "search": {"sampler": sampler}, "own": point}, dimensions)


def outcome(trial: Trial, status: str = "done") -> Outcome:
    """Returns the outcome of a trial."""
    value = None if status == "diverged" else trial.point["a.x"]
    curve = [] if value is None else [[1, 1.0], [2, value]]
    return Outcome(trial.number, status, value, {0: value}, 2, trial.point, {}, curve, 0.1)


@contextlib.contextmanager
def open_study(url: str, folder: Path, **options: Any) -> Iterator[shared.SharedStudy]:
    """Opens the study as the worker of a folder, and releases it."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults: dict[str, Any] = {
        "space": space(),
        "name": "study",
        "identity": {"metric": "loss"},
        "higher_is_better": False,
        "trials": 12,
        "batch": 4,
        "stop": Interruption(),
        "say": lambda line: None,
    }
    with contextlib.closing(Ledger(folder / "trials.jsonl", print)) as ledger:
        study = shared.SharedStudy(url=url, ledger=ledger, **defaults | options)
        try:
            yield study
        finally:
            study.release()


def run_worker(
    url: str, folder: Path, seconds: float, options: dict[str, Any], begin: Any = None, at_work: Any = None
) -> None:
    """Waits for an event, then works on the study until it has ended, for about `seconds` a trial.

    Sets `at_work` when it has its first trials.
    """
    if begin:
        begin.wait()
    pace = random.Random(os.getpid())
    with open_study(url, folder, **options) as study:
        while trials := study.take():
            if at_work:
                at_work.set()
            for trial in trials:
                time.sleep(pace.random() * 2 * seconds)
                study.tell([outcome(trial)])


class Worker:
    """A worker in a process of its own, which waits for `begin`."""

    def __init__(self, url: str, folder: Path, begin: Any, seconds: float, options: dict[str, Any]):
        self.at_work = FORK.Event()
        self.process = FORK.Process(target=run_worker, args=(url, folder, seconds, options, begin, self.at_work))
        self.process.start()

    def ended_before_work(self) -> bool:
        """Waits until the worker has trials, or has ended without one."""
        while not self.at_work.wait(0.05):
            if self.process.exitcode is not None:
                return not self.at_work.is_set()
        return False


def run_workers(url: str, folder: Path, workers: int, kills: int, seconds: float, options: dict[str, Any]) -> list[int]:
    """Runs workers to the end, some killed on the way and started again; returns the exit codes of the others.

    Two of three kills wait until the worker has trials; the others also hit one that opens the study.
    """
    begin = FORK.Event()
    folders = [folder / f"worker-{number}" for number in range(workers)]
    running = [Worker(url, place, begin, seconds, options) for place in folders]
    begin.set()
    chance = random.Random(0)
    for kill in range(kills):
        chosen = chance.randrange(workers)
        time.sleep(chance.random() * 2 * seconds)
        if kill % 3 and running[chosen].ended_before_work():
            continue
        process = running[chosen].process
        if process.exitcode is None:
            process.kill()
            process.join()
            running[chosen] = Worker(url, folders[chosen], begin, seconds, options)
    for worker in running:
        worker.process.join()
    return [int(worker.process.exitcode or 0) for worker in running]


def run_parent(urls: list[str], folder: Path, **options: Any) -> list[list[int]]:
    """Runs `run_workers` on each address in turn, in a process of its own; returns the exit codes."""
    command = [sys.executable, __file__, json.dumps(urls), str(folder), json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


def main() -> None:
    """Runs the workers that the command line asks for."""
    urls, folder, options = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    shared.POLL_SECONDS = 0.25
    with tempfile.TemporaryDirectory() as place:  # what one worker imports and compiles, all inherit
        run_worker(f"sqlite:///{place}/study.db", Path(place), seconds=0, options={"trials": 2})
    print(json.dumps([run_workers(url, folder / str(number), **options) for number, url in enumerate(urls)]))


if __name__ == "__main__":
    main()
