"""A source of images in folders, one for each class."""

from pathlib import Path
from typing import Literal

from jaxtrain.config.schema import Name
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import ImageField, Size, image_form
from jaxtrain.data.images import SUFFIXES, Resampling
from jaxtrain.data.readers.class_folders import list_classes
from jaxtrain.data.readers.folders import folder_of
from jaxtrain.data.source import Source, Split


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
    classes, listed = list_classes(root, "images", SUFFIXES)
    files = {split: FileList(root, own.files) for split, own in listed.items()}
    form, damaged = image_form(list(files.values()), root, size, channels, resampling)
    splits = {
        split: Split(ImageField(files[split], form), own.labels, str(own.folder)) for split, own in listed.items()
    }
    return Source(splits, class_names=classes, damaged=tuple(damaged))
