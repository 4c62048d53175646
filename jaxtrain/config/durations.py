"""Durations: "10 epochs", "2000 steps" or "5 %", read here and nowhere else."""

import math
import re
from dataclasses import dataclass
from typing import Annotated

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*(epochs?|steps?|%)\s*")


@dataclass(frozen=True)
class DurationText:
    """The constraint on a duration's text; `percent` says whether there is something to take a part of."""

    percent: bool = True

    def accepts(self, text: str) -> bool:
        """Accepts a positive number with a unit."""
        match = _FORM.fullmatch(text)
        return bool(match and 0 < float(match[1]) < math.inf and (self.percent or match[2] != "%"))

    def __str__(self) -> str:
        """Shows the forms that are accepted."""
        forms = "'10 epochs', '2000 steps' or '5 %' of the run" if self.percent else "'10 epochs' or '2000 steps'"
        return f"above zero, written {forms}"


Duration = Annotated[str, DurationText()]
Total = Annotated[str, DurationText(percent=False)]


def steps_of(text: str, *, steps_per_epoch: float, total: int | None = None) -> int:
    """Converts a checked duration into a whole number of steps, at least 1: epochs by the data, percent of `total`."""
    match = _FORM.fullmatch(text)
    assert match is not None, text
    count, unit = float(match[1]), match[2].rstrip("s")
    per_unit = {"step": 1.0, "epoch": steps_per_epoch, "%": (total or 0) / 100}[unit]
    return max(1, math.ceil(round(count * per_unit, 6)))
