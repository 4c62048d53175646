"""Writes what a run measures and shows as TensorBoard event files, which mirror its other files."""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtrain.files import guarded, list_directory, make_directory, remove
from jaxtrain.trackers import event_summaries as summaries
from jaxtrain.trackers.base import Histogram, Row
from jaxtrain.trackers.figures import Picture
from jaxtrain.trackers.picture_files import Exhibit, histogram_of, read_picture

if TYPE_CHECKING:
    from google.protobuf.message import Message as Event
    from tensorboardX import RecordWriter

PREFIX = "events.out.tfevents."
SUFFIX = ".jaxtrain"  # marks our event files; others in the directory are never removed
CLOSE_SECONDS = 10.0
SHOWN_BYTES = 16 * 2**20
"""Most bytes of pictures, histograms and texts in an event file, so that pages of many runs stay fast."""


class Message(NamedTuple):
    """An item that the background thread writes: the event, made there, and whether it counts against SHOWN_BYTES."""

    make: "Callable[[], Event | None]"
    is_shown: bool = False


class TensorBoardTracker:
    """Mirrors a run into event files, with tags "<name>/<split>" so that the splits of one metric share a group.

    Our old event files in the directory are replaced by one rebuilt from `rows`, the rows kept in metrics.jsonl, and
    `exhibits`, the lines kept in plots/record.jsonl, so there is one value per (step, split, name) and one picture per
    (step, name) however the previous session ended. All work, including the import of tensorboardX, runs on a
    background thread and never blocks. The first exception is reported and ends the mirror. What is rebuilt has the
    wall time of its row; a row without one, of an earlier version, that of the rebuilding. Values that are not finite
    are written as nan. Pictures, histograms and texts of steps take at most SHOWN_BYTES, in equal parts over the run of
    `total` steps: what exceeds them is left out, and lies in plots/.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        rows: Iterable[Row],
        say: Callable[[str], None],
        exhibits: Iterable[Exhibit] = (),
        total: int = 1,
        point: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts the background thread; `say` is called from it. `point` are the values by which runs are compared."""
        with guarded(Path(directory), "written"):
            self._directory = Path(directory).absolute()
        self._say = say
        self._total = total
        self._point = dict(point or {})
        self._shown = 0
        self._charts = summaries.Charts()
        self._stopped = threading.Event()
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        # A daemon: a file system that hangs must not keep the process from ending.
        arguments = (list(rows), list(exhibits))
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True, name="tensorboard")
        self._thread.start()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Queues the metrics; they reach the file within milliseconds."""
        now = time.time()
        kept = dict(values)
        self._put(lambda: self._charts.add(now, step, kept))
        self._put(lambda: summaries.scalars(now, step, split, kept))

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Queues a text for TensorBoard's text page, which renders Markdown."""
        now = time.time()
        self._put(lambda: summaries.text(now, step, name, text), is_shown=step > 0)

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Queues the numbers of performance."""
        now = time.time()
        kept = dict(values)
        self._put(lambda: summaries.performance(now, step, kept))

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Queues a picture."""
        now = time.time()
        self._put(lambda: summaries.image(now, step, name, picture), is_shown=True)

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Queues a histogram."""
        now = time.time()
        self._put(lambda: summaries.histogram(now, step, name, histogram), is_shown=True)

    def artifact(self, path: Path) -> None:
        """Does nothing: TensorBoard has no page for files."""

    def close(self) -> None:
        """Waits until the queue is written to the file, at most CLOSE_SECONDS."""
        if not self._stopped.is_set():
            self._messages.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._fail(f"{self._directory}: could not finish writing within {CLOSE_SECONDS:.0f} s")

    def _put(self, make: "Callable[[], Event | None]", *, is_shown: bool = False) -> None:
        if not self._stopped.is_set():
            self._messages.put(Message(make, is_shown))

    def _run(self, rows: list[Row], exhibits: list[Exhibit]) -> None:
        try:
            with guarded(self._directory, "written"):
                self._rebuild_and_follow(rows, exhibits)
        except Exception as error:
            self._fail(str(error) or type(error).__name__)

    def _rebuild_and_follow(self, rows: list[Row], exhibits: list[Exhibit]) -> None:
        from tensorboardX import RecordWriter

        _clear(self._directory)
        # Not SummaryWriter: a full disk ends its thread, and its bounded queue then blocks for ever.
        with contextlib.closing(RecordWriter(_new_file(self._directory))) as writer:
            writer.write(summaries.version(time.time()).SerializeToString())
            if self._point:
                writer.write(summaries.session(time.time(), self._point)[0].SerializeToString())
            for message in [*self._of_rows(rows), *self._of_exhibits(exhibits)]:
                self._write(writer, message)
            writer.flush()
            self._follow(writer)
            if self._point:
                writer.write(summaries.session(time.time(), self._point)[1].SerializeToString())

    def _of_rows(self, rows: list[Row]) -> Iterator[Message]:
        now = time.time()
        for row in rows:
            metrics = summaries.metrics_of(row)
            yield Message(lambda row=row, kept=metrics: self._charts.add(row.get("time", now), row["step"], kept))
            yield Message(lambda row=row: summaries.row_event(now, row))

    def _of_exhibits(self, exhibits: list[Exhibit]) -> Iterator[Message]:
        for exhibit in exhibits:
            yield Message(lambda exhibit=exhibit: self._exhibit_event(exhibit), exhibit["kind"] != "performance")

    def _exhibit_event(self, exhibit: Exhibit) -> "Event | None":
        """Returns the event of a line of plots/record.jsonl; None for a picture whose file is not as it was written."""
        at = exhibit["time"], exhibit["step"]
        if exhibit["kind"] == "performance":
            return summaries.performance(*at, exhibit["values"])
        if exhibit["kind"] == "text":
            return summaries.text(*at, exhibit["name"], exhibit["text"])
        if exhibit["kind"] == "histogram":
            return summaries.histogram(*at, exhibit["name"], histogram_of(exhibit))
        picture = read_picture(self._directory, exhibit)
        return summaries.image(*at, exhibit["name"], picture) if picture else None

    def _follow(self, writer: "RecordWriter") -> None:
        while (message := self._messages.get()) is not None:
            self._write(writer, message)
            if self._messages.empty():  # a flush also syncs the disk, so a burst is flushed once
                writer.flush()

    def _write(self, writer: "RecordWriter", message: Message) -> None:
        made = message.make()
        if made is None:
            return
        content = made.SerializeToString()
        if message.is_shown:
            if self._shown + len(content) > SHOWN_BYTES * self._share(made.step):  # pyright: ignore[reportAttributeAccessIssue]
                return
            self._shown += len(content)
        writer.write(content)

    def _share(self, step: int) -> float:
        """Returns the share of SHOWN_BYTES that may be used by a step: some from the start, some only at the end."""
        return 1.0 if step >= self._total else 0.2 + 0.7 * step / self._total

    def _fail(self, reason: str) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        with contextlib.suppress(Exception):
            self._say(f"TensorBoard: {reason}; the run continues without it")


def write_picture(directory: str | os.PathLike[str], name: str, png: bytes, width: int, height: int) -> None:
    """Writes a PNG picture as an event file, replacing our earlier event files in the directory."""
    picture = summaries.image(time.time(), 0, name, Picture(png, width, height), summaries.RGBA)
    _write_file(Path(directory), [picture.summary])  # pyright: ignore[reportAttributeAccessIssue]


def write_hparams(directory: str | os.PathLike[str], point: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Writes one trial for TensorBoard's page of hyperparameters, replacing our earlier event files in the directory.

    The event file holds the metrics as scalars, from which the page reads them.
    """
    points = [{"tag": name, "simple_value": summaries.finite_or_nan(value)} for name, value in metrics.items()]
    events: tuple[Any, Any] = summaries.session(time.time(), point)
    _write_file(Path(directory), [*(one.summary for one in events), {"value": points}])


def _write_file(directory: Path, contents: Iterable[object]) -> None:
    """Writes summaries as the only event file of ours in a directory; raises StorageError when that fails."""
    from tensorboardX import RecordWriter

    _clear(directory)
    with guarded(directory, "written"), contextlib.closing(RecordWriter(_new_file(directory.absolute()))) as writer:
        writer.write(summaries.version(time.time()).SerializeToString())
        for summary in contents:
            writer.write(summaries.event(time.time(), 0, summary=summary).SerializeToString())


def _clear(directory: Path) -> None:
    """Removes our old event files, and makes the directory if it is missing."""
    make_directory(directory)
    for name in list_directory(directory):
        if name.startswith(PREFIX) and name.endswith(SUFFIX):
            remove(directory / name)


def _new_file(directory: Path) -> str:
    """Returns the path of a new event file; absolute, since tensorboardX would upload to a relative "gs:/run"."""
    return str(directory / f"{PREFIX}{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}{SUFFIX}")
