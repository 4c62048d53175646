"""Takes one step once more, and looks at it: what each layer gives, gradients and updates, and the loss of each row."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.gradients import training_losses
from jaxtrain.core.state import Batch, Rules, TrainState
from jaxtrain.core.steps import StepFunction
from jaxtrain.core.trees import is_float, named_leaves
from jaxtrain.replay.layers import (
    PARAMETERS,
    Activation,
    Measure,
    as_numbers,
    find_activations,
    measure,
    name_layers,
)
from jaxtrain.replay.operations import Constant, Operation, Program, read_program
from jaxtrain.replay.origin import Origin, compiled, describe_origin, locate_origin


@dataclass(frozen=True)
class Look:
    """Measurements of one step.

    Attributes:
        loss: of the batch, by the instrumented step.
        values: the hyperparameters of the step.
        activations: layer by layer in the order of the forward pass, with their numbers.
        gradients: path -> numbers, of the trained parameters.
        updates: path -> numbers of the change of the parameters.
        parameters: path -> numbers before the step.
        row_losses: the loss of each row of the batch (n,); None where the task does not count rows by a mask, or where
            the loss is not finite.
        origin: the operation by which the step left the finite numbers; None if it did not.
    """

    loss: float
    values: Mapping[str, float]
    activations: Sequence[tuple[Activation, Measure]]
    gradients: Mapping[str, Measure]
    updates: Mapping[str, Measure]
    parameters: Mapping[str, Measure]
    row_losses: np.ndarray | None
    origin: Origin | None


def look_at_step(step: StepFunction, state: TrainState, batch: Batch, rules: Rules) -> Look:
    """Takes the step of a state on a batch, both of one run, instrumented. Its programs are compiled for this alone.

    They differ from the run's own in how XLA joins operations, and so in the last digits.
    """
    rows = len(batch["inputs"])
    rules = rules._replace(norms_by_layer=False, samples_gradients=False, skips_spikes=False)
    program = read_program(functools.partial(step, rules=rules), state=state, batch=batch)
    layers = name_layers(program)
    activations = find_activations(program, layers, rows // rules.accumulate)
    leaves = jax.tree.leaves({"state": state, "batch": batch})
    seen, results = compiled(functools.partial(_run, program, activations))(leaves)
    differentiated = compiled(functools.partial(_differentiate, rules=rules))(state, batch)
    left = None if _all_finite(results) else locate_origin(program, leaves, list(results))
    return Look(
        loss=float(results["1/loss/sum"]) / max(float(results["1/loss/count"]), 1e-30),
        values={name: float(value) for name, value in differentiated.values.items()},
        activations=[(a, as_numbers(seen.activations[a.result])) for a in activations],
        gradients=_numbers_of_all(differentiated.gradients),
        updates=_numbers_of_all(seen.updates),
        parameters=_numbers_of_all(seen.parameters),
        row_losses=_row_losses(differentiated),
        origin=None if left is None else describe_origin(program, leaves, layers, left, rows),
    )


def _numbers_of_all(measured: Mapping[str, Measure]) -> dict[str, Measure]:
    return {path: as_numbers(own) for path, own in measured.items()}


class _Seen(NamedTuple):
    """Measures of a step: number of a value -> of what layers give; path -> of parameters, and of their changes."""

    activations: dict[int, Measure]
    parameters: dict[str, Measure]
    updates: dict[str, Measure]


def _run(program: Program, activations: Sequence[Activation], leaves: Sequence[Any]) -> tuple[_Seen, dict[str, Any]]:
    """Runs the program; returns its measures, and the results by which a step is judged: the state and the loss."""
    wanted = {activation.result for activation in activations}
    values = dict(zip(program.inputs, leaves, strict=True))
    measured: dict[int, Measure] = {}

    def look(operation: Operation, operands: list[Any], results: list[Any]) -> None:
        del operands
        for number, value in zip(operation.results, results, strict=True):
            values[number] = value
            if number in wanted:
                measured[number] = measure(value)

    program.run(leaves, look)
    before = {path: values[number] for number, path in program.inputs.items()}
    after = {path: o.value if isinstance(o, Constant) else values[o] for path, o in _judged(program).items()}
    trained = [path for path in before if path.startswith("params/")]
    names = {path: path.partition("/")[2] for path in before if path.startswith(PARAMETERS)}
    updates = {names[path]: measure(after[f"0/{path}"] - before[path]) for path in trained}
    return _Seen(measured, {names[path]: measure(before[path]) for path in names}, updates), after


def _judged(program: Program) -> dict[str, Any]:
    return {path: operand for path, operand in program.outputs.items() if path.startswith(("0/", "1/loss/"))}


def _all_finite(results: Mapping[str, Any]) -> bool:
    return all(np.isfinite(np.asarray(value, np.float64)).all() for value in results.values() if is_float(value))


class _Differentiated(NamedTuple):
    """Values of the schedule, losses of the micro-batches, measures of gradients, and slopes by the mask (n,)."""

    values: dict[str, Any]
    losses: Any
    gradients: dict[str, Measure]
    slopes: Any


def _differentiate(state: TrainState, batch: Batch, rules: Rules) -> _Differentiated:
    """Differentiates the task's loss by parameters and by the mask of the rows."""

    def loss(params: Any, mask: Any) -> tuple[Any, Any]:
        parts = [part(params)[0] for part in training_losses(state, {**batch, "mask": mask}, rules=rules)]
        return sum(parts) / len(parts), jnp.stack(parts)

    mask = jnp.ones(len(batch["inputs"]), jnp.float32)
    (gradients, slopes), losses = jax.grad(loss, argnums=(0, 1), has_aux=True)(state.params, mask)
    measured = {path: measure(leaf) for path, leaf in named_leaves(gradients)}
    return _Differentiated(dict(rules.schedule(state.step, state.hparams)), losses, measured, slopes)


def _row_losses(differentiated: _Differentiated) -> np.ndarray | None:
    """Returns the loss of each row (n,); None where rows have none that is finite, or do not count by their mask.

    A loss is a mean over rows weighted by their mask, so its derivative by the mask of a row is the difference of this
    row's loss and the mean, over the number of rows.
    """
    slopes = np.asarray(differentiated.slopes, np.float64)
    parts = np.asarray(differentiated.losses, np.float64)
    if not (np.isfinite(slopes).all() and np.isfinite(parts).all() and slopes.any()):
        return None
    return parts[np.arange(len(slopes)) % len(parts)] + len(slopes) * slopes
