"""Prompts to continue: the lines of text files."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxtrain.data.readers.text_lines import open_lines
from jaxtrain.errors import DataError, Words
from jaxtrain.prediction.examples import Bad, Form, Piece, row_ids

BLOCK = 64
"""Prompts of a piece."""


@dataclass(frozen=True)
class Prompts:
    """Lines of text files, each a prompt; an empty one cannot be continued.

    `unknown` counts, by file, the prompts with characters that the training part lacks.
    """

    files: Sequence[Path]
    form: Form
    bad: Bad
    unknown: Counter[str] = field(default_factory=Counter)

    count = None
    """The number of lines is not known before they are read."""

    def pieces(self) -> Generator[Piece]:
        """Yields the prompts in their order, as objects (n,)."""
        for file in self.files:
            rows: list[int] = []
            prompts: list[str] = []
            with open_lines(file, self.form.section.get("encoding", "utf-8")) as lines:
                for row, line in enumerate(lines):
                    prompt = line.rstrip("\r\n")
                    if not prompt:
                        where = f"{file}, line {row + 1}"
                        self.bad.note(DataError(where, Words("an empty line"), "a prompt in each line"))
                        continue
                    rows.append(row)
                    prompts.append(prompt)
                    if len(rows) == BLOCK:
                        yield self._piece(file, rows, prompts)
                        rows = []
                        prompts = []
            if rows:
                yield self._piece(file, rows, prompts)

    def _piece(self, file: Path, rows: list[int], prompts: list[str]) -> Piece:
        self._count_unknown(file, prompts)
        ids = row_ids(str(file), np.array(rows), alone=len(self.files) == 1)
        return Piece(ids, np.array(prompts, object))

    def _count_unknown(self, file: Path, prompts: list[str]) -> None:
        vocabulary = self.form.info.vocabulary
        if vocabulary is not None and vocabulary.unknown is not None:
            self.unknown[str(file)] += sum(vocabulary.unknown in vocabulary.encode(prompt) for prompt in prompts)
