"""Sources of image files: folders of classes, masks and tables, and the error for each thing that can be wrong."""

import dataclasses
import errno
import json
import os
import shutil
import threading
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image

from jaxtrain.data import image_fields
from jaxtrain.data.fields import Field
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import ImageField, read_images
from jaxtrain.data.images import resize
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.image_folders import image_folder
from jaxtrain.data.readers.image_masks import image_masks
from jaxtrain.data.readers.image_tables import image_table
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning
from jaxtrain.files import storage_error

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), np.uint8)
GREY = PIXELS[..., 0]


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def write_classes(root, names=("b/2.png", "a/1.png", "b/1.PNG", "c/x.bmp"), pixels: Iterable[np.ndarray] = PIXELS):
    for name, image in zip(names, pixels, strict=False):
        save(root / name, image)


WHOLE = Settings(validation_fraction=0.0, test_fraction=0.0)


def refuses(match, read, *args, **knobs):
    """Asserts one line, of a reader or of the data set that is made of its source."""

    def read_whole() -> None:
        returned = read(*args, **knobs)
        if isinstance(returned, Source):
            load_dataset(returned, WHOLE)

    with pytest.raises(DataError, match=match) as caught:
        read_whole()
    assert "\n" not in str(caught.value)


def rows(field, *numbers):
    return field.read(np.array(numbers or range(len(field))))


# Folders of classes


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    write_classes(tmp_path / "set")
    source = image_folder(tmp_path, "set")
    split = source.splits["train"]
    assert list(source.splits) == ["train"]
    assert source.class_names == ("a", "b", "c")
    assert isinstance(split.inputs, ImageField)
    assert isinstance(split.inputs, Field)
    assert isinstance(split.inputs.files, FileList)
    assert split.inputs.files.names == ["a/1.png", "b/1.PNG", "b/2.png", "c/x.bmp"]
    assert (split.inputs.shape, split.inputs.dtype) == ((4, 6, 5, 3), np.uint8)
    np.testing.assert_array_equal(split.targets, np.array([0, 1, 1, 2], np.int32), strict=True)
    np.testing.assert_array_equal(rows(split.inputs), PIXELS[[1, 2, 0, 3]])
    np.testing.assert_array_equal(rows(split.inputs, 3, 0, 3), PIXELS[[3, 1, 3]])
    assert split.file == str(tmp_path / "set")


def test_grey_images_have_one_channel_unless_one_is_coloured(tmp_path):
    write_classes(tmp_path / "set", pixels=GREY)
    np.testing.assert_array_equal(rows(image_folder(tmp_path, "set").splits["train"].inputs, 0)[0, ..., 0], GREY[1])
    assert image_folder(tmp_path, "set", channels=3).splits["train"].inputs.shape == (4, 6, 5, 3)
    save(tmp_path / "set/a/2.png", PIXELS[0])
    assert image_folder(tmp_path, "set").splits["train"].inputs.shape == (5, 6, 5, 3)
    luma = rows(image_folder(tmp_path, "set", channels=1).splits["train"].inputs, 1)
    np.testing.assert_array_equal(luma[0, ..., 0], np.asarray(Image.fromarray(PIXELS[0]).convert("L")))


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "VALIDATION", "testing"), ("train", "valid")])
def test_folders_with_the_names_of_splits_are_splits(tmp_path, names):
    for part, name in enumerate(names):
        write_classes(tmp_path / "set" / name, ("cat/1.png", "dog/1.png")[part % 2 :], PIXELS[part:])
    write_classes(tmp_path / "set" / names[0], ("dog/1.png", "eel/1.png"), PIXELS[8:])
    source = image_folder(tmp_path, "set")
    assert list(source.splits) == ["train", "validation", "test"][: len(names)]
    assert source.class_names == ("cat", "dog", "eel")
    assert [split.targets.tolist() for split in source.splits.values()] == [[0, 1, 2], [1], [0, 1]][: len(names)]
    np.testing.assert_array_equal(rows(source.splits["validation"].inputs), PIXELS[1:2])
    assert source.splits["validation"].file == str(tmp_path / "set" / names[1])


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    write_classes(tmp_path / "set", ("train/1.png", "car/1.png"))
    assert image_folder(tmp_path, "set").class_names == ("car", "train")


def test_hidden_files_are_left_out_and_others_are_counted(tmp_path):
    write_classes(tmp_path / "set")
    littered = ("Thumbs.db", "a/Thumbs.db", "b/desktop.ini", "__MACOSX/._a", "a/@eaDir/1.png", "a/._1.png")
    for name in ("a/.DS_Store", ".git/config", "README.md", "a/x.txt", "b/y.txt", "b/z", *littered):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"")
    with pytest.warns(JaxtrainWarning, match=r"set: got files that are no images \(\.txt: 2, no ending: 1\); expected"):
        source = image_folder(tmp_path, "set")
    assert (len(source.splits["train"].inputs), source.class_names) == (4, ("a", "b", "c"))


