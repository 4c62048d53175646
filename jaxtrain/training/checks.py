"""Checks of a config that involve several sections, or the data."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import optax

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import seconds_of
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import START_FROM
from jaxtrain.config.seeds import lane_count
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning, StorageError, Words, nearest, one_of
from jaxtrain.optimizers import OPTIMIZERS
from jaxtrain.optimizers.schedules import schedule_of
from jaxtrain.parallel.mesh import Devices, check_batch, device_mesh
from jaxtrain.tasks import TASKS
from jaxtrain.tasks.metrics import METRICS, SEVERAL
from jaxtrain.tasks.metrics.on_host import HOST_METRICS


def check_devices(config: Config, mesh: Devices, lanes: bool) -> None:
    """Rejects batch sizes that the devices cannot split evenly; with lanes each device takes whole batches."""
    train = config["train"]
    batch = config["data"]["batch_size"]
    if lane_count(config) > 1 and config["parallel"]["backend"] == "pmap":
        raise ConfigError("parallel.backend", "pmap", "'mesh' where train.seeds is above 1, or all folds are trained")
    if lanes:
        check_batch("data.batch_size", batch, device_mesh(1), train["accumulate"])
        return
    check_batch("data.batch_size", batch, mesh, train["accumulate"])
    check_batch("data.eval_batch_size", config["data"]["eval_batch_size"], mesh)


def check_float64(config: Config, lanes: bool = False) -> None:
    """Rejects float64 in a process whose JAX has none, and for lanes, whose floats are float32."""
    if config["train"]["precision"] != "float64":
        return
    if lanes or lane_count(config) > 1 or (config["data"]["folds"] is not None and config["data"]["fold"] is None):
        expected = "float32 or bfloat16 for searches, range tests, several seeds and all folds at once"
        raise ConfigError("train.precision", "float64", expected, "Take one run at a time")
    if not jax.config.read("jax_enable_x64"):
        hint = "Set JAX_ENABLE_X64=True in the environment, or use the command line"
        raise ConfigError("train.precision", "float64", "float32 or bfloat16 where JAX has no float64", hint)


def check_folds(config: Config, *, together: bool) -> None:
    """Rejects all folds at once where one data set is needed (`together` is false), or with several seeds."""
    folds = config["data"]["folds"]
    if folds is None or config["data"]["fold"] is not None:
        return
    if config["train"]["seeds"] > 1:
        expected = "1 with data.folds, whose folds are the lanes"
        hint = "Train the folds once for each seed: set train.seeds=1, and seed"
        raise ConfigError("train.seeds", config["train"]["seeds"], expected, hint)
    if not together and config["lr_range"]["before_training"]:
        hint = "Run lr_range with data.fold=0, and set the rate that it suggests"
        raise ConfigError("lr_range.before_training", True, "False where all folds are trained", hint)
    if not together:
        hint = "Set data.fold=0 here, and train all folds with what this finds"
        raise ConfigError("data.folds", folds, "one fold, which data.fold chooses, for this command", hint)


def check_plateaus(config: Config, dataset: Dataset) -> None:
    """Rejects reduce_on_plateau where there is no validation split to evaluate."""
    plateaus = schedule_of(config).plateaus
    if plateaus and "validation" not in dataset.sizes:
        expected = "a schedule that needs no validation split, for data without one"
        hint = "Set data.validation_fraction above 0, or take another schedule"
        raise ConfigError(f"{plateaus[0]}.name", "reduce_on_plateau", expected, hint)


def warn_of_mini_batches(config: Config, dataset: Dataset) -> None:
    """Warns of Rprop with mini-batches: it compares gradient signs of successive steps, which differ in examples."""
    batch = config["data"]["batch_size"]
    whole = dataset.sizes["train"]
    if config["optimizer"]["name"] in ("rprop", "optax:rprop") and batch < whole:
        got = Words(f"{config['optimizer']['name']!r} with mini-batches of {batch} of {whole} examples")
        expected = "the whole training split as one batch: mini-batches turn the signs of the gradients by chance"
        hint = f"Take another optimizer, or set data.batch_size={whole}"
        warnings.warn(JaxtrainWarning("optimizer.name", got, expected, hint), stacklevel=3)


def check_adadelta(config: Config) -> None:
    """Rejects optax's Adadelta without a learning rate: it does not turn the sign of the gradients."""
    section = config["optimizer"]
    if OPTIMIZERS.member(section["name"]) is optax.adadelta and section["learning_rate"] is None:
        expected = f"a number: without one {section['name']} moves along the gradient, so that the loss grows"
        raise ConfigError("optimizer.learning_rate", None, expected, "Give it, for example 1.0")


def check_schedule_free(config: Config) -> None:
    """Rejects `train.ema` with a schedule-free optimizer, which averages itself, and warns of a decaying rate."""
    name = config["optimizer"]["name"]
    if name not in ("schedule_free_sgd", "schedule_free_adamw"):
        return
    if config["train"]["ema"] is not None:
        expected = f"None with {name}, which keeps an average of its own"
        raise ConfigError("train.ema", config["train"]["ema"], expected)
    schedule = config["schedule"].get("optimizer", {}).get("learning_rate", {"name": "constant"})
    if schedule["name"] not in ("constant", "inverse_sqrt", "warmup_stable_decay"):
        got = Words(f"{schedule['name']!r} with {name}")
        expected = "a rate that never falls: the average of the optimizer takes the place of a decay"
        hint = "Take 'constant', or for a warm-up 'warmup_stable_decay' with decay=0"
        warnings.warn(JaxtrainWarning("schedule.optimizer.learning_rate", got, expected, hint), stacklevel=3)


