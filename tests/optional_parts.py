"""Parts that some tests need and a machine may lack: real data, a browser, servers, a disk to fill.

A test names them with `@pytest.mark.needs("browser")`. Where one is missing it is skipped, and the suite's last line
says how to enable it; CI fails instead, except for the data, which nobody can install.
"""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

PEERS = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"
"""The interpreter of an environment with the packages of peers.txt."""


class Part(NamedTuple):
    """A part of the machine: its name in a sentence, how to get it, and whether it is there."""

    name: str
    remedy: str
    is_there: Callable[[], bool]
    installable: bool = True


def postgres_program(name: str) -> str | None:
    """Returns the path of one of PostgreSQL's programs, of the newest version that is installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(installed[-1]) if installed else shutil.which(name)


def _has_data() -> bool:
    return Path(os.environ.get("JAXTRAIN_DATA", "data"), "fashion_mnist").is_dir()


PARTS = {
    "data": Part("real data", "set JAXTRAIN_DATA to a folder that holds fashion_mnist/", _has_data, installable=False),
    "browser": Part("a browser", "apt-get install chromium", lambda: shutil.which("chromium") is not None),
    "database": Part("a database", "apt-get install postgresql", lambda: postgres_program("initdb") is not None),
    "peers": Part("MLflow, TensorBoard and a client of the inference protocol", "make peers", PEERS.is_file),
    **{
        name: Part(f"the package {name}", f"pip install {name}", lambda name=name: bool(find_spec(name)), False)
        for name in ("datasets", "equinox", "grain", "torch")
    },
    "root": Part("root", "run as root, to mount a small disk", lambda: os.geteuid() == 0, installable=False),
}
OPTIONAL = ("data", "browser", "database", "peers")  # what --bare hides


def reason(name: str) -> str:
    """Returns the reason with which a test is skipped that needs a part."""
    return f"needs {PARTS[name].name}: {PARTS[name].remedy}"


def demand(item: pytest.Item, *, bare: bool) -> None:
    """Skips a test whose parts are missing, or are treated so; under CI a part that can be installed must be there."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            hidden = bare and name in OPTIONAL
            if hidden or not PARTS[name].is_there():
                demanded = not hidden and PARTS[name].installable and os.environ.get("CI")
                (pytest.fail if demanded else pytest.skip)(reason(name))


def summary(reasons: list[str]) -> str:
    """Returns the suite's last line: the number of tests skipped for each part, and what enables them."""
    counts = {name: sum(reason(name) in text for text in reasons) for name in PARTS}
    told = [f"{count} for {PARTS[name].name} ({PARTS[name].remedy})" for name, count in counts.items() if count]
    other = len(reasons) - sum(counts.values())
    told += [f"{other} for the reasons above"] if other else []
    noun = "test" if len(reasons) == 1 else "tests"
    return f"skipped {len(reasons)} {noun}: {', '.join(told)}" if told else "skipped no test"
