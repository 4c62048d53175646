"""How the tests compile: quickly where neither bits nor speed matter, and once in all commands that a worker starts.

XLA's backend took most of the time of the suite. Without LLVM's optimisation and the fusion emitters it takes a third.
Tests that compare the bits of programs that differ keep some of LLVM's, by the mark `bits`: without any the lanes of a
program round otherwise than a run alone. What must hold of a user's own programs is marked `optimized`.
"""

import functools
import gc
import itertools
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import pytest
from jax._src import compilation_cache, compiler
from jax._src.interpreters import mlir
from jax._src.lru_cache import LRUCache

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,  # one module of LLVM for a program takes a quarter less than 32
}
BITS = {**QUICK, "xla_backend_optimization_level": 1}
# Without fused multiply-adds, which round once for two operations, quick programs have the same bits, too.
UNFUSED = {**QUICK, "xla_cpu_max_isa": "AVX"} if platform.machine() == "x86_64" else BITS

CACHE = "JAX_COMPILATION_CACHE_DIR"
OF_A_RUN = "jaxtrain-programs-"
ALL_PROGRAMS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}

_as_users_do = compiler.get_compile_options
_options: dict[str, Any] = {}


def _with_options(*arguments: Any, **options: Any) -> Any:
    given = {**_options, **(options.pop("env_options_overrides", None) or {})}
    return _as_users_do(*arguments, env_options_overrides=given, **options)


compiler.get_compile_options = _with_options

_new_context = mlir.make_ir_context
LOWERINGS_OF_A_CONTEXT = 200
_lowered = itertools.count()


@functools.lru_cache(maxsize=1)
def _context(_: int) -> Any:
    return _new_context()


def _shared_context() -> Any:
    """Returns the MLIR context of so many programs: to make one takes as long as to lower a small program.

    It keeps the constants of its programs, so another takes its place from time to time.
    """
    return _context(next(_lowered) // LOWERINGS_OF_A_CONTEXT)


mlir.make_ir_context = _shared_context


class WholeEntries(LRUCache):
    """Keeps the programs of all workers of a run, and of their forks, in one folder, where an entry appears whole.

    A process that starts from nothing has JAX's own cache, which writes an entry in place: so it has the folder of the
    worker that starts it.
    """

    def __init__(self, path: str, **options: Any) -> None:
        own = Path(path)
        super().__init__(str(own.with_name("shared") if own.parent.name.startswith(OF_A_RUN) else own), **options)

    def put(self, key: str, value: bytes) -> None:
        """Writes an entry beside its place, and moves it there."""
        entry = self.path / f"{key}-cache"
        if not entry.exists():
            unfinished = self.path / f"{key}.{os.getpid()}"
            unfinished.write_bytes(value)
            unfinished.rename(entry)


compilation_cache.LRUCache = WholeEntries  # pyright: ignore[reportPrivateImportUsage]
# To compress a program takes as long as to lower it, and the folder lies in memory for a few minutes only.
compilation_cache.compress_executable = bytes
compilation_cache.decompress_executable = bytes


WAYS = {"bits": BITS, "unfused": UNFUSED, "optimized": {}}
EVERY_WAY = [*WAYS.values(), QUICK]


def _options_of(item: pytest.Item) -> dict[str, Any]:
    """Returns the options of the mark that is closest to the test: its own before that of its file."""
    return next((WAYS[mark.name] for mark in item.iter_markers() if mark.name in WAYS), QUICK)


def sort_by_options(items: list[pytest.Item]) -> None:
    """Puts the tests of a file that compile alike behind each other, those that compare bits first.

    So what a fixture of the file trains has the bits that its tests compare.
    """
    files = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (files[item.path], EVERY_WAY.index(_options_of(item))))


def compile_as(item: pytest.Item) -> None:
    """Chooses how this process compiles by the marks of a test, and keeps what is compiled otherwise apart.

    The version of a profile is a part of the key of every program; without a profile it changes nothing else.
    """
    global _options
    _options = _options_of(item)
    jax.config.update("jax_xla_profile_version", 1 + EVERY_WAY.index(_options))


def flags() -> str:
    """Returns XLA_FLAGS with which a command compiles as this process does."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in _options.items())


def collect_seldom() -> None:
    """Spares the garbage collector what lives until now, and most of its passes: an eighth of the CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def make_cache() -> Path | None:
    """Makes a folder for the compiled programs of a run; returns it, to be removed, or None where one was given.

    A folder that JAX_COMPILATION_CACHE_DIR names is kept: the next run finds its programs there.
    """
    if os.environ.get(CACHE):
        return None
    os.environ[CACHE] = tempfile.mkdtemp(prefix=OF_A_RUN)
    return Path(os.environ[CACHE])


def use_cache(process: str) -> None:
    """Keeps the programs of the commands that this process starts from nothing in a folder of its own in the run's."""
    os.environ[CACHE] = str(Path(os.environ[CACHE], process))
    os.environ.update(ALL_PROGRAMS)
    jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def remove_cache(folder: Path | None) -> None:
    """Removes the folder that `make_cache` made."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
