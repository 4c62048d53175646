"""Exceptions in a user's own code: one line, and the frames of that code in the place of a whole traceback."""

import sysconfig
import traceback
from pathlib import Path
from typing import TypeVar

from jaxtrain.errors import ConfigError, JaxtrainError, Words

FRAMES = 10
"""Shown of the user's own frames: the last ones."""

Error = TypeVar("Error", bound=JaxtrainError)

_PACKAGE = Path(__file__).parent.parent
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Returns the frames of an exception that are the user's own: neither of this package nor of a library."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]


def _is_own(filename: str) -> bool:
    if filename.startswith("<"):  # made by Python or a library, such as the methods of a dataclass
        return False
    return not any(Path(filename).is_relative_to(folder) for folder in (_PACKAGE, *_LIBRARIES))


def format_frames(error: BaseException) -> str:
    """Formats the last of the user's own frames, as Python shows them, and what this package noted on the error."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith("jaxtrain: ")]
    return "\n".join([*map(str.rstrip, traceback.format_list(own_frames(error)[-FRAMES:])), *notes])


def text_of(error: BaseException) -> str:
    """Returns the first line of an exception's text; a class of the user's may be unable to compose it."""
    try:
        return str(error).strip().partition("\n")[0]
    except Exception:
        return "its text cannot be printed"


def add_frames(explained: Error, error: BaseException) -> Error:
    """Returns an error with the user's own frames of the exception that it explains, which the command prints."""
    if frames := format_frames(error):
        explained.frames = frames
        explained.add_note(frames)
    return explained


def explain(error: BaseException) -> ConfigError | None:
    """Explains an exception of a user's own code in one line; None for one that no such code takes part in.

    An exit is explained wherever it comes from: the command would end as if it had done its work.
    """
    place = _place_of(error)
    if place is None and not isinstance(error, SystemExit):
        return None
    text = text_of(error)
    got = Words(f"{type(error).__name__}{': ' if text else ''}{text}")
    does = "does not end the command" if isinstance(error, SystemExit) else "ends without an error"
    return add_frames(
        ConfigError(place or "a library", got, f"code that {does}", "--debug shows the whole traceback"), error
    )


def _place_of(error: BaseException) -> str | None:
    """Returns file and line of a user's own code that raised, or that Python cannot read."""
    if isinstance(error, SyntaxError) and not (error.filename and not _is_own(error.filename)):
        return f"{error.filename}:{error.lineno}" if error.filename else "a module"
    frames = own_frames(error)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