def test_size_resizes_every_image(tmp_path):
    write_classes(tmp_path / "set", pixels=[PIXELS[0], np.repeat(PIXELS[1], 3, axis=0), PIXELS[2], PIXELS[3]])
    inputs = image_folder(tmp_path, "set", size=(12, 10), resampling="nearest").splits["train"].inputs
    assert inputs.shape == (4, 12, 10, 3)
    np.testing.assert_array_equal(rows(inputs, 1, 2), PIXELS[[2, 0]].repeat(2, axis=1).repeat(2, axis=2))
    smooth = image_folder(tmp_path, "set", size=(12, 10)).splits["train"].inputs
    assert (rows(smooth) != rows(inputs)).any()
    np.testing.assert_array_equal(rows(smooth, 1)[0], np.asarray(Image.fromarray(PIXELS[2]).resize((10, 12), 2)))


def test_nearest_pixels_are_those_of_the_whole_jpeg(tmp_path):
    large = np.asarray(Image.fromarray(PIXELS[0]).resize((250, 300)))
    save(tmp_path / "set/a/1.jpg", large)
    whole = np.asarray(Image.open(tmp_path / "set/a/1.jpg"))
    inputs = image_folder(tmp_path, "set", size=(6, 5), resampling="nearest").splits["train"].inputs
    np.testing.assert_array_equal(rows(inputs)[0], whole[25::50, 25::50])
    box = rows(image_folder(tmp_path, "set", size=(6, 5), resampling="box").splits["train"].inputs)[0]
    assert (box != resize(whole, (6, 5), "box")).any()  # decoded at an eighth of its size, which blurs the edges
    assert np.abs(box - whole.reshape(6, 50, 5, 50, 3).mean(axis=(1, 3))).mean() < 6


def test_sizes_that_differ_are_never_resized_silently(tmp_path):
    write_classes(tmp_path / "set", pixels=[*PIXELS[:3], PIXELS[3, :4]])
    match = (
        r"set: got images of the sizes \(6, 5\) \(.*set/a/1.png\) and \(4, 5\) \(.*set/c/x.bmp\); expected images of"
        r" one size. Set data.size to one \(height, width\) for all, as to \(6, 5\), to resize them$"
    )
    refuses(match, image_folder, tmp_path, "set")


def test_images_beyond_the_headers_that_are_read_are_checked_when_they_are_decoded(tmp_path, monkeypatch):
    names = [f"a/{i}.png" for i in range(5)]
    write_classes(tmp_path / "set", names, GREY)
    monkeypatch.setattr(image_fields, "MOST_HEADERS", 2)
    save(tmp_path / "set/a/1.png", GREY[0, :4])
    save(tmp_path / "set/a/2.png", PIXELS[0])
    save(tmp_path / "set/a/3.png", GREY[0].astype(np.uint16))
    inputs = image_folder(tmp_path, "set").splits["train"].inputs
    np.testing.assert_array_equal(rows(inputs, 0, 4)[..., 0], GREY[[0, 4]])
    refuses(r"a/1.png \(row 1\): got the size \(4, 5\); expected \(6, 5\).*data.size", inputs.read, np.array([0, 1]))
    refuses(r"a/2.png \(row 2\): got an image in colours among grey ones; expected grey", inputs.read, np.array([2]))
    refuses(r"a/3.png \(row 3\): got an image of 16 bits of grey; expected 8 bits", inputs.read, np.array([3]))


def test_sixteen_bits_stay(tmp_path):
    deep = np.arange(60, dtype=np.uint16).reshape(2, 6, 5) * 1000
    write_classes(tmp_path / "set", ("a/1.png", "b/1.png"), deep)
    inputs = image_folder(tmp_path, "set").splits["train"].inputs
    assert inputs.dtype == np.uint16
    np.testing.assert_array_equal(rows(inputs)[..., 0], deep)
    save(tmp_path / "set/b/2.png", GREY[0])
    refuses(r"set/[ab]/1.png: got an image of 16 bits of grey; expected 8 bits, as of", image_folder, tmp_path, "set")


