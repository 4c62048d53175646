"""What a tracker is: a place to which the numbers of a run are written."""

from collections.abc import Mapping
from typing import Any, Protocol

NORMS = "norm_"  # how the names of what only a call's last step measures begin
SEED = "seed_"  # how the names of a single seed's numbers begin: "seed_3/loss"
DIAGNOSTICS = (NORMS, SEED)
"""How the names begin of what is read as curves, never as a line."""

Row = dict[str, Any]
"""One line of metrics.jsonl: {"step": int, "split": str, name: number or None, ...}."""


def in_lines(name: str) -> bool:
    """Tells whether a number is shown in lines to read: no diagnostic, nor one of several, such as "f1_per_class/3"."""
    metric, _, place = name.rpartition("/")
    return not (name.startswith(DIAGNOSTICS) or (metric and place.isdecimal()))


class Tracker(Protocol):
    """Receives a run's numbers, at most once per (step, split), and its texts."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Records the numbers of one split at one step; values are Python or NumPy scalars."""
        ...

    def text(self, name: str, text: str) -> None:
        """Shows a text (the config, say) where the place has room for one; to be given again after a resume."""
        ...

    def close(self) -> None:
        """Ends the writing; nothing may follow. Closing twice is allowed."""
        ...
