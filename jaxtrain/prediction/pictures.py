"""Pictures to predict from: files, folders with or without classes or masks, files that a table names, Parquet."""

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data.box_fields import BoxField
from jaxtrain.data.fields import Field
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import MOST_HEADERS, Contents, ImageField, ImageForm, given_form, header_of
from jaxtrain.data.mask_fields import MaskField
from jaxtrain.data.readers import csv_files, json_lines
from jaxtrain.data.readers.box_lists import list_files, make_field
from jaxtrain.data.readers.folders import files_below, list_folder, say_skipped
from jaxtrain.data.readers.image_boxes import columns_of_knobs, image_boxes, read_listed
from jaxtrain.data.readers.image_folders import image_folder
from jaxtrain.data.readers.image_masks import find_masks, image_masks
from jaxtrain.data.readers.image_tables import JSON_LINES, file_names, image_table
from jaxtrain.data.readers.parquet_files import image_column, parquet, target_records
from jaxtrain.data.readers.records import Records, Roles
from jaxtrain.data.settings import data_folder
from jaxtrain.errors import DataError, UsageError, Words
from jaxtrain.files import is_directory, is_file
from jaxtrain.prediction.examples import Bad, Form, Piece, row_ids
from jaxtrain.prediction.tables import roles_of, targets_of

THREADS = 8
READ_AT_ONCE = 16
"""Pictures that a thread decodes at a time."""


ReadTargets = Callable[[np.ndarray], tuple[np.ndarray | None, np.ndarray | None]]
"""Takes the numbers of rows; returns their targets (n, ...), and which of them have one (n,)."""


class Group(NamedTuple):
    """Pictures that are read alike: their contents, their ids (n,), and what reads their targets if there are any."""

    contents: Contents
    ids: np.ndarray
    read_targets: ReadTargets | None = None


@dataclass(frozen=True)
class PictureExamples:
    """Pictures, decoded by threads as those of training were."""

    groups: Sequence[Group]
    form: Form
    bad: Bad

    @property
    def count(self) -> int:
        """The number of pictures."""
        return sum(len(group.ids) for group in self.groups)

    def pieces(self) -> Generator[Piece]:
        """Yields the examples in their order."""
        for group in self.groups:
            field = ImageField(group.contents, image_form_of(self.form))
            for begin in range(0, len(group.ids), self.form.piece_rows):
                yield self._piece(group, field, np.arange(begin, min(begin + self.form.piece_rows, len(group.ids))))

    def _piece(self, group: Group, field: ImageField, rows: np.ndarray) -> Piece:
        kept, inputs = read_usable(field, rows, self.bad)
        targets = (None, None) if group.read_targets is None else group.read_targets(kept)
        is_resized = self.form.info.has_maps and field.form.resampling is not None
        sizes = np.array([header_of(group.contents, row)[:2] for row in kept.tolist()]) if is_resized else None
        return Piece(group.ids[kept], inputs, *targets, sizes)


