import math
import sys
import types
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.config.defaults import FAMILIES, family
from jaxtrain.config.registry import import_member, knobs_of
from jaxtrain.config.schema import (
    MISSING,
    Bounds,
    Count,
    Fraction,
    Knob,
    NonNegative,
    OncePerRun,
    Positive,
    Probability,
    Text,
)
from jaxtrain.errors import ConfigError


def member(
    rate: float,
    decay: float | None = None,
    width: int = 8,
    flag: bool = False,
    path: str | None = None,
    label: str = "x",
    hidden: tuple[int, ...] = (4,),
    names: tuple[str, ...] = (),
    mode: Literal["cosine", "linear"] = "cosine",
    norm: Literal["batch", "layer"] | None = None,
    part: Fraction = 0.5,
    betas: tuple[float, float] = (0.9, 0.999),
    auto: Probability | Literal["auto"] = "auto",
    free=None,
): ...


KNOBS = knobs_of(member)


def check(name: str, value: Any) -> Any:
    return KNOBS[name].check(f"member.{name}", value)


def same(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("rate", 1, 1.0),
        ("rate", 0.1, 0.1),
        ("rate", np.float32(0.5), 0.5),
        ("rate", np.int64(2), 2.0),
        ("rate", jnp.float32(0.5), 0.5),
        ("decay", None, None),
        ("decay", 1e-4, 1e-4),
        ("width", 1e3, 1000),
        ("width", np.float64(1e3), 1000),
        ("flag", np.bool_(True), True),
        ("hidden", [8, 8], (8, 8)),
        ("hidden", [np.int64(8)], (8,)),
        ("hidden", (), ()),
        ("names", ["a"], ("a",)),
        ("norm", None, None),
        ("norm", "batch", "batch"),
        ("betas", [0.9, 0.999], (0.9, 0.999)),
        ("auto", "auto", "auto"),
        ("auto", 0.5, 0.5),
        ("free", [1, [2]], (1, (2,))),
    ],
)
def test_value_comes_back_in_the_knobs_own_type(name: str, value: Any, wanted: Any):
    assert same(check(name, value), wanted)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("rate", "1", 1.0),
        ("rate", "1e-3", 1e-3),
        ("decay", "None", None),
        ("decay", "0", 0.0),
        ("width", "1e3", 1000),
        ("flag", "True", True),
        ("path", "None", None),
        ("path", "C:/data (1)", "C:/data (1)"),
        ("path", "{{}}", "{{}}"),
        ("label", "12", "12"),
        ("label", "007", "007"),
        ("label", "nan", "nan"),
        ("label", "True", "True"),
        ("label", "None", "None"),
        ("label", "'12'", "12"),
        ("label", "plain words", "plain words"),
        ("hidden", "(1, 2)", (1, 2)),
        ("hidden", "[1, 2]", (1, 2)),
        ("hidden", "1,2", (1, 2)),
        ("names", "('a', 'b')", ("a", "b")),
        ("mode", "linear", "linear"),
        ("betas", "(0.9, 0.999)", (0.9, 0.999)),
        ("free", "relu", "relu"),
        ("free", "0.5", 0.5),
        ("free", "None", None),
    ],
)
def test_text_of_the_command_line_means_what_the_knob_takes(name: str, text: str, wanted: Any):
    assert same(check(name, Text(text)), wanted)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rate", True, "float"),
        ("rate", "0.1", "float"),
        ("rate", None, "float"),
        ("rate", math.nan, "float"),
        ("rate", -math.inf, "float"),
        ("rate", np.float32("inf"), "float"),
        ("rate", Text("nan"), "float"),
        ("rate", Text("inf"), "float"),
        ("rate", Text("1e999"), "float"),
        ("rate", Text("0.1x"), "float"),
        ("rate", Text(""), "float"),
        ("rate", [0.1], "float"),
        ("decay", False, "float or None"),
        ("width", True, "int"),
        ("width", 1.5, "int"),
        ("width", math.inf, "int"),
        ("width", Text("1.5"), "int"),
        ("flag", 1, "True or False"),
        ("flag", Text("false"), "True or False"),
        ("label", 12, "str"),
        ("hidden", 8, "a tuple of int"),
        ("hidden", [8, "8"], "a tuple of int"),
        ("hidden", [8, True], "a tuple of int"),
        ("hidden", [8, 1.5], "a tuple of int"),
        ("hidden", [[8]], "a tuple of int"),
        ("names", Text("accuracy"), "a tuple of str"),
        ("betas", (0.9, 0.99), "a tuple"),
        ("betas", Text("(0.9, 0.99)"), "a tuple"),
        ("mode", "cosin", "'cosine', 'linear'"),
        ("norm", "None", "'batch', 'layer' or None"),
        ("part", 1.5, "float, at least 0 and at most 1"),
        ("part", Text("-0.5"), "float, at least 0 and at most 1"),
        ("auto", 1.0, "'auto' or float, at least 0 and below 1"),
        ("auto", "always", "'auto' or float, at least 0 and below 1"),
        ("free", math.nan, "any value"),
        ("free", Text("nan"), "any value"),
        ("free", [0.5], "any value"),
        ("free", [[0.5]], "any value"),
    ],
)
def test_refusal_names_key_given_and_allowed(name: str, value: Any, allowed: str):
    with pytest.raises(ConfigError) as found:
        check(name, value)
    error = found.value
    assert (error.key, error.expected) == (f"member.{name}", allowed)
    assert error.got is value
    line = str(error)
    assert "\n" not in line
    assert line.startswith(f"member.{name}: got {value!r}; expected {allowed}")


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("mode", "cosin", "Did you mean 'cosine'?"),
        ("rate", Text("nan"), "a finite number"),
        ("hidden", Text("128"), "(128,)"),
        ("names", Text("accuracy"), "('accuracy',)"),
    ],
)
def test_refusal_says_what_was_probably_meant(name: str, value: Any, hint: str):
    with pytest.raises(ConfigError) as found:
        check(name, value)
    assert hint in str(found.value)


