"""The space: what may be searched, how a point becomes a config, and errors that name the entry."""

import json
from typing import Any

import pytest

from jaxtrain.config.identity import to_json
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import ConfigError
from jaxtrain.search.space import identify, read_space

RATE = ("log_uniform", 1e-5, 1e-1)
MEMBERS = {
    "optimizer": {"name": ("choice", ("adamw", "sgd")), "momentum": ("uniform", 0.0, 0.99), "learning_rate": RATE}
}


def space(entries: dict[str, Any], **overrides: Any):
    return read_space(resolve_config({"search": {"space": entries}}, overrides).config)


def test_a_knob_counts_only_where_the_chosen_member_has_it():
    found = space(MEMBERS)
    points = {
        name: found.suggest(lambda d, n=name: n if d.key.endswith("name") else d.at(0.5)) for name in ("adamw", "sgd")
    }
    assert points["adamw"].keys() == {"optimizer.name", "optimizer.learning_rate"}
    assert points["sgd"].keys() == {"optimizer.name", "optimizer.learning_rate", "optimizer.momentum"}
    assert found.trial(1, points["sgd"]).config["optimizer"]["momentum"] == 0.99 / 2
    assert "momentum" not in found.trial(1, points["adamw"]).config["optimizer"]


def test_schedules_are_searched_by_name_and_knob():
    found = space(
        {
            "schedule": {
                "optimizer": {
                    "learning_rate": {"name": ("choice", ("one_cycle", "constant")), "warmup": ("uniform", 0.1, 0.5)}
                }
            }
        }
    )
    shaped = found.suggest(lambda d: "one_cycle" if d.key.endswith("name") else d.at(1.0))
    flat = found.suggest(lambda d: "constant" if d.key.endswith("name") else d.at(1.0))
    assert found.trial(1, shaped).config["schedule"]["optimizer"]["learning_rate"]["warmup"] == 0.5
    assert flat == {"schedule.optimizer.learning_rate.name": "constant"}


def test_a_member_may_be_searched_by_its_section_alone():
    assert [d.key for d in space({"optimizer": ("choice", ("adamw", "sgd"))}).dimensions] == ["optimizer.name"]


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        (("uniform", -1.0, 3.0), {0.0: -1.0, 0.5: 1.0, 1.0: 3.0}),
        (("log_uniform", 1e-4, 1e-2), {0.0: 1e-4, 1.0: 1e-2}),
        (("int", 2, 4), {0.0: 2, 0.34: 3, 0.99: 4, 1.0: 4}),
        (("choice", ("a", None, (1, 2))), {0.0: "a", 0.4: None, 1.0: (1, 2)}),
        (("uniform", 0.0, 1.0, 3), {0.0: 0.0, 0.5: 0.5, 1.0: 1.0}),
        (("uniform", 0.5, 0.5), {0.0: 0.5, 1.0: 0.5}),
        (("int", 7, 7), {0.0: 7, 1.0: 7}),
        (("log_uniform", 0.1, 0.1, 8), {0.0: 0.1, 1.0: 0.1}),
        (("int_step", 16, 256, 16), {0.0: 16, 0.07: 32, 0.99: 256, 1.0: 256}),
        (("log_int", 16, 256), {0.0: 16, 0.5: 63, 1.0: 256}),
        (("log_int", 1, 2**62), {0.0: 1, 0.5: 1_518_500_250, 1.0: 2**62}),
        (("log_int", 16, 256, 5), {0.0: 16, 0.2: 32, 0.4: 64, 0.6: 128, 1.0: 256}),
        (("log_int", 1, 3, 8), {0.0: 1, 0.34: 2, 1.0: 3}),
        (("log_uniform", 1e-4, 1e-2, 3), {0.0: 1e-4, 0.5: 1e-3, 1.0: 1e-2}),
    ],
)
def test_dimensions_cover_their_range_with_both_ends(entry, parts):
    from jaxtrain.search.space import _dimension

    dimension = _dimension("a.b", entry, "search.space.a.b")
    assert {part: dimension.at(part) for part in parts} == parts


