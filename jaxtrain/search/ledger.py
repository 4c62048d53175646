"""The ledger: a line for each trial that has ended, in search/trials.jsonl."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtrain.json_lines import JsonLines
from jaxtrain.search.trials import Outcome


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
