"""What is needed to set up and to ship: complete locks, no traces of one machine, and refusals in one line."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

HASHED = re.compile(r"[\w.-]+==[\w.]+(?: ; .+?)?(?:\s+--hash=sha256:[0-9a-f]{64})+")
# Written such that this file does not match itself.
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|--(?:extra-)?index-u[r]l|--find-l[i]nks|/simple/(?=\s|$)")
MACHINE_PATH = re.compile(r"(?<![\w.$})~-])/(?:work|root|home|Users)(?=[/\s\"'`]|$)", re.MULTILINE)


def entries(lock: str) -> list[str]:
    """Returns a lock's requirements with their hashes, one string each, comments left out."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [entry.strip() for entry in "\n".join(lines).replace("\\\n", " ").splitlines() if entry.strip()]


def pins(lock: str) -> dict[str, str]:
    """Returns the version that a lock holds for each package."""
    found = [re.match(r"([\w.-]+)==(\S+)", entry) for entry in entries(lock)]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def project_files() -> list[Path]:
    """Returns the files that are, or would be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs make with the project's Makefile in a folder of its own, as if no other make had called it."""
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    for lock in LOCKS:
        (folder / lock).touch()
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def python_where(folder: Path, statement: str) -> Path:
    """Writes a Python in which a statement runs before the code it is given."""
    script = folder / "python3.x"
    script.write_text(f'#!/bin/sh\nexec \'{sys.executable}\' -c "import sys; {statement}; exec(sys.argv[2])" "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_one_version_and_hashes(lock: str):
    assert len(pins(lock)) == len(entries(lock)) > 20
    for entry in entries(lock):
        assert HASHED.fullmatch(entry), f"not one version with hashes: {entry[:80]}"


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_place(lock: str):
    found = re.findall(r"^.*(?:://|@|(?:^|\s)[/~.]+/|^-).*$", (ROOT / lock).read_text(), re.MULTILINE)
    assert not found


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]),
    ],
)
def test_locks_satisfy_the_project(lock: str, requirements: list[str]):
    locked = pins(lock)
    for requirement in map(Requirement, requirements):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is missing from {lock}; run: make lock"
        assert version in requirement.specifier, f"{lock} holds {requirement.name} {version}; run: make lock"


def test_both_locks_agree():
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_locks_bring_no_gpu_and_no_second_framework():
    unwanted = re.compile(r"torch|nvidia|cuda|libtpu|tensorflow")
    assert [name for lock in LOCKS for name in pins(lock) if unwanted.search(name)] == []


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "jaxtrain" / "py.typed").is_file()


def test_files_name_no_registry_and_no_folder_of_one_machine():
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for line in content.decode().splitlines():
            if REGISTRY.search(line) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("sys.version_info = (3, 9, 18)", ["3.9.18", "3.11", "make train PYTHON="]),
        ("sys.modules['ensurepip'] = None", ["ensurepip", "python3-venv", "make train PYTHON="]),
        ("sys.exit(1)", ["python3.x", "3.11", "make train PYTHON="]),
    ],
    ids=["old", "no ensurepip", "does not run"],
)
def test_make_refuses_an_unfit_python_in_one_line(tmp_path: Path, statement: str, said: list[str]):
    result = make(tmp_path, "train", f"PYTHON={python_where(tmp_path, statement)}")
    assert result.returncode != 0
    assert len((result.stdout + result.stderr).splitlines()) == 1
    assert [word for word in said if word not in result.stderr] == []
    assert not (tmp_path / ".venv").exists()


def test_make_test_hints_at_the_goal_that_was_asked_for(tmp_path: Path):
    result = make(tmp_path, "test", f"PYTHON={python_where(tmp_path, 'sys.version_info = (3, 9, 18)')}")
    assert "make test PYTHON=" in result.stderr


def test_the_suite_ends_with_what_was_skipped_and_what_enables_it():
    line = [sys.executable, "-m", "pytest", "-n", "0", "--bare", "-m", "needs", "tests/test_data_sources.py"]
    done = subprocess.run([*line, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1]
    assert last == "skipped 1 test: 1 for real data (set JAXTRAIN_DATA to a folder that holds fashion_mnist/)"
    assert re.search(r"SKIPPED \[1\] .*: needs real data: set JAXTRAIN_DATA", done.stdout)
