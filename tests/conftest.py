"""What every test runs under: four CPU devices, strict types and shapes, and the data beside the clone."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# JAX_PLATFORMS=cuda runs the tests on a GPU instead, where those that need four devices cannot pass.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
# Set here and not in XLA_FLAGS, so that a command started by a test sees the machine as a user's command does.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MANY_MAPS = 30_000

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
if SHARED_DATA.is_dir():
    os.environ.setdefault("JAXTRAIN_DATA", str(SHARED_DATA.resolve()))


@pytest.fixture(autouse=True, scope="module")
def programs_are_dropped() -> Iterator[None]:
    """Drops all programs after a module that leaves many maps of memory behind.

    Each compiled program holds several, of which Linux grants a process 65,530: a worker that kept all of them would
    die in the middle of the suite. Until then modules share the programs that they have in common.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
