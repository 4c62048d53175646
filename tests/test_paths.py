"""Every command works in a directory with any name that the file system takes, and prints it in one line."""

import ast
import os
import random
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_trackers import read_scalars
from tiny_runs import Interrupting, config_file, outcome, result_of, tiny

import jaxtrain
from jaxtrain import main
from jaxtrain.commands.evaluate import evaluate
from jaxtrain.commands.options import join, quote
from jaxtrain.config.files import read
from jaxtrain.core.trees import leaf_digests
from jaxtrain.data.readers.arrays import arrays
from jaxtrain.errors import ConfigError, printable
from jaxtrain.storage import checkpoint_files
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

NAMES = {
    "patterns": b"[a] [!b]* ** ? {0} {a,b}",
    "separators": b"back\\slash a:b;c&d|e",
    "bucket": b"gs:",
    "another bucket": b"s3:",
    "quotes": b"'q\" `id` $HOME %s %2F #x ?y=z",
    "control characters": b"\x01 new\nline\r\t \x1b[31m \x7f",
    "no UTF-8": b"caf\xe9 \xff",
    "Unicode": "日本 \u202e é".encode(),
    "dashes": b"--workdir",
    "tilde": b"~",
    "spaces": b" lead and trail ",
    "longest": b"x" * 255,
    "of Orbax": b"a.orbax-checkpoint-tmp-7",
}
each_name = pytest.mark.parametrize("name", [pytest.param(os.fsdecode(n), id=key) for key, n in NAMES.items()])
GIVEN = {"train.duration": "40 steps"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, so that names are given as relative paths: an absolute one hides that "gs:" is special."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with a usual name."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    train_and_evaluate(tiny(GIVEN), directory, quiet=True)
    return directory


def metrics_of(directory: Path) -> dict[tuple[int, str], float]:
    """Returns the scalars in the event files that every machine repeats."""
    scalars = read_scalars(directory)
    return {key: value for key, value in scalars.items() if not key[1].startswith("performance/")}


@pytest.mark.one_fast_of(4)
@each_name
def test_a_run_trains_resumes_and_is_read_under_any_name(folder, whole, name, capfd):
    assert train_and_evaluate(tiny(GIVEN), name, trackers=[Interrupting(20)], quiet=True).status == "interrupted"
    train_and_evaluate(tiny(GIVEN), name)
    assert outcome(Path(name)) == outcome(whole)
    assert metrics_of(Path(name)) == metrics_of(whole)
    assert evaluate(name) == evaluate(whole)
    inputs = np.zeros((2, 8, 8, 1))
    np.testing.assert_array_equal(load_run(name).predict(inputs), load_run(whole).predict(inputs))
    said = capfd.readouterr().err
    assert "resuming at step" in said
    assert "TensorBoard" not in said
    assert all(line.isprintable() for line in said.split("\n"))
    assert sorted(os.listdir(folder)) == [name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [os.fsdecode(NAMES["patterns"] + NAMES["separators"]), os.fsdecode(b"gs:\n\xff")],
    ids=["patterns and separators", "a bucket, a line break and no UTF-8"],
)
def test_every_command_works_under_any_name(folder, name, capsys):
    """The config lies in a directory of that name, and so do the data's options; every printed line is printable."""
    os.mkdir("of " + name)
    config = f"--config={config_file(Path('of ' + name), {'train.duration': '20 steps'})}"
    space = "--config.search.space.optimizer.learning_rate=('log_uniform', 1e-4, 1e-1)"
    few = ["--config.lr_range.rates=8", "--config.lr_range.steps=5 steps"]
    commands = {
        "train": [config],
        "evaluate": [],
        "plan": [config],
        "lr_range": [config, *few],
        "search": [config, space, "--config.search.trials=2"],
    }
    for verb, options in commands.items():
        assert main.main([verb, *options, f"--workdir={name}"]) == 0, verb
        captured = capsys.readouterr()
        assert all(line.isprintable() for line in (captured.out + captured.err).split("\n")), verb
        assert printable(name) in captured.out, verb
    assert main.main([config, "--workdir=tuned", f"--config.checkpoint.init_from={name}", "--quiet"]) == 0
    assert main.main(["plan", f"--config={name}/config.json", "--quiet"]) == 0
    assert result_of(Path("tuned"))["status"] == "done"


@each_name
def test_data_and_config_files_are_read_under_any_name(folder, name):
    place = Path(name)
    place.mkdir()
    np.savez(place / "data.npz", inputs=np.eye(3), targets=np.arange(3))
    (place / "one").mkdir()
    np.save(place / "one" / "inputs.npy", np.eye(3))
    np.save(place / "one" / "targets.npy", np.arange(3))
    for file in ("data.npz", "one"):
        np.testing.assert_array_equal(arrays(place, file).splits["train"].inputs, np.eye(3))
    assert read(config_file(place))["data"]["name"] == "digits"
    with pytest.raises(ConfigError, match="config file") as caught:
        read(place / "tiny.pi")
    assert str(caught.value).isprintable()
    assert "Did you mean 'tiny.py'?" in str(caught.value)


def test_a_system_that_does_not_list_descriptors_gets_a_link_that_is_removed(folder, tmp_path_factory, monkeypatch):
    links = tmp_path_factory.mktemp("links")
    monkeypatch.setattr(checkpoint_files, "DESCRIPTORS", folder / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(links))
    place = Path(os.fsdecode(b"gs:\\ \xff")) / "20"
    place.parent.mkdir()
    leaves = {"params/kernel": np.arange(6.0, dtype=np.float32)}
    manifest = checkpoint_files.Manifest(leaf_digests(leaves), {"seconds": 1.0}, {})
    checkpoint_files.write_step(place.absolute(), leaves, manifest)
    saved = checkpoint_files.read_manifest(place.absolute())
    found = checkpoint_files.read_leaves(place.absolute(), saved, target=None)
    np.testing.assert_array_equal(found["params/kernel"], leaves["params/kernel"])
    assert saved.memory == {"seconds": 1.0}
    assert not list(links.iterdir())


def test_no_directory_of_a_user_is_part_of_a_pattern():
    """Nothing matches patterns against the disk, or makes a URL of a path, but where a user gives a pattern."""
    for path in sorted(Path(jaxtrain.__file__).parent.rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            refused = ("glob", "rglob", "iglob", "fnmatch", "as_uri", "expanduser", "expandvars")
            is_given = path.name == "files.py" and ast.unparse(call) == "glob.glob(pattern, recursive=True)"
            assert name not in refused or is_given, f"{path}:{call.lineno}"


def words_of_bytes(count: int) -> list[str]:
    dice = random.Random(0)
    drawn = [bytes(dice.randrange(1, 256) for _ in range(dice.randrange(1, 20))) for _ in range(count)]
    return [os.fsdecode(word) for word in [*drawn, *NAMES.values()]]


def test_any_word_is_printed_in_one_line_and_a_usual_one_as_it_is():
    for word in words_of_bytes(500):
        assert printable(word).isprintable()
        assert len(printable(word).splitlines()) <= 1
    for word in ("runs/first", "日本 é", "a b", "C:\\x"):
        assert printable(word) == word


def test_any_word_is_quoted_in_one_printable_line_that_bash_reads_back():
    words = words_of_bytes(500)
    line = join(words)
    assert line.isprintable()
    assert quote("runs/a b") == shlex.quote("runs/a b")
    for word in words:
        escaped = quote(word)
        if escaped.startswith("$'"):
            assert ast.literal_eval("b" + escaped[1:]) == os.fsencode(word)
        else:
            assert shlex.split(escaped) == [word]
    if bash := shutil.which("bash"):
        read_back = subprocess.run([bash, "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
        assert read_back.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
