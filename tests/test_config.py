import ast
import collections
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import ml_collections
import numpy as np
import optax
import pytest

from jaxtrain import data, load_config
from jaxtrain.config.defaults import FAMILIES, Config, default_config, family, flatten
from jaxtrain.config.hparams import bind_schedules, hyperparameters
from jaxtrain.config.identity import difference, digest, from_json, to_json
from jaxtrain.config.registry import knobs_of
from jaxtrain.config.resolve import load, resolve_config
from jaxtrain.config.schema import OncePerRun, Text
from jaxtrain.config.section_traits import TRAITS
from jaxtrain.config.sections import SECTIONS
from jaxtrain.errors import ConfigError
from jaxtrain.optimizers.wrappers import wrap
from jaxtrain.training.train import train_and_evaluate

DEFAULT = resolve_config(default_config()).config
RATE = "schedule.optimizer.learning_rate"
WRAPPER = dict.fromkeys(knobs_of(wrap, 1))
"""The knobs that every optimizer has, for clipping, freezing and scaling, all off."""


def resolved(**sections: Any) -> Config:
    return resolve_config(sections).config


def overridden(**overrides: Any) -> Config:
    """Resolves the default with overrides, whose dots are written as double underscores."""
    return resolve_config({}, {name.replace("__", "."): value for name, value in overrides.items()}).config


def refused(given: Any, overrides: dict[str, Any] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as found:
        resolve_config(given, overrides)
    assert "\n" not in str(found.value)
    return found.value


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a config file, with `lines` in the body of its `get_config()`."""

    def written(*lines: str, name: str = "mine.py") -> Path:
        body = ["config = default_config()", *lines, "return config"]
        text = "from jaxtrain import default_config\n\ndef get_config():\n    " + "\n    ".join(body) + "\n"
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Makes a user's module, importable as `users`."""
    module = types.ModuleType("users")
    monkeypatch.setitem(sys.modules, "users", module)
    return module


# Files and overrides


def test_the_default_has_every_section_and_never_a_constant_rate():
    assert set(DEFAULT) == {"seed", *SECTIONS, *FAMILIES}
    assert DEFAULT["schedule"]["optimizer"]["learning_rate"]["name"] == "warmup_cosine"
    assert DEFAULT["optimizer"]["b2"] == 0.999  # knobs that are left out show the signature's default


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("seed", 3, 3),
        ("seed", Text("1e3"), 1000),
        ("seed", np.int64(7), 7),
        ("optimizer.learning_rate", 1, 1.0),
        ("optimizer.clip_norm", Text("1"), 1.0),
        ("optimizer.clip_norm", Text("None"), None),
        ("model.hidden", [8, 8], (8, 8)),
        ("model.hidden", Text("(8, 8)"), (8, 8)),
        ("model.dropout", Text("0.1"), 0.1),
        ("track.tensorboard", Text("False"), False),
        ("data.path", Text("12"), "12"),
        (f"{RATE}.warmup", Text("0"), 0.0),
        ("schedule.optimizer.b1.name", "constant", "constant"),
        ("task.metrics", (), ()),
    ],
)
def test_overrides_reach_any_depth(key: str, value: Any, wanted: Any):
    found = flatten(resolve_config({}, {key: value}).config)[key]
    assert (found, type(found)) == (wanted, type(wanted))


def test_file_and_notebook_and_dict_agree(write: Callable[..., Path]):
    path = write("config.optimizer.learning_rate = 0.1", "config.model = {'name': 'mlp', 'hidden': [8, 8]}")
    ours = load_config(path, {"seed": 3, "optimizer.clip_norm": 1})
    assert ours["optimizer"] | {"learning_rate": 0.1, "clip_norm": 1.0} == ours["optimizer"]
    given = {
        "seed": 3,
        "model": {"name": "mlp", "hidden": (8, 8)},
        "optimizer": {"name": "adamw", "learning_rate": 0.1, "clip_norm": 1.0},
    }
    assert ours == resolved(**given) == resolve_config(ml_collections.ConfigDict(given)).config
    assert load_config(str(path), {"seed": Text("3"), "optimizer.clip_norm": Text("1")}) == ours


