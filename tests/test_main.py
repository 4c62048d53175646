import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from tiny_runs import PATIENCE, config_file

from jaxtrain import load_config
from jaxtrain.commands.options import split_overrides
from jaxtrain.config.identity import digest
from jaxtrain.config.schema import Text
from jaxtrain.errors import UsageError
from jaxtrain.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
MINE = """
from jaxtrain import default_config

def get_config():
    config = default_config()
    config.data = {"name": "arrays", "file": "nowhere.npz"}
    config.model = {"name": "mlp", "hidden": (4,)}
    return config
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command starts in, with config files whose data are not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXTRAIN_DATA", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "syntax.py").write_text("def get_config(:")
    (tmp_path / "raises.py").write_text("def get_config():\n    return 1 / 0")
    (tmp_path / "lacks.py").write_text("x = 1")
    (tmp_path / "returns.py").write_text("def get_config(): return 5")
    (tmp_path / "cut.json").write_text('{"seed": ')
    (tmp_path / "typo.py").write_text(MINE.replace('"hidden"', '"hiden"'))
    return tmp_path


Refusal = Callable[..., str]


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Runs a command that must end with one line, the exit code 2 and nothing written; returns the line."""
    before = sorted(folder.rglob("*"))

    def run(*words: str) -> str:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert sorted(folder.rglob("*")) == before
        return err

    return run


# What an error says: the key, what was given, what is allowed, and what was meant


@pytest.mark.parametrize(
    ("override", "key", "given", "allowed", "hint"),
    [
        ("sede=1", "sede", "sede", "seed", "'seed'"),
        ("optimzer.learning_rate=1", "optimzer", "optimzer", "optimizer", "'optimizer'"),
        ("optimizer.lerning_rate=1", "optimizer.lerning_rate", "lerning_rate", "learning_rate", "'learning_rate'"),
        ("optimizer.momentum=0.9", "optimizer.momentum", "momentum", "b1, b2, clip_adaptive", ""),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate", "fast", "float, at least 0", ""),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate", "nan", "float, at least 0", ""),
        ("optimizer.learning_rate=-0.1", "optimizer.learning_rate", "-0.1", "float, at least 0", ""),
        ("optimizer.learning_rate=", "optimizer.learning_rate", "", "float, at least 0", ""),
        ("data.batch_size=1.5", "data.batch_size", "1.5", "int, at least 1", ""),
        ("data.test_fraction=1.5", "data.test_fraction", "1.5", "at least 0 and below 1", ""),
        ("loss.label_smoothing=2", "loss.label_smoothing", "2", "at least 0 and at most 1", ""),
        ("train.duration=0 steps", "train.duration", "0 steps", "'10 epochs'", ""),
        ("train.duration=10", "train.duration", "10", "'10 epochs'", ""),
        ("eval.every=-5 %", "eval.every", "-5 %", "'5 %'", ""),
        ("track.tensorboard=false", "track.tensorboard", "false", "True or False", ""),
        ("model.hidden=128", "model.hidden", "128", "a tuple of int", ""),
        ("model.activation=rleu", "model.activation", "rleu", "'relu', 'gelu'", "'relu'"),
        ("model.name=mpl", "model.name", "mpl", "mlp, cnn", "'mlp'"),
        ("task=classifcation", "task.name", "classifcation", "classification", "'classification'"),
        ("loss=cross_entrpy", "loss.name", "cross_entrpy", "cross_entropy", "'cross_entropy'"),
        ("optimizer=adamm", "optimizer.name", "adamm", "adamw", "'adam"),
        ("data.name=digit", "data.name", "digit", "digits", "'digits'"),
        ("optimizer.name=optx:lion", "optimizer.name", "optx:lion", "module that can be imported", "'optax'"),
        ("optimizer.name=optax:loin", "optimizer.name", "optax:loin", "a callable of optax", "'lion'"),
        ("schedule.optimizer.lr=constant", "schedule.optimizer.lr", "constant", "optimizer.learning_rate", ""),
        (
            "schedule.optimizer.learning_rate=one_cycl",
            "schedule.optimizer.learning_rate.name",
            "one_cycl",
            "one_cycle",
            "'one_cycle'",
        ),
        ("seed.more=1", "seed.more", "1", "no key below seed", ""),
        ("train=5", "train", "5", "a section", ""),
    ],
)
def test_bad_override(refused: Refusal, override: str, key: str, given: str, allowed: str, hint: str):
    name, _, value = override.partition("=")
    for words in ((f"--config.{override}",), (f"--config.{name}", value)) if value else ((f"--config.{override}",),):
        line = refused("--config=mine.py", *words)
        assert line.startswith(f"error: {key}: got {given!r}; expected ")
        assert allowed in line.split("; expected ")[1]
        assert (f"Did you mean {hint}" if hint else "") in line


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("mien.py", "Did you mean 'mine.py'?"),
        ("no/such.py", "an existing .py file"),
        (".", "an existing .py file"),
        ("syntax.py", "SyntaxError"),
        ("lacks.py", "get_config()"),
        ("returns.py", "a ConfigDict or a dict"),
        ("cut.json", "JSONDecodeError"),
    ],
)
def test_missing_or_broken_config_file(refused: Refusal, file: str, said: str):
    line = refused(f"--config={file}")
    assert line.startswith(f"error: config file: got {file!r}; expected ")
    assert said in line