def check_continuation(config: Config) -> None:
    """Rejects what `checkpoint.continue_from` cannot be combined with."""
    section = config["checkpoint"]
    if section["continue_from"] is None:
        return
    for name in START_FROM:
        if name != "continue_from" and section[name] is not None:
            expected = "None with checkpoint.continue_from, which takes the whole state"
            raise ConfigError(f"checkpoint.{name}", section[name], expected, "Leave one of the two out")
    if config["lr_range"]["before_training"]:
        expected = "False with checkpoint.continue_from, since the test trains from new weights"
        raise ConfigError("lr_range.before_training", True, expected)
    check_counted(config, "in a run that continues another, from whose first step they count")


def check_counted(config: Config, why: str) -> None:
    """Rejects a duration that is a time where the number of steps must be known before anything runs."""
    text = config["train"]["duration"]
    if seconds_of(text) is not None:
        hint = "The command plan says how many steps fit into a time"
        raise ConfigError("train.duration", text, f"epochs or steps {why}", hint)


def check_metrics(config: Config) -> None:
    """Rejects unknown names of metrics, and a direction of one that has its own.

    The metrics of a user's own task are known only once its step is traced, those of `eval.host` once they have run.
    """
    task = config["task"]
    section = config["eval"]
    chosen = section["metric"]
    names = task.get("metrics", ())
    for name in names:
        METRICS.member(name)
    for name in section["host"]:
        HOST_METRICS.member(name)
    if section["host"] and lane_count(config) > config["train"]["seeds"]:
        hint = "Train each fold alone with data.fold"
        raise ConfigError("eval.host", section["host"], "() where folds are trained together", hint)
    judges = ("loss", *(name for name in names if name not in SEVERAL))
    may_be_on_host = section["host"] and chosen not in ("loss", *names)
    if section["higher_is_better"] is not None and not may_be_on_host:
        expected = f"None with eval.metric={chosen}, which is no number of eval.host and has a direction of its own"
        raise ConfigError("eval.higher_is_better", section["higher_is_better"], expected, "Leave it out")
    if task["name"] in TASKS.members and not may_be_on_host and chosen not in judges:
        several = "Choose a metric of one number: this one has several"
        hint = several if chosen in names else nearest(chosen, judges)
        raise ConfigError("eval.metric", chosen, one_of(judges), hint)


def check_smoothing(config: Config) -> None:
    """Rejects label smoothing in a contrastive task: the share of a view itself, which is ruled out, costs infinity."""
    smoothing = config["loss"].get("label_smoothing")
    if config["task"]["name"] == "contrastive" and smoothing:
        raise ConfigError("loss.label_smoothing", smoothing, "0.0 with 'contrastive'", "Leave it out")


@contextmanager
def explain_jax_errors(config: Config) -> Iterator[None]:
    """Explains JAX's errors in the words of the config.

    Those about traced values get a note that lists the traced floats and the remedy. For memory that does not suffice
    it raises ConfigError on the batch size: parameters and data were checked before, so it is the activations that
    do not fit.
    """
    try:
        yield
    except TypeError as error:
        if isinstance(error, jax.errors.JAXTypeError) or "Tracer" in str(error):
            error.add_note(
                "jaxtrain: floats of the config are traced inputs of the program, but here one determines a shape or a"
                " Python branch. Annotate that knob as int, bool or str in the signature of its member, or use it only"
                " with jax.numpy. The floats of this run: " + ", ".join(hyperparameters(config))
            )
        raise
    except RuntimeError as error:  # jax.errors.JaxRuntimeError among them
        if "out of memory" not in str(error).lower():
            raise
        expected = f"a batch whose activations fit in memory ({str(error).splitlines()[0]})"
        hint = "Lower it, raise train.accumulate, or take a smaller model; `plan` reports the largest that fits"
        raise ConfigError("data.batch_size", config["data"]["batch_size"], expected, hint) from error


def check_fingerprint(
    dataset: Dataset,
    trained_on: str,
    whose: str = "that this run was trained on",
    hint: str = "Restore those data, or give another directory",
) -> None:
    """Rejects data other than those that the run was trained on; `whose` and `hint` go into the message."""
    if dataset.fingerprint != trained_on:
        got = Words(f"data with the fingerprint {dataset.fingerprint[:12]}")
        raise DataError("data", got, f"{trained_on[:12]}, the fingerprint of the data {whose}", hint)


def check_preparation(dataset: Dataset, saved: Mapping[str, Any]) -> None:
    """Rejects a run of an earlier version, which normalised small integers on the host: other digits would follow."""
    theirs = DataInfo.from_json(saved).input_dtype
    if theirs != dataset.info.input_dtype:
        got = Words(f"a run whose batches hold {theirs}")
        expected = f"batches of {dataset.info.input_dtype}, which this version normalises in the step"
        raise StorageError(
            "data", got, expected, "Train it anew in another directory, or use the version that began it"
        )
