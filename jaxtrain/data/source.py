"""The return type of data sources, and the conversion of what a user gives into it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data.examples import example_fields, field_of, is_readable, refuse_iterable
from jaxtrain.data.fields import Field
from jaxtrain.data.plain_arrays import plain_array
from jaxtrain.data.sequences import Sequences, are_sequences
from jaxtrain.data.tables import Table, as_column
from jaxtrain.data.text_columns import TEXT_COLUMN, Texts
from jaxtrain.data.texts import Text
from jaxtrain.errors import DataError, Words, nearest, one_of

SPLITS = ("train", "validation", "test")
SET_FOLDER = "Set the data folder with data.path or the environment variable JAXTRAIN_DATA"


class Split(NamedTuple):
    """Inputs and targets of n examples as read; errors name `file` and `targets_file`.

    Each is an array (n, ...), or a `Field` that is read by rows; inputs may be a `Table` of named columns, and targets
    strings, the names of classes, or lists of strings, the names of labels. A `Text` stands for both: its targets are
    its own next tokens.
    `stamps` identify what inputs and targets were decoded from, where fields were read into arrays. `extra` are further
    fields by name, arrays (n, ...) or `Field`s, which a task of one's own gets in its batches.
    """

    inputs: Any
    targets: Any
    file: str = ""
    targets_file: str = ""
    stamps: tuple[bytes, bytes] = (b"", b"")
    extra: Mapping[str, Any] = {}  # never changed

    def change_fields(self, change: Callable[[Field], Any]) -> "Split":
        """Returns the split with `change(field)` in place of each field; an array is stamped with its fingerprint."""
        fields = (self.inputs, self.targets)
        inputs, targets = (change(field) if isinstance(field, Field) else field for field in fields)
        stamps = [
            field.fingerprint() if isinstance(field, Field) and isinstance(changed, np.ndarray) else stamp
            for field, changed, stamp in zip(fields, (inputs, targets), self.stamps, strict=True)
        ]
        return self._replace(inputs=inputs, targets=targets, stamps=(stamps[0], stamps[1]))

    def where(self, field: str, name: str) -> str:
        """Returns the file of "inputs" or "targets" for an error, else a mention of the split `name`."""
        file = (self.targets_file or self.file) if field == "targets" else self.file
        return file or f"the {name} split"


@dataclass(frozen=True)
class Source:
    """A data set: {"train": split, ...}, with "validation" and "test" if it has them.

    A split is a pair of arrays (inputs, targets), a mapping {"inputs": array, "targets": array}, or any object with
    `__len__` and `__getitem__`, such as a list, whose examples are pairs or mappings. Inputs may be columns by name, of
    numbers and texts: a mapping or a data frame; or a list of texts, each an example, or `Texts`; or a list of
    arrays of unlike length, or `Sequences`. A split that is one long text is a `Text`. `inputs` and `targets` name the
    fields of mappings, in others by dotted names such as
    "image.pixels". `classes` is the number of classes (None: as many as the training labels show), and `class_names`
    are their names, in the order of the labels. `void` is a label of masks beyond the classes, of pixels that do not
    count. `target_names` are those of the columns of targets (n, columns). `columns` hold values (n,) of the training
    split beside the inputs, by which rows may be grouped, ordered or drawn. `damaged` are the errors of examples that a
    reader found and left, for `data.skip_bad`. `extra` names further fields of mappings, of any shape and numeric
    dtype, which a task of one's own gets in its batches beside inputs and targets. With `box_classes` targets are boxes
    of that number of classes, (n, most, 5): (class, y, x, height, width) in pixels, with y and x of the top left
    corner, and class -1 for no box; `class_names` are then those of boxes.
    """

    splits: Mapping[str, Any]
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    inputs: str = "inputs"
    targets: str = "targets"
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)
    damaged: tuple[DataError, ...] = field(default=(), repr=False)
    target_names: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    void: int | None = None
    box_classes: int | None = None


def as_source(
    returned: object, name: str, convert: Callable[[object, str, tuple[str, ...]], Any] | None = None
) -> Source:
    """Converts what a source returned, a Source or {"train": split, ...}, into a Source of `Split`s.

    `convert` takes a split, what errors name, and the names of its fields; None: `as_split`.
    Raises DataError for other types, if "train" is missing, if a split has an unknown name, or for a number of classes
    that is no count.
    """
    where = f"data source {name}"
    source = returned if isinstance(returned, Source) else Source(returned) if isinstance(returned, Mapping) else None
    if source is None or not isinstance(source.splits, Mapping):
        expected = '{"train": (inputs, targets), ...} or a Source'
        raise DataError(where, Words(f"an object of type {type(returned).__name__}"), expected)
    for key in source.splits:
        if key not in SPLITS:
            raise DataError(where, Words(f"the split {key!r}"), one_of(SPLITS), nearest(key, SPLITS))
    if "train" not in source.splits:
        raise DataError(where, Words(f"the splits {sorted(source.splits)}"), "the split 'train' among them")
    classes = _number_of_classes(source, where)
    _check_void(source.void, classes, where)
    fields = (source.inputs, source.targets, *source.extra)
    convert = convert or as_split
    named = {k: convert(source.splits[k], f"{where}, {k} split", fields) for k in SPLITS if k in source.splits}
    columns = {str(name): _as_column(values, f"{where}, column {name}") for name, values in source.columns.items()}
    names, target_names = (tuple(map(str, given)) for given in (source.class_names, source.target_names))
    more = replace(source, inputs="inputs", targets="targets", columns=columns, target_names=target_names)
    return replace(more, splits=named, classes=classes, class_names=names)


def _check_void(void: int | None, classes: int | None, where: str) -> None:
    """Raises DataError for a void label that is that of a class, or without a number of classes."""
    if void is None:
        return
    if classes is None:
        got = Words(f"the void label {void} without a number of classes")
        raise DataError(where, got, "a number of classes beside it", "Give it as Source(splits, classes=n)")
    if 0 <= void < classes:
        got = Words(f"the void label {void} of {classes} classes")
        raise DataError(where, got, f"a label other than 0 to {classes - 1}, those of the classes")


def _as_column(values: Any, where: str) -> np.ndarray:
    """Returns values by which rows are grouped, ordered or drawn; objects as numbers or texts."""
    array = np.asarray(values)
    return as_column(array, where) if array.dtype.kind == "O" else array


def _number_of_classes(source: Source, where: str) -> int | None:
    classes = source.classes
    if classes is not None and not (isinstance(classes, int | np.integer) and classes >= 1):
        raise DataError(where, classes, "a number of classes, an integer of at least 1, or None")
    names = list(map(str, source.class_names))
    named = len(names)
    if not named:
        return None if classes is None else int(classes)
    doubled = [name for name in names if names.count(name) > 1][:1] if len(set(names)) < named else []
    if doubled:
        raise DataError(where, Words(f"the class name {doubled[0]!r} twice"), "a name of its own for each class")
    if source.box_classes is not None:
        if named != source.box_classes:
            got = Words(f"{named} class names for {source.box_classes} classes of boxes")
            raise DataError(where, got, "a name for each class")
        return classes
    if classes is not None and classes != named:
        raise DataError(where, Words(f"{named} class names for {classes} classes"), "a name for each class")
    return named


def as_split(given: object, where: str, fields: tuple[str, ...]) -> Split:
    """Makes a split of a pair, a mapping of arrays, a text or an object of examples; `check_source` checks its arrays.

    `fields` name inputs, targets and what else is in each example.
    """
    if isinstance(given, Text):
        return Split(given, None, where)
    extra = fields[2:]
    if isinstance(given, Split):
        return given._replace(inputs=as_inputs(given.inputs, where), file=given.file or where)
    if isinstance(given, Mapping):
        more = {name: plain_array(field_of(given, name, where), where, name) for name in extra}
        inputs = given[fields[0]] if fields[0] in given else field_of(given, fields[0], where)  # or columns by name
        return Split(as_inputs(inputs, where), field_of(given, fields[1], where), where, extra=more)
    if _is_pair(given) and not extra:
        return Split(as_inputs(given[0], where), given[1], where)  # pyright: ignore[reportIndexIssue]
    if is_readable(given):
        inputs, targets, *more = example_fields(given, where, fields)
        split = Split(inputs, targets, where, extra=dict(zip(extra, more, strict=True)))
        return _of_texts(split) if inputs.dtype.kind == "O" else split
    refuse_iterable(given, where)
    several = f"a sequence of {len(given)}" if isinstance(given, tuple | list) else ""
    got = Words(several or f"an object of type {type(given).__name__}")
    raise DataError(where, got, "a pair (inputs, targets), or examples with __len__ and __getitem__")


def as_inputs(given: Any, where: str) -> Any:
    """Returns columns by name, or a data frame, as a `Table`, lists as `Texts` or `Sequences`, others as given."""
    if _are_texts(given):
        return Texts({TEXT_COLUMN: given}, name=where)
    if isinstance(given, Mapping):
        return Table(given, name=where)
    if are_sequences(given):
        return Sequences(given, name=where)
    if hasattr(given, "columns") and hasattr(given, "__getitem__") and not isinstance(given, Table):
        return Table({str(name): given[name] for name in given.columns}, name=where)
    return given


def _are_texts(given: Any) -> bool:
    """Tells whether inputs are a list or an array of texts, each an example."""
    if isinstance(given, np.ndarray):
        return given.ndim == 1 and (given.dtype.kind in "UT" or (given.dtype.kind == "O" and _are_texts(list(given))))
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(text, str) for text in given)


def _of_texts(split: Split) -> Split:
    """Returns a split whose inputs are texts that an object holds, with all of them in memory."""
    rows = np.arange(len(split.inputs))
    texts = Texts({TEXT_COLUMN: split.inputs.read(rows).tolist()}, name=split.file)
    return split._replace(inputs=texts, targets=split.targets.read(rows))


def _is_pair(given: object) -> bool:
    """Tells whether a tuple or list is (inputs, targets), and not a list of examples."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        return False
    examples = isinstance(given, list) and all(isinstance(e, Mapping | tuple) for e in given)
    return not examples


def missing(name: str, files: str, folder: Path, published: str = "") -> DataError:
    """Builds the error for missing files: the expected files, the folder, and what to do."""
    source = f", or fetch them from {published}" if published else ""
    return DataError(name, Words(f"no {files} in {folder}"), "all files of the data set", f"{SET_FOLDER}{source}")
