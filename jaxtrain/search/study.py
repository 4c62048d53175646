"""A study: which trials are next, and what came of those before. The search does not know where it is kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxtrain.errors import UsageError, Words
from jaxtrain.search.samplers import Sampler
from jaxtrain.search.space import Space, Trial
from jaxtrain.search.trials import Outcome
from jaxtrain.storage.json_lines import JsonLines


class Ledger:
    """Outcomes in a file, flushed line by line; a torn last line is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        """Opens the file; StorageError where it cannot be read or written."""
        self.path, self._lines = path, JsonLines(path, _is_outcome)
        self._outcomes = [Outcome.from_json(row) for row in self._lines.rows]

    def outcomes(self) -> list[Outcome]:
        """Returns all outcomes in the order in which the trials ended."""
        return list(self._outcomes)

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Writes outcomes, and hands them to the operating system before it returns."""
        self._lines.append([outcome.to_json() for outcome in outcomes])
        self._outcomes += outcomes

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


class Study(Protocol):
    """Hands out trials in batches and takes their outcomes."""

    def take(self) -> list[Trial]:
        """Returns the next batch; empty when every trial of the study has ended."""
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Takes outcomes of the batch, some or all; they are written before this returns."""
        ...

    def outcomes(self) -> list[Outcome]:
        """Returns every outcome of the study, in the order of the trials' numbers."""
        ...

    def release(self) -> None:
        """Gives back what was taken and has no outcome, so that another worker can take it."""
        ...

    def claim(self, task: str) -> bool:
        """Takes a task that one worker of the study does; False where another does it, or it is done."""
        ...

    def publish(self, task: str, result: Any) -> None:
        """Shows all workers what came of a task: what JSON can hold."""
        ...

    def published(self, task: str) -> Any:
        """Returns what came of a task; None where no other worker has said it."""
        ...


class LocalStudy:
    """A study of one process, kept in its ledger alone.

    The sampler is asked and told in the same order whether or not the study was interrupted, batch by batch: what the
    ledger holds is asked for and told again.
    """

    def __init__(self, space: Space, sampler: Sampler, ledger: Ledger, trials: int, batch: int) -> None:
        """Touches no file; `trials` is the number of all, trial 0 with the config's own values among them."""
        self._space, self._sampler, self._ledger = space, sampler, ledger
        self._trials, self._batch = trials, batch
        self._found = {outcome.trial: outcome for outcome in ledger.outcomes()}
        self._taken: list[Trial] = []

    def take(self) -> list[Trial]:
        """Returns the first batch, from where the sampler stands, that has a trial without an outcome."""
        while True:
            self._tell_sampler()
            begin = self._taken[-1].number + 1 if self._taken else 0
            numbers = range(begin, min(begin + self._batch, self._trials))
            if not numbers:
                return []
            points = self._sampler.ask(numbers)
            self._taken = [self._space.trial(n, point) for n, point in zip(numbers, points, strict=True)]
            self._demand_same_points()
            if not all(number in self._found for number in numbers):
                return self._taken

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Writes outcomes that the ledger does not hold yet."""
        new = [outcome for outcome in outcomes if outcome.trial not in self._found]
        self._ledger.append(new)
        self._found |= {outcome.trial: outcome for outcome in new}

    def outcomes(self) -> list[Outcome]:
        """Returns what the ledger holds."""
        return [self._found[number] for number in sorted(self._found)]

    def release(self) -> None:
        """Keeps what was taken: the same command goes on with it."""

    def claim(self, task: str) -> bool:
        """Takes the task: there is nobody else."""
        return True

    def publish(self, task: str, result: Any) -> None:
        """Shows it to nobody."""

    def published(self, task: str) -> Any:
        """Returns None."""

    def _demand_same_points(self) -> None:
        """Refuses to go on where the sampler now gives other points than it did: values would stand beside them."""
        for trial in self._taken:
            known = self._found.get(trial.number)
            if known is not None and known.point != trial.point:
                got = Words(f"{known.point} as trial {trial.number}")
                expected = f"{trial.point}, which the sampler now gives"
                hint = "Give another --workdir: the sampler has another version, or the file was changed"
                raise UsageError(str(self._ledger.path), got, expected, hint)

    def _tell_sampler(self) -> None:
        """Tells the sampler what came of the batch before, all at once and in the order of its numbers."""
        if self._taken:
            self._sampler.tell([self._found[trial.number] for trial in self._taken])


def _is_outcome(found: Any) -> bool:
    """Tells whether a line holds an outcome, with values of the kinds that the search reads again."""
    if not (isinstance(found, dict) and found.keys() == Outcome.__dataclass_fields__.keys()):
        return False
    numbers = [found["value"], *found["seeds"].values()] if isinstance(found["seeds"], dict) else ["no dict"]
    return (
        type(found["trial"]) is type(found["step"]) is int
        and found["status"] in ("done", "stopped", "diverged")
        and (found["value"] is None) == (found["status"] == "diverged")
        and all(number is None or type(number) in (int, float) for number in numbers)
        and all(seed.isdecimal() for seed in found["seeds"])
        and isinstance(found["point"], dict)
        and isinstance(found["curve"], list)
    )
