"""The task that classifies texts and sequences of unlike length."""

from jaxtrain.config.schema import Fraction
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, Words
from jaxtrain.tasks.classification import classification
from jaxtrain.tasks.linen import LossFunction, ModelFunction


def sequence_classification(
    model: ModelFunction,
    loss: LossFunction,
    info: DataInfo,
    class_balance: Fraction | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
) -> Task:
    """Classifies texts or sequences: as `classification`, for inputs of unlike length, each with a class."""
    if info.padding is None:
        got = Words(f"'sequence_classification' for inputs of shape {info.input_shape} that are of one length")
        hint = "Name the column of texts by data.text, take data.name=text_folder, or take another task"
        raise DataError("task.name", got, "texts, or sequences of unlike length, each with a class", hint)
    return classification(model, loss, info, class_balance, metrics)
