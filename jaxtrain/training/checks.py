"""Checks of a config that involve several sections, or the data."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from jaxtrain.config.defaults import Config
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning, nearest
from jaxtrain.optimizers.schedules import schedule_of
from jaxtrain.parallel.mesh import Devices, check_batch, device_mesh
from jaxtrain.tasks import TASKS
from jaxtrain.tasks.metrics import METRICS, SEVERAL


def check_devices(config: Config, mesh: Devices, lanes: bool) -> None:
    """Rejects batch sizes that the devices cannot split evenly; with lanes each device takes whole batches."""
    train = config["train"]
    batch = config["data"]["batch_size"]
    if train["seeds"] > 1 and config["parallel"]["backend"] == "pmap":
        raise ConfigError("parallel.backend", "pmap", "mesh, where train.seeds is above 1")
    if lanes:
        check_batch("data.batch_size", batch, device_mesh(1), train["accumulate"])
        return
    check_batch("data.batch_size", batch, mesh, train["accumulate"])
    check_batch("data.eval_batch_size", config["data"]["eval_batch_size"], mesh)


def check_plateaus(config: Config, dataset: Dataset) -> None:
    """Rejects reduce_on_plateau where there is no validation split to evaluate."""
    plateaus = schedule_of(config).plateaus
    if plateaus and "validation" not in dataset.sizes:
        allowed = "where data have a validation split; set data.validation_fraction above 0"
        raise ConfigError(f"{plateaus[0]}.name", "reduce_on_plateau", allowed)


def warn_of_mini_batches(config: Config, dataset: Dataset) -> None:
    """Warns of Rprop with mini-batches: it compares gradient signs of successive steps, which differ in examples."""
    batch = config["data"]["batch_size"]
    whole = dataset.sizes["train"]
    if config["optimizer"]["name"] in ("rprop", "optax:rprop") and batch < whole:
        warnings.warn(
            f"optimizer.name: given 'rprop' with mini-batches of {batch} of {whole} examples, which turn the signs of "
            f"its gradients by chance; it is made for the whole set: data.batch_size={whole}",
            JaxtrainWarning,
            stacklevel=3,
        )


def check_schedule_free(config: Config) -> None:
    """Rejects `train.ema` with a schedule-free optimizer, which averages itself, and warns of a decaying rate."""
    name = config["optimizer"]["name"]
    if name not in ("schedule_free_sgd", "schedule_free_adamw"):
        return
    if config["train"]["ema"] is not None:
        raise ConfigError("train.ema", config["train"]["ema"], f"None with {name}, which keeps an average of its own")
    schedule = config["schedule"].get("optimizer", {}).get("learning_rate", {"name": "constant"})
    if schedule["name"] not in ("constant", "inverse_sqrt", "warmup_stable_decay"):
        warnings.warn(
            f"schedule.optimizer.learning_rate: given {schedule['name']!r} beside {name}, whose average takes the "
            "place of a rate that falls; a warm-up alone is warmup_stable_decay with decay=0",
            JaxtrainWarning,
            stacklevel=3,
        )


def check_metrics(task: Config, chosen: str) -> None:
    """Rejects unknown metric names. The metrics of a user's own task are known only once its step is traced."""
    names = task.get("metrics", ())
    for name in names:
        METRICS.member(name, "task.metrics")
    judges = ("loss", *(name for name in names if name not in SEVERAL))
    if task["name"] in TASKS.members and chosen not in judges:
        hint = "it comes to several numbers" if chosen in names else nearest(chosen, judges)
        raise ConfigError("eval.metric", chosen, ", ".join(judges), hint)


@contextmanager
def explain_traced_floats(config: Config) -> Iterator[None]:
    """Adds a note to JAX's errors about traced values that lists the traced floats and the remedy."""
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


def check_fingerprint(dataset: Dataset, trained_on: str) -> None:
    """Rejects data other than those that the run was trained on."""
    if dataset.fingerprint != trained_on:
        raise DataError(
            f"data: given data with the fingerprint {dataset.fingerprint[:12]}; allowed: {trained_on[:12]}, which this "
            "run was trained on; bring them back, or give another --workdir"
        )
