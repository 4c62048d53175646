"""Boxes: overlaps by hand, cells, suppression and average precision against plain loops, and boxes that move."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detection_reference import average_precision_by_hand, overlap, random_detections

from jaxtrain.data.box_fields import part_boxes
from jaxtrain.errors import ConfigError
from jaxtrain.tasks.augment import AUGMENTATIONS
from jaxtrain.tasks.boxes import PRIOR, Boxes, centre_cells, decode, detect, giou, iou, suppress
from jaxtrain.tasks.losses.boxes import focal_giou
from jaxtrain.tasks.metrics.detection import mean_average_precision, mean_average_precision_50

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("box", "other", "share", "generalised"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0, 1.0),
        ((0, 0, 2, 2), (1, 1, 2, 2), 1 / 7, 1 / 7 - 2 / 9),  # union 7 in a hull of 9
        ((0, 0, 1, 1), (0, 3, 1, 1), 0.0, -2 / 4),  # apart: union 2 in a hull of 4
        ((0, 0, 4, 4), (1, 1, 2, 2), 4 / 16, 4 / 16),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0, 0.0),
    ],
)
def test_overlaps_are_those_by_hand(box: Any, other: Any, share: float, generalised: float):
    a, b = jnp.array(box, jnp.float32), jnp.array(other, jnp.float32)
    assert float(iou(a, b)) == float(iou(b, a)) == pytest.approx(share, abs=1e-6)
    assert float(giou(a, b)) == float(giou(b, a)) == pytest.approx(generalised, abs=1e-6)
    assert np.isfinite(jax.grad(lambda box: giou(box, b))(a)).all()


def test_boxes_that_are_apart_have_a_gradient_towards_each_other():
    gradient = jax.grad(lambda box: giou(box, jnp.array([0.0, 3.0, 1.0, 1.0])))(jnp.array([0.0, 0.0, 1.0, 1.0]))
    assert gradient[1] > 0


def test_a_cell_says_a_box_around_a_centre_within_it():
    outputs = np.zeros((1, 2, 4, 6), np.float32)
    outputs[0, 1, 2] = (np.log(3), 0.0, np.log(0.5), np.log(2), 1.0, -1.0)  # the centre at 3/4 and 1/2 of its cell
    boxes, logits = decode(jnp.asarray(outputs))
    assert boxes.shape == (1, 8, 4)
    np.testing.assert_allclose(boxes[0, 6], (1.75 / 2 - 0.125, 2.5 / 4 - 0.25, 0.25, 0.5), rtol=1e-6)
    np.testing.assert_allclose(logits[0, 6], (1 + PRIOR, -1 + PRIOR), rtol=1e-6)
    assert centre_cells(boxes, 2, 4).tolist() == [list(range(8))]


def test_the_loss_is_that_by_hand():
    random = np.random.default_rng(0)
    outputs = random.normal(size=(2, 3, 4, 6)).astype(np.float32)
    boxes = np.full((2, 3, 5), -1.0, np.float32)
    boxes[0, 0] = (1, 0.1, 0.3, 0.3, 0.2)  # its centre lies in row 0, column 1
    boxes[0, 2] = (0, 0.5, 0.6, 0.4, 0.4)  # and that of this one in row 2, column 3
    found = focal_giou(jnp.asarray(outputs), jnp.asarray(boxes), 1.5, 0.3, 2.0)
    said, logits = (np.asarray(values, np.float64) for values in decode(jnp.asarray(outputs)))
    for picture, cells in enumerate(([(1, boxes[0, 0]), (11, boxes[0, 2])], [])):
        truth = np.zeros((12, 2))
        apart = 0.0
        for cell, box in cells:
            truth[cell, int(box[0])] = 1
            apart += 1 - float(giou(jnp.asarray(said[picture, cell], jnp.float32), jnp.asarray(box[1:])))
        p = 1 / (1 + np.exp(-logits[picture]))
        right = np.where(truth, p, 1 - p)
        focal = -np.where(truth, 0.3, 0.7) * (1 - right) ** 1.5 * np.log(right)
        assert float(found[picture]) == pytest.approx((focal.sum() + 2 * apart) / max(len(cells), 1), rel=1e-5)


def test_two_boxes_of_one_cell_are_both_learnt_from():
    outputs = jnp.zeros((1, 1, 1, 6))
    one = jnp.array([[[0, 0.2, 0.2, 0.6, 0.6], [-1, -1, -1, -1, -1]]])
    two = jnp.array([[[0, 0.2, 0.2, 0.6, 0.6], [1, 0.1, 0.1, 0.9, 0.7]]])
    gradients = [
        jax.grad(lambda outputs, boxes=boxes: focal_giou(outputs, boxes).sum())(outputs) for boxes in (one, two)
    ]
    assert gradients[0][0, 0, 0, 5] > 0 > gradients[1][0, 0, 0, 5]


def test_suppression_keeps_the_best_of_boxes_that_overlap():
    random = np.random.default_rng(0)
    boxes = np.concatenate([random.uniform(0, 30, (60, 2)), random.uniform(5, 15, (60, 2))], axis=1).astype(np.float32)
    scores = random.random(60).astype(np.float32)
    found = jax.jit(suppress)(boxes, scores, 0.3)
    kept: list[int] = []
    for i in np.argsort(-scores).tolist():
        if all(overlap(boxes[i].tolist(), boxes[j].tolist()) <= 0.3 for j in kept):
            kept.append(i)
    assert 5 < len(kept) < 55
    np.testing.assert_array_equal(found, np.where(np.isin(np.arange(60), kept), scores, 0))


def test_detections_are_the_cells_with_the_highest_scores_and_classes_do_not_suppress_each_other():
    outputs = np.full((1, 1, 4, 6), -9.0, np.float32)
    outputs[..., :4] = (0.0, 0.0, 0.0, np.log(4))  # boxes four cells wide: all overlap
    outputs[0, 0, :, 4] = (1.0, 3.0, 2.0, -9.0)
    outputs[0, 0, 2, 5] = 4.0
    found = np.asarray(detect(jnp.asarray(outputs), 3, 0.4))[0]
    assert found.shape == (3, 6)
    of_first, of_second = (found[found[:, 4 + label] > 0.03] for label in (0, 1))
    np.testing.assert_allclose(of_first[:, 1], [1.5 / 4 - 0.5])
    np.testing.assert_allclose(of_second[:, 1], [2.5 / 4 - 0.5])
    np.testing.assert_allclose(of_first[:, 4], 1 / (1 + np.exp(-3.0 - PRIOR)), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_of_random_detections_is_that_by_hand(seed: int):
    boxes, detections = random_detections(np.random.default_rng(seed), 60)
    ones = jnp.ones(60)
    for metric, levels in (
        (mean_average_precision, np.arange(50, 100, 5) / 100),
        (mean_average_precision_50, [0.5]),
    ):
        found = jax.jit(metric)(detections, boxes, ones).result()
        assert 0.02 < found < 0.95
        assert found == pytest.approx(average_precision_by_hand(detections, boxes, levels), abs=2e-3)


def test_a_second_detection_of_a_box_is_a_false_one():
    boxes = jnp.array([[[0, 0, 0, 10, 10], [0, 0, 40, 10, 10.0]]])
    found = jnp.array([[[0, 0, 10, 10, 0.9], [0, 1, 10, 10, 0.8], [0, 40, 10, 10, 0.7]]])
    assert mean_average_precision_50(found, boxes, jnp.ones(1)).result() == pytest.approx(0.5 + 0.5 * 2 / 3)


def pictures_of_boxes(examples: int = 32, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures with one bright rectangle each, and its box beside absent ones."""
    random = np.random.default_rng(0)
    pictures = np.zeros((examples, side, side, 1), np.float32)
    boxes = np.full((examples, 3, 5), -1, np.float32)
    for picture, rows in zip(pictures, boxes, strict=True):
        y, x = random.integers(0, side - 6, 2)
        height, width = random.integers(2, 7, 2)
        picture[y : y + height, x : x + width] = 1
        rows[1] = (0, y, x, height, width)
    return pictures, boxes


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("flip", {"probability": 0.5}),
        ("flip_vertical", {"probability": 0.5}),
        ("quarter_turns", {"probability": 0.9}),
        ("pad_and_crop", {"pixels": 5.0}),
        ("crop", {"height": 15, "width": 17}),
    ],
)
def test_boxes_move_with_their_pictures(name: str, knobs: dict[str, Any]):
    pictures, boxes = pictures_of_boxes()
    batch = {"inputs": jnp.asarray(pictures), "targets": Boxes(jnp.asarray(boxes))}
    moved = AUGMENTATIONS.members[name](KEY, batch, **knobs)
    changed = gone = 0
    for picture, rows, old in zip(moved["inputs"][..., 0], np.asarray(moved["targets"].values), boxes, strict=True):
        seen = part_boxes(np.asarray(picture) > 0, 2)
        assert (rows[[0, 2]] == -1).all()
        if rows[1, 0] == -1:  # its centre is outside: less than half of it is seen
            assert not seen or min(seen[0][3] / old[1, 3], seen[0][4] / old[1, 4]) <= 0.5
            gone += 1
        else:
            assert [tuple(rows[1])] == seen
            changed += not np.array_equal(rows, old)
    assert changed > 5
    assert (gone > 0) == (name in ("pad_and_crop", "crop"))


