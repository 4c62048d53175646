"""Compilation: the persistent cache, and a count of compilations with their duration."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxtrain.errors import StorageError
from jaxtrain.files import make_directory

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


def use_persistent_cache() -> None:
    """Caches compiled programs in a private folder of the user, unless JAX is configured with another one."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxtrain" / "xla"
        make_directory(root, private=True)
    except (StorageError, RuntimeError):
        return  # no home, or an unwritable one, only costs compile time
    jax.config.update("jax_compilation_cache_dir", str(root))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
