"""Code that a config names: free in what a user writes, and by name only in what came from somebody else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import environment, tiny

from jaxtrain.config.identity import to_json
from jaxtrain.config.resolve import load_config
from jaxtrain.config.trust import references
from jaxtrain.errors import ConfigError
from jaxtrain.main import COMMANDS, main
from jaxtrain.storage.ownership import claim
from jaxtrain.storage.result import Result, write_result
from jaxtrain.training.trained_run import load_run

HOSTILE = {
    "optimizer": {"name": "subprocess:getoutput", "cmd": "touch PLACE"},
    "model": {"name": "os:system", "command": "touch PLACE"},
    "loss": {"name": "optax:jnp.linalg.norm"},
    "task": {"name": "classification", "metrics": ("accuracy", "os:system")},
    "data": {"name": "runpy:run_path", "path": "PLACE"},
    "schedule": {"optimizer": {"learning_rate": {"name": "builtins:exec"}}},
    "search": {"space": {"model": {"name": ("choice", ("mlp", "os:system"))}}},
}


def received(folder: Path, section: str) -> Path:
    """Writes a config as data that names code of a module."""
    content = json.loads(to_json(tiny())) | {section: HOSTILE[section]}
    path = folder / "config.json"
    path.write_text(json.dumps(content).replace("PLACE", str(folder / "called")))
    return path


@pytest.mark.parametrize("section", HOSTILE)
def test_a_config_read_as_data_calls_nothing_that_it_names(section, tmp_path, capsys):
    path = received(tmp_path, section)
    for arguments in ([f"--config={path}"], ["plan", f"--config={path}"], ["search", f"--config={path}"]):
        assert main([*arguments, f"--workdir={tmp_path / 'run'}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {section}")
        assert "--trust=" in line
    (tmp_path / "checkpoints").mkdir()
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "config.json"]


def test_the_module_is_not_even_imported(tmp_path):
    (tmp_path / "spy.py").write_text("open('imported', 'w').close()\n\ndef optimizer():\n    pass\n")
    path = received(tmp_path, "optimizer")
    path.write_text(path.read_text().replace("subprocess:getoutput", "spy:optimizer"))
    line = f"from jaxtrain import load_run; load_run({str(tmp_path)!r})"
    ended = subprocess.run(
        [sys.executable, "-c", line],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert "ConfigError: optimizer.name: got 'spy:optimizer'" in ended.stderr
    assert not (tmp_path / "imported").exists()


def test_a_trusted_module_may_be_named_but_not_what_it_imports(tmp_path, monkeypatch):
    (tmp_path / "my_trusted.py").write_text(
        "import os\nfrom optax import sgd as imported\n\n\ndef slow(learning_rate: float = 0.1):\n"
        "    return imported(learning_rate)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "config.json"
    content = json.loads(to_json(tiny())) | {"schedule": {}}

    def config(name: str) -> None:
        path.write_text(json.dumps(content | {"optimizer": {"name": name, "learning_rate": 0.1}}))

    config("my_trusted:slow")
    with pytest.raises(ConfigError, match="--trust=my_trusted"):
        load_config(path)
    assert load_config(path, trust=["my_trusted"])["optimizer"]["name"] == "my_trusted:slow"
    for name in ("my_trusted:os.system", "my_trusted_too:slow", "optax:_src.base.jnp.exp", "optax.contrib:jax.jit"):
        config(name)
        with pytest.raises(ConfigError, match=r"optimizer\.name: got .* expected a member of our tables"):
            load_config(path, trust=["my_trusted"])
    config("optax:lion")
    assert load_config(path)["optimizer"]["name"] == "optax:lion"


def test_a_run_of_ones_own_needs_no_flag_and_a_copy_of_another_users_does(tmp_path, monkeypatch):
    (tmp_path / "my_own.py").write_text(
        "import optax\n\n\ndef fast(learning_rate: float = 0.1):\n    return optax.sgd(learning_rate)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = tiny({"optimizer.name": "my_own:fast", "schedule.optimizer.learning_rate.name": "constant"})
    workdir = tmp_path / "run"
    workdir.mkdir()
    claim(workdir, own, "1")
    (workdir / "config.json").write_text(to_json(own))
    assert load_config(workdir / "config.json")["optimizer"]["name"] == "my_own:fast"
    with pytest.raises(Exception, match="no checkpoint"):  # and nothing about trust
        load_run(workdir)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user's"))
    for load in (lambda: load_config(workdir / "config.json"), lambda: load_run(workdir)):
        with pytest.raises(ConfigError, match="--trust=my_own"):
            load()
    with pytest.raises(Exception, match="no checkpoint"):
        load_run(workdir, trust=["my_own"])


def test_a_signature_vouches_for_what_the_run_named_and_nothing_else(tmp_path):
    claim(tmp_path, tiny(), "1")
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"name": "adamw"', '"name": "os:system"'))
    config = json.loads((tmp_path / "config.json").read_text())
    config["optimizer"] = {"name": "os:system"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="--trust=os"):
        load_config(tmp_path / "config.json")


def test_the_keys_that_choose_members_are_all_walked():
    named = [name for _, name in references(HOSTILE)]
    assert len(named) == len(HOSTILE)


NEEDED = {
    "export": ["--output={folder}/export"],
    "predict": ["--data={folder}/new.npy", "--output={folder}/predicted.csv"],
    "sync": ["--uri=http://127.0.0.1:9"],
    "prepare": ["--output={folder}/prepared"],
    "replay": ["--step=1"],
}
"""What a verb asks for beside the directory or the config."""

SPY = """
import optax


def loss(predictions, targets):
    return optax.softmax_cross_entropy_with_integer_labels(predictions, targets)
"""


@pytest.mark.parametrize("verb", sorted({*COMMANDS} - {"list", "serve"}))  # which read neither
def test_no_verb_imports_what_a_run_of_another_user_names(verb, tmp_path, monkeypatch, capsys):
    (tmp_path / "trust_spy.py").write_text(SPY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trust_spy", raising=False)
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints" / "20").mkdir(parents=True)
    np.save(tmp_path / "new.npy", np.zeros((2, 8, 8, 1), np.uint8))
    content = json.loads(to_json(tiny())) | {"loss": {"name": "trust_spy:loss"}}
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user's"))
    claim(run, content, "1")
    write_result(run, Result("done", 20, 1.0, {}, None, None, "", {}))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "this user's"))
    reads = COMMANDS[verb].reads
    place = f"--config={run}/config.json" if reads == "config" else f"--workdir={run}"
    words = [str(run)] * 2 if reads is None else [place]
    code = main([verb, *words, *(option.format(folder=tmp_path) for option in NEEDED.get(verb, [])), "--quiet"])
    assert "trust_spy" not in sys.modules
    said = capsys.readouterr().err
    assert code in ((0, 2, 3, 5) if verb in ("compare", "report", "sync", "diff") else (2,)), said
    assert code != 2 or "--trust=trust_spy" in said or verb in ("compare", "report", "diff"), said
