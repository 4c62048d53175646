"""Files in a folder for each class, also in such folders in those of the splits."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtrain.data.readers.folders import Listing, list_folder, say_skipped, split_folders
from jaxtrain.errors import DataError, Words, nearest


class ClassFiles(NamedTuple):
    """The files of a split, class by class, by their paths below the root, and their labels (n,) int32."""

    folder: Path
    files: list[str]
    labels: np.ndarray


def list_classes(root: Path, kind: str, suffixes: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, ClassFiles]]:
    """Returns the classes, the sorted folders of the training split, and {split: its files} of a kind, such as images.

    Raises DataError for files outside of any class, an empty class, and one that the training split lacks.
    """
    parts = split_folders(root, list_folder(root, root, suffixes), classes=True) or {"train": ""}
    listings = {split: _list_classes(root / part, root, kind, suffixes) for split, part in parts.items()}
    classes = _check_classes(root, {parts[split]: own for split, own in listings.items()}, kind, suffixes)
    say_skipped(root, [name for own in listings.values() for one in own.values() for name in one.others], kind)
    return classes, {split: _files(root, parts[split], own, classes) for split, own in listings.items()}


def _list_classes(folder: Path, root: Path, kind: str, suffixes: tuple[str, ...]) -> dict[str, Listing]:
    """Returns {class: what its folder holds}, sorted; raises DataError for files or folders that are elsewhere."""
    listing = list_folder(folder, root, suffixes)
    expected = f"a folder of {kind} for each class"
    if listing.files:
        got = Words(f"{len(listing.files)} {kind} outside of any class, such as {listing.files[0]}")
        raise DataError(str(folder), got, expected, "Move each into the folder of its class")
    if not listing.folders:
        raise DataError(str(folder), Words("no folders"), expected, "Make one for each class, named after it")
    classes = {name: list_folder(folder / name, root, suffixes) for name in listing.folders}
    for name, inner in classes.items():
        if inner.folders:
            hint = f"Move its {kind} into the folder of the class, or set data.folder to the one that holds the classes"
            got = Words(f"the folder {inner.folders[0]} in that of a class")
            raise DataError(str(folder / name), got, f"{kind} alone", hint)
    return classes


def _check_classes(
    root: Path, parts: dict[str, dict[str, Listing]], kind: str, suffixes: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns the classes of the first part, the training split, and checks that they are those of the others."""
    train, *others = parts
    classes = tuple(parts[train])
    for name, listing in parts[train].items():
        if not listing.files:
            got = Words(f"no {kind}{' but other files' if listing.others else ''}")
            hint = f"Remove the folder, or put {kind} in it ({', '.join(suffixes)})"
            raise DataError(str(root / train / name), got, f"at least one {kind.removesuffix('s')} of the class", hint)
    for part in others:
        for name, listing in parts[part].items():
            if listing.files and name not in parts[train]:
                hint = nearest(name, classes) or f"Move some of its {kind} to the training split, or remove it"
                got = Words(f"a class without training {kind}")
                raise DataError(str(root / part / name), got, "a class of the training split", hint)
    return classes


def _files(root: Path, part: str, listing: dict[str, Listing], classes: tuple[str, ...]) -> ClassFiles:
    start = f"{part}/" if part else ""
    files = [f"{start}{name}/{file}" for name, one in listing.items() for file in one.files]
    counts = [len(listing[name].files) if name in listing else 0 for name in classes]
    return ClassFiles(root / part, files, np.repeat(np.arange(len(classes), dtype=np.int32), counts))
