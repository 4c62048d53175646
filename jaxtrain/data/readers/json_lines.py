"""A source of JSON Lines: one object a line."""

import itertools
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from jaxtrain.config.schema import Count, Name
from jaxtrain.data.host_memory import total_memory
from jaxtrain.data.readers.columns import MISSING, ColumnTypes, as_texts
from jaxtrain.data.readers.label_lists import as_text
from jaxtrain.data.readers.number_lists import as_sequence
from jaxtrain.data.readers.records import (
    NoteBad,
    Records,
    Roles,
    alone_of,
    find_files,
    inputs_alone,
    make_source,
    refuse,
)
from jaxtrain.data.readers.text_lines import SHARE, open_lines
from jaxtrain.data.source import Source
from jaxtrain.data.tables import TEXT, Kind, Places, Table
from jaxtrain.data.vocabulary import Pairs, Tokens
from jaxtrain.errors import DataError, Words

BLOCK = 2**14
"""Rows that are held as objects at a time."""

Fields = dict[str, Any]
"""The fields of one line by dotted names, as texts; a sequence as an array."""


def jsonl(
    path: Path,
    file: Name,
    target: Name | tuple[str, ...],
    test_file: Name | None = None,
    validation_file: Name | None = None,
    drop: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    missing: tuple[str, ...] = MISSING,
    target_strip: str = "",
    split_column: Name | None = None,
    text: Name | None = None,
    tokens: Tokens | None = None,
    context: Count | None = None,
    vocabulary: Pairs | None = None,
    sequence: Name | None = None,
) -> Source:
    """A table with one JSON object a line, plain or .gz, one field of which is the target; inner fields as "a.b".

    A column is numbers if all its values are, also in quotes, else categories (true, false and "01003" are); `numbers`
    and `categories` set it. Targets are classes by name, integers or floats, or lists of labels by name; several fields
    are a row of numbers. null, an absent field and the texts of `missing` are missing values. `drop` leaves fields out,
    lists too; `split_column` says train, validation or test. Characters in `target_strip` are removed from the end of
    targets. With `text`, the texts of that field alone are the inputs, with `tokens`, `context` and `vocabulary` as in
    `csv`; with `sequence`, the lists of numbers or of rows of numbers in that field, each cut off after `context` of
    them (None: none). Raises DataError naming file and line.
    """
    types = ColumnTypes(missing, numbers, categories)
    given = {"text": text, "tokens": tokens, "context": context, "vocabulary": vocabulary, "sequence": sequence}
    roles = Roles(target, drop, split_column, types, target_strip, alone=alone_of(given))
    files = find_files("jsonl", path, {"train": file, "validation": validation_file, "test": test_file})
    records = {split: read_records(place, roles) for split, place in files.items()}
    return make_source(records, roles)


