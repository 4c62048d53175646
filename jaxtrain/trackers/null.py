"""The tracker of a run that nobody watches."""

from collections.abc import Mapping


class NullTracker:
    """Forgets everything."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def text(self, name: str, text: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