def test_a_saved_config_gives_the_same_run(write: Callable[..., Path], tmp_path: Path):
    overrides = {"model.name": "cnn", "optimizer.name": "sgd", "train.ema": 0.9, RATE: "cyclic"}
    loaded = load(write("config.schedule.optimizer.momentum = 'one_cycle'"), overrides).config
    saved = tmp_path / "config.json"
    saved.write_text(to_json(loaded))
    again = load(saved, {})
    assert again.config == loaded
    assert again.notes == ()
    assert digest(again.config) == digest(loaded)
    assert again.config["model"]["features"] == (32, 64)
    assert difference(again.config, from_json(saved.read_text())) == {}
    assert load_config(saved, {"model.hidden": [4]})["model"]["hidden"] == (4,)


@pytest.mark.parametrize("name", ["optax:adafactor", "optax.contrib:muon", "optax:lion"])
def test_a_saved_config_gives_back_what_other_libraries_signatures_hold(name: str):
    config = overridden(optimizer__name=name)
    again = resolve_config(from_json(to_json(config)))
    assert (again.config, again.notes) == (config, ())


def test_a_file_is_read_anew_each_time(write: Callable[..., Path]):
    assert load_config(write("config.seed = 1"))["seed"] == 1
    path = write("config.seed = 2")  # within the second, and of the same size
    assert load_config(path)["seed"] == 2
    assert [file.name for file in path.parent.iterdir()] == ["mine.py"]


def test_resolving_leaves_what_it_was_given_alone():
    given = {"model": {"name": "mlp", "hidden": [8]}, "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    before = json.dumps(given)
    resolve_config(given, {"model.dropout": 0.5, "optimizer.name": "adam"})
    assert json.dumps(given) == before


def test_a_string_for_a_section_is_a_members_name():
    given = {"optimizer": {"name": "adamw", "learning_rate": 0.5, "weight_decay": 0.1}, "model": "cnn"}
    assert resolve_config(given).config["model"]["name"] == "cnn"
    found = resolve_config(given, {"optimizer": Text("adam"), "optimizer.b1": Text("0.8")})
    assert found.config["optimizer"]["learning_rate"] == 0.5  # the file's own knobs count as with optimizer.name
    assert found.config["optimizer"]["b1"] == 0.8
    assert found.notes == ("optimizer.weight_decay is dropped: adam has no such knob",)
    assert found == resolve_config(given, {"optimizer.name": "adam", "optimizer.b1": 0.8})


def test_a_mapping_for_a_section_replaces_it():
    found = overridden(
        optimizer={"name": "sgd", "learning_rate": 0.5}, model=ml_collections.ConfigDict({"name": "cnn"})
    )
    assert (found["optimizer"]["learning_rate"], found["optimizer"]["momentum"]) == (0.5, 0.9)
    assert found["model"]["name"] == "cnn"


def test_difference_is_what_changed_and_nothing_else():
    other = overridden(optimizer__learning_rate=0.1, model__hidden=(8,), train__ema=0.9)
    assert difference(other, DEFAULT) == {
        "model.hidden": ([8], [128, 128]),
        "optimizer.learning_rate": (0.1, 0.001),
        "train.ema": (0.9, None),
    }
    assert difference(DEFAULT, DEFAULT) == {}
    assert difference(overridden(optimizer__name="adam"), DEFAULT)["optimizer.weight_decay"] == (None, 1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log.every", "1 steps"),
        ("track.tensorboard", False),
        ("checkpoint.every", "1 steps"),
        ("checkpoint.keep", 5),
    ],
)
def test_digest_ignores_what_changes_no_number(key: str, value: Any):
    assert digest(resolve_config({}, {key: value}).config) == digest(DEFAULT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("data.seed", 1),
        ("optimizer.learning_rate", 0.1),
        ("model.hidden", (128,)),
        ("eval.every", "1 steps"),
        ("checkpoint.init_from", "runs/x"),
        ("checkpoint.init_except", "head"),
        (f"{RATE}.warmup", 0.1),
        (RATE, None),
    ],
)
def test_digest_sees_what_changes_numbers(key: str, value: Any):
    found = digest(resolve_config({}, {key: value}).config)
    assert found != digest(DEFAULT)
    assert len(found) == 8
    assert int(found, 16) >= 0


