"""A source of comma-separated values."""

import contextlib
import csv as csv_format
import itertools
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxtrain.config.schema import Count, Name
from jaxtrain.data.host_memory import total_memory
from jaxtrain.data.readers.columns import MISSING, ColumnTypes, as_texts, parse_numbers
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
from jaxtrain.errors import DataError, JaxtrainWarning, Words

Delimiter = Literal[",", ";", "\t", "|", " "]
DELIMITERS: tuple[Delimiter, ...] = (",", ";", "\t", "|")
"""Delimiters that are recognised."""

SAMPLE = 50
"""Rows by which the delimiter is recognised."""

BLOCK = 2**16
"""Rows that are held as lists of texts at a time."""


def csv(
    path: Path,
    file: Name,
    target: str | int | tuple[str, ...],
    test_file: Name | None = None,
    validation_file: Name | None = None,
    header: bool | None = None,
    names: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    missing: tuple[str, ...] = MISSING,
    target_strip: str = "",
    target_separator: str = "",
    split_column: Name | None = None,
    delimiter: Delimiter | None = None,
    encoding: Name = "utf-8",
    text: Name | None = None,
    tokens: Tokens | None = None,
    context: Count | None = None,
    vocabulary: Pairs | None = None,
) -> Source:
    """A table of comma-separated values, plain or .gz, one column of which is the target, by its name or number.

    A column is numbers if all its values are, else categories, as are digits with zeros in front (01003); `numbers` and
    `categories` set it. Targets, by the same rule, are classes by name, integers or floats, or with a
    `target_separator` between them labels by name, of which the separator alone lists none. Several columns, by their
    names, are a row of numbers. `missing` lists the texts for a missing value. `drop` leaves columns out;
    `split_column` says train, validation or test. Columns have the names of the first line (`header`; None: if it has
    the target's name, or texts above numbers), else `names`, else column_0, column_1, ... Characters in `target_strip`
    are removed from the end of targets. `delimiter` None: the one of , ; | and tab that fits. With `text`, the texts of
    that column alone are the inputs, as `tokens` (None: bytes), cut off after `context` of them (None: 256); of
    byte_pairs there are at most `vocabulary` (None: 4096). Raises DataError naming file and line.
    """
    types = ColumnTypes(missing, numbers, categories)
    alone = alone_of({"text": text, "tokens": tokens, "context": context, "vocabulary": vocabulary})
    roles = Roles(target, drop, split_column, types, target_strip, target_separator, alone)
    form = CsvForm(header, names, delimiter, encoding)
    files = find_files("csv", path, {"train": file, "validation": validation_file, "test": test_file})
    return make_source({split: read_records(place, form, roles) for split, place in files.items()}, roles)


