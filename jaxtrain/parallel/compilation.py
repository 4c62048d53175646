"""Compilation: the persistent cache, and a count of what the backend compiled and how long that took."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclass
class Compilations:
    """Programs that the backend compiled, or fetched from the persistent cache, and the seconds they took."""

    count: int = 0
    seconds: float = 0.0


@contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts the compilations inside a `with` block."""
    found = Compilations()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            found.count += 1
            found.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def use_persistent_cache() -> None:
    """Keeps compiled programs in the user's cache folder, private to the user, unless JAX was told of another."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.values["jax_compilation_cache_dir"]:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxtrain" / "xla"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
    except OSError:
        return  # a home that cannot be written costs compile time, not the run
    jax.config.update("jax_compilation_cache_dir", str(root))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
