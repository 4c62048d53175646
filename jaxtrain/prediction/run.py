"""Predicts from files to a file, a piece at a time."""

import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxtrain.data.encoded import Encoding, oddities
from jaxtrain.errors import DataError, JaxtrainWarning, UsageError, Words
from jaxtrain.export.quality import predictions_of
from jaxtrain.files import exists, is_directory, is_same_file, list_directory, rename
from jaxtrain.prediction.examples import Bad, Examples, Piece
from jaxtrain.prediction.models import Model, Outputs
from jaxtrain.prediction.opening import find_paths, open_examples
from jaxtrain.prediction.tables import TableExamples
from jaxtrain.prediction.texts import Prompts, TextFile, TextFiles
from jaxtrain.prediction.writers import Writer, writer_of
from jaxtrain.storage.work_folder import work_beside
from jaxtrain.trackers.progress import Progress, progress
from jaxtrain.training.bookkeeping import Names, Numbers, to_numbers
from jaxtrain.training.measuring import Measure, is_measured


@dataclass(frozen=True)
class Predicted:
    """The outcome of a prediction: the number of examples, the errors of those left out, and metrics by name.

    `measured` is the number of examples with a target, over which the metrics are.
    """

    examples: int
    skipped: Sequence[DataError] = ()
    metrics: Numbers = field(default_factory=dict)
    measured: int = 0


def predict_to_file(
    model: Model, data: Sequence[str], output: str | Path, *, skip_bad: bool = False, quiet: bool = True
) -> Predicted:
    """Predicts from files, folders or patterns such as "new/*.png", and writes the predictions to `output`.

    The output appears when it is whole: until then it is written under another name beside it, which a kill leaves
    behind and the next call writes anew. Examples that cannot be read are left out with `skip_bad`.

    Raises UsageError for an output or files that do not suit the model, DataError naming file and row of an example
    that cannot be read, and StorageError where the output cannot be written.
    """
    output = Path(output)
    make_writer = writer_of(output)
    _demand_free(output)
    bad = Bad(skip_bad)
    paths = find_paths(data)
    _demand_another(output, paths)
    examples = open_examples(paths, model.form, bad)
    with work_beside(output) as work:
        shown = progress(examples.count, 0, quiet=quiet, description=output.name, unit="example")
        with closing(make_writer(work, model.form.info, model.class_names)) as writer, shown as bar:
            predicted = _predict(model, examples, writer, bad, bar)
            rename(writer.finish(), output)
    _warn_of_unseen(examples, model.form.info.encoding, predicted.examples)
    return predicted


def _demand_free(output: Path) -> None:
    """Raises UsageError for a folder that holds something; a file is replaced."""
    if is_directory(output) and (output.suffix or list_directory(output)):
        raise UsageError("--output", Words(f"{output}, which is there already"), "a folder that is new or empty")
    if exists(output) and not output.suffix and not is_directory(output):
        raise UsageError("--output", Words(f"the file {output}"), "a folder for masks, or a name with an ending")


def _demand_another(output: Path, paths: Sequence[Path]) -> None:
    """Raises UsageError for an output that would take the place of one of the files that are read."""
    for path in paths:
        if is_same_file(output, path):
            raise UsageError("--output", Words(f"{output}, which is read"), "another file than those of --data")


def _predict(model: Model, examples: Examples, writer: Writer, bad: Bad, bar: Progress) -> Predicted:
    count = 0
    measured = 0
    measure = _measure_of(model)
    with closing(examples.pieces()) as pieces:
        for piece in pieces:
            if len(piece):
                outputs = _predict_piece(model, piece)
                writer.write(piece.ids, outputs, piece.inputs if "text" in outputs else None)
                measured += _add(measure, piece, outputs) if measure else 0
                count += len(piece)
            bar.update(count + len(bad.errors))
    if not count:
        raise bad.errors[0] if bad.errors else DataError("--data", Words("no examples"), "at least one")
    info = model.form.info
    numbers = to_numbers(measure.metrics, Names(info.class_names, info.target_names)) if measure else {}
    return Predicted(count, bad.errors, numbers, measured)


def _predict_piece(model: Model, piece: Piece) -> Outputs:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JaxtrainWarning)  # of unknown categories, said once at the end
        return model.outputs(piece.inputs) | ({} if piece.sizes is None else {"size": piece.sizes})


def _measure_of(model: Model) -> Measure | None:
    if model.form.info.vocabulary is not None or not is_measured(model.config):
        return None
    return Measure(model.config, model.form.info, model.form.batch)


def _add(measure: Measure, piece: Piece, outputs: Outputs) -> int:
    """Adds the examples that have a target to the metrics; returns their number."""
    if piece.targets is None or piece.has_target is None:
        return 0
    rows = np.flatnonzero(piece.has_target)
    measure.add(predictions_of(outputs)[rows], piece.targets[rows])
    return len(rows)


def _warn_of_unseen(examples: Examples, encoding: Encoding | None, count: int) -> None:
    """Warns of what no training row has, such as a category, and of texts that are cut off."""
    if isinstance(examples, Prompts):
        _warn_of_unknown(examples)
    if not isinstance(examples, TableExamples | TextFiles) or encoding is None:
        return
    first = examples.files[0]
    where = str(first.path if isinstance(first, TextFile) else first)
    for got, expected in oddities(encoding, count, examples.unseen, examples.cut):
        warnings.warn(JaxtrainWarning(where, got, expected), stacklevel=3)


def _warn_of_unknown(prompts: Prompts) -> None:
    for file, count in prompts.unknown.items():
        if count:
            got = Words(f"{count:,} prompts with characters that the training part lacks")
            warnings.warn(JaxtrainWarning(file, got, "characters of training: they count as unknown"), stacklevel=4)
