"""Tasks: three pure functions (init, loss, predict), built from a model, a loss and the description of the data.

A task with an argument `augmentation` augments by itself, by the section `augment` as a function (key, batch, values).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxtrain.config.defaults import Config, family
from jaxtrain.config.registry import BoundMember, Family, Imported, Product, Values, having
from jaxtrain.core.precision import Module, Precision
from jaxtrain.core.state import Task
from jaxtrain.data import Needs
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.tasks.augment import Augmentation, augmentation_of, augmented
from jaxtrain.tasks.augment.views import AveragedOverViews
from jaxtrain.tasks.inputs import normalise_batch, normalise_inputs
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.lora import LoRA
from jaxtrain.tasks.padding import cut_padding
from jaxtrain.tasks.shapes import PerExample
from jaxtrain.tasks.show.views import Views

__all__ = ["TASKS", "linen_task", "make_task", "needs_of", "views_of"]


def make_task(config: Config, info: DataInfo) -> Task:
    """Builds the task of a resolved config; configs that differ only in floats get the same object."""
    bound = {name: family(name).bind(config[name]) for name in ("task", "model", "loss")}
    precision = Precision(config["train"]["precision"], config["train"]["matmul_precision"])
    views = config["eval"]["augment"]
    lora = LoRA(config["lora"]["paths"], config["lora"]["rank"]) if config["lora"]["paths"] else None
    augmentation = augmentation_of(config)
    return _build_task(bound["task"], bound["model"], bound["loss"], augmentation, views, info, precision, lora)


def views_of(config: Config, info: DataInfo, values: Values) -> Views:
    """Returns the functions by which a run of a resolved config is looked at; those that its task lacks are None.

    They are made for this description of the data, with its names, while programs of the task are shared by others.
    A single target without a name has that of its column.
    """
    info = info.with_target_of(config["data"].get("target"))
    bound = {name: family(name).bind(config[name]) for name in ("task", "model", "loss")}
    precision = Precision(config["train"]["precision"], config["train"]["matmul_precision"])
    model = _Model(bound["model"], precision, (), info)
    loss = PerExample(bound["loss"], bound["loss"].name)
    built = bound["task"](values, model, loss, info, augmentation=augmentation_of(config))
    return Views(*(getattr(built, name, None) for name in Views._fields))


@functools.lru_cache(maxsize=256)
def _build_task(
    task: BoundMember,
    model: BoundMember,
    loss: BoundMember,
    augmentation: Augmentation,
    views: tuple[str, ...],
    info: DataInfo,
    precision: Precision,
    lora: LoRA | None,
) -> Task:
    """Makes a task that normalises raw inputs, augments those of training, and computes in the chosen precision."""
    if info.texts is not None and not model.takes("tokens"):
        hint = "Give a model of your own a field `tokens`, the number of tokens, of which the last is padding"
        raise DataError("model.name", model.name, "a model of texts, such as text_encoder", hint)
    if info.sequences is not None and not model.takes("masked"):
        hint = "Give a model of your own a field `masked`: True where the last feature is 1 for values, 0 for padding"
        raise DataError("model.name", model.name, "a model of sequences, such as sequence_encoder", hint)
    if info.sequences is not None and augmentation.members:
        raise ConfigError("augment", Words("augmentations of sequences of unlike length"), "none", "Leave them out")

    def build(values: Values, info: DataInfo) -> Task:
        bound = _Model(model, precision, views, info)
        built = task(values, bound, PerExample(loss, loss.name), info, augmentation=augmentation)
        return lora.adapt(built) if lora else built

    rebuilt = _rebuilt(build, info)
    bare = rebuilt if task.takes("augmentation") else augmented(rebuilt, augmentation)
    bare = bare if info.padding is None else cut_padding(bare, info.padding)

    # R² subtracts sums of squares, which float32 holds only near 0: `linen_task` measures about this mean.
    raw = info.classes is None and not info.standardised and bool(info.target_mean)
    centre = {"target_mean": np.asarray(info.target_mean, info.floats).reshape(1, *info.target_shape)} if raw else {}
    known = centre if info.void is None else {**centre, "void": info.void}

    return Task(
        init=precision.wrap_init(lambda key, batch, values: bare.init(key, normalise_batch(batch, info), values)),
        loss=precision.wrap_function(
            lambda params, model_state, batch, key, values, train: bare.loss(
                params, model_state, {**normalise_batch(batch, info), **known}, key, values, train
            )
        ),
        predict=precision.wrap_function(
            lambda params, model_state, inputs, values: bare.predict(
                params, model_state, normalise_inputs(inputs, info), values
            )
        ),
        decode=precision.wrap_function(
            lambda params, model_state, tokens, values, *at: build(values, info).decode(
                params, model_state, tokens, values, *at
            )
        ),
    )


def _rebuilt(build: Callable[[Values, DataInfo], Task], info: DataInfo) -> Task:
    """Makes a task that is rebuilt at each call, as models and optimizers are, so that its floats are traced.

    Pictures may have another size than those of the data: crops in training, whole pictures in a prediction.
    """

    def of(values: Values, inputs: jax.Array) -> Task:
        return build(values, info if info.layout else info.resized(inputs.shape[1:]))

    return Task(
        init=lambda key, batch, values: build(values, info).init(key, batch, values),
        loss=lambda params, model_state, batch, key, values, train: of(values, batch["inputs"]).loss(
            params, model_state, batch, key, values, train
        ),
        predict=lambda params, model_state, inputs, values: of(values, inputs).predict(
            params, model_state, inputs, values
        ),
    )


@dataclass(frozen=True)
class _Model:
    """Makes a model's module from the values of a step, in the precision of the config, averaged over `views`."""

    member: BoundMember
    precision: Precision
    views: tuple[str, ...]
    info: DataInfo

    @property
    def name(self) -> str:
        """The user's name for the model."""
        return self.member.name

    def __call__(self, values: Values, *supplied: Any) -> Module:
        """Makes the module; `supplied` holds the number of outputs."""
        sizes = self.info.layout.sizes if self.info.layout else ()
        is_masked = self.info.sequences is not None
        built = self.member(values, *supplied, category_sizes=sizes, tokens=self.info.tokens, masked=is_masked)
        module = self.precision.wrap_module(built)
        return AveragedOverViews(module, self.views, self.info.has_maps) if self.views else module


