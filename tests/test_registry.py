import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

from jaxtrain.config.defaults import FAMILIES, family
from jaxtrain.config.registry import Family, bind, import_member, knobs_of, resolve
from jaxtrain.config.schema import Count, NonNegative, Positive
from jaxtrain.errors import ConfigError


def huber(predictions: Any, targets: Any, delta: Positive = 1.0, axis: int = -1, weight: float | None = None) -> Any:
    """Huber's loss."""
    return predictions, targets, delta, axis, weight


def averaged(loss: Any, parts: Count = 1, decay: NonNegative = 0.5) -> Any:
    """The knobs that are common to all losses."""
    return loss, parts, decay


FAMILY = Family("loss", {"huber": huber}, supplied=("predictions", "targets"), common=averaged, common_supplied=1)


def resolved(**given: Any) -> dict[str, Any]:
    return {"name": "huber"} | resolve(FAMILY.knobs("huber"), given, "loss")


def test_a_member_is_one_function_and_one_line():
    section = resolved(delta=2)
    assert section == {"name": "huber", "delta": 2.0, "axis": -1, "weight": None, "parts": 1, "decay": 0.5}
    bound = FAMILY.bind(section)
    assert bound({"loss.delta": jnp.float32(3.0)}, "p", "t") == ("p", "t", 3.0, -1, None)
    assert FAMILY.bind_common(section)({"loss.decay": 0.25}, "l") == ("l", 1, 0.25)


@pytest.mark.parametrize("section", [name for name in FAMILIES if name not in ("task", "model", "data")])
def test_any_function_joins_any_family_by_its_reference(section: str):
    table = family(section)
    for name, function in table.members.items():
        spelt = f"{function.__module__}:{function.__qualname__}"
        assert table.member(spelt) is function
        assert table.knobs(spelt) == table.knobs(name)


def test_a_config_imports_no_other_models_tasks_and_readers_than_its_own():
    code = (
        "import sys; from jaxtrain import default_config; from jaxtrain.config.resolve import resolve_config;"
        "from jaxtrain.config.defaults import FAMILIES, family; from jaxtrain.training import train;"
        "config = resolve_config(default_config().to_dict()).config;"
        "members = [family(name).member(config[name]['name']) for name in ('task', 'model', 'data')];"
        "packages = ('jaxtrain.models.', 'jaxtrain.tasks.', 'jaxtrain.data.readers.');"
        "print(*(name for name in sys.modules if name.startswith(packages)))"
    )
    place = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place, check=True)
    imported = set(done.stdout.split())
    assert {"jaxtrain.models.mlp", "jaxtrain.tasks.classification", "jaxtrain.data.readers.embedded"} <= imported
    others = {"jaxtrain.models.transformer", "jaxtrain.tasks.detection", "jaxtrain.data.readers.csv_files"}
    assert not others & imported


def test_floats_are_told_from_what_shapes_the_program():
    bound = FAMILY.bind(resolved(weight=1))
    assert bound.floats == ("delta", "weight")
    assert bound.static == (("axis", -1),)
    assert FAMILY.bind(resolved()).static == (("axis", -1), ("weight", None))


def test_floats_arrive_traced_and_other_floats_compile_nothing():
    seen: list[Any] = []

    def scaled(inputs: jax.Array, factor: float = 1.0, times: int = 2) -> jax.Array:
        seen.append((factor, times))
        return inputs * factor * times

    bound = bind(scaled, knobs_of(scaled, 1), {"factor": 0.5, "times": 3}, "model")
    program = jax.jit(lambda values, inputs: bound(values, inputs))
    results = [program({"model.factor": jnp.float32(factor)}, jnp.float32(2.0)) for factor in (0.5, 2.0)]
    assert np.allclose(results, [3.0, 12.0])
    (factor, times), *more = seen
    assert isinstance(factor, Tracer)
    assert times == 3
    assert not more


