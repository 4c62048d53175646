"""The cost that `search.budget` allows a search, "10 full runs" or "20 minutes": this module alone parses it."""

import math
import re
from dataclasses import dataclass
from typing import Annotated

from jaxtrain.config.durations import SECONDS

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(full run|second|minute|hour)s?\s*")


@dataclass(frozen=True)
class SearchBudgetText:
    """The constraint on the text."""

    def accepts(self, text: str) -> bool:
        """Returns whether the text is a positive number of full runs, or a time."""
        match = _FORM.fullmatch(text)
        return bool(match and 0 < float(match[1]) < math.inf)

    def __str__(self) -> str:
        """Lists the accepted forms."""
        return "above zero, written '10 full runs' or '20 minutes'"


SearchBudget = Annotated[str, SearchBudgetText()]


def full_runs(text: str) -> float | None:
    """Returns the full runs of a valid budget; None for a time."""
    count, unit = _parts(text)
    return count if unit == "full run" else None


def budget_seconds(text: str) -> float | None:
    """Returns the seconds of a valid budget; None for full runs."""
    count, unit = _parts(text)
    return count * SECONDS[unit] if unit in SECONDS else None


def _parts(text: str) -> tuple[float, str]:
    match = _FORM.fullmatch(text)
    assert match is not None, text
    return float(match[1]), match[2]