def test_a_range_of_whole_numbers_may_be_long():
    (dimension,) = space({"data": {"batch_size": ("int", 1, 2**62)}}).dimensions
    assert dimension.at(0.5) == 2**61 + 1
    assert space({"data": {"batch_size": ("int", 1, 2**62)}}).size() == 2**62


def choices_of(key: str, entry: Any) -> tuple[Any, ...]:
    (dimension,) = read_space(resolve_config({}, {f"search.space.{key}": entry}).config).dimensions
    return dimension.choices


def test_equal_choices_are_one_and_a_truth_is_no_number():
    assert choices_of("optimizer.learning_rate", ("choice", (1, 1.0, 0.5, 1))) == (1, 0.5)
    assert choices_of("model.hidden", ("grid", ((8,), (16, 8), (8,)))) == ((8,), (16, 8))
    assert identify({"a": 1}) == identify({"a": 1.0}) != identify({"a": True})


def test_whole_numbers_in_steps_are_those_from_end_to_end():
    (dimension,) = space({"data": {"batch_size": ("int_step", 16, 256, 16)}}).dimensions
    assert space({"data": {"batch_size": ("int_step", 16, 256, 16)}}).size() == 16
    assert [value for value in (0, 16, 17, 32.0, 48, True, 256, 272) if dimension.contains(value)] == [16, 48, 256]


def test_the_middle_of_a_logarithmic_range_is_its_geometric_mean():
    (dimension,) = space({"optimizer": {"learning_rate": RATE}}).dimensions
    assert dimension.at(0.5) == pytest.approx(1e-3)


def test_a_grid_has_every_combination_that_counts_and_knows_its_size():
    found = space(
        {
            "optimizer": {
                "name": ("choice", ("adamw", "sgd")),
                "momentum": ("grid", (0.0, 0.5, 0.9)),
                "learning_rate": ("log_uniform", 1e-3, 1e-1, 3),
            }
        }
    )
    points = list(found.points())
    assert len(points) == found.size() == 3 + 3 * 3
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 12
    assert sorted({point["optimizer.learning_rate"] for point in points}) == pytest.approx([1e-3, 1e-2, 1e-1])


def test_the_configs_own_values_are_those_that_stand_there():
    found = space({"optimizer": {"learning_rate": RATE}, "model": {"hidden": ("choice", ((8,), (16, 16)))}})
    assert found.own == {"optimizer.learning_rate": 1e-3, "model.hidden": (128, 128)}


def test_a_space_goes_through_json_and_the_command_line():
    config = resolve_config({"search": {"space": MEMBERS}}).config
    saved = resolve_config(json.loads(to_json(config))).config
    assert saved["search"] == config["search"]
    typed = resolve_config({}, {"search.space.optimizer.learning_rate": "x"}).config
    assert typed["search"]["space"] == {"optimizer": {"learning_rate": "x"}}
    with pytest.raises(ConfigError, match=r"search\.space\.optimizer\.learning_rate: got 'x'"):
        read_space(typed)


