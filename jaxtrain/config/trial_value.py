"""The value of a trial as `search.value` says it, "best", "last" or "mean of last 3": this module alone parses it."""

import re
from dataclasses import dataclass
from typing import Annotated

_FORM = re.compile(r"best|last|mean of last ([1-9]\d{0,3})")


@dataclass(frozen=True)
class TrialValueText:
    """The constraint on the text."""

    def accepts(self, text: str) -> bool:
        """Returns whether the text names evaluations of a trial."""
        return bool(_FORM.fullmatch(text))

    def __str__(self) -> str:
        """Lists the accepted forms."""
        return "'best', 'last' or 'mean of last 3'"


TrialValue = Annotated[str, TrialValueText()]


def last_evaluations(text: str) -> int | None:
    """Returns the number of last evaluations whose mean is the value of a trial; None for its best evaluation."""
    match = _FORM.fullmatch(text)
    assert match is not None, text
    return None if text == "best" else int(match[1] or 1)


def in_words(text: str) -> str:
    """Says by which evaluations trials are compared."""
    count = last_evaluations(text)
    if count is None:
        return "their best evaluation"
    return "their last evaluation" if count == 1 else f"the mean of their last {count} evaluations"
