"""Errors and warnings: one line of one form, in every module that makes one."""

import ast
import functools
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import jaxtrain
from jaxtrain.errors import (
    ConfigError,
    DataError,
    JaxtrainError,
    JaxtrainWarning,
    StorageError,
    UsageError,
    Words,
    message,
    nearest,
    one_of,
    unknown,
)

ERRORS = (ConfigError, UsageError, DataError, StorageError)
PACKAGE = Path(jaxtrain.__file__).parent
MAKERS = {"JaxtrainError", "JaxtrainWarning", "message", *(error.__name__ for error in ERRORS)}
PARTS = ("key", "got", "expected", "hint")
OLD_FORM = re.compile(r"\bgiven\b|\ballowed\b")
NO_EXPECTATION = re.compile(r"(?i)(expected|allowed|must|should|got|given)\b")


@pytest.mark.parametrize("error", [*ERRORS, JaxtrainError, JaxtrainWarning])
def test_a_value_is_shown_by_its_repr_and_words_as_they_are(error: type[JaxtrainError]):
    assert str(error("seed", "7", "an integer", "Drop the quotes")) == (
        "seed: got '7'; expected an integer. Drop the quotes"
    )
    assert str(error("data/x.npz", Words("no such file"), "a file")) == "data/x.npz: got no such file; expected a file"
    assert str(error("model.depth", None, "an integer")) == "model.depth: got None; expected an integer"


def test_the_parts_stay_at_hand():
    error = ConfigError("optimizer.momentum", 2.0, "float, at most 1", "Take 0.9")
    assert [getattr(error, part) for part in PARTS] == ["optimizer.momentum", 2.0, "float, at most 1", "Take 0.9"]
    assert ConfigError("seed", -1, "at least 0").hint == ""


@pytest.mark.parametrize("hint", ["", " "])
def test_no_hint_leaves_no_mark_behind(hint: str):
    assert message("seed", -1, "an integer, at least 0.", hint) == "seed: got -1; expected an integer, at least 0"


def test_marks_are_never_doubled():
    line = message("disk", Words("the error 'full'."), "free space; ", "Free some. ")
    assert line == "disk: got the error 'full'; expected free space. Free some"
    assert message("verb", "trian", "train", nearest("trian", ["train"])).endswith("train. Did you mean 'train'?")


@pytest.mark.parametrize("place", [".", "..", "data/..", "./."])
def test_a_place_that_ends_in_dots_stays_whole(place: str):
    line = message("csv", Words(f"no file a.csv in {place}"), f"a file in {place}", f"Look into {place}")
    assert line == f"csv: got no file a.csv in {place}; expected a file in {place}. Look into {place}"
    assert message("data", Words("a, b, ..."), "c. ") == "data: got a, b; expected c"


def test_a_key_stays_as_it_was_typed():
    assert message("--workdir=.", Words("nothing"), "a run") == "--workdir=.: got nothing; expected a run"


@pytest.mark.parametrize("part", PARTS)
def test_it_is_one_line_whatever_the_parts_hold(part: str):
    parts = dict.fromkeys(PARTS, Words("x")) | {part: Words("\n one\n\n   two\r\nthree \n")}
    line = message(**parts)
    assert ("\\n one\\n\\n   two\\r\\nthree" if part == "key" else "one two three") in line
    assert line.splitlines() == [line]


def test_a_value_of_many_lines_is_shown_in_one():
    line = message("rates", np.zeros((3, 2)), "five rates")
    assert line == "rates: got array([[0., 0.], [0., 0.], [0., 0.]]); expected five rates"


@pytest.mark.parametrize("parts", [("text",), ("key", "got")])
@pytest.mark.parametrize("error", [*ERRORS, JaxtrainError, JaxtrainWarning])
def test_none_can_be_made_without_its_parts(error: type[JaxtrainError], parts: tuple[str, ...]):
    with pytest.raises(TypeError, match="expected"):
        error(*parts)


def test_a_warning_is_given_in_the_same_form():
    with pytest.warns(JaxtrainWarning, match=r"^train\.ema: got 0\.9; expected None\. Leave it out$"):
        warnings.warn(JaxtrainWarning("train.ema", 0.9, "None", "Leave it out"), stacklevel=1)


