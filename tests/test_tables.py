"""Tables: what becomes a column, and the encoding that is learnt from training rows."""

import json
import math

import numpy as np
import pytest

from jaxtrain.data.table_encoding import Layout, TableEncoding
from jaxtrain.data.tables import Places, Table
from jaxtrain.errors import DataError

NAN = math.nan
NA = type("NAType", (), {"__ne__": None, "__eq__": None})
"""The type of a missing value of pandas, which compares with nothing."""

PEOPLE = {
    "age": [20.0, NAN, 40.0, 90.0],
    "job": ["nurse", "cook", "", "pilot"],
    "hours": [1, 2, 4, 8],
}
TRAINING = np.array([0, 1, 2])


def test_values_are_encoded_by_the_training_rows_alone():
    table = Table(PEOPLE)
    encoding = TableEncoding.fit(table, TRAINING)
    names = ("age", "age (missing)", "job=cook", "job=nurse", "job (missing)", "hours")
    assert encoding.names == names
    assert encoding.forms == ("number", "flag", "flag", "flag", "flag", "number")
    expected = [
        [20, 0, 0, 1, 0, 1],
        [30, 1, 1, 0, 0, 2],  # the mean of 20 and 40, without row 3
        [40, 0, 0, 0, 1, 4],
        [90, 0, 0, 0, 0, 8],  # no training row is a pilot
    ]
    encoded = encoding.encode(table)
    assert encoded.dtype == np.float64
    np.testing.assert_array_equal(encoded, expected)
    assert encoding.unseen(table) == {"job": 1}
    assert encoding.unseen(table.take(TRAINING)) == {}
    assert encoding.kinds == table.kinds == {"age": "number", "job": "category", "hours": "number"}


def test_encoding_agrees_with_scikit_learn():
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    draw = np.random.default_rng(0)
    numbers = np.where(draw.random(500) < 0.2, NAN, draw.normal(3, 5, 500))
    words = draw.choice(["red", "Blue", "ähnlich", "green"], 500)
    rows = np.sort(draw.permutation(500)[:300])
    encoded = TableEncoding.fit(Table({"x": numbers, "word": words}), rows).encode(Table({"x": numbers, "word": words}))
    filled = SimpleImputer(add_indicator=True).fit(numbers[rows, None]).transform(numbers[:, None])
    ones = OneHotEncoder().fit(words[rows, None]).transform(words[:, None]).toarray()  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(encoded[:, :2], np.asarray(filled), rtol=1e-15)
    np.testing.assert_array_equal(encoded[:, 2:], ones)


def test_categories_are_codes_where_the_model_takes_them():
    encoding = TableEncoding.fit(Table(PEOPLE), TRAINING, coded=True)
    assert encoding.names == ("age", "age (missing)", "job", "hours")
    assert encoding.forms == ("number", "flag", "code", "number")
    assert encoding.layout == Layout(numbers=(0, 3), flags=(1,), codes=(2,), sizes=(4,))
    expected = [
        [20, 0, 2, 1],
        [30, 1, 1, 2],
        [40, 0, 3, 4],  # the code after the categories: missing
        [90, 0, 0, 8],  # no training row is a pilot
    ]
    np.testing.assert_array_equal(encoding.encode(Table(PEOPLE)), expected)
    assert encoding.unseen(Table(PEOPLE)) == {"job": 1}
    assert TableEncoding.from_json(json.loads(json.dumps(encoding.to_json()))) == encoding


def test_a_missing_category_without_one_in_training_is_unknown():
    encoding = TableEncoding.fit(Table({"c": ["a", "b", "a"]}), coded=True)
    np.testing.assert_array_equal(encoding.encode(Table({"c": ["", "b", "z"]})), [[0], [2], [0]])
    assert encoding.layout.sizes == (3,)


def test_normal_ranks_agree_with_scikit_learn():
    from sklearn.preprocessing import QuantileTransformer

    draw = np.random.default_rng(0)
    numbers = np.where(draw.random(900) < 0.4, 0.0, draw.gamma(2.0, 3.0, 900))  # many equal values, and a long tail
    table = Table({"x": numbers, "c": ["a", "b", "c"] * 300})
    encoding = TableEncoding.fit(table, np.arange(600), quantiles=50)
    assert encoding.names == ("x", "x (quantile)", "c=a", "c=b", "c=c")
    assert encoding.forms == ("number", "number", "flag", "flag", "flag")
    transformer = QuantileTransformer(n_quantiles=50, output_distribution="normal").fit(numbers[:600, None])
    expected = np.asarray(transformer.transform(numbers[:, None]))[:, 0]
    ranks = encoding.encode(table)[:, 1]
    inside = (numbers > 0) & (numbers < numbers[:600].max())
    np.testing.assert_allclose(ranks[inside], expected[inside], atol=1e-9)
    assert np.abs(ranks).max() <= 5.2
    assert TableEncoding.from_json(json.loads(json.dumps(encoding.to_json()))) == encoding


def test_a_value_that_only_new_rows_miss_gets_no_column():
    encoding = TableEncoding.fit(Table({"x": [1.0, 3.0], "c": ["a", "a"]}))
    new = Table({"c": ["", "a"], "x": [NAN, 5.0]})  # in another order
    assert encoding.names == ("x", "c=a")
    np.testing.assert_array_equal(encoding.encode(new), [[2, 0], [5, 1]])
    assert encoding.unseen(new) == {}


def test_a_column_without_values_has_the_kind_of_training():
    encoding = TableEncoding.fit(Table({"x": [1.0, 3.0], "c": ["a", "a"]}))
    new = Table({"x": ["", ""], "c": [NAN, NAN]})
    np.testing.assert_array_equal(encoding.encode(new), [[2, 0], [2, 0]])


