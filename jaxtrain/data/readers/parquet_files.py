"""A source of Parquet files: tables, or images in a column."""

import dataclasses
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxtrain.config.schema import Count, Name
from jaxtrain.data.held import read_all
from jaxtrain.data.image_fields import ImageField, Size, given_form, image_form
from jaxtrain.data.images import Resampling
from jaxtrain.data.readers.columns import MISSING, ColumnTypes
from jaxtrain.data.readers.folders import SPLIT_OF
from jaxtrain.data.readers.parquet_columns import ByteColumn, RowGroups, as_array, as_lists, is_image, is_plain, opened
from jaxtrain.data.readers.records import Records, Roles, alone_of, find_files, inputs_alone, make_source
from jaxtrain.data.source import Source
from jaxtrain.data.tables import Kind, Places, Table, names_of
from jaxtrain.data.vocabulary import Pairs, Tokens
from jaxtrain.errors import DataError, Words, nearest, one_of
from jaxtrain.files import is_directory, list_data

SUFFIXES = (".parquet", ".pq")

BLOCK = 2**16
"""Rows of a new file that are read at a time."""


def parquet(
    path: Path,
    file: Name,
    target: Name | tuple[str, ...],
    inputs: tuple[str, ...] = (),
    test_file: Name | None = None,
    validation_file: Name | None = None,
    drop: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    missing: tuple[str, ...] = MISSING,
    target_strip: str = "",
    target_separator: str = "",
    split_column: Name | None = None,
    size: Size | None = None,
    channels: Literal[1, 3, 4] | None = None,
    resampling: Resampling = "bilinear",
    text: Name | None = None,
    tokens: Tokens | None = None,
    context: Count | None = None,
    vocabulary: Pairs | None = None,
    sequence: Name | None = None,
) -> Source:
    """A table in Parquet, or images in one of its columns (bytes, or bytes and path); one column is the target.

    `file` is a file or a folder of parts, in the order of their names; parts named train-*, validation-* and test-* are
    these splits. Inputs are the columns `inputs`, else all but the target and those in `drop`; inner fields are "a.b",
    and a column of images stands alone. Columns of numbers are numbers; of texts and truth values as in `csv`, with
    its knobs, those of `text` too; `sequence` is as in `jsonl`. Images are resized as in `image_folder`. Needs pyarrow.
    Raises DataError naming file and row.
    """
    types = ColumnTypes(missing, numbers, categories)
    given = {"text": text, "tokens": tokens, "context": context, "vocabulary": vocabulary, "sequence": sequence}
    roles = Roles(target, drop, split_column, types, target_strip, target_separator, alone_of(given))
    parts = _parts(find_files("parquet", path, {"train": file, "validation": validation_file, "test": test_file}))
    columns = _check_columns(parts["train"][0], inputs, roles)
    image = _image_column(parts["train"][0], columns)
    records = {split: read_records(files, columns, roles) for split, files in parts.items()}
    others = tuple(name for name in records["train"].columns if name not in (*columns, *roles.targets, split_column))
    roles = dataclasses.replace(roles, drop=others)
    if image is None:
        return make_source(records, roles)
    source = make_source(records, roles, lambda own, *_: _images(own, image))
    lists = [split.inputs for split in source.splits.values()]
    form, damaged = image_form(lists, path / file, size, channels, resampling)
    fields = {name: split._replace(inputs=ImageField(split.inputs, form)) for name, split in source.splits.items()}
    return dataclasses.replace(source, splits=fields, damaged=tuple(damaged))