@pytest.mark.parametrize(
    ("annotation", "inside", "outside", "words"),
    [
        (Positive, 1e-9, 0.0, "float, above 0"),
        (NonNegative, 0.0, -1e-9, "float, at least 0"),
        (Fraction, 1.0, 1.0 + 1e-9, "float, at least 0 and at most 1"),
        (Probability, 0.0, 1.0, "float, at least 0 and below 1"),
        (Count, 1, 0, "int, at least 1"),
        (Annotated[int, Bounds(0, 2**32 - 1)], 2**32 - 1, 2**32, "int, at least 0 and at most 4294967295"),
        (
            Annotated[float | None, Bounds(0, open_low=True), OncePerRun()],
            0.1,
            0.0,
            "float or None, above 0, one number for the whole run",
        ),
        (Annotated[Fraction, Bounds(high=0.5)], 0.5, 0.6, "float, at least 0 and at most 1, at most 0.5"),
        (Fraction | str, "much", 2.0, "float or str, at least 0 and at most 1"),
    ],
)
def test_annotated_bounds_hold_at_their_ends(annotation: Any, inside: Any, outside: Any, words: str):
    def function(knob=MISSING): ...

    function.__annotations__["knob"] = annotation
    knob = knobs_of(function)["knob"]
    assert knob.check("key", inside) == inside
    with pytest.raises(ConfigError) as found:
        knob.check("key", outside)
    assert found.value.expected == words


@pytest.mark.parametrize(
    ("annotation", "value", "rounded"),
    [(Probability, 0.99999999999, "1.0"), (Positive, 1e-60, "0.0"), (Positive | None, 1e-60, "0.0")],
)
def test_a_number_that_float32_rounds_to_an_excluded_end_is_refused(annotation: Any, value: float, rounded: str):
    """An averaging of 0.99999999999 would be 1.0 in the program, and never move."""

    def function(knob=MISSING): ...

    function.__annotations__["knob"] = annotation
    for given in (value, Text(str(value))):
        with pytest.raises(ConfigError, match=f"in float32, in which runs compute, it is {rounded}"):
            knobs_of(function)["knob"].check("key", given)
    assert knobs_of(function)["knob"].check("key", 0.999999) == 0.999999


