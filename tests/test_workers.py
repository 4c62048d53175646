"""Threads and processes that read examples: one digest whatever their number, and none that outlives its run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from python_examples import Drawings
from tiny_runs import PATIENCE, ROOT, outcome, tiny

from jaxtrain.data.source import Source, as_source
from jaxtrain.data.workers import Workers
from jaxtrain.errors import ConfigError, DataError
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate

SCRIPT = """
import sys
from pathlib import Path
from python_examples import Drawings
from jaxtrain.config.resolve import resolve_config
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, as_source

if __name__ == "__main__":
    source = as_source(Source({"train": Drawings(Path(sys.argv[1]))}), "mine")
    load_dataset(source, Settings(processes=True, workers=2))
    print("read", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "readers"
    folder.mkdir()
    return folder


def run(folder, workdir, **knobs):
    changes = {"data.name": "memory", "data.feed": "stream"} | {f"data.{name}": value for name, value in knobs.items()}
    train_and_evaluate(tiny(changes), workdir, data=Source({"train": Drawings(folder)}), quiet=True)
    return outcome(workdir)


def readers(folder):
    """Returns the numbers of the processes that read examples, but for this one."""
    return {int(path.name) for path in folder.iterdir()} - {os.getpid()}


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_threads_and_processes_of_any_number_give_one_run(folder, tmp_path):
    whole = run(folder, tmp_path / "none", workers=0)
    for threads in (1, 2, 4):
        assert run(folder, tmp_path / f"{threads} threads", workers=threads) == whole
    assert not readers(folder)
    assert run(folder, tmp_path / "processes", workers=2, processes=True) == whole
    assert readers(folder)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_other_numbers_of_processes_give_the_same_run(count, folder, tmp_path):
    whole = run(folder, tmp_path / "none", workers=0)
    assert run(folder, tmp_path / "processes", workers=count, processes=True) == whole


def test_a_killed_worker_ends_the_run_in_one_line(folder):
    source = as_source(Source({"train": Drawings(folder, fatal=700)}), "mine")
    config = tiny({"data.name": "memory", "data.workers": 1, "data.processes": True})
    expected = r"a worker process that has ended, killed or out of memory; expected 1 that read examples"
    with pytest.raises(DataError, match=expected) as caught:
        build(config, data=source)
    assert "\n" not in str(caught.value)


def test_an_example_that_a_worker_cannot_read_is_named_by_its_row(folder):
    source = as_source(Source({"train": Drawings(folder, bad=3)}), "mine")
    config = tiny({"data.name": "memory", "data.workers": 1, "data.processes": True})
    with pytest.raises(DataError, match=r"row 3: got an example that cannot be read \(ValueError: no drawing\)"):
        build(config, data=source)


def test_no_worker_outlives_a_run_that_is_killed(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    started = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "read\n"
        workers = readers(folder) - {started.pid}
        assert workers
        assert all(map(is_alive, workers))
        started.send_signal(signal.SIGKILL)
        started.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while any(map(is_alive, workers)):
            assert time.monotonic() < end, workers
            time.sleep(0.05)
    finally:
        started.kill()
        started.communicate()


def test_what_processes_cannot_be_given_is_one_line(folder):
    with pytest.raises(
        DataError, match=r"an object with parts that stay in this process .*; expected one that pickle copies"
    ):
        Workers(lambda rows: (rows,), 1, "mine")
    config = tiny({"data.name": "memory", "data.workers": 0, "data.processes": True})
    with pytest.raises(ConfigError, match=r"data.workers: got 0; expected at least 1 with data.processes"):
        build(config, data=Source({"train": Drawings(folder)}))
    with pytest.raises(ConfigError, match=r"data.processes: got True; expected False for data that no Python object"):
        build(tiny({"data.processes": True}))


def test_the_data_package_imports_no_jax():
    code = (
        "import importlib, pkgutil, sys, jaxtrain.data as data\n"
        "for module in pkgutil.walk_packages(data.__path__, 'jaxtrain.data.'):\n"
        "    importlib.import_module(module.name)\n"
        "print([name for name in ('jax', 'flax', 'optax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", done.stderr
