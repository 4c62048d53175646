"""Durations such as "10 epochs", "2000 steps" or "5 %": this module alone parses them."""

import math
import re
from dataclasses import dataclass
from typing import Annotated

MOST_STEPS = 2.0**31
"""Steps are counted as int32, so a run has fewer; a longer duration is as long."""

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*(epochs?|steps?|%)\s*")


@dataclass(frozen=True)
class DurationText:
    """The constraint on the text of a duration; `percent` also allows a percentage of the run."""

    percent: bool = True

    def accepts(self, text: str) -> bool:
        """Returns whether the text is a positive number with a unit."""
        match = _FORM.fullmatch(text)
        return bool(match and 0 < float(match[1]) < math.inf and (self.percent or match[2] != "%"))

    def __str__(self) -> str:
        """Lists the accepted forms."""
        forms = "'10 epochs', '2000 steps' or '5 %' of the run" if self.percent else "'10 epochs' or '2000 steps'"
        return f"above zero, written {forms}"


Duration = Annotated[str, DurationText()]
Total = Annotated[str, DurationText(percent=False)]


def steps_of(text: str, *, steps_per_epoch: float, total: int | None = None) -> int:
    """Converts a valid duration into a whole number of steps, at least 1, rounded up.

    Epochs are converted with `steps_per_epoch`; a percentage is one of `total` steps.
    """
    match = _FORM.fullmatch(text)
    assert match is not None, text
    count = float(match[1])
    unit = match[2].rstrip("s")
    per_unit = {"step": 1.0, "epoch": steps_per_epoch, "%": (total or 0) / 100}[unit]
    # The rounding error of floats should not add a step; no run is as long as MOST_STEPS.
    steps = round(min(count * per_unit, MOST_STEPS), 6)
    return max(1, math.ceil(steps))
