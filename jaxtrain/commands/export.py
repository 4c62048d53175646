"""The command `export`: writes a finished run as files that others read and run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.export.write import export_run
from jaxtrain.parallel.compilation import use_persistent_cache


def run(options: Options) -> int:
    """Exports the run in `--workdir`; returns 0."""
    assert options.workdir is not None
    use_persistent_cache()
    formats = None if options.format is None else options.format.split(",")
    chosen = {"seed": options.seed, "ensemble": options.ensemble, "formats": formats, "trust": options.trust}
    folder, description = export_run(options.workdir, options.output, **chosen)
    options.show(export_report(folder, description))
    return 0


def export_report(folder: Path, description: Mapping[str, Any]) -> list[str]:
    """Formats the output of `export`."""
    check = description["check"]
    sizes = ", ".join(map(str, check["batch_sizes"]))
    worst = [
        f"  {file}: {', '.join(f'{name} {distance:.1e}' for name, distance in outputs.items())}"
        for file, outputs in check["worst"].items()
    ]
    files = [f"  {name:<22}{file['bytes']:>14,} bytes" for name, file in description["files"].items()]
    return [
        f"{description['model']} of {description['task']}, for {', '.join(description['platforms'])}",
        *files,
        f"  a fresh process repeats the run on {check['rows']} rows in batches of {sizes};",
        f"  largest difference of each output, of its spread (at most {check['tolerance']:.0e}):",
        *worst,
        f"wrote {folder}; JAX promises to read it until {description['readable_until']}",
    ]
