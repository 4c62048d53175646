"""Texts to predict from: the lines of files as prompts to continue, and files each of which is an example."""

import itertools
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtrain.data.readers.folders import files_below, list_folder, say_skipped
from jaxtrain.data.readers.text_folders import SUFFIXES, read_texts, text_folder
from jaxtrain.data.readers.text_lines import open_lines
from jaxtrain.data.tables import Table
from jaxtrain.data.text_columns import TEXT_COLUMN
from jaxtrain.errors import DataError, Words
from jaxtrain.files import is_directory
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
            prompts = self._prompts(file)
            while block := list(itertools.islice(prompts, BLOCK)):
                yield self._piece(file, *zip(*block, strict=True))

    def _prompts(self, file: Path) -> Iterator[tuple[int, str]]:
        """Yields the row and the text of each line that can be continued."""
        with open_lines(file, self.form.section.get("encoding", "utf-8")) as lines:
            for row, line in enumerate(lines):
                prompt = line.rstrip("\r\n")
                if prompt:
                    yield row, prompt
                else:
                    where = f"{file}, line {row + 1}"
                    self.bad.note(DataError(where, Words("an empty line"), "a prompt in each line"))

    def _piece(self, file: Path, rows: Sequence[int], prompts: Sequence[str]) -> Piece:
        self._count_unknown(file, prompts)
        ids = row_ids(str(file), np.array(rows), alone=len(self.files) == 1)
        return Piece(ids, np.array(prompts, object))

    def _count_unknown(self, file: Path, prompts: Sequence[str]) -> None:
        vocabulary = self.form.info.vocabulary
        if vocabulary is not None and vocabulary.unknown is not None:
            self.unknown[str(file)] += sum(vocabulary.unknown in vocabulary.encode(prompt) for prompt in prompts)


class TextFile(NamedTuple):
    """A file whose text is an example: its id, its path, and the label of its folder, -1 where that is no class."""

    id: str
    path: Path
    label: int = -1


@dataclass(frozen=True)
class TextFiles:
    """Files of texts, each an example.

    `unseen` counts the texts with characters that the training part lacks, and `cut` those that are cut off.
    """

    files: Sequence[TextFile]
    form: Form
    bad: Bad
    unseen: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """The number of files."""
        return len(self.files)

    def pieces(self) -> Generator[Piece]:
        """Yields the texts in the order of the files, as tables of one column."""
        encoding = self.form.info.texts
        assert encoding is not None
        chosen = self.form.knobs(text_folder)["encoding"]
        for begin in range(0, len(self.files), self.form.piece_rows):
            own = self.files[begin : begin + self.form.piece_rows]
            read = read_texts(own[0].path.parent, [file.path for file in own], chosen, self.bad.note)
            table = Table({encoding.column: read.columns[TEXT_COLUMN]}, read.places)
            self.unseen.update(encoding.unseen(table))
            self.cut.update(encoding.cut_off(table))
            places = {table.place(row) for row in range(len(table))}
            kept = [file for file in own if str(file.path) in places]
            labels = np.array([file.label for file in kept], np.int32)
            ids = np.array([file.id for file in kept], object)
            yield Piece(ids, table, np.maximum(labels, 0), labels >= 0) if kept else Piece(ids, None)


def texts_of_files(paths: Sequence[Path], form: Form, bad: Bad) -> TextFiles:
    """Finds texts: the files among the paths, and those of the folders, which may be in a folder for each class."""
    found = (_files_of_folder(path, form) if is_directory(path) else [TextFile(str(path), path)] for path in paths)
    return TextFiles([file for files in found for file in files], form, bad)


def _files_of_folder(root: Path, form: Form) -> list[TextFile]:
    found = files_below(root, list_folder(root, root, SUFFIXES), SUFFIXES)
    if not found.names:
        raise DataError(str(root), Words("no texts in the folder"), "at least one, or folders of them")
    say_skipped(root, found.others, "texts")
    labels = {name: label for label, name in enumerate(form.info.class_names)}
    return [
        TextFile(name, root / name, labels.get(folder, -1))
        for name, folder in zip(found.names, found.folders, strict=True)
    ]
