"""Finds the directories of runs below the folders that a user names."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxtrain.errors import UsageError, Words
from jaxtrain.files import is_directory, list_directory, real_path

LEVELS = 4
"""Levels below a folder in which runs are looked for."""

MARKS = ("run.json", "config.json", "result.json", "metrics.jsonl", "checkpoints")
"""Files that the directory of a run holds from its first checkpoint on."""

INNER = frozenset({"search", "lr_range", "export", "plots", "checkpoints"})
"""Folders in the directory of a run, which hold no runs."""


def find_directories(folders: Iterable[str | Path]) -> list[Path]:
    """Returns the directories of runs and of searches among these folders and below them, each once, sorted by folder.

    Raises UsageError for a folder that is none, or in which there is neither.
    """
    found: dict[Path, Path] = {}  # without links -> as it was named
    for folder in map(Path, folders):
        if not is_directory(folder):
            got = Words("a path that leads to no directory")
            raise UsageError(str(folder), got, "the directory of a run, or a folder of runs")
        below = list(_below(folder, LEVELS))
        if not below:
            got = Words("a folder without a run")
            hint = "Train a run in it, or name another folder"
            raise UsageError(str(folder), got, "the directory of a run, or a folder of runs", hint)
        for place in below:
            found.setdefault(real_path(place), place)
    return list(found.values())


def is_search(folder: Path) -> bool:
    """Tells whether a directory holds a search and no run."""
    return (folder.name == "search" or is_directory(folder / "search")) and not _is_run(folder)


def _is_run(folder: Path) -> bool:
    """Tells whether a run wrote a directory; the folder of a search has a run.json and a ledger of its trials."""
    names = set(list_directory(folder))
    return not names.isdisjoint(MARKS) and "trials.jsonl" not in names and "worker-0" not in names


def _below(folder: Path, levels: int) -> Iterator[Path]:
    if _is_run(folder) or is_search(folder):
        yield folder
    elif levels:
        for name in list_directory(folder):
            inner = folder / name
            if name not in INNER and not name.startswith(".") and is_directory(inner):
                yield from _below(inner, levels - 1)


def demand_run(folder: Path) -> None:
    """Raises UsageError unless a directory is that of a run."""
    if is_search(folder):
        own = folder if folder.name == "search" else folder / "search"
        hint = f"Open {own}/report.html, or train {own}/best_config.json"
        raise UsageError(str(folder), Words("a search, whose trials are not runs"), "the directory of a run", hint)
    if not is_directory(folder) or not _is_run(folder):
        raise UsageError(str(folder), Words("a directory without a run"), "the directory of a run")
