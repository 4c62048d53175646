"""A user's own code that raises, exits or cannot be read, wherever the config names it: its frames and one line."""

import sys
import textwrap
from pathlib import Path

import pytest
from tiny_runs import config_file

from jaxtrain.config.own_code import own_frames
from jaxtrain.main import main

OWN = """
    import sys
    import optax


    class Unprintable(Exception):
        def __str__(self):
            raise ValueError


    class Aside(BaseException):
        pass


    def raising(*arguments, **more):
        raise ValueError("broken\\nin two lines")


    def unprintable(*arguments, **more):
        raise Unprintable


    def aside(*arguments, **more):
        raise Aside("not an Exception")


    def missing_file(*arguments, **more):
        open("/nowhere/at/all")


    def exiting(*arguments, **more):
        sys.exit(0)


    def source(path): return {kind}()
    def loss(predictions, targets): return {kind}()
    def build(learning_rate): return {kind}()
    def metric(predictions, targets, mask): return {kind}()
    def task(model, loss, info): return {kind}()
"""
KINDS = {
    "raising": "ValueError: broken",
    "unprintable": "Unprintable: its text cannot be printed",
    "aside": "Aside: not an Exception",
    "exiting": "SystemExit: 0",
    "missing_file": "FileNotFoundError",
}
PLACES = {
    "source": "data.name",
    "loss": "loss.name",
    "metric": "task.metrics",
    "task": "task.name",
    "build": "optimizer.name",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return tmp_path


def refused(folder: Path, text: str, key: str, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Trains with a member of the user's own; returns the exit code and the lines on the standard error."""
    (folder / "own_parts.py").write_text(textwrap.dedent(text))
    given = f"('accuracy', 'own_parts:{name}')" if key == "task.metrics" else f"own_parts:{name}"
    more = ["--config.optimizer.learning_rate=0.1"] if key == "optimizer.name" else []
    code = main([f"--config={config_file(folder)}", f"--config.{key}={given}", *more, "--workdir=run", "--quiet"])
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_member_raises_ends_in_its_frames_and_one_line(folder, place, kind, capsys):
    code, lines = refused(folder, OWN.replace("{kind}", kind), PLACES[place], place, capsys)
    assert code == (3 if (place, kind) == ("source", "missing_file") else 2)
    *frames, line = lines
    assert line.startswith("error: ")
    assert KINDS[kind] in line
    assert any(f"in {kind}" in frame for frame in frames)
    assert not any("jaxtrain/" in frame or frame.startswith("Traceback") for frame in frames)
    assert not (folder / "run").exists()


MODULES = {
    "exits": ("import sys\nsys.exit(0)", "own_parts.py:2: got SystemExit: 0; expected code that does not end"),
    "raises": ("1 / 0", "own_parts.py:1: got ZeroDivisionError: division by zero"),
    "lacks a library": ("import no_such_library", "own_parts.py:1: got ModuleNotFoundError"),
    "cannot be read": ("def loss(:", "own_parts.py:1: got SyntaxError: invalid syntax"),
    "is no text": ("\0", "got SyntaxError: source code string cannot contain null bytes"),
}


@pytest.mark.parametrize(("text", "said"), MODULES.values(), ids=MODULES.keys())
def test_a_module_that_cannot_be_imported_ends_in_one_line(folder, text, said, capsys):
    code, lines = refused(folder, text, "loss.name", "loss", capsys)
    assert code == 2
    assert said in lines[-1]
    assert not any(line.startswith("Traceback") for line in lines)


def test_debug_shows_the_whole_traceback(folder, capsys):
    (folder / "own_parts.py").write_text(textwrap.dedent(OWN.replace("{kind}", "raising")))
    given = [f"--config={config_file(folder)}", "--config.loss.name=own_parts:loss", "--workdir=run", "--quiet"]
    assert main([*given, "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("jaxtrain/" in line for line in lines)


def test_a_fault_of_this_package_alone_keeps_its_traceback(folder, monkeypatch):
    monkeypatch.setattr("jaxtrain.commands.listing.run", own_frames)
    with pytest.raises(AttributeError):
        main(["list"])