def read_csv_table(file: Path, knobs: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Table:
    """Returns the inputs of a new file, to predict from, with or without the target.

    `knobs` are those of `csv` that the run was trained with, and `kinds` those of its table, in their order. Raises
    DataError naming file and line.
    """
    roles = Roles.of_knobs(knobs)
    return inputs_alone(read_records(file, CsvForm.of_knobs(knobs), roles, list(kinds)), roles, kinds)


@dataclass(frozen=True)
class CsvForm:
    """The form of a file, as in the knobs of `csv`."""

    header: bool | None = None
    names: tuple[str, ...] = ()
    delimiter: Delimiter | None = None
    encoding: str = "utf-8"

    @classmethod
    def of_knobs(cls, knobs: Mapping[str, Any]) -> "CsvForm":
        """Returns the form of the files that a run was trained on."""
        return cls(knobs["header"], knobs["names"], knobs["delimiter"], knobs["encoding"])


def read_records(file: Path, form: CsvForm, roles: Roles, inputs: Sequence[str] = ()) -> Records:
    """Reads all rows of a file as texts; `inputs` are the columns of training, of a file to predict from.

    Raises DataError for an empty file, rows of another length, quotes that are never closed, bytes that are no text,
    and column names that are missing or doubled.
    """
    parts = list(iterate_records(file, form, roles, inputs, most=total_memory() // SHARE))
    names = list(parts[0].columns)
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
    lines = np.concatenate([part.places.numbers for part in parts])
    return Records(columns, Places([str(file)], lines), parts[0].remedy)


def iterate_records(
    file: Path,
    form: CsvForm,
    roles: Roles,
    inputs: Sequence[str] = (),
    note_bad: NoteBad = refuse,
    most: int | None = None,
) -> Generator[Records]:
    """Yields the rows of a file as `read_records` reads them, a block at a time; `note_bad` gets those of a bad length.

    `most` limits the bytes of the text, for one who keeps all rows. Raises DataError as `read_records`.
    """
    with open_lines(file, form.encoding, most) as text:
        rows = _rows(file, text, form.delimiter or _delimiter(file, form.encoding))
        first = list(itertools.islice(rows, 2))
        if not first:
            raise DataError(str(file), Words("an empty file"), "rows of values")
        has_header = _has_header(file, [row for _, row in first], form, roles, inputs)
        line, top = first[0]
        if has_header and len(first) == 1:
            hint = "Set data.header=False if it is a row of values"
            raise DataError(str(file), Words("a header and no rows"), "at least one row", hint)
        named = _names(f"{file}, line {line}", top if has_header else None, len(top), form, roles, inputs)
        remedy = "Name the columns by data.names if its first line holds values" if has_header else ""
        numbered = enumerate(itertools.chain(first[has_header:], rows))
        while block := list(itertools.islice(numbered, BLOCK)):
            kept = list(_of_length(file, block, len(top), line, note_bad))
            places = Places([str(file)], np.array([at for _, at, _ in kept], np.int64))
            cells = zip(*(row for _, _, row in kept), strict=True) if kept else ([] for _ in named)
            columns = [as_texts(column, places) for column in cells]
            numbers = np.array([number for number, _, _ in kept], np.int64)
            yield Records(dict(zip(named, columns, strict=True)), places, remedy, numbers)


def _of_length(
    file: Path, rows: list[tuple[int, tuple[int, list[str]]]], width: int, first: int, note_bad: NoteBad
) -> Iterator[tuple[int, int, list[str]]]:
    """Yields (number, line, cells) of the rows of a width, that of line `first`."""
    for number, (line, row) in rows:
        if len(row) == width:
            yield number, line, row
            continue
        hint = "Write a value that holds the delimiter in quotes, or set data.delimiter"
        note_bad(DataError(f"{file}, line {line}", Words(f"{len(row)} cells"), f"{width}, as in line {first}", hint))


def _rows(file: Path, text: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line at which it begins, cells) of each row; blank lines at the end are left out."""
    reader = csv_format.reader(text, delimiter=delimiter, strict=True, skipinitialspace=True)
    blank = 0
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv_format.Error as error:
            raise _broken(f"{file}, line {line}", reader.line_num, line, error) from error
        if row is None:
            return
        if not row or (len(row) == 1 and not row[0].strip()):
            blank = blank or line
            continue
        if blank:
            raise DataError(f"{file}, line {blank}", Words("a blank line"), "a row", "Remove it")
        yield line, row


def _broken(where: str, last: int, line: int, error: csv_format.Error) -> DataError:
    if last > line or "unexpected end" in str(error):
        hint = 'Close it, or write a quote that is part of a value twice: ""'
        return DataError(where, Words("a quote that is not closed in its row"), "closed quotes", hint)
    if "new-line character" in str(error):
        return DataError(where, Words("line ends of a carriage return alone"), "a line feed at each line's end")
    got = Words(f"a row that cannot be read ({error})")
    return DataError(where, got, "comma-separated values", 'Write a quote that is part of a value twice: ""')


def _delimiter(file: Path, encoding: str) -> Delimiter:
    """Returns the delimiter that splits the first rows into most cells, alike in all if there is such a one."""
    fits = {}
    for delimiter in DELIMITERS:
        widths: list[int] = []
        # What is wrong with a row is raised again when all are read with the delimiter that is chosen.
        with open_lines(file, encoding) as text, contextlib.suppress(DataError):
            for _, row in itertools.islice(_rows(file, text, delimiter), SAMPLE):
                widths.append(len(row))
        fits[delimiter] = (len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0)
    return max(DELIMITERS, key=lambda delimiter: fits[delimiter])


def _has_header(file: Path, rows: list[list[str]], form: CsvForm, roles: Roles, inputs: Sequence[str]) -> bool:
    """Tells whether the first row holds the names of the columns; warns where only the kinds of its values tell."""
    first = [cell.strip() for cell in rows[0]]
    if form.header is not None:
        return form.header
    if inputs and set(inputs) <= set(first):
        return True
    if form.names:
        return first == list(form.names)
    if not isinstance(roles.target, int):
        return True
    if inputs:
        return not set(first).isdisjoint(inputs)
    found = _is_above_numbers(first, rows[1:])
    got = Words("a file that does not tell whether it has a header")
    expected = f"data.header=True or False. Its first line is taken for {'names' if found else 'values'}"
    warnings.warn(JaxtrainWarning(str(file), got, expected), stacklevel=2)
    return found


def _is_above_numbers(first: list[str], others: list[list[str]]) -> bool:
    """Tells whether a row holds different texts, some of them above numbers."""
    texts = set(first) - set(MISSING)
    _, strays = parse_numbers(np.array(first, TEXT))
    if len(texts) < len(first) or not strays.all():
        return False
    return any(not parse_numbers(np.array([cell.strip() or "-"], TEXT))[1][0] for row in others for cell in row)


def _names(
    where: str, header: list[str] | None, width: int, form: CsvForm, roles: Roles, inputs: Sequence[str]
) -> list[str]:
    """Returns the names of the columns, those in the header or others; raises DataError for a missing or doubled one.

    A file to predict from, without a target, has the columns `inputs` in this order if it does not name them.
    """
    named = [cell.strip() for cell in header or ()]
    if not named or (form.names and not (inputs and set(inputs) <= set(named))):
        fitting = [names for names in (form.names, inputs) if len(names) == width]
        named = list(fitting[0]) if fitting else [f"column_{i}" for i in range(width)]
        if form.names and not fitting:
            got = Words(f"{width} cells")
            raise DataError(where, got, f"{len(form.names)}, for data.names", "Name each column, the target too")
    for i, name in enumerate(named):
        if name in named[:i] and name:
            got = Words(f"the name {name!r} of the columns {named.index(name)} and {i}")
            raise DataError(where, got, "a name of its own for each column", "Give other names, by data.names")
    blank = [i for i, name in enumerate(named) if not name]
    if blank and f"column_{blank[0]}" not in roles.drop:
        hint = f"Leave it out, by data.drop=('column_{blank[0]}',), or name it"
        raise DataError(where, Words(f"no name for the column {blank[0]}"), "a name for each column", hint)
    return [name or f"column_{i}" for i, name in enumerate(named)]
