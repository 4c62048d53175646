"""Folders of images: what is listed in them, the splits that they name, and no way out of them."""

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from jaxtrain.data.images import SUFFIXES
from jaxtrain.data.source import missing
from jaxtrain.errors import DataError, JaxtrainWarning, StorageError, Words, one_of
from jaxtrain.files import guarded, is_directory, is_litter, real_path

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""The names of folders, in any case, that are splits."""

SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}


class Listing(NamedTuple):
    """The contents of a folder, sorted by name: folders, files of a kind, and others; no hidden ones, no litter."""

    folders: list[str]
    files: list[str]
    others: list[str]


def list_folder(folder: Path, root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Listing:
    """Lists a folder below `root`, whose files of the kind, by default images, have these endings.

    Raises DataError for a link that leads out of `root`, or to nothing.
    """
    listing = Listing([], [], [])
    with guarded(folder, "read"), os.scandir(folder) as entries:
        found = [(e.name, e.is_dir(), e.is_file(), e.is_symlink()) for e in entries if not e.name.startswith(".")]
    for name, is_folder, is_file, is_link in sorted(entry for entry in found if not is_litter(entry[0])):
        if is_link:
            demand_inside(folder / name, root)
        is_wanted = is_file and name.lower().endswith(suffixes)
        kind = listing.folders if is_folder else listing.files if is_wanted else listing.others
        kind.append(name)
    return listing


class FilesBelow(NamedTuple):
    """The files of a kind in a folder and in the folders of it: their names, and those of their folders, "" for none.

    `others` are the files of other kinds.
    """

    names: list[str]
    folders: list[str]
    others: list[str]


def files_below(root: Path, listing: Listing, suffixes: tuple[str, ...] = SUFFIXES) -> FilesBelow:
    """Returns the files of the folder `root`, of which this is the listing, and those of the folders in it."""
    found = FilesBelow([*listing.files], [""] * len(listing.files), [*listing.others])
    for folder in listing.folders:
        inner = list_folder(root / folder, root, suffixes)
        found.names.extend(f"{folder}/{name}" for name in inner.files)
        found.folders.extend([folder] * len(inner.files))
        found.others.extend(inner.others)
    return found


def demand_inside(path: Path, root: Path, where: str = "") -> None:
    """Raises DataError, on `where`, for a path that leads out of the folder `root` or, as a link, to nothing."""
    try:
        inside = real_path(path).is_relative_to(real_path(root))
    except StorageError as error:
        raise DataError(where or str(path), Words(f"{path.name!r}, which leads to nothing"), "a file") from error
    if not inside:
        got = Words(f"{str(path) if where else path.name!r}, which leads out of {root}")
        raise DataError(where or str(path), got, "a path that stays in the folder", "Copy the files into the folder")


def split_folders(root: Path, listing: Listing, *, classes: bool = False) -> dict[str, str]:
    """Returns {split: name of its folder}, train first; empty where no folder is a split.

    Among `classes`, a folder with the name of a split is one if it holds folders: else it is a class. Raises DataError
    for two folders of one split, splits without train, and folders beside the splits.
    """
    named = [name for name in listing.folders if name.lower() in SPLIT_OF]
    found = [name for name in named if not classes or list_folder(root / name, root).folders]
    splits: dict[str, str] = {}
    for name in found:
        split = SPLIT_OF[name.lower()]
        if split in splits:
            got = Words(f"the folders {splits[split]} and {name}, both for {split}")
            raise DataError(str(root), got, "one folder for each split", "Join them, or rename one")
        splits[split] = name
    if splits and "train" not in splits:
        got = Words(f"{one_of(found)} without a folder for training")
        raise DataError(str(root), got, "train among them", f"Name it {' or '.join(SPLIT_FOLDERS['train'])}")
    if splits and len(splits) < len(listing.folders):
        odd = next(name for name in listing.folders if name not in splits.values())
        hint = "Move it out of the folder"
        if odd in named:
            hint = "Give it the same folders as the training split has, or move it away"
        raise DataError(str(root / odd), Words(f"a folder beside {', '.join(found)}"), "splits alone", hint)
    return {split: splits[split] for split in SPLIT_FOLDERS if split in splits}


def folder_of(source: str, path: Path, name: str) -> Path:
    """Returns the folder `name` in the data folder; raises DataError if it is missing."""
    if not is_directory(path / name):
        raise missing(source, f"folder {name}", path)
    return path / name


def say_skipped(root: Path, others: list[str], kind: str = "images") -> None:
    """Warns of files that are none of a kind by their endings: how many of each ending."""
    if others:
        endings = Counter(Path(name).suffix.lower() or "no ending" for name in others)
        listed = ", ".join(f"{ending}: {count}" for ending, count in endings.most_common(5))
        got = Words(f"files that are no {kind} ({listed})")
        warnings.warn(JaxtrainWarning(str(root), got, f"{kind} alone", "They are left out"), stacklevel=3)
