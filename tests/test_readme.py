"""README and guides: their tour in Python and every command that one machine can run work as they stand there."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from tiny_runs import PATIENCE, on_devices

COMMAND = "python -m jaxtrain.main "
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDES = (
    "configs",
    "data",
    "looking_at_runs",
    "search",
    "own_code",
    "in_python",
    "debugging",
    "using_a_model",
    "devices",
)
"""The pages of docs/guide, in the order in which a reader finds them; they use the runs of the README."""
PAGES = [README, *((ROOT / "docs" / "guide" / f"{name}.md").read_text() for name in GUIDES)]
BLOCK = re.compile(
    r"(?P<comment><!-- [^\n]* -->\n)?```(?P<language>\w+)(?: file=(?P<file>\S+))?\n(?P<code>.*?)```", re.DOTALL
)
BLOCKS = list(BLOCK.finditer("\n".join(PAGES)))
SHORTER = [
    ("configs/digits.py", '"40 epochs"', '"10 epochs"'),
    ("configs/digits.py", "(128, 128)", "(64, 64)"),
    (
        "configs/digits.py",
        "    return config\n",
        "    config.lr_range.rates = 12\n    config.lr_range.seeds = 1\n"
        "    config.track.pictures = config.track.histograms = None\n    return config\n",
    ),
    ("configs/digits_search.py", '"20 epochs"', '"5 epochs"'),
    ("configs/digits_search.py", '"trials": 64', '"trials": 8'),
    ("configs/digits_search.py", "(128, 128)", "(32, 32)"),
    ("configs/python_source_gpt.py", '"800 steps"', '"8 steps"'),
    ("configs/python_source_gpt.py", '"layers": 4, "width": 128', '"layers": 1, "width": 16'),
    ("configs/python_source_gpt.py", '_fraction": 0.02', '_fraction": 0.0005'),
    ("my_search.py", '"10 epochs"', '"2 epochs"'),
    ("my_search.py", '"trials": 24', '"trials": 3'),
    ("my_search.py", "(128, 128)", "(32, 32)"),
]
"""Runs as long as a reader's would take most of the suite's time, and show nothing more."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: the configs and the files that the README tells to write, cut short."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for block in BLOCKS:
        if block["file"]:
            (folder / block["file"]).write_text(block["code"])
    for name, whole, short in SHORTER:
        path = folder / name
        assert whole in path.read_text()
        path.write_text(path.read_text().replace(whole, short))
    return folder