BAD_FOLDERS = {
    "no folder": (None, r"^image_folder: got no folder set in .*; expected all files of the data set"),
    "no classes": ({"notes.txt": b""}, "set: got no folders; expected a folder of images for each class"),
    "no folders": ({"1.png": PIXELS[0]}, "set: got 1 images outside of any class, such as 1.png; expected a folder"),
    "images beside classes": ({"a/1.png": PIXELS[0], "x.png": PIXELS[1]}, "1 images outside of any class, such as x.p"),
    "an empty class": ({"a/1.png": PIXELS[0], "b/.keep": b""}, "set/b: got no images; expected at least one image of"),
    "a class of other files": ({"a/1.png": PIXELS[0], "b/1.svg": b""}, "set/b: got no images but other files; exp"),
    "nested folders": ({"a/1.png": PIXELS[0], "b/c/1.png": PIXELS[0]}, "set/b: got the folder c in that of a class"),
    "a class in test alone": (
        {"train/cat/1.png": PIXELS[0], "test/cats/1.png": PIXELS[1]},
        "set/test/cats: got a class without training images; expected a class of the training.*Did you mean 'cat'",
    ),
    "no training split": (
        {"test/a/1.png": PIXELS[0], "val/a/1.png": PIXELS[0]},
        "got one of test, val without a folder",
    ),
    "two validation splits": (
        {"train/a/1.png": PIXELS[0], "val/a/1.png": PIXELS[0], "valid/a/1.png": PIXELS[0]},
        "set: got the folders val and valid, both for validation; expected one folder for each split",
    ),
    "a test split without classes": (
        {"train/a/1.png": PIXELS[0], "test/1.png": PIXELS[0]},
        "set/test: got a folder beside train; expected splits alone. Give it the same folders",
    ),
    "a folder beside splits": (
        {"train/a/1.png": PIXELS[0], "more/1.png": PIXELS[0]},
        "set/more: got a folder beside train; expected splits alone. Move it out",
    ),
    "no image": ({"a/1.png": PIXELS[0], "a/2.png": b"text"}, r"a/2.png \(row 1\): got a file that is no image"),
    "an empty file": ({"a/1.png": PIXELS[0], "b/2.jpg": b""}, r"b/2.jpg \(row 1\): got an empty file"),
}


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_a_folder_that_cannot_be_used_is_named(tmp_path, kind):
    files, match = BAD_FOLDERS[kind]
    for name, content in (files or {}).items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else save(path, content)
    refuses(match, image_folder, tmp_path, "set")


def test_a_path_that_leaves_the_folder_is_refused(tmp_path):
    write_classes(tmp_path / "set")
    save(tmp_path / "other/1.png", PIXELS[0])
    link = tmp_path / "set/a/link.png"
    link.symlink_to(tmp_path / "other/1.png")
    refuses(
        "a/link.png: got 'link.png', which leads out of .*set; expected a path that stays",
        image_folder,
        tmp_path,
        "set",
    )
    link.unlink()
    link.symlink_to("nothing.png")
    refuses("a/link.png: got 'link.png', which leads to nothing", image_folder, tmp_path, "set")
    link.unlink()
    link.symlink_to("../b/2.png")
    assert len(image_folder(tmp_path, "set").splits["train"].inputs) == 5
    (tmp_path / "set/d").symlink_to(tmp_path / "other")
    refuses("set/d: got 'd', which leads out of", image_folder, tmp_path, "set")


def test_a_set_may_itself_be_a_link(tmp_path):
    write_classes(tmp_path / "real")
    (tmp_path / "set").symlink_to("real")
    (tmp_path / "real/a/2.png").symlink_to("1.png")
    assert len(image_folder(tmp_path, "set").splits["train"].inputs) == 5


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    def deny(path, most):
        raise storage_error(path, "read", PermissionError(errno.EACCES, "no"))

    write_classes(tmp_path / "set")
    monkeypatch.setattr("jaxtrain.data.file_list.read_quickly", deny)
    refuses(r"a/1.png \(row 0\): got the error 'Permission denied'", image_folder, tmp_path, "set")


def test_a_size_has_two_sides(tmp_path):
    write_classes(tmp_path / "set")
    with pytest.raises(ConfigError, match=r"data.size: got \(8,\); expected \(height, width\)"):
        image_folder(tmp_path, "set", size=(8,))


# What a field promises


def test_a_file_that_changes_between_reads_is_an_error(tmp_path):
    write_classes(tmp_path / "set")
    inputs = image_folder(tmp_path, "set").splits["train"].inputs
    first = rows(inputs)
    np.testing.assert_array_equal(rows(inputs), first)
    save(tmp_path / "set/a/1.png", PIXELS[5])
    for _ in range(2):
        refuses(r"a/1.png \(row 0\): got another content than at its first reading", inputs.read, np.array([1, 0]))
    (tmp_path / "set/a/1.png").unlink()
    refuses(r"a/1.png \(row 0\): got the error 'No such file", inputs.read, np.array([0]))


def test_a_truncated_file_names_its_row(tmp_path):
    write_classes(tmp_path / "set", ("a/1.png", "b/1.png"), [np.tile(PIXELS[0], (30, 30, 1))] * 2)
    path = tmp_path / "set/b/1.png"
    path.write_bytes(path.read_bytes()[:-60])
    inputs = image_folder(tmp_path, "set").splits["train"].inputs
    refuses(r"b/1.png \(row 1\): got a damaged or truncated PNG", inputs.read, np.array([0, 1]))


