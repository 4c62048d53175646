"""Config files that misbehave: exit 2, one line, and the user's own frames; files that are only unusual are read."""

import os
import sys
import textwrap
import warnings
from pathlib import Path

import jax
import pytest

from jaxtrain.config.files import read
from jaxtrain.errors import ConfigError
from jaxtrain.main import main

OWN_EXCEPTION = """\
class Own({base}):
    def __str__(self):
        {body}
    __repr__ = __str__


def get_config():
    raise Own
"""
RAISING = {
    "exit while imported": ("import sys\nsys.exit(0)", "the command. Fix the SystemExit at line 2"),
    "exit": ("import sys\ndef get_config():\n    sys.exit()", "the command. Fix the SystemExit at line 3"),
    "exit with a text": ("def get_config():\n    raise SystemExit('bye')", "SystemExit at line 2: bye"),
    "quit": ("quit()", "SystemExit at line 1"),
    "other exception": ("class E(BaseException): pass\ndef get_config():\n    raise E('x')", "Fix the E at line 3: x"),
    "generator exit": ("def get_config():\n    raise GeneratorExit", "GeneratorExit at line 2"),
    "raising text": (OWN_EXCEPTION.format(base="Exception", body="raise ValueError"), "line 8: its text cannot be"),
    "no text": (OWN_EXCEPTION.format(base="Exception", body="return 3"), "line 8: its text cannot be printed"),
    "empty text": ("def get_config():\n    raise ValueError", "Fix the ValueError at line 2"),
    "many lines": ("def get_config():\n    raise ValueError('\\n\\none\\ntwo\\x1b')", "ValueError at line 2: one"),
    "no end": ("def get_config():\n    return get_config()", "RecursionError at line 2"),
    "in turns": ("def get_config():\n    return f()\ndef f():\n    return get_config()", "RecursionError at line"),
    "helper": ("import helper\ndef get_config():\n    return helper.f()", "ValueError at line 3: inner"),
    "value": ("class V:\n    def __repr__(self): 1 / 0\ndef get_config():\n    return {'seed': V()}", "Zero"),
}
RETURNING = {
    "nothing": ("def get_config(): pass", "not a NoneType"),
    "list": ("def get_config(): return [1]", "not a list"),
    "coroutine": ("async def get_config(): return {}", "not a coroutine"),
    "generator": ("def get_config(): yield {}", "not a generator"),
    "argument": ("def get_config(name): return {}", "needs no arguments. Give its arguments a default"),
    "keyword": ("def get_config(*, name): return {}", "needs no arguments"),
    "dict": ("get_config = {'seed': 1}", "defines get_config(). Make it a function: get_config is a dict"),
    "missing": ("", "defines get_config()"),
    "cycle": ("d = {}\nd['seed'] = d\ndef get_config(): return d", "nested without end"),
    "depth": ("d = {}\nfor _ in range(5000): d = {'seed': d}\ndef get_config(): return d", "nested without end"),
    "syntax": ("def get_config(:", "SyntaxError: invalid syntax"),
    "null byte": ("def get_config(): return {}\0", "null bytes"),
    "no UTF-8": ("x = '\udce9'\ndef get_config(): return {}", "SyntaxError: (unicode error)"),
    "parentheses": ("x = " + "(" * 500 + ")" * 500, "too many nested parentheses"),
}
ACTING = {
    "directory": ("import os\nos.chdir('/')", "the working directory unchanged. Write absolute paths"),
    "arguments": ("import sys\nsys.argv.append('x')", "sys.argv unchanged"),
    "output": ("import sys\nsys.stdout = None", "the standard streams unchanged"),
    "errors": ("import io, sys\nsys.stderr = io.StringIO()", "the standard streams unchanged"),
    "new variable": ("import os\nos.environ['XLA_OWN'] = '1'", "the environment variable XLA_OWN unchanged. Set it in"),
    "changed variable": ("import os\nos.environ['JAX_PLATFORMS'] = 'tpu'", "variable JAX_PLATFORMS unchanged"),
    "setting of JAX": (
        "import jax\njax.config.update('jax_enable_x64', True)",
        "jax.config.jax_enable_x64 unchanged. Set the environment variable JAX_ENABLE_X64",
    ),
    "no variables": ("import os\nos.environ.pop('JAX_PLATFORMS')", "variable JAX_PLATFORMS unchanged"),
}
UNUSUAL = {
    "argument with a default": "def get_config(name='x'): return {'seed': 3}",
    "class": "class get_config(dict):\n    def __init__(self): super().__init__(seed=3)",
    "partial": "import functools\nget_config = functools.partial(dict, seed=3)",
    "dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    "@dataclass\nclass A:\n    x: int = 3\ndef get_config(): return {'seed': A().x}",
    "coding": "# coding: latin-1\nX = '\udce9'\ndef get_config(): return {'seed': 3}",
    "mark": "\ufeffdef get_config(): return {'seed': 3}",
    "warnings": "import warnings\nwarnings.simplefilter('error')\ndef get_config(): return {'seed': 3}",
    "low limit": "import sys\nsys.setrecursionlimit(200)\ndef get_config(): return {'seed': 3}",
    "variable of a library": "import os\nos.environ['OWN_LIBRARY'] = '1'\ndef get_config(): return {'seed': 3}",
    "libraries": "import flax, optax, orbax.checkpoint\ndef get_config(): return {'seed': 3}",
    "main": "if __name__ == '__main__':\n    raise SystemExit\ndef get_config(): return {'seed': 3}",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    (tmp_path / "helper.py").write_text("def f():\n    return g()\n\n\ndef g():\n    raise ValueError('inner')\n")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    """Writes a config file; a surrogate stands for a byte that is no UTF-8."""
    path = folder / "own_config.py"
    path.write_bytes(text.encode(errors="surrogateescape"))
    return Path(path.name)


def state() -> tuple[object, ...]:
    """Returns what a config file must not change."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    filters = list(warnings.filters)
    limit = sys.getrecursionlimit()
    return os.getcwd(), list(sys.argv), sys.stdout, sys.stderr, variables, filters, limit, dict(jax.config.values)


@pytest.mark.parametrize(("text", "said"), (RAISING | RETURNING | ACTING).values(), ids=[*RAISING, *RETURNING, *ACTING])
def test_a_file_that_misbehaves_ends_in_exit_2_one_line_and_the_users_own_frames(folder, text, said, capsys):
    raising = (text, said) in RAISING.values()
    acting = (text, said) in ACTING.values()
    path = write(folder, text + ("\ndef get_config(): return {'seed': 3}" if acting else ""))
    before = state()
    files = sorted(os.listdir(folder))
    with warnings.catch_warnings(record=True) as warned:
        assert main([f"--config={path}"]) == 2
    assert state() == before
    out, err = capsys.readouterr()
    *frames, line = err.splitlines()
    assert line.startswith("error: config file: got 'own_config.py'; expected ")
    assert said in line
    assert line.isprintable()
    assert out == ""
    assert not warned
    assert raising == bool(frames)
    assert len(frames) < 40
    places = [frame for frame in frames if frame.startswith('  File "')]
    assert all("own_config.py" in place or "helper.py" in place for place in places)
    assert not raising or places
    assert [name for name in sorted(os.listdir(folder)) if name != "__pycache__"] == files, "nothing is written"


@pytest.mark.parametrize("text", UNUSUAL.values(), ids=UNUSUAL)
def test_a_file_that_is_only_unusual_is_read_and_leaves_no_trace(folder, text, monkeypatch):
    monkeypatch.delenv("OWN_LIBRARY", raising=False)
    before = state()
    assert read(write(folder, text)) == {"seed": 3}
    assert state() == before
    assert "own_config" not in sys.modules


def test_a_file_with_the_name_of_a_module_does_not_replace_it(folder):
    path = folder / "textwrap.py"
    path.write_text("def get_config(): return {'seed': 3}")
    assert read(path) == {"seed": 3}
    assert sys.modules["textwrap"] is textwrap


def test_ctrl_c_in_a_config_file_interrupts_the_command(folder, capsys):
    path = write(folder, "def get_config():\n    raise KeyboardInterrupt")
    assert main([f"--config={path}"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_api_call_shows_the_frames_as_a_note(folder):
    with pytest.raises(ConfigError) as caught:
        read(write(folder, "def get_config():\n    return 1 / 0"))
    (note,) = caught.value.__notes__
    assert note.startswith('  File "own_config.py", line 2, in get_config\n    return 1 / 0')
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_value_that_cannot_be_printed_is_told_by_its_class():
    class Own:
        def __repr__(self):
            raise ValueError

    assert str(ConfigError("seed", Own(), "an integer")) == (
        "seed: got a Own that cannot be printed; expected an integer"
    )
