"""Checks before training that augmentations fit the data, the task and the model: they are traced, and nothing runs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError

from jaxtrain.config.defaults import Config
from jaxtrain.config.registry import Values
from jaxtrain.core.extra_arguments import uses_argument
from jaxtrain.core.frozen import join_params
from jaxtrain.core.state import Batch, Rules, TrainState
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import ConfigError, Words, nearest
from jaxtrain.tasks import TASKS, make_task
from jaxtrain.tasks.augment import augmentation_of
from jaxtrain.tasks.augment.views import VIEWS
from jaxtrain.tasks.inputs import normalise_batch
from jaxtrain.tasks.mixtures import partners_of

EXAMPLES = 4


def check_views(config: Config) -> None:
    """Rejects names in `eval.augment` that are no views, and those with a task that may not use the config's model."""
    names = config["eval"]["augment"]
    for name in names:
        if name not in VIEWS or names.count(name) > 1:
            raise ConfigError("eval.augment", names, f"some of {', '.join(VIEWS)}, each once", nearest(name, VIEWS))
    if names and config["task"]["name"] == "detection":
        raise ConfigError("eval.augment", names, "() with 'detection', whose boxes move with the picture")
    if names and config["task"]["name"] not in TASKS.members:
        expected = "() with a task of your own, whose predictions it could not average"
        raise ConfigError("eval.augment", names, expected, "Average them in its predict")


def check_augment(config: Config, rules: Rules, info: DataInfo, state: TrainState, example: Mapping[str, Any]) -> None:
    """Rejects augmentations, in training and in evaluation, that do not fit; `state` and `example` give the shapes."""
    augmentation = augmentation_of(config)
    if not augmentation.members and not config["eval"]["augment"]:
        return
    key = jax.eval_shape(lambda: jax.random.key(0))
    values = jax.eval_shape(lambda hparams: rules.schedule(jnp.zeros((), jnp.int32), hparams), state.hparams)
    raw = {n: jax.ShapeDtypeStruct((EXAMPLES, *leaf.shape[1:]), leaf.dtype) for n, leaf in example.items()}
    batch = jax.eval_shape(lambda batch: normalise_batch(batch, info), raw)
    seen = jax.eval_shape(augmentation, key, batch, values)
    _check_batch(batch, seen)

    params = join_params(state.params, state.frozen)

    def loss(params: Any, model_state: Any, batch: Batch, key: jax.Array, values: Any) -> Any:
        return rules.task.loss(params, model_state, batch, key, values, True)[0]

    try:
        jax.eval_shape(loss, params, state.model_state, raw, key, values)
    except ScopeParamShapeError as error:
        got = Words(f"pictures of shape {seen['inputs'].shape[1:]} in training")
        expected = f"those of the data, {batch['inputs'].shape[1:]}, with a model whose weights depend on their size"
        raise ConfigError(
            "augment", got, expected, "Take a fully convolutional model, or leave the crop out"
        ) from error
    if partners_of(seen) and config["task"]["name"] not in TASKS.members:
        _demand_mixed_losses(config, info, state, seen, key, values)
    jax.eval_shape(rules.task.predict, params, state.model_state, raw["inputs"], values)


def _check_batch(batch: Batch, seen: Batch) -> None:
    """Rejects a batch of another number of examples, of another dtype, or without targets."""
    for name in ("inputs", "targets"):
        old, new = (_form(batch.get(name)) for batch in (batch, seen))
        if old != new:
            got = Words(f"{name} of {new[0]}, {new[1][0] if new[1] else 'no'} examples for {EXAMPLES}")
            raise ConfigError("augment", got, f"{name} of {old[0]}, one for each example, from every member")


def _form(field: Any) -> tuple[Any, tuple[int, ...]]:
    """Returns the dtype and the number of examples of a field of a batch, an array or boxes."""
    array = next(iter(jax.tree.leaves(field)), None)
    return getattr(array, "dtype", None), getattr(array, "shape", ())[:1]


def _demand_mixed_losses(
    config: Config, info: DataInfo, state: TrainState, seen: Batch, key: Any, values: Values
) -> None:
    """Rejects a task of the user's own whose loss is the same whatever shares the targets of partners have."""
    task = make_task({**config, "augment": {"order": None, "seed": None}}, info)

    def loss(shares: Any, *rest: Any) -> Any:
        params, model_state, batch, key, values = rest
        partners = (partner._replace(share=share) for partner, share in zip(batch["partners"], shares, strict=True))
        return task.loss(params, model_state, {**batch, "partners": tuple(partners)}, key, values, True)[0]

    shares = [partner.share for partner in partners_of(seen)]
    params = join_params(state.params, state.frozen)
    if not uses_argument(loss, shares, params, state.model_state, seen, key, values):
        got = Words(f"{config['task']['name']!r}, whose loss leaves out the targets of mixed examples")
        hint = (
            "Leave mixup and cutmix out, or make the task by linen_task, which weights the losses by batch['partners']"
        )
        raise ConfigError("augment", got, "a task that learns from mixtures", hint)
