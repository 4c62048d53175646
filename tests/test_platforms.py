"""The formulation of convolutions follows the platform and the place that a program is for, not the tracing machine."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import ROOT

from jaxtrain import load_config
from jaxtrain.config.defaults import flatten
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.core.batches import Batches
from jaxtrain.core.outside_loops import is_outside_loops, outside_loops
from jaxtrain.core.state import init_state
from jaxtrain.core.steps import train_call
from jaxtrain.data.info import describe
from jaxtrain.models.layers import Conv, attention, max_pool
from jaxtrain.training.experiment import make_rules

IMAGES = np.zeros((4, 16, 16, 1), np.uint8)
TARGETS = {
    "classification": (np.arange(4) % 2, 10),
    "segmentation": (np.arange(4 * 16 * 16).reshape(4, 16, 16) % 2, 2),
}
SMALL = {
    "model.features": (4, 4),
    "model.widths": (4, 4, 4, 4),
    "model.hidden": (8,),
    "model.width": 4,
    "augment.crop.height": 8,
}
CONVOLUTIONAL = ("cnn", "resnet9", "resnet", "unet", "vit")


def small_config(path):
    """Loads a config with a small model, and crops of small pictures."""
    config = load_config(path)
    knobs = {key for key in SMALL if key in flatten(config)}
    return load_config(path, {key: SMALL[key] for key in knobs})


CONFIGS = [p for p in sorted((ROOT / "configs").glob("*.py")) if load_config(p)["model"]["name"] in CONVOLUTIONAL]


def convolutions_in(traced: Any, platform: str) -> int:
    """Returns the number of native convolutions in a traced program, lowered for a platform."""
    return traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.convolution")


def count_kernels(params: Any) -> int:
    """Returns the number of convolutions; transposed ones are products everywhere."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(leaf.ndim == 4 and "ConvTranspose" not in jax.tree_util.keystr(path) for path, leaf in leaves)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_steps_of_a_config_hold_native_convolutions_except_on_cpu(path):
    config = small_config(path)
    targets, classes = TARGETS[config["task"]["name"]]
    info = describe(IMAGES, targets, None, classes)
    rules = make_rules(config, info)
    floats = dict.fromkeys([*hyperparameters(config), "train.total_steps"], jax.ShapeDtypeStruct((), jnp.float32))
    data = {"inputs": IMAGES, "targets": targets.astype(np.int32)}
    state = jax.eval_shape(functools.partial(init_state, rules=rules), jax.random.key(0), data, floats)
    batches = Batches(data, jax.ShapeDtypeStruct((3, 2), jnp.int32))
    count = jax.ShapeDtypeStruct((), jnp.int32)
    traced = jax.jit(functools.partial(train_call, rules=rules)).trace(state, batches, count)
    kernels = count_kernels(state.params)
    assert convolutions_in(traced, "cpu") == 0
    for platform in ("cuda", "tpu"):
        assert convolutions_in(traced, platform) == 3 * kernels - 1  # the first has no gradient of its inputs


class Both(nn.Module):
    """A convolution, pooling and attention."""

    @nn.compact
    def __call__(self, inputs):
        hidden = max_pool(Conv(4)(inputs)).reshape(len(inputs), -1, 2, 2)
        return attention(hidden, hidden, hidden)


def test_a_program_outside_of_loops_takes_the_native_operations_on_cpu_with_the_same_numbers_within_rounding():
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    params = Both().init(jax.random.key(0), images)

    def predict(images):
        with outside_loops():
            return Both().apply(params, images)

    in_loop = jax.jit(lambda images: Both().apply(params, images)).trace(images)
    outside = jax.jit(predict).trace(images)
    texts = [traced.lower(lowering_platforms=("cpu",)).as_text() for traced in (in_loop, outside)]
    assert [text.count("stablehlo.convolution") for text in texts] == [0, 1]
    assert [text.count("stablehlo.reduce_window") for text in texts] == [0, 1]
    found, expected = (traced.lower().compile()(images) for traced in (in_loop, outside))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not is_outside_loops()
