"""Estimates device memory with XLA's memory analysis: what fits, and which run is refused since it does not.

Allocates nothing on the devices.
"""

from collections.abc import Callable, Sequence

from jaxtrain.config.seeds import lane_count
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.core.trees import tree_bytes
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.memory import PlannedMemory, memory_limit, plan_memory
from jaxtrain.parallel.mesh import plan_train_call
from jaxtrain.parallel.population import Population
from jaxtrain.parallel.width import preferred_width
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.feeds import DeviceFeed
from jaxtrain.training.shared_frozen import shares_frozen
from jaxtrain.training.size_checks import format_bytes

MAX_LANES = 1024  # more lanes in one program are no faster


def demand_memory(experiment: Experiment, step: StepFunction = train_step) -> None:
    """Raises ConfigError where a call of a single run needs more memory than is free on a device; runs nothing.

    The program that is compiled for the answer is that of the run. Its data are not counted, since their feed was
    chosen by what fits. Lanes are judged by `parallel/width.py:fit_width`.
    """
    config = experiment.config
    if lane_count(config) > 1:
        return
    batch = config["data"]["batch_size"]
    shapes = experiment.feed.shapes(batch)
    backend = config["parallel"]["backend"]
    call = plan_train_call(experiment.rules, experiment.mesh, backend, experiment.state_shapes(), shapes, step)
    planned = plan_memory(call)
    needed = 0 if planned is None else planned.total - tree_bytes(shapes.data)
    limit = memory_limit(experiment.mesh)
    if needed > limit:
        expected = (
            f"a batch whose activations fit: a step needs {format_bytes(needed)} beside the data, and"
            f" {format_bytes(limit)} of the device are free"
        )
        remat = "set model.remat, " if config["model"].get("remat") is False else ""
        hint = f"Lower it, raise train.accumulate, {remat}or take a smaller model; `plan` reports the largest that fits"
        raise ConfigError("data.batch_size", batch, expected, hint)


def memory_by_kind(experiment: Experiment) -> dict[str, int] | None:
    """Returns kind -> bytes on each device: XLA's estimate, divided by kind using the known shapes.

    None if the backend's compiler reports no memory analysis.
    """
    planned = _plan_memory(experiment, experiment.config["data"]["batch_size"])
    if planned is None:
        return None
    state = experiment.state_shapes()
    seeds = experiment.config["train"]["seeds"]
    population = _population(experiment, seeds)
    copies = population.padded // experiment.mesh.size if seeds > 1 else 1
    known = {
        "parameters": copies * tree_bytes(state.params),
        "frozen parameters": (1 if population.share_frozen else copies) * tree_bytes(state.frozen),
        "optimizer state": copies * tree_bytes(state.opt_state),
        "averaged parameters": copies * tree_bytes(state.ema),
        "model state": copies * tree_bytes(state.model_state),
        "training data": tree_bytes(experiment.feed.shapes(experiment.config["data"]["batch_size"]).data),
    }
    return known | {
        "batch indices and other state": planned.arguments - sum(known.values()),
        "temporaries": planned.temporaries,
        "outputs other than the state": planned.outputs - planned.aliased,
        "validation data": _validation_bytes(experiment),
    }


def bytes_of_batch(experiment: Experiment, batch: int) -> int | None:
    """Returns the least bytes on each device that the run needs with batches of this size; None if unknown."""
    return _total(experiment, _plan_memory(experiment, batch, least=True))


def bytes_of_lanes(experiment: Experiment, lanes: int) -> int | None:
    """Returns the least bytes on each device that one program of `lanes` lanes needs; None if unknown."""
    return _total(experiment, _plan_lanes(experiment, lanes, experiment.config["data"]["batch_size"], least=True))


def largest_batch(experiment: Experiment, limit: int) -> int | None:
    """Returns the largest of `batch_sizes` with which the run fits; 0 if none fits, None if unknown."""
    return largest_fitting(batch_sizes(experiment), lambda size: bytes_of_batch(experiment, size), limit)


def most_lanes(experiment: Experiment, limit: int) -> int | None:
    """Returns the largest power of two of lanes that fits, up to MAX_LANES; 0 if none fits, None if unknown."""
    return largest_fitting(double_up_to(1, MAX_LANES), lambda lanes: bytes_of_lanes(experiment, lanes), limit)


def batch_sizes(experiment: Experiment) -> list[int]:
    """Returns the batch sizes to try: doubled from one example per device and micro-batch up to the training split.

    Batch norm needs two examples.
    """
    train = experiment.config["train"]
    examples = experiment.dataset.sizes["train"]
    devices = experiment.mesh.size if train["seeds"] == 1 else 1
    unit = train["accumulate"] * devices
    least = 2 * unit if devices == 1 and experiment.config["model"].get("norm") == "batch" else unit
    return double_up_to(least, max(least, examples // unit * unit))


def double_up_to(least: int, cap: int) -> list[int]:
    """Returns least, 2 * least, 4 * least, ... below `cap`, and `cap`."""
    return sorted({*(least << power for power in range((cap // least).bit_length())), cap})


def largest_fitting(candidates: Sequence[int], needed: Callable[[int], int | None], limit: int) -> int | None:
    """Returns the largest candidate whose `needed` bytes are within the limit; 0 if none fits, None if unknown.

    Each try is a compilation, so the last candidate is tried first, since it often fits, then the first one, then those
    between by bisection.
    """

    def fits(candidate: int) -> bool | None:
        size = needed(candidate)
        return None if size is None else size <= limit

    last = fits(candidates[-1])
    if last is not False:
        return last and candidates[-1]
    if not fits(candidates[0]):
        return 0
    low = 0
    high = len(candidates) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if fits(candidates[middle]):
            low = middle
        else:
            high = middle
    return candidates[low]


def _plan_memory(experiment: Experiment, batch: int, *, least: bool = False) -> PlannedMemory | None:
    """Plans the run's training call with batches of this size; `least`: at the smallest width."""
    config = experiment.config
    if config["train"]["seeds"] > 1:
        return _plan_lanes(experiment, config["train"]["seeds"], batch, least)
    shapes = experiment.state_shapes(), experiment.feed.shapes(batch)
    return plan_memory(plan_train_call(experiment.rules, experiment.mesh, config["parallel"]["backend"], *shapes))


def _plan_lanes(experiment: Experiment, lanes: int, batch: int, least: bool) -> PlannedMemory | None:
    population = _population(experiment, lanes, least)
    return plan_memory(population.plan_call(experiment.hparams, experiment.feed.shapes(batch)))


def _population(experiment: Experiment, lanes: int, least: bool = False) -> Population:
    """Makes the program of `lanes` lanes, at the preferred width or, with `least`, at the smallest one."""
    given = experiment.config["parallel"]["width"]
    # Lanes beyond the run's own seeds are trials of a search, which have one seed as a rule.
    share = shares_frozen(experiment, range(experiment.config["train"]["seeds"]))
    width = given or 1 if least else preferred_width(lanes, given, share_frozen=share)
    return Population(experiment.rules, experiment.mesh, lanes, width, share_frozen=share)


def _total(experiment: Experiment, planned: PlannedMemory | None) -> int | None:
    return None if planned is None else planned.total + _validation_bytes(experiment)


def _validation_bytes(experiment: Experiment) -> int:
    """Returns the bytes of the validation split, which stays on the devices that hold the data."""
    held = "validation" in experiment.dataset.sizes and isinstance(experiment.feed, DeviceFeed)
    return experiment.dataset.nbytes("validation") if held else 0
