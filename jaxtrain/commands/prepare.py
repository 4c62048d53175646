"""The command `prepare`: writes the data of a config to arrays once, which runs then read at any rows."""

from pathlib import Path

from jaxtrain.commands.options import Options, command, join
from jaxtrain.config.registry import knobs_of
from jaxtrain.data import Settings, read
from jaxtrain.data.array_files import demand_space
from jaxtrain.data.preparation import InOrder, as_preparable, known_bytes, known_examples, size_in_words, write_arrays
from jaxtrain.data.source import Source, as_source
from jaxtrain.errors import UsageError, Words
from jaxtrain.files import (
    exists,
    free_space,
    full_path,
    is_directory,
    list_directory,
    rename,
)
from jaxtrain.storage.work_folder import work_beside
from jaxtrain.trackers.progress import Progress, progress


def run(options: Options) -> int:
    """Reads the data of a config, writes them to a folder that holds all of them or is not there; returns 0.

    The folder is written under another name beside it, which a kill leaves behind and the next call writes anew.
    """
    assert options.output is not None
    output = Path(options.output)
    if exists(output) and (not is_directory(output) or list_directory(output)):
        raise UsageError("--output", Words(f"{output}, which is there already"), "a folder that is new or empty")
    config, _ = options.resolve()
    source = as_source(read(config["data"]), config["data"]["name"], as_preparable)
    with work_beside(output) as arrays:
        counts = _write(source, arrays, options)
        rename(arrays, output)
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    again = _again(options, output)
    options.show([f"wrote {output}: {told} examples", "next:", f"  {command()} {join(again)}"])
    options.document.show({"output": options.output, "examples": counts, "arguments": again})
    return 0


def _write(source: Source, folder: Path, options: Options) -> dict[str, int]:
    """Says what disk the data take, and writes them."""
    sizes = {name: known_bytes(split) for name, split in source.splits.items()}
    needed = sum(size or 0 for size in sizes.values())
    demand_space("--output", folder, needed)
    counts = [known_examples(split) for split in source.splits.values()]
    total = None if None in counts else sum(count or 0 for count in counts)
    with progress(total, 0, quiet=options.quiet, description=str(options.output), unit="example") as bar:
        bar.say(_disk_line(source, needed, free_space(folder)))
        return write_arrays(source, folder, _Count(bar).add)


def _disk_line(source: Source, needed: int, free: int) -> str:
    """Says how many bytes will be written: of examples whose number is not known before, those of each."""
    unknown = {
        name: split.example_bytes
        for name, split in source.splits.items()
        if isinstance(split, InOrder) and split.count is None
    }
    told = [size_in_words(needed)] if needed or not unknown else []
    told += [f"{size:,} bytes for each example of {name}" for name, size in unknown.items()]
    return f"writing {' and '.join(told)} to the disk, which has {size_in_words(free)} free"


class _Count:
    """Counts examples for a progress bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count
        self._bar.update(self._count)


def _again(options: Options, output: Path) -> list[str]:
    """Returns the arguments that train the config on what was written: settings stay, knobs of the source do not."""
    settings = {f"data.{knob}" for knob in knobs_of(Settings)} - {"data.path"}
    kept = {key: value for key, value in options.overrides.items() if key in settings or not key.startswith("data.")}
    arrays = {"data.name": "arrays", "data.file": full_path(str(output))}
    return [f"--config={options.config}", *(f"--config.{key}={value}" for key, value in (kept | arrays).items())]
