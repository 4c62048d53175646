"""A source of images in folders, one for each class."""

from pathlib import Path
from typing import Literal

import numpy as np

from jaxtrain.config.schema import Name
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import ImageField, Size, image_form
from jaxtrain.data.images import SUFFIXES, Resampling
from jaxtrain.data.readers.folders import Listing, folder_of, list_folder, say_skipped, split_folders
from jaxtrain.data.source import Source, Split
from jaxtrain.errors import DataError, Words, nearest

A_CLASS = "a folder of images for each class"


def image_folder(
    path: Path,
    folder: Name,
    size: Size | None = None,
    channels: Literal[1, 3, 4] | None = None,
    resampling: Resampling = "bilinear",
) -> Source:
    """Images in a folder for each class, as dogs/1.png and cats/2.jpg, or in such folders in train/ and test/.

    Classes are the sorted names of the folders of the training split. Inputs (n, height, width, channels) uint8, uint16
    for 16 bits of grey; targets (n,) int32. `size` (height, width) resizes all images by `resampling`; without it, all
    must have one size. `channels` None: 1 if all are grey, else 3; 4 keeps alpha, which otherwise lies over white.
    Raises DataError naming the file or folder that cannot be used.
    """
    root = folder_of("image_folder", path, folder)
    parts = split_folders(root, list_folder(root, root), classes=True) or {"train": ""}
    listings = {split: _list_classes(root / part, root) for split, part in parts.items()}
    classes = _check_classes(root, {parts[split]: listing for split, listing in listings.items()})
    files = {split: _files(root, parts[split], listing) for split, listing in listings.items()}
    form, damaged = image_form(list(files.values()), root, size, channels, resampling)
    say_skipped(root, [name for listing in listings.values() for one in listing.values() for name in one.others])
    splits = {}
    for split, listing in listings.items():
        counts = [len(listing[name].images) if name in listing else 0 for name in classes]
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
        splits[split] = Split(ImageField(files[split], form), labels, str(root / parts[split]))
    return Source(splits, class_names=tuple(classes), damaged=tuple(damaged))


def _list_classes(folder: Path, root: Path) -> dict[str, Listing]:
    """Returns {class: what its folder holds}, sorted; raises DataError for images or folders that are elsewhere."""
    listing = list_folder(folder, root)
    if listing.images:
        got = Words(f"{len(listing.images)} images outside of any class, such as {listing.images[0]}")
        raise DataError(str(folder), got, A_CLASS, "Move each into the folder of its class")
    if not listing.folders:
        raise DataError(str(folder), Words("no folders"), A_CLASS, "Make one for each class, named after it")
    classes = {name: list_folder(folder / name, root) for name in listing.folders}
    for name, inner in classes.items():
        if inner.folders:
            hint = "Move its images into the folder of the class, or set data.folder to the one that holds the classes"
            got = Words(f"the folder {inner.folders[0]} in that of a class")
            raise DataError(str(folder / name), got, "images alone", hint)
    return classes


def _check_classes(root: Path, parts: dict[str, dict[str, Listing]]) -> list[str]:
    """Returns the classes of the first part, the training split, and checks that they are those of the others."""
    train, *others = parts
    classes = list(parts[train])
    for name, listing in parts[train].items():
        if not listing.images:
            got = Words(f"no images{' but other files' if listing.others else ''}")
            hint = f"Remove the folder, or put images in it ({', '.join(SUFFIXES)})"
            raise DataError(str(root / train / name), got, "at least one image of the class", hint)
    for part in others:
        for name, listing in parts[part].items():
            if listing.images and name not in parts[train]:
                hint = nearest(name, classes) or "Move some of its images to the training split, or remove it"
                where = str(root / part / name)
                raise DataError(where, Words("a class without training images"), "a class of the training split", hint)
    return classes


def _files(root: Path, part: str, listing: dict[str, Listing]) -> FileList:
    """Returns the images of a split, class by class."""
    start = f"{part}/" if part else ""
    return FileList(root, [f"{start}{name}/{image}" for name, one in listing.items() for image in one.images])
