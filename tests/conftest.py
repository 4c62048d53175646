"""What every test runs under: four CPU devices, strict types and shapes, and the parts that the machine has."""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import costs
import forked_commands
import jax
import optional_parts
import programs
import pytest

# JAX_PLATFORMS=cuda runs the tests on a GPU instead, where those that need four devices cannot pass.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
# Set here and not in XLA_FLAGS, so that a command started by a test sees the machine as a user's command does.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MANY_MAPS = 30_000
MEMORY = Path("/dev/shm")  # Linux's file system in memory
ROOM = 4 * 2**30
CACHE = pytest.StashKey[Path | None]()

_skipped: list[str] = []
_costs = costs.Ledger()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--alone", action="store_true", help="drop programs before each test: count what it needs alone")
    parser.addoption("--costs", metavar="FILE", help="write CPU seconds and compilations of each test to a file")
    parser.addoption("--bare", action="store_true", help="treat data, browser, database and peers as missing")


def pytest_configure(config: pytest.Config) -> None:
    _keep_temporary_files_in_memory()
    if config.getoption("--bare"):
        os.environ.pop("JAXTRAIN_DATA", None)
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="jaxtrain-settings-")  # not the user's own key
    worker = getattr(config, "workerinput", {}).get("workerid")
    config.stash[CACHE] = None if worker else programs.make_cache()  # workers inherit its name
    if worker or not config.getoption("numprocesses", None):
        programs.use_cache(worker or "main")


def _keep_temporary_files_in_memory() -> None:
    """Spares tiny runs their waits for a disk, which are longer than the runs; a TMPDIR that is given is kept."""
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what -m names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    costs.mark_slow(items)
    programs.sort_by_options(items)


def pytest_collection_finish() -> None:
    programs.collect_seldom()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    programs.compile_as(item)
    if item.config.getoption("--alone"):
        jax.clear_caches()
    with costs.measured():
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    optional_parts.demand(item, bare=bool(item.config.getoption("--bare")))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    with costs.shared() if fixturedef.scope != "function" else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    costs.settle(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _costs.add(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--costs")
    if path and not hasattr(session.config, "workerinput"):
        _costs.write(Path(path))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _skipped.extend(str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Says last of all what was skipped: pytest's own summary counts it, and does not say what would enable it."""
    forked_commands.end()
    programs.remove_cache(config.stash[CACHE])
    shutil.rmtree(os.environ["XDG_CONFIG_HOME"], ignore_errors=True)
    if config.pluginmanager.has_plugin("terminalreporter") and not hasattr(config, "workerinput"):
        print(optional_parts.summary(_skipped))


@pytest.fixture(autouse=True, scope="session")
def checks_of_exports_are_forks() -> Iterator[None]:
    """Each export of the tests is checked in another process; that of the README's command starts from nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxtrain.export.check.subprocess", SimpleNamespace(run=forked_commands.run_here))
        yield


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
