"""A source of images with a mask for each: a label for each pixel."""

from collections.abc import Container
from pathlib import Path
from typing import Annotated, Literal

from jaxtrain.config.schema import Bounds, Count, Name
from jaxtrain.data.box_fields import BoxField
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import MOST_HEADERS, ImageField, Size, image_form
from jaxtrain.data.images import Resampling
from jaxtrain.data.mask_fields import MaskField
from jaxtrain.data.readers.folders import demand_inside, folder_of, list_folder, say_skipped, split_folders
from jaxtrain.data.source import Source, Split
from jaxtrain.errors import ConfigError, DataError, Words


def image_masks(
    path: Path,
    folder: Name,
    images: Name = "images",
    masks: Name = "masks",
    classes: Annotated[int, Bounds(2, 256)] = 2,
    void: Annotated[int, Bounds(0, 255)] | None = None,
    size: Size | None = None,
    channels: Literal[1, 3, 4] | None = None,
    resampling: Resampling = "bilinear",
    most_boxes: Count | None = None,
) -> Source:
    """Images, and masks with the same names but for the ending, as images/1.jpg and masks/1.png, for a segmentation.

    Both may lie in train/, validation/ and test/, or have such folders. Masks hold labels from 0, as grey values or
    indices of a palette; with two classes 0 is the background, and 1 or 255 the foreground. `void` is a value of pixels
    that no loss and no metric counts, such as 255 on the borders of objects. In place of a mask, a
    folder with its name may hold one file for each instance, which are merged: for two classes. Inputs, `size`,
    `channels` and `resampling` are as of `image_folder`; targets (n, height, width) uint8, resized to the nearest.
    With `most_boxes`, targets are boxes instead, at most as many in an image, for a detection: around each connected
    part of a mask, or around each instance.
    Raises DataError naming the file or folder that cannot be used.
    """
    if void is not None and void < classes:
        raise ConfigError("data.void", void, f"None or {classes} to 255, beyond the labels of {classes} classes")
    root = folder_of("image_masks", path, folder)
    parts = _parts(root, images, masks)
    names = {split: _by_stem(root, image_part) for split, (image_part, _) in parts.items()}
    files = {split: FileList(root, list(by_stem.values())) for split, by_stem in names.items()}
    form, damaged = image_form(list(files.values()), root, size, channels, resampling)
    splits = {}
    for split, (image_part, mask_part) in parts.items():
        inputs = ImageField(files[split], form)
        found = _masks(root, image_part, mask_part, list(names[split]), instances=classes == 2)
        counts = list(map(len, found))
        mask_names = [name for group in found for name in group]
        places = [f"row {row}" for row, group in enumerate(found) for _ in group]
        targets = MaskField(FileList(root, mask_names, places.__getitem__), counts, inputs, classes, void)
        damaged += targets.check_sizes(MOST_HEADERS // len(parts))
        field = targets if most_boxes is None else BoxField(targets, most_boxes)
        splits[split] = Split(inputs, field, str(root / image_part), str(root / mask_part))
    if most_boxes is not None:
        return Source(splits, damaged=tuple(damaged), box_classes=classes - 1)
    return Source(splits, classes, void=void, damaged=tuple(damaged))


def _parts(root: Path, images: str, masks: str) -> dict[str, tuple[str, str]]:
    """Returns {split: (folder of images, folder of masks)} below the root, for both layouts of splits."""
    listing = list_folder(root, root)
    parts = {} if images in listing.folders else split_folders(root, listing)
    if parts:
        return {split: (f"{part}/{images}", f"{part}/{masks}") for split, part in parts.items()}
    for knob, name in (("images", images), ("masks", masks)):
        if name not in listing.folders:
            got = Words(f"the folders {', '.join(listing.folders) or 'none'}")
            raise DataError(str(root), got, f"{name} among them", f"Set data.{knob} to the folder of the {knob}")
    parts = split_folders(root / images, list_folder(root / images, root))
    if parts:
        return {split: (f"{images}/{part}", f"{masks}/{part}") for split, part in parts.items()}
    return {"train": (images, masks)}


def _by_stem(root: Path, part: str) -> dict[str, str]:
    """Returns {name without ending: name below the root} of the images of a folder."""
    demand_inside(root / part, root)
    listing = list_folder(root / part, root)
    if listing.folders or not listing.files:
        got = Words(f"the folder {listing.folders[0]}" if listing.folders else "no images")
        raise DataError(str(root / part), got, "images alone", "Put the images in one folder, or in train/ and test/")
    say_skipped(root / part, listing.others)
    return _unique_stems(root, part, listing.files)


def _unique_stems(root: Path, part: str, names: list[str]) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name in names:
        stem = name.rpartition(".")[0]
        if stem in stems:
            got = Words(f"both {stems[stem].removeprefix(f'{part}/')} and {name}")
            raise DataError(str(root / part), got, "one file of each name", "Remove or rename one")
        stems[stem] = f"{part}/{name}"
    return stems


def _masks(root: Path, image_part: str, part: str, stems: list[str], *, instances: bool) -> list[list[str]]:
    """Returns the mask files of each image; raises DataError for images without a mask, and masks without an image."""
    found = find_masks(root, part, instances=instances)
    _demand_all(root / part, "mask", stems, found)
    _demand_all(root / image_part, "image", list(found), dict.fromkeys(stems))
    return [found[stem] for stem in stems]


def find_masks(root: Path, part: str, *, instances: bool) -> dict[str, list[str]]:
    """Returns {name of an image without ending: its mask files below the root}.

    With `instances`, it may have one file for each in a folder of its name. Raises DataError for what is no mask.
    """
    demand_inside(root / part, root)
    listing = list_folder(root / part, root)
    say_skipped(root / part, listing.others)
    found = {stem: [name] for stem, name in _unique_stems(root, part, listing.files).items()}
    for name in listing.folders:
        if name in found:
            got = Words(f"both a file and a folder for {name}")
            raise DataError(str(root / part), got, "one mask for each image", "Move one of them away")
        found[name] = _instances(root, f"{part}/{name}", allowed=instances)
    return found


def _instances(root: Path, part: str, *, allowed: bool) -> list[str]:
    """Returns the files of a folder of instances; raises DataError where there are more than two classes."""
    listing = list_folder(root / part, root)
    if not allowed:
        hint = "Merge the files of each image into one mask, or take data.classes=2"
        raise DataError(str(root / part), Words("a folder of instances"), "a mask file for more than two classes", hint)
    if listing.folders:
        got = Words(f"the folder {listing.folders[0]} among the instances of an image")
        raise DataError(str(root / part), got, "images alone", "Move it away")
    say_skipped(root / part, listing.others)
    return [f"{part}/{name}" for name in listing.files]


def _demand_all(folder: Path, what: str, stems: list[str], found: Container[str]) -> None:
    absent = [stem for stem in stems if stem not in found]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        hint = "Give it the name of its partner, or remove the one that has none"
        raise DataError(str(folder), Words(f"no {what} for {absent[0]}{more}"), f"one {what} of each name", hint)
