"""What a run takes of the memory of a device, as the compiler plans it, and what else would fit: nothing is placed."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxtrain.parallel.memory import PlannedMemory, planned_memory
from jaxtrain.parallel.mesh import planned_train_call
from jaxtrain.parallel.population import Population, wanted_width
from jaxtrain.training.experiment import Experiment

MAX_LANES = 1024  # beyond, nothing is won by stepping lanes together


def memory_by_kind(experiment: Experiment) -> dict[str, int] | None:
    """Returns kind -> bytes on each device; what the compiler plans is cut up by what is known of the shapes.

    None where the backend's compiler does not say.
    """
    planned = _plan_memory(experiment, experiment.config["data"]["batch_size"])
    if planned is None:
        return None
    state, seeds, devices = experiment.state_shapes(), experiment.config["train"]["seeds"], experiment.mesh.size
    copies = _population(experiment, seeds).padded // devices if seeds > 1 else 1
    known = {
        "parameters": copies * _size(state.params),
        "optimizer state": copies * _size(state.opt_state),
        "averaged parameters": copies * _size(state.ema),
        "statistics of the model": copies * _size(state.model_state),
        "training data": _size(experiment.dataset.split("train")),
    }
    return known | {
        "rows of batches, and the rest of the state": planned.arguments - sum(known.values()),
        "temporaries": planned.temporaries,
        "outputs beside the state": planned.outputs - planned.aliased,
        "validation data": _validation_bytes(experiment),
    }


def bytes_of_batch(experiment: Experiment, batch: int) -> int | None:
    """Returns the bytes on each device that the same run needs at least with batches of this size."""
    return _total(experiment, _plan_memory(experiment, batch, least=True))


def bytes_of_lanes(experiment: Experiment, lanes: int) -> int | None:
    """Returns the bytes on each device that so many lanes of the run need at least, in one program."""
    return _total(experiment, _plan_lanes(experiment, lanes, experiment.config["data"]["batch_size"], least=True))


def largest_batch(experiment: Experiment, limit: int) -> int | None:
    """Returns the largest of `batch_sizes` with which the run fits; 0 if none does, None where nobody knows."""
    return largest_fitting(batch_sizes(experiment), lambda size: bytes_of_batch(experiment, size), limit)


def most_lanes(experiment: Experiment, limit: int) -> int | None:
    """Returns the largest power of two of lanes that fits, up to MAX_LANES; 0 if none does, None where nobody knows."""
    return largest_fitting(double_up_to(1, MAX_LANES), lambda lanes: bytes_of_lanes(experiment, lanes), limit)


def batch_sizes(experiment: Experiment) -> list[int]:
    """Returns the sizes of a batch that are tried: the least that divides over devices and micro-batches, and so on."""
    train, examples = experiment.config["train"], experiment.dataset.sizes["train"]
    least = train["accumulate"] * (experiment.mesh.size if train["seeds"] == 1 else 1)
    return double_up_to(least, max(least, examples // least * least))


def double_up_to(least: int, cap: int) -> list[int]:
    """Returns `least`, two times, four times ... as much, and at the end `cap`."""
    return sorted({*(least << power for power in range((cap // least).bit_length())), cap})


def largest_fitting(candidates: Sequence[int], needed: Callable[[int], int | None], limit: int) -> int | None:
    """Returns the largest candidate that needs no more than the limit, 0 if none does; None where nobody knows.

    The last is tried first, since it often fits, then the least, then those between by bisection: each try is a
    compilation.
    """

    def fits(candidate: int) -> bool | None:
        size = needed(candidate)
        return None if size is None else size <= limit

    last = fits(candidates[-1])
    if last is not False:
        return last and candidates[-1]
    if not fits(candidates[0]):
        return 0
    low, high = 0, len(candidates) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(candidates[middle]) else (low, middle)
    return candidates[low]


def _plan_memory(experiment: Experiment, batch: int, *, least: bool = False) -> PlannedMemory | None:
    """Plans the call of many steps that the run makes, with batches of this size; `least`: at the least width."""
    config = experiment.config
    if config["train"]["seeds"] > 1:
        return _plan_lanes(experiment, config["train"]["seeds"], batch, least)
    shapes = experiment.state_shapes(), experiment.batch_shapes(batch)
    return planned_memory(planned_train_call(experiment.rules, experiment.mesh, config["parallel"]["backend"], *shapes))


def _plan_lanes(experiment: Experiment, lanes: int, batch: int, least: bool) -> PlannedMemory | None:
    population = _population(experiment, lanes, least)
    return planned_memory(population.planned_call(experiment.hparams, experiment.batch_shapes(batch)))


def _population(experiment: Experiment, lanes: int, least: bool = False) -> Population:
    """The program of so many lanes: as wide as it would like to be, or as narrow as it may be to fit."""
    given = experiment.config["parallel"]["width"]
    width = given or 1 if least else wanted_width(lanes, given)
    return Population(experiment.rules, experiment.mesh, lanes, width)


def _total(experiment: Experiment, planned: PlannedMemory | None) -> int | None:
    return None if planned is None else planned.total + _validation_bytes(experiment)


def _validation_bytes(experiment: Experiment) -> int:
    """The validation split lies on the devices, too, while a run trains."""
    return _size(experiment.dataset.split("validation")) if "validation" in experiment.dataset.sizes else 0


def _size(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
