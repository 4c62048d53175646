"""Seals: checksums in JSON objects, by which one that was changed since it was written is known.

A seal guards against accidents and forgotten edits. It is no signature: who edits on purpose can compute a new one.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError, Words, message
from jaxtrain.files import as_json_value, read_json, write_json

SEAL = "seal"
"""The key of a sealed object that holds its seal."""


def add_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its seal as the last key."""
    return {**content, SEAL: seal_of(content)}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a sealed JSON object atomically; raises StorageError when the file cannot be written."""
    write_json(path, add_seal(json.loads(json.dumps(as_json_value(content)))))


def read_sealed(path: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Reads a sealed JSON object without its seal; None, said in one line, if it cannot be read or was changed."""
    try:
        content = read_json(path)
    except StorageError as error:
        say(f"{error}. It is made again")
        return None
    if is_sealed(content):
        return without_seal(content)
    say(message(str(path), Words("content that fails its checksum"), "what was written", "It is made again"))
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