TASKS = Family(
    "task",
    Imported(
        {
            "classification": "jaxtrain.tasks.classification:classification",
            "binary_classification": "jaxtrain.tasks.classification:binary_classification",
            "multi_label": "jaxtrain.tasks.classification:multi_label",
            "label_distribution": "jaxtrain.tasks.classification:label_distribution",
            "regression": "jaxtrain.tasks.regression:regression",
            "segmentation": "jaxtrain.tasks.segmentation:segmentation",
            "detection": "jaxtrain.tasks.detection:detection",
            "language_modelling": "jaxtrain.tasks.language_modelling:language_modelling",
            "sequence_classification": "jaxtrain.tasks.sequence_classification:sequence_classification",
            "contrastive": "jaxtrain.tasks.contrastive:contrastive",
        }
    ),
    supplied=("model", "loss", "info"),
    offered=("augmentation",),
    product=Product("a task, with init, loss and predict", having("init", "loss", "predict")),
)

STANDARDISED = frozenset({"regression"})
"""Tasks whose targets are standardised on the host, and whose predictions are brought back there (`DataInfo`)."""


def needs_of(config: Config) -> Needs:
    """Returns the form of inputs and targets that the model and the task of a resolved config need."""
    coded = family("model").takes(config["model"]["name"], "category_sizes")
    return {"standardised": config["task"]["name"] in STANDARDISED, "coded": coded}
