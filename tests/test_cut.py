"""Splits that are cut by class, by group or in an order, and training examples that are drawn by weight."""

import numpy as np
import pytest
from tiny_runs import tiny

from jaxtrain.config.identity import digest
from jaxtrain.data.cut import Rule, cut
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.order import Weights, batch_indices
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, as_source
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning

RANDOM = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), [200, 100, 60, 40])
FRACTIONS = {"test": 0.2, "validation": 0.1}


def check_partition(rows: dict[str, np.ndarray], examples: int) -> None:
    together = np.concatenate(list(rows.values()))
    assert sorted(together.tolist()) == list(range(examples))
    assert all((np.diff(own) > 0).all() for own in rows.values())


def test_each_split_gets_its_share_of_every_class():
    order = RANDOM.permutation(400)
    rows = cut(400, FRACTIONS, seed=3, rule=Rule(labels=LABELS[order]))
    check_partition(rows, 400)
    for name, share in {**FRACTIONS, "train": 0.7}.items():
        counts = np.bincount(LABELS[order][rows[name]], minlength=4)
        np.testing.assert_allclose(counts, share * np.array([200, 100, 60, 40]), atol=1)
    again = cut(400, FRACTIONS, seed=4, rule=Rule(labels=LABELS[order]))
    assert not np.array_equal(rows["test"], again["test"])


def test_rare_classes_are_not_all_lost_to_training_by_rounding():
    labels = np.repeat(np.arange(50), 4)  # a tenth of 4 rounds to none in every class
    rows = cut(200, {"validation": 0.1}, seed=0, rule=Rule(labels=labels))
    assert abs(len(rows["validation"]) - 20) <= 1


def test_a_group_lies_in_one_split():
    groups = np.array([f"patient {i}" for i in RANDOM.integers(0, 60, 500)])
    rows = cut(500, FRACTIONS, seed=0, rule=Rule(groups=groups))
    check_partition(rows, 500)
    held = [set(groups[own]) for own in rows.values()]
    assert sum(map(len, held)) == len(set(groups))
    assert len(rows["test"]) == pytest.approx(100, abs=15)
    assert len(rows["validation"]) == pytest.approx(50, abs=15)


def test_the_last_rows_in_an_order_are_the_test_split():
    times = RANDOM.permutation(100)
    rows = cut(100, FRACTIONS, seed=0, rule=Rule(order=times))
    check_partition(rows, 100)
    assert times[rows["train"]].max() < times[rows["validation"]].min()
    assert times[rows["validation"]].max() < times[rows["test"]].min()
    assert (len(rows["test"]), len(rows["validation"])) == (20, 10)


def source(**columns: np.ndarray) -> Source:
    return as_source(Source({"train": (RANDOM.normal(size=(400, 3)), LABELS)}, columns=columns), "mine")


def test_settings_cut_by_the_columns_of_a_source():
    years = np.arange(400)
    with pytest.warns(JaxtrainWarning, match="no training example left of 1 of 4 classes: 3.*leave them out$"):
        loaded = load_dataset(source(year=years), Settings(order_by="year"))
    assert years[loaded.parts["test"].rows].min() == 360  # pyright: ignore[reportArgumentType, reportCallIssue]
    loaded = load_dataset(source(), Settings(stratify=True))
    np.testing.assert_array_equal(np.bincount(loaded.split("test")["targets"]), [20, 10, 6, 4])


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        ({"stratify": True, "group_by": "x"}, {"x": LABELS}, "data.group_by: got 'x'; expected one of .* at a time"),
        ({"group_by": "pateint"}, {"patient": LABELS}, "data.group_by: got 'pateint'.*Did you mean 'patient'"),
        ({"order_by": "year"}, {}, "data.order_by: got 'year'; expected nothing"),
        ({"group_by": "one"}, {"one": np.zeros(400)}, "data.validation_fraction: got 0.1; expected .* by this rule"),
        ({"sample": "weigth"}, {"weight": LABELS}, "data.sample: got 'weigth'.*Did you mean 'weight'"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(settings, columns, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset(source(**columns), Settings(**settings))


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        ({"sample": "weight"}, {"weight": np.where(LABELS == 3, -1.0, 1.0)}, "got the weight -1.0 of row 360"),
        ({"sample": "weight"}, {"weight": np.zeros(400)}, "got only weights of 0"),
        ({"sample": "weight"}, {"weight": np.array(["a"] * 400)}, "got the weight a of row 0"),
    ],
)
def test_weights_that_are_none_are_refused(settings, columns, message):
    with pytest.raises(DataError, match=message):
        load_dataset(source(**columns), Settings(test_fraction=0, validation_fraction=0, **settings))


def test_a_column_of_another_length_is_refused():
    with pytest.raises(DataError, match=r"column 'x' of shape \(3,\); expected the shape \(400,\)"):
        load_dataset(source(x=np.zeros(3)), Settings())


# Drawing by weight


def test_balanced_draws_show_every_class_alike():
    loaded = load_dataset(source(), Settings(sample="balanced", test_fraction=0, validation_fraction=0))
    rows = batch_indices(0, 100, examples=400, batch_size=100, seed=0, weights=loaded.weights)
    counts = np.bincount(LABELS[rows.ravel()], minlength=4)
    np.testing.assert_allclose(counts, 2500, rtol=0.08)  # of 10,000 draws: 4 standard deviations are 7 %


def test_draws_follow_the_weights_and_are_a_function_of_seed_and_step():
    values = np.array([0.0, 1.0, 3.0, 0.0, 6.0])
    weights = Weights(values, "here")
    rows = batch_indices(0, 2000, examples=5, batch_size=5, seed=1, weights=weights)
    np.testing.assert_allclose(np.bincount(rows.ravel(), minlength=5) / 10_000, values / 10, atol=0.02)
    later = batch_indices(1234, 3, examples=5, batch_size=5, seed=1, weights=Weights(2 * values, "here"))
    np.testing.assert_array_equal(later, rows[1234:1237])
    assert not np.array_equal(rows, batch_indices(0, 2000, examples=5, batch_size=5, seed=2, weights=weights))


def test_settings_that_are_off_leave_the_name_of_a_directory_as_it_was():
    plain = tiny()
    assert digest(plain) == digest(tiny({"data.feed": "host", "data.workers": 3}))
    assert digest(plain) == digest({**plain, "data": {k: v for k, v in plain["data"].items() if k != "stratify"}})
    assert digest(plain) != digest(tiny({"data.stratify": True}))


def test_a_weight_that_is_none_is_named_by_its_row_in_the_source():
    with pytest.raises(DataError, match=r"the weight -1\.0 of row 7"):
        Weights(np.where(np.arange(10) == 7, -1.0, 1.0), "here", np.array([2, 7, 9]))
