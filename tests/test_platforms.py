"""The formulation of convolutions follows the platform and the place that a program is for, not the tracing machine."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import ROOT

from jaxtrain import load_config
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.core.batches import Batches
from jaxtrain.core.state import init_state
from jaxtrain.core.steps import train_call
from jaxtrain.data.info import describe
from jaxtrain.training.experiment import make_rules

IMAGES = np.zeros((4, 16, 16, 1), np.uint8)
TARGETS = {
    "classification": (np.arange(4) % 2, 10),
    "segmentation": (np.arange(4 * 16 * 16).reshape(4, 16, 16) % 2, 2),
}
SMALL = {"model.features": (4, 4), "model.widths": (4, 4, 4, 4), "model.hidden": (8,), "model.width": 4}
MULTILAYER = ("mlp",)
"""Models without convolutions."""


def small_config(path):
    config = load_config(path)
    return load_config(path, {knob: value for knob, value in SMALL.items() if knob.split(".")[1] in config["model"]})


CONFIGS = [p for p in sorted((ROOT / "configs").glob("*.py")) if load_config(p)["model"]["name"] not in MULTILAYER]


def convolutions_in(traced: Any, platform: str) -> int:
    """Returns the number of native convolutions in a traced program, lowered for a platform."""
    return traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.convolution")


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
    kernels = sum(leaf.ndim == 4 for leaf in jax.tree.leaves(state.params))
    assert convolutions_in(traced, "cpu") == 0
    for platform in ("cuda", "tpu"):
        # Two programs hold the step: that of the loop, and that of the shapes of its metrics, which is not run. Each
        # convolution but the first has two gradients, and the first one.
        assert convolutions_in(traced, platform) >= 3 * kernels - 1
