"""A trace of some steps of a run by JAX's profiler, which TensorBoard's page PROFILE shows."""

from collections.abc import Callable
from pathlib import Path

import jax

from jaxtrain.files import guarded


class Profile:
    """Traces a number of steps, from the first call that runs without compiling, into plugins/profile/ of a directory.

    A trace that cannot be written is said, and the run continues.
    """

    def __init__(self, directory: Path, steps: int, say: Callable[[str], None]) -> None:
        """Takes the run's directory; `steps` of 0 trace nothing."""
        self._directory = directory
        self._left = steps
        self._say = say
        self._runs = False

    def limit(self, steps: int) -> int:
        """Returns the most steps that the next call may take: what is left to trace."""
        return min(steps, self._left) if self._runs else steps

    def begin(self, compiled: bool) -> None:
        """Begins the trace before a call, once all programs of the steps are `compiled`."""
        if self._left and compiled and not self._runs:
            self._runs = self._try(lambda: jax.profiler.start_trace(str(self._directory)))

    def end(self, steps: int, output: object) -> None:
        """Counts the steps of a call that was dispatched; after the last one waits for its output and writes."""
        if not self._runs:
            return
        self._left -= steps
        if self._left <= 0:
            jax.block_until_ready(output)
            self.close()

    def close(self) -> None:
        """Writes what was traced, if a trace runs."""
        if self._runs:
            self._runs = False
            self._left = 0
            if self._try(jax.profiler.stop_trace):
                self._say(f"wrote a trace to {self._directory / 'plugins' / 'profile'}")

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            with guarded(self._directory, "written"):
                action()
        except Exception as error:
            self._left = 0
            self._say(f"profile: {error}; the run continues without it")
            return False
        return True
