"""Compilation: the persistent cache, and a count of compilations with their duration."""

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxtrain.errors import StorageError
from jaxtrain.files import list_directory, make_directory, remove, user_folder

COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclass
class Compilations:
    """Number of programs compiled, or loaded from the persistent cache, and the seconds that took."""

    count: int = 0
    seconds: float = 0.0


@contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts the compilations inside a `with` block."""
    compilations = Compilations()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            compilations.count += 1
            compilations.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@contextmanager
def compiling_beside(lowered: Any) -> Iterator[None]:
    """Compiles a lowered program on a thread while the block compiles another, since one leaves cores idle.

    Programs are lowered one after another: what a thread lowers beside another has a new key in the persistent cache
    each time. An error is dropped, since the call that needs the program raises it again.
    """

    def compile_quietly() -> None:
        with suppress(Exception):
            lowered.compile()

    thread = threading.Thread(target=compile_quietly, name="compilation")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def use_persistent_cache() -> None:
    """Caches compiled programs in a private folder of the user, unless JAX is configured with another one."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        root = user_folder("XDG_CACHE_HOME", ".cache") / "xla"
        make_directory(root, private=True)
    except StorageError:
        return  # no home, or an unwritable one, only costs compile time
    jax.config.update("jax_compilation_cache_dir", str(root))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not _is_of_cache(str(message), root):
            shown(message, category, *place, **more)

    warnings.showwarning = show


def _is_of_cache(warning: str, root: Path) -> bool:
    """Tells whether JAX warns of an entry that it could not read or write, and removes the entries of that program.

    A kill or a full disk leaves a torn entry, which JAX would never replace, but warn of in every later process.
    """
    match = re.match(r"Error (?:reading|writing) persistent compilation cache entry for '(.+?)'", warning)
    if match is None:
        return False
    with suppress(StorageError):
        for name in list_directory(root):
            if name.startswith(f"{match[1]}-"):
                remove(root / name)
    return True