def run(
    folder: Path, command: list[str], given: str = "", patience: float = PATIENCE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder, with the package of this checkout, the Python of this test and a standard input."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "XLA_FLAGS": programs.flags(), **environment}
    done = subprocess.run(
        command, cwd=folder, env=variables, input=given, capture_output=True, text=True, timeout=patience
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


IN_TURN = """
import contextlib, gc, io, json, shlex, sys, traceback
from jaxtrain.main import main

gc.set_threshold(20_000, 20, 50)  # as in all tests
for line in sys.stdin.read().splitlines():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = main(shlex.split(line, comments=True))
        except (Exception, SystemExit):
            code = traceback.format_exc()
    print(json.dumps({"code": code, "printed": printed.getvalue()}), flush=True)
"""
"""Runs many command lines in one process, which imports once and keeps its programs."""


def run_in_turn(folder: Path, lines: list[str]) -> dict[str, str]:
    """Runs lines of `python -m jaxtrain.main` in one process in the folder; returns line -> what it printed."""
    words = [line.removeprefix(COMMAND) for line in lines]
    ran = run(folder, [sys.executable, "-c", IN_TURN], "\n".join(words), patience=PATIENCE * len(lines))
    done = [json.loads(row) for row in ran.stdout.splitlines()]
    failed = {line: row for line, row in zip(lines, done, strict=True) if row["code"] != 0}
    assert not failed, "\n".join(f"{line}\n{row['code']}\n{row['printed']}" for line, row in failed.items())
    return {line: row["printed"] for line, row in zip(lines, done, strict=True)}


@pytest.mark.slow
def test_every_command_runs_in_order(folder: Path) -> None:
    """Shell blocks without a comment that says why not, one after the other, as a reader would type them.

    The first, and what is not this program's command line alone, such as a variable before it, is typed into a shell.
    """
    blocks = [block["code"] for block in BLOCKS if block["language"] == "sh" and not block["comment"]]
    commands = list(dict.fromkeys(line for code in blocks for line in code.splitlines() if line.strip()))
    typed = [line for line in commands if line == commands[0] or not line.startswith(COMMAND)]
    assert len(commands) >= 10
    outputs: dict[str, str] = {}
    for is_typed, lines in itertools.groupby(commands, key=lambda line: line in typed):
        together = list(lines)
        own = {line: run(folder, ["bash", "-c", line]).stdout for line in together} if is_typed else {}
        outputs |= own or run_in_turn(folder, together)
    assert "done at step" in outputs[f"{COMMAND}--config=configs/digits.py"]
    assert (folder / "runs" / "second" / "result.json").exists()
    counts = re.search(r"(\d+) warning, (\d+) fault", outputs[f"{COMMAND}check --config=configs/digits.py"])
    assert counts
    assert int(counts[1]) <= 1
    assert int(counts[2]) == 0


@pytest.mark.slow
def test_three_commands_lead_to_a_served_prediction(folder: Path) -> None:
    """The commands of the section on serving as they stand there, but for the port; then its request."""
    section = README.partition("### Serve it")[2]
    commands, request = (block["code"] for block in itertools.islice(BLOCK.finditer(section), 2))
    train, export, serve = commands.splitlines()
    run_in_turn(folder, [train, export])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    server = subprocess.Popen(
        shlex.split(f"{serve} --port=0"), cwd=folder, env=variables, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        address = server.stdout.readline().split()[-1]
        assert "http://127.0.0.1:8000/" in request
        answered = run(folder, ["bash", "-c", request.replace("http://127.0.0.1:8000/", address)]).stdout
        chosen, probabilities = json.loads(answered)["outputs"]
        assert chosen["data"] == [0]
        assert probabilities["data"][0] > 0.5
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.slow
def test_the_tour_in_python_runs_as_one_program(folder: Path) -> None:
    """Python blocks that are not files, joined: the loop, vmap over rates, pmap on four devices, an own step."""
    blocks = [block["code"] for block in BLOCKS if block["language"] == "python" and not block["file"]]
    (folder / "tour.py").write_text("\n".join(blocks))
    printed = run(folder, [sys.executable, "tour.py"], XLA_FLAGS=on_devices(4)["XLA_FLAGS"]).stdout.splitlines()
    notebook, in_memory, _, own_step = (float(line) for line in printed if re.fullmatch(r"[\d.]+", line))
    assert notebook > 0.85
    assert in_memory > 0.8
    assert own_step > 0.8
    assert float(printed[1].split()[1]) > 0.9, "the loop of one's own learnt"


def test_every_guide_is_read() -> None:
    """A page of docs/guide that is not among `GUIDES` would show commands that nothing runs."""
    assert {path.stem for path in (ROOT / "docs" / "guide").glob("*.md")} == set(GUIDES)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/guide/{name}.md" for name in GUIDES)])
def test_links_lead_somewhere(page: str) -> None:
    """Each link within the project names a file, and a heading of it where it names one."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / page).read_text()):
        file, _, heading = target.partition("#")
        linked = (ROOT / page).parent / file
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}, target


def test_the_config_shown_is_accepted(folder: Path) -> None:
    """The first Python block is a config file."""
    from jaxtrain import load_config

    block = next(block for block in BLOCKS if block["language"] == "python")
    (folder / "shown.py").write_text(block["code"])
    assert load_config(folder / "shown.py")["schedule"]["optimizer"]["momentum"]["peak"] == 0.9
