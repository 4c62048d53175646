"""The program of a run's predictions, from raw inputs to outputs in a user's terms, for all platforms at once."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxtrain.core.averaging import evaluation_weights
from jaxtrain.core.outside_loops import outside_loops
from jaxtrain.core.state import Task
from jaxtrain.errors import UsageError, Words, first_line
from jaxtrain.export.loading import Inputs, inputs_of
from jaxtrain.export.outputs import Head, head_of
from jaxtrain.export.stored_weights import (
    Storage,
    plain_weights,
    restore_weight,
    store_weights,
    stored_arrays,
    with_arrays,
)
from jaxtrain.tasks import make_task
from jaxtrain.tasks.lora import LoRA
from jaxtrain.training.trained_run import Run

PLATFORMS = ("cpu", "cuda", "tpu")

ERRORS_OF_TRACING = (TypeError, ValueError, NotImplementedError)
"""Errors of JAX for operations that a program cannot have: it has no one class for them."""


@dataclass(frozen=True)
class Member:
    """The weights of a run for prediction, as an export stores them, and what predicts with them.

    `values` are the hyperparameters of the step, by name. A model `by_example` sees one example at a time.
    """

    params: Any
    model_state: Any
    task: Task
    values: Mapping[str, np.ndarray]
    by_example: bool = False

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The weights by their paths, such as "params/Dense_0/kernel"."""
        return stored_arrays({"params": self.params, **self.model_state})

    def predict(self, inputs: Any) -> jax.Array:
        """Predicts from prepared inputs, inside a program."""
        weights = jax.tree.map(restore_weight, (self.params, self.model_state))
        with outside_loops():
            if self.by_example:
                return jax.vmap(lambda example: self.task.predict(*weights, example[None], self.values)[0])(inputs)
            return self.task.predict(*weights, inputs, self.values)

    def decode(self, tokens: jax.Array, cache: Any, position: jax.Array | int) -> tuple[jax.Array, Any]:
        """Returns the logits of tokens, and the cache that they extend, inside a program."""
        return self.task.decode(self.params, self.model_state, tokens, self.values, cache, position)

    def stored(self, storage: Storage) -> "Member":
        """Returns the member with its weights in a storage."""
        return replace(self, params=store_weights(self.params, storage))

    def restored(self, arrays: Mapping[str, jax.Array]) -> "Member":
        """Returns the member with weights as float32 that come from arrays by their paths, inside a program."""
        tree = with_arrays({"params": self.params, **self.model_state}, arrays)
        weights = jax.tree.map(restore_weight, tree)
        return replace(self, params=weights.pop("params"), model_state=weights)

    def plain(self) -> "Member":
        """Returns the member with its weights as float32, rounded as they are stored."""
        return replace(self, params=plain_weights(self.params))


def member_of(run: Run) -> Member:
    """Returns the weights of a run: averaged ones where it has them, adapters merged into what they adapt."""
    values = jax.device_get(run.rules.schedule(run.state.step, run.state.hparams))
    params, model_state = jax.device_get(evaluation_weights(run.state))
    task = run.task
    section = run.config["lora"]
    if section["paths"]:
        params = jax.device_get(LoRA(section["paths"], section["rank"]).merge(params, values))
        task = make_task({**run.config, "lora": {**section, "paths": None}}, run.info)
    member = Member(params, model_state, task, values)
    return member if _takes_any_number(member, inputs_of(run.info)) else replace(member, by_example=True)


def _takes_any_number(member: Member, inputs: Inputs) -> bool:
    """Tells whether a model can be traced without the number of examples, for which `len(inputs)` in its code asks."""
    try:
        jax.eval_shape(lambda **arguments: member.predict(inputs.prepare(arguments)), **batched(inputs))
    except ERRORS_OF_TRACING:
        return False
    return True


def program_of(inputs: Inputs, members: Sequence[Member], head: Head) -> Callable[..., dict[str, jax.Array]]:
    """Returns the function of raw inputs, by name, to outputs by name; several members are joined."""

    def program(**arguments: jax.Array) -> dict[str, jax.Array]:
        prepared = inputs.prepare(arguments)
        predictions = [member.predict(prepared) for member in members]
        return head.outputs(head.join(jnp.stack(predictions)) if len(members) > 1 else predictions[0])

    return program


def prefixes_of(members: Mapping[int, Member]) -> list[str]:
    """Returns what stands before the paths of each member's weights: nothing, or "seed_N/" where there are several."""
    return [f"seed_{seed}/" if len(members) > 1 else "" for seed in members]


def weights_of(members: Mapping[int, Member]) -> dict[str, np.ndarray]:
    """Returns the weights of the members, by their paths in `weights.safetensors`."""
    pairs = zip(prefixes_of(members), members.values(), strict=True)
    return {prefix + path: array for prefix, member in pairs for path, array in member.arrays.items()}


def export_program(run: Run, members: Sequence[Member]) -> bytes:
    """Exports the program of the runs' predictions for any number of examples; `run` is the first of them.

    Raises UsageError for a model that works with fixed numbers of examples alone, or on one platform alone.
    """
    inputs = inputs_of(run.info)
    program = program_of(inputs, members, head_of(run.config["task"]["name"], run.info))
    try:
        return serialize(program, **batched(inputs))
    except ERRORS_OF_TRACING as error:
        got = Words(f"the model {run.config['model']['name']!r}, which cannot be exported ({first_line(error)})")
        expected = "a model of operations that take any number of examples, on any platform"
        raise UsageError("model.name", got, expected, "Use it by load_run") from error


def batched(inputs: Inputs) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the arguments of the program for any number n of examples."""
    (size,) = export.symbolic_shape("n")
    return {name: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype) for name, spec in inputs.specs.items()}


def serialize(program: Callable[..., Any], *specs: Any, **named: Any) -> bytes:
    """Returns the exported program of a function for all platforms; raises ERRORS_OF_TRACING where it has none."""
    with _without_source_places():
        return bytes(export.export(jax.jit(program), platforms=PLATFORMS)(*specs, **named).serialize())


@contextlib.contextmanager
def _without_source_places() -> Iterator[None]:
    """Keeps the files and lines of this machine's code out of programs, so that the same run gives the same bytes."""
    setting = "jax_traceback_in_locations_limit"
    before = jax.config.values[setting]
    jax.config.update(setting, 0)
    try:
        yield
    finally:
        jax.config.update(setting, before)
