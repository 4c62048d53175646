"""The command `export`: writes a finished run as files that others read and run."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.commands.summary import format_numbers, select_readable
from jaxtrain.commands.sync import is_tracked, sync, sync_lines
from jaxtrain.errors import JaxtrainError, JaxtrainWarning
from jaxtrain.export.write import export_run
from jaxtrain.parallel.compilation import use_persistent_cache


def run(options: Options) -> int:
    """Exports the run in `--workdir`; returns 0."""
    assert options.workdir is not None
    use_persistent_cache()
    chosen = {"seed": options.seed, "fold": options.fold, "ensemble": options.ensemble, "trust": options.trust}
    weights = {"precision": options.precision or "float32", "quantize": options.quantize}
    formats = None if options.format is None else options.format.split(",")
    folder, description = export_run(options.workdir, options.output, formats=formats, **chosen, **weights)
    options.show(export_report(folder, description))
    if options.output is None and (sent := _send_to_server(Path(options.workdir))):
        options.show(sent)
    options.document.show({"folder": str(folder), "description": description})
    return 0


def _send_to_server(workdir: Path) -> list[str]:
    """Sends an export to the MLflow server of its run, if it has one; returns the lines to print.

    A server that does not take it is a warning: `sync` sends it later.
    """
    if not is_tracked(workdir):
        return []
    try:
        return [line for sent in sync(workdir, quiet=True) for line in sync_lines(sent)]
    except JaxtrainError as error:
        hint = f"Send the export later: sync --workdir={workdir}"
        warnings.warn(JaxtrainWarning(error.key, error.got, error.expected, hint), stacklevel=2)
        return []


def export_report(folder: Path, description: Mapping[str, Any]) -> list[str]:
    """Formats the output of `export`."""
    check = description["check"]
    worst = [
        f"  {file}: {', '.join(f'{name} {distance:.1e}' for name, distance in outputs.items())}"
        for file, outputs in check["worst"].items()
    ]
    sizes = ", ".join(map(str, check["batch_sizes"]))
    files = [f"  {name:<22}{file['bytes']:>14,} bytes" for name, file in description["files"].items()]
    rounded = ", with its weights rounded to int8," if description["weights"] == "int8" else ""
    return [
        f"{description['model']} of {description['task']}, for {', '.join(description['platforms'])}",
        *_quality_lines(description),
        *files,
        f"  a fresh process repeats the run{rounded} on {check['rows']} rows in batches of {sizes};",
        f"  largest difference of each output, of its spread (at most {check['tolerance']:.0e}):",
        *worst,
        f"wrote {folder}; JAX promises to read it until {description['readable_until']}",
    ]


def _quality_lines(description: Mapping[str, Any]) -> list[str]:
    """Formats what rounded weights cost."""
    if description["weights"] == "float32":
        return []
    quality = description["quality"]
    if quality is None:
        return [f"  weights in {description['weights']}; the metrics of this task are not measured from predictions"]
    lines = [f"  weights in {description['weights']}; on {quality['examples']:,} examples of {quality['split']}:"]
    for who in ("run", "export"):
        lines.append(f"    {who:<7}{format_numbers(select_readable(quality[who]))}")
    return lines
