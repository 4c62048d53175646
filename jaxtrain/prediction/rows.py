"""Predictions as rows with columns by name: what a person reads in a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.data.info import DataInfo
from jaxtrain.errors import UsageError, Words
from jaxtrain.prediction.models import Outputs

FEW = 20
"""The most classes, labels or outputs that have a column each."""

Columns = dict[str, list[Any]]
"""Name -> one value for each row: a number, a text, or a list where the format holds such."""


@dataclass(frozen=True)
class Layout:
    """Makes columns of outputs: `class`, `class_name` and `probability`, `p(cat)` for each class, `prediction`.

    `nested` says that a value may be a list: the names of labels, boxes, or numbers of any shape.
    """

    info: DataInfo
    class_names: tuple[str, ...]
    nested: bool

    def columns(self, ids: np.ndarray, outputs: Outputs, prompts: np.ndarray | None = None) -> Columns:
        """Returns the columns of some examples; raises UsageError for outputs that are no columns."""
        given: Columns = {"id": ids.tolist()}
        if "text" in outputs:
            assert prompts is not None
            return {**given, "prompt": prompts.tolist(), "text": outputs["text"].tolist()}
        if "labels" in outputs:
            return given | self._labels(outputs)
        if "class" in outputs:
            return given | self._classes(outputs)
        if "numbers" in outputs:
            return given | self._numbers(outputs["numbers"], "prediction")
        if self.info.box_classes is not None and self.nested:
            return {**given, "boxes": [self._boxes(found) for found in outputs["outputs"]]}
        if "mask" in outputs:
            raise UsageError("--output", Words("a table, for masks"), "a folder, or a file named *.npz")
        return given | self._numbers(outputs["outputs"], "output")

    def _classes(self, outputs: Outputs) -> Columns:
        chosen = outputs["class"]
        probabilities = outputs["probabilities"]
        if chosen.ndim > 1:
            return self._labels({**outputs, "labels": chosen})
        if probabilities.ndim == 1:  # of class 1
            probabilities = np.stack([1.0 - probabilities, probabilities], axis=1)
        names = self.class_names or tuple(map(str, range(probabilities.shape[1])))
        own = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
        columns = {
            "class": chosen.tolist(),
            "class_name": [names[label] for label in chosen.tolist()],
            "probability": shortest(own),
        }
        return columns | (self._probabilities(probabilities, names) if len(names) <= FEW else {})

    def _labels(self, outputs: Outputs) -> Columns:
        decided = outputs["labels"].reshape(len(outputs["labels"]), -1)
        probabilities = outputs["probabilities"].reshape(decided.shape)
        names = self.class_names or tuple(map(str, range(decided.shape[1])))
        listed = [[name for name, has in zip(names, row, strict=True) if has] for row in decided.tolist()]
        texts = listed if self.nested else ["|".join(row) for row in listed]
        return {"labels": texts} | self._probabilities(probabilities, names)

    def _probabilities(self, probabilities: np.ndarray, names: tuple[str, ...]) -> Columns:
        return {f"p({name})": shortest(probabilities[:, i]) for i, name in enumerate(names)}

    def _numbers(self, numbers: np.ndarray, name: str) -> Columns:
        if numbers.ndim == 1:
            return {name: shortest(numbers)}
        if numbers.ndim == 2 and (self.info.target_names or numbers.shape[1] <= FEW or not self.nested):
            names = self.info.target_names or tuple(map(str, range(numbers.shape[1])))
            return {f"{name}({own})": shortest(numbers[:, i]) for i, own in enumerate(names)}
        if not self.nested:
            got = Words(f"a table, for outputs of the shape {numbers.shape[1:]} an example")
            raise UsageError("--output", got, "a file named *.npz or *.jsonl")
        return {name: numbers.tolist()}

    def _boxes(self, found: np.ndarray) -> list[Mapping[str, Any]]:
        """Returns the boxes of one picture, (candidates, 4 + classes), that have a score, the best first."""
        scores = found[:, 4:]
        places = np.argwhere(scores > 0)
        order = np.argsort(-scores[tuple(places.T)], kind="stable")
        sides = ("y", "x", "height", "width")
        names = self.class_names
        return [
            {
                "class": int(label),
                **({"class_name": names[label]} if names else {}),
                "score": shortest(scores[row, label][None])[0],
                **dict(zip(sides, shortest(found[row, :4]), strict=True)),
            }
            for row, label in places[order]
        ]


def shortest(numbers: np.ndarray) -> list[float]:
    """Returns numbers (n,) as Python floats that are written with the digits which tell them apart in their dtype."""
    if numbers.dtype == np.float32:
        return list(map(float, numbers.astype("U32").tolist()))
    return numbers.astype(np.float64).tolist()