def test_bounds_that_differ_in_floats_alone_are_one():
    one, other = FAMILY.bind(resolved(delta=1.0)), FAMILY.bind(resolved(delta=2.0))
    assert one == other
    assert hash(one) == hash(other)
    assert one != FAMILY.bind(resolved(axis=0))
    assert one != FAMILY.bind(resolved(weight=0.0))
    assert one != FAMILY.bind(resolved(), "schedule.loss")


def test_a_path_names_the_floats_where_a_section_is_nested():
    bound = FAMILY.bind(resolved(), "schedule.optimizer.b1")
    assert bound({"schedule.optimizer.b1.delta": 7.0}, "p", "t")[2] == 7.0


def test_resolve_refuses_names_that_are_no_knobs():
    with pytest.raises(ConfigError) as found:
        resolved(detla=1.0)
    error = found.value
    assert (error.key, error.got) == ("loss.detla", "detla")
    assert error.expected == "one of axis, decay, delta, parts, weight"
    assert "Did you mean 'delta'?" in str(error)


def test_resolve_asks_for_what_has_no_default():
    def needy(rate: Positive): ...

    with pytest.raises(ConfigError) as found:
        resolve(knobs_of(needy), {}, "optimizer")
    assert (found.value.key, found.value.expected) == ("optimizer.rate", "float, above 0")
    assert "got nothing;" in str(found.value)


@pytest.mark.parametrize("section", [*FAMILIES])
def test_unknown_member_of_any_table_is_refused_with_the_nearest(section: str):
    table = family(section)
    name = next(iter(table.members))
    with pytest.raises(ConfigError) as found:
        table.member(name + "x", f"schedule.{section}")
    error = found.value
    assert (error.key, error.got) == (f"schedule.{section}.name", name + "x")
    assert error.expected == "one of " + ", ".join([*table.members, "package.module:function"])
    assert f"Did you mean '{name}'?" in str(error)


@pytest.mark.parametrize(
    ("name", "expected", "hint"),
    [
        ("optx:lion", "a module that can be imported", "Did you mean 'optax'?"),
        ("optax.contribs:muon", "a module that can be imported", "Did you mean 'contrib'?"),
        ("optax.lion:lion", "a module that can be imported", "'optax.lion'"),
        ("optax:loin", "a callable of optax", "Did you mean 'lion'?"),
        ("optax:contrib.muons", "a callable of optax", "Did you mean 'muon'?"),
        ("optax:__version__", "a callable of optax", "not a str"),
        ("optax:contrib", "a callable of optax", "not a module"),
        ("builtins:dict", "a callable with a signature", "no signature found"),
        *(
            (name, "package.module:function", "")
            for name in ("optax:", ":lion", ".x:lion", "my-loss:f", "a:b:c", "a b:c")
        ),
    ],
)
def test_reference_that_leads_nowhere_names_key_value_and_what_was_meant(name: str, expected: str, hint: str):
    with pytest.raises(ConfigError) as found:
        import_member("optimizer.name", name)
    error = found.value
    assert (error.key, error.got) == ("optimizer.name", name)
    assert expected in error.expected
    assert hint in str(error)
    assert "\n" not in str(error)


def test_reference_reaches_into_a_module():
    assert import_member("k", "optax:contrib.muon") is import_member("k", "optax.contrib:muon")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("import not_installed_anywhere", ModuleNotFoundError),
        ("import tool", ModuleNotFoundError),  # "toolbox.losses" begins with it
        ("from toolbox import nothing", ImportError),
        ("import toolbox.more", ModuleNotFoundError),
        ("1 / 0", ZeroDivisionError),
        ("def broken(:", SyntaxError),
    ],
)
def test_what_fails_inside_the_users_module_shows_the_users_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, kind: type[Exception]
):
    package = tmp_path / "toolbox"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "losses.py").write_text(f"# mine\n{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toolbox", raising=False)
    with pytest.raises(kind) as found:
        import_member("loss.name", "toolbox.losses:mine")
    assert not isinstance(found.value, ConfigError)
    shown = "".join(traceback.format_exception(found.value))
    assert f'{package / "losses.py"}", line 2' in shown
