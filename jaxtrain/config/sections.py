"""The sections of a config without members: one dataclass each, whose fields are the keys with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from jaxtrain.config.durations import Duration, Total
from jaxtrain.config.schema import Bounds, Count, Name, Pattern, Positive, Probability, ServerAddress
from jaxtrain.config.search_budget import SearchBudget
from jaxtrain.config.trial_value import TrialValue

Compute = Literal["float32", "bfloat16", "float64"]
Products = Literal["default", "high", "highest"]


@dataclass(frozen=True)
class Train:
    """Duration, micro-batches per step, decay of averaged parameters, patience of early stopping (None: off).

    A `duration` that is a time, such as "10 minutes", is that of the whole run: a timing before it begins fixes the
    number of steps.

    Several `seeds`, counted up from `seed`, run as lanes of one program; the mean and its interval are reported.
    `precision` is the dtype that the model computes in. With "bfloat16", parameters, optimizer state, losses, metrics
    stay float32. With "float64" they are float64, and so are data and hyperparameters: for comparisons to many digits.
    It needs a process with JAX_ENABLE_X64=True, which the command line sets.
    `matmul_precision` is the precision of float32 matrix products in the model, the loss and their gradients:
    "default" is the fastest (TF32 on recent NVIDIA GPUs, bfloat16 on TPUs, float32 on CPUs), "high" is more precise on
    TPUs (three bfloat16 passes; GPUs as by default), "highest" is float32 everywhere.

    With `on_spike` "rewind" a batch whose loss or gradient norm is not finite, or leaves the range of the 64 steps
    before it, is skipped: the state goes back to before it. The limit is six times as far above their median as the
    largest of them. At most 10 batches, and one in a hundred steps, are skipped.
    """

    duration: Total = "10 epochs"
    accumulate: Count = 1
    ema: Probability | None = None
    early_stopping: Duration | None = None
    seeds: Count = 1
    precision: Compute = "float32"
    matmul_precision: Products = "default"
    on_spike: Literal["rewind"] | None = None


@dataclass(frozen=True)
class Augment:
    """The order of the augmentations of training batches (None: that of the table), and their seed.

    The other keys of the section are its augmentations, each off unless it is named: `augment.flip.probability=0.5`, or
    `augment.flip=True` with the defaults of its knobs. A key of your own takes a `name`, as in
    `augment.second = {"name": "cutout"}`, or a function of yours as "package.module:function".

    A `seed` draws other augmentations in a run whose initial weights and dropout stay those of its own seed; None: the
    run's seed alone decides.
    """

    order: tuple[str, ...] | None = None
    seed: Annotated[int, Bounds(0, 2**32 - 1)] | None = None


@dataclass(frozen=True)
class Eval:
    """Interval of evaluation on the validation split, and the metric that selects the best step.

    `augment` names views of each picture over which the outputs of the model are averaged in evaluations, tests and
    predictions, those of pixels moved back: some of flip, flip_vertical and quarter_turns. Each flip doubles the work.

    `host` names functions (predictions, targets) -> {name: number} that are called on the host with a whole split, for
    metrics that are no sums over examples: of `list host_metrics`, or "package.module:function". Where `metric` is such
    a number, `higher_is_better` says whether a higher one is better.
    """

    every: Duration = "10 %"
    metric: Name = "loss"
    augment: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Interval of checkpoints, the number to keep, the one that is the result, and the run that this one starts from.

    `result` is the state that is tested, evaluated and loaded: that of the best evaluation, or the last one.

    `init_from` is a run, or a `.safetensors` file, whose weights initialise this one, except those whose path matches
    the regular expression `init_except`. `init_names` maps the names of a file to paths by pairs (regular expression,
    path), and `init_layout` "torch" moves the axes of its kernels, whose outputs come first there. `continue_from` is a
    run whose whole newest state this one continues: steps, optimizer and averages, with the schedules and the duration
    of this config, both counted from the first step of that run.
    """

    every: Duration = "10 %"
    keep: Count = 2
    result: Literal["best", "last"] = "best"
    init_from: Name | None = None
    init_except: Pattern | None = None
    init_names: tuple | None = None
    init_layout: Literal["jax", "torch"] = "jax"
    continue_from: Name | None = None


@dataclass(frozen=True)
class LowRank:
    """Low-rank adaptation of the weights whose path matches the regular expression `paths` (None: off).

    All parameters are frozen. Each of these weights gets `alpha` / `rank` times a trained product of two matrices, with
    `rank` columns and rows. `checkpoint.init_from` names the run or file whose weights are adapted.
    """

    paths: Pattern | None = None
    rank: Count = 8
    alpha: Positive = 16.0


@dataclass(frozen=True)
class Log:
    """Interval at which training metrics are recorded."""

    every: Duration = "2 %"


@dataclass(frozen=True)
class Track:
    """Trackers that mirror metrics.jsonl, and what is shown of a run beside its metrics. None of it changes a number.

    `pictures` is the interval at which a run shows its predictions of fixed validation examples, `examples` of them
    (None: no pictures); at its end it shows what summarises the split, and the worst and the best of it. `histograms`
    is the interval of histograms of parameters, of how far they moved, and of gradients (None: none). Both are taken at
    the first evaluation or checkpoint after each interval. `layers` adds the norms of each array of parameters, of its
    gradient and of its update to the metrics. `performance` records the speed of the machine.
    """

    tensorboard: bool = True
    pictures: Duration | None = "10 %"
    examples: Annotated[int, Bounds(1, 256)] = 16
    histograms: Duration | None = "10 %"
    layers: bool = False
    performance: bool = True