def test_only_a_mark_says_that_a_float_is_one_for_the_whole_run():
    def function(marked: Annotated[Positive, OncePerRun()], plain: Positive): ...

    assert [knob.once_per_run for knob in knobs_of(function).values()] == [True, False]


def test_a_value_is_traced_only_as_a_float():
    knob = Knob("decay", (float, type(None)))
    assert [knob.is_traced(value) for value in (0.5, None, 1, True)] == [True, False, False, False]


@pytest.fixture
def users_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module whose annotations are all strings, one of them with an undefined name."""
    source = """
from __future__ import annotations
import flax.linen as nn
from typing import TYPE_CHECKING, Literal
from jaxtrain.config.schema import Fraction
if TYPE_CHECKING:
    from nowhere import Unknown

def loss(predictions, targets, smooth: Fraction | None = None, mode: Literal["a", "b"] = "a", odd: Unknown = 2): ...

class Net(nn.Module):
    outputs: int
    hidden: tuple[int, ...] = (4,)
    dropout: Fraction = 0.0
"""
    module = types.ModuleType("users_module")
    monkeypatch.setitem(sys.modules, "users_module", module)
    exec(source, vars(module))
    return module


def test_string_annotations_are_understood(users_module: types.ModuleType):
    knobs = knobs_of(users_module.loss, 2)
    assert knobs["smooth"].allowed == "float or None, at least 0 and at most 1"
    assert knobs["mode"].choices == ("a", "b")
    assert knobs["odd"].types == (int,)  # the annotation has an undefined name, so the default gives the type


def test_string_annotations_of_a_class_are_read_in_its_module(users_module: types.ModuleType):
    knobs = knobs_of(users_module.Net, 1)
    assert list(knobs) == ["hidden", "dropout"]
    assert knobs["hidden"].element is int
    assert knobs["dropout"].allowed == "float, at least 0 and at most 1"


def test_linen_modules_fields_are_knobs_unless_a_config_cannot_hold_them():
    class Net(nn.Module):
        outputs: int
        width: int
        rate: float = 1
        activation: Any = nn.relu
        dtype: Any = jnp.float32
        optional: float = None  # type: ignore[assignment]

    knobs = knobs_of(Net, 1)
    assert list(knobs) == ["width", "rate", "optional"]
    assert knobs["width"].default is MISSING
    assert same(knobs["rate"].default, 1.0)
    assert knobs["optional"].check("key", None) is None


@pytest.mark.parametrize(
    ("name", "floats", "others"),
    [
        ("optax:lion", {"learning_rate", "b1", "b2", "weight_decay"}, {"mu_dtype", "mask"}),
        (
            "optax:adafactor",
            {"learning_rate", "decay_rate", "clipping_threshold", "eps"},
            {"min_dim_size_to_factor", "decay_offset", "multiply_by_parameter_scale", "factored", "momentum"},
        ),
        (
            "optax.contrib:muon",
            {"learning_rate", "beta", "eps", "weight_decay", "adam_b1", "adam_b2"},
            {"ns_coeffs", "ns_steps", "nesterov", "adaptive", "preconditioning"},
        ),
    ],
)
def test_optax_signatures_are_schemas_as_they_stand(name: str, floats: set[str], others: set[str]):
    knobs = knobs_of(import_member("optimizer.name", name))
    assert floats <= {name for name, knob in knobs.items() if float in knob.types}
    assert not others & {name for name, knob in knobs.items() if float in knob.types}
    assert others <= set(knobs)
    with pytest.raises(ConfigError):
        knobs["learning_rate"].check("optimizer.learning_rate", "fast")


def test_every_default_of_every_member_passes_its_own_check():
    for section in FAMILIES:
        table = family(section)
        for name in table.members:
            for knob in table.knobs(name).values():
                if knob.default is not MISSING:
                    assert same(knob.check(f"{name}.{knob.name}", knob.default), knob.default)


def test_annotations_win_over_defaults():
    def function(rate: float = 1, width: int | None = None): ...

    knobs = knobs_of(function)
    assert same(knobs["rate"].default, 1.0)
    assert knobs["width"].check("key", 3) == 3
