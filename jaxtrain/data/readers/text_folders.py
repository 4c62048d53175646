"""A source of texts in folders, one for each class."""

from collections.abc import Sequence
from pathlib import Path

from jaxtrain.config.schema import Count, Name
from jaxtrain.data.readers.class_folders import list_classes
from jaxtrain.data.readers.columns import as_texts
from jaxtrain.data.readers.folders import folder_of
from jaxtrain.data.readers.records import NoteBad, refuse
from jaxtrain.data.readers.text_lines import open_lines
from jaxtrain.data.source import Source, Split
from jaxtrain.data.tables import FilePlaces, Table
from jaxtrain.data.text_columns import MOST_TOKENS, TEXT_COLUMN, Texts
from jaxtrain.data.texts import MOST_PAIRS
from jaxtrain.data.vocabulary import Pairs, Tokens
from jaxtrain.errors import DataError, StorageError, Words

SUFFIXES = (".txt",)


def text_folder(
    path: Path,
    folder: Name,
    tokens: Tokens = "bytes",
    context: Count = MOST_TOKENS,
    vocabulary: Pairs = MOST_PAIRS,
    encoding: Name = "utf-8",
) -> Source:
    """Texts in a folder for each class, as good/1.txt and bad/2.txt, or in such folders in train/ and test/.

    Each file is an example. Classes are the sorted names of the folders of the training split. Inputs are the texts as
    `tokens`, cut off after `context` of them; of byte_pairs there are at most `vocabulary`. Raises DataError naming the
    file or folder that cannot be used.
    """
    root = folder_of("text_folder", path, folder)
    classes, listed = list_classes(root, "texts", SUFFIXES)
    splits = {}
    for split, own in listed.items():
        table = read_texts(root, [root / name for name in own.files], encoding)
        texts = Texts(table.columns, table.places, "", tokens, context, vocabulary)
        splits[split] = Split(texts, own.labels, str(own.folder))
    return Source(splits, class_names=classes)


def read_texts(root: Path, files: Sequence[Path], encoding: str, note_bad: NoteBad = refuse) -> Table:
    """Reads files in a folder, each a text, without the blanks around it, as a table of one column.

    `note_bad` gets the errors of those that cannot be read. Raises DataError naming a file that is empty or no text.
    """
    texts: list[str] = []
    read: list[str] = []
    for file in files:
        try:
            texts.append(_read_text(file, encoding))
        except (DataError, StorageError) as error:
            note_bad(DataError(error.key, error.got, error.expected, error.hint))
            continue
        read.append(str(file))
    places = FilePlaces(str(root), read)
    return Table({TEXT_COLUMN: as_texts(texts, places)}, places)


def _read_text(file: Path, encoding: str) -> str:
    with open_lines(file, encoding) as lines:
        text = "".join(lines).strip()
    if not text:
        raise DataError(str(file), Words("no text"), "a text in each file", "Remove the file")
    return text