def test_unknown_knob_in_a_config_file(refused: Refusal):
    line = refused("--config=typo.py")
    assert line.startswith("error: model.hiden: got 'hiden'; expected one of activation, dropout, hidden, norm")
    assert "Did you mean 'hidden'?" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["--config", "got nothing", "--config=configs/x.py"]),
        (["train"], ["--config", "got nothing", "--config=configs/x.py"]),
        (["--quiet"], ["--config", "got nothing"]),
        (["--config=mine.py", "stray"], ["got 'stray'", *COMMANDS]),
        (["train", "stray", "--config=mine.py"], ["stray argument 'stray'"]),
        (["train", "--config=mine.py", "stray"], ["stray argument 'stray'"]),
        (["train", "--config=mine.py", "--quiet", "a", "b"], ["stray argument"]),
        (["trian", "--config=mine.py"], ["got 'trian'", *COMMANDS, "Did you mean 'train'?"]),
        (["--config=mine.py", "lits"], ["got 'lits'", *COMMANDS, "Did you mean 'list'?"]),
        (["--config=mine.py", "--config=mine.py"], ["--config: got two values", "'mine.py'", "one value"]),
        (
            ["--config=mine.py", "--config", "other.py"],
            ["--config: got two values", "'mine.py'", "'other.py'", "one value"],
        ),
        (["--config=mine.py", "--workdir=a", "--workdir=b"], ["--workdir: got two values", "'a'", "'b'", "one value"]),
        (
            ["--config=mine.py", "--config.seed=1", "--config.seed=2"],
            ["--config.seed: got two values", "'1'", "'2'", "one value"],
        ),
        (["--config=mine.py", "--config.seed=1", "--config.seed", "1"], ["--config.seed: got two values", "one value"]),
        (["--config=mine.py", "--confg=1"], ["'--confg=1'", "--config", "--workdir", "Did you mean '--config'?"]),
        (["--config=mine.py", "--work-dir", "x"], ["'--work-dir'", "Did you mean '--workdir'?"]),
        (["--config=mine.py", "--work=x"], ["'--work=x'"]),  # no abbreviations: they would hide a mistyped option
        (["--config=mine.py", "-q"], ["'-q'", "--quiet"]),
        (["--config=mine.py", "--quiet=1"], ["--quiet: got the explicit argument '1'"]),
        (["--config"], ["--config: got nothing", "Usage"]),
        (["--config="], ["--config: got nothing", "--config=FILE"]),
        (["--config=mine.py", "--workdir="], ["--workdir: got nothing", "--workdir=DIR"]),
        (["--config=mine.py", "--trust="], ["--trust: got nothing", "--trust=MODULE"]),
        (["predict", "--workdir=x", "--data=a.npy", "--data=", "--output=y.csv"], ["--data: got nothing"]),
        (["--config=mine.py", "--config.seed"], ["--config.seed: got no value", "--config.seed=VALUE"]),
        (["--config=mine.py", "--config.seed", "--quiet"], ["--config.seed: got no value", "--config.seed=VALUE"]),
        (["--config=mine.py", "--config.=1"], ["--config.=1", "--config.SECTION.KNOB=VALUE"]),
        (["--config=mine.py", "--config.train.=1"], ["--config.train.=1", "--config.SECTION.KNOB=VALUE"]),
        (["--config=mine.py", "--config..seed=1"], ["--config..seed=1", "--config.SECTION.KNOB=VALUE"]),
        (["evaluate"], ["--workdir: got nothing", "evaluate --workdir=DIR"]),
        (["evaluate", "--workdir=nowhere"], ["nowhere: got a directory without", "the directory of a run"]),
        (["evaluate", "--workdir=.", "--config=mine.py"], ["evaluate: got a config", "--workdir=DIR alone"]),
        (["evaluate", "--workdir=.", "--config.seed=1"], ["evaluate: got a config", "--workdir=DIR alone"]),
        (["evaluate", "more", "--workdir=."], ["stray argument 'more'"]),
        (["list", "optimzers"], ["got 'optimzers'", "optimizers, augmentations, data", "Did you mean 'optimizers'?"]),
        (["list", "optimizers", "losses"], ["stray argument 'losses'"]),
        (["list", "--config=mine.py"], ["list: got a config"]),
        (["list", "--trust=mine"], ["list: got --trust", "Leave --trust out"]),
        (["list", "optimizers", "--config.seed=1"], ["list: got a config"]),
    ],
)
def test_bad_command_line(refused: Refusal, words: list[str], said: list[str]):
    line = refused(*words)
    assert all(part in line for part in said), line


