"""A task without targets: representations in which two augmented views of an example are alike."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.config.schema import Count, Positive
from jaxtrain.core.floats import as_floats
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Batch, Task, stream
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.augment import Augmentation
from jaxtrain.tasks.linen import LossFunction, ModelFunction
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.tasks.mixtures import partners_of
from jaxtrain.tasks.shapes import reshape_outputs

PROJECTION = "projection"
"""Name of the parameters of the projection, beside those of the model."""


def contrastive(
    model: ModelFunction,
    loss: LossFunction,
    info: DataInfo,
    augmentation: Augmentation,
    features: Count = 128,
    projection: Count = 64,
    temperature: Positive = 0.5,
    metrics: tuple[str, ...] = ("accuracy",),
) -> Task:
    """Learns representations without labels: tells the other view of an example from all other views of a batch.

    Each example is augmented twice, by the section `augment`. The model returns `features` numbers, the representation,
    which predictions are; two layers map it to `projection` numbers, whose cosines over `temperature` are logits. With
    `loss.name=cross_entropy` this is NT-Xent of SimCLR: Chen et al. (2020), https://arxiv.org/abs/2002.05709. Where
    examples have labels, evaluations say `neighbour_accuracy`: the share of those whose most similar other example, by
    its representation, has the same label. Loss and metrics compare the examples of a batch and depend on its size.
    """
    if not augmentation.members:
        expected = "at least one for 'contrastive', whose two views would else be equal"
        raise ConfigError("augment", Words("no augmentation"), expected, "Name some, such as random_resized_crop")
    head = nn.Sequential([nn.Dense(features), nn.relu, nn.Dense(projection)])
    functions = {name: METRICS.member(name, "task.metrics") for name in metrics}
    has_labels = info.classes is not None and not info.target_shape

    def init(key: jax.Array, batch: Batch, values: Values) -> tuple[Any, Any]:
        variables = dict(model(values, features).init({"params": key}, batch["inputs"], train=False))
        own = head.init(stream(key, PROJECTION), jnp.zeros((1, features)))["params"]
        return {**variables.pop("params", {}), PROJECTION: own}, variables

    def loss_and_metrics(
        params: Any, model_state: Any, batch: Batch, key: jax.Array, values: Values, train: bool
    ) -> tuple[jax.Array, tuple[Any, dict[str, Mean]]]:
        views = [_view(augmentation, view_key, batch, values) for view_key in jax.random.split(stream(key, "views"))]
        variables = {"params": _without(params, PROJECTION), **model_state}
        options = {"train": train, "rngs": {"dropout": stream(key, "dropout")}}
        mutable = list(model_state) if train else []
        outputs, updates = model(values, features).apply(variables, jnp.concatenate(views), mutable=mutable, **options)
        found = reshape_outputs(outputs, (features,), model)
        examples = len(views[0])
        mask = batch.get("mask", jnp.ones(examples, jnp.float32))
        counted = jnp.tile(mask, 2)
        projected: Any = head.apply({"params": params[PROJECTION]}, found)
        logits = similarities(projected, counted) / temperature
        partners = jnp.roll(jnp.arange(2 * examples, dtype=jnp.int32), examples)
        total = Mean.of(loss(values, logits, partners), counted)
        results = {name: function(logits, partners, counted) for name, function in functions.items()}
        if has_labels and not train:
            seen = predict(params, model_state, batch["inputs"], values)
            results["neighbour_accuracy"] = neighbour_accuracy(seen, batch["targets"], mask)
        return total.sum / total.count, ({**model_state, **updates}, {"loss": total, **results})

    def predict(params: Any, model_state: Any, inputs: jax.Array, values: Values) -> jax.Array:
        variables = {"params": _without(params, PROJECTION), **model_state}
        return reshape_outputs(model(values, features).apply(variables, inputs, train=False), (features,), model)

    return Task(init, loss_and_metrics, predict)


def similarities(vectors: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns cosines (n, n) of vectors (n, features); -inf to itself and to those that do not count by `mask` (n,)."""
    vectors = as_floats(vectors)
    unit = vectors * jax.lax.rsqrt(jnp.square(vectors).sum(axis=1, keepdims=True) + 1e-12)
    others = ~jnp.eye(len(unit), dtype=bool) & (mask > 0)[None]
    return jnp.where(others, unit @ unit.T, -jnp.inf)


def neighbour_accuracy(vectors: jax.Array, labels: jax.Array, mask: jax.Array) -> Mean:
    """Returns the share of vectors (n, features) whose most similar other one has the same label (n,)."""
    nearest = similarities(vectors, mask).argmax(axis=1)
    return Mean.of(labels[nearest] == labels, mask, higher_is_better=True)


def _view(augmentation: Augmentation, key: jax.Array, batch: Batch, values: Values) -> jax.Array:
    seen = augmentation(key, batch, values)
    if partners_of(seen):
        expected = "augmentations that mix no examples for 'contrastive'"
        raise ConfigError("augment", Words("mixed examples"), expected, "Leave mixup and cutmix out")
    return seen["inputs"]


def _without(tree: Any, name: str) -> Any:
    return {key: leaf for key, leaf in tree.items() if key != name}
