"""The result of a run, saved as `result.json`."""

import signal
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError, Words
from jaxtrain.files import exists, read_json
from jaxtrain.storage.seals import read_sealed, without_seal, write_sealed

Numbers = dict[str, float]

STATUSES = ("done", "diverged", "interrupted")


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    status: "done", "diverged" or "interrupted"; step: the last one; seconds: of training, over all sessions;
    last: split -> metrics of the last state; best: step, metric and value on validation, None without a validation
    split; test: step and metrics of the test split, None unless the run is done; state_digest: sha256 over all leaves
    of the last state; throughput: examples_per_second, milliseconds_per_step, compile_seconds, data_wait_share of this
    session; reason: a sentence, if status is not "done" or the run stopped early; signal: the one that interrupted;
    seeds: mean, spread and interval of each metric over seeds, and the diverged seeds; None for a single run; folds:
    the same over folds; edited: the files of the run that were changed by others and accepted as they stood; skipped:
    the step, rows of the training split and lane of each batch that was skipped as a spike.
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
    folds: dict[str, Any] | None = None
    edited: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 0 done, 4 diverged, 128 + the signal if one interrupted."""
        return {"done": 0, "diverged": 4, "interrupted": 128 + (self.signal or signal.SIGINT)}[self.status]

    @property
    def step_in_words(self) -> str:
        """The time of a step, such as "2.88 ms"; "? ms" where it is not known."""
        time = self.throughput.get("milliseconds_per_step")
        return "? ms" if time is None else f"{time:,.0f} ms" if time >= 100 else f"{time:.3g} ms"

    @property
    def skipped_in_words(self) -> str:
        """The sentence on the batches that the run skipped."""
        count = len(self.skipped)
        steps = ", ".join(f"{batch['step']:,}" for batch in self.skipped[:8]) + (", ..." if count > 8 else "")
        return f"skipped {count:,} batch{'es' if count > 1 else ''} as spikes, at step {steps}"


def write_result(workdir: Path, result: Result) -> None:
    """Writes `result.json` atomically, with a seal."""
    write_sealed(workdir / "result.json", asdict(result))


def read_result(workdir: Path, *, sealed: bool = True) -> Result | None:
    """Reads `result.json`; None if the run has not ended.

    With `sealed` False a result without a seal is read, too: that of an earlier version, or one edited on purpose.
    Raises StorageError for a file that cannot be read, was changed, or holds something else.
    """
    path = workdir / "result.json"
    if not exists(path):
        return None
    hint = "Restore it from a copy, or take it as it stands with --accept-edited"
    content = read_sealed(path, "what the run wrote", hint) if sealed else read_json(path)
    if not _is_result(content):
        raise StorageError(str(path), Words("JSON with other keys"), "the result of a run", hint)
    return Result(**without_seal(content))


def _is_result(content: Any) -> bool:
    """Tells whether JSON holds the fields of a result, with the types on which the code relies."""
    if not isinstance(content, dict):
        return False
    known = {field.name: field for field in fields(Result)}
    required = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    return (
        required <= without_seal(content).keys() <= known.keys()
        and content["status"] in STATUSES
        and type(content["step"]) is int
        and isinstance(content["last"], dict)
        and isinstance(content["throughput"], dict)
        and isinstance(content["seconds"], int | float)
        and (content["best"] is None or _is_best(content["best"]))
        and (content["test"] is None or isinstance(content["test"], dict))
    )


def _is_best(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() == {"step", "metric", "value"} and type(content["step"]) is int