def test_json_keeps_the_encoding_exactly():
    table = Table({"x": [0.1, 0.2, 1e300, NAN], "c": ["ä", "b", "b", ""]})
    encoding = TableEncoding.fit(table, np.array([0, 1, 3]))
    restored = TableEncoding.from_json(json.loads(json.dumps(encoding.to_json())))
    assert restored == encoding
    np.testing.assert_array_equal(restored.encode(table), encoding.encode(table))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, False], [1.0, 0.0]),
        (np.array([1, None], object), [1.0, NAN]),
        (np.array([np.float32(2), NAN], object), [2.0, NAN]),
        (np.array(["a", None, NAN, NA()], object), ["a", "", "", ""]),
        (["a", "bc"], ["a", "bc"]),
        (np.array([None, None], object), [NAN, NAN]),
    ],
)
def test_columns_of_python_are_converted(values, expected):
    column = Table({"c": values}).columns["c"]
    np.testing.assert_array_equal(column.tolist(), expected)
    assert column.dtype.kind == ("T" if isinstance(expected[0], str) else "f")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [1.0], "b": [1.0, 2.0]}, "1 values in 'a' and 2 values in 'b'; expected columns of one length"),
        ({"a": np.ones((2, 2))}, r"column a: got values of shape \(2, 2\); expected one value for each row"),
        ({"a": np.array(["2020-01-01"], "M8[D]")}, "values of dtype datetime64.*Count from a moment"),
        ({"a": np.array(["x", 1], object)}, "an object of type str in row 0"),
        ({"a": np.array([1, [2]], object)}, "an object of type list in row 1"),
    ],
)
def test_columns_that_are_none_are_refused(columns, words):
    with pytest.raises(DataError, match=words):
        Table(columns)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"name": list("abcd")}, r"4 different texts in 4 rows of the column 'name'.*data.drop=\('name',\)"),
        ({"x": [NAN, NAN]}, "no value in the column 'x'; expected at least one in the training rows"),
        ({"x": [], "c": []}, "0 rows of 2 columns"),
        ({}, "0 rows of 0 columns"),
    ],
)
def test_columns_that_cannot_be_learnt_are_refused(columns, words):
    with pytest.raises(DataError, match=words):
        TableEncoding.fit(Table(columns))


@pytest.mark.parametrize("count", [1000, 1001])
def test_up_to_a_thousand_categories(count):
    table = Table({"c": [str(i % count) for i in range(2500)]})
    if count == 1000:
        assert len(TableEncoding.fit(table).names) == 1000
    else:
        said = r"1,001 different texts in 2,500 rows.*at most 1,000 categories.*or name it in data.numbers=\('c',\)"
        with pytest.raises(DataError, match=said):
            TableEncoding.fit(table)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"age": [1.0]}, "new.csv: got no column 'job'; expected the columns of training: age, job"),
        ({"age": [1.0], "jobs": ["a"]}, "got no column 'job' but 'jobs'.*Did you mean 'jobs'"),
        ({"age": [1.0], "job": ["a"], "x": [1.0]}, "got the column 'x'; expected the columns of training alone"),
        ({"age": ["", "old"], "job": ["", "a"]}, "new.csv, line 7: got 'old' in the column 'age'; expected a number"),
        ({"age": [NAN, 1.0], "job": [NAN, 3.0]}, "line 7: got 3.0 in the column 'job'; expected a category"),
    ],
)
def test_a_new_table_with_other_columns_is_refused(columns, words):
    encoding = TableEncoding.fit(Table({"age": [1.0, 2.0], "job": ["a", "a"]}))
    lines = np.array([3, 7])[: len(columns["age"])]
    table = Table(columns, Places(["new.csv"], lines))
    with pytest.raises(DataError, match=words):
        encoding.encode(table)


def test_rows_know_their_places_in_several_files():
    places = Places(["a", "b"], np.arange(5), "row", [0, 3])
    table = Table({"x": np.arange(5.0)}, places).take(np.array([4, 2]))
    assert (table.place(0), table.place(1), table.where) == ("b, row 1", "a, row 2", "a")
    assert table.columns["x"].tolist() == [4, 2]
    assert Table({"x": [1.0]}).place(0) == "the table, row 0"


def test_more_than_memory_holds_is_refused(monkeypatch):
    monkeypatch.setattr("jaxtrain.data.table_encoding.total_memory", lambda: 31)
    table = Table({"x": [1.0, 2.0], "y": [1.0, 2.0]})
    with pytest.raises(DataError, match="32 bytes for 2 rows of 2 encoded columns; expected at most 31"):
        TableEncoding.fit(table).encode(table)


def test_an_error_shows_few_of_many_names_and_the_beginning_of_a_long_text():
    encoding = TableEncoding.fit(Table({f"x{i}": [1.0, 2.0] for i in range(40)}))
    with pytest.raises(DataError, match=r"x28, x29 and 10 more\. "):
        encoding.encode(Table({"y": [1.0]}))
    with pytest.raises(DataError, match=r"got 'a{80}'\.\.\. in the column 'x0'"):
        encoding.encode(Table({f"x{i}": ["a" * 90] for i in range(40)}))


def test_the_kinds_of_columns_are_listed_once_however_many_there_are(monkeypatch):
    table = Table({f"x{number}": [0.0, 1.0] for number in range(50)})
    encoding = TableEncoding.fit(table)
    listed: list[object] = []
    kinds = TableEncoding.kinds.fget
    assert kinds is not None
    monkeypatch.setattr(TableEncoding, "kinds", property(lambda own: listed.append(own) or kinds(own)))
    encoding.encode(table)
    assert len(listed) == 1
