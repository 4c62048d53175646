"""Test-time augmentation: the outputs of a model averaged over views of each picture, such as its mirror image.

Outputs with a value for each pixel are moved back before they are averaged. What is averaged are the outputs of the
model, logits in classification.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.core.precision import Module
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.augment.pictures import demand_array


class View(NamedTuple):
    """A change of pictures (batch, height, width, ...) that keeps their size, and the change that inverts it."""

    change: Callable[[jax.Array], jax.Array]
    invert: Callable[[jax.Array], jax.Array]


def _flipped(axis: int) -> View:
    return View(lambda pictures: jnp.flip(pictures, axis), lambda maps: jnp.flip(maps, axis))


def _turned(turns: int) -> View:
    return View(lambda p: jnp.rot90(p, turns, axes=(1, 2)), lambda maps: jnp.rot90(maps, -turns, axes=(1, 2)))


VIEWS: dict[str, tuple[View, ...]] = {
    "flip": (_flipped(2),),
    "flip_vertical": (_flipped(1),),
    "quarter_turns": (_turned(1), _turned(2), _turned(3)),
}
"""The views that each name adds to the picture itself; several names are combined."""


def views_of(names: tuple[str, ...]) -> list[tuple[View, ...]]:
    """Returns each combination of views, applied in turn; the first one, which is empty, is the picture itself."""
    choices = [(None, *VIEWS[name]) for name in names]
    return [tuple(view for view in chosen if view is not None) for chosen in itertools.product(*choices)]


@dataclass(frozen=True)
class AveragedOverViews:
    """A module whose outputs, except in training, are means over views of its input.

    `are_maps` says that the task has a target for each pixel, so that outputs are moved back.
    """

    module: Module
    names: tuple[str, ...]
    are_maps: bool

    def init(self, rngs: Any, *args: Any, **options: Any) -> Any:
        """Initialises the variables of the module."""
        return self.module.init(rngs, *args, **options)

    def apply(self, variables: Any, inputs: jax.Array, *, train: bool = False, **options: Any) -> Any:
        """Applies the module to each view; returns the mean, with the updated state where it is asked for."""
        if train:
            return self.module.apply(variables, inputs, train=True, **options)
        self._check(inputs)
        with_state = "mutable" in options
        outputs = []
        state: Any = None
        for views in views_of(self.names):
            seen = inputs
            for view in views:
                seen = view.change(seen)
            result = self.module.apply(variables, seen, train=False, **options)
            found, state = result if with_state else (result, None)
            outputs.append(self._moved_back(found, views, inputs))
        mean = sum(outputs[1:], outputs[0]) / len(outputs)
        return (mean, state) if with_state else mean

    def _moved_back(self, outputs: jax.Array, views: tuple[View, ...], inputs: jax.Array) -> jax.Array:
        if not self.are_maps:
            return outputs
        if outputs.ndim < 3 or outputs.shape[:3] != inputs.shape[:3]:
            got = Words(f"{self.names} with a model that returns {outputs.shape[1:]} an example")
            raise ConfigError("eval.augment", got, "outputs of the height and width of the pictures")
        for view in reversed(views):
            outputs = view.invert(outputs)
        return outputs

    def _check(self, inputs: Any) -> None:
        if demand_array(inputs, "eval.augment").ndim != 4:
            got = Words(f"{self.names} for examples of shape {inputs.shape[1:]}")
            raise ConfigError("eval.augment", got, "pictures (height, width, channels)", "Leave it out")
        if "quarter_turns" in self.names and inputs.shape[1] != inputs.shape[2]:
            got = Words(f"'quarter_turns' for pictures of {inputs.shape[1]} x {inputs.shape[2]}")
            raise ConfigError("eval.augment", got, "square pictures", "Leave it out")
