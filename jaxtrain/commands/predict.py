"""The command `predict`: predicts from files by a run or an export, and writes a table, arrays or masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.commands.summary import format_numbers, select_readable
from jaxtrain.errors import DataError, UsageError, Words
from jaxtrain.export.loading import load_export
from jaxtrain.parallel.compilation import use_persistent_cache
from jaxtrain.prediction.models import Continuation, ExportModel, Model, RunModel
from jaxtrain.prediction.run import Predicted, predict_to_file
from jaxtrain.training.trained_run import load_run

MOST_LISTED = 20
"""Examples that were left out and are listed."""


def run(options: Options) -> int:
    """Predicts from `--data` to `--output`; returns 0."""
    assert options.output is not None
    use_persistent_cache()
    model = _load(options, _continuation(options))
    _demand_text(options, model)
    chosen = {"skip_bad": options.skip_bad, "quiet": options.quiet}
    predicted = predict_to_file(model, options.data, options.output, **chosen)
    options.show(prediction_report(predicted, Path(options.output)))
    options.document.show(prediction_document(predicted, options.output))
    return 0


def _continuation(options: Options) -> Continuation:
    """Returns how texts are continued, as far as options say it."""
    return Continuation()._replace(**_given(options))


def _given(options: Options) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in Continuation._fields}
    return {name: value for name, value in values.items() if value is not None}


def _demand_text(options: Options, model: Model) -> None:
    """Raises UsageError for options of a continuation where nothing is continued."""
    if model.form.info.vocabulary is None and (given := [*_given(options)]):
        option = f"--{given[0].replace('_', '-')}"
        got = Words("it for a model that was not trained on a text")
        raise UsageError(option, got, "a model that continues texts", f"Leave {option} out")


def _load(options: Options, continuation: Continuation) -> Model:
    if options.export is None:
        assert options.workdir is not None
        return RunModel(load_run(options.workdir, options.seed, options.trust, fold=options.fold), continuation)
    for option, given in (("--seed", options.seed), ("--fold", options.fold)):
        if given is not None:
            raise UsageError(option, given, "none for an export, which is of one model", f"Leave {option} out")
    return ExportModel(load_export(options.export), continuation)


def prediction_document(predicted: Predicted, output: str) -> dict[str, Any]:
    """Returns what `predict` tells programs."""
    return {
        "output": output,
        "examples": predicted.examples,
        "measured": predicted.measured,
        "metrics": predicted.metrics,
        "skipped": [error.to_json() for error in predicted.skipped],
    }


def prediction_report(predicted: Predicted, output: Path) -> list[str]:
    """Formats the output of `predict`."""
    lines = [f"wrote {output}: {predicted.examples:,} predictions"]
    if predicted.measured:
        numbers = format_numbers(select_readable(predicted.metrics))
        lines.append(f"  {numbers} (on {predicted.measured:,} examples with a target)")
    return lines + _skipped_lines(predicted.skipped)


def _skipped_lines(skipped: Sequence[DataError]) -> list[str]:
    if not skipped:
        return []
    listed = [f"  {error}" for error in skipped[:MOST_LISTED]]
    more = [f"  and {len(skipped) - MOST_LISTED:,} more"] if len(skipped) > MOST_LISTED else []
    return [f"left out {len(skipped):,} examples that cannot be read:", *listed, *more]
