"""Broken experiments, each with one fault, and the question of `check` that must be the first to find it.

Three tasks: classification of the digits, regression of the progress of diabetes, and segmentation of the strokes of
digits under noise. The sources, models, losses and tasks here are named in configs as "planted_faults:NAME".
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import Source, Split, Task, linen_task
from jaxtrain.config.defaults import Config
from jaxtrain.config.resolve import resolve_config
from jaxtrain.data.readers import embedded
from jaxtrain.tasks.classification import classification
from jaxtrain.tasks.losses import LOSSES
from jaxtrain.tasks.regression import regression
from jaxtrain.tasks.segmentation import segmentation

TaskName = Literal["digits", "diabetes", "strokes"]
TASKS: tuple[TaskName, ...] = ("digits", "diabetes", "strokes")


class Fault(NamedTuple):
    """A fault: the question that must be the first not ok, the tasks it applies to, and what it changes.

    changes: overrides of the sound config by dotted names, the same for all tasks or by task.
    """

    question: str
    changes: Mapping[str, Any]
    tasks: tuple[TaskName, ...] = TASKS


def data(fault: str) -> dict[str, Any]:
    return {"data.fault": fault}


def model(fault: str) -> dict[str, Any]:
    return {"model.fault": fault}


FAULTS: dict[str, Fault] = {
    "labels moved by one row": Fault("shuffled_labels", data("moved")),
    "labels shuffled": Fault("shuffled_labels", data("shuffled")),
    "inputs never normalised": Fault("activations", model("unscaled")),
    "softmax before the loss": Fault("output_form", model("softmax"), ("digits", "strokes")),
    "loss of the wrong sign": Fault("loss", {"loss": "wrong_sign"}),
    "sum over the batch": Fault("loss_mean", {"task": "summing"}),
    "sum over the pixels": Fault("loss", {"loss": "summed"}, ("strokes",)),
    "model that ignores its input": Fault("uses_inputs", model("ignores_input")),
    "layer behind stop_gradient": Fault("gradients", model("stopped")),
    "all rectifiers dead": Fault("dead_units", model("dead")),
    "weights of 0": Fault("weights", model("zeros")),
    "weights 100 times too large": Fault("activations", model("large")),
    "no nonlinearity": Fault("nonlinearity", model("linear")),
    "rate a thousandfold too high": Fault("rate", {"optimizer.learning_rate": 3.0}),
    "rate a thousandfold too low": Fault("rate", {"optimizer.learning_rate": 3e-6}),
    "schedule of 0 after a tenth": Fault(
        "schedule", {"schedule.optimizer.learning_rate": {"name": "planted_faults:off_after_a_tenth"}}
    ),
    "decay that takes all weights": Fault("decay", {"optimizer.weight_decay": 100.0}),
    "dropout on in evaluation": Fault("evaluation", model("always_drops")),
    "mixing by a wrong reshape": Fault("mixing", model("mixing")),
    "mask ignored": Fault("masked_rows", {"task": "unmasked"}),
    "a not-a-number in one example": Fault("inputs", data("nan"), ("diabetes", "strokes")),
    "validation copied from train": Fault("duplicates", data("copied")),
    "a leaked column": Fault("leak", data("leaked"), ("digits", "diabetes")),
    "99 : 1 classes judged by accuracy": Fault("balance", data("rare") | {"eval.metric": "accuracy"}, ("digits",)),
    "targets in the millions": Fault("targets", data("millions") | {"task": "raw"}, ("diabetes",)),
    "a class never seen": Fault("classes", data("unseen"), ("digits",)),
    "overflow in half precision": Fault("evaluation", model("half")),
}
"""In the order of the issue that asked for them."""

CASES = [(name, task) for name, fault in FAULTS.items() for task in fault.tasks]


def sound(task: TaskName, seed: int = 0) -> Config:
    """Resolves the sound config of a task."""
    return resolve_config(_given(task, seed)).config


def broken(name: str, task: TaskName, seed: int = 0) -> Config:
    """Resolves the config of a task with one fault."""
    changes = dict(FAULTS[name].changes)
    if "task" in changes:
        changes = {"task": {"name": f"planted_faults:{changes.pop('task')}_{task}"}} | changes
    if "loss" in changes:
        changes = {"loss": {"name": f"planted_faults:{changes.pop('loss')}_{task}"}} | changes
    given = _given(task, seed)
    for key in ("task", "loss"):
        given |= {key: changes.pop(key)} if key in changes else {}
    return resolve_config(given, changes).config


def _given(task: TaskName, seed: int) -> dict[str, Any]:
    by_task: dict[str, dict[str, Any]] = {
        "digits": {"task": {"name": "classification"}, "loss": {"name": "cross_entropy"}},
        "diabetes": {"task": {"name": "regression"}, "loss": {"name": "mse"}},
        "strokes": {"task": {"name": "segmentation"}, "loss": {"name": "binary_cross_entropy"}},
    }
    return by_task[task] | {
        "seed": seed,
        "data": {"name": f"planted_faults:{task}", "batch_size": 32},
        "model": {"name": "planted_faults:Net"},
        "optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-3},
        "schedule": {"optimizer": {"learning_rate": {"name": "warmup_cosine"}}},
        "train": {"duration": "20 epochs"},
        "parallel": {"mesh": 1},
        "check": {"seconds": 1800.0},  # on a busy machine all questions are asked, too
    }


# ---------------------------------------------------------------------------------------------------------- the data


def digits(path: Any, fault: str = "") -> Source:
    """The digits in three splits."""
    whole = embedded.digits(path).splits["train"]
    inputs, labels = np.array(whole.inputs), np.array(whole.targets)
    if fault == "rare":
        zeros, others = np.flatnonzero(labels == 0), np.flatnonzero(labels != 0)
        chosen = np.random.default_rng(0).permutation(np.concatenate([zeros[:16], others]))
        inputs, labels = inputs[chosen], (labels[chosen] == 0).astype(np.int32)
    if fault == "unseen":
        inputs, labels = inputs[labels != 7], labels[labels != 7]
    if fault == "leaked":
        inputs[:, 0, 0, 0] = labels
    return Source(_cut(inputs, labels, fault), classes=2 if fault == "rare" else 10)


def diabetes(path: Any, fault: str = "") -> Source:
    """The patients in three splits."""
    whole = embedded.diabetes(path).splits["train"]
    inputs, targets = np.array(whole.inputs), np.array(whole.targets)
    if fault == "leaked":
        inputs = np.concatenate([inputs, 3.0 * targets[:, None] + 1.0], axis=1).astype(np.float32)
    if fault == "millions":
        targets = 1e6 * targets
    return Source(_cut(inputs, targets, fault))


def strokes(path: Any, fault: str = "") -> Source:
    """Digits under noise, and masks of their strokes, in three splits."""
    whole = embedded.digits(path).splits["train"]
    clean = np.array(whole.inputs[:600], np.float32) / 16
    noisy = clean + np.random.default_rng(0).normal(0, 0.3, clean.shape).astype(np.float32)
    return Source(_cut(noisy, (clean[..., 0] > 0.4).astype(np.uint8), fault))


def _cut(inputs: np.ndarray, targets: np.ndarray, fault: str) -> dict[str, Split]:
    order = np.random.default_rng(1).permutation(len(inputs))
    inputs, targets = inputs[order], targets[order]
    edges = (0, round(0.7 * len(inputs)), round(0.85 * len(inputs)), len(inputs))
    names = ("train", "validation", "test")
    parts = {n: (inputs[a:b].copy(), targets[a:b].copy()) for n, a, b in zip(names, edges, edges[1:], strict=False)}
    train_inputs, train_targets = parts["train"]
    if fault == "moved":
        parts["train"] = (train_inputs, np.roll(train_targets, 1, axis=0))
    if fault == "shuffled":
        parts["train"] = (train_inputs, np.random.default_rng(2).permutation(train_targets))
    if fault == "nan":
        train_inputs[len(train_inputs) // 2].flat[3] = np.nan
    if fault == "copied":
        count = len(parts["validation"][0])
        parts["validation"] = (train_inputs[:count].copy(), train_targets[:count].copy())
    return {name: Split(*part) for name, part in parts.items()}


# --------------------------------------------------------------------------------------------------------- the model


class Net(nn.Module):
    """Two hidden layers: dense, or 3 x 3 convolutions for pictures whose outputs are maps; `fault` breaks it."""

    outputs: int
    fault: str = ""

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        maps = inputs.ndim == 4 and self.outputs == 1
        hidden = inputs if maps else inputs.reshape(len(inputs), -1)
        hidden = self._spoil_inputs(hidden)
        for layer in range(2):
            around = _neighbours(hidden) if maps else hidden
            hidden = self._activate(self._layer(12 if maps else 48, f"hidden_{layer}")(around), layer)
        outputs = self._layer(self.outputs, "last")(hidden)
        if self.fault == "softmax":
            return jax.nn.sigmoid(outputs) if maps else jax.nn.softmax(outputs)
        return outputs.astype(jnp.float32)

    def _spoil_inputs(self, inputs: jax.Array) -> jax.Array:
        if self.fault == "unscaled":
            return 96.0 * inputs + 78.0
        if self.fault == "ignores_input":
            return jnp.zeros_like(inputs)
        if self.fault == "mixing":  # the axes of the batch and of the rest are taken for each other
            return inputs.reshape(-1, len(inputs)).T.reshape(inputs.shape)
        return inputs.astype(jnp.float16) * 3e4 if self.fault == "half" else inputs

    def _layer(self, width: int, name: str) -> nn.Module:
        scaled = nn.initializers.lecun_normal()
        kernels = {
            "zeros": nn.initializers.zeros,
            "large": lambda *arguments: 100.0 * scaled(*arguments),
        }
        bias = nn.initializers.constant(-100.0 if self.fault == "dead" and name == "hidden_0" else 0.0)
        dtype = jnp.float16 if self.fault == "half" else jnp.float32
        kernel = kernels.get(self.fault, scaled)
        return nn.Dense(width, dtype=dtype, kernel_init=kernel, bias_init=bias, name=name)

    def _activate(self, hidden: jax.Array, layer: int) -> jax.Array:
        hidden = hidden if self.fault == "linear" else nn.relu(hidden)
        if self.fault == "always_drops":
            kept = jax.random.bernoulli(self.make_rng("dropout"), 0.5, hidden.shape) if self.has_rng("dropout") else 1.0
            return hidden * kept
        return jax.lax.stop_gradient(hidden) if self.fault == "stopped" and layer == 0 else hidden


def _neighbours(hidden: jax.Array) -> jax.Array:
    """Returns the 3 x 3 neighbourhoods of pixels, (batch, height, width, 9 channels): a product makes a convolution."""
    padded = jnp.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = hidden.shape[1:3]
    shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return jnp.concatenate(shifted, axis=-1)


# ------------------------------------------------------------------------------------------- losses, tasks, schedule


def wrong_sign_digits(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return -LOSSES.member("cross_entropy")(predictions, targets)


def wrong_sign_diabetes(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return -LOSSES.member("mse")(predictions, targets)


def wrong_sign_strokes(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return -LOSSES.member("binary_cross_entropy")(predictions, targets)


def summed_strokes(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return LOSSES.member("binary_cross_entropy")(predictions, targets) * targets[0].size


def _summing(task: Task) -> Task:
    def loss(params: Any, model_state: Any, batch: Any, key: Any, values: Any, train: bool) -> Any:
        mean, rest = task.loss(params, model_state, batch, key, values, train)
        return mean * rest[1]["loss"].count, rest

    return task._replace(loss=loss)


def _unmasked(task: Task) -> Task:
    def loss(params: Any, model_state: Any, batch: Any, key: Any, values: Any, train: bool) -> Any:
        return task.loss(params, model_state, {n: v for n, v in batch.items() if n != "mask"}, key, values, train)

    return task._replace(loss=loss)


def summing_digits(model: Any, loss: Any, info: Any) -> Task:
    return _summing(classification(model, loss, info))


def summing_diabetes(model: Any, loss: Any, info: Any) -> Task:
    return _summing(regression(model, loss, info))


def summing_strokes(model: Any, loss: Any, info: Any) -> Task:
    return _summing(segmentation(model, loss, info))


def unmasked_digits(model: Any, loss: Any, info: Any) -> Task:
    return _unmasked(classification(model, loss, info))


def unmasked_diabetes(model: Any, loss: Any, info: Any) -> Task:
    return _unmasked(regression(model, loss, info))


def unmasked_strokes(model: Any, loss: Any, info: Any) -> Task:
    return _unmasked(segmentation(model, loss, info))


def raw_diabetes(model: Any, loss: Any, info: Any) -> Task:
    return linen_task(
        lambda values: model(values, 1),
        lambda values, predictions, targets: jnp.square(predictions - targets),
        shaped=lambda outputs: outputs[:, 0],
    )


def off_after_a_tenth(step: jax.Array, total: jax.Array) -> jax.Array:
    return jnp.where(step < 0.1 * total, 1.0, 0.0)
