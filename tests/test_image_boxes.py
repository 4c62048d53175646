"""Pictures with a file of boxes, COCO or CSV: read without code, trained on, predicted from; each error by its line."""

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_reference import average_precision_by_hand
from PIL import Image
from tiny_runs import config_file, outcome, tiny

from jaxtrain import Source, export_run, load_export, load_run
from jaxtrain.check.context import Context
from jaxtrain.check.data_targets import targets
from jaxtrain.commands.data import data_report
from jaxtrain.commands.data_pictures import draw_augmented, draw_examples
from jaxtrain.data import load
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.image_boxes import image_boxes
from jaxtrain.data.settings import Settings
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning
from jaxtrain.files import read_json
from jaxtrain.main import main
from jaxtrain.prediction.models import ExportModel, RunModel
from jaxtrain.prediction.run import predict_to_file
from jaxtrain.tasks.augment import augmentation_of
from jaxtrain.training.train import train_and_evaluate

SIDE = 32
NAMES = ("wall", "door")
COUNT = 12
MOST = 3
WHOLE = Settings(validation_fraction=0.0, test_fraction=0.0)
GIVEN: dict[str, Any] = {
    **{"task.name": "detection", "loss.name": "focal_giou", "train.ema": None, "train.duration": "8 steps"},
    **{"data": {"name": "image_boxes", "batch_size": 4, "eval_batch_size": 4}, "optimizer.learning_rate": 0.01},
    **{"model": {"name": "grid_resnet", "widths": (8, 8)}, "task.candidates": 16},
}


def draw() -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures with up to three bright rectangles, and the rows (class, y, x, height, width) of each."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 30, (COUNT, SIDE, SIDE, 1), np.uint8)
    boxes = np.full((COUNT, MOST, 5), -1, np.float32)
    for picture, rows in zip(pictures, boxes, strict=True):
        for place in range(random.integers(0, MOST + 1)):
            label, (y, x), (height, width) = (
                random.integers(2),
                random.integers(0, SIDE - 9, 2),
                random.integers(4, 9, 2),
            )
            rows[place] = (label, y, x, height, width)
            picture[y : y + height, x : x + width] = 120 + 100 * label
    assert (boxes[:, 0, 0] < 0).any()  # a picture without a box
    return pictures, boxes


PICTURES, BOXES = draw()
BOX_COUNT = int((BOXES[..., 0] >= 0).sum())


def listed(boxes: np.ndarray) -> list[list[tuple[int, ...]]]:
    return [[tuple(map(int, box)) for box in rows if box[0] >= 0] for rows in boxes]


