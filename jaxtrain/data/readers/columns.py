"""Columns of a file become columns of numbers, of categories, or targets; what is neither is an error with its line."""

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxtrain.config.schema import LARGEST
from jaxtrain.data.tables import DATES, LONGEST_TEXT, TEXT, Kind, shown
from jaxtrain.errors import DataError, JaxtrainWarning, Words

TargetKind = Literal["number", "category", "integer", "labels"]

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")
"""Texts that stand for a missing value unless a config lists others."""

FEW = 3
MANY = 30
"""Texts among at least MANY values are strays in a column of numbers if they are at most FEW, or fewer than 1 %."""

_TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?( ?Z| ?[+-]\d{2}:?\d{2}| ?UTC)?"
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    r"\d{4}(?P<a>[-/.])\d{1,2}(?P=a)\d{1,2}|\d{1,2}(?P<b>[-/.])\d{1,2}(?P=b)(\d{4}|\d{2})"
    rf"|\d{{1,2}}[ -]{_MONTH}[ -]\d{{2,4}}|{_MONTH} \d{{1,2}}, \d{{4}}"
)
DATE = "a date or time"
LOOKS = {
    DATE: (re.compile(rf"({_DATE})([T ]{_TIME})?|{_TIME}", re.IGNORECASE), DATES),
    "a number with commas": (
        re.compile(r"[+-]?\d+(\.\d{3})*,\d+|[+-]?\d{1,3}(,\d{3})+(\.\d+)?"),
        "Write it as in 1234.5",
    ),
}
"""Forms of a column of texts that are no categories, and the way to write each as numbers."""

_SORTABLE = re.compile(r"\d{4}([-/.]\d{2}){2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?Z?)?")
_INTEGER = re.compile(r"[+-]?\d{1,19}")

Place = Callable[[int], str]
"""Returns "file, line 7" for a row."""


@dataclass(frozen=True)
class ColumnTypes:
    """The texts that are missing values, and the columns whose type is set: to numbers, or to categories."""

    missing: tuple[str, ...] = MISSING
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    def set_for(self, name: str) -> Kind | None:
        """Returns the kind that is set for a column, None where its values decide."""
        return "number" if name in self.numbers else "category" if name in self.categories else None


def as_texts(values: Sequence[str], place: Place) -> np.ndarray:
    """Returns texts (n,) as an array; raises DataError for a lone surrogate, half a character, which JSON can write."""
    try:
        return np.array(values, TEXT)
    except UnicodeEncodeError as error:
        row = next(row for row, text in enumerate(values) if any("\ud800" <= c <= "\udfff" for c in text))
        raise DataError(place(row), values[row][:LONGEST_TEXT], "a text of whole characters") from error


def clean(values: np.ndarray, missing: Sequence[str]) -> np.ndarray:
    """Returns texts (n,) without spaces around them, and "" where one is missing; numbers are returned as they are."""
    if values.dtype.kind != "T":
        return values
    texts = np.strings.strip(values)
    absent = np.zeros(len(texts), bool)
    for text in missing:
        absent |= texts == text
    texts[absent] = ""
    return texts


def read_column(name: str, values: np.ndarray, kind: Kind | None, place: Place) -> np.ndarray:
    """Returns clean values as float64 with nan where missing, or as texts where they are categories.

    Without a `kind`, a column of texts is numbers if all its values are written as such, and not as codes, of which it
    warns. Raises DataError for a text among numbers, a number that is not finite, dates, and numbers with commas.
    """
    if values.dtype.kind != "T":
        return _as_categories(values) if kind == "category" else _as_floats(name, values, place)
    if kind == "category":
        return values
    if kind is None and are_codes(values):
        _warn_of_codes(name, values, place)
        return values
    numbers, strays = parse_numbers(values)
    count = int(strays.sum())
    if not count:
        return numbers
    present = int(np.sum(values != ""))
    few = count < 0.01 * present or (count <= FEW and present >= MANY)
    if kind == "number" or few or all(map(_is_written_as_number, set(values[strays].tolist()))):
        raise _stray(name, values, strays, present, place)
    if count == present:
        _refuse_looks(name, values, place)
    return values


