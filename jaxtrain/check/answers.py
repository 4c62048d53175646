"""The answer to one question of `check`: a status, what was measured, and for what is not ok what to do."""

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "fault", "not asked"]


class Answer(NamedTuple):
    """The answer to a question.

    status: "not asked" where the question does not apply, or time did not allow it; measured: what was measured, or the
    reason why it was not; meaning: what that usually means; remedy: what to do, both only for warnings and faults.
    """

    status: Status
    measured: str
    meaning: str = ""
    remedy: str = ""


def ok(measured: str) -> Answer:
    """Makes the answer that nothing is wrong."""
    return Answer("ok", measured)


def warning(measured: str, meaning: str, remedy: str) -> Answer:
    """Makes the answer that something is unusual, and may be meant so."""
    return Answer("warning", measured, meaning, remedy)


def fault(measured: str, meaning: str, remedy: str) -> Answer:
    """Makes the answer that something keeps the run from learning, or makes its numbers worthless."""
    return Answer("fault", measured, meaning, remedy)


def not_asked(reason: str) -> Answer:
    """Makes the answer that the question was not asked, and why."""
    return Answer("not asked", reason)