def as_coco(boxes: np.ndarray = BOXES, start: int = 0) -> dict[str, Any]:
    """Returns a COCO object, whose annotations are in another order than its images."""
    annotations = [
        {"image_id": 10 + row, "category_id": 3 + 4 * label, "bbox": [x, y, width, height], "iscrowd": 0}
        for row, own in enumerate(listed(boxes))
        for label, y, x, height, width in own
    ]
    annotations.sort(key=lambda annotation: annotation["image_id"] % 3)
    return {
        "images": [
            {"id": 10 + row, "file_name": f"{start + row:02}.png", "height": SIDE, "width": SIDE, "video": row // 2}
            for row in range(len(boxes))
        ],
        "annotations": [{"id": 100 + i, **annotation} for i, annotation in enumerate(annotations)],
        "categories": [{"id": 3, "name": NAMES[0]}, {"id": 7, "name": NAMES[1]}],
    }


def as_rows(boxes: np.ndarray = BOXES) -> list[dict[str, Any]]:
    """Returns the rows of a CSV with corners: boxes from the last picture place down, so that order is the file's."""
    rows = []
    for number, own in enumerate(listed(boxes)):
        name = f"{number:02}.png"
        for label, y, x, height, width in own:
            corners = {"xmin": x, "ymin": y, "xmax": x + width, "ymax": y + height}
            rows.append({"filename": name, "class": NAMES[label], **corners})
        if not own:
            rows.append({"filename": name, "class": "", "xmin": "", "ymin": "", "xmax": "", "ymax": ""})
    return rows


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_pictures(folder: Path, pictures: np.ndarray = PICTURES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture[..., 0]).save(folder / f"{number:02}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_all(tmp_path)
    return tmp_path


def write_all(folder: Path) -> None:
    write_pictures(folder / "pictures")
    (folder / "boxes.json").write_text(json.dumps(as_coco()))
    write_rows(folder / "boxes.csv", as_rows())


def read(source: Source, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = source.splits[split][:2]
    return inputs.read(np.arange(len(inputs))), targets.read(np.arange(len(targets)))


def numbered(boxes: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """Returns boxes whose classes are numbered in another order of the names."""
    labels = np.array([order.index(name) for name in NAMES] + [-1], np.float32)[boxes[..., 0].astype(int)]
    return np.concatenate([labels[..., None], boxes[..., 1:]], axis=-1)


# Reading


@pytest.mark.parametrize(("file", "order"), [("boxes.json", NAMES), ("boxes.csv", ("door", "wall"))])
def test_a_file_of_boxes_gives_the_arrays_that_one_writes_by_hand(root: Path, file: str, order: tuple[str, ...]):
    source = image_boxes(root, file, "pictures")
    assert (source.class_names, source.box_classes, source.classes) == (order, 2, None)
    pictures, boxes = read(source)
    np.testing.assert_array_equal(pictures, PICTURES)
    np.testing.assert_array_equal(boxes, numbered(BOXES, order))
    assert boxes.dtype == np.float32
    few = source.splits["train"].targets.read(np.array([7, 2]))
    np.testing.assert_array_equal(few, boxes[[7, 2]])


def test_a_table_has_columns_of_other_names_sides_or_no_header_and_no_classes(root: Path):
    given = [{"picture": r["filename"], "what": r["class"], "w": r["xmax"], "left": r["xmin"]} for r in as_rows()]
    for row, named in zip(as_rows(), given, strict=True):
        named |= {"top": row["ymin"], "h": row["ymax"], "width": SIDE, "height": SIDE}
        if row["xmin"] != "":
            named |= {"w": row["xmax"] - row["xmin"], "h": row["ymax"] - row["ymin"]}
    write_rows(root / "sides.csv", given)
    named = {"image": "picture", "label": "what", "sides": ("left", "top", "w", "h")}
    source = image_boxes(root, "sides.csv", "pictures", **named)
    np.testing.assert_array_equal(read(source)[1], numbered(BOXES, source.class_names))
    alone = image_boxes(root, "sides.csv", "pictures", **{**named, "label": None})
    assert (alone.class_names, alone.box_classes) == ((), 1)
    np.testing.assert_array_equal(read(alone)[1], np.concatenate([np.minimum(BOXES[..., :1], 0), BOXES[..., 1:]], -1))
    lines = [",".join(str(value) for value in row.values()) for row in as_rows()]
    (root / "plain.csv").write_text("\n".join(lines))
    names = ("filename", "class", "xmin", "ymin", "xmax", "ymax")
    np.testing.assert_array_equal(
        read(image_boxes(root, "plain.csv", "pictures", header=False, names=names))[1], read(source)[1]
    )


def test_classes_that_are_numbers_are_in_their_order_and_that_of_a_row_without_a_box_is_none(root: Path):
    rows = [row | {"class": {"wall": "10", "door": "9", "": "nothing"}[row["class"]]} for row in as_rows()]
    write_rows(root / "boxes.csv", rows)
    assert image_boxes(root, "boxes.csv", "pictures").class_names == ("9", "10")


def test_boxes_move_with_pictures_that_are_resized(root: Path):
    for number in range(COUNT):
        height, width = (SIDE, SIDE) if number % 2 else (SIDE // 2, 2 * SIDE)
        Image.fromarray(PICTURES[number, :height, :, 0]).resize((width, height)).save(
            root / "pictures" / f"{number:02}.png"
        )
    rows = [row | ({"ymin": 2, "ymax": 10} if row["class"] else {}) for row in as_rows()]
    write_rows(root / "boxes.csv", rows)
    source = image_boxes(root, "boxes.csv", "pictures", size=(64, 48))
    _, boxes = read(source)
    expected = numbered(BOXES, source.class_names)
    for number, own in enumerate(expected):
        scale = np.array([2, 1.5] if number % 2 else [4, 0.75], np.float32)
        exists = own[:, 0] >= 0
        own[exists, 1::2] = [2, 8]
        own[exists, 1:] *= np.tile(scale, 2)
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    smaller = image_boxes(root, "boxes.csv", "pictures", size=(32, 48)).splits["train"].targets
    assert smaller.fingerprint() != source.splits["train"].targets.fingerprint()


def test_the_fingerprint_is_that_of_a_copy_and_changes_with_a_box(root: Path, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = tmp_path_factory.mktemp("copy")
    write_all(elsewhere)
    ours, theirs = (image_boxes(place, "boxes.csv", "pictures").splits["train"].targets for place in (root, elsewhere))
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.version() != theirs.version()
    rows = as_rows()
    next(row for row in rows if row["class"])["xmax"] += 1
    write_rows(elsewhere / "boxes.csv", rows)
    assert image_boxes(elsewhere, "boxes.csv", "pictures").splits["train"].targets.fingerprint() != ours.fingerprint()


# Splits


def test_a_column_names_the_split_of_each_picture(root: Path):
    split_of = [("train", "Valid", "test")[number % 3] for number in range(COUNT)]
    rows = [row | {"split": split_of[int(row["filename"][:2])], "site": row["filename"][:1]} for row in as_rows()]
    write_rows(root / "boxes.csv", rows)
    source = image_boxes(root, "boxes.csv", "pictures", split_column="split")
    for number, split in enumerate(("train", "validation", "test")):
        pictures, boxes = read(source, split)
        np.testing.assert_array_equal(pictures, PICTURES[number::3])
        np.testing.assert_array_equal(boxes, numbered(BOXES, source.class_names)[number::3])
    assert len(source.columns["site"]) == COUNT // 3
    rows[-1]["split"] = "train" if rows[-1]["split"] == "test" else "test"
    rows[-2] |= {"filename": rows[-1]["filename"], "split": "train"}
    rows[-1]["split"] = "test"
    write_rows(root / "boxes.csv", rows)
    with pytest.raises(DataError, match=f"line {len(rows) + 1}: got a box in test of a picture in train"):
        image_boxes(root, "boxes.csv", "pictures", split_column="split")
    with pytest.raises(ConfigError, match=r"data.split_column: got 'video'; expected None, or one CSV"):
        image_boxes(root, "boxes.json", "pictures", split_column="video")


def test_each_split_has_a_file_and_a_folder_of_its_own(tmp_path: Path):
    for name, part in (("train", slice(0, 8)), ("val", slice(8, 12))):
        write_pictures(tmp_path / name, PICTURES[part])
        given = as_coco(BOXES[part])
        if name == "val":  # other ids, in another order
            new = {3: 2, 7: 1}
            given["categories"] = [{"id": 1, "name": NAMES[1]}, {"id": 2, "name": NAMES[0]}]
            given["annotations"] = [a | {"category_id": new[a["category_id"]]} for a in given["annotations"]]
        (tmp_path / name / "beside.json").write_text(json.dumps(given))
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
    apart = image_boxes(tmp_path, "train.json", "train", "val.json", validation_folder="val")
    for source in (image_boxes(tmp_path, "train/beside.json", validation_file="val/beside.json"), apart):
        for split, part in (("train", slice(0, 8)), ("validation", slice(8, 12))):
            pictures, boxes = read(source, split)
            np.testing.assert_array_equal(pictures, PICTURES[part])
            np.testing.assert_array_equal(np.sort(boxes, axis=1), np.sort(BOXES[part], axis=1))
    assert apart.columns["video"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    new = as_coco(BOXES[8:])
    new["categories"][1]["name"] = "doors"
    (tmp_path / "val.json").write_text(json.dumps(new))
    with pytest.raises(DataError, match=r"val.json, annotation of id 10\d: got the class 'doors'; .*'door'"):
        image_boxes(tmp_path, "train.json", "train", "val.json", validation_folder="val")


# What is changed, and said


def test_a_box_that_reaches_beyond_its_picture_is_cut_off_and_counted(root: Path):
    given = as_coco()
    given["annotations"][0] |= {"image_id": 10, "bbox": [-2.5, SIDE - 4, 10, 6]}
    given["annotations"][1] |= {"image_id": 11, "bbox": [0, 0, SIDE + 1e-5, 5]}  # rounding
    (root / "boxes.json").write_text(json.dumps(given))
    with pytest.warns(JaxtrainWarning, match=r"got 1 boxes that .* in .*annotation of id 100; .* They are cut off"):
        source = image_boxes(root, "boxes.json", "pictures")
    boxes = read(source)[1]
    assert [SIDE - 4, 0, 4, 7.5] in boxes[0, :, 1:].tolist()
    assert [0, 0, 5, SIDE] in boxes[1, :, 1:].tolist()


def test_crowds_are_left_out_and_said(root: Path):
    given = as_coco()
    crowded = [a for a in given["annotations"] if a["image_id"] == given["annotations"][0]["image_id"]]
    for annotation in crowded:
        annotation["iscrowd"] = 1
    (root / "boxes.json").write_text(json.dumps(given))
    with pytest.warns(JaxtrainWarning, match=f"got {len(crowded)} annotations of crowds .* They are left out"):
        source = image_boxes(root, "boxes.json", "pictures")
    row = crowded[0]["image_id"] - 10
    boxes = read(source)[1]
    assert (boxes[row] == -1).all()
    others = np.arange(COUNT) != row
    np.testing.assert_array_equal(boxes[others, :, 0] >= 0, BOXES[others, :, 0] >= 0)


def test_a_picture_with_a_box_that_cannot_be_used_may_be_passed_over(root: Path):
    given = as_coco()
    first = given["annotations"][0]
    first["bbox"][2] = 0
    (root / "boxes.json").write_text(json.dumps(given))
    source = image_boxes(root, "boxes.json", "pictures")
    with pytest.raises(DataError, match="annotation of id 100: got a box of height"):  # before it is read
        load_dataset(source, dataclasses.replace(WHOLE, feed="stream"))
    settings = Settings(validation_fraction=0.0, test_fraction=0.0, skip_bad=1, batch_size=4)
    dataset = load_dataset(source, settings)
    row = first["image_id"] - 10
    batch = dataset.read("train", np.arange(COUNT))
    following = (row + 1) % COUNT
    np.testing.assert_array_equal(batch["targets"][row], batch["targets"][following])
    assert dataset.bad
    assert "annotation of id 100" in dataset.bad.messages[0]


# Errors


def change_coco(root: Path, change: Any) -> None:
    given = as_coco()
    whole = change(given)
    (root / "boxes.json").write_text(json.dumps(given if whole is None else whole))


def on(index: int, **fields: Any) -> Any:
    return lambda given: given["annotations"][index].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (on(2, bbox=[1, 1, -3, 4]), "annotation of id 102: got a box of height 4 and width -3; expected sides above 0"),
        (on(2, bbox=[1, 1, 3, 0]), "annotation of id 102: got a box of height 0 and width 3; expected sides above 0"),
        (
            on(2, bbox=[40, 1, 3, 4]),
            "annotation of id 102: got a box with y 1 to 5 and x 40 to 43, outside of its picture; expected y up to 32",
        ),
        (on(2, bbox=[1, 1, float("nan"), 4]), "annotation of id 102: got the bbox [1, 1, nan, 4]; expected [x, y"),
        (on(2, bbox=[1, 1, float("inf"), 4]), "annotation of id 102: got the bbox [1, 1, inf, 4]; expected [x, y"),
        (on(2, bbox=[1, 1, 4]), "annotation of id 102: got the bbox [1, 1, 4]; expected [x, y, width, height]"),
        (on(2, bbox=["1", 1, 4, 4]), "annotation of id 102: got the bbox ['1', 1, 4, 4]; expected [x, y"),
        (on(2, bbox=None), "annotation of id 102: got no bbox; expected [x, y, width, height]"),
        (on(2, category_id=8), "id 102: got category_id 8; expected the id of a category: 3 (wall), 7 (door)"),
        (on(2, category_id=None), "annotation of id 102: got no category_id; expected the id of a category"),
        (on(2, image_id=99), "annotation of id 102: got image_id 99; expected the id of one of the 12 images"),
        (lambda given: given["annotations"][2].pop("id") and on(2, bbox=None)(given), "annotation 2: got no bbox"),
        (
            lambda given: given["categories"].append({"id": 7, "name": "roof"}),
            "category 2: got the id 7 a second time; expected an id of its own for each of the categories",
        ),
        (
            lambda given: given["categories"].append({"id": 8, "name": "wall"}),
            "category of id 8: got the name 'wall' a second time; expected a name of its own for each category",
        ),
        (lambda given: given["categories"][1].pop("name") and None, "category of id 7: got no name; expected a name"),
        (lambda given: given["images"].append(given["images"][0]), "image 12: got the id 10 a second time"),
        (
            lambda given: given["images"].append({"id": 5, "file_name": "./00.png"}),
            "image of id 5: got the picture '00.png' a second time; expected one name for each picture",
        ),
        (lambda given: given["images"][3].update(file_name="absent.png"), "id 13: got 'absent.png', which is no file"),
        (lambda given: given["images"][3].update(file_name="../a.png"), "id 13: got '../a.png', which leads out of"),
        (lambda given: given["images"][3].update(file_name=7), "id 13: got no file_name; expected the name"),
        (
            lambda given: given["images"][3].update(height=64),
            "image of id 13): got the size (32, 32); expected (64, 32), as the file of boxes says",
        ),
        (lambda given: given["annotations"], "boxes.json: got a JSON that is no object; expected a COCO file"),
        (lambda given: given.pop("categories") and None, "boxes.json: got no list 'categories'; expected a COCO file"),
        (lambda given: given["annotations"].append(3), f"annotations[{BOX_COUNT}]: got 3; expected an object"),
        (lambda given: given["annotations"].clear(), "boxes.json: got no box in the training split; expected at least"),
        (
            lambda given: [a.update(bbox=[0.1, 0.2, 0.3, 0.4]) for a in given["annotations"]] and None,
            "boxes.json: got boxes that all lie within the first pixel; expected numbers of pixels",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_coco_file_is_one_line_with_its_place(root: Path, change: Any, message: str):
    change_coco(root, change)
    refuses(root, "boxes.json", message)


def refuses(root: Path, file: str, message: str, **knobs: Any) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load_dataset(image_boxes(root, file, "pictures", **knobs), WHOLE)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_named(root: Path):
    (root / "boxes.json").write_text('{"images": [')
    refuses(root, "boxes.json", "boxes.json: got a file that is no JSON (Expecting value")


BOXED = [number for number, row in enumerate(as_rows()) if row["class"]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"xmax": 1, "xmin": 4}, "got a box of height {height} and width -3; expected sides above 0"),
        ({"ymax": 4, "ymin": 4}, "got a box of height 0 and width"),
        ({"xmin": 40, "xmax": 44}, "and x 40 to 44, outside of its picture; expected y up to 32 and x up to 32"),
        ({"xmin": "inf"}, "got 'inf' in the column 'xmin'; expected a finite number of pixels"),
        ({"xmin": "1e12"}, "got '1e12' in the column 'xmin'; expected a finite number of pixels"),
        ({"xmin": "left"}, "got 'left' in the column 'xmin'; expected a finite number of pixels"),
        ({"ymax": ""}, "got no value in the column 'ymax'; expected four numbers, or none for a picture without a box"),
        ({"class": " "}, "got no class in the column 'class'; expected a class for each box"),
        ({"filename": "absent.png"}, "got 'absent.png', which is no file; expected an image file in"),
        ({"filename": "../boxes.csv"}, "got '../boxes.csv', which leads out of"),
        ({"filename": "/etc/passwd"}, "got '/etc/passwd', which leads out of"),
        ({"filename": ""}, "got no name; expected the name of an image file"),
    ],
)
def test_what_is_wrong_in_a_row_is_one_line_with_its_number(root: Path, fields: dict[str, Any], message: str):
    rows = as_rows()
    row = rows[BOXED[1]]
    row |= fields
    write_rows(root / "boxes.csv", rows)
    height = row["ymax"] - row["ymin"] if "left" not in fields.values() and row["ymax"] else ""
    refuses(root, "boxes.csv", f"boxes.csv, line {BOXED[1] + 2}: {message.format(height=height)}"[-len(message) :])
    refuses(root, "boxes.csv", f"boxes.csv, line {BOXED[1] + 2}: got ")


def test_columns_that_are_not_there_are_named(root: Path):
    write_rows(root / "boxes.csv", [{"picture": "00.png", "class": "wall", "x1": 1, "y1": 1, "x2": 3, "y2": 3}])
    refuses(root, "boxes.csv", "got no column 'filename', which data.image names; expected one of picture, class, x1")
    refuses(root, "boxes.csv", "xmin, ymin, xmax, ymax, or x, y, width, height, among them", image="picture")
    corners = ("x1", "y1", "x2", "y2")
    refuses(
        root, "boxes.csv", "no column 'kind', which data.label names", image="picture", corners=corners, label="kind"
    )
    assert read(image_boxes(root, "boxes.csv", "pictures", image="picture", corners=corners))[1].shape == (1, 1, 5)
    with pytest.raises(ConfigError, match=r"data.corners: got \('x1', 'y1'\); expected the names of four columns"):
        image_boxes(root, "boxes.csv", "pictures", image="picture", corners=corners[:2])


def test_more_boxes_than_rows_are_refused_as_those_of_masks_are(root: Path):
    full = int(np.argmax((BOXES[..., 0] >= 0).sum(axis=1)))
    refuses(root, "boxes.csv", f"{full:02}.png (", most_boxes=2)
    refuses(root, "boxes.csv", "got 3 boxes; expected at most 2 in an image. Raise data.most_boxes", most_boxes=2)
    assert read(image_boxes(root, "boxes.csv", "pictures", most_boxes=5))[1].shape == (COUNT, 5, 5)


def test_a_source_of_boxes_has_a_name_for_each_class():
    with pytest.raises(DataError, match="got 1 class names for 2 classes of boxes; expected a name for each class"):
        load(
            tiny({"data": {"name": "memory"}})["data"],
            Source({"train": (PICTURES, BOXES)}, box_classes=2, class_names=("a",)),
        )


# Runs


def config_of(root: Path, file: str, **given: Any) -> Any:
    own = {"data.path": str(root), "data.file": file, "data.folder": "pictures"}
    return tiny({**GIVEN, **own, **{key.replace("__", "."): value for key, value in given.items()}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns the folder of the data, and that of a run on the COCO file."""
    root = tmp_path_factory.mktemp("boxes")
    write_all(root)
    train_and_evaluate(config_of(root, "boxes.json"), root / "run", quiet=True)
    return root, root / "run"


def test_a_run_on_a_file_has_the_numbers_of_one_on_arrays_also_from_a_stream(
    trained: tuple[Path, Path], tmp_path: Path
):
    root, workdir = trained
    given = Source({"train": (PICTURES, BOXES)}, box_classes=2)
    train_and_evaluate(config_of(root, "boxes.json"), tmp_path / "arrays", data=given, quiet=True)
    train_and_evaluate(config_of(root, "boxes.json", data__feed="stream"), tmp_path / "stream", quiet=True)
    ours, arrays, stream = (outcome(folder) for folder in (workdir, tmp_path / "arrays", tmp_path / "stream"))
    assert ours == arrays == stream
    assert load_run(workdir).class_names == NAMES


def test_predictions_name_classes_and_are_measured_by_the_file(trained: tuple[Path, Path], tmp_path: Path):
    root, workdir = trained
    run = load_run(workdir)
    found = run.predict(PICTURES)
    expected = average_precision_by_hand(found, BOXES, [0.5])
    exported = ExportModel(load_export(export_run(workdir, formats=[])[0]))
    assert exported.class_names == NAMES
    cases = [(root / "boxes.json", COUNT), (root / "pictures", 0), (root / "pictures" / "*.png", 0)]
    for number, (data, measured) in enumerate(cases):
        for model in (RunModel(run), exported):
            predicted = predict_to_file(model, [str(data)], tmp_path / f"{number}.jsonl")
            assert (predicted.examples, predicted.measured) == (COUNT, measured)
            if measured:
                assert predicted.metrics["mean_average_precision_50"] == pytest.approx(expected, abs=0.01)
            rows = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
            assert [Path(row["id"]).name for row in rows] == [f"{i:02}.png" for i in range(COUNT)]
            boxes = [box for row in rows for box in row["boxes"]]
            assert len(boxes) == np.sum(found[..., 4:] > 0)
            assert all(box["class_name"] == NAMES[box["class"]] for box in boxes)
            assert {"y", "x", "height", "width", "score"} < set(boxes[0])


def test_a_new_file_is_measured_also_with_more_boxes_and_an_unknown_class_is_refused(
    trained: tuple[Path, Path], tmp_path: Path
):
    run = RunModel(load_run(trained[1]))
    write_pictures(tmp_path / "new")
    given = as_coco()
    given["annotations"] += [{**given["annotations"][0], "id": 900 + i} for i in range(5)]
    (tmp_path / "new" / "boxes.json").write_text(json.dumps(given))
    assert predict_to_file(run, [str(tmp_path / "new" / "boxes.json")], tmp_path / "a.jsonl").measured == COUNT
    write_pictures(tmp_path / "set" / "images")
    write_pictures(tmp_path / "set" / "masks", np.minimum(PICTURES, 1))
    beside_masks = predict_to_file(run, [str(tmp_path / "set")], tmp_path / "c.jsonl")
    assert (beside_masks.examples, beside_masks.measured) == (COUNT, 0)
    given["categories"][0]["name"] = "walls"
    (tmp_path / "new" / "boxes.json").write_text(json.dumps(given))
    with pytest.raises(DataError, match=r"got the class 'walls'; expected a class of training: wall, door"):
        predict_to_file(run, [str(tmp_path / "new" / "boxes.json")], tmp_path / "b.jsonl")


def test_the_command_data_names_and_counts_the_classes_of_boxes(root: Path):
    config = config_of(root, "boxes.json", augment__flip=True, data__validation_fraction=0.0, data__test_fraction=0.0)
    dataset = load(config["data"])
    report = data_report(dataset, config)
    for label, name in enumerate(NAMES):
        (line,) = (line for line in report if name in line)
        assert line.split() == [str(label), name, str(int((BOXES[..., 0] == label).sum()))]
    drawn = [text.get_text() for axes in draw_examples(dataset).axes for text in axes.texts]
    expected = [NAMES[int(label)] for label in BOXES[..., 0].ravel() if label >= 0]
    assert sorted(drawn) == sorted(expected)
    augmented = draw_augmented(dataset, augmentation_of(config), {"augment.flip.probability": 0.5})
    assert {text.get_text() for axes in augmented.axes for text in axes.texts} <= set(NAMES)


def test_prepared_boxes_keep_their_classes(root: Path):
    given = {"name": "image_boxes", "path": str(root), "file": "boxes.json", "folder": "pictures"}
    words = [f"--config.data.{key}={value}" for key, value in given.items()]
    assert main(["prepare", f"--config={config_file(root)}", *words, f"--output={root / 'prepared'}"]) == 0
    assert read_json(root / "prepared" / "description.json")["box_classes"] == 2
    arrays = {"name": "arrays", "path": str(root), "file": "prepared", "validation_fraction": 0.0, "test_fraction": 0.0}
    dataset = load({**tiny({"data": {"name": "arrays", "file": "prepared"}})["data"], **arrays})
    assert (dataset.info.class_names, dataset.info.box_classes) == (NAMES, 2)


def test_check_counts_the_boxes_of_each_class(root: Path):
    config = config_of(root, "boxes.json", data__validation_fraction=0.0, data__test_fraction=0.0)
    answer = targets(Context(config))
    counts = [int((BOXES[..., 0] == label).sum()) for label in range(2)]
    named = sorted(zip(counts, NAMES, strict=True), reverse=True)
    assert f"{BOX_COUNT} boxes ({', '.join(f'{count} {name}' for count, name in named)}), heights" in answer.measured
