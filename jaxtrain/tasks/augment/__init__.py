"""Augmentations: random changes of training batches, on the device and inside the step.

A member is a pure function `(key, batch, **knobs) -> batch`, and draws for each example by itself. `batch` holds
`inputs` (batch, ...), `targets` (batch, ...) and, once examples are mixed, their partners
(`jaxtrain/tasks/mixtures.py`). Inputs have mean 0 and deviation 1 in each channel of the training
split, also where the data are bytes: what lies outside of a picture is 0, the mean. A strength of 0 leaves the batch as
it is, to the bit. Targets with the height and width of the inputs, such as masks, move with the picture, and so do
`jaxtrain/tasks/boxes.py:Boxes`. Outside of a picture masks are 0, or the void label of the data, which a batch then
holds as `void`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxtrain.config.defaults import Config
from jaxtrain.config.registry import BoundMember, Family, Product, Values
from jaxtrain.config.sections import Augment
from jaxtrain.core.state import Batch, Task, stream
from jaxtrain.errors import ConfigError
from jaxtrain.tasks.augment.geometry import (
    affine,
    crop,
    flip,
    flip_vertical,
    pad_and_crop,
    quarter_turns,
    random_resized_crop,
    rotate,
)
from jaxtrain.tasks.augment.mixing import cutmix, mixup
from jaxtrain.tasks.augment.values import color_jitter, cutout, noise

AUGMENTATIONS = Family(
    "augment",
    {
        "pad_and_crop": pad_and_crop,
        "crop": crop,
        "random_resized_crop": random_resized_crop,
        "flip": flip,
        "flip_vertical": flip_vertical,
        "quarter_turns": quarter_turns,
        "rotate": rotate,
        "affine": affine,
        "color_jitter": color_jitter,
        "noise": noise,
        "cutout": cutout,
        "cutmix": cutmix,
        "mixup": mixup,
    },
    supplied=("key", "batch"),
    product=Product("a batch, with inputs and targets", lambda built: isinstance(built, Mapping)),
    beside=Augment,
)
"""In the order in which they are applied."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentations of a run, in their order: (key of the config, member) each."""

    members: tuple[tuple[str, BoundMember], ...] = ()
    seed: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of the config, in the order in which their members are applied."""
        return tuple(name for name, _ in self.members)

    def __call__(self, key: jax.Array, batch: Batch, values: Values) -> Batch:
        """Returns the augmented batch; each member draws from a stream of its own, so another one changes no draws.

        Raises ConfigError, naming the key of the config, for a member that does not fit the batch.
        """
        key = key if self.seed is None else jax.random.fold_in(key, self.seed)
        for name, member in self.members:
            try:
                batch = member(values, stream(key, name), batch)
            except ConfigError as error:
                raise ConfigError(f"augment.{name}", error.got, error.expected, error.hint) from error
        return batch


def augmentation_of(config: Config) -> Augmentation:
    """Makes the augmentations of a resolved config, in `augment.order` or that of the table."""
    section = config["augment"]
    entries = {key: entry for key, entry in section.items() if isinstance(entry, Mapping)}
    table = list(AUGMENTATIONS.members)

    def place(key: str) -> tuple[Any, ...]:
        name = entries[key]["name"]
        return (table.index(name) if name in table else len(table), key)

    order = section["order"] or sorted(entries, key=place)
    bound = tuple((key, AUGMENTATIONS.bind(entries[key], f"augment.{key}")) for key in order)
    return Augmentation(bound, section["seed"])


def augmented(task: Task, augmentation: Augmentation) -> Task:
    """Returns the task with its training batches augmented; evaluation and prediction stay as they are."""
    if not augmentation.members:
        return task

    def loss(params: Any, model_state: Any, batch: Batch, key: jax.Array, values: Values, train: bool) -> Any:
        seen = augmentation(stream(key, "augment"), batch, values) if train else batch
        return task.loss(params, model_state, seen, key, values, train)

    return task._replace(loss=loss)