def test_the_fingerprint_is_that_of_names_sizes_and_form(tmp_path):
    write_classes(tmp_path / "set")

    def fingerprint(name="set", **knobs):
        return image_folder(tmp_path, name, **knobs).splits["train"].inputs.fingerprint()

    before = fingerprint()
    shutil.copytree(tmp_path / "set", tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy/a/1.png", (1, 1))
    assert fingerprint("copy") == before == fingerprint()
    assert (
        len({before, fingerprint(channels=1), fingerprint(size=(6, 4)), fingerprint(size=(6, 4), resampling="box")})
        == 4
    )
    with (tmp_path / "copy/a/1.png").open("ab") as file:
        file.write(b"\0")
    assert fingerprint("copy") != before
    (tmp_path / "set/a/1.png").rename(tmp_path / "set/a/0.png")
    assert fingerprint() != before


def test_many_threads_read_the_same_field(tmp_path):
    write_classes(tmp_path / "set", [f"a/{i}.png" for i in range(12)], PIXELS)
    inputs = image_folder(tmp_path, "set").splits["train"].inputs
    order = [inputs.files.names.index(f"a/{i}.png") for i in range(12)]
    found = [None] * 6

    def read(thread):
        found[thread] = [rows(inputs, *order) for _ in range(5)]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for images in found:
        np.testing.assert_array_equal(images, [PIXELS] * 5)


def test_images_for_prediction_are_made_as_those_of_the_run(tmp_path):
    write_classes(tmp_path / "set", pixels=[*PIXELS[:3], PIXELS[3, :4]])
    knobs = {"size": (8, 7), "channels": 1, "resampling": "bicubic"}
    inputs = image_folder(tmp_path, "set", **knobs).splits["train"].inputs
    files = [tmp_path / "set" / name for name in inputs.files.names]
    np.testing.assert_array_equal(read_images(files, inputs.shape[1:], **knobs), rows(inputs))
    np.testing.assert_array_equal(read_images([str(files[2])], (6, 5, 3)), PIXELS[:1])
    refuses(r"c/x.bmp \(row 1\): got the size \(4, 5\)", read_images, [files[0], files[3]], (6, 5, 3))
    refuses(r"a/1.png \(row 0\): got an image in colours", read_images, files[:1], (6, 5, 1))
    refuses(r"inputs: got examples of shape \(30,\); expected images", read_images, files[:1], (30,))
    refuses(r"nothing.png \(row 0\): got the error 'No such file", read_images, ["nothing.png"], (6, 5, 1))


def test_an_image_of_a_field_may_be_of_any_file(tmp_path):
    save(tmp_path / "x.png", PIXELS[0])
    files = FileList(tmp_path, ["x.png"], "t.csv, line {}".format)
    assert files.where(0) == f"{tmp_path}/x.png (t.csv, line 0)"
    form, _ = image_fields.image_form([files], tmp_path, None, None, "bilinear")
    np.testing.assert_array_equal(rows(ImageField(files, form)), PIXELS[:1])


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_files_that_are_no_images_are_passed_over_up_to_a_number(tmp_path, feed):
    """Also what their headers show, which are read before a run starts."""
    for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "b/3.png"):
        save(tmp_path / "set" / name, PIXELS[0])
    (tmp_path / "set/a/2.png").write_bytes(b"")
    (tmp_path / "set/b/3.png").write_bytes(b"no image")
    settings = dataclasses.replace(WHOLE, feed=feed, skip_bad=2)
    dataset = load_dataset(image_folder(tmp_path, "set"), settings)
    assert (dataset.read("train", np.arange(6))["inputs"] == PIXELS[0]).all()
    assert dataset.bad is not None
    assert [message.partition(":")[0][-13:] for message in dataset.bad.messages] == ["2.png (row 1)", "3.png (row 5)"]
    with pytest.raises(DataError, match=r"b/3.png \(row 5\): got .*, after 1 others.*raise data.skip_bad, which is 1"):
        load_dataset(image_folder(tmp_path, "set"), dataclasses.replace(settings, skip_bad=1))


@pytest.mark.parametrize("change", ["another folder", "written again"])
def test_a_cache_is_not_that_of_other_files_of_the_same_names_and_sizes(tmp_path, change):
    means = []
    for value in (10, 200):
        root = tmp_path / (str(value) if change == "another folder" else "one")
        for name in ("a/1.bmp", "b/1.bmp"):
            save(root / "set" / name, np.full((4, 4, 3), value, np.uint8))
            os.utime(root / "set" / name, ns=(0, 0 if change == "another folder" else value))
        with pytest.warns(JaxtrainWarning, match="decoded examples to write"):
            dataset = load_dataset(image_folder(root, "set"), dataclasses.replace(WHOLE, cache=str(tmp_path / "cache")))
        means.append(dataset.split("train")["inputs"].mean())
    assert means == [10, 200]


