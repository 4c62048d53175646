"""Augmentations: each member against NumPy or SciPy, identity at strength 0, and masks that move with the pictures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxtrain.errors import ConfigError
from jaxtrain.tasks.augment import AUGMENTATIONS

KEY = jax.random.key(0)
BATCH = 64
GENERATOR = np.random.default_rng(0)
PICTURES = GENERATOR.normal(size=(BATCH, 6, 9, 2)).astype(np.float32)
MASKS = GENERATOR.integers(1, 4, (BATCH, 6, 9)).astype(np.int32)


def augment(name: str, *, inputs: Any = PICTURES, targets: Any = MASKS, **knobs: Any) -> Any:
    """Applies a member as the step does, with its floats as inputs of a program, and returns arrays of NumPy."""
    floats = {knob: jnp.float32(value) for knob, value in knobs.items() if isinstance(value, float)}
    static = {knob: value for knob, value in knobs.items() if knob not in floats}
    function = AUGMENTATIONS.members[name]
    batch = {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(targets)}
    found = jax.jit(lambda batch, floats: function(KEY, batch, **static, **floats))(batch, floats)
    return jax.tree.map(np.asarray, found)


def shift(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Returns a picture whose place (0, 0) is that of (rows, columns) in the old one, with 0 outside."""
    border = ((9, 9), (9, 9), *[(0, 0)] * (picture.ndim - 2))
    height, width = picture.shape[:2]
    return np.pad(picture, border)[9 + rows : 9 + rows + height, 9 + columns : 9 + columns + width]


def same(found: Any, inputs: np.ndarray, targets: np.ndarray) -> bool:
    return np.array_equal(found["inputs"], inputs) and np.array_equal(found["targets"], targets)


