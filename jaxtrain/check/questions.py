"""The table of questions, in the order in which they are asked: what a question rests on comes before it."""

from collections.abc import Callable, Mapping

from jaxtrain.check import (
    agreement,
    data_inputs,
    data_splits,
    data_targets,
    learning,
    machine,
    model,
    model_inputs,
    model_outputs,
    rates,
    signals,
    steps,
)
from jaxtrain.check.answers import Answer
from jaxtrain.check.context import Context
from jaxtrain.config.registry import import_member
from jaxtrain.errors import ConfigError, unknown

Question = Callable[[Context], Answer]
"""(context) -> the answer; the first line of its docstring is the question in words."""

DATA: Mapping[str, Question] = {
    "inputs": data_inputs.inputs,
    "targets": data_targets.targets,
    "classes": data_targets.classes,
    "balance": data_targets.balance,
    "split_sizes": data_targets.split_sizes,
    "order": data_targets.order,
    "same_data": agreement.same_data,
    "splits_alike": data_inputs.splits_alike,
    "duplicates": data_splits.duplicates,
    "contradictions": data_splits.contradictions,
    "leak": data_inputs.leak,
    "augmentation": data_inputs.augmentation,
}
MODEL: Mapping[str, Question] = {
    "weights": model.weights,
    "evaluation": model.evaluation,
    "loss": model_outputs.loss,
    "mixing": model.mixing,
    "masked_rows": model.masked_rows,
    "loss_mean": model.loss_mean,
    "dead_units": signals.dead_units,
    "uses_inputs": model_inputs.uses_inputs,
    "causal": model_inputs.causal,
    "activations": signals.activations,
    "output_form": model_outputs.output_form,
    "initial_loss": model_outputs.initial_loss,
    "nonlinearity": model.nonlinearity,
    "gradients": signals.gradients,
    "finite_differences": signals.finite_differences,
}
LEARNING: Mapping[str, Question] = {
    "schedule": rates.schedule,
    "averages": steps.averages,
    "gradient_size": steps.gradient_size,
    "decay": rates.decay,
    "rate": rates.rate,
    "updates": steps.updates,
    "regularisers": rates.regularisers,
    "same_step": learning.same_step,
    "modes": agreement.modes,
    "splits_agree": agreement.splits_agree,
    "shuffled_labels": learning.shuffled_labels,
    "zero_inputs": learning.zero_inputs,
    "overfit": learning.overfit,
}
MACHINE: Mapping[str, Question] = {
    "retrace": machine.retrace,
    "waiting": machine.waiting,
    "duration": machine.duration,
    "bfloat16": machine.bfloat16,
}
GROUPS: Mapping[str, Mapping[str, Question]] = {
    "data": DATA,
    "model at initial weights": MODEL,
    "learning": LEARNING,
    "machine": MACHINE,
}
QUESTIONS: Mapping[str, Question] = {name: ask for group in GROUPS.values() for name, ask in group.items()}


def questions_of(
    own: tuple[str, ...], only: tuple[str, ...] | None = None, skip: tuple[str, ...] = ()
) -> dict[str, Question]:
    """Returns the questions to ask, by name: those of the table, and functions named `package.module:function`.

    Raises ConfigError for a name that is neither.
    """
    asked = dict(QUESTIONS)
    for name in own:
        if ":" not in name:
            expected = "package.module:function, since the questions of the table are asked anyway"
            raise ConfigError("check.questions", name, expected)
        asked[name] = import_member("check.questions", name)
    for option, names in (("--only", only or ()), ("--skip", skip)):
        for name in names:
            if name not in asked:
                raise unknown(option, name, asked)
    return {name: ask for name, ask in asked.items() if (only is None or name in only) and name not in skip}