# Masks

LABELS = (GREY[:, :, :] % 3).astype(np.uint8)
BINARY = LABELS > 0


def write_pairs(root, masks, images: Iterable[np.ndarray] = PIXELS, ending=".png", parts=("images", "masks")):
    for i, (image, mask) in enumerate(zip(images, masks, strict=False)):
        save(root / parts[0] / f"{i}.bmp", image)
        save(root / parts[1] / f"{i}{ending}", mask)


@pytest.mark.parametrize("values", [BINARY, BINARY.astype(np.uint8), BINARY.astype(np.uint8) * 255])
def test_binary_masks_of_any_values_are_0_and_1(tmp_path, values):
    write_pairs(tmp_path / "set", values[:4])
    source = image_masks(tmp_path, "set")
    split = source.splits["train"]
    assert (source.classes, split.targets.shape, split.targets.dtype) == (2, (4, 6, 5), np.uint8)
    assert isinstance(split.targets, Field)
    np.testing.assert_array_equal(rows(split.inputs), PIXELS[:4])
    np.testing.assert_array_equal(rows(split.targets, 3, 1, 1), BINARY[[3, 1, 1]])
    assert (split.file, split.targets_file) == (f"{tmp_path}/set/images", f"{tmp_path}/set/masks")


def test_masks_of_several_classes_are_indices_or_grey_values(tmp_path):
    for name in ("grey", "palette"):
        write_pairs(tmp_path / name, LABELS[:3])
    for i, labels in enumerate(LABELS[:3]):
        image = Image.fromarray(labels).convert("P")
        image.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0])
        image.save(tmp_path / f"palette/masks/{i}.png")
        source = image_masks(tmp_path, name, classes=3)
        assert source.classes == 3
        np.testing.assert_array_equal(rows(source.splits["train"].targets), LABELS[:3])


def test_instances_of_an_image_are_merged(tmp_path):
    write_pairs(tmp_path / "set", BINARY[:3])
    (tmp_path / "set/masks/1.png").unlink()
    (tmp_path / "set/masks/2.png").unlink()
    (tmp_path / "set/masks/2").mkdir()
    pieces = np.zeros((2, 6, 5), np.uint8)
    pieces[0, :2, :2] = 255
    pieces[1, 1:4, 1] = 255
    for i, piece in enumerate(pieces):
        save(tmp_path / f"set/masks/1/{i}.png", piece)
    targets = image_masks(tmp_path, "set").splits["train"].targets
    np.testing.assert_array_equal(rows(targets), [BINARY[0], pieces.max(axis=0) > 0, np.zeros((6, 5))])
    np.testing.assert_array_equal(rows(targets, 1), [pieces.max(axis=0) > 0])
    save(tmp_path / "set/masks/1/1.png", pieces[0, :, :3])
    refuses(r"masks/1/1.png \(row 1\): got the size \(6, 3\); expected \(6, 5\)", image_masks, tmp_path, "set")