@pytest.mark.parametrize(("name", "axis"), [("flip", 2), ("flip_vertical", 1)])
def test_flip_mirrors_pictures_and_masks_with_its_probability(name: str, axis: int):
    assert same(augment(name, probability=1.0), np.flip(PICTURES, axis), np.flip(MASKS, axis))
    some = augment(name, probability=0.5)
    mirrored = [np.array_equal(new, old) for new, old in zip(some["inputs"], np.flip(PICTURES, axis), strict=True)]
    kept = [np.array_equal(new, old) for new, old in zip(some["inputs"], PICTURES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 20 < sum(mirrored) < 44


def test_pad_and_crop_shifts_each_picture_and_its_mask_by_whole_pixels():
    found = augment("pad_and_crop", pixels=2.0)
    offsets = [(rows, columns) for rows in range(-2, 3) for columns in range(-2, 3)]
    used = set()
    for new, mask, picture, labels in zip(found["inputs"], found["targets"], PICTURES, MASKS, strict=True):
        (place,) = (offset for offset in offsets if np.array_equal(new, shift(picture, *offset)))
        assert np.array_equal(mask, shift(labels, *place))
        used.add(place)
    assert len(used) > 15
    assert {rows for rows, _ in used} == {columns for _, columns in used} == {-2, -1, 0, 1, 2}


def test_crop_cuts_a_part_at_a_random_place():
    found = augment("crop", height=4, width=5)
    assert found["inputs"].shape == (BATCH, 4, 5, 2)
    places = set()
    for new, mask, picture, labels in zip(found["inputs"], found["targets"], PICTURES, MASKS, strict=True):
        for row in range(3):
            for column in range(5):
                if np.array_equal(new, picture[row : row + 4, column : column + 5]):
                    assert np.array_equal(mask, labels[row : row + 4, column : column + 5])
                    places.add((row, column))
    assert len(places) > 12
    with pytest.raises(ConfigError, match="got a crop of 7 x 7; expected one within pictures of 6 x 9"):
        augment("crop", height=7)
    assert augment("crop", height=6)["inputs"].shape == (BATCH, 6, 6, 2)


def uniform(key: jax.Array, shape: tuple[int, ...], reach: float) -> np.ndarray:
    return np.asarray(jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)) * np.float32(reach)


def warped(matrices: np.ndarray, shifts: np.ndarray, targets: np.ndarray = MASKS) -> tuple[np.ndarray, np.ndarray]:
    """Moves the pictures by SciPy's affine transformation about their centres, the masks by nearest pixels."""
    centre = (np.array(PICTURES.shape[1:3]) - 1) / 2
    inputs, maps = np.zeros_like(PICTURES), np.zeros_like(targets)
    for i, (matrix, shift_of) in enumerate(zip(matrices.astype(np.float64), shifts.astype(np.float64), strict=True)):
        options: dict[str, Any] = {"offset": centre - matrix @ centre + shift_of, "mode": "grid-constant"}
        for channel in range(PICTURES.shape[3]):
            inputs[i, ..., channel] = ndimage.affine_transform(PICTURES[i, ..., channel], matrix, order=1, **options)
        maps[i] = ndimage.affine_transform(targets[i], matrix, order=0, **options)
    return inputs, maps


def turns(radians: np.ndarray) -> np.ndarray:
    return np.array([[[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]] for a in radians.astype(np.float64)])


def test_rotate_is_scipys_rotation_about_the_centre():
    found = augment("rotate", degrees=40.0)
    inputs, maps = warped(turns(uniform(KEY, (BATCH,), np.deg2rad(40.0))), np.zeros((BATCH, 2)))
    np.testing.assert_allclose(found["inputs"], inputs, atol=1e-5)
    assert (found["targets"] != maps).mean() < 0.001  # halves between two pixels may round to either


def test_affine_is_scipys_transformation():
    found = augment("affine", degrees=20.0, shift=0.2, zoom=0.3, shear=15.0)
    keys = jax.random.split(KEY, 4)
    scale = np.exp(uniform(keys[1], (BATCH, 1, 1), np.log1p(0.3)))
    slope = np.tan(uniform(keys[2], (BATCH,), np.deg2rad(15.0)))
    sheared = turns(uniform(keys[0], (BATCH,), np.deg2rad(20.0))) @ np.array([[[1.0, s], [0.0, 1.0]] for s in slope])
    inputs, maps = warped(scale * sheared, uniform(keys[3], (BATCH, 2), 0.2) * np.array([[6, 9]]))
    np.testing.assert_allclose(found["inputs"], inputs, atol=1e-5)
    assert (found["targets"] != maps).mean() < 0.001


def test_random_resized_crop_interpolates_a_part_of_the_demanded_size():
    found = augment("random_resized_crop", smallest=0.3, stretch=1.5)
    keys = jax.random.split(KEY, 4)
    area = np.asarray(jax.random.uniform(keys[0], (BATCH, 1), minval=0.3, maxval=1.0))
    ratio = np.exp(uniform(keys[1], (BATCH, 1), np.log(1.5)))
    places = []
    for key, length, fraction in zip(keys[2:], (6, 9), (np.sqrt(area * ratio), np.sqrt(area / ratio)), strict=True):
        part = np.minimum(fraction, 1.0)
        start = np.asarray(jax.random.uniform(key, part.shape)) * (1 - part) * length
        assert (start >= 0).all()
        assert (start + part * length <= length + 1e-4).all()
        places.append(start + (np.arange(length) + 0.5) * part - 0.5)
    for i in range(BATCH):
        grid = np.meshgrid(places[0][i], places[1][i], indexing="ij")
        for channel in range(2):
            expected = ndimage.map_coordinates(PICTURES[i, ..., channel], grid, order=1, mode="nearest")
            np.testing.assert_allclose(found["inputs"][i, ..., channel], expected, atol=1e-5)
        rows, columns = (np.floor(line[i] + 0.5).astype(int) for line in places)
        assert np.array_equal(found["targets"][i], MASKS[i][np.ix_(rows, columns)])


def test_quarter_turns_are_numpys_and_each_is_as_likely():
    square, labels = PICTURES[:, :, :6], MASKS[:, :, :6]
    found = augment("quarter_turns", inputs=square, targets=labels, probability=0.75)
    counts = [0] * 4
    for new, mask, picture, old in zip(found["inputs"], found["targets"], square, labels, strict=True):
        (k,) = (k for k in range(4) if np.array_equal(new, np.rot90(picture, k)))
        assert np.array_equal(mask, np.rot90(old, k))
        counts[k] += 1
    assert min(counts) > 6
    with pytest.raises(ConfigError, match="got pictures of 6 x 9; expected square ones"):
        augment("quarter_turns")


def test_color_jitter_changes_brightness_contrast_and_saturation_in_turn():
    found = augment("color_jitter", brightness=0.5, contrast=0.4, saturation=2.0)
    drawn = np.asarray(jax.random.uniform(KEY, (3, BATCH, 1, 1, 1), minval=-1.0, maxval=1.0))
    expected = PICTURES + 0.5 * drawn[0]
    mean = expected.mean(axis=(1, 2, 3), keepdims=True)
    expected = mean + (1 + 0.4 * drawn[1]) * (expected - mean)
    grey = expected.mean(axis=3, keepdims=True)
    expected = grey + np.maximum(1 + 2.0 * drawn[2], 0.0) * (expected - grey)
    np.testing.assert_allclose(found["inputs"], expected, atol=1e-5)


def test_noise_has_its_deviation_also_in_tables():
    table = np.zeros((BATCH, 100), np.float32)
    added = augment("noise", inputs=table, targets=MASKS[:, 0, 0], deviation=0.3)["inputs"]
    assert abs(added.std() - 0.3) < 0.02
    assert abs(added.mean()) < 0.02


def test_cutout_covers_a_square_with_the_mean():
    ones = np.ones((BATCH, 20, 30, 1), np.float32)
    covered = augment("cutout", inputs=ones, targets=MASKS, side=0.5)["inputs"][..., 0] == 0
    whole = 0
    for one in covered:
        rows, columns = one.any(axis=1), one.any(axis=0)
        assert np.array_equal(one, np.outer(rows, columns))
        assert 4 <= rows.sum() <= 10
        assert 4 <= columns.sum() <= 10
        whole += rows.sum() == 10 and columns.sum() == 10
    assert whole > 10
    assert augment("cutout", inputs=ones, targets=MASKS, side=0.5, probability=0.0)["inputs"].all()


def test_mixup_mixes_inputs_and_targets_by_the_same_shares():
    labels = MASKS[:, 0, 0]
    found = augment("mixup", targets=labels, alpha=1.0)
    (partner,) = found["partners"]
    kept = (1 - partner.share)[:, None, None, None]
    np.testing.assert_allclose(found["inputs"], kept * PICTURES + (1 - kept) * np.roll(PICTURES, 1, 0), atol=1e-6)
    assert np.array_equal(found["targets"], labels)
    assert np.array_equal(partner.targets, np.roll(labels, 1))
    assert abs(partner.share.mean() - 0.5) < 0.15
    assert abs(partner.share.std() - 12**-0.5) < 0.06


def test_cutmix_pastes_a_box_and_its_area_is_the_share_of_the_partner():
    ones = np.arange(1.0, BATCH + 1, dtype=np.float32)[:, None, None, None] * np.ones((1, 20, 30, 1), np.float32)
    labels = MASKS[:, 0, 0]
    found = augment("cutmix", inputs=ones, targets=labels, alpha=1.0)
    (partner,) = found["partners"]
    pasted = found["inputs"] != ones
    assert np.array_equal(found["inputs"], np.where(pasted, np.roll(ones, 1, 0), ones))
    np.testing.assert_allclose(pasted.mean(axis=(1, 2, 3)), partner.share, atol=1e-6)
    assert partner.share.min() < 0.1
    assert partner.share.max() > 0.5


def test_cutmix_cuts_masks_like_pictures():
    found = augment("cutmix", alpha=1.0)
    pasted = (found["inputs"] != PICTURES).any(axis=-1)
    assert "partners" not in found
    assert pasted.any()
    assert np.array_equal(found["targets"], np.where(pasted, np.roll(MASKS, 1, 0), MASKS))


OFF: dict[str, dict[str, float]] = {
    "pad_and_crop": {"pixels": 0.0},
    "random_resized_crop": {"smallest": 1.0, "stretch": 1.0},
    "flip": {"probability": 0.0},
    "flip_vertical": {"probability": 0.0},
    "quarter_turns": {"probability": 0.0},
    "rotate": {"degrees": 0.0},
    "affine": {"degrees": 0.0, "shift": 0.0, "zoom": 0.0, "shear": 0.0},
    "color_jitter": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
    "noise": {"deviation": 0.0},
    "cutout": {"side": 0.0},
    "cutmix": {"alpha": 0.0},
    "mixup": {"alpha": 0.0},
}


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS.members if name != "crop"])
def test_a_strength_of_zero_leaves_a_batch_as_it_is(name: str):
    square, labels = PICTURES[:, :, :6], MASKS[:, :, :6]
    found = augment(name, inputs=square, targets=labels, **OFF[name])
    assert same(found, square, labels)
    assert all((partner.share == 0).all() for partner in found.get("partners", ()))


@pytest.mark.parametrize("name", [n for n in AUGMENTATIONS.members if n not in ("noise", "mixup")])
def test_what_needs_pictures_refuses_a_table(name: str):
    with pytest.raises(ConfigError, match=r"got examples of shape \(5,\); expected pictures"):
        augment(
            name, inputs=np.zeros((4, 5), np.float32), targets=np.zeros(4), **({"height": 2} if name == "crop" else {})
        )