def test_hyperparameters_are_exactly_the_floats_of_the_program():
    config = resolve_config(
        {
            "task": {"name": "classification", "metrics": ("accuracy",)},
            "model": {"name": "mlp", "dropout": 0.1},
            "loss": {"name": "cross_entropy", "label_smoothing": 0},
            "optimizer": {"name": "sgd", "learning_rate": 1, "momentum": None, "clip_norm": 2},
            "schedule": {"optimizer": {"learning_rate": {"name": "one_cycle", "end": 0}}},
            "train": {"ema": 0.9},
        }
    ).config
    assert hyperparameters(config) == {
        "model.dropout": 0.1,
        "loss.label_smoothing": 0.0,
        "optimizer.learning_rate": 1.0,
        "optimizer.clip_norm": 2.0,
        "train.ema": 0.9,
        f"{RATE}.warmup": 0.3,
        f"{RATE}.start": 0.04,
        f"{RATE}.peak": 1.0,
        f"{RATE}.end": 0.0,
    }
    assert "train.ema" not in hyperparameters(DEFAULT)


# Members and their knobs


def test_knobs_of_the_files_member_are_dropped_and_said_where_another_is_chosen():
    given = {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5, "nesterov": True}}
    found = resolve_config(given, {"optimizer.name": "adam"})
    assert found.config["optimizer"]["learning_rate"] == 0.1
    assert found.notes == (
        "optimizer.momentum is dropped: adam has no such knob",
        "optimizer.nesterov is dropped: adam has no such knob",
    )


@pytest.mark.parametrize("overrides", [{}, {"optimizer.name": "adam"}])
def test_a_typed_knob_that_the_member_lacks_is_refused_with_those_it_has(overrides: dict[str, Any]):
    error = refused(
        {"optimizer": {"name": "adam", "learning_rate": 0.1}}, overrides | {"optimizer.momentum": Text("0.9")}
    )
    assert (error.key, error.got) == ("optimizer.momentum", "momentum")
    assert error.expected == "one of " + ", ".join(sorted({"b1", "b2", "eps", "learning_rate", *WRAPPER}))


def test_a_files_knob_that_its_own_member_lacks_is_refused():
    error = refused({"optimizer": {"name": "adam", "learning_rate": 0.1, "momentum": 0.5}})
    assert (error.key, error.expected) == (
        "optimizer.momentum",
        "one of " + ", ".join(sorted({"b1", "b2", "eps", "learning_rate", *WRAPPER})),
    )


def test_a_member_by_reference_has_its_knobs(users: types.ModuleType):
    def mine(learning_rate: float, strength: float = 1, times: int = 2) -> optax.GradientTransformation:
        return optax.sgd(learning_rate)

    users.__dict__["mine"] = mine
    found = overridden(optimizer__name="users:mine", optimizer__strength=3)
    assert found["optimizer"] == {
        "name": "users:mine",
        "learning_rate": 1e-3,
        "strength": 3.0,
        "times": 2,
        **WRAPPER,
    }
    assert {"optimizer.strength", "optimizer.learning_rate"} <= set(hyperparameters(found))


def test_the_defaults_knobs_are_dropped_and_said_for_a_files_member_without_them(users: types.ModuleType):
    def mine(strength: float = 1.0) -> optax.GradientTransformation:
        return optax.scale(-strength)

    users.__dict__["mine"] = mine
    given = default_config()
    given.optimizer.name = "users:mine"
    found = resolve_config(given)
    assert found.config["optimizer"] == {"name": "users:mine", "strength": 1.0} | WRAPPER
    assert found.notes == (
        "optimizer.learning_rate is dropped: users:mine has no such knob",
        f"{RATE} is dropped: users:mine has no learning_rate",
    )


