"""Durations such as "10 epochs", "2000 steps", "5 %" or "10 minutes": this module alone parses them."""

import math
import re
from dataclasses import dataclass
from typing import Annotated

MOST_STEPS = 2.0**31
"""Steps are counted as int32, so a run has fewer; a longer duration is as long."""

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*(epoch|step|second|minute|hour|%)(?:(?<!%)s)?\s*")

SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
"""Unit of time -> seconds."""


@dataclass(frozen=True)
class DurationText:
    """The constraint on the text of a duration: of a part of a run, or, with `whole`, of a whole one.

    A part may be a percentage of the run; a whole run may last a time.
    """

    whole: bool = False

    def accepts(self, text: str) -> bool:
        """Returns whether the text is a positive number with a unit."""
        match = _FORM.fullmatch(text)
        refused = ("%",) if self.whole else SECONDS
        return bool(match and 0 < float(match[1]) < math.inf and match[2] not in refused)

    def __str__(self) -> str:
        """Lists the accepted forms."""
        last = "'10 minutes'" if self.whole else "'5 %' of the run"
        return f"above zero, written '10 epochs', '2000 steps' or {last}"


Duration = Annotated[str, DurationText()]
Total = Annotated[str, DurationText(whole=True)]


def seconds_of(text: str) -> float | None:
    """Returns the seconds of a valid duration that is a time; None for steps, epochs and percentages."""
    match = _FORM.fullmatch(text)
    assert match is not None, text
    return float(match[1]) * SECONDS[match[2]] if match[2] in SECONDS else None


def steps_of(text: str, *, steps_per_epoch: float, total: int | None = None) -> int:
    """Converts a valid duration into a whole number of steps, at least 1, rounded up.

    Epochs are converted with `steps_per_epoch`; a percentage is one of `total` steps.
    """
    match = _FORM.fullmatch(text)
    assert match is not None, text
    count = float(match[1])
    per_unit = {"step": 1.0, "epoch": steps_per_epoch, "%": (total or 0) / 100}[match[2]]
    # The rounding error of floats should not add a step; no run is as long as MOST_STEPS.
    steps = round(min(count * per_unit, MOST_STEPS), 6)
    return max(1, math.ceil(steps))
