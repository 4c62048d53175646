"""Segmentation: a void label that nothing counts, scores of each image, and a network that learns from image files."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_runs import tiny

from jaxtrain.config.registry import knobs_of
from jaxtrain.config.resolve import resolve_config
from jaxtrain.data import Source
from jaxtrain.data.info import describe
from jaxtrain.errors import ConfigError, DataError
from jaxtrain.tasks import make_task
from jaxtrain.tasks.inputs import normalise_inputs
from jaxtrain.tasks.losses import LOSSES
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

RANDOM = np.random.default_rng(0)
VOID = 255
KEPT = 5  # columns of the images; the others are void
LABELS = RANDOM.integers(0, 3, (4, 6, 8)).astype(np.int32)
MASKS = LABELS % 2
MASKS[2] = 0
LOGITS = {3: RANDOM.normal(size=(4, 6, 8, 3)).astype(np.float32), 2: RANDOM.normal(size=(4, 6, 8)).astype(np.float32)}
LOGITS[2][2] = -1.0  # an empty mask that is predicted empty
TARGETS = {3: LABELS, 2: MASKS}
LOSSES_OF = {
    2: ("binary_cross_entropy", "binary_focal", "dice", "iou", "tversky", "dice_cross_entropy"),
    3: ("cross_entropy", "focal", "dice", "iou", "tversky", "dice_cross_entropy"),
}
MASK_METRICS = ("dice", "iou", "mean_iou", "iou_per_class", "accuracy", "f1_macro", "image_dice", "image_iou")


class Pixels(nn.Module):
    """A logit for each pixel, or for each class of it, from its own value alone."""

    outputs: int

    @nn.compact
    def __call__(self, inputs, train=False):
        return nn.Dense(self.outputs)(inputs)


def without_kept(predictions, targets):
    """A user's loss that counts every pixel."""
    return jnp.zeros(len(targets))


@pytest.mark.parametrize(("classes", "name"), [(classes, name) for classes in (2, 3) for name in LOSSES_OF[classes]])
def test_a_loss_leaves_pixels_out_and_so_do_its_gradients(classes, name):
    loss = LOSSES.members[name]
    kept = np.broadcast_to(np.arange(8) < KEPT, LABELS.shape)

    def total(logits, targets, **options):
        return loss(logits, targets, **options).sum()

    found, gradients = jax.value_and_grad(total)(LOGITS[classes], TARGETS[classes], kept=jnp.asarray(kept))
    part: Any = LOGITS[classes][:, :, :KEPT]
    expected, of_part = jax.value_and_grad(total)(part, TARGETS[classes][:, :, :KEPT])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients[:, :, :KEPT], of_part, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(gradients[:, :, KEPT:], 0.0)
    assert "kept" not in LOSSES.knobs(name)
    assert "kept" in knobs_of(loss, 2)


def score(chosen, truth, classes, *, iou):
    """Returns the score of one image by sets of pixels."""
    labels = [1] if classes == 2 else range(classes)
    pairs = [((chosen == label), (truth == label)) for label in labels]
    ratios = [
        (p & t).sum() * (1 if iou else 2) / ((p | t).sum() if iou else p.sum() + t.sum())
        for p, t in pairs
        if p.any() or t.any()
    ]
    return float(sum(ratios)) / len(ratios) if ratios else 1.0


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["image_dice", "image_iou"])
def test_scores_of_images_are_those_of_their_sets_of_pixels_averaged(name, classes):
    mask = jnp.array([1.0, 0.0, 1.0, 1.0])
    logits: Any = LOGITS[classes]
    chosen = logits > 0 if classes == 2 else logits.argmax(axis=-1)
    found = METRICS.members[name](logits, TARGETS[classes], mask)
    expected = [score(chosen[i], TARGETS[classes][i], classes, iou=name == "image_iou") for i in (0, 2, 3)]
    assert found.result() == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.higher_is_better


