"""Checks a document against its schema, which is read from docs/json.md and from nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "json.md"
COMMON = "Every document"
KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def read_schemas() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Returns heading -> (the keys of its document, the shapes that it names), as the page has them."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        blocks = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", section, re.DOTALL | re.MULTILINE)]
        found[section.splitlines()[0]] = (blocks[0], blocks[1] if len(blocks) > 1 else {})
    common, shapes = found.pop(COMMON)
    return {verb: (common | own, shapes | more) for verb, (own, more) in found.items()}


def faults(document: Any, verb: str) -> list[str]:
    """Returns where a document is not as the schema of a verb (or "error") says; none if it is."""
    keys, shapes = read_schemas()[verb]
    return list(_object_faults(document, keys, shapes, verb))


def _object_faults(value: Any, keys: dict[str, str], shapes: dict[str, Any], place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: {value!r} is no object"
        return
    required = {key for key in keys if not key.endswith("?")}
    allowed = {key.rstrip("?"): text.split(": ", 1)[0] for key, text in keys.items()}
    yield from (f"{place}: {key} is missing" for key in required - value.keys())
    for key, item in value.items():
        if key not in allowed:
            yield f"{place}: {key} is not described"
        else:
            yield from _faults(item, allowed[key], shapes, f"{place}.{key}")


def _faults(value: Any, kind: str, shapes: dict[str, Any], place: str) -> Iterator[str]:
    each = [list(_kind_faults(value, one, shapes, place)) for one in _alternatives(kind)]
    if all(each):
        yield from min(each, key=len) if len(each) == 1 else [f"{place}: {value!r} is no {kind}", *each[0][:3]]


def _kind_faults(value: Any, kind: str, shapes: dict[str, Any], place: str) -> Iterator[str]:
    if kind == "any":
        return
    if kind in shapes:
        yield from _object_faults(value, shapes[kind], shapes, place)
    elif kind in KINDS:
        if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
            yield f"{place}: {value!r} is no {kind}"
    elif kind[0] == kind[-1] == "'":
        if value != kind[1:-1]:
            yield f"{place}: {value!r} is not {kind}"
    elif (kind[0], kind[-1]) in (("[", "]"), ("{", "}")):
        if not isinstance(value, list if kind[0] == "[" else dict):
            yield f"{place}: {value!r} is no {kind}"
            return
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            yield from _faults(item, kind[1:-1], shapes, f"{place}.{key}")
    else:
        raise ValueError(f"{place}: the schema names an unknown type {kind!r}")


def _alternatives(kind: str) -> list[str]:
    """Splits a type at each " or " that stands outside of brackets."""
    parts = [""]
    for piece in re.split(r"( or |[\[\]{}])", kind):
        if piece == " or " and sum(map(parts[-1].count, "[{")) == sum(map(parts[-1].count, "]}")):
            parts.append("")
        else:
            parts[-1] += piece
    return parts
