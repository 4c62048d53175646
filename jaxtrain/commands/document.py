"""The one JSON document of a command, for programs; docs/json.md describes it."""

import contextlib
import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TextIO

from jaxtrain.files import as_json_value

FORMAT = 1
"""Number of the form of all documents; it grows when a key changes its meaning or goes."""


class Document:
    """The document of one command: the first that is shown is printed, and no other."""

    def __init__(self, stream: TextIO | None) -> None:
        """Takes the stream for the document; None prints none."""
        self.verb: str | None = None
        self._stream = stream

    def show(self, content: Mapping[str, Any]) -> None:
        """Prints what the verb found. Paths are texts; numbers that are not finite become null."""
        stream = self._stream
        self._stream = None
        if stream is not None:
            document = {"verb": self.verb, "format": FORMAT, **content}
            print(json.dumps(as_json_value(document), indent=2, allow_nan=False), file=stream, flush=True)

    def reserve_output(self) -> AbstractContextManager[object]:
        """Sends all else that a block prints to the standard error, also what code of the user's own prints."""
        return contextlib.nullcontext() if self._stream is None else contextlib.redirect_stdout(sys.stderr)