@pytest.mark.parametrize("classes", [2, 3])
def test_a_task_counts_no_void_pixel_in_its_loss_and_metrics(classes):
    section = {"name": "segmentation", "metrics": MASK_METRICS}
    config = resolve_config({"task": section, "model": f"{__name__}:Pixels", "loss": "dice_cross_entropy"}).config
    images = RANDOM.normal(size=(*LABELS.shape, 2)).astype(np.float32)
    targets = TARGETS[classes].copy()
    targets[:, :, KEPT:] = VOID
    mask = jnp.array([1.0, 1.0, 1.0, 0.0])

    def measured(inputs, targets, void):
        task = make_task(config, describe(inputs, targets, None, classes, void=void))
        batch = {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(targets), "mask": mask}
        params, state = task.init(jax.random.key(0), batch, {})
        floats = {name: jnp.float32(1.0) for name in ("loss.smooth", "loss.dice_weight")}
        found = jax.jit(lambda: task.loss(params, state, batch, jax.random.key(0), floats, False)[1][1])()
        return {key: value for name, metric in found.items() for key, value in metric.numbers(name).items()}

    with_void = measured(images, targets, VOID)
    part = measured(images[:, :, :KEPT], targets[:, :, :KEPT], None)
    assert with_void == pytest.approx(part, rel=1e-5)


@pytest.mark.parametrize(("name", "knobs"), [("pad_and_crop", {"pixels": 3.0}), ("rotate", {"degrees": 60.0})])
def test_what_lies_outside_of_a_moved_mask_is_void(name, knobs):
    """Pictures of one class alone show no other class, wherever they are moved."""
    section = {"name": "segmentation", "metrics": ("accuracy",)}
    given = {"task": section, "model": f"{__name__}:Pixels", "loss": "dice_cross_entropy", "augment": {name: knobs}}
    images, targets = np.ones((16, 8, 8, 1), np.float32), np.full((16, 8, 8), 2, np.int32)
    task = make_task(resolve_config(given).config, describe(images, targets, None, 3, void=VOID))
    batch = {"inputs": jnp.asarray(images), "targets": jnp.asarray(targets)}
    params = {"Dense_0": {"kernel": jnp.zeros((1, 3)), "bias": jnp.array([0.0, 0.0, 1.0])}}
    floats = {"loss.smooth": 1.0, "loss.dice_weight": 1.0, **{f"augment.{name}.{k}": v for k, v in knobs.items()}}
    values = {key: jnp.float32(value) for key, value in floats.items()}
    _, (_, found) = task.loss(params, {}, batch, jax.random.key(0), values, True)
    assert found["accuracy"].result() == 1.0


def test_a_loss_of_ones_own_must_know_which_pixels_count():
    given = {"task": "segmentation", "model": f"{__name__}:Pixels", "loss": f"{__name__}:without_kept"}
    images = np.zeros((*LABELS.shape, 1), np.float32)
    task = make_task(resolve_config(given).config, describe(images, LABELS, None, 3, void=VOID))
    with pytest.raises(
        ConfigError, match=r"loss\.name: got '.*without_kept' for masks with a void label; expected a lo"
    ):
        task.init(jax.random.key(0), {"inputs": images, "targets": LABELS}, {})


def test_a_void_label_is_none_of_the_classes_and_needs_their_number():
    images = np.zeros((*LABELS.shape, 1), np.float32)
    config = tiny({"task.name": "segmentation"})
    for classes, expected in (
        (3, "a label other than 0 to 2"),
        (None, "a number of classes beside it. Give it as Source"),
    ):
        with pytest.raises(DataError, match=f"got the void label 1.*expected {expected}"):
            train_and_evaluate(config, "unused", data=Source({"train": (images, LABELS)}, classes, void=1), quiet=True)


