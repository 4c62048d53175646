"""Files of what a run shows: pictures, and a record of them with texts, histograms and numbers of performance.

`plots/record.jsonl` has a sealed line for each, with its step, time and name; a picture's line has the name of its file
and a checksum. Mirrors that a resume rebuilds are rebuilt from these, as from metrics.jsonl.
"""

import hashlib
import math
import re
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError
from jaxtrain.files import exists, make_directory, read_bytes, remove, write_bytes
from jaxtrain.storage.json_lines import JsonLines, read_appended, read_lines
from jaxtrain.trackers.base import Histogram
from jaxtrain.trackers.figures import Picture

Exhibit = dict[str, Any]
"""One line of plots/record.jsonl: {"step": int, "kind": one of KINDS, "name": str, "time": Unix seconds, ...}.

An image has "file", relative to plots/, "sha256", "width" and "height"; a text "text"; a histogram the fields of
`Histogram`; a performance "values". The path of a file follows from its name and step: that of the line is not trusted.
"""

KINDS = ("image", "text", "histogram", "performance")
FOLDER = "plots"
RECORD = "record.jsonl"


class PictureFiles:
    """Keeps what a run shows in the folder plots/ of its directory, which is made when there is something to keep.

    A (step, kind, name) that is there already is not written again. Raises StorageError when a file cannot be written.
    """

    def __init__(self, workdir: Path, resumed: int | None = None) -> None:
        """Opens the record; what lies after the step of the checkpoint `resumed` (None: a new run) is removed."""
        self._folder = workdir / FOLDER
        self._path = self._folder / RECORD
        self._lines: JsonLines | None = None
        self._writing = (
            threading.Lock()
        )  # numbers of performance come from the thread that trains, pictures from another
        before = read_exhibits(workdir)
        self._kept = [] if resumed is None else _first_until(before, resumed)
        self._written = {_key(exhibit) for exhibit in self._kept}
        if exists(self._path):
            self._lines = JsonLines(self._path, self._kept)
            _remove_files(self._folder, before, self._kept)

    def exhibits(self) -> list[Exhibit]:
        """Returns the lines that the record held at opening, without those that were removed."""
        return list(self._kept)

    def has(self, step: int, kind: str, name: str) -> bool:
        """Tells whether something of this kind and name is kept of a step."""
        return (step, kind, name) in self._written

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Does nothing: metrics.jsonl holds the metrics."""

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Keeps the text of a step; those of the whole run are in other files."""
        if step:
            self._add(step, "text", name, {"text": text})

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps the numbers that are finite."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._add(step, "performance", "", {"values": finite})

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Keeps the picture as plots/<name>/<step>.png."""
        if self.has(step, "image", name):
            return
        file = _file_of(step, name)
        make_directory((self._folder / file).parent)
        write_bytes(self._folder / file, picture.png)
        checksum = hashlib.sha256(picture.png).hexdigest()
        size = {"width": picture.width, "height": picture.height}
        self._add(step, "image", name, {"file": file, "sha256": checksum, **size})

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Keeps the histogram."""
        self._add(step, "histogram", name, histogram._asdict())

    def artifact(self, path: Path) -> None:
        """Does nothing: the file is in the run's directory."""

    def close(self) -> None:
        """Closes the record."""
        if self._lines is not None:
            self._lines.close()

    def _add(self, step: int, kind: str, name: str, content: Mapping[str, Any]) -> None:
        with self._writing:
            if self.has(step, kind, name):
                return
            if self._lines is None:
                make_directory(self._folder)
                self._lines = JsonLines(self._path)
            self._lines.append([{"step": step, "kind": kind, "name": name, "time": round(time.time(), 3), **content}])
            self._written.add((step, kind, name))


def read_exhibits(workdir: Path) -> list[Exhibit]:
    """Returns the lines of plots/record.jsonl that are as the run wrote them; none if there is no file."""
    lines = read_lines(workdir / FOLDER / RECORD, _is_exhibit)
    return [line.row for line in lines if line.row is not None and line.trusted]


def read_appended_exhibits(workdir: Path, offset: int) -> tuple[list[Exhibit], int]:
    """Reads the trusted lines of plots/record.jsonl after a number of bytes; returns them, and all bytes read."""
    return read_appended(workdir / FOLDER / RECORD, offset, _is_exhibit)


def read_picture(workdir: Path, exhibit: Exhibit) -> Picture | None:
    """Returns the picture of a line of the record; None where its file is missing or was changed."""
    try:
        png = read_bytes(workdir / FOLDER / _file_of(exhibit["step"], exhibit["name"]))
    except StorageError:
        return None
    same = hashlib.sha256(png).hexdigest() == exhibit["sha256"]
    return Picture(png, exhibit["width"], exhibit["height"]) if same else None


def histogram_of(exhibit: Exhibit) -> Histogram:
    """Returns the histogram of a line of the record."""
    fields = {name: exhibit[name] for name in Histogram._fields}
    return Histogram(**{**fields, "counts": tuple(fields["counts"])})


def _is_exhibit(value: Any) -> bool:
    return type(value.get("step")) is int and value.get("kind") in KINDS and isinstance(value.get("name"), str)


def _key(exhibit: Exhibit) -> tuple[int, str, str]:
    return exhibit["step"], exhibit["kind"], exhibit["name"]


def _first_until(exhibits: Sequence[Exhibit], step: int) -> list[Exhibit]:
    """Returns the first line of each (step, kind, name) up to a step."""
    first = {_key(exhibit): exhibit for exhibit in reversed(exhibits)}
    return [exhibit for exhibit in exhibits if exhibit["step"] <= step and exhibit is first[_key(exhibit)]]


def _remove_files(folder: Path, before: Sequence[Exhibit], kept: Sequence[Exhibit]) -> None:
    files = {_file_of(exhibit["step"], exhibit["name"]) for exhibit in kept if exhibit["kind"] == "image"}
    shown = {_file_of(exhibit["step"], exhibit["name"]) for exhibit in before if exhibit["kind"] == "image"}
    for file in sorted(shown - files):
        if exists(folder / file):
            remove(folder / file)


def _file_of(step: int, name: str) -> str:
    """Returns the path of a picture below plots/; a checksum tells names apart that are written alike."""
    plain = re.sub(r"[^\w/ -]", "_", name).strip("/ ") or "_"
    plain = re.sub(r"/+", "/", plain)
    folder = plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"
    return f"{folder}/{step}.png"