def read_jsonl_table(file: Path, knobs: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Table:
    """Returns the inputs of a new file, to predict from, with or without the target.

    `knobs` are those of `jsonl` that the run was trained with, and `kinds` those of its table. Raises DataError naming
    file and line.
    """
    roles = Roles.of_knobs(knobs)
    return inputs_alone(read_records(file, roles), roles, kinds)


def read_records(file: Path, roles: Roles) -> Records:
    """Reads all rows of a file as texts, also lists of labels in fields that are targets; sequences are arrays.

    Raises DataError for a line that is no object, or a field that is no value.
    """
    parts = list(iterate_records(file, roles, most=total_memory() // SHARE))
    columns = {
        name: np.concatenate([part.columns.get(name, _absent(name, len(part), roles)) for part in parts])
        for name in dict.fromkeys(name for part in parts for name in part.columns)
    }
    return Records(columns, Places([str(file)], np.concatenate([part.places.numbers for part in parts])))


def iterate_records(
    file: Path,
    roles: Roles,
    note_bad: NoteBad = refuse,
    most: int | None = None,
) -> Generator[Records]:
    """Yields the rows of a file as `read_records` reads them, a block at a time, with the fields that are in it.

    `note_bad` gets the errors of lines that cannot be read; `most` limits the bytes of the text, for one who keeps all
    rows. Raises DataError as `read_records`.
    """
    with open_lines(file, most=most) as text:
        rows = _rows(file, text, roles, note_bad)
        first = next(rows, None)
        if first is None:
            raise DataError(str(file), Words("an empty file"), "one JSON object a line")
        rows = itertools.chain([first], rows)
        while block := list(itertools.islice(rows, BLOCK)):
            lines = np.array([line for line, _ in block])
            places = Places([str(file)], lines)
            names = dict.fromkeys(name for _, row in block for name in row)
            columns = {name: _column(name, [row for _, row in block], places, roles) for name in names}
            yield Records(columns, places, rows=lines - 1)


def _column(name: str, rows: Sequence[Fields], places: Places, roles: Roles) -> np.ndarray:
    """Returns a field of rows (n,) as texts, or as objects, which are arrays where a row has a sequence."""
    if name != roles.sequence:
        return as_texts([row.get(name, "") for row in rows], places)
    column = _absent(name, len(rows), roles)
    for i, row in enumerate(rows):
        column[i] = row.get(name)
    return column


def _absent(name: str, count: int, roles: Roles) -> np.ndarray:
    """Returns a column of a field that no row has."""
    return np.full(count, None, object) if name == roles.sequence else np.full(count, "", TEXT)


def _rows(file: Path, lines: Iterator[str], roles: Roles, note_bad: NoteBad) -> Iterator[tuple[int, Fields]]:
    """Yields (line, its fields); blank lines at the end are left out."""
    blank = 0
    for line, text in enumerate(lines, 1):
        where = f"{file}, line {line}"
        if not text.strip():
            blank = blank or line
            continue
        if blank:
            raise DataError(f"{file}, line {blank}", Words("a blank line"), "a JSON object", "Remove it")
        fields: Fields = {}
        try:
            _flatten(_parse(text, where), "", roles, where, fields)
        except DataError as error:
            note_bad(error)
            continue
        yield line, fields


def _parse(text: str, where: str) -> dict[str, Any]:
    """Parses a line; numbers stay texts, as they are written."""

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            doubled = next(name for name in names if names.count(name) > 1)
            raise DataError(where, Words(f"the field {doubled!r} twice"), "each field once")
        return found

    def refuse(constant: str) -> NoReturn:
        raise DataError(where, Words(constant), "a finite number, or null for a missing one")

    try:
        value = json.loads(
            text, object_pairs_hook=as_object, parse_constant=refuse, parse_int=_as_written, parse_float=_as_written
        )
    except (json.JSONDecodeError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else f"{error.msg} in column {error.colno}"
        raise DataError(where, Words(f"a line that is no JSON ({reason})"), "one JSON object a line") from error
    if not isinstance(value, dict):
        hint = "Write each object of the list on a line of its own" if isinstance(value, list) else ""
        raise DataError(where, Words(f"a line with a {_kind(value)}"), 'an object, such as {"age": 39}', hint)
    return value


class _Number(str):
    """A number as it is written."""


_as_written = _Number


def _kind(value: Any) -> str:
    kinds = {list: "list", dict: "object", _Number: "number", str: "text", bool: "truth value"}
    return kinds.get(type(value), "null")


def _flatten(value: dict[str, Any], start: str, roles: Roles, where: str, fields: Fields) -> None:
    """Adds the fields of an object, and of those in it, by dotted names."""
    for key, inner in value.items():
        name = f"{start}{key}"
        if name in roles.drop and isinstance(inner, list | dict):
            fields[name] = ""  # so that the name is known
        elif isinstance(inner, dict):
            _flatten(inner, f"{name}.", roles, where, fields)
        elif name in fields:
            raise DataError(where, Words(f"the field {name!r} twice"), "each field once")
        elif name == roles.sequence:
            fields[name] = as_sequence(inner, name, where)
        elif isinstance(inner, list) and name in roles.target_names:
            fields[name] = as_text(inner, name, where)
        elif isinstance(inner, list):
            hint = f"Leave it out, by data.drop=({name!r},), or name it by data.sequence, if such lists are the inputs"
            raise DataError(where, Words(f"a list in the field {name!r}"), "a number or a text", hint)
        else:
            fields[name] = _as_text(inner)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value
