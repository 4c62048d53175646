"""Writes a run's metrics and texts as TensorBoard event files, which mirror metrics.jsonl."""

import contextlib
import functools
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtrain.files import guarded, list_directory, make_directory, remove
from jaxtrain.trackers.base import ROW_KEYS, Row

if TYPE_CHECKING:
    from google.protobuf.message import Message as Event
    from tensorboardX import RecordWriter

PREFIX = "events.out.tfevents."
SUFFIX = ".jaxtrain"  # marks our event files; others in the directory are never removed
CLOSE_SECONDS = 10.0


class TensorBoardTracker:
    """Mirrors a run into event files, with tags "<name>/<split>" so that the splits of one metric share a group.

    Our old event files in the directory are replaced by one rebuilt from `rows`, the rows kept in metrics.jsonl, so
    there is one value per (step, split, name) however the previous session ended. All work, including the import of
    tensorboardX, runs on a background thread and never blocks. The first exception is reported and ends the mirror.
    Rebuilt values have the wall time of their row; a row without one, of an earlier version, that of the rebuilding.
    Values that are not finite are written as nan.
    """

    def __init__(self, directory: str | os.PathLike[str], rows: Iterable[Row], say: Callable[[str], None]) -> None:
        """Starts the background thread; `say` is called from it."""
        with guarded(Path(directory), "written"):
            self._directory = Path(directory).absolute()
        self._say = say
        self._stopped = threading.Event()
        self._events: queue.SimpleQueue[Callable[[], Event] | None] = queue.SimpleQueue()
        # A daemon: a file system that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(list(rows),), daemon=True, name="tensorboard")
        self._thread.start()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Queues the metrics; they reach the file within milliseconds."""
        self._put(functools.partial(_scalars, time.time(), step, split, dict(values)))

    def text(self, name: str, text: str) -> None:
        """Queues a text for TensorBoard's text page, which renders Markdown."""
        self._put(functools.partial(_text, time.time(), name, text))

    def close(self) -> None:
        """Waits until the queue is written to the file, at most CLOSE_SECONDS."""
        self._put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._fail(f"{self._directory}: could not finish writing within {CLOSE_SECONDS:.0f} s")

    def _put(self, event: "Callable[[], Event] | None") -> None:
        if not self._stopped.is_set():
            self._events.put(event)

    def _run(self, rows: list[Row]) -> None:
        try:
            with guarded(self._directory, "written"):
                self._rebuild_and_follow(rows)
        except Exception as error:
            self._fail(str(error) or type(error).__name__)

    def _rebuild_and_follow(self, rows: list[Row]) -> None:
        from tensorboardX import RecordWriter

        _clear(self._directory)
        # Not SummaryWriter: a full disk ends its thread, and its bounded queue then blocks for ever.
        with contextlib.closing(RecordWriter(_new_file(self._directory))) as writer:
            writer.write(_version().SerializeToString())
            now = time.time()
            for row in rows:
                writer.write(_row(now, row).SerializeToString())
            writer.flush()
            self._follow(writer)

    def _follow(self, writer: "RecordWriter") -> None:
        while (event := self._events.get()) is not None:
            writer.write(event().SerializeToString())
            if self._events.empty():  # a flush also syncs the disk, so a burst is flushed once
                writer.flush()

    def _fail(self, reason: str) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        with contextlib.suppress(Exception):
            self._say(f"TensorBoard: {reason}; the run continues without it")


def write_picture(directory: str | os.PathLike[str], name: str, png: bytes, width: int, height: int) -> None:
    """Writes a PNG picture as an event file, replacing our earlier event files in the directory."""
    image = {"width": width, "height": height, "colorspace": 4, "encoded_image_string": png}
    _write_file(Path(directory), [{"value": [{"tag": name, "image": image}]}])


def write_hparams(directory: str | os.PathLike[str], point: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Writes one trial for TensorBoard's page of hyperparameters, replacing our earlier event files in the directory.

    The event file holds the metrics as scalars, from which the page reads them. Values that are neither numbers nor
    booleans are written as text. There is no experiment: the page would show the columns of one only, whichever it met
    first; from trials alone it shows those of all searches in a folder.
    """
    from tensorboardX.summary import hparams

    known = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in point.items()}
    points = [{"tag": name, "simple_value": _finite_or_nan(value)} for name, value in metrics.items()]
    _experiment, *session = hparams(known, metrics)
    _write_file(Path(directory), [*session, {"value": points}])


def _write_file(directory: Path, summaries: Iterable[object]) -> None:
    """Writes summaries as the only event file of ours in a directory; raises StorageError when that fails."""
    from tensorboardX import RecordWriter

    _clear(directory)
    with guarded(directory, "written"), contextlib.closing(RecordWriter(_new_file(directory.absolute()))) as writer:
        writer.write(_version().SerializeToString())
        for summary in summaries:
            writer.write(_event(time.time(), 0, summary=summary).SerializeToString())


def _clear(directory: Path) -> None:
    """Removes our old event files, and makes the directory if it is missing."""
    make_directory(directory)
    for name in list_directory(directory):
        if name.startswith(PREFIX) and name.endswith(SUFFIX):
            remove(directory / name)


def _new_file(directory: Path) -> str:
    """Returns the path of a new event file; absolute, since tensorboardX would upload to a relative "gs:/run"."""
    return str(directory / f"{PREFIX}{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}{SUFFIX}")


def _version() -> "Event":
    return _event(time.time(), 0, file_version="brain.Event:2")


def _row(now: float, row: Row) -> "Event":
    values = {name: value for name, value in row.items() if name not in ROW_KEYS}
    return _scalars(row.get("time", now), row["step"], row["split"], values)


def _scalars(wall_time: float, step: int, split: str, values: Mapping[str, float | None]) -> "Event":
    points = [{"tag": f"{name}/{split}", "simple_value": _finite_or_nan(value)} for name, value in values.items()]
    return _event(wall_time, step, summary={"value": points})


def _finite_or_nan(value: float | None) -> float:
    """Returns the value as a rebuilding from metrics.jsonl reads it: infinities are null there, and become nan."""
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _text(wall_time: float, name: str, text: str) -> "Event":
    from tensorboardX.summary import text as text_summary

    return _event(wall_time, 0, summary=text_summary(name, text))


def _event(wall_time: float, step: int, **content: object) -> "Event":
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (built at import)

    return Event(wall_time=wall_time, step=step, **content)
