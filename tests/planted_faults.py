"""Broken experiments, each with one fault, and the question of `check` that must be the first to find it.

Four tasks: classification of the digits, regression of the progress of diabetes, segmentation of the strokes of digits
under noise, and a language model of made-up sentences. The sources, models, losses and tasks here are named in configs
as "planted_faults:NAME".
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain import Source, Split, Task, linen_task
from jaxtrain.config.defaults import Config
from jaxtrain.config.resolve import resolve_config
from jaxtrain.data.readers import embedded
from jaxtrain.data.texts import Text
from jaxtrain.tasks.classification import classification
from jaxtrain.tasks.losses import LOSSES
from jaxtrain.tasks.regression import regression
from jaxtrain.tasks.segmentation import segmentation

TaskName = Literal["digits", "diabetes", "strokes", "words"]
TASKS: tuple[TaskName, ...] = ("digits", "diabetes", "strokes", "words")
NUMBERS: tuple[TaskName, ...] = ("digits", "diabetes", "strokes")
LOGITS: tuple[TaskName, ...] = ("digits", "strokes")
ROWS: tuple[TaskName, ...] = ("digits", "diabetes")


class Fault(NamedTuple):
    """A fault: the question that must be the first not ok, the tasks it applies to, and what it changes.

    changes: overrides of the sound config by dotted names, the same for all tasks or by task.
    """

    question: str
    changes: Mapping[str, Any]
    tasks: tuple[TaskName, ...] = NUMBERS


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
    # those above are in the order of the issue that asked for them
    "a number for what is missing": Fault("inputs", data("sentinel"), ("diabetes",)),
    "a target far from all others": Fault("targets", data("far"), ("diabetes",)),
    "validation of three examples": Fault("split_sizes", data("three")),
    "data drawn anew each time": Fault("same_data", data("unseeded")),
    "columns scaled otherwise in validation": Fault("splits_alike", data("rescaled"), ("diabetes",)),
    "validation in another encoding": Fault("splits_alike", data("recoded"), ("words",)),
    "training examples there twice": Fault("duplicates", data("twice")),
    "labels of another meaning in validation": Fault("splits_agree", data("renumbered")),
    "a text that is read backwards in validation": Fault("splits_agree", data("backwards"), ("words",)),
    "units all the same": Fault("weights", model("same_units")),
    "a tanh that is saturated": Fault("dead_units", model("saturated")),
    "a part of the inputs": Fault("uses_inputs", model("slice"), ROWS),
    "inputs rounded": Fault("uses_inputs", model("rounded")),
    "attention without a mask": Fault("causal", model("no_mask"), ("words",)),
    "attention to itself alone": Fault("causal", model("alone"), ("words",)),
    "softmax over the wrong axis": Fault("causal", model("queries"), ("words",)),
    "tanh on the logits": Fault("output_form", model("tanh"), LOGITS),
    "logits divided by 1000": Fault("output_form", model("divided"), ("digits",)),
    "weights of classes the wrong way round": Fault("loss", data("rare") | {"loss": "inverted"}, ("digits",)),
    "weights frozen where they began": Fault("gradients", {"optimizer.frozen": "kernel"}),
    "a warm-up longer than the run": Fault(
        "schedule", {"schedule.optimizer.learning_rate": {"name": "planted_faults:endless_warm_up"}}
    ),
    "momentum longer than the run": Fault("averages", {"optimizer.b1": 0.9999}),
    "gradients clipped to nothing": Fault("gradient_size", {"optimizer.clip_norm": 1e-6}),
    "an eps above the gradients": Fault("gradient_size", {"optimizer.eps": 100.0}),
    "an optimizer that goes uphill": Fault("updates", {"optimizer.name": "planted_faults:uphill"}),
    "an optimizer that leaves weights out": Fault("updates", {"optimizer.name": "planted_faults:partial"}),
    "statistics of a norm that stay": Fault("modes", model("still_norm"), ROWS),
    "another scale in evaluation": Fault("modes", model("rescaled"), ROWS),
}
"""Fault by name; a fault of several tasks is tried in each."""

CASES = [(name, task) for name, fault in FAULTS.items() for task in fault.tasks]


def places() -> Iterator[tuple[str, tuple[TaskName, ...], int]]:
    """Yields of each fault its name, its tasks, and how many faults of the same question come before it."""
    before: Counter[str] = Counter()
    for name, fault in FAULTS.items():
        yield name, fault.tasks, before[fault.question]
        before[fault.question] += 1


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
        "words": {"task": {"name": "language_modelling"}, "loss": {"name": "cross_entropy"}},
    }
    return by_task[task] | {
        "seed": seed,
        "data": {"name": f"planted_faults:{task}", "batch_size": 16 if task == "words" else 32},
        "model": {"name": "planted_faults:Writer" if task == "words" else "planted_faults:Net"},
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


def words(path: Any, fault: str = "") -> Source:
    """Sentences in which six words may follow each word, in three splits."""
    generator = np.random.default_rng(0)
    known = ("the", "cat", "sat", "on", "a", "mat", "and", "then", "dog", "ran", "far", "from", "red", "house", "while")
    following = {word: generator.choice(known, 6) for word in known}
    chosen = ["the"]
    for _ in range(5000):
        chosen.append(str(generator.choice(following[chosen[-1]])))
    text = " ".join(chosen)
    parts = {"train": text[:18000], "validation": text[18000:20500], "test": text[20500:]}
    if fault == "recoded":
        symbols = "".join(sorted(set(text)))
        parts["validation"] = parts["validation"].translate(str.maketrans(symbols, symbols[::-1]))
    if fault == "backwards":
        parts["validation"] = parts["validation"][::-1]
    return Source({name: Split(Text(part, 24, "characters"), None) for name, part in parts.items()})


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
    if fault == "sentinel":
        train_inputs[::16, 2] = -9999.0
    if fault == "far":
        train_targets[7] = 1e6
    if fault == "twice":
        parts["train"] = (np.concatenate([train_inputs] * 2), np.concatenate([train_targets] * 2))
    if fault == "three":
        parts["validation"] = (parts["validation"][0][:3], parts["validation"][1][:3])
    if fault == "unseeded":
        parts["train"] = (train_inputs[np.random.default_rng().permutation(len(train_inputs))], train_targets)
    if fault == "rescaled":
        parts["validation"][0][:, -3:] *= 0.1
    if fault == "renumbered":
        judged_inputs, judged = parts["validation"]
        parts["validation"] = (judged_inputs, _other_meaning(judged))
    if fault == "copied":
        count = len(parts["validation"][0])
        parts["validation"] = (train_inputs[:count].copy(), train_targets[:count].copy())
    return {name: Split(*part) for name, part in parts.items()}


def _other_meaning(targets: np.ndarray) -> np.ndarray:
    """Returns targets that mean something else: the next class, the opposite number, background for what is drawn."""
    if targets.dtype.kind == "f":
        return 2 * targets.mean() - targets
    return 1 - targets if targets.ndim > 1 else (targets + 1) % (targets.max() + 1)


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
            hidden = self._layer(12 if maps else 48, f"hidden_{layer}")(around)
            if self.fault == "still_norm":
                hidden = nn.BatchNorm(use_running_average=not train, momentum=1.0)(hidden)
            hidden = self._activate(hidden, layer)
            hidden = 0.05 * hidden if self.fault == "rescaled" and not train and layer == 0 else hidden
        outputs = self._layer(self.outputs, "last")(hidden)
        if self.fault == "softmax":
            return jax.nn.sigmoid(outputs) if maps else jax.nn.softmax(outputs)
        if self.fault == "tanh":
            return jnp.tanh(outputs)
        outputs = outputs / 1000 if self.fault == "divided" else outputs
        return outputs.astype(jnp.float32)

    def _spoil_inputs(self, inputs: jax.Array) -> jax.Array:
        if self.fault == "unscaled":
            return 96.0 * inputs + 78.0
        if self.fault == "slice":
            return inputs[:, : inputs.shape[1] // 4]
        if self.fault == "rounded":
            return inputs.astype(jnp.int32).astype(jnp.float32)
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
            "same_units": lambda key, shape, dtype: jnp.broadcast_to(scaled(key, (shape[0], 1), dtype), shape),
        }
        bias = nn.initializers.constant(-100.0 if self.fault == "dead" and name == "hidden_0" else 0.0)
        dtype = jnp.float16 if self.fault == "half" else jnp.float32
        kernel = kernels.get(self.fault, scaled)
        return nn.Dense(width, dtype=dtype, kernel_init=kernel, bias_init=bias, name=name)

    def _activate(self, hidden: jax.Array, layer: int) -> jax.Array:
        if self.fault == "saturated":
            return jnp.tanh(300.0 * hidden)
        hidden = hidden if self.fault == "linear" else nn.relu(hidden)
        if self.fault == "always_drops":
            kept = jax.random.bernoulli(self.make_rng("dropout"), 0.5, hidden.shape) if self.has_rng("dropout") else 1.0
            return hidden * kept
        return jax.lax.stop_gradient(hidden) if self.fault == "stopped" and layer == 0 else hidden


class Writer(nn.Module):
    """A block of attention and dense layers over tokens; `fault` breaks its mask."""

    outputs: int
    fault: str = ""

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        length = tokens.shape[1]
        width = 16
        hidden = nn.Embed(self.outputs, width)(tokens)
        hidden = hidden + self.param("positions", nn.initializers.normal(0.3), (length, width))[None]
        normed = nn.LayerNorm()(hidden)
        queries, keys, values = (nn.Dense(width)(normed) for _ in range(3))
        scores = jnp.einsum("bqd,bkd->bqk", queries, keys) / width**0.5
        seen = jnp.eye(length) if self.fault == "alone" else jnp.tril(jnp.ones((length, length)))
        scores = scores if self.fault == "no_mask" else jnp.where(seen[None] > 0, scores, -1e9)
        attention = jax.nn.softmax(scores, axis=1 if self.fault == "queries" else 2)
        hidden = hidden + nn.Dense(width)(attention @ values)
        hidden = hidden + nn.Dense(width)(nn.gelu(nn.Dense(2 * width)(nn.LayerNorm()(hidden))))
        return nn.Dense(self.outputs)(nn.LayerNorm()(hidden))


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


def inverted_digits(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return LOSSES.member("cross_entropy")(predictions, targets) * jnp.where(targets == 1, 0.1, 3.0)


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


def endless_warm_up(step: jax.Array, total: jax.Array) -> jax.Array:
    return step / (100.0 * total)


def uphill(learning_rate: float, weight_decay: float = 0.0) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(), optax.scale(learning_rate))


def partial(learning_rate: float, weight_decay: float = 0.0) -> optax.GradientTransformation:
    def group(params: Any) -> Any:
        def of(path: Any, leaf: Any) -> str:
            return "left out" if "hidden_1" in jax.tree_util.keystr(path) else "moved"

        return jax.tree_util.tree_map_with_path(of, params)

    return optax.multi_transform({"moved": optax.adam(learning_rate), "left out": optax.set_to_zero()}, group)
