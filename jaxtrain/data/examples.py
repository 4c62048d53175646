"""Examples of any object with `__len__` and `__getitem__`, read by rows: lists, data sets of other libraries.

An example is a pair (inputs, targets), or a mapping that has both under the names that the source gives.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxtrain.data.plain_arrays import plain_array
from jaxtrain.data.workers import Workers
from jaxtrain.errors import DataError, JaxtrainError, OnlyInOrderError, Words, nearest

HASHED_BYTES = 2**26
"""Bytes of a field up to which all examples enter the fingerprint where the object has none of its own."""

HASHED_EXAMPLES = 64
"""Examples, evenly spaced, that enter the fingerprint of a larger field."""

PIECE = 64
"""Examples that are read at a time for the fingerprint."""

UNREADABLE = np.array("unreadable", object)
"""Bytes that are hashed in place of an example that cannot be read."""

Values = tuple[np.ndarray, ...]
"""Inputs, targets and further fields of one example, or of several."""

READ_BY_ROWS = "a pair (inputs, targets), or examples with __len__ and __getitem__"


def is_readable(given: object) -> bool:
    """Tells whether an object has examples that can be read at any rows."""
    if isinstance(given, str | bytes | np.ndarray | Mapping | tuple):
        return False
    return hasattr(given, "__len__") and hasattr(given, "__getitem__")


def refuse_iterable(given: object, where: str) -> None:
    """Raises OnlyInOrderError for what can only be read in order: a run reads any rows, and may resume anywhere."""
    if is_iterable(given):
        got = Words(f"an object of type {type(given).__name__}, which can only be read in order")
        hint = "Make a list of it, or write it to arrays once by the command prepare"
        raise OnlyInOrderError(where, got, READ_BY_ROWS, hint)


def is_iterable(given: object) -> bool:
    """Tells whether an object yields examples, in order, and is no array, text or pair."""
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | np.ndarray | tuple | list | Mapping)


def example_fields(given: Any, where: str, names: tuple[str, ...]) -> tuple["ExampleField", ...]:
    """Returns the named fields of the examples, inputs and targets first; raises DataError where one is missing."""
    examples = _Examples(given, where, names)
    return tuple(ExampleField(examples, field) for field in range(len(names)))


def pair_of(example: Any, where: str, names: tuple[str, ...]) -> Values:
    """Returns the named fields of an example, inputs and targets first; raises DataError where one is missing.

    Names of fields in a field are dotted. A text, as inputs or as the name of a class, has the dtype object.
    """
    if isinstance(example, Mapping):
        inputs, targets, *more = (field_of(example, name, where) for name in names)
    elif isinstance(example, tuple | list) and len(example) == len(names) == 2:
        inputs, targets = example
        more = []
    else:
        raise DataError(where, Words(f"an example of type {type(example).__name__}"), "a pair or a mapping")
    texts_or_arrays = (
        np.array(value, object) if isinstance(value, str) else plain_array(value, where, name)
        for name, value in (("inputs", inputs), ("targets", targets))
    )
    extra = (plain_array(value, where, name) for name, value in zip(names[2:], more, strict=True))
    return *texts_or_arrays, *extra


def field_of(fields: Mapping[Any, Any], name: str, where: str) -> Any:
    """Returns a field by its name, one of mappings in it by a dotted name such as "image.pixels".

    Raises DataError for a name that there is not, and for one of several fields in a mapping.
    """
    known = dict(_flat(fields))
    if name in known:
        return known[name]
    inner = [dotted for dotted in known if dotted.startswith(f"{name}.")]
    if inner:
        got = Words(f"the field {name!r} that holds {', '.join(inner)}")
        raise DataError(where, got, "an array of numbers, or a text", f"Name one of them, such as {inner[0]!r}")
    got = Words(f"the fields {', '.join(known)}")
    hint = nearest(name, known) or "Name them by Source(splits, inputs=..., targets=...)"
    raise DataError(where, got, f"{name!r} among them", hint)


def _flat(fields: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of fields and of those in them."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", found) for inner, found in _flat(value))
        else:
            yield str(name), value


def demand_alike(pair: Values, first: Values, field: int, where: str) -> None:
    """Raises DataError where a field of an example, by its place, is of another shape or kind than in the first one."""
    array = pair[field]
    if array.shape == first[field].shape and np.can_cast(array.dtype, first[field].dtype, "same_kind"):
        return
    name = ("inputs", "targets")[field] if field < 2 else "a further field"
    got = Words(f"{name} of shape {array.shape} and dtype {array.dtype}")
    expected = f"{first[field].shape} and {first[field].dtype}, as in row 0"
    raise DataError(where, got, expected, "Make all examples alike")


class _Examples:
    """Reads examples one at a time, and keeps those that were read last: by one thread at a time, or by processes."""

    def __init__(self, given: Any, where: str, names: tuple[str, ...]) -> None:
        self._read_rows = _ReadRows(given, where, names)
        self._lock = threading.Lock()
        self._last: tuple[bytes, Values] | None = None
        self._workers: Workers | None = None
        self.given = given
        self.names = names
        self.first = self._read_rows.first

    def start_processes(self, count: int) -> None:
        """Reads in `count` processes from now on."""
        self._workers = Workers(self._read_rows, count, self._read_rows.where)

    def read(self, rows: np.ndarray) -> Values:
        """Returns all fields of these rows."""
        if self._workers is not None:
            return self._workers.read(np.asarray(rows))
        key = np.asarray(rows).tobytes()
        with self._lock:
            if self._last is None or self._last[0] != key:
                self._last = key, self._read_rows(rows)
            return self._last[1]

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """Hashes of all fields, by one pass over the examples; one that cannot be read counts as such."""
        examples = len(self.given)
        are_sampled = [examples * max(1, first.nbytes) > HASHED_BYTES for first in self.first]
        sampled = {*np.linspace(0, examples - 1, HASHED_EXAMPLES).astype(np.int64).tolist()}
        rows = sorted(sampled) if all(are_sampled) else range(examples)
        digests = [hashlib.sha256() for _ in self.names]
        for row, values in zip(rows, self._each(rows), strict=True):
            for digest, value, is_sampled in zip(digests, values, are_sampled, strict=True):
                if row in sampled or not is_sampled:
                    digest.update(f"{value}\0".encode() if value.dtype.kind == "O" else value.tobytes())
        return tuple(digest.digest() for digest in digests)

    def _each(self, rows: Sequence[int]) -> Iterator[Values]:
        """Yields the fields of each of these rows, read in pieces; a text in place of those that cannot be read."""
        for begin in range(0, len(rows), PIECE):
            yield from self._piece(rows[begin : begin + PIECE])

    def _piece(self, rows: Sequence[int]) -> list[Values]:
        try:
            values = self.read(np.asarray(rows))
        except DataError:
            if len(rows) == 1:
                return [(UNREADABLE,) * len(self.names)]
            return [values for row in rows for values in self._piece([row])]
        return list(zip(*(map(np.asarray, field) for field in values), strict=True))


class _ReadRows:
    """Reads rows of an object of examples, one after the other; a process can be given it."""

    def __init__(self, given: Any, where: str, names: tuple[str, ...]) -> None:
        """Reads the first example, which tells shapes and dtypes; raises DataError where there is none."""
        self.given = given
        self.where = where
        self.names = names
        if len(given) == 0:
            raise DataError(where, Words("no examples"), "at least one")
        self.first = self._pair(self._get([0])[0], 0)

    def __call__(self, rows: np.ndarray) -> Values:
        """Returns all fields of these rows."""
        numbers = [int(row) for row in rows]
        pairs = [self._pair(e, row) for row, e in zip(numbers, self._get(numbers), strict=True)]
        return tuple(self._stack(pairs, numbers, field) for field in range(len(self.names)))

    def _get(self, rows: Sequence[int]) -> list[Any]:
        """Returns examples, by `__getitems__` where the object has it."""
        row = rows[0]
        try:
            if hasattr(self.given, "__getitems__"):
                return list(self.given.__getitems__(list(rows)))
            got = []
            for row in rows:
                got.append(self.given[row])
        except JaxtrainError:
            raise
        except Exception as error:  # of the object that holds them
            hint = "Leave it out, or mend what it is read from"
            got = Words(f"an example that cannot be read ({type(error).__name__}: {error})")
            raise DataError(f"{self.where}, row {row}", got, "inputs and targets", hint) from error
        return got

    def _pair(self, example: Any, row: int) -> Values:
        return pair_of(example, f"{self.where}, row {row}", self.names)

    def _stack(self, pairs: Sequence[Values], rows: Sequence[int], field: int) -> np.ndarray:
        for row, pair in zip(rows, pairs, strict=True):
            demand_alike(pair, self.first, field, f"{self.where}, row {row}")
        return np.stack([pair[field] for pair in pairs]).astype(self.first[field].dtype, copy=False)


class ExampleField:
    """Inputs, targets or a further field of examples, as a `Field`."""

    def __init__(self, examples: _Examples, index: int) -> None:
        """Takes field 0, the inputs, 1, the targets, or a further one."""
        self._examples = examples
        self._index = index

    def start_processes(self, count: int) -> None:
        """Reads in `count` processes from now on, as all fields of these examples do."""
        self._examples.start_processes(count)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole field."""
        return (len(self), *self._examples.first[self._index].shape)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        return self._examples.first[self._index].dtype

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._examples.given)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the values of these rows; raises DataError naming the row."""
        return self._examples.read(rows)[self._index]

    def fingerprint(self) -> bytes:
        """Returns the object's own fingerprint, as data sets of `datasets` have one, else a hash of its examples.

        Of a field beyond 64 MiB, 64 evenly spaced examples are hashed.
        """
        own = getattr(self._examples.given, "_fingerprint", None)
        if isinstance(own, str):
            return f"{own} {self._examples.names[self._index]}".encode()
        return self._examples.digests[self._index]

    def version(self) -> bytes:
        """Returns the fingerprint: objects of Python have no times."""
        return self.fingerprint()