def test_boxes_are_resized_with_their_pictures():
    boxes = Boxes(jnp.array([[[0, 6.0, 4.0, 8.0, 6.0]]] * 8))
    pictures = jnp.zeros((8, 20, 20, 1)).at[:, 6:14, 4:10].set(1.0)
    moved = AUGMENTATIONS.members["random_resized_crop"](KEY, {"inputs": pictures, "targets": boxes}, smallest=0.8)
    for picture, (box,) in zip(np.asarray(moved["inputs"])[..., 0], np.asarray(moved["targets"].values), strict=True):
        (seen,) = part_boxes(picture > 0.5, 2)
        assert seen == pytest.approx(box, abs=1.0)


@pytest.mark.parametrize("name", ["rotate", "affine", "cutmix"])
def test_what_boxes_cannot_follow_is_refused(name: str):
    pictures, boxes = pictures_of_boxes()
    batch = {"inputs": jnp.asarray(pictures), "targets": Boxes(jnp.asarray(boxes))}
    with pytest.raises(ConfigError, match="got targets that are boxes; expected an augmentation that keeps boxes"):
        AUGMENTATIONS.members[name](KEY, batch)


@pytest.mark.parametrize("name", ["flip", "flip_vertical", "quarter_turns", "pad_and_crop", "random_resized_crop"])
def test_a_strength_of_zero_leaves_boxes_to_the_bit(name: str):
    boxes = np.random.default_rng(0).uniform(0.1, 9.9, (4, 2, 5)).astype(np.float32)
    boxes[..., 0] = 0
    knobs = {"pad_and_crop": {"pixels": 0.0}, "random_resized_crop": {"smallest": 1.0, "stretch": 1.0}}
    batch = {"inputs": jnp.zeros((4, 20, 20, 1)), "targets": Boxes(jnp.asarray(boxes))}
    moved = AUGMENTATIONS.members[name](KEY, batch, **knobs.get(name, {"probability": 0.0}))
    np.testing.assert_array_equal(moved["targets"].values, boxes)
