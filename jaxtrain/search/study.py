"""Studies hand out trials and store outcomes: the protocol, and the study of one process, kept in a file."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from jaxtrain.errors import UsageError, Words, message
from jaxtrain.search.samplers import Sampler
from jaxtrain.search.space import Space, Trial
from jaxtrain.search.trials import NO_VALUE, STATUSES, Outcome, Values
from jaxtrain.storage.json_lines import JsonLines, read_appended, read_lines


class Ledger:
    """A file of outcomes, flushed after each append.

    Lines that were changed by others, and doubled ones, are dropped on opening, and said; a torn last line silently.
    """

    def __init__(
        self, path: Path, say: Callable[[str], None], *, sealed: bool = True, accept_edited: bool = False
    ) -> None:
        """Opens the file; raises StorageError when it cannot be read or written.

        Args:
            path: the file.
            say: prints a line.
            sealed: whether the lines were sealed; not so in files of earlier versions.
            accept_edited: whether to keep outcomes that were changed by others; they are marked as edited.
        """
        self.path = path
        lines = read_lines(path, _is_outcome, sealed=sealed)
        outcomes: dict[int, Outcome] = {}
        for line in lines:
            if line.row is not None and (line.trusted or accept_edited) and line.row["trial"] not in outcomes:
                outcome = Outcome.from_json(line.row)
                outcomes[outcome.trial] = outcome if line.trusted else replace(outcome, edited=True)
        if lost := len(lines) - len(outcomes):
            got = Words(f"{lost} of {len(lines)} lines that were changed or doubled since they were written")
            hint = "Their trials are trained again; to keep outcomes that you edited, give --accept-edited"
            say(message(str(path), got, "the lines that the search wrote", hint))
        self._outcomes = list(outcomes.values())
        self._lines = JsonLines(path, [outcome.to_json() for outcome in self._outcomes])

    def outcomes(self) -> list[Outcome]:
        """Returns all outcomes in the order in which the trials ended."""
        return list(self._outcomes)

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Appends outcomes, and hands them to the operating system before it returns."""
        self._lines.append([outcome.to_json() for outcome in outcomes])
        self._outcomes += outcomes

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


def read_appended_outcomes(path: Path, offset: int, *, sealed: bool) -> tuple[list[Outcome], int]:
    """Reads the trusted outcomes of a ledger after a number of bytes; returns them, and the bytes read so far."""
    rows, read = read_appended(path, offset, _is_outcome, sealed=sealed)
    return list(map(Outcome.from_json, rows)), read


class Study(Protocol):
    """Hands out trials in batches and stores their outcomes."""

    def take(self) -> list[Trial]:
        """Returns the next batch; empty when every trial of the study has ended."""
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Stores outcomes of the batch, some or all; they are written before this returns."""
        ...

    def share_rung(self, rung: int, values: Values) -> Values:
        """Stores the values of trials at a rung; returns those of all the study's trials that reached it so far."""
        ...

    def outcomes(self) -> list[Outcome]:
        """Returns every outcome of the study, ordered by trial number."""
        ...

    def release(self) -> None:
        """Releases the taken trials that have no outcome, so that another worker can take them."""
        ...

    def claim(self, task: str) -> bool:
        """Claims a task for this worker; False if another worker does it, or it is done."""
        ...

    def publish(self, task: str, result: Any) -> None:
        """Stores the result of a task, as JSON, for all workers."""
        ...

    def fetch(self, task: str) -> Any:
        """Returns the result of a task that another worker published; None if there is none."""
        ...


class LocalStudy:
    """A study of one process, stored only in its ledger.

    A resumed study replays the batches in the ledger: it asks the sampler for their points and tells it their outcomes
    again, so that the sampler sees the same calls as in an uninterrupted study.
    """

    def __init__(self, space: Space, sampler: Sampler, ledger: Ledger, trials: int, batch: int) -> None:
        """Touches no file.

        trials: their total number, including trial 0 with the config's own values; batch: how many `take` returns.
        """
        self._space = space
        self._sampler = sampler
        self._ledger = ledger
        self._trials = trials
        self._batch = batch
        self._outcomes = {outcome.trial: outcome for outcome in ledger.outcomes()}
        self._taken: list[Trial] = []

    def take(self) -> list[Trial]:
        """Returns the next batch that has a trial without an outcome; replays the batches before it."""
        while True:
            self._tell_sampler()
            begin = self._taken[-1].number + 1 if self._taken else 0
            numbers = range(begin, min(begin + self._batch, self._trials))
            if not numbers:
                return []
            points = self._sampler.ask(numbers)
            self._taken = [self._space.trial(n, point) for n, point in zip(numbers, points, strict=True)]
            self._demand_same_points()
            if not all(number in self._outcomes for number in numbers):
                return self._taken

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Writes the outcomes that are not in the ledger yet."""
        new = [outcome for outcome in outcomes if outcome.trial not in self._outcomes]
        self._ledger.append(new)
        self._outcomes |= {outcome.trial: outcome for outcome in new}

    def outcomes(self) -> list[Outcome]:
        """Returns the outcomes in the ledger, ordered by trial number."""
        return [self._outcomes[number] for number in sorted(self._outcomes)]

    def share_rung(self, rung: int, values: Values) -> Values:
        """Returns the values: nothing is shared."""
        return values

    def release(self) -> None:
        """Does nothing: the same command resumes the taken trials."""

    def claim(self, task: str) -> bool:
        """Returns True: there is no other worker."""
        return True

    def publish(self, task: str, result: Any) -> None:
        """Does nothing: there is no other worker."""

    def fetch(self, task: str) -> Any:
        """Returns None: there is no other worker."""

    def _demand_same_points(self) -> None:
        """Raises UsageError if the sampler returns other points than those to which the ledger's outcomes belong."""
        for trial in self._taken:
            known = self._outcomes.get(trial.number)
            if known is not None and known.point != trial.point:
                got = Words(f"{known.point} as trial {trial.number}")
                expected = f"{trial.point}, which the sampler now gives"
                hint = "Give another directory: the sampler has another version, or the file was changed"
                raise UsageError(str(self._ledger.path), got, expected, hint)

    def _tell_sampler(self) -> None:
        """Tells the sampler the outcomes of the previous batch, all at once and ordered by trial number."""
        if self._taken:
            self._sampler.tell([self._outcomes[trial.number] for trial in self._taken])


def _is_outcome(row: Any) -> bool:
    """Tells whether a parsed line is an outcome whose fields have the expected types."""
    fields = Outcome.__dataclass_fields__.keys()
    if not (isinstance(row, dict) and fields - {"edited"} <= row.keys() <= fields):
        return False
    numbers = [row["value"], *row["seeds"].values()] if isinstance(row["seeds"], dict) else ["no dict"]
    return (
        type(row["trial"]) is type(row["step"]) is int
        and row["status"] in STATUSES
        and (row["value"] is None) == (row["status"] in NO_VALUE)
        and all(number is None or type(number) in (int, float) for number in numbers)
        and all(seed.isdecimal() for seed in row["seeds"])
        and isinstance(row["point"], dict)
        and isinstance(row["curve"], list)
    )