# Schedules


def scheduled(config: Config) -> dict[str, str]:
    return {target: bound.function.__name__ for target, bound in bind_schedules(config)}


@pytest.mark.parametrize("none", [None, Text("None")])
def test_none_removes_a_schedule_and_all_of_them(none: Any):
    for key in (RATE, "schedule.optimizer", "schedule"):
        assert resolve_config({}, {key: none}).config["schedule"] == {}
    again = resolve_config({"schedule": None}, {RATE: "constant"}).config
    assert scheduled(again) == {"optimizer.learning_rate": "constant"}


def test_a_string_is_a_schedules_name():
    given = {
        "schedule": {
            "optimizer": {"learning_rate": "one_cycle", "b1": "cyclic"},
            "loss": {"label_smoothing": "constant"},
        }
    }
    found = resolve_config(given, {"schedule.optimizer.b1.low": Text("0.5")}).config
    assert scheduled(found) == {
        "loss.label_smoothing": "constant",
        "optimizer.b1": "cyclic",
        "optimizer.learning_rate": "one_cycle",
    }
    assert found["schedule"]["optimizer"]["b1"]["low"] == 0.5


def test_another_schedule_by_name_drops_and_says_the_knobs_that_it_lacks():
    given = {"schedule": {"optimizer": {"learning_rate": {"name": "one_cycle", "peak": 0.5, "warmup": 0.2}}}}
    found = resolve_config(given, {RATE: Text("warmup_cosine")})
    assert found.config["schedule"]["optimizer"]["learning_rate"] == {
        "name": "warmup_cosine",
        "warmup": 0.2,
        "start": 0.0,
        "end": 0.0,
    }
    assert found.notes == (f"{RATE}.peak is dropped: warmup_cosine has no such knob",)


def test_a_schedules_floats_are_named_by_their_place():
    ((target, bound),) = bind_schedules(DEFAULT)
    assert (target, bound.section) == ("optimizer.learning_rate", RATE)
    assert {f"{bound.section}.{name}" for name in bound.floats} == {
        n for n in hyperparameters(DEFAULT) if "schedule" in n
    }


