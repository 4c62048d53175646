"""Notes, in a run's folder `mlflow/`, of the things that an MLflow server has of it, so that each thing is sent once.

The run's own files are the truth, and whatever of them is not noted here is still to be sent. Metrics that are on their
way lie in `sending.json`: where a kill left it open whether the server took them, exactly the same are sent again,
which the server then counts once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtrain.errors import StorageError
from jaxtrain.files import exists, make_directory
from jaxtrain.storage.json_lines import JsonLines, read_lines
from jaxtrain.storage.seals import read_sealed, write_sealed

FOLDER = "mlflow"

Key = tuple[str, int, str, int]
"""Identifies something that is sent: its kind, such as "row", its step, its split or name, and the part of it."""


class Batch(NamedTuple):
    """Metrics that are sent in one request, in the server's form, and the keys of the things that they belong to."""

    keys: tuple[Key, ...]
    metrics: list[dict[str, Any]]


class Ledger:
    """The notes on one run of one server. Raises StorageError when they cannot be read or written."""

    def __init__(self, workdir: Path, uri: str) -> None:
        """Reads the notes of the run in a directory on the server at an address; writes nothing."""
        self._uri = uri
        self._folder = workdir / FOLDER
        self._path = self._folder / "sent.jsonl"
        self._lines: JsonLines | None = None
        self.noted: Counter[str] = Counter()
        self._kept = [line.row for line in read_lines(self._path, _is_note) if line.row is not None and line.trusted]
        runs = [note["run"] for note in self._kept if note.get("uri") == uri]
        self.run: str | None = runs[-1] if runs else None
        self._sent = self._noted_of(self.run)

    def begin(self, run: str) -> None:
        """Notes the id under which the server at this address knows the run; it may be known from another address."""
        if run != self.run:
            self.run = run
            self._sent = self._noted_of(run)
            self._append({"run": run, "uri": self._uri})

    def has(self, key: Key) -> bool:
        """Tells whether the server has something."""
        return key in self._sent

    def note_sending(self, batch: Batch) -> None:
        """Keeps metrics before they are sent."""
        make_directory(self._folder)
        write_sealed(self._folder / "sending.json", {"run": self.run, **batch._asdict()})

    def note_sent(self, keys: Sequence[Key]) -> None:
        """Notes that the server has something."""
        self._append({"run": self.run, "sent": [list(key) for key in keys]})
        self._sent.update(keys)
        self.noted.update(kind for kind, *_ in keys)

    def unsettled(self) -> Batch | None:
        """Returns the metrics of which it is not known whether the server took them; None if there are none."""
        path = self._folder / "sending.json"
        if not exists(path):
            return None
        try:
            content = read_sealed(path, "what was written")
        except StorageError:  # only its whole content was ever sent
            return None
        batch = Batch(tuple(map(_key, content["keys"])), content["metrics"])
        return batch if content["run"] == self.run and not all(map(self.has, batch.keys)) else None

    def close(self) -> None:
        """Closes the file."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def _noted_of(self, run: str | None) -> set[Key]:
        return {_key(item) for note in self._kept if note["run"] == run for item in note.get("sent", [])}

    def _append(self, note: dict[str, Any]) -> None:
        if self._lines is None:
            make_directory(self._folder)
            self._lines = JsonLines(self._path, self._kept)
        self._lines.append([note])
        self._kept.append(note)


def _key(item: Iterable[Any]) -> Key:
    kind, step, name, part = item
    return str(kind), int(step), str(name), int(part)


def _is_note(value: Any) -> bool:
    return isinstance(value.get("run"), str)
