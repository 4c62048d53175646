"""The result of a run, saved as `result.json`."""

import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError, Words
from jaxtrain.files import read_json, write_json

Numbers = dict[str, float]


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    status: "done", "diverged" or "interrupted"; step: the last one; seconds: of training, over all sessions;
    last: split -> metrics of the last state; best: step, metric and value on validation, None without a validation
    split; test: step and metrics of the test split, None unless the run is done; state_digest: sha256 over all leaves
    of the last state; throughput: examples_per_second, milliseconds_per_step, compile_seconds, data_wait_share of this
    session; reason: a sentence, if status is not "done" or the run stopped early; signal: the one that interrupted;
    seeds: mean, spread and interval of each metric over seeds, and the diverged seeds; None for a single run.
    """

    status: str
    step: int
    seconds: float
    last: dict[str, Numbers]
    best: dict[str, Any] | None
    test: dict[str, Any] | None
    state_digest: str
    throughput: dict[str, float]
    reason: str = ""
    signal: int | None = None
    seeds: dict[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 0 done, 4 diverged, 128 + the signal if one interrupted."""
        return {"done": 0, "diverged": 4, "interrupted": 128 + (self.signal or signal.SIGINT)}[self.status]


def write_result(workdir: Path, result: Result) -> None:
    """Writes `result.json` atomically."""
    write_json(workdir / "result.json", asdict(result))


def read_result(workdir: Path) -> Result | None:
    """Reads `result.json`; None if the run has not ended."""
    path = workdir / "result.json"
    if not path.exists():
        return None
    try:
        return Result(**read_json(path))
    except TypeError as error:
        got = Words("JSON with other keys")
        hint = "Restore it from a copy, or remove it"
        raise StorageError(str(path), got, "the result of a run", hint) from error
