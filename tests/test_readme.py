"""What the README shows runs as it stands there: the tour in Python, and every command that one machine can run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from tiny_runs import PATIENCE, on_devices

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(
    r"(?P<comment><!-- [^\n]* -->\n)?```(?P<language>\w+)(?: file=(?P<file>\S+))?\n(?P<code>.*?)```", re.DOTALL
)
BLOCKS = list(BLOCK.finditer(README))
SHORTER = [
    ("digits.py", '"40 epochs"', '"10 epochs"'),
    ("digits_search.py", '"20 epochs"', '"5 epochs"'),
    ("digits_search.py", '"trials": 64', '"trials": 8'),
]
"""Runs as long as a reader's would take most of the suite's time, and show nothing more."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: the configs, cut short, and the files that the README tells to write."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name, whole, short in SHORTER:
        path = folder / "configs" / name
        assert whole in path.read_text()
        path.write_text(path.read_text().replace(whole, short))
    for block in BLOCKS:
        if block["file"]:
            (folder / block["file"]).write_text(block["code"])
    return folder


def run(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder, with the package of this checkout and the Python of this test."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "XLA_FLAGS": programs.flags(), **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.slow
def test_every_command_runs_in_order(folder: Path) -> None:
    """Shell blocks without a comment that says why not, one after the other, as a reader would type them."""
    blocks = [block["code"] for block in BLOCKS if block["language"] == "sh" and not block["comment"]]
    commands = [line for code in blocks for line in code.splitlines() if line.strip()]
    assert len(commands) >= 10
    outputs = {line: run(folder, ["bash", "-c", line]).stdout for line in commands}
    first = outputs["python -m jaxtrain.main --config=configs/digits.py"]
    assert "done at step" in first
    assert (folder / "runs" / "second" / "result.json").exists()


@pytest.mark.slow
def test_the_tour_in_python_runs_as_one_program(folder: Path) -> None:
    """Python blocks that are not files, joined: the loop, vmap over rates, pmap on four devices, an own step."""
    blocks = [block["code"] for block in BLOCKS if block["language"] == "python" and not block["file"]]
    (folder / "tour.py").write_text("\n".join(blocks))
    printed = run(folder, [sys.executable, "tour.py"], **on_devices(4)).stdout.splitlines()
    assert float(printed[0]) > 0.85, "the notebook's run learnt"
    assert float(printed[1].split()[1]) > 0.9, "the loop of one's own learnt"
    assert float(printed[-1]) > 0.8, "the step of one's own learnt in the command's loop"


def test_the_config_shown_is_accepted(folder: Path) -> None:
    """The first Python block is a config file."""
    from jaxtrain import load_config

    block = next(block for block in BLOCKS if block["language"] == "python")
    (folder / "shown.py").write_text(block["code"])
    assert load_config(folder / "shown.py")["schedule"]["optimizer"]["momentum"]["peak"] == 0.9
