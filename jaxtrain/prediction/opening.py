"""Opens the files of a command line as examples, by their endings and by the source that a model was trained with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtrain.data.images import SUFFIXES
from jaxtrain.data.readers import parquet_files
from jaxtrain.data.readers.image_tables import JSON_LINES
from jaxtrain.errors import DataError, UsageError, Words, one_of
from jaxtrain.files import exists, find_matching, is_directory, is_litter, list_data
from jaxtrain.prediction.arrays import ArrayExamples, idx_files
from jaxtrain.prediction.examples import Bad, Examples, Form
from jaxtrain.prediction.pictures import pictures_of_boxes, pictures_of_parquet, pictures_of_paths, pictures_of_tables
from jaxtrain.prediction.tables import FORMATS, TableExamples
from jaxtrain.prediction.texts import Prompts, texts_of_files

ARRAYS = (".npy", ".npz")
CSV = (".csv", ".tsv", ".data")
TABLES = {"csv": CSV, "jsonl": JSON_LINES, "parquet": parquet_files.SUFFIXES}
WILD = "*?["
MATCHING = "a file, a folder or a pattern that matches some"


def find_paths(words: Sequence[str]) -> list[Path]:
    """Returns the files and folders of `--data`: a word that names none is a pattern, such as "new/*.png".

    Litter is passed over, as a shell lists it among the words of a pattern, and so is what lies in a folder that is
    found, too, as by "new/**/*": it comes with the folder. Raises DataError for a word that matches nothing, and for
    litter alone.
    """
    paths: list[Path] = []
    for word in words:
        if exists(Path(word)):
            paths += [] if is_litter(Path(word).name) else [Path(word)]
            continue
        found = find_matching(word) if any(mark in word for mark in WILD) else []
        if not found:
            raise DataError("--data", word, MATCHING)
        paths += found
    if not paths:
        raise DataError("--data", " ".join(words), MATCHING)
    folders = {path for path in paths if is_directory(path)}
    return [path for path in paths if folders.isdisjoint(path.parents)]


def open_examples(paths: Sequence[Path], form: Form, bad: Bad) -> Examples:
    """Opens files of one kind as examples of a model; raises UsageError for a kind that the model does not take."""
    kinds = {_kind_of(path, form): path for path in paths}
    if len(kinds) > 1:
        got = Words(f"{' and '.join(f'{kind} ({path})' for kind, path in kinds.items())}")
        raise UsageError("--data", got, "files of one kind", "Predict from each of them by itself")
    (kind,) = kinds
    return OPENED[kind](paths, form, bad)


def _open_table(name: str) -> Callable[[Sequence[Path], Form, Bad], Examples]:
    return lambda paths, form, bad: TableExamples(paths, FORMATS[name], form, bad)


OPENED: dict[str, Callable[[Sequence[Path], Form, Bad], Examples]] = {
    "arrays": ArrayExamples.of_files,
    "images in IDX": ArrayExamples.of_idx,
    "pictures": pictures_of_paths,
    "tables of pictures": pictures_of_tables,
    "pictures with boxes": pictures_of_boxes,
    "pictures in Parquet": pictures_of_parquet,
    "texts": Prompts,
    "files of texts": texts_of_files,
    **{name: _open_table(name) for name in FORMATS},
}
"""Kind of files -> what opens them."""


def _kind_of(path: Path, form: Form) -> str:
    """Returns the kind of a file or folder for a model: one of `OPENED`."""
    if form.info.vocabulary is not None:
        return "texts"
    table = _table_of(path, form)
    if form.info.texts is not None and table is None:
        return "files of texts"
    if form.info.encoding is not None and (table is not None or form.info.sequences is None):
        if table is None:
            raise UsageError("--data", str(path), f"a table: {one_of([*FORMATS])}, as the model was trained on one")
        return table
    suffix = path.suffix.lower()
    if form.section["name"] == "image_boxes" and suffix not in (*SUFFIXES, *ARRAYS) and not is_directory(path):
        return "pictures with boxes"
    if idx_files(path):
        return "images in IDX"
    endings = {Path(name).suffix.lower() for name in list_data(path)} if is_directory(path) else {path.suffix.lower()}
    if not endings.isdisjoint(ARRAYS):
        return "arrays"
    if table == "parquet":
        return "pictures in Parquet"
    if len(form.info.input_shape) == 3 and table is not None and form.section["name"] == "image_table":
        return "tables of pictures"
    if len(form.info.input_shape) == 3 and (is_directory(path) or not endings.isdisjoint(SUFFIXES)):
        return "pictures"
    expected = f"arrays ({', '.join(ARRAYS)})"
    raise UsageError("--data", str(path), f"{expected}, or pictures for a model of pictures")


def _table_of(path: Path, form: Form) -> str | None:
    """Returns the format of a table by its ending, else, for a file, that in which the model's own table was."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    for name, endings in TABLES.items():
        if plain.suffix.lower() in endings:
            return name
    if is_directory(path):
        parts = [name for name in list_data(path) if name.endswith(parquet_files.SUFFIXES)]
        return "parquet" if parts else None
    own = form.section["name"]
    is_another = plain.suffix.lower() in (*ARRAYS, *SUFFIXES) or form.info.encoding is None
    return None if is_another or own not in FORMATS else own
