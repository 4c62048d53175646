"""Asks the questions of a config, one after the other, within the time that there is."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtrain.check.answers import Answer, fault, not_asked
from jaxtrain.check.context import Context
from jaxtrain.check.questions import QUESTIONS, Question
from jaxtrain.config.own_code import format_frames, own_frames, text_of
from jaxtrain.errors import JaxtrainError, NotFiniteError
from jaxtrain.training.checks import explain_jax_errors

TIME_OVER = "are over (check.seconds)"
"""The end of the reason against a question that was not asked for lack of time."""


def ask(context: Context, questions: Mapping[str, Question]) -> Iterator[tuple[str, Answer]]:
    """Yields (name, answer) of each question; one that raises is not asked, and the others are.

    Raises JaxtrainError where the config cannot be built or its data cannot be read: no question can be asked then.
    Numbers in the data that are not finite are a fault of the question "inputs".
    """
    try:
        with explain_jax_errors(context.config):
            _ = context.experiment
    except NotFiniteError as error:
        yield from _answers_without_data(error, questions)
        return
    try:
        for name, question in questions.items():
            if context.left <= 0:
                yield name, not_asked(f"the {context.seconds:.0f} s {TIME_OVER}")
                continue
            yield name, _answer(name, question, context)
    finally:
        context.experiment.close()


def _answers_without_data(error: NotFiniteError, questions: Mapping[str, Question]) -> Iterator[tuple[str, Answer]]:
    """Yields the answers for data with numbers that are not finite, which no run takes."""
    for name in questions:
        if name == "inputs":
            meaning = "a loss that is not a number, from the first batch on that holds this example"
            yield name, fault(f"{error.key}: {error.got}", meaning, f"{error.hint}, or count it out by data.skip_bad")
        else:
            yield name, not_asked("the data hold numbers that are not finite")


def _answer(name: str, question: Question, context: Context) -> Answer:
    try:
        answer = question(context)
    except JaxtrainError as error:
        return fault(str(error), "the run ends with this error", "Correct what it names")
    except Exception as error:
        return _raised(name, error, context.say)
    if not isinstance(answer, Answer):
        return not_asked(f"it returned a {type(answer).__name__}, and no jaxtrain.check.answers.Answer")
    return answer


def _raised(name: str, error: Exception, say: Callable[[str], None]) -> Answer:
    """Returns the answer for a question that raised, and shows the frames that are not this package's."""
    for line in format_frames(error).splitlines():
        say(line)
    text = f"it raised {type(error).__name__}: {text_of(error)[:300]}"
    if name in QUESTIONS and own_frames(error):
        return fault(text, "the run ends with this error, here or later", "Correct the code whose frames are shown")
    return not_asked(text)


def exit_code(answers: Mapping[str, Answer]) -> int:
    """Returns 6 where an answer is a fault, else 0."""
    return 6 if any(answer.status == "fault" for answer in answers.values()) else 0


def to_json(answers: Mapping[str, Answer], seconds: float) -> dict[str, Any]:
    """Returns what `check/result.json` holds: the answers by name, in their order, their counts and the time."""
    statuses = [answer.status for answer in answers.values()]
    counts = {status: statuses.count(status) for status in ("ok", "warning", "fault", "not asked")}
    return {
        "status": "fault" if counts["fault"] else "ok",
        "counts": counts,
        "seconds": round(seconds, 3),
        "answers": {name: answer._asdict() for name, answer in answers.items()},
    }
