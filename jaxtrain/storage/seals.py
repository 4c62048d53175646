"""Seals: checksums in JSON objects, by which one that was changed since it was written is known.

A seal guards against accidents and forgotten edits. It is no signature: who edits on purpose can compute a new one.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError, Words
from jaxtrain.files import read_json, through_json, write_json

SEAL = "seal"
"""The key of a sealed object that holds its seal."""


def add_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its seal as the last key."""
    return {**content, SEAL: seal_of(content)}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a sealed JSON object atomically; raises StorageError when the file cannot be written."""
    write_json(path, add_seal(through_json(content)))


def read_sealed(path: Path, expected: str, hint: str = "") -> dict[str, Any]:
    """Reads a sealed JSON object without its seal; raises StorageError if it cannot be read or was changed."""
    content = read_json(path)
    if not is_sealed(content):
        raise StorageError(str(path), Words("content that fails its checksum"), expected, hint)
    return without_seal(content)


def read_if_sealed(path: Path, say: Callable[[str], None], keys: Collection[str]) -> dict[str, Any] | None:
    """Reads what can be made again, as `read_sealed`, an object that has these keys.

    Returns None, said in one line, if it cannot be read, was changed, or lacks some, such as that of another version.
    """
    try:
        content = read_sealed(path, "what was written")
        if lacking := [key for key in keys if key not in content]:
            raise StorageError(str(path), Words(f"an object without {lacking[0]!r}"), "what this version writes")
        return content
    except StorageError as error:
        say(f"{error}. It is made again")
        return None


def is_sealed(content: Any) -> bool:
    """Tells whether what was read from JSON is an object that holds the seal of its other keys."""
    return isinstance(content, dict) and content.get(SEAL) == seal_of(without_seal(content))


def without_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object without its seal."""
    return {key: value for key, value in content.items() if key != SEAL}


def seal_of(content: Any) -> str:
    """Returns 16 hexadecimal digits of a hash over JSON; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def chain(contents: Iterable[Any], before: str = "") -> str:
    """Returns one seal over objects in their order; `before` is the seal of those that precede them."""
    return functools.reduce(lambda seal, content: seal_of([seal, seal_of(content)]), contents, before)
