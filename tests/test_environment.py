"""The recorded environment: versions, devices, and the git commit of the working directory."""

import json
import subprocess

import jax
import numpy as np

from jaxtrain.storage.environment import PACKAGES, describe_environment


def test_versions_and_devices_are_those_of_this_process():
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"].keys() == set(PACKAGES)
    assert (found["packages"]["jax"], found["packages"]["numpy"]) == (jax.__version__, np.__version__)
    assert found["backend"] == jax.default_backend()
    assert len(found["devices"]) == jax.local_device_count()
    assert found["processor"]


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_folder_and_changes_are_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    (tmp_path / "model.py").write_text("width = 1\n")
    git("add", "model.py")
    git("commit", "--quiet", "--message=first")
    clean = describe_environment()
    assert (clean["git_commit"], clean["git_dirty"]) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "model.py").write_text("width = 2\n")
    assert describe_environment()["git_dirty"] is True


def test_outside_a_repository_and_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = describe_environment()
    assert (found["git_commit"], found["git_dirty"]) == (None, None)
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["git_commit"] is None