def test_masks_are_resized_with_their_images_to_the_nearest(tmp_path):
    images = [PIXELS[0], np.repeat(PIXELS[1], 2, axis=0)]
    write_pairs(tmp_path / "set", [LABELS[0], np.repeat(LABELS[1], 2, axis=0)], images)
    split = image_masks(tmp_path, "set", classes=3, size=(12, 10)).splits["train"]
    assert split.inputs.shape == (2, 12, 10, 3)
    np.testing.assert_array_equal(rows(split.targets), LABELS[:2].repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("inner", [True, False])
def test_images_and_masks_have_splits(tmp_path, inner):
    for i, split in enumerate(("train", "test")):
        parts = (f"images/{split}", f"masks/{split}") if inner else (f"{split}/images", f"{split}/masks")
        write_pairs(tmp_path / "set", BINARY[2 * i : 2 * i + 2], PIXELS[2 * i :], parts=parts)
    source = image_masks(tmp_path, "set")
    assert list(source.splits) == ["train", "test"]
    np.testing.assert_array_equal(rows(source.splits["test"].inputs), PIXELS[2:4])
    np.testing.assert_array_equal(rows(source.splits["test"].targets), BINARY[2:4])


def test_masks_and_images_without_a_partner_are_named(tmp_path):
    write_pairs(tmp_path / "set", BINARY[:4])
    (tmp_path / "set/masks/2.png").unlink()
    (tmp_path / "set/masks/0.png").unlink()
    refuses("set/masks: got no mask for 0 and 1 more; expected one mask of each name", image_masks, tmp_path, "set")
    for i in (0, 2, 7):
        save(tmp_path / f"set/masks/{i}.png", BINARY[i])
    refuses("set/images: got no image for 7; expected one image of each name", image_masks, tmp_path, "set")


def test_a_mask_of_another_size_is_named_whether_images_are_resized_or_not(tmp_path, monkeypatch):
    write_pairs(tmp_path / "set", [BINARY[0], BINARY[1, :, :4], BINARY[2]])
    match = r"masks/1.png \(row 1\): got the size \(6, 4\); expected \(6, 5\), as of .*images/1.bmp. Make the mask"
    refuses(match, image_masks, tmp_path, "set")
    refuses(match, image_masks, tmp_path, "set", size=(3, 3))
    monkeypatch.setattr("jaxtrain.data.readers.image_masks.MOST_HEADERS", 1)  # of the first mask
    for size in (None, (3, 3)):
        refuses(match, image_masks(tmp_path, "set", size=size).splits["train"].targets.read, np.array([1]))


@pytest.mark.parametrize(
    ("mask", "classes", "match"),
    [
        (LABELS[0], 2, r"masks/0.png \(row 0\): got the values 0, 1, 2; expected 0 and 1, or 0 and 255"),
        (LABELS[0] * 60, 3, "got the values 0, 60, 120; expected 0 to 2. Set data.classes"),
        (np.where(LABELS[0] == 2, 255, LABELS[0]).astype(np.uint8), 2, "got the values 0, 1, 255; expected 0 and 1"),
        (BINARY[0].astype(np.uint8) * 255, 4, "got the values 0, 255; expected 0 to 3"),
        (GREY[0], 2, r"got the values (\d+, ){9}\d+ and \d+ more; expected 0 and 1, or 0 and 255"),
        (PIXELS[0], 3, r"masks/0.png \(row 0\): got a mask in colours; expected a mask of labels"),
        (np.full((6, 5), 300, np.uint16), 256, "got the values 300; expected 0 to 255"),
    ],
)
def test_values_that_are_no_labels_are_named(tmp_path, mask, classes, match):
    write_pairs(tmp_path / "set", [mask])
    refuses(match, image_masks(tmp_path, "set", classes=classes).splits["train"].targets.read, np.array([0]))


def test_a_folder_of_pairs_that_cannot_be_used_is_named(tmp_path):
    write_pairs(tmp_path / "set", LABELS[:2])
    refuses(
        "set: got the folders images, masks; expected labels among them.*data.masks",
        image_masks,
        tmp_path,
        "set",
        masks="labels",
    )
    refuses(
        "set: got the folders images, masks; expected x among them.*data.images",
        image_masks,
        tmp_path,
        "set",
        images="x",
    )
    save(tmp_path / "set/masks/1/0.png", BINARY[0])
    refuses("set/masks: got both a file and a folder for 1", image_masks, tmp_path, "set")
    (tmp_path / "set/masks/1.png").unlink()
    refuses("set/masks/1: got a folder of instances; expected a mask file", image_masks, tmp_path, "set", classes=3)
    save(tmp_path / "set/masks/1/deep/0.png", BINARY[0])
    refuses("set/masks/1: got the folder deep among the instances", image_masks, tmp_path, "set")
    save(tmp_path / "set/images/0.png", PIXELS[0])
    refuses("set/images: got both 0.bmp and 0.png; expected one file of each name", image_masks, tmp_path, "set")
    save(tmp_path / "set/images/more/0.png", PIXELS[0])
    refuses("set/images: got the folder more; expected images alone", image_masks, tmp_path, "set")
    refuses("^image_masks: got no folder none in", image_masks, tmp_path, "none")


def test_a_mask_that_changes_is_an_error_and_its_fingerprint_another(tmp_path):
    write_pairs(tmp_path / "set", BINARY[:2])
    targets = image_masks(tmp_path, "set").splits["train"].targets
    before = targets.fingerprint()
    rows(targets)
    save(tmp_path / "set/masks/1.png", np.tile(BINARY[5], (2, 2)))
    refuses(r"masks/1.png \(row 1\): got another content", targets.read, np.array([1]))
    assert targets.fingerprint() != before


# Tables


def write_table(root, text, name="t.csv", count=4):
    for i in range(count):
        save(root / f"images/{i}.png", PIXELS[i])
    (root / name).write_text(text)


def test_a_table_names_images_and_their_classes(tmp_path):
    write_table(tmp_path, 'id,name,label\n1,images/2.png,cat\n2,"images/0.png",dog\n3,./images//2.png,cat\n')
    source = image_table(tmp_path, "t.csv", "name", "label")
    split = source.splits["train"]
    np.testing.assert_array_equal(rows(split.inputs), PIXELS[[2, 0, 2]])
    assert split.targets.tolist() == ["cat", "dog", "cat"]
    assert split.inputs.files.where(1) == f"{tmp_path}/images/0.png ({tmp_path}/t.csv, line 3)"
    assert split.file == str(tmp_path / "t.csv")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize(
    ("targets", "dtype", "shape"),
    [
        ([(3,), (0,), (-1,), (3,)], np.int64, (4,)),
        ([(3,), (0.5,), (-1e3,), (3,)], np.float64, (4,)),
        ([(3, 1.5), (0, 2), (-1, 0), (3, 1)], np.float64, (4, 2)),
        ([(10**17,), (0,), (1,), (1,)], np.int64, (4,)),
        ([(0, 1), (1, 0), (1, 0), (0, 1)], np.float64, (4, 2)),
    ],
)
def test_targets_of_a_table_are_labels_or_numbers(tmp_path, ending, targets, dtype, shape):
    mark = "\t" if ending == ".tsv" else ","
    names = ["a", "b"][: len(targets[0])]
    if ending == ".jsonl":
        lines = [json.dumps({"file": f"{i}.png"} | dict(zip(names, row, strict=True))) for i, row in enumerate(targets)]
    else:
        lines = [mark.join(["file", *names])] + [
            mark.join([f"{i}.png", *map(str, row)]) for i, row in enumerate(targets)
        ]
    write_table(tmp_path, "\n".join(lines) + "\n\n", f"t{ending}")
    target = names[0] if len(names) == 1 else tuple(names)
    split = image_table(tmp_path, f"t{ending}", "file", target, folder="images").splits["train"]
    np.testing.assert_array_equal(split.targets, np.array(targets, dtype).reshape(shape), strict=True)
    np.testing.assert_array_equal(rows(split.inputs), PIXELS[:4])


def test_integers_are_names_where_they_are_categories(tmp_path):
    write_table(tmp_path, "f;y\nimages/0.png;30\nimages/1.png;7\n")
    split = image_table(tmp_path, "t.csv", "f", "y", categories=("y",)).splits["train"]
    assert split.targets.tolist() == ["30", "7"]
    assert image_table(tmp_path, "t.csv", "f", "y", delimiter=";").splits["train"].targets.tolist() == [30, 7]


def test_a_table_may_have_no_header_and_lists(tmp_path):
    write_table(tmp_path, "images/0.png,a\nimages/1.png,b\n")
    source = image_table(tmp_path, "t.csv", "f", "y", names=("f", "y"), header=False)
    assert source.splits["train"].targets.tolist() == ["a", "b"]
    write_table(tmp_path, '{"f": "images/0.png", "y": {"z": "none"}, "box": [1]}\n', "t.jsonl")
    assert image_table(tmp_path, "t.jsonl", "f", "y.z", drop=("box",)).splits["train"].targets.tolist() == ["none"]
    refuses(
        "line 1: got no value in the column 'y.z'",
        image_table,
        tmp_path,
        "t.jsonl",
        "f",
        "y.z",
        drop=("box",),
        missing=("none",),
    )


def test_a_column_names_the_split_of_each_row(tmp_path):
    write_table(
        tmp_path,
        "f,y,part\nimages/0.png,a,train\nimages/1.png,b,test\nimages/2.png,b,train\nimages/3.png,a,validation\n",
    )
    source = image_table(tmp_path, "t.csv", "f", "y", split_column="part")
    assert list(source.splits) == ["train", "validation", "test"]
    np.testing.assert_array_equal(rows(source.splits["train"].inputs), PIXELS[[0, 2]])
    np.testing.assert_array_equal(rows(source.splits["test"].inputs), PIXELS[[1]])
    assert [split.targets.tolist() for split in source.splits.values()] == [["a", "b"], ["a"], ["b"]]


def test_rows_may_be_grouped_ordered_and_drawn_by_the_columns_of_the_training_split(tmp_path):
    lines = ["images/0.png,a,p1,test,3,1", "images/1.png,b,p2,train,0.5,", "images/2.png,b,,train,2,7"]
    write_table(tmp_path, "\n".join(["f,y,patient,part,weight,dose", *lines]))
    columns = dict(image_table(tmp_path, "t.csv", "f", "y", split_column="part").columns)
    np.testing.assert_array_equal(columns.pop("dose"), [np.nan, 7])
    assert {name: values.tolist() for name, values in columns.items()} == {
        "f": ["images/1.png", "images/2.png"],
        "y": ["b", "b"],
        "patient": ["p2", ""],
        "part": ["train", "train"],
        "weight": [0.5, 2],
    }


def test_targets_keep_zeros_in_front_unless_they_are_numbers(tmp_path):
    write_table(tmp_path, "f,y\nimages/0.png,01\nimages/1.png,1\n")
    with pytest.warns(JaxtrainWarning, match="got '01' in the column 'y'"):
        source = image_table(tmp_path, "t.csv", "f", "y")
    assert source.splits["train"].targets.tolist() == ["01", "1"]
    assert image_table(tmp_path, "t.csv", "f", "y", numbers=("y",)).splits["train"].targets.tolist() == [1.0, 1.0]


def test_an_absolute_path_in_the_folder_is_taken(tmp_path):
    write_table(tmp_path, f"f,y\n{tmp_path}/images/1.png,1\n")
    assert image_table(tmp_path, "t.csv", "f", "y").splits["train"].inputs.files.names == ["images/1.png"]


BAD_TABLES = {
    "a missing file": (
        "f,y\n0.png,1\n9.png,1\n",
        "t.csv, line 3: got '9.png', which is no file; expected an image file",
    ),
    "a folder": ("f,y\n.,1\n", "line 2: got '.', which is no file"),
    "a path that leaves": ("f,y\n../x.png,1\n", r"line 2: got '../x.png', which leads out of .*images; expected"),
    "a hidden way out": ("f,y\na/../../x.png,1\n", "line 2: got 'a/../../x.png', which leads out"),
    "an absolute path": ("f,y\n/etc/x.png,1\n", "line 2: got '/etc/x.png', which leads out of"),
    "no name": ("f,y\n,1\n", "line 2: got no name; expected the name of an image file"),
    "a short row": ("f,y\n0.png,1\n1.png\n", "line 3: got 1 cells; expected 2, as in line 1"),
    "a long row": ('f,y\n0.png,"1"\n1.png,2,3\n', "line 3: got 3 cells; expected 2, as in line 1"),
    "an unknown column": ("f,Y\n0.png,1\n", "t.csv: got no column 'y', which data.target names; expected one of f, Y"),
    "a column twice": ("f,y,y\n0.png,1,2\n", "line 1: got the name 'y' of the columns 1 and 2"),
    "no rows": ("f,y\n", "t.csv: got a header and no rows"),
    "nothing": ("", "t.csv: got an empty file"),
    "no target": ("f,y\n0.png,1\n1.png,\n", "line 3: got no value in the column 'y'"),
    "nan": ("f,y\n0.png,1.5\n1.png,nan\n", "line 3: got no value in the column 'y'"),
    "a text among numbers": (
        "f,y\n" + "0.png,1\n" * 40 + "1.png,two\n",
        "line 42: got 'two' in the column 'y', where 40",
    ),
    "no image column": ("g,y\n0.png,1\n", "t.csv: got no column 'f', which data.image names; expected one of g, y"),
    "no image": ("f,y\n0.png,1\nbad.png,1\n", r"images/bad.png \(.*t.csv, line 3\): got a file that is no image"),
    "a link that leaves": ("f,y\n0.png,1\nlink.png,1\n", "line 3: got '.*link.png', which leads out of .*images"),
    "a folder that leaves": ("f,y\n0.png,1\nout/1.png,1\n", "line 3: got '.*out/1.png', which leads out of"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_named_with_its_line(tmp_path, kind):
    text, match = BAD_TABLES[kind]
    write_table(tmp_path, text)
    (tmp_path / "images/bad.png").write_bytes(b"text")
    save(tmp_path / "other/1.png", PIXELS[0])
    (tmp_path / "images/link.png").symlink_to("../other/1.png")
    (tmp_path / "images/out").symlink_to("../other")
    refuses(match, image_table, tmp_path, "t.csv", "f", "y", folder="images")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", r"t.jsonl, line 2: got a line that is no JSON .*; expected one JSON object a line"),
        ("[1]", "line 2: got a line with a list; expected an object"),
        ('{"f": "1.png"}', "line 2: got no value in the column 'y'"),
        ('{"f": 3, "y": 1}', "line 2: got '3', which is no file; expected an image file"),
        ('{"f": "1.png", "y": null}', "line 2: got no value in the column 'y'"),
        ('{"f": "1.png", "y": NaN}', "line 2: got NaN; expected a finite number"),
        ('{"f": "1.png", "y": [1]}', "line 2: got 1 in the list 'y'; expected names of labels"),
        ('{"y": 1}', "line 2: got no name; expected the name of an image file"),
    ],
)
def test_a_line_of_json_that_cannot_be_used_is_named(tmp_path, line, match):
    write_table(tmp_path, '{"f": "0.png", "y": 1}\n' + line, "t.jsonl")
    refuses(match, image_table, tmp_path, "t.jsonl", "f", "y", folder="images")


def test_several_targets_are_numbers_and_a_split_is_known(tmp_path):
    write_table(tmp_path, "f,y,z,s\nimages/0.png,1,2,train\nimages/1.png,1,cat,tests\n")
    refuses(
        "line 3: got 'cat' in the column 'z', where 1 of 2 values are numbers",
        image_table,
        tmp_path,
        "t.csv",
        "f",
        ("y", "z"),
    )
    refuses(
        "line 3: got 'tests' in the column 's'; expected one of train, validation, test",
        image_table,
        tmp_path,
        "t.csv",
        "f",
        "y",
        split_column="s",
    )
    refuses("^image_table: got no file x.csv in", image_table, tmp_path, "x.csv", "f", "y")
    refuses("^image_table: got no folder x in", image_table, tmp_path, "t.csv", "f", "y", folder="x")
