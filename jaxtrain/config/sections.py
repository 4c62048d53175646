"""The sections of a config that choose no member: a dataclass each, whose fields are the keys and their defaults."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtrain.config.durations import Duration, Total
from jaxtrain.config.schema import Bounds, Count, Fraction, Pattern, Positive

Compute = Literal["float32", "bfloat16"]
Products = Literal["default", "high", "highest"]


@dataclass(frozen=True)
class Train:
    """Duration, micro-batches a step, decay of averaged parameters, patience of early stopping (None: without).

    Several `seeds`, from `seed` upwards, run as lanes of one program, and are reported with mean and interval.
    `precision` is the type that the model computes in; parameters, the optimizer's state, losses and metrics are
    float32 either way. `matmul_precision` is that of float32 products in the model, the loss and their gradients: by
    "default" the fastest (TF32 on recent NVIDIA GPUs, bfloat16 on a TPU, float32 on a CPU), by "high" the next (three
    passes of bfloat16 on a TPU; on GPUs as before), by "highest" float32 everywhere.
    """

    duration: Total = "10 epochs"
    accumulate: Count = 1
    ema: Fraction | None = None
    early_stopping: Duration | None = None
    seeds: Count = 1
    precision: Compute = "float32"
    matmul_precision: Products = "default"


@dataclass(frozen=True)
class Eval:
    """How often a run is evaluated on the validation split, and the metric that chooses the best step."""

    every: Duration = "10 %"
    metric: str = "loss"


@dataclass(frozen=True)
class Checkpoint:
    """How often the state is saved, how many are kept, and the run whose weights to start from.

    `init_except` is a regular expression: parameters whose path it matches keep their initial values.
    """

    every: Duration = "10 %"
    keep: Count = 2
    init_from: str | None = None
    init_except: Pattern | None = None


@dataclass(frozen=True)
class Log:
    """How often the training metrics are recorded."""

    every: Duration = "2 %"


@dataclass(frozen=True)
class Track:
    """Which trackers mirror metrics.jsonl."""

    tensorboard: bool = True


@dataclass(frozen=True)
class Parallel:
    """How a step spreads over the local devices: a mesh of `mesh` devices (None: all), by `jit` or by `pmap`.

    `width`: where runs are lanes of one program, how many a device steps at a time (None: chosen by the memory).
    """

    backend: Literal["mesh", "pmap"] = "mesh"
    mesh: Count | None = None
    width: Count | None = None


@dataclass(frozen=True)
class LRRange:
    """The learning-rate range test: every rate as lanes of their own, or one ramp over them.

    `target` is the float that is varied, from `start` to `stop` in `rates` steps of equal ratio, over `seeds` seeds;
    lanes train for `steps`. `second` names another float, varied from
    `second_start` to `second_stop` in `second_count` steps. `before_training`: the verb train tests first.
    """

    method: Literal["lanes", "ramp"] = "lanes"
    target: str = "optimizer.learning_rate"
    start: Positive = 1e-7
    stop: Positive = 1.0
    rates: Annotated[int, Bounds(5)] = 36
    seeds: Count = 3
    steps: Duration = "5 %"
    second: str | None = None
    second_start: Positive = 1e-4
    second_stop: Positive = 1.0
    second_count: Annotated[int, Bounds(2)] = 5
    before_training: bool = False


@dataclass(frozen=True)
class Search:
    """The search over `search.space`, which mirrors the config: who proposes how many trials, and how they run.

    `sampler`: grid, random, sobol, tpe, or one of Optuna's as "optuna:GPSampler"; asked for `batch` trials at a time,
    each trained with `seeds` seeds from `seed` upwards. `halving`: trials that fall behind are stopped at rungs, the
    first after `first_rung`, each later one `reduction` times as far, where the best 1 / `reduction` go on; "hyperband"
    lets some start at later rungs. The best is trained beside the config's own values on `compare_seeds` further seeds.
    `storage`: the address of a database whose study, called `study` (None: after the config), workers share.
    """

    sampler: str = "random"
    trials: Count = 32
    seeds: Count = 1
    batch: Count = 32
    halving: Literal["successive", "hyperband"] | None = None
    first_rung: Duration = "10 %"
    reduction: Annotated[int, Bounds(2)] = 3
    compare_seeds: Annotated[int, Bounds(0)] = 3
    storage: str | None = None
    study: str | None = None


SECTIONS: dict[str, type] = {
    "train": Train,
    "eval": Eval,
    "checkpoint": Checkpoint,
    "log": Log,
    "track": Track,
    "parallel": Parallel,
    "lr_range": LRRange,
    "search": Search,
}
