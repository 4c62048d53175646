"""How the tests compile: quickly where neither bits nor speed matter, and once for all processes of a run.

XLA's backend takes most of the time of the suite. Unoptimised programs compile in a third of the time. A module that
compares bits of programs that differ, or counts what the compiler makes of them, is marked `optimized` and compiles
as a user does.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
from jax._src import compiler

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
"""The same for the commands that a test starts, in XLA_FLAGS."""

CACHE = "JAX_COMPILATION_CACHE_DIR"
ALL_PROGRAMS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}

_as_users_do = compiler.get_compile_options
_quick = False


def _quick_options(*arguments: Any, **options: Any) -> Any:
    given = {**QUICK, **(options.pop("env_options_overrides", None) or {})}
    return _as_users_do(*arguments, env_options_overrides=given, **options)


def compile_quickly(quick: bool) -> None:
    """Chooses how this process compiles; what was compiled otherwise is dropped."""
    global _quick
    if quick != _quick:
        jax.clear_caches()
        compiler.get_compile_options = _quick_options if quick else _as_users_do
        _quick = quick


def flags() -> str:
    """Returns XLA_FLAGS with which a command compiles as this process does."""
    return FLAGS if _quick else ""


def share_cache() -> str | None:
    """Shares compiled programs with the processes that this one starts; returns the folder to be removed, if any.

    A folder that JAX_COMPILATION_CACHE_DIR names is kept: the next run finds its programs there.
    """
    made = None if os.environ.get(CACHE) else tempfile.mkdtemp(prefix="jaxtrain-programs-")
    os.environ[CACHE] = made or os.environ[CACHE]
    os.environ.update(ALL_PROGRAMS)
    jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return made


def remove_cache(folder: str | None) -> None:
    """Removes the folder that `share_cache` made."""
    if folder:
        shutil.rmtree(Path(folder), ignore_errors=True)