def read_target(name: str, values: np.ndarray, kind: TargetKind | None, place: Place) -> np.ndarray:
    """Returns targets of clean values: int64 if all are written as integers, float64 if all are numbers, else texts.

    Codes stay texts, as by `read_column`. `kind` is that of the training targets, or is set. Raises DataError for a
    missing target, and as `read_column`.
    """
    if kind == "labels":
        got = Words(f"{shown(str(values[0]))} in the column {name!r}")
        raise DataError(place(0), got, "a list of labels, as in training")
    absent = np.flatnonzero(values == "" if values.dtype.kind == "T" else values != values)
    if len(absent):
        got = Words(f"no value in the column {name!r}")
        raise DataError(place(int(absent[0])), got, "a target in each row", "Leave the row out, or fill it in")
    if values.dtype.kind == "i" and kind in (None, "integer"):
        return values
    column = read_column(name, values, "number" if kind == "integer" else kind, place)
    if column.dtype.kind != "f" or kind == "number":
        return column
    integers = _as_integers(values) if values.dtype.kind == "T" else None
    if integers is None and kind == "integer":
        broken = np.flatnonzero(column != np.round(column))
        if len(broken):
            got = Words(f"{column[broken[0]]} in the column {name!r}")
            raise DataError(place(int(broken[0])), got, "an integer, as in training")
        return column.astype(np.int64)
    return column if integers is None else integers


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Returns clean values as numbers if all are, also codes, else as they are."""
    if values.dtype.kind != "T":
        return values
    numbers, strays = parse_numbers(values)
    return values if strays.any() else numbers


def is_ordered(values: np.ndarray) -> bool:
    """Tells whether clean values have an order: there are any, and dates among them begin with year and month."""
    if values.dtype.kind != "T":
        return not np.isnan(values).all()
    texts = [text for text in values.tolist() if text]
    dates = LOOKS[DATE][0]
    return bool(texts) and (not all(map(dates.fullmatch, texts)) or all(map(_SORTABLE.fullmatch, texts)))


def are_codes(values: np.ndarray) -> bool:
    """Tells whether clean values (n,) are texts of digits, some with zeros in front, such as `01003`."""
    if values.dtype.kind != "T" or not _are_padded(values).any():
        return False
    return bool((np.strings.isdecimal(values) | (values == "")).all())


def _are_padded(texts: np.ndarray) -> np.ndarray:
    return np.strings.startswith(texts, "0") & (np.strings.str_len(texts) > 1)


def target_kind(targets: np.ndarray) -> TargetKind:
    """Returns the kind of targets that `read_target` returned."""
    kinds: dict[str, TargetKind] = {"T": "category", "i": "integer", "O": "labels"}
    return kinds.get(targets.dtype.kind, "number")


def parse_numbers(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns clean texts (n,) as float64, nan where missing or no number, and which are there and are no number."""
    absent = texts == ""
    try:
        filled = np.where(absent, np.array("nan", TEXT), texts) if absent.any() else texts
        numbers = filled.astype(np.float64)
    except ValueError:
        of = {text: _number(text) for text in set(texts.tolist())}
        numbers = np.fromiter(map(of.__getitem__, texts.tolist()), np.float64, len(texts))
    numbers[np.strings.find(texts, "_") >= 0] = math.nan  # Python reads 1_000 as a number
    strays = ~absent & ~(np.abs(numbers) <= LARGEST)
    numbers[strays] = math.nan
    return numbers, strays


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_written_as_number(text: str) -> bool:
    """Tells whether a text is a number, finite or not: `inf` and 1e999 among numbers are no categories."""
    return not math.isnan(_number(text)) and "_" not in text


def _as_integers(texts: np.ndarray) -> np.ndarray | None:
    """Returns texts as int64 if all are written as integers of 64 bits."""
    if not all(map(_INTEGER.fullmatch, set(texts.tolist()))):
        return None
    try:
        return texts.astype(np.int64)
    except (ValueError, OverflowError):
        return None


def _as_categories(numbers: np.ndarray) -> np.ndarray:
    return np.array(["" if number != number else str(number) for number in numbers.tolist()], TEXT)


def _as_floats(name: str, numbers: np.ndarray, place: Place) -> np.ndarray:
    values = numbers.astype(np.float64)
    strays = np.flatnonzero(np.abs(values) > LARGEST)
    if len(strays):
        got = Words(f"{values[strays[0]]} in the column {name!r}")
        hint = "Fill or scale the values, or leave those rows out"
        raise DataError(place(int(strays[0])), got, "finite numbers in the range of float32", hint)
    return values


def _warn_of_codes(name: str, texts: np.ndarray, place: Place) -> None:
    row = int(np.flatnonzero(_are_padded(texts))[0])
    got = Words(f"{shown(texts[row])} in the column {name!r}, digits with a zero in front")
    expected = f"data.categories=({name!r},) or data.numbers=({name!r},). It is taken for categories"
    warnings.warn(JaxtrainWarning(place(row), got, expected), stacklevel=2)


def _stray(name: str, texts: np.ndarray, strays: np.ndarray, present: int, place: Place) -> DataError:
    row = int(np.flatnonzero(strays)[0])
    numbers = present - int(strays.sum())
    got = Words(f"{shown(texts[row])} in the column {name!r}, where {numbers:,} of {present:,} values are numbers")
    hint = "Correct it, add it to data.missing, or name the column in data.categories if it holds categories"
    return DataError(place(row), got, "a finite number in the range of float32", hint)


def _refuse_looks(name: str, texts: np.ndarray, place: Place) -> None:
    """Raises DataError for a column of dates or of numbers with commas: as categories they would mean nothing."""
    row = int(np.flatnonzero(texts != "")[0])
    for look, (form, remedy) in LOOKS.items():
        if all(form.fullmatch(text) for text in texts.tolist() if text):
            got = Words(f"{texts[row]!r}, {look}, as all values of the column {name!r}")
            hint = f"{remedy}, leave the column out (data.drop), or name it in data.categories"
            raise DataError(place(row), got, "a number or a category", hint)