@dataclass(frozen=True)
class Mlflow:
    """The MLflow server that receives a run or a search, at the address `uri`, and what it is called there.

    The section is None unless one of its keys is given. With "file" as the `uri` nothing is sent, and the command
    `sync --uri=ADDRESS` sends the run later, from its files. `run` is the name of the run (None: that of its
    directory). `tags` are texts by name, as in `track.mlflow.tags.team=vision`.
    """

    uri: ServerAddress
    experiment: Name = "jaxtrain"
    run: Name | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parallel:
    """Distribution of a step over the local devices: a mesh of `mesh` devices (None: all), with `jit` or `pmap`.

    `width` is the number of lanes that a device steps at a time, for runs that are lanes of one program (None: chosen
    by the available memory).
    """

    backend: Literal["mesh", "pmap"] = "mesh"
    mesh: Count | None = None
    width: Count | None = None


@dataclass(frozen=True)
class LRRange:
    """The learning-rate range test: lanes of several lengths at each rate, or one ramp over all rates.

    `target` is the float to vary, from `start` to `stop` in `rates` steps of equal ratio, with `seeds` seeds each. The
    longest lanes train for `steps` (None: 240 steps or 5 % of the run, whichever is longer), others for a half and a
    quarter of it. `second` names another float to vary, from `second_start` to `second_stop` in `second_count` steps.
    With `before_training`, the command `train` runs the test first.
    """

    method: Literal["lanes", "ramp"] = "lanes"
    target: Name = "optimizer.learning_rate"
    start: Positive = 1e-6
    stop: Positive = 10.0
    rates: Annotated[int, Bounds(5, 10_000)] = 36
    seeds: Count = 3
    steps: Duration | None = None
    second: Name | None = None
    second_start: Positive = 1e-4
    second_stop: Positive = 1.0
    second_count: Annotated[int, Bounds(2, 10_000)] = 5
    before_training: bool = False


@dataclass(frozen=True)
class Search:
    """The search over `search.space`, which mirrors the config: the sampler, the number of trials, and early stopping.

    `trials` is their number (None: 32, or as many as `budget` buys). A `budget` is a number of full runs of the config,
    each of one seed, such as "10 full runs", or the time of the whole search, such as "20 minutes". Where it does not
    pay for every point in full, a `halving` of None becomes "successive".

    `sampler` is grid, random, sobol, tpe, or a sampler of Optuna such as "optuna:GPSampler". It proposes `batch` trials
    at a time (None: 32, but at most a quarter of `trials` for a sampler that learns from results); each trains with
    `seeds` seeds, counted up from `seed`. `value` says by which evaluations trials are compared, also at rungs: their
    "best", their "last", or the "mean of last 3" or of another number; the config of the best trial is written with the
    `checkpoint.result` that belongs to it. `halving` stops trials early at rungs: the first rung is at `first_rung`
    (None: 10 %, but one rung at 1 / `reduction` where a budget sets halving), each later one `reduction` times as far,
    and the best 1 / `reduction` of the trials continue; with "hyperband" some trials start at later rungs; with "asha"
    workers that share a study compare a trial with all of its trials that have reached the rung so far. At the end the
    best trial is compared with the config's own values on `compare_seeds` further seeds. `storage` is the
    URL of a database through which workers share the study named `study` (None: named after the config).
    """

    sampler: Name = "random"
    trials: Annotated[int, Bounds(1, 1_000_000)] | None = None
    budget: SearchBudget | None = None
    seeds: Count = 1
    value: TrialValue = "mean of last 3"
    batch: Count | None = None
    halving: Literal["successive", "hyperband", "asha"] | None = None
    first_rung: Duration | None = None
    reduction: Annotated[int, Bounds(2)] = 3
    compare_seeds: Annotated[int, Bounds(0)] = 3
    storage: Name | None = None
    study: Name | None = None


@dataclass(frozen=True)
class Debug:
    """Tries in place of a run, which leave its own files alone; one at a time, by the command `train`.

    `smoke` takes two steps and does all that follows them, in a temporary directory that is removed. `overfit` trains
    on this number of fixed batches and evaluates on the same, in `debug/overfit` of the run's directory, and says
    whether they were learned. `strict` trains in `debug/strict`, up to the first operation of a step that gives what is
    not a number, takes an index out of bounds or divides by zero, and names it.
    """

    smoke: bool = False
    overfit: Count | None = None
    strict: bool = False


@dataclass(frozen=True)
class Check:
    """The time of the command `check`, and questions besides its own.

    `seconds` bound the time of all questions together (None: 60 where a step takes less than 5 ms, else 180).
    `questions` are functions of your own, as "package.module:function", which take a `jaxtrain.check.context.Context`
    and return a `jaxtrain.check.answers.Answer`.
    """

    seconds: Positive | None = None
    questions: tuple[str, ...] = ()


SECTIONS: dict[str, type] = {
    "train": Train,
    "eval": Eval,
    "checkpoint": Checkpoint,
    "lora": LowRank,
    "log": Log,
    "track": Track,
    "parallel": Parallel,
    "lr_range": LRRange,
    "search": Search,
    "debug": Debug,
    "check": Check,
}

NESTED: dict[str, type] = {"track.mlflow": Mlflow}
"""Sections within sections, by dotted names; each is None unless one of its keys is given."""