@pytest.mark.parametrize(
    "words",
    [
        ["--config=raises.py"],
        ["--config=mine.py", "--config.seed=x"],
        ["--config=mine.py", "stray"],
        ["list", "nothing"],
    ],
)
def test_debug_shows_the_traceback_and_ends_alike(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str]):
    assert main(words) == 2
    *frames, line = capsys.readouterr().err.splitlines()
    assert bool(frames) == ("--config=raises.py" in words)
    assert main([*words, "--debug"]) == 2
    *trace, last = capsys.readouterr().err.splitlines()
    assert last == line
    assert trace[0] == "Traceback (most recent call last):"


def test_debug_shows_where_a_config_file_broke(folder: Path, capsys: pytest.CaptureFixture[str]):
    main(["--config=raises.py", "--debug"])
    assert 'File "raises.py", line 2, in get_config' in capsys.readouterr().err


@pytest.mark.parametrize(
    "override",
    ["optimizer.b1=2", "data.batchsize=1", "model.name=none", "schedule.optimizer.b1=x", "checkpoint.keep=0"],
)
def test_a_config_error_comes_before_data_are_read(refused: Refusal, override: str):
    refused("--config=mine.py", f"--config.{override}")


def test_missing_data_end_in_one_line_and_the_code_of_data(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--config=mine.py", "--quiet"]) == 3
    err = capsys.readouterr().err
    assert "nowhere.npz" in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


# What works


def test_overrides_are_taken_out_of_a_command_line():
    found, rest = split_overrides(
        ["train", "--config.a.b=1=2", "--config=x.py", "--config.c", "-1", "--config.d=", "word"]
    )
    assert found == {"a.b": "1=2", "c": "-1", "d": ""}
    assert all(isinstance(value, Text) for value in found.values())
    assert rest == ["train", "--config=x.py", "word"]
    with pytest.raises(UsageError):
        split_overrides(["--config.a"])


@pytest.mark.parametrize("word", ["optimizer", "optimizers", "train", "metrics"])
def test_list_shows_members(capsys: pytest.CaptureFixture[str], word: str):
    assert main(["list", word]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert {"optimizer": "adamw", "optimizers": "adamw", "train": "duration", "metrics": "accuracy"}[word] in out


def test_list_shows_families(capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    assert re.search("optimizers +sgd, adam, adamw, rprop", capsys.readouterr().out)


def test_help_shows_verbs_and_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as found:
        main(["--help"])
    assert found.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in [*COMMANDS, "--config", "--workdir", "--quiet", "--debug", "--config.KEY=VALUE"])


def test_help_of_a_verb_shows_the_options_that_it_takes(capsys: pytest.CaptureFixture[str]):
    for verb, words, taken, others in (
        (
            "predict",
            ["predict", "--help"],
            ("--export", "--data", "--fold", "--workdir"),
            ("--port", "--ensemble", "--config "),
        ),
        ("serve", ["-h", "serve"], ("--export", "--port", "--json"), ("--data", "--workdir", "--trust", "--config")),
        ("plan", ["plan", "--help"], ("--config FILE", "--config.KEY=VALUE", "--workdir"), ("--export", "--only")),
    ):
        with pytest.raises(SystemExit) as found:
            main(words)
        assert found.value.code == 0
        out = capsys.readouterr().out
        assert COMMANDS[verb].help.split(":")[0] in out.replace("\n", " ")
        assert all(option in out for option in taken)
        assert not any(option in out for option in others)


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert f"jaxtrain.main {verb} [options]" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["trian"], [], ["evaluate"]])
def test_help_and_usage_errors_import_nothing_heavy(words: list[str]):
    heavy = {"jax", "jaxlib", "flax", "optax", "orbax", "tensorboardX", "numpy", "ml_collections", "matplotlib"}
    code = f"""
import sys
from jaxtrain.main import main
try:
    main({words!r})
except SystemExit:
    pass
print("LOADED", sorted({heavy!r} & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert ran.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("name", ["missing.py", "missing.json"])
def test_a_mistyped_config_is_told_without_waiting_for_jax(name: str, tmp_path: Path):
    code = f"import sys; from jaxtrain.main import main; print(main(['--config={name}']), 'jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.stdout == "2 False\n"


@pytest.fixture
def tiny(folder: Path) -> list[str]:
    """A command that trains two steps on data of its own."""
    random = np.random.default_rng(0)
    np.savez(folder / "tiny.npz", inputs=random.random((64, 3)), targets=random.integers(0, 2, 64))
    overrides = {"data.file": "tiny.npz", "data.path": str(folder), "data.batch_size": "8", "train.duration": "2 steps"}
    return ["--config=mine.py", *(f"--config.{name}={value}" for name, value in overrides.items())]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "lr_range"])
def test_rprop_on_mini_batches_is_warned_of_unless_it_is_quiet_or_sees_the_whole_set(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str], verb: str
):
    """What quiet silences the whole set needs not be told at all."""
    rprop = [verb, *tiny, "--config.optimizer.name=rprop", "--config.lr_range.seeds=1", "--config.lr_range.rates=5"]
    (folder / "quiet").mkdir()
    assert main([*rprop, "--quiet", "--workdir=quiet/run"]) in (0, 4)
    assert "rprop" not in capsys.readouterr().err
    assert main([*rprop, "--workdir=loud"]) in (0, 4)
    said = capsys.readouterr().err
    assert "warning: optimizer.name: got 'rprop' with mini-batches of 8 of " in said
    whole = said.partition("data.batch_size=")[2].split()[0]
    batch = [word for word in rprop if "batch_size" not in word] + [f"--config.data.batch_size={whole}"]
    assert main([*batch, "--workdir=whole"]) in (0, 4)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_schedule_that_falls_is_warned_of_beside_a_schedule_free_optimizer(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    free = [*tiny, "--config.optimizer.name=schedule_free_adamw"]
    assert main([*free, "--workdir=falls"]) == 0
    assert "warning: schedule.optimizer.learning_rate: got 'warmup_cosine' with" in capsys.readouterr().err
    warmup = "--config.schedule.optimizer.learning_rate=warmup_stable_decay"
    assert main([*free, warmup, f"{warmup.partition('=')[0]}.decay=0", "--workdir=stays"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_model_that_does_not_fit_is_told_in_one_line(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*tiny, "--config.model.hidden=(10000000,10000000)"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: model.hidden: got (10000000, 10000000); expected a state of at most"
    )


def test_an_array_that_does_not_fit_is_told_in_one_line(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """JAX itself refuses what is seen from no shape of the state, such as an array of a source."""
    monkeypatch.syspath_prepend(folder)
    (folder / "vast.py").write_text("import jax.numpy as jnp\ndef source(path): return {'train': jnp.zeros(2**50)}")
    assert main(["--config=mine.py", "--config.data.name=vast:source"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: data.batch_size: got 128; expected a batch whose activations fit in memory (")


def test_train_says_what_changed_and_names_what_it_wrote(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*tiny, "--config.optimizer.name=rprop"]) == 0
    out, err = capsys.readouterr()
    assert err.count("warning: optimizer.name: got 'rprop' with mini-batches of 8 of ") == 1
    (workdir,) = (folder / "runs").iterdir()
    config = json.loads((workdir / "config.json").read_text())
    assert workdir.name == f"mine-{digest(load_config(workdir / 'config.json'))}"
    assert config["optimizer"]["name"] == "rprop"
    assert "schedule.optimizer.learning_rate is dropped: rprop" in out
    assert "*name=rprop" in out
    listed = [line.split()[0] for line in out.partition("wrote ")[2].splitlines()[1:] if line.startswith("  ")]
    written = [file for file in listed if file.endswith((".json", ".jsonl")) or file == "checkpoints"]
    assert "config.json" in written
    assert "result.json" in written
    assert all((workdir / file).exists() for file in written)
    assert f"evaluate --workdir={workdir.relative_to(folder)}" in out


def test_quiet_is_silent_and_the_same_command_finds_its_run(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*tiny, "--quiet"]) == 0
    assert main([*tiny, "--quiet", "--config.log.every=1 steps"]) == 0
    assert capsys.readouterr() == ("", "")
    (workdir,) = (folder / "runs").iterdir()
    before = (workdir / "result.json").read_bytes()
    assert main(["evaluate", f"--workdir={workdir}"]) == 0
    assert "validation" in capsys.readouterr().out
    assert main(["evaluate", f"--workdir={workdir}", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (workdir / "result.json").read_bytes() == before
    assert main([*tiny, f"--workdir={workdir}", "--config.seed=1"]) == 2
    line = capsys.readouterr().err
    assert "seed = 1, there 0" in line
    assert main([*tiny, "--quiet", "--config.seed=1"]) == 0
    assert len(list((folder / "runs").iterdir())) == 2


def test_a_plan_trains_nothing_and_makes_no_directory_of_a_run(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["plan", *tiny]) == 0
    (picture,) = (folder / "runs").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
    out, err = capsys.readouterr()
    assert err == ""
    assert f"wrote runs/{picture.name}: optimizer.learning_rate" in out
    assert main([*tiny, "--quiet"]) == 0  # the run has the directory that the picture is named after
    assert {path.name for path in (folder / "runs").iterdir()} == {
        picture.name,
        picture.name.removesuffix("-plan.png"),
    }


def test_a_plan_in_a_directory_leaves_what_is_there_alone(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
):
    workdir = folder / "given"
    assert main([*tiny, "--quiet", f"--workdir={workdir}"]) == 0
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert main(["plan", *tiny, "--quiet", f"--workdir={workdir}"]) == 0
    assert capsys.readouterr() == ("", "")
    after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert after == before | {workdir / "plan.png": (workdir / "plan.png").read_bytes()}
    assert main(["plan", *tiny, "--quiet", f"--workdir={workdir}", "--config.model.hidden=(3,)"]) == 2
    assert "a run with another config (model.hidden = [3], there [4]" in capsys.readouterr().err
    assert main(["plan", *tiny, "--quiet", f"--workdir={folder / 'mine.py'}"]) == 5
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("taken", ["picture", "directory"])
def test_a_place_that_is_taken_is_refused_before_anything_is_planned(
    tiny: list[str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, taken: str
):
    monkeypatch.setattr("jaxtrain.training.plan.plan", lambda config: pytest.fail("planned"))
    if taken == "picture":
        (folder / "given" / "plan.png").mkdir(parents=True)
    else:
        (folder / "given").write_text("")
    assert main(["plan", *tiny, "--quiet", f"--workdir={folder / 'given'}"]) == 5
    assert capsys.readouterr().err.count("\n") == 1


def test_a_users_module_is_found_where_the_command_starts(tiny: list[str], folder: Path):
    (folder / "my_losses.py").write_text(
        "def loss(predictions, targets, power: float = 2.0):\n    raise RuntimeError('mine')\n"
    )
    words = [*tiny, "--config.loss.name=my_losses:loss", "--config.loss.power=3", "--quiet"]
    command = [sys.executable, "-m", "jaxtrain.main", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert ran.returncode == 2
    assert "RuntimeError: mine" in ran.stderr.splitlines()[-1]
    assert f'File "{folder / "my_losses.py"}", line 2, in loss' in ran.stderr


@pytest.mark.slow
def test_a_terminal_without_the_letters_is_no_reason_to_stop(tmp_path):
    words = [
        f"--config={tiny_runs.config_file(tmp_path)}",
        "--config.train.duration=2 steps",
        "--config.data.path=d\u00ed",
    ]
    done = tiny_runs.run(tmp_path, *words, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"path=d\xed" in done.stdout


def test_notes_of_libraries_stand_in_no_error_of_ours(tmp_path, capsys):
    pattern = "--config.optimizer.decayed=nowhere"  # is refused inside a compiled function, where JAX adds a note
    assert main(["plan", f"--config={config_file(tmp_path)}", pattern, f"--workdir={tmp_path / 'run'}", "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: optimizer.decayed: got 'nowhere'")


GIVEN_UP = """
import asyncio

async def fails():
    raise OSError("no space")

async def gives_up():
    task = asyncio.create_task(fails())
    await asyncio.sleep(0)

def get_config():
    asyncio.run(gives_up())  # asyncio reports the error of the task when it is dropped
    return 3
"""


def test_a_task_that_a_library_gave_up_prints_nothing_beside_the_line_of_the_error(tmp_path):
    (tmp_path / "gives_up.py").write_text(GIVEN_UP)
    done = tiny_runs.run(tmp_path, "--config=gives_up.py")
    assert done.returncode == 2
    assert "never retrieved" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
