"""Mirrors a run on an MLflow server, from a background thread that follows the run's files."""

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxtrain.trackers.base import Histogram
from jaxtrain.trackers.figures import Picture
from jaxtrain.trackers.mlflow_files import RunSender, Sender, ending_of
from jaxtrain.trackers.mlflow_rest import Refused, ServerDown

CLOSE_SECONDS = 10.0
"""Seconds that the end of a run waits for the server, whatever it does."""

PAUSE_SECONDS = 1.0
"""Seconds between two deliveries, so that rows are sent many at a time."""

LONGEST_PAUSE = 30.0
"""Seconds after which a server that does not answer is tried again; fewer at first."""


class Follower:
    """Calls `send` on a background thread whenever something is new, and again while the server does not answer.

    Nothing waits for it but `close`, for CLOSE_SECONDS at most. Whatever fails is said in one line, once an outage.
    """

    def __init__(self, sender: Sender, workdir: Path, say: Callable[[str], None]) -> None:
        """Starts the thread, which first of all sends what earlier sessions left; `say` is called from it."""
        self._sender = sender
        self._uri = sender.run.server.uri
        self._workdir = workdir
        self._say = say
        self._is_new = threading.Event()
        self._closing = threading.Event()
        self._answers = True
        self._stopped = False
        self.wake()
        # A daemon: a server that keeps a request open must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, daemon=True, name="mlflow")
        self._thread.start()

    def wake(self) -> None:
        """Lets the thread look for what is new; returns at once."""
        self._is_new.set()

    def close(self, status: str) -> None:
        """Sends what is left and the status, for CLOSE_SECONDS at most, and says where that was not enough."""
        if self._closing.is_set():
            return
        self._sender.end(status)
        self._closing.set()
        self.wake()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._sender.run.give_up()
            self._stopped = True
        if self._stopped:
            self._tell(f"MLflow: {self._uri} has not got all; the command sync sends the rest of {self._workdir}")

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while not self._stopped:
            self._is_new.wait()
            self._is_new.clear()
            is_last = self._closing.is_set()
            self._attempt()
            if is_last:
                self._stopped = self._stopped or not self._answers
                break
            pause = PAUSE_SECONDS if self._answers else min(2 * pause, LONGEST_PAUSE)
            if not self._answers:
                self.wake()
            self._closing.wait(pause)
        with contextlib.suppress(Exception):
            self._sender.run.close()

    def _attempt(self) -> None:
        """Sends what is new, and says when the server stops answering or answers again."""
        is_first = not self._sender.run.page
        try:
            self._sender.send()
        except ServerDown as error:
            if self._answers and not self._closing.is_set():
                self._tell(f"MLflow: {self._uri}: {error}; the run continues, and what the server misses is sent later")
            self._answers = False
        except Refused as error:
            self._fail(f"{self._uri} refuses: {error}")
        except Exception as error:
            self._fail(str(error) or type(error).__name__)
        else:
            if is_first or not self._answers:
                self._tell(f"MLflow: {self._sender.run.page}")
            self._answers = True

    def _fail(self, reason: str) -> None:
        self._stopped = True
        self._tell(f"MLflow: {reason}; the run continues without it")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(Exception):
            self._say(line)


class MlflowTracker:
    """Mirrors a run on an MLflow server.

    The run's files are the truth: a row, picture or number that is written to them wakes the thread, which reads it
    there. So what the server missed is sent by the next session, or by the command `sync`. Histograms stay in plots/.
    """

    def __init__(self, sender: RunSender, workdir: Path, say: Callable[[str], None]) -> None:
        """Starts the background thread; `say` is called from it."""
        self._workdir = workdir
        self._ending = "FAILED"
        self._follower = Follower(sender, workdir, say)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Wakes the thread, which finds the row in metrics.jsonl."""
        self._follower.wake()

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Wakes the thread, which finds a text of a step in plots/record.jsonl; config.json holds the config."""
        self._follower.wake()

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Wakes the thread, which finds the numbers in plots/record.jsonl."""
        self._follower.wake()

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Wakes the thread, which finds the picture in plots/."""
        self._follower.wake()

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Does nothing: the server has no page for histograms."""

    def artifact(self, path: Path) -> None:
        """Takes the result, by which the run ends on the server; the thread reads the files at the end."""
        if path.name == "result.json":
            self._ending = ending_of(self._workdir)

    def close(self) -> None:
        """Sends what is left, for CLOSE_SECONDS at most."""
        self._follower.close(self._ending)
