"""Sizes and depths beyond reason: refused from the number alone, in one line, before anything is allocated."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from jaxtrain.config.files import read
from jaxtrain.config.resolve import resolve_config
from jaxtrain.config.schema import MOST_NESTED, Text, is_too_deep
from jaxtrain.errors import ConfigError, message
from jaxtrain.lr_range.from_config import lr_range_test
from jaxtrain.models.norms import batch_norm, group_norm, layer_norm, rms_norm
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.mesh import device_mesh
from jaxtrain.parallel.population import Population
from jaxtrain.search.run import run_search
from jaxtrain.search.space import read_space
from jaxtrain.training.experiment import build
from jaxtrain.training.memory_plan import batch_sizes
from jaxtrain.training.plan import plan
from jaxtrain.training.train import train_and_evaluate

SPACE = {"optimizer": {"learning_rate": ("log_uniform", 1e-4, 1e-1)}}
LAST = 2**32 - 1
COMMANDS = {
    "train": train_and_evaluate,
    "lr_range": lr_range_test,
    "search": run_search,
    "plan": lambda config, workdir: plan(config),
}


def config_of(**overrides: Any) -> dict[str, Any]:
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    return resolve_config({**tiny_runs.GIVEN, "search": {"space": SPACE}}, given).config


BEYOND = [
    ("train", {"data__batch_size": 10**12}, r"data\.batch_size: got 1000000000000; expected 1 to 1437"),
    ("plan", {"data__batch_size": 10**12}, r"data\.batch_size: got 1000000000000; expected 1 to 1437"),
    ("search", {"data__batch_size": 10**12}, r"data\.batch_size: got 1000000000000; expected 1 to 1437"),
    ("lr_range", {"data__batch_size": 10**12}, r"data\.batch_size: got 1000000000000; expected 1 to 1437"),
    ("train", {"data__eval_batch_size": 10**12}, r"data\.eval_batch_size: got 10+; expected batches of at most .* GiB"),
    ("train", {"train__seeds": 10**9}, r"train\.seeds: got 1000000000; expected at most .* lanes in all"),
    ("plan", {"train__seeds": 10**9}, r"train\.seeds: got 1000000000; expected at most"),
    ("train", {"train__seeds": 3, "seed": LAST - 1}, r"train\.seeds: got 3; expected at most 2, since seeds end"),
    ("lr_range", {"lr_range__seeds": 10**9}, r"lr_range\.seeds: got 1000000000; expected at most .* lanes in all"),
    ("lr_range", {"lr_range__seeds": 3, "seed": LAST}, r"lr_range\.seeds: got 3; expected at most 1, since"),
    ("lr_range", {"lr_range__steps": "1e300 steps"}, r"lr_range\.steps: got '1e300 steps'; expected fewer than"),
    ("search", {"search__seeds": 10**9}, r"search\.seeds: got 1000000000; expected at most .* lanes in all"),
    ("search", {"search__seeds": 2, "seed": LAST}, r"search\.seeds: got 2; expected at most 1, since"),
    ("search", {"search__compare_seeds": 10**9}, r"search\.compare_seeds: got 1000000000; expected at most"),
    ("search", {"search__compare_seeds": 3, "seed": LAST}, r"search\.compare_seeds: got 3; expected at most 0, since"),
    ("train", {"model__hidden": (10**9,)}, r"model\.hidden: got \(1000000000,\); expected a state of at most .* GiB"),
    ("plan", {"model__hidden": (8, 2**62)}, r"model\.hidden: got .*; expected a state of at most .* GiB"),
    ("search", {"model__hidden": (10**5, 10**6)}, r"model\.hidden: got .*; expected a state of at most .* GiB"),
    (
        *("train", {"optimizer": "optax:lbfgs", "optimizer__memory_size": 10**9}),
        r"optimizer\.memory_size: got 1000000000; expected a state of at most",
    ),
    ("train", {"lora__paths": "kernel", "lora__rank": 10**12}, r"lora\.rank: got 10+; expected a state of at most"),
    ("train", {"train__duration": "1e308 epochs"}, r"train\.duration: got '1e308 epochs'; expected fewer than"),
    (
        "train",
        {"model__norm": "batch", "data__batch_size": 1},
        r"data\.batch_size: got one example in each micro-batch",
    ),
    (
        *("search", {"model__norm": "batch", "data__batch_size": 4, "train__accumulate": 4}),
        r"data\.batch_size: got one example in each micro-batch",
    ),
    ("train", {"model__norm": "layer", "model__hidden": (1,)}, r"model\.norm: got 'layer' over one number"),
]


@pytest.mark.parametrize(("command", "overrides", "said"), BEYOND)
def test_a_size_beyond_reason_is_refused_before_anything_is_compiled(
    command: str, overrides: dict[str, Any], said: str, tmp_path: Path
):
    jax.random.key(0)
    with count_compilations() as compiled, pytest.raises(ConfigError, match=f"^{said}") as refusal:
        COMMANDS[command](config_of(**overrides), tmp_path)
    assert compiled.count == 0
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lr_range.rates", 10**9), ("lr_range.second_count", 10**9), ("search.trials", 10**12)),
        *(("model.hidden", (10**30,)), ("model.hidden", (4,) * 1000), ("model.hidden", (4,) * 20_000)),
        *(("data.batch_size", 10**30), ("checkpoint.keep", 2**63), ("optimizer.learning_rate", 10**400)),
        *(("model.dropout", -(10**400)), ("train.seeds", 1e300)),
    ],
)
def test_a_number_that_no_knob_can_take_is_refused_by_its_key(key: str, value: Any):
    for given in (value, Text(repr(value))):
        with pytest.raises(ConfigError, match=rf"^{key}: got ") as refusal:
            resolve_config(tiny_runs.GIVEN, {key: given})
        assert len(str(refusal.value)) < 1500


def nested(levels: int, kind: Any = tuple) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if kind is dict else kind([value])
    return value


def in_itself(kind: type) -> Any:
    value: Any = {} if kind is dict else []
    if kind is dict:
        value["a"] = value
    else:
        value += [value, value]
    return value


DEEP = {
    **{f"{kind.__name__} of {levels}": nested(levels, kind) for kind in (tuple, list, dict) for levels in (40, 600)},
    "100,000 tuples": nested(100_000),
    "a dict in itself": in_itself(dict),
    "a list in itself": in_itself(list),
    "a dict in a list in itself": {"a": [in_itself(list)]},
}


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("key", ["model.hidden", "search.space.optimizer.learning_rate", "optimizer.learning_rate"])
def test_a_value_that_is_nested_without_end_is_refused_by_its_key(kind: str, key: str):
    section, _, rest = key.partition(".")
    inner = DEEP[kind]
    for name in reversed(rest.split(".")):
        inner = {name: inner}
    for attempt in (
        lambda: resolve_config(tiny_runs.GIVEN, {key: DEEP[kind]}),
        lambda: resolve_config({section: inner}),
    ):
        with pytest.raises(ConfigError, match=rf"^{section}\.\S*: got a value that is nested too deep"):
            attempt()


@pytest.mark.parametrize("levels", [40, 150, 600])
@pytest.mark.parametrize("key", ["model.hidden", "search.space.optimizer.learning_rate"])
def test_a_typed_value_that_is_nested_deep_is_refused_by_its_key(levels: int, key: str):
    with pytest.raises(ConfigError, match=rf"^{key}: got "):
        read_space(resolve_config(tiny_runs.GIVEN, {key: Text("(" * levels + "1" + ",)" * levels)}).config)


@pytest.mark.parametrize(
    "text",
    [
        "d = {}; d['model'] = d",
        "l = []; l.append(l); d = {'model': {'hidden': l}}",
        "d = {'seed': eval('[' * 90 + ']' * 90)}",
    ],
)
def test_a_file_that_returns_a_value_in_itself_is_refused_by_its_name(text: str, tmp_path: Path):
    path = tmp_path / "own.py"
    path.write_text(f"{text}\ndef get_config(): return d")
    with pytest.raises(
        ConfigError, match=r"^config file: got '.*own\.py'; expected a config that is not nested without end"
    ):
        read(path)


def test_levels_up_to_the_limit_are_taken():
    assert not is_too_deep(nested(MOST_NESTED))
    assert is_too_deep(nested(MOST_NESTED + 1))
    assert is_too_deep(in_itself(list))
    assert not is_too_deep([1] * 100_000)


def test_a_long_value_is_cut_in_an_error():
    line = message("model.hidden", (7,) * 100_000, "fewer")
    assert line.startswith("model.hidden: got (7, 7, 7")
    assert line.endswith("7, 7); expected fewer")
    assert len(line) < 1500


@pytest.mark.parametrize("seeds", [[0, 2**32], np.array([2**32 + 5, 1]), -1, [0.5, 1.0]])
def test_lanes_refuse_seeds_that_would_wrap(seeds: Any):
    experiment = build(config_of())
    population = Population(experiment.rules, device_mesh(1), 2)
    with pytest.raises(ConfigError, match=r"^seeds: got .*; expected integers from 0 to 2\*\*32 - 1"):
        population.init(seeds, experiment.hparams, experiment.example)


def test_the_last_seed_is_a_seed():
    build(config_of(seed=LAST))
    build(config_of(seed=LAST - 1, train__seeds=2))


def shape_of(norm: Any, shape: tuple[int, ...], *arguments: Any) -> None:
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, inputs: jax.Array) -> jax.Array:
            return norm(inputs, *arguments)

    jax.eval_shape(lambda: Model().init(jax.random.key(0), jnp.zeros(shape)))


@pytest.mark.parametrize(
    ("norm", "shape", "arguments"),
    [
        (batch_norm, (1, 5), (True,)),
        (batch_norm, (1, 1, 1, 5), (True,)),
        (layer_norm, (6, 1), ()),
        (group_norm, (6, 1), ()),
    ],
)
def test_a_norm_that_subtracts_the_mean_of_one_number_is_refused(norm: Any, shape: tuple[int, ...], arguments: Any):
    with pytest.raises(ConfigError, match="one is its own mean"):
        shape_of(norm, shape, *arguments)


@pytest.mark.parametrize(
    ("norm", "shape", "arguments"),
    [
        *((batch_norm, (1, 5), (False,)), (batch_norm, (2, 5), (True,)), (batch_norm, (1, 4, 4, 5), (True,))),
        *((layer_norm, (1, 2), ()), (group_norm, (1, 2, 2, 1), ()), (rms_norm, (1, 1), ())),
    ],
)
def test_a_norm_over_several_numbers_is_taken(norm: Any, shape: tuple[int, ...], arguments: Any):
    shape_of(norm, shape, *arguments)


def test_a_plan_tries_no_batch_that_batch_norm_refuses():
    assert batch_sizes(build(config_of()))[0] == 1
    assert batch_sizes(build(config_of(model__norm="batch")))[0] == 2