def read_parquet_table(file: Path, knobs: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Table:
    """Returns the inputs of a new file or folder of parts, to predict from, with or without the target.

    `knobs` are those of `parquet` that the run was trained with, and `kinds` those of its table. Raises DataError
    naming file and row.
    """
    roles = Roles.of_knobs(knobs)
    files = _files(file)
    columns = _inputs(_known(files[0]), knobs["inputs"], roles)
    table = read_records(files, columns, roles, others=False)
    return inputs_alone(table, roles, kinds)


def read_parquet_images(file: Path, knobs: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Returns the images (n, *shape) of a new file or folder of parts, to predict from, with or without the target.

    `knobs` are those of `parquet` that the run was trained with, `shape` and `dtype` those of its inputs. Raises
    DataError naming file and row, and for a file without images or a shape that is none of images.
    """
    form = given_form(shape, dtype, size=knobs["size"], channels=knobs["channels"], resampling=knobs["resampling"])
    return read_all(ImageField(image_column(file, Roles.of_knobs(knobs), knobs["inputs"]), form))


def image_column(file: Path, roles: Roles, inputs: Sequence[str]) -> ByteColumn:
    """Returns the compressed images of a new file or folder of parts; raises DataError for one without images."""
    files = _files(file)
    image = _image_column(files[0], _inputs(_known(files[0]), inputs, roles))
    if image is None:
        raise DataError(str(file), Words("no column of images"), "one, as in training")
    return ByteColumn(RowGroups(files, image))


def target_records(file: Path, roles: Roles) -> Records | None:
    """Returns the targets of a new file or folder of parts; None where it has no column of them."""
    files = _files(file)
    names = [name for name in _known(files[0]) if name in roles.targets]
    return read_records(files, names, roles, others=False) if names else None


def _images(records: Records, column: str) -> ByteColumn:
    return ByteColumn(RowGroups(list(map(Path, records.places.files)), column))


def _parts(files: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Returns {split: its files}; a folder of parts that splits name, as hubs have them, gives several splits."""
    parts = {split: _files(file) for split, file in files.items()}
    named = [(SPLIT_OF.get(re.split(r"[-._]", part.name)[0].lower()), part) for part in parts["train"]]
    if len(files) > 1 or not is_directory(files["train"]) or any(split is None for split, _ in named):
        return parts
    found = {split: [part for own, part in named if own == split] for split in dict.fromkeys(s for s, _ in named if s)}
    if "train" not in found:
        got = Words(f"parts for {one_of(found)}")
        raise DataError(str(files["train"]), got, "parts for training among them", "Name them train-*.parquet")
    return found


def _files(place: Path) -> list[Path]:
    """Returns a file, or the parts in a folder; raises DataError for a folder without any."""
    if not is_directory(place):
        return [place]
    files = [place / name for name in list_data(place) if name.endswith(SUFFIXES)]
    if not files:
        raise DataError(str(place), Words("no Parquet files in the folder"), f"files named *{SUFFIXES[0]}")
    return files


def _known(file: Path) -> dict[str, Any]:
    """Returns {column: its type} of a file, inner fields by dotted names."""
    with opened(file) as parquet_file:
        return {name: column.type for name, column in _flat(parquet_file.schema_arrow.empty_table())}


def _check_columns(file: Path, inputs: Sequence[str], roles: Roles) -> list[str]:
    """Returns the input columns of the first training file; raises DataError for a name that is no column of it."""
    known = _known(file)
    others = [name for name in (*roles.targets, roles.split_column, roles.sequence) if isinstance(name, str)]
    for name in (*inputs, *others, *roles.drop):
        if not any(_within(column, (name,)) for column in known):
            raise DataError(str(file), Words(f"no column {name!r}"), f"one of {names_of(known)}", nearest(name, known))
    return _inputs(known, inputs, roles)


def _inputs(known: Iterable[str], inputs: Sequence[str], roles: Roles) -> list[str]:
    """Returns the columns that are inputs: those that are chosen, else all that have no other role."""
    if roles.sequence is not None:
        return [name for name in known if name == roles.sequence]
    others = [name for name in (*roles.targets, roles.split_column) if isinstance(name, str)]
    if inputs:
        return [name for name in known if _within(name, inputs) and name not in others]
    return [name for name in known if not _within(name, (*others, *roles.drop))]


def _image_column(file: Path, inputs: Sequence[str]) -> str | None:
    """Returns the column of images, None where the inputs are a table; raises DataError for images beside others."""
    known = _known(file)
    images = [name for name in inputs if is_image(known[name])]
    if images and len(inputs) > 1:
        beside = next(name for name in inputs if name != images[0])
        got = Words(f"the column {beside!r} beside the images in {images[0]!r}")
        raise DataError(str(file), got, "images alone as inputs", f"Set data.inputs=({images[0]!r},)")
    return images[0] if images else None


def read_records(files: Sequence[Path], inputs: Sequence[str], roles: Roles, *, others: bool = True) -> Records:
    """Reads the columns of files that follow each other: inputs, and, with `others`, all others that hold plain values.

    Images are not read. Raises DataError for columns that only some files have, for no rows, and for inputs, targets
    or names of splits that are no plain values.
    """
    needed = {*inputs, *roles.targets, roles.split_column}
    tables = []
    for file in files:
        with opened(file) as parquet_file:
            plain = [n for n, kind in _known(file).items() if not is_image(kind) and (others or n in inputs)]
            tables.append(_read(parquet_file, plain))
    first = list(tables[0])
    for file, table in zip(files, tables, strict=True):
        odd = sorted(set(first) ^ set(table))
        if odd:
            got = Words(f"{'the' if odd[0] in table else 'no'} column {odd[0]!r}")
            raise DataError(str(file), got, f"the columns of {files[0]}", "Write all parts with the same columns")
    lengths = [len(next(iter(table.values()), ())) for table in tables]
    starts = np.cumsum([0, *lengths])
    if not starts[-1]:
        raise DataError(str(files[0]), Words("no rows"), "at least one row")
    places = Places([str(file) for file in files], np.arange(starts[-1]), "row", starts[:-1].tolist())
    columns = {}
    for name in first:
        own = name in needed
        if own or all(is_plain(table[name].type) for table in tables):
            texts = not own or name in roles.types.categories
            of = zip(files, tables, strict=True)
            parts = [_values(name, table[name], str(file), roles, texts=texts) for file, table in of]
            columns[name] = _join(name, parts, files)
    return Records(columns, places)


def iterate_records(file: Path, roles: Roles, inputs: Sequence[str]) -> Generator[Records]:
    """Yields the inputs and targets of a new file or folder of parts, to predict from, a block of rows at a time.

    `inputs` are the columns that are chosen, all without a role if there are none. Rows are numbered within a part.
    """
    for part in _files(file):
        known = _known(part)  # says what to do where pyarrow is not installed
        import pyarrow as pa

        chosen = [*_inputs(known, inputs, roles), *(name for name in known if name in roles.targets)]
        begin = 0
        with opened(part) as parquet_file:
            for batch in parquet_file.iter_batches(BLOCK, columns=_holders(parquet_file, chosen)):
                found = {name: column for name, column in _flat(pa.Table.from_batches([batch])) if name in chosen}
                rows = np.arange(begin, begin + batch.num_rows)
                texts = roles.types.categories
                columns = {
                    name: _values(name, own, str(part), roles, texts=name in texts, begin=begin)
                    for name, own in found.items()
                }
                begin += batch.num_rows
                yield Records(columns, Places([str(part)], rows, "row"), rows=rows)


def _values(name: str, column: Any, file: str, roles: Roles, *, texts: bool, begin: int = 0) -> np.ndarray:
    """Returns a column as `as_array`, or that of sequences as objects; errors number its rows from `begin`."""
    return as_lists(name, column, file, begin) if name == roles.sequence else as_array(name, column, file, texts=texts)


def _read(parquet_file: Any, chosen: Sequence[str]) -> dict[str, Any]:
    """Returns columns of an open file by their dotted names."""
    read = parquet_file.read(columns=_holders(parquet_file, chosen))
    return {name: column for name, column in _flat(read) if name in chosen}


def _holders(parquet_file: Any, chosen: Sequence[str]) -> list[str]:
    """Returns the columns of an open file that are chosen, or that hold a field that is."""
    top = parquet_file.schema_arrow.names
    holders = [name if name in top else next(n for n in top if name.startswith(f"{n}.")) for name in chosen]
    return list(dict.fromkeys(holders))


def _flat(table: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, column) of a table, those of structures by dotted names."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        yield from _flat_column(name, column)


def _flat_column(name: str, column: Any) -> Iterator[tuple[str, Any]]:
    if not column.type.num_fields or not str(column.type).startswith("struct") or is_image(column.type):
        yield name, column
        return
    for field, inner in zip(column.type, column.flatten(), strict=True):
        yield from _flat_column(f"{name}.{field.name}", inner)


def _within(name: str, drop: Sequence[str]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in drop)


def _join(name: str, parts: Sequence[np.ndarray], files: Sequence[Path]) -> np.ndarray:
    """Joins the parts of a column; raises DataError for texts in one and numbers in another."""
    texts = [part.dtype.kind == "T" for part in parts]
    if len(set(texts)) > 1:
        odd = texts.index(not texts[0])
        got = Words(f"{'texts' if texts[odd] else 'numbers'} in the column {name!r}")
        raise DataError(str(files[odd]), got, f"{'texts' if texts[0] else 'numbers'}, as in {files[0]}")
    return np.concatenate(parts)
