"""Models that predict from files: a run, or an export, under one protocol."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxtrain.data.info import DataInfo
from jaxtrain.errors import StorageError, Words
from jaxtrain.export.loading import MANIFEST, SIZES, ExportedModel
from jaxtrain.prediction.examples import Form
from jaxtrain.training.trained_run import Run

Outputs = dict[str, np.ndarray]
"""Name -> (n, ...), by the names that the outputs of an export have; see `export/outputs.py`."""


class Continuation(NamedTuple):
    """The way in which a language model continues each prompt: the arguments of `Run.generate` of the same names."""

    length: int = 200
    temperature: float = 1.0
    top_k: int | None = None


CONTINUATION = Continuation()


class Model(Protocol):
    """A model that predicts."""

    @property
    def form(self) -> Form:
        """The form of its examples."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The sections `data`, `task` and `loss` of its config."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes or labels, in the order of the logits."""
        ...

    def outputs(self, inputs: Any) -> Outputs:
        """Predicts from raw inputs (n, ...), or a table."""
        ...


@dataclass(frozen=True)
class RunModel:
    """A trained run; its predictions are those of `Run.predict`."""

    run: Run
    continuation: Continuation = CONTINUATION

    @property
    def form(self) -> Form:
        """The form of its examples."""
        return Form(self.run.info, self.config["data"], self.config["data"]["eval_batch_size"])

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the run."""
        return self.run.config

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes or labels."""
        return self.run.class_names

    def outputs(self, inputs: Any) -> Outputs:
        """Predicts, and adds probabilities and decisions on the host, so that no further program is compiled."""
        if self.run.info.vocabulary is not None:
            return _continue(self.run.generate, inputs, self.continuation)
        return outputs_of(self.run.predict(inputs), self.config["task"]["name"], self.run.info)


@dataclass(frozen=True)
class ExportModel:
    """An exported model; its predictions are those of `ExportedModel.predict`."""

    model: ExportedModel
    continuation: Continuation = CONTINUATION

    @property
    def form(self) -> Form:
        """The form of its examples."""
        return Form(self.model.info, self.config["data"], SIZES[-1])

    @property
    def config(self) -> Mapping[str, Any]:
        """The sections of the config that the export keeps; raises StorageError for an export without them."""
        kept = self.model.description.get("config")
        if kept is None:
            where = str(self.model.folder / MANIFEST)
            got = Words("an export that does not say how files are read")
            raise StorageError(where, got, "one of this version of jaxtrain", "Export the run again")
        return {name: {key: _as_tuple(value) for key, value in section.items()} for name, section in kept.items()}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes or labels."""
        return self.model.class_names

    def outputs(self, inputs: Any) -> Outputs:
        """Predicts by the exported program."""
        if self.model.info.vocabulary is not None:
            return _continue(self.model.generate, inputs, self.continuation)
        return self.model.predict(inputs)


def _continue(generate: Callable[..., str], prompts: Iterable[str], continuation: Continuation) -> Outputs:
    return {"text": np.array([generate(prompt, **continuation._asdict()) for prompt in prompts], object)}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def outputs_of(predictions: np.ndarray, task: str, info: DataInfo) -> Outputs:
    """Returns the predictions of `Run.predict` with what follows from them, as `export/outputs.py` names it."""
    if task == "regression":
        return {"numbers": predictions}
    if task == "segmentation":
        return _of_classes(predictions, "mask") if (info.classes or 2) > 2 else _of_labels(predictions, "mask")
    if task in ("classification", "sequence_classification", "label_distribution"):
        return _of_classes(predictions, "class")
    if task in DECISIONS:
        return _of_labels(predictions, DECISIONS[task])
    return {"outputs": predictions}


DECISIONS = {"binary_classification": "class", "multi_label": "labels"}
"""Task with a logit for each target of 0 and 1 -> the name of its decisions."""


def _of_classes(logits: np.ndarray, decision: str) -> Outputs:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    chosen = logits.argmax(axis=-1).astype(np.int32)
    return {"logits": logits, "probabilities": probabilities, decision: chosen}


def _of_labels(logits: np.ndarray, decision: str) -> Outputs:
    probabilities = np.where(logits >= 0, 1.0, np.exp(-np.abs(logits))) / (1.0 + np.exp(-np.abs(logits)))
    return {
        "logits": logits,
        "probabilities": probabilities.astype(np.float32),
        decision: (logits > 0).astype(np.int32),
    }