REFUSED = {
    "unknown knob": ({"optimizer": {"learning_rat": RATE}}, ["optimizer.learning_rat", "Did you mean 'learning_rate'"]),
    "of no member": ({"optimizer": {"momentum": ("uniform", 0, 0.9)}}, ["optimizer.momentum", "b1"]),
    "unknown section": ({"optimiser": {"x": RATE}}, ["optimiser", "Did you mean 'optimizer'"]),
    "unknown member": ({"optimizer": {"name": ("choice", ("adamw", "sgdd"))}}, ["'sgdd'", "Did you mean 'sgd'"]),
    "below a value": ({"optimizer": {"learning_rate": {"x": RATE}}}, ["optimizer.learning_rate", "not a section"]),
    "outside bounds": ({"optimizer": {"learning_rate": ("uniform", -1, 1)}}, ["got -1", "at least 0"]),
    "wrong type": ({"model": {"hidden": ("choice", (8, (8,)))}}, ["search.space.model.hidden", "got 8"]),
    "unknown kind": ({"model": {"dropout": ("unifrm", 0, 1)}}, ["'unifrm'", "Did you mean 'uniform'"]),
    "no kind": ({"model": {"dropout": 0.5}}, ["got 0.5", "('uniform', low, high)"]),
    "steps that miss the end": (
        {"data": {"batch_size": ("int_step", 16, 250, 16)}},
        ["got ('int_step', 16, 250, 16)", "Take 240 or 256 as high"],
    ),
    "steps of nothing": ({"data": {"batch_size": ("int_step", 16, 256, 0)}}, ["('int_step', low, high, step)"]),
    "logarithm of whole 0": ({"data": {"batch_size": ("log_int", 0, 256)}}, ["low above 0"]),
    "reversed": ({"optimizer": {"learning_rate": ("log_uniform", 1e-1, 1e-5)}}, ["log_uniform"]),
    "logarithm of 0": ({"optimizer": {"learning_rate": ("log_uniform", 0.0, 1.0)}}, ["low above 0"]),
    "not finite": ({"model": {"dropout": ("uniform", 0.0, float("nan"))}}, ["uniform"]),
    "a fraction of an int": ({"data": {"batch_size": ("int", 1, 2.5)}}, ["('int', low, high)"]),
    "too many": ({"model": {"dropout": ("uniform", 0.0, 0.5, 10**9)}}, ["a count of 2 to 10,000"]),
    "the task": ({"task": {"name": ("choice", ("classification", "regression"))}}, ["on the same data"]),
    "count of one": ({"model": {"dropout": ("uniform", 0.0, 0.5, 1)}}, ["('uniform', low, high, 8)"]),
    "no choices": ({"model": {"dropout": ("choice", ())}}, ["('choice', (a, b, ...))"]),
    "nothing": ({}, ["search.space: got nothing", "search.space.optimizer.learning_rate ="]),
    "own settings": ({"search": {"trials": ("int", 1, 5)}}, ["belongs to the whole search"]),
    "the seed": ({"seed": ("int", 0, 5)}, ["search.seeds"]),
    "a folder": ({"checkpoint": {"init_from": ("choice", (None, "runs/a"))}}, ["belongs to the whole search"]),
    "other splits": ({"data": {"seed": ("int", 0, 5)}}, ["on the same data"]),
    "how often": ({"eval": {"every": ("choice", ("10 %", "20 %"))}}, ["compared by their evaluations"]),
    "a section": ({"model": {"hidden": ("choice", ({"a": 1}, (8,)))}}, ["search.space.model.hidden"]),
    "a set": ({"model": {"hidden": ("choice", {1, 2})}}, ["search.space.model.hidden", "a tuple of numbers, strings"]),
    "the judge": ({"eval": {"metric": ("choice", ("loss", "accuracy"))}}, ["compared by their evaluations"]),
    "its weights": ({"task": {"class_balance": ("uniform", 0.0, 1.0)}}, ["unless eval.metric"]),
    "the judged loss": ({"loss": {"label_smoothing": ("uniform", 0.0, 0.2)}}, ["unless eval.metric"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_searched_is_refused_by_entry(name):
    entries, said = REFUSED[name]
    with pytest.raises(ConfigError) as found:
        space(entries)
    assert str(found.value).startswith("search.space")
    assert [words for words in said if words not in str(found.value)] == []
    assert "\n" not in str(found.value)


def test_a_loss_may_be_searched_where_another_metric_judges():
    assert space({"loss": {"label_smoothing": ("uniform", 0.0, 0.2)}}, **{"eval.metric": "accuracy"}).dimensions


def test_a_space_that_is_no_section_is_refused():
    with pytest.raises(ConfigError, match=r"search\.space: got 5"):
        resolve_config({"search": {"space": 5}})


def test_a_run_that_searches_nothing_does_not_mind_the_space(tmp_path):
    from jaxtrain.config.identity import digest

    plain, searched = (
        resolve_config({}, more).config for more in ({}, {"search.space.model.dropout": ("uniform", 0, 1)})
    )
    assert digest(plain) == digest(searched)