@pytest.mark.parametrize("error", ERRORS)
def test_another_process_gets_the_same_error(error: type[JaxtrainError]):
    sent = error("place", Words("nothing"), "a file", "Give one")
    found = pickle.loads(pickle.dumps(sent))
    assert (type(found), str(found), found.hint) == (error, str(sent), "Give one")


def test_names_are_listed():
    assert one_of(["a", "b"]) == "one of a, b"
    assert one_of(["a"]) == "a"
    assert str(unknown("model.depht", "depht", ["width", "depth"])) == (
        "model.depht: got 'depht'; expected one of depth, width. Did you mean 'depth'?"
    )
    assert str(unknown("loss.axis", "axis", [])) == "loss.axis: got 'axis'; expected no such name"


@functools.cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "errors.py"]
    return tuple((str(path.relative_to(PACKAGE)), ast.parse(path.read_text())) for path in paths)


def name_of(function: ast.expr | None) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def constructions() -> Iterator[tuple[str, ast.Call]]:
    """Yields (module and line, call) wherever an error, a warning or a line in their form is made."""
    for module, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func) in MAKERS:
                yield f"{module}:{node.lineno} {name_of(node.func)}", node


def parts_of(call: ast.Call) -> dict[str, ast.expr]:
    return dict(zip(PARTS, call.args, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}


def texts_in(node: ast.expr) -> list[str]:
    """Returns the literal texts of an expression, those of f-strings included."""
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def opening(node: ast.expr | None) -> str:
    """Returns the text that an expression begins with; empty where a value does."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) else node
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def test_every_construction_names_key_got_and_expected():
    calls = list(constructions())
    assert len(calls) > 130
    incomplete = [place for place, call in calls if not parts_of(call).keys() >= set(PARTS[:3])]
    starred = [place for place, call in calls if any(isinstance(part, ast.Starred) for part in call.args)]
    assert not incomplete
    assert not starred


def test_no_class_is_raised_without_its_parts():
    bare = [
        f"{module}:{node.lineno}"
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and not isinstance(node.exc, ast.Call) and name_of(node.exc) in MAKERS
    ]
    assert not bare


def test_our_warnings_are_made_of_their_parts():
    named = [
        f"{module}:{node.lineno}"
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name_of(node.func) == "warn" and "JaxtrainWarning" in map(name_of, node.args)
    ]
    assert not named


def wordings() -> Iterator[tuple[str, str, ast.expr]]:
    """Yields (place, name of the part, expression) of constructions, and of what is assigned to a part's name first."""
    for place, call in constructions():
        yield from ((place, name, part) for name, part in parts_of(call).items())
    for module, tree in modules():
        for node in ast.walk(tree):
            for name, value in assigned(node) if isinstance(node, ast.Assign) else ():
                if name in PARTS[1:]:
                    yield f"{module}:{value.lineno} {name}", name, value


def assigned(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(map(name_of, target.elts), node.value.elts, strict=True)
        else:
            yield name_of(target), node.value


def test_texts_do_not_repeat_the_words_of_the_form():
    repeated = [
        f"{place}: {opening(part)!r}"
        for place, name, part in wordings()
        if name != "key" and NO_EXPECTATION.match(opening(part))
    ]
    assert not repeated


def test_an_expectation_begins_small_and_a_hint_with_a_capital():
    parts = [(place, name, opening(part)) for place, name, part in wordings()]
    assert sum(bool(text) for _, name, text in parts if name == "hint") > 50
    capital = re.compile(r"(?!None|True|False|JSON|Optuna)[A-Z]")
    assert [f"{place}: {text}" for place, name, text in parts if name == "expected" and capital.match(text)] == []
    assert [f"{place}: {text}" for place, name, text in parts if name == "hint" and text[:1].islower()] == []


def test_no_message_has_the_words_of_the_old_form():
    old = [f"{place}: {text}" for place, _, part in wordings() for text in texts_in(part) if OLD_FORM.search(text)]
    old += [
        f"{module}: {text}"
        for module, tree in modules()
        for node in ast.walk(tree)
        for text in (texts_in(node) if isinstance(node, ast.Constant) else ())
        if re.search(r": given |allowed: ", text)
    ]
    assert not old


def test_only_the_command_line_names_its_flags():
    """The same functions are called from Python, where a directory or a config was given by no flag."""
    flags = re.compile(r"--(config|workdir)\b")
    named = [
        f"{module}: {node.value}"
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and flags.search(node.value)
        if str(module) != "main.py" and not str(module).startswith("commands/")
    ]
    assert not named