def read_usable(field: Field, rows: np.ndarray, bad: Bad) -> tuple[np.ndarray, np.ndarray]:
    """Reads rows of a field by threads; returns those that can be read, and their values. Notes the others."""

    def read(part: np.ndarray) -> list[tuple[int, np.ndarray | DataError]]:
        try:
            return list(zip(part.tolist(), field.read(part), strict=True))
        except DataError as error:
            if len(part) == 1:
                return [(int(part[0]), error)]
            return [found for row in part for found in read(np.array([row]))]

    parts = [rows[begin : begin + READ_AT_ONCE] for begin in range(0, len(rows), READ_AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = [one for part in pool.map(read, parts) for one in part]
    for _, value in found:
        if isinstance(value, DataError):
            bad.note(value)
    good = [(row, value) for row, value in found if not isinstance(value, DataError)]
    values = np.empty((len(good), *field.shape[1:]), field.dtype)
    for place, (_, value) in enumerate(good):
        values[place] = value
    return np.array([row for row, _ in good], np.int64), values


def image_form_of(form: Form) -> ImageForm:
    """Returns what pictures become for a model; raises UsageError for one that does not take any."""
    info = form.info
    if len(info.input_shape) != 3 or info.input_dtype not in ("uint8", "uint16"):
        got = Words(f"pictures, for a model of {info.input_dtype} numbers of the shape {info.input_shape}")
        raise UsageError("--data", got, "the kind of data that the model was trained on")
    knobs = form.knobs(image_folder)
    given = {name: knobs[name] for name in ("size", "channels", "resampling")}
    return given_form(info.input_shape, info.input_dtype, **given)


def pictures_of_paths(paths: Sequence[Path], form: Form, bad: Bad) -> PictureExamples:
    """Finds pictures: the files among the paths, and those of the folders."""
    files = [path for path in paths if not is_directory(path)]
    groups = [_group_of_folder(path, form) for path in paths if is_directory(path)]
    if files:
        names = [str(file) for file in files]
        groups.append(Group(FileList(None, names), np.array(names, object)))
    return PictureExamples(groups, form, bad)


def _group_of_folder(root: Path, form: Form) -> Group:
    """Returns the pictures of a folder: those in it, in a folder for each class, or beside a folder of masks."""
    listing = list_folder(root, root)
    knobs = form.knobs(image_masks)
    if (form.info.has_maps or form.info.box_classes) and knobs["images"] in listing.folders:
        has_masks = knobs["masks"] in listing.folders and form.section["name"] != "image_boxes"
        return _group_with_masks(root, knobs, form, has_masks=has_masks)
    found = files_below(root, listing)
    if not found.names:
        raise DataError(str(root), Words("no pictures in the folder"), "at least one, or folders of them")
    say_skipped(root, found.others)
    group = Group(FileList(root, found.names), np.array(found.names, object))
    known = form.info.class_names
    if form.info.target_shape or not known or not all(name in known for name in found.folders):
        return group
    labels = np.array([known.index(name) for name in found.folders], np.int32)
    return group._replace(read_targets=lambda rows: (labels[rows], np.ones(len(rows), bool)))


def _group_with_masks(root: Path, knobs: Mapping[str, Any], form: Form, *, has_masks: bool) -> Group:
    """Returns the pictures of one folder, with the masks of the same names in another where there is one for each."""
    folder = f"{knobs['images']}"
    listing = list_folder(root / folder, root)
    say_skipped(root / folder, listing.others)
    images = listing.files
    names = [f"{folder}/{name}" for name in images]
    files = FileList(root, names)
    group = Group(files, np.array(names, object))
    classes = form.info.classes or (form.info.box_classes or 1) + 1
    found = find_masks(root, f"{knobs['masks']}", instances=classes == 2) if has_masks else {}
    stems = [name.rpartition(".")[0] for name in images]
    if not all(stem in found for stem in stems):
        return group
    listed = [found[stem] for stem in stems]
    mask_files = FileList(root, [name for names in listed for name in names])
    masks = MaskField(mask_files, [*map(len, listed)], ImageField(files, image_form_of(form)), classes, form.info.void)
    targets = masks if form.info.box_classes is None else BoxField(masks, form.info.target_shape[0])
    return group._replace(read_targets=_all_targets(targets))


def pictures_of_tables(tables: Sequence[Path], form: Form, bad: Bad) -> PictureExamples:
    """Finds the pictures that tables name in a column, as in training: relative to each table, or to its folder."""
    knobs = form.knobs(image_table)
    roles = roles_of(knobs)
    groups = []
    for table in tables:
        if table.suffix in JSON_LINES:
            records = json_lines.read_records(table, roles)
        else:
            records = csv_files.read_records(table, csv_files.CsvForm.of_knobs(knobs), roles)
        root = _root_of(records.column(knobs["image"], "image"), table, (knobs["folder"],), form)
        names = file_names(records, knobs["image"], root)
        listed = FileList(root, names, records.places)
        groups.append(Group(listed, np.array(names, object), _targets_of_rows(records, roles, form)))
    return PictureExamples(groups, form, bad)


def pictures_of_boxes(files: Sequence[Path], form: Form, bad: Bad) -> PictureExamples:
    """Finds the pictures that files of boxes list, as in training, and their boxes."""
    knobs = form.knobs(image_boxes)
    groups = []
    for file in files:
        listed = read_listed(file, csv_files.CsvForm.of_knobs(knobs), columns_of_knobs(knobs))
        folders = (knobs["folder"], knobs["validation_folder"], knobs["test_folder"])
        root = _root_of(listed.pictures.columns[listed.image], file, folders, form)
        rows = np.arange(len(listed.pictures))
        names = listed.find_files(root)
        contents = list_files(listed, names, rows, root)
        boxes = listed.take_boxes(rows, form.info.class_names)
        images = ImageField(contents, image_form_of(form))
        targets, errors = make_field(str(file), boxes, images, max(boxes.most, 1), MOST_HEADERS)
        if errors:
            raise errors[0]
        groups.append(Group(contents, np.array(names, object), _all_targets(targets)))
    return PictureExamples(groups, form, bad)


def _root_of(names: np.ndarray, file: Path, folders: Sequence[str | None], form: Form) -> Path:
    """Returns the folder to which the names of pictures in a file are relative.

    That is its own folder, or a folder of training, beside it or where the data of training lay: the first of these
    that holds the first picture.
    """
    beside = file.parent
    data = data_folder(form.section.get("path"))
    given = [folder for folder in folders if folder is not None]
    first = str(names[0]).strip() if len(names) else ""
    tried = [beside, *(beside / folder for folder in given), *(data / folder for folder in given)]
    return next((folder for folder in tried if first and is_file(folder / first)), beside)


def _all_targets(targets: Field) -> ReadTargets:
    return lambda rows: (targets.read(rows), np.ones(len(rows), bool))


def _targets_of_rows(records: Records, roles: Roles, form: Form) -> ReadTargets:
    return lambda rows: targets_of(records.take(rows), roles.name_new_target(records, {}), form)


def pictures_of_parquet(files: Sequence[Path], form: Form, bad: Bad) -> PictureExamples:
    """Finds the pictures in a column of Parquet files, and the targets in another."""
    knobs = form.knobs(parquet)
    roles = roles_of(knobs)
    groups = []
    for file in files:
        contents = image_column(file, roles, knobs["inputs"])
        ids = row_ids(str(file), np.arange(len(contents)), alone=len(files) == 1)
        records = target_records(file, roles)
        groups.append(Group(contents, ids, _targets_of_rows(records, roles, form) if records else None))
    return PictureExamples(groups, form, bad)