def test_examples_normalised_by_themselves_do_not_change_with_brightness_and_contrast():
    pictures = RANDOM.integers(0, 100, (6, 4, 5, 2)).astype(np.uint8)
    pictures[1] = 7
    info = describe(pictures, np.zeros((6, 4, 5), np.int32), None, 2, per_example=True)
    found = np.asarray(normalise_inputs(jnp.asarray(pictures), info))
    mean, deviation = (function(pictures, axis=(1, 2), keepdims=True) for function in (np.mean, np.std))
    np.testing.assert_allclose(found, (pictures - mean) / np.where(deviation > 0, deviation, 1), atol=1e-4)
    np.testing.assert_allclose(found[1], 0.0, atol=1e-6)
    np.testing.assert_allclose(normalise_inputs(jnp.asarray(2 * pictures + 9), info), found, atol=1e-4)
    np.testing.assert_allclose(normalise_inputs(jnp.asarray(found), info), found, atol=1e-5)


def test_features_of_a_table_are_not_normalised_by_themselves():
    with pytest.raises(ConfigError, match=r"data\.per_example: got True; expected False for tables, texts"):
        build(tiny({"data.name": "diabetes", "data.per_example": True}))


SIZE = 16
UNET = {
    "task": {"name": "segmentation", "metrics": ("image_dice", "image_iou")},
    "model": {"name": "unet", "width": 4, "depth": 2},
    "loss": {"name": "dice_cross_entropy"},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "data": {"name": "image_masks", "folder": "pairs", "batch_size": 8, "test_fraction": 0.2, "per_example": True},
    "train": {"duration": "60 steps"},
    "eval": {"metric": "image_dice"},
    "parallel": {"mesh": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Writes bright discs on noise, with masks whose borders are void."""
    root = tmp_path_factory.mktemp("discs")
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for name in ("images", "masks"):
        (root / "pairs" / name).mkdir(parents=True)
    for i in range(60):
        centre = RANDOM.uniform(4, SIZE - 4, 2)
        distance = np.hypot(rows - centre[0], columns - centre[1])
        image = 40 + 120 * (distance < 3.5) + RANDOM.normal(0, 15, (SIZE, SIZE))
        mask = np.where(abs(distance - 3.5) < 0.5, VOID, distance < 3.5)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"pairs/images/{i:02}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / f"pairs/masks/{i:02}.png")
    return root


def config_of(folder, overrides=None):
    given = {**UNET, "data": {**UNET["data"], "path": str(folder), "void": 255}}
    return resolve_config(given, overrides or {}).config


def test_a_unet_learns_from_files_whose_borders_are_void_and_predicts_masks(folder, tmp_path):
    result = train_and_evaluate(config_of(folder), tmp_path, quiet=True)
    assert result.test is not None
    assert result.test["image_dice"] > 0.9
    run = load_run(tmp_path)
    predicted = run.predict_files(*(folder / f"pairs/images/{i:02}.png" for i in range(3)))
    truth = np.stack([np.asarray(Image.open(folder / f"pairs/masks/{i:02}.png")) for i in range(3)])
    assert predicted.shape == truth.shape
    assert ((predicted > 0) == truth)[truth != VOID].mean() > 0.95
    larger = np.zeros((1, 2 * SIZE, SIZE, 1), np.uint8)
    with pytest.raises(DataError, match=r"inputs: got the shape \(1, 32, 16, 1\)"):
        run.predict(larger)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"data.void": 1}, r"data\.void: got 1; expected None or 2 to 255, beyond the labels of 2 classes"),
        ({"data.void": None}, r"masks/00\.png.*got the values 0, 1, 255; expected 0 and 1, or 0 and 255.*data\.void"),
        ({"model.depth": 5}, r"model\.depth: got 5 for images of 16 x 16 pixels; expected sides divisible by 2 \*\* 5"),
        (
            {"model.name": "cnn"},
            r"model\.name: got 'cnn', which returns an array of shape \(8, 1\); expected outputs of",
        ),
        (
            {"model.name": "vit", "model.patch": 5},
            r"model\.patch: got 5 for images of 16 x 16 pixels; expected a number",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line_before_training(folder, tmp_path, overrides, said):
    with pytest.raises((ConfigError, DataError), match=said):
        train_and_evaluate(config_of(folder, overrides), tmp_path / "run", quiet=True)
    assert not any(path.stat().st_size for path in tmp_path.glob("run/metrics.jsonl"))