@pytest.mark.parametrize(
    ("target", "given", "reason"),
    [
        ("optimizer.lerning_rate", {}, "Did you mean 'optimizer.learning_rate'?"),
        ("optimiser.learning_rate", {}, "Did you mean 'optimizer.learning_rate'?"),
        ("data.batch_size", {}, "not a hyperparameter"),
        ("train.ema", {}, "train.ema is None"),
        ("optimizer.clip_norm", {}, "optimizer.clip_norm is None"),
        ("model.hidden", {}, "not a float"),
        ("optimizer", {}, "adamw has no such float"),
        ("optimizer.momentum", {"optimizer": {"name": "adam", "learning_rate": 0.1}}, "adam has no momentum"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_with_what_can(target: str, given: dict[str, Any], reason: str):
    error = refused(given, {f"schedule.{target}.name": "constant"})
    assert (error.key, error.got) == (f"schedule.{target}", "constant")
    assert "optimizer.learning_rate" in error.expected
    assert "schedule" not in error.expected.removeprefix("a schedule for one of")
    assert reason in str(error)


def test_a_schedule_of_nothing_is_refused():
    for given in ("constant", 5):
        error = refused({"schedule": given})
        assert (error.key, error.got) == ("schedule", given)


def test_a_schedule_itself_is_checked_at_its_place():
    error = refused({}, {RATE: "warmup_cosin"})
    assert (error.key, error.got) == (f"{RATE}.name", "warmup_cosin")
    assert "Did you mean 'warmup_cosine'?" in str(error)
    error = refused({}, {f"{RATE}.warmup": 2})
    assert (error.key, error.got) == (f"{RATE}.warmup", 2)
    error = refused({}, {f"{RATE}.wramup": 2})
    assert error.key == f"{RATE}.wramup"
    assert "Did you mean 'warmup'?" in str(error)


def test_a_schedule_for_a_knob_that_the_chosen_member_lacks_is_dropped_and_said():
    given = {
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "schedule": {"optimizer": {"momentum": "one_cycle", "learning_rate": "one_cycle"}},
    }
    assert set(scheduled(resolve_config(given).config)) == {"optimizer.momentum", "optimizer.learning_rate"}
    found = resolve_config(given, {"optimizer.name": "adam"})
    assert found.notes == ("schedule.optimizer.momentum is dropped: adam has no momentum",)
    assert set(scheduled(found.config)) == {"optimizer.learning_rate"}


def test_train_ema_may_follow_a_schedule():
    found = overridden(train__ema=0.9, schedule__train__ema="constant")
    assert scheduled(found)["train.ema"] == "constant"


@pytest.mark.parametrize("by", ["file", "override"])
def test_rprop_drops_the_default_schedule_and_says_so(by: str):
    given = {"optimizer": {"name": "rprop", "learning_rate": 0.1}} if by == "file" else {}
    found = resolve_config(given, {"optimizer.name": "rprop"} if by == "override" else {})
    assert found.config["schedule"] == {}
    (note,) = (note for note in found.notes if note.startswith(f"{RATE} is dropped: rprop"))
    assert "for the whole run" in note


def test_rprop_refuses_a_schedule_that_was_asked_for():
    rprop = {"optimizer": {"name": "rprop", "learning_rate": 0.1}}
    explicit = {"schedule": {"optimizer": {"learning_rate": {"name": "one_cycle"}}}}
    for error in (
        refused(rprop | explicit),
        refused(rprop, {RATE: "warmup_cosine"}),
        refused({}, {"optimizer.name": "rprop", f"{RATE}.warmup": 0.1}),
    ):
        assert error.key == RATE
        assert "eta_minus" in error.expected
        assert "optimizer.learning_rate" not in error.expected.split(", ")


def test_the_mark_refuses_a_schedule_for_a_users_own_member(users: types.ModuleType):
    def mine(learning_rate: float, first: Annotated[float, OncePerRun()] = 1.0) -> optax.GradientTransformation:
        return optax.sgd(learning_rate)

    users.__dict__["mine"] = mine
    assert refused({}, {"optimizer.name": "users:mine", "schedule.optimizer.first": "constant"}).key.endswith("first")
    assert overridden(optimizer__name="users:mine")["schedule"] != {}


# Errors: key, given value and allowed values


@pytest.mark.parametrize(
    ("key", "value", "at", "allowed", "hint"),
    [
        ("sede", 1, "sede", "seed", "'seed'"),
        ("optimzer.learning_rate", 1, "optimzer", "optimizer", "'optimizer'"),
        ("optimizer.lr", 1, "optimizer.lr", "learning_rate", ""),
        ("train.epochs", 1, "train.epochs", "duration", ""),
        ("train.durations", 1, "train.durations", "duration", "'duration'"),
        ("checkpoint.evry", 1, "checkpoint.evry", "every", "'every'"),
        ("model.hiden", 1, "model.hiden", "hidden", "'hidden'"),
        ("data.batchsize", 1, "data.batchsize", "batch_size", "'batch_size'"),
        (f"{RATE}.wram", 1, f"{RATE}.wram", "warmup", "'warmup'"),
        ("train.more.deeper", 1, "train.more", "duration", ""),
    ],
)
def test_unknown_key_at_any_depth(key: str, value: Any, at: str, allowed: str, hint: str):
    error = refused({}, {key: value})
    assert (error.key, error.got) == (at, at.rpartition(".")[2])
    assert allowed in error.expected.removeprefix("one of ").split(", ")
    assert (f"Did you mean {hint}?" if hint else "") in str(error)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("seed", "a", "int, at least 0 and at most 4294967295"),
        ("seed", -1, "int, at least 0 and at most 4294967295"),
        ("seed", 2**32, "int, at least 0 and at most 4294967295"),
        ("seed", True, "int, at least 0 and at most 4294967295"),
        ("optimizer.learning_rate", float("nan"), "float, at least 0"),
        ("optimizer.learning_rate", Text("nan"), "float, at least 0"),
        ("optimizer.learning_rate", Text("-0.1"), "float, at least 0"),
        ("optimizer.learning_rate", Text("fast"), "float, at least 0"),
        ("optimizer.b2", 1.0, "float, at least 0 and below 1"),
        ("optimizer.clip_norm", 0, "float or None, above 0"),
        ("loss.label_smoothing", 1.5, "float, at least 0 and at most 1"),
        ("model.dropout", -0.1, "float or None, at least 0 and below 1"),
        ("model.hidden", Text("128"), "a tuple of int, at least 1, at most 256 of them"),
        ("model.hidden", (8, 0.5), "a tuple of int, at least 1, at most 256 of them"),
        ("model.activation", "rleu", "'relu', 'gelu', 'silu', 'tanh'"),
        ("data.test_fraction", Text("1.5"), "float, at least 0 and below 1"),
        ("data.validation_fraction", -0.1, "float, at least 0 and below 1"),
        ("data.batch_size", 0, "int, at least 1"),
        ("data.batch_size", 12.5, "int, at least 1"),
        ("train.duration", Text("0 steps"), "str, above zero, written '10 epochs', '2000 steps' or '10 minutes'"),
        ("train.duration", 10, "str, above zero, written '10 epochs', '2000 steps' or '10 minutes'"),
        ("train.duration", "50 %", "str, above zero, written '10 epochs', '2000 steps' or '10 minutes'"),
        ("train.accumulate", 0, "int, at least 1"),
        ("train.ema", 1.5, "float or None, at least 0 and below 1"),
        ("eval.every", "never", "str, above zero, written '10 epochs', '2000 steps' or '5 %' of the run"),
        ("checkpoint.keep", 0, "int, at least 1"),
        ("track.tensorboard", Text("yes"), "True or False"),
        ("parallel.backend", "pmpa", "'mesh', 'pmap'"),
        (f"{RATE}.warmup", Text("2"), "float, at least 0 and at most 1"),
    ],
)
def test_wrong_value(key: str, value: Any, allowed: str):
    error = refused({}, {key: value})
    assert (error.key, error.got, error.expected) == (key, value, allowed) or value != value
    assert (error.key, error.expected) == (key, allowed)
    assert str(error).startswith(f"{key}: got {value!r}; expected {allowed}")


@pytest.mark.parametrize("section", [name for name in FAMILIES if name != "schedule"])
def test_unknown_member_of_any_section(section: str):
    name = next(iter(family(section).members))
    entry = f"{section}.mine" if family(section).beside else section
    for key in (entry, f"{entry}.name"):
        error = refused({}, {key: Text(name + "_")})
        assert (error.key, error.got) == (f"{entry}.name", name + "_")
        assert name in error.expected.removeprefix("one of ").split(", ")
        assert f"Did you mean '{name}'?" in str(error)


@pytest.mark.parametrize(
    ("given", "overrides", "key"),
    [
        ({"train": None}, {}, "train"),
        ({"optimizer": 5}, {}, "optimizer"),
        ({"train": [1]}, {}, "train"),
        ({}, {"train": Text("5")}, "train"),
        ({}, {"seed.x": Text("5")}, "seed.x"),
        ({}, {"optimizer.learning_rate.x": Text("5")}, "optimizer.learning_rate.x"),
        ({"train": {"duration": "1 steps"}}, {"train.duration.x": Text("5")}, "train.duration.x"),
        ({"model": {"name": "mlp", "activation": "relu"}}, {"model.activation.x": "5"}, "model.activation.x"),
        ({"optimizer": {"learning_rate": 0.1}}, {}, "optimizer.name"),
        ({"optimizer": "sgd"}, {}, "optimizer.learning_rate"),
        ({"schedule": {"optimizer": {"learning_rate": 5}}}, {}, RATE),
    ],
)
def test_wrong_shape_of_a_config(given: dict[str, Any], overrides: dict[str, Any], key: str):
    assert refused(given, overrides).key == key


def test_a_module_that_cannot_be_imported():
    error = refused({}, {"loss.name": Text("jaxtrain.tasks.loses:mse")})
    assert (error.key, error.got) == ("loss.name", "jaxtrain.tasks.loses:mse")
    assert "Did you mean 'losses'?" in str(error)


BROKEN = {
    "syntax.py": ("def get_config(:", "SyntaxError", "line 1"),
    "raises.py": ("\ndef get_config():\n    return 1 / 0", "ZeroDivisionError", "at line 3"),
    "many.py": ("raise ValueError('one\\ntwo')", "ValueError", "at line 1"),
    "imports.py": ("import not_installed_anywhere", "ModuleNotFoundError", "at line 1"),
    "lacks.py": ("x = 1", "get_config()", ""),
    "constant.py": ("get_config = 1", "get_config()", ""),
    "returns.py": ("def get_config(): return 5", "ConfigDict", "not a int"),
    "nothing.py": ("def get_config(): pass", "ConfigDict", "NoneType"),
    "needs.py": ("def get_config(a): return {}", "needs no arguments", "'a'"),
    "bytes.py": ("\udc80", "SyntaxError", ""),
    "unset.py": (
        "from ml_collections import config_dict as c\n"
        "def get_config(): return c.ConfigDict({'seed': c.required_placeholder(int)})",
        "RequiredValueError",
        "",
    ),
    "mistyped.py": (
        "from jaxtrain import default_config\ndef get_config():\n    default_config().optimzer.x = 1",
        "Did you mean",
        "optimizer",
    ),
    "cut.json": ('{"seed": ', "JSONDecodeError", "line 1"),
    "empty.json": ("", "JSONDecodeError", ""),
    "list.json": ("[1]", "a JSON object", "not a list"),
    "bytes.json": ("\udc80", "UnicodeDecodeError", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_config_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text, *said = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    monkeypatch.chdir(tmp_path)
    for given in (path, Path(name)):  # the line is found for a relative path, too
        with pytest.raises(ConfigError) as found:
            load_config(given)
        error = found.value
        assert (error.key, error.got) == ("config file", str(given))
        assert all(word.lower() in str(error).lower() for word in said)
        assert "\n" not in str(error)


def test_missing_config_file_is_refused_with_the_nearest(write: Callable[..., Path]):
    path = write(name="digits.py")
    for given in (path.with_name("digit.py"), path.parent, Path("nowhere/x.py")):
        with pytest.raises(ConfigError) as found:
            load_config(given)
        assert (found.value.key, found.value.got) == ("config file", str(given))
        assert ("Did you mean 'digits.py'?" in str(found.value)) == (given.name == "digit.py")


def test_an_error_in_a_users_member_is_not_taken_for_one_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_broken_loss.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        overridden(loss__name="my_broken_loss:loss")


# Every declared key is read


class Recorded(dict[str, Any]):
    """A section that records the keys that jaxtrain reads, except in the modules that resolve configs."""

    def __init__(self, path: str, values: dict[str, Any], reads: set[str]) -> None:
        super().__init__(values)
        self._path, self._reads = path, reads

    def __getitem__(self, key: str) -> Any:
        asked_by = sys._getframe(1).f_globals["__name__"]
        if asked_by.startswith("jaxtrain.") and asked_by not in ("jaxtrain.config.resolve", "jaxtrain.config.registry"):
            self._reads.add(f"{self._path}.{key}")
        return super().__getitem__(key)


def recorded(config: Config, reads: set[str]) -> Config:
    return {name: Recorded(name, value, reads) if isinstance(value, dict) else value for name, value in config.items()}


@pytest.mark.slow
def test_every_knob_of_the_sections_is_read_by_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from jaxtrain.commands.options import Options
    from jaxtrain.lr_range.from_config import lr_range_test
    from jaxtrain.main import main
    from jaxtrain.search.run import run_search

    random = np.random.default_rng(0)
    np.savez(tmp_path / "tiny.npz", inputs=random.random((40, 3)), targets=random.integers(0, 2, 40))
    tiny = {
        "model": {"name": "mlp", "hidden": (2,)},
        "data": {"name": "arrays", "file": "tiny.npz", "path": str(tmp_path), "batch_size": 4, "eval_batch_size": 4},
        "train": {"duration": "2 steps", "ema": 0.9},
        "parallel": {"mesh": 1},
        "eval": {"every": "1 steps"},
        "search": {
            "space": {"model": {"dropout": ("uniform", 0.0, 0.5)}},
            "trials": 2,
            "halving": "successive",
            "reduction": 2,
        },
        "lr_range": {
            "rates": 5,
            "seeds": 1,
            "steps": "2 steps",
            "second": "train.ema",
            "second_count": 2,
            "second_stop": 0.9,
        },
    }
    reads: set[str] = set()
    plain = data.Settings.__getattribute__

    def noted(settings: data.Settings, name: str) -> Any:
        reads.add(f"data.{name}")
        return plain(settings, name)

    monkeypatch.setattr(data.Settings, "__getattribute__", noted)
    first = resolve_config(tiny).config
    train_and_evaluate(recorded(first, reads), tmp_path / "first", quiet=True)
    adapted = {"checkpoint.init_from": str(tmp_path / "first"), "lora.paths": "kernel"}
    tuned = resolve_config(tiny, adapted).config
    train_and_evaluate(recorded(tuned, reads), tmp_path / "tuned", quiet=True)
    lr_range_test(recorded(first, reads), tmp_path / "tested")
    streamed = data.Source({"train": [(np.full(3, i), i % 2) for i in range(40)]})
    config = data.with_given(resolve_config(tiny, {"data.feed": "stream"}).config, streamed)
    train_and_evaluate(recorded(config, reads), tmp_path / "streamed", data=streamed, quiet=True)
    shared = {**first, "search": {**first["search"], "storage": f"sqlite:///{tmp_path}/study.db"}}
    run_search(recorded(shared, reads), tmp_path / "searched", quiet=True)
    monkeypatch.setattr(Options, "resolve", lambda options: (recorded(first, reads), tmp_path / "checked"))
    assert main(["check", "--config=tiny.py", "--only=balance", "--quiet"]) == 0
    kinds = {**SECTIONS, "data": data.Settings}
    fields = {f"{section}.{name}" for section, kind in kinds.items() for name in kind.__annotations__}
    # The one float of a program among them is read by its full name, as a hyperparameter.
    by_full_name = {name for name in hyperparameters(first) if name in fields and name in literals()}
    assert by_full_name == {"train.ema"}
    assert fields - reads - by_full_name == set()


def literals() -> set[str]:
    """Returns the literal keys in subscripts of jaxtrain, such as `values["train.ema"]`, outside config resolution."""
    found: collections.Counter[str] = collections.Counter()
    for path in (Path(__file__).parent.parent / "jaxtrain").rglob("*.py"):
        if path.name not in ("resolve.py", "registry.py"):
            nodes = [node.slice for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Subscript)]
            found.update(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return set(found)


def test_every_section_has_its_traits():
    """A section that is new is to be thought of once: in the table that programs, digests and searches read."""
    assert set(TRAITS) == {"seed", *FAMILIES, *SECTIONS}


TEXTS = [
    f"{name}.{knob}"
    for name, section in SECTIONS.items()
    for knob, of_knob in knobs_of(section).items()
    if str in of_knob.types and not of_knob.choices
]


@pytest.mark.parametrize("key", [*TEXTS, "data.path", "optimizer.frozen"])
@pytest.mark.parametrize("blank", ["", "  "])
def test_a_text_that_is_blank_is_refused(key: str, blank: str):
    """It would be taken for the current folder, for every parameter, or for no value at all."""
    with pytest.raises(ConfigError) as found:
        overridden(**{key.replace(".", "__"): blank})
    assert (found.value.key, found.value.got) == (key, blank)


def test_an_average_that_forgets_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"train\.ema: got 1\.0; expected .*below 1"):
        overridden(train__ema=1.0)
    assert overridden(train__ema=0.9999)["train"]["ema"] == 0.9999
