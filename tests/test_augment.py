"""Augmentations: each member against NumPy or SciPy, identity at strength 0, and masks that move with the pictures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.errors import ConfigError
from jaxtrain.tasks.augment import AUGMENTATIONS

KEY = jax.random.key(0)
BATCH = 64
GENERATOR = np.random.default_rng(0)
PICTURES = GENERATOR.normal(size=(BATCH, 6, 9, 2)).astype(np.float32)
MASKS = GENERATOR.integers(1, 4, (BATCH, 6, 9)).astype(np.int32)


def augment(name: str, *, inputs: Any = PICTURES, targets: Any = MASKS, key: jax.Array = KEY, **knobs: Any) -> Any:
    """Applies a member as the step does, with its floats as inputs of a program, and returns arrays of NumPy."""
    floats = {knob: jnp.float32(value) for knob, value in knobs.items() if isinstance(value, float)}
    static = {knob: value for knob, value in knobs.items() if knob not in floats}
    function = AUGMENTATIONS.members[name]
    batch = {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(targets)}
    found = jax.jit(lambda batch, floats: function(key, batch, **static, **floats))(batch, floats)
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
