"""A folder beside an output, in which one process writes what takes the name of the output when it is whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxtrain.errors import UsageError
from jaxtrain.files import make_directory, remove_empty_directory, remove_tree
from jaxtrain.storage.locks import run_lock


@contextmanager
def work_beside(output: Path) -> Iterator[Path]:
    """Makes an empty folder beside an output for a block, of this process alone, and removes it.

    A kill leaves it behind, and the next call empties it. Raises UsageError for an output that is named by no name of
    its own, such as ".", and while another process writes the same output.
    """
    if output.name in ("", ".."):
        hint = "Name a folder or a file in it"
        raise UsageError("--output", str(output), "a path that ends in a name", hint)
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        with run_lock(unfinished):
            work = unfinished / "work"
            remove_tree(work)  # of a call that was killed
            make_directory(work)
            try:
                yield work
            finally:
                remove_tree(work)
    finally:
        remove_empty_directory(unfinished)
