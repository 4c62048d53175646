"""Runs of the task `detection`: boxes of masks, learnt alone and as lanes, predicted in pixels; errors by key."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from detection_reference import average_precision_by_hand
from PIL import Image
from tiny_runs import result_of, tiny

from jaxtrain import Source, export_run, load_export, load_run
from jaxtrain.config.identity import digest
from jaxtrain.data.readers.image_masks import image_masks
from jaxtrain.errors import ConfigError, DataError, JaxtrainError
from jaxtrain.export.padded import PaddedProgram
from jaxtrain.prediction.models import ExportModel, RunModel
from jaxtrain.prediction.run import predict_to_file
from jaxtrain.serve.self_check import check_examples
from jaxtrain.tasks.boxes import iou
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

SIDE = 32
GIVEN: dict[str, Any] = {
    **{"task.name": "detection", "loss.name": "focal_giou", "train.ema": None, "train.duration": "30 steps"},
    **{"data.name": "image_masks", "data.folder": "set", "data.most_boxes": 6, "data.batch_size": 8},
    **{"model": {"name": "grid_resnet", "widths": (8, 8)}, "task.candidates": 16, "optimizer.learning_rate": 0.01},
}


def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns a picture with three bright rectangles, and their mask; they may touch."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(3):
        y, x, height, width = (*random.integers(0, SIDE - 8, 2), *random.integers(4, 9, 2))
        mask[y : y + height, x : x + width] = 1
    return (mask * 150 + random.integers(0, 30, mask.shape)).astype(np.uint8), mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detection")
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / "set" / part).mkdir(parents=True)
    for number in range(40):
        for part, pixels in zip(("images", "masks"), draw(random), strict=True):
            Image.fromarray(pixels).save(root / "set" / part / f"{number:02}.png")
    return root


def run(folder: Path, workdir: Path, **overrides: Any) -> dict[str, Any]:
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    config = tiny(GIVEN | {"data.path": str(folder)} | given)
    train_and_evaluate(config, workdir, quiet=True)
    return result_of(workdir)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    run(folder, workdir, eval__metric="mean_average_precision_50", augment__flip__probability=0.5)
    return workdir


def test_it_learns_and_predicts_boxes_in_pixels(trained: Path, folder: Path):
    losses = [row["loss"] for row in read_rows(trained / "metrics.jsonl") if row["split"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    source = image_masks(folder, "set", most_boxes=6)
    pictures, boxes = (field.read(np.arange(8)) for field in source.splits["train"][:2])
    found = load_run(trained).predict(pictures)
    assert found.shape == (8, 16, 5)
    assert ((found[..., 4] >= 0) & (found[..., 4] < 1)).all()
    best = np.take_along_axis(found, found[..., 4].argmax(axis=1)[:, None, None], axis=1)[..., :4]
    covered = np.asarray(iou(jnp.asarray(best), jnp.asarray(boxes[..., 1:]))) * (boxes[..., 0] >= 0)
    assert (covered.max(axis=1) > 0.3).mean() >= 0.5


def test_pictures_beside_masks_are_measured_by_the_run_and_by_its_export(trained: Path, folder: Path, tmp_path: Path):
    pictures, boxes = (
        field.read(np.arange(40)) for field in image_masks(folder, "set", most_boxes=6).splits["train"][:2]
    )
    found = load_run(trained).predict(pictures)
    expected = average_precision_by_hand(found, boxes, [0.5])
    instances = tmp_path / "instances"
    shutil.copytree(folder / "set" / "images", instances / "images")
    for number, listed in enumerate(boxes):
        (instances / "masks" / f"{number:02}").mkdir(parents=True)
        for place, (label, *box) in enumerate(listed.astype(int).tolist()):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = 1
            if label == 0:
                Image.fromarray(mask).save(instances / "masks" / f"{number:02}" / f"{place}.png")
    exported = ExportModel(load_export(export_run(trained, formats=[])[0]))
    cases = [(RunModel(load_run(trained)), folder / "set"), (exported, folder / "set"), (exported, instances)]
    for number, (model, data) in enumerate(cases):
        predicted = predict_to_file(model, [str(data)], tmp_path / f"{number}.jsonl")
        assert predicted.measured == 40
        assert predicted.metrics["mean_average_precision_50"] == pytest.approx(expected, abs=0.01)
        rows = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
        assert [len(row["boxes"]) for row in rows] == np.sum(found[..., 4] > 0, axis=1).tolist()


def test_a_detector_that_has_learnt_nothing_is_exported_and_served(folder: Path, tmp_path: Path):
    """Its scores are nearly equal, so that rounding decides which boxes are kept."""
    run(folder, tmp_path / "run", train__duration="2 steps", task__candidates=40)
    export, described = export_run(tmp_path / "run")
    assert described["check"]["worst"]["model.jaxexp"]["outputs"] <= 1e-5
    model = load_export(export)
    check_examples(model, PaddedProgram(model.program, (1, 4)), lambda: False)


def test_a_lane_equals_its_run_alone(trained: Path, folder: Path, tmp_path: Path):
    run(folder, tmp_path, train__seeds=2, eval__metric="mean_average_precision_50", augment__flip__probability=0.5)
    name = "mean_average_precision_50"
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if f"seed_0/{name}" in row]
    alone = [row for row in read_rows(trained / "metrics.jsonl") if name in row]
    assert len(rows) == len(alone) > 3
    for metric in ("loss", name):
        found = [row[f"seed_0/{metric}"] for row in rows]
        np.testing.assert_allclose(found, [row[metric] for row in alone], atol=1e-4)


def test_masks_become_boxes_of_their_connected_parts(tmp_path: Path):
    mask = np.zeros((10, 12), np.uint8)
    mask[1:4, 2:6] = 1
    mask[4, 6] = 1  # connected along the diagonal
    mask[7:9, 0:2] = 2
    mask[0, 11] = 200  # the void label
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        Image.fromarray(mask).save(tmp_path / part / "a.png")
    source = image_masks(tmp_path, ".", classes=3, void=200, most_boxes=3)
    assert (source.box_classes, source.classes) == (2, None)
    found = source.splits["train"].targets.read(np.array([0]))
    assert found.tolist() == [[[0, 1, 2, 4, 5], [1, 7, 0, 2, 2], [-1] * 5]]
    with pytest.raises(
        DataError, match=r"a\.png.*: got 2 boxes; expected at most 1 in an image. Raise data.most_boxes"
    ):
        image_masks(tmp_path, ".", classes=3, void=200, most_boxes=1).splits["train"].targets.read(np.array([0]))


def test_each_instance_is_a_box_though_it_touches_others(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "a.png")
    for number, column in enumerate((0, 3)):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:5, column : column + 3] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / "a" / f"{number}.png")
    targets = image_masks(tmp_path, ".", most_boxes=2).splits["train"].targets
    assert targets.read(np.array([0])).tolist() == [[[0, 2, 0, 3, 3], [0, 2, 3, 3, 3]]]
    other = image_masks(tmp_path, ".", most_boxes=3).splits["train"].targets
    assert targets.fingerprint() != other.fingerprint()


def test_masks_keep_the_digest_of_their_config():
    overrides = {"data.name": "image_masks", "data.folder": "set", "task.name": "segmentation", "loss.name": "dice"}
    with_boxes = {"data.most_boxes": 6}
    assert digest(tiny(overrides)) != digest(tiny(overrides | with_boxes))
    earlier = tiny(overrides)
    del earlier["data"]["most_boxes"]
    assert digest(earlier) == digest(tiny(overrides))


PICTURES = np.zeros((8, 16, 16, 1), np.float32)
BOX = np.tile(np.array([[0, 2, 2, 4, 4]], np.float32), (8, 1, 1))


@pytest.mark.parametrize(
    ("targets", "classes", "message"),
    [
        (BOX[..., :4], 1, "got targets of shape (8, 1, 4) as boxes; expected the shape (n, most, 5)"),
        (
            BOX + 1,
            1,
            "got the box (1, 3, 3, 5, 5) at targets[0, 0]; expected (class, y, x, height, width) with a class",
        ),
        (BOX * [1, 1, 1, 0, 1], 1, "got the box (0, 2, 2, 0, 4) at targets[0, 0]; expected (class"),
        (BOX, None, "task.name: got 'detection' for targets of shape (1, 5) an example; expected boxes"),
    ],
)
def test_targets_that_are_no_boxes_are_refused(targets: np.ndarray, classes: Any, message: str, tmp_path: Path):
    config = tiny({**GIVEN, "data": {"name": "digits", "batch_size": 4}})
    with pytest.raises(JaxtrainError) as caught:
        train_and_evaluate(
            config, tmp_path, data=Source({"train": (PICTURES, targets)}, box_classes=classes), quiet=True
        )
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"name": "cnn", "features": (4,)}}, "model.name: got 'cnn', which returns an array of shape"),
        ({"loss.name": "mse"}, "loss.name: got predictions of shape"),
        ({"augment.rotate": True}, "augment.rotate: got targets that are boxes; expected an augmentation that keeps"),
        ({"eval.augment": ("flip",)}, "eval.augment: got ('flip',); expected () with 'detection'"),
        ({"task.metrics": ("dice",)}, "task.metrics: got 'dice'; expected a metric of boxes, such as mean_average"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(overrides: dict[str, Any], message: str, tmp_path: Path):
    config = tiny({**GIVEN, "data": {"name": "digits", "batch_size": 4}} | overrides)
    with pytest.raises(ConfigError) as caught:
        train_and_evaluate(config, tmp_path, data=Source({"train": (PICTURES, BOX)}, box_classes=1), quiet=True)
    assert message in str(caught.value)
