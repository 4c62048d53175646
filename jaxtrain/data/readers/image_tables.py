"""A source of images that a table names, each with its target."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxtrain.config.schema import Name
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import ImageField, Size, image_form
from jaxtrain.data.images import Resampling
from jaxtrain.data.readers.folders import SPLIT_FOLDERS, SPLIT_OF, demand_inside, folder_of
from jaxtrain.data.source import SPLITS, Source, Split, missing
from jaxtrain.errors import DataError, Words, nearest, one_of
from jaxtrain.files import exists, is_file, is_link, read_text

JSON_LINES = (".jsonl", ".ndjson")


class Row(NamedTuple):
    """One row of a table: its line, and the values of the columns that were asked for."""

    line: int
    values: list[Any]


def image_table(
    path: Path,
    file: Name,
    image: Name,
    target: Name | tuple[str, ...],
    folder: Name | None = None,
    split: Name | None = None,
    size: Size | None = None,
    channels: Literal[1, 3, 4] | None = None,
    resampling: Resampling = "bilinear",
) -> Source:
    """Images that a CSV (with a header; .tsv: by tabs) or JSONL file names in a column, with targets in others.

    Names are relative to `folder`, else to the folder of `file`. One target is a class by its name or number, or a
    number; several columns are a row of numbers. The column `split` says train, validation or test. Inputs, `size`,
    `channels` and `resampling` are as of `image_folder`; targets (n,) or (n, columns): names, int64 or float32.
    Raises DataError naming line and file.
    """
    table = path / file
    if not exists(table):
        raise missing("image_table", f"file {file}", path)
    root = table.parent if folder is None else folder_of("image_table", path, folder)
    targets = (target,) if isinstance(target, str) else target
    columns = [image, *targets, *([] if split is None else [split])]
    rows = list(_json_rows(table, columns) if table.suffix in JSON_LINES else _csv_rows(table, columns))
    if not rows:
        raise DataError(str(table), Words("no rows"), "a row for each image")
    names = _file_names(table, root, rows)
    values = _targets(table, targets, rows)
    parts = [_split_of(table, split, row) for row in rows] if split else ["train"] * len(rows)
    chosen = {name: np.flatnonzero(np.array(parts) == name) for name in SPLITS if name in parts}
    files = {
        name: FileList(root, [names[i] for i in kept], [f"line {rows[i].line} of {table}" for i in kept])
        for name, kept in chosen.items()
    }
    form = image_form(list(files.values()), root, size, channels, resampling)
    return Source(
        {name: Split(ImageField(files[name], form), values[kept], str(table)) for name, kept in chosen.items()}
    )


def _csv_rows(table: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the values of these columns of a CSV, as texts; raises DataError for a row of another length."""
    text = io.StringIO(read_text(table).removeprefix("\ufeff"), newline="")
    reader = csv.reader(text, strict=True, delimiter="\t" if table.suffix == ".tsv" else ",")
    header: list[str] = []
    try:
        for values in reader:
            where = _where(table, reader.line_num)
            if not header:
                header = _check_header(where, values, columns)
            elif values:
                if len(values) != len(header):
                    got = Words(f"{len(values)} values")
                    hint = 'Quote values that hold a comma, as "a, b"'
                    raise DataError(where, got, f"{len(header)}, as in the header", hint)
                yield Row(reader.line_num, [values[header.index(name)].strip() for name in columns])
    except csv.Error as error:
        raise DataError(_where(table, reader.line_num), Words(str(error)), "CSV", "Close each quote") from error


def _check_header(where: str, header: list[str], columns: Sequence[str]) -> list[str]:
    header = [name.strip() for name in header]
    for name in columns:
        if header.count(name) != 1:
            got = Words(f"the columns {', '.join(header)}")
            raise DataError(where, got, f"the column {name} once among them", nearest(name, header))
    return header


def _json_rows(table: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the values of these keys of each line; raises DataError for a line that is no object with all of them."""
    for number, text in enumerate(read_text(table).split("\n"), 1):
        if not text.strip():
            continue
        where = _where(table, number)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(where, Words(f"text that is not JSON ({error})"), "an object in each line") from error
        if not isinstance(found, dict):
            raise DataError(where, Words(f"a {type(found).__name__}"), "an object in each line")
        for name in columns:
            if name not in found:
                got = Words(f"the keys {', '.join(found)}")
                raise DataError(where, got, f"{name} among them", nearest(name, found))
        yield Row(number, [found[name] for name in columns])


def _where(table: Path, line: int) -> str:
    return f"{table}, line {line}"


def _file_names(table: Path, root: Path, rows: Sequence[Row]) -> list[str]:
    """Returns the image of each row relative to the root; raises DataError if it is missing or leads out of it."""
    inside: set[Path] = set()  # folders whose links were followed
    names = []
    for row in rows:
        where = _where(table, row.line)
        given = row.values[0]
        if not isinstance(given, str) or not given:
            raise DataError(where, given, "the name of an image file")
        name = PurePath(given)
        if name.is_relative_to(root):
            name = name.relative_to(root)
        if name.is_absolute() or ".." in name.parts:
            hint = "Set data.folder to the folder of the images"
            raise DataError(where, Words(f"{given!r}, which leads out of {root}"), "a path that stays in it", hint)
        place = root / name
        if not is_file(place):
            hint = "Write names with their endings, or set data.folder to the folder of the images"
            raise DataError(where, Words(f"{given!r}, which is no file"), f"an image file in {root}", hint)
        if is_link(place) or place.parent not in inside:
            demand_inside(place, root, where)
            inside.add(place.parent)
        names.append(str(name))
    return names


def _split_of(table: Path, column: str, row: Row) -> str:
    given = row.values[-1]
    split = SPLIT_OF.get(str(given).lower())
    if split is None:
        raise DataError(_where(table, row.line), Words(f"{column} {given!r}"), one_of(SPLIT_FOLDERS))
    return split


def _targets(table: Path, names: Sequence[str], rows: Sequence[Row]) -> np.ndarray:
    """Returns texts or int64 (n,) or float32 (n,) for one column, float32 (n, columns) for several."""
    columns = [[_number(table, name, row, place + 1) for row in rows] for place, name in enumerate(names)]
    for name, values in zip(names, columns, strict=True):
        first = values[0] if len(names) == 1 else 0
        for row, value in zip(rows, values, strict=True):
            if isinstance(value, str) != isinstance(first, str):
                got = Words(f"{name} {value!r}")
                expected = f"a {'text' if isinstance(first, str) else 'number'}"
                raise DataError(_where(table, row.line), got, expected if len(names) > 1 else f"{expected}, as before")
    if len(names) > 1:
        return np.array(columns, np.float32).T
    kind = str if isinstance(columns[0][0], str) else np.float32
    return np.array(columns[0], np.int64 if all(type(value) is int for value in columns[0]) else kind)


def _number(table: Path, name: str, row: Row, place: int) -> int | float | str:
    """Returns a target as a number where it is one, else its text; raises DataError for a missing or infinite one."""
    given = row.values[place]
    if isinstance(given, bool):
        return int(given)
    if isinstance(given, str) and given:
        with_sign = given.removeprefix("-")
        if with_sign.isdecimal() and len(with_sign) <= 18:
            return int(given)
        try:
            given = float(given)
        except ValueError:
            return given
    if not isinstance(given, int | float) or not math.isfinite(given):
        got = Words(f"no {name}" if given in (None, "") else f"{name} {given!r}")
        raise DataError(_where(table, row.line), got, "a name or a finite number", "Leave out images without a target")
    return given
