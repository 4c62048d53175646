"""Sequences of numbers of unlike length: padding changes no number, and one program serves all lengths."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain import export_run, load_export
from jaxtrain.commands.data import data_report
from jaxtrain.data import load
from jaxtrain.data.info import DataInfo
from jaxtrain.data.sequences import Sequences
from jaxtrain.data.source import Source
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning
from jaxtrain.main import main
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

COUNT = 120
DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 2, COUNT)
TRACES = [
    (100.0 + 5.0 * np.sin(np.arange(length) * (0.4 + 2 * label))[:, None] * [1.0, -1.0]).astype(np.float32)
    for length, label in zip(DRAW.integers(4, 41, COUNT).tolist(), LABELS, strict=True)
]
"""Waves of two features, far from 0, whose frequency tells their class."""

GIVEN = {
    **{"data.name": "memory", "data.batch_size": 16, "task.name": "sequence_classification"},
    **{"model.name": "sequence_encoder", "model.width": 16, "model.layers": 0, "model.dropout": None},
    **{"optimizer.name": "adamw", "optimizer.learning_rate": 0.02, "train.duration": "40 steps", "train.ema": None},
}


def source(traces: Any = TRACES, labels: Any = LABELS) -> Source:
    return Source({"train": (traces, labels)})


def config(**changes: Any) -> Any:
    return tiny({**GIVEN, **{name.replace("__", "."): value for name, value in changes.items()}})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trained run."""
    folder = tmp_path_factory.mktemp("sequences") / "run"
    result = train_and_evaluate(config(), folder, data=source(), quiet=True)
    assert result.test is not None
    assert result.test["accuracy"] > 0.9
    return folder


def test_sequences_become_rows_with_a_mask_normalised_by_their_values_alone():
    dataset = build(config(), data=source()).dataset
    sequences = dataset.info.sequences
    longest = max(map(len, TRACES))
    assert sequences is not None
    assert sequences.lengths == (longest // 8, longest // 4, longest // 2, longest)
    places = dataset.parts["train"].source_rows(np.arange(len(dataset.parts["train"])))
    values = np.concatenate([TRACES[place] for place in places]).astype(np.float64)
    rows = dataset.split("train")["inputs"]
    for row, place in zip(rows, places, strict=True):
        length = len(TRACES[place])
        np.testing.assert_allclose(row[:length, :2], (TRACES[place] - values.mean(0)) / values.std(0), atol=1e-5)
        np.testing.assert_array_equal(row[:, 2], np.arange(longest) < length)
    assert dataset.groups is not None
    assert len(np.unique(dataset.groups.of)) > 2


@pytest.mark.parametrize("layers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_padding_changes_no_loss_gradient_or_prediction(layers: int):
    experiment = build(config(model__layers=layers, model__heads=2), data=source())
    state = experiment.init()
    values = experiment.rules.schedule(state.step, state.hparams)
    task = experiment.rules.task
    predict = jax.jit(lambda rows: task.predict(state.params, state.model_state, rows, values))

    def loss(params: Any, batch: Any) -> jax.Array:
        return task.loss(params, state.model_state, batch, jax.random.key(1), values, False)[0]

    batch = experiment.dataset.read("train", np.arange(60))
    lengths = (batch["inputs"][..., -1] > 0).sum(axis=1)
    places = np.argsort(lengths, kind="stable")[[0, 30, 59]]
    batch = {name: jnp.asarray(leaf[places]) for name, leaf in batch.items()}
    padded = predict(batch["inputs"])
    # The reference: each sequence by itself at its own length, without any padding.
    alone = [row[None, :length] for row, length in zip(batch["inputs"], lengths[places], strict=True)]
    np.testing.assert_allclose(padded, jnp.concatenate([predict(row) for row in alone]), rtol=1e-6, atol=1e-6)
    of_loss = jax.jit(jax.value_and_grad(loss))
    shortest = {"inputs": alone[0], "targets": batch["targets"][:1]}
    wide = {"inputs": batch["inputs"][:1], "targets": batch["targets"][:1]}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        of_loss(state.params, wide),
        of_loss(state.params, shortest),
    )


def test_a_run_predicts_from_sequences_of_any_length_and_from_rows_with_a_mask(run: Any):
    loaded = load_run(run)
    found = loaded.predict(TRACES)
    assert np.mean(found.argmax(axis=1) == LABELS) > 0.9
    alike = [trace[:4] for trace in TRACES[:5]]  # of one length, shorter than the longest
    np.testing.assert_allclose(loaded.predict(alike), loaded.predict([*alike, TRACES[5]])[:5], atol=1e-5)
    rows = loaded.info.encode(Sequences(TRACES[:5]))
    np.testing.assert_allclose(loaded.predict(rows), found[:5], atol=1e-5)
    with pytest.warns(
        JaxtrainWarning, match=r"1 of 1 sequences that are longer than \d+ values; expected shorter ones"
    ):
        loaded.predict([np.tile(TRACES[0], (20, 1))])


def test_an_export_predicts_as_the_run_does(run: Any):
    export_run(run, data=source(), formats=["mlflow"])
    found = load_export(run / "export").predict(TRACES)["logits"]
    np.testing.assert_allclose(found, load_run(run).predict(TRACES), atol=1e-4)


def test_resumed_equals_uninterrupted(run: Any, tmp_path: Path):
    train_and_evaluate(config(), tmp_path, data=source(), trackers=[Interrupting(20)], quiet=True)
    train_and_evaluate(config(), tmp_path, data=source(), quiet=True)
    assert outcome(tmp_path) == outcome(run)


@pytest.mark.unfused
def test_a_lane_of_seeds_is_the_run_of_its_seed_alone(tmp_path: Path):
    train_and_evaluate(config(train__seeds=2), tmp_path / "lanes", data=source(), quiet=True)
    train_and_evaluate(config(seed=1), tmp_path / "solo", data=source(), quiet=True)
    lane = load_run(tmp_path / "lanes", seed=1)
    solo = load_run(tmp_path / "solo")
    np.testing.assert_allclose(lane.predict(TRACES), solo.predict(TRACES), rtol=2e-4, atol=2e-4)


def test_whole_numbers_stay_raw_and_other_tasks_learn_from_sequences():
    whole = [np.round(trace).astype(np.int16) for trace in TRACES]
    targets = np.array([trace.mean() for trace in TRACES])
    given = {"task.name": "regression", "loss.name": "mse", "data.name": "memory"}
    experiment = build(
        tiny({**{k: v for k, v in GIVEN.items() if k != "task.name"}, **given}), data=source(whole, targets)
    )
    assert experiment.dataset.info.input_dtype == "int16"
    state = experiment.init()
    values = experiment.rules.schedule(state.step, state.hparams)
    rows = experiment.dataset.read("train", np.arange(3))["inputs"]
    length = int(rows[0, :, -1].sum())
    predict = jax.jit(lambda rows: experiment.rules.task.predict(state.params, state.model_state, rows, values))
    np.testing.assert_allclose(predict(rows[:1]), predict(rows[:1, :length]), atol=1e-6)


def test_the_description_of_sequences_survives_json():
    info = build(config(), data=source()).dataset.info
    again = DataInfo.from_json(json.loads(json.dumps(info.to_json())))
    assert again == info
    assert again.sequences == info.sequences
    with pytest.warns(JaxtrainWarning, match="71 of 120 sequences that are longer than 20 values"):
        shorter = build(config(), data=source(Sequences(TRACES, context=20))).dataset.info
    assert shorter.sequences is not None
    assert shorter.sequences.lengths[-1] == 20
    assert shorter != info


def test_data_says_what_was_understood():
    lines = "\n".join(data_report(load(config()["data"], source()), config()))
    assert "sequences of up to 40 steps of 2 features, 2 classes" in lines
    assert "padded to    5 (" in lines
    assert "channel 1     mean      99." in lines or "channel 1     mean        100" in lines
    assert "(40, 3), the last a mask" in lines
    assert "channel 2" not in lines


@pytest.mark.parametrize(
    ("traces", "changes", "expected"),
    [
        (
            TRACES,
            {"model.name": "mlp"},
            r"model.name: got 'mlp'; expected a model of sequences, such as sequence_encoder",
        ),
        (TRACES, {"data.quantiles": 4}, r"data.quantiles: got 4; expected None for sequences"),
        (
            TRACES,
            {"data.per_example": True},
            r"data.per_example: got True; expected False for tables, texts, sequences",
        ),
        (TRACES, {"augment.noise.deviation": 0.1}, r"augment: got augmentations of sequences of unlike length"),
        ([*TRACES[:-1], TRACES[0][:, :1]], {}, r"row 119: got 1 features; expected 2 in each sequence"),
        ([*TRACES[:-1], np.full((3, 2), np.nan)], {}, r"row 119: got numbers that are not finite in float32"),
        ([*TRACES[:-1], np.zeros((0, 2))], {}, r"row 119: got a sequence of shape \(0, 2\)"),
        (
            [trace.tolist() for trace in TRACES],
            {},
            r"inputs that make no array .* give sequences of unlike length as a list of arrays",
        ),
    ],
)
def test_what_does_not_fit_sequences_is_refused_in_one_line(traces: Any, changes: dict[str, Any], expected: str):
    given = {**GIVEN, **changes}
    if changes.get("model.name") == "mlp":
        given = {name: value for name, value in given.items() if not name.startswith("model.")} | changes
    with pytest.raises((ConfigError, DataError), match=expected) as caught:
        build(tiny(given), data=source(traces))
    assert "\n" not in str(caught.value)


def test_a_run_of_sequences_says_what_new_inputs_it_cannot_take(run: Any):
    loaded = load_run(run)
    for inputs, expected in (
        ([np.zeros((5, 3))], r"got 3 features; expected 2 in each sequence, as in training"),
        ({"a": [1.0]}, r"got columns by name; expected a list of sequences"),
        ([np.zeros((2, 5, 2))], r"got a sequence of shape \(2, 5, 2\)"),
    ):
        with pytest.raises(DataError, match=expected):
            loaded.predict(inputs)


FILED = {"data.name": "jsonl", "data.file": "traces.jsonl", "data.target": "kind", "data.sequence": "wave.values"}


def rows_of(traces: Any, labels: Any) -> list[dict[str, Any]]:
    """Rows of a file, in the numbers that `traces` hold."""
    pairs = zip(traces, labels, strict=True)
    return [{"wave": {"values": trace.tolist()}, "kind": ["slow", "fast"][label]} for trace, label in pairs]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows as JSON Lines or Parquet, by the ending."""
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        pytest.importorskip("pyarrow.parquet").write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    return path


def filed(folder: Path, **changes: Any) -> Any:
    return config(**{"data.path": str(folder), **FILED, **changes})


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_files_of_lists_are_the_sequences_that_python_gives(name: str, tmp_path: Path):
    write(tmp_path / f"traces.{name}", rows_of(TRACES, LABELS))
    read = build(filed(tmp_path, **{"data.name": name, "data.file": f"traces.{name}"})).dataset
    doubles = [trace.astype(np.float64) for trace in TRACES]
    given = build(config(), data=source(doubles, np.where(LABELS, "fast", "slow"))).dataset
    for split in ("train", "validation", "test"):
        for field, values in given.split(split).items():
            np.testing.assert_array_equal(read.split(split)[field], values)
    assert (read.info.sequences, read.info.class_names) == (given.info.sequences, ("fast", "slow"))


def test_a_run_on_a_file_predicts_from_new_files_as_from_arrays(tmp_path: Path):
    write(tmp_path / "traces.jsonl", rows_of(TRACES, LABELS))
    run = tmp_path / "run"
    train_and_evaluate(filed(tmp_path, **{"train.duration": "20 steps"}), run, quiet=True)
    loaded = load_run(run)
    expected = loaded.predict([trace.astype(np.float64) for trace in TRACES[:7]])
    bare = [{"wave": row["wave"]} for row in rows_of(TRACES[:7], LABELS[:7])]
    for name in ("jsonl", "parquet"):
        new = write(tmp_path / f"new.{name}", bare)
        output = tmp_path / f"{name}.npz"
        assert main(["predict", f"--workdir={run}", f"--data={new}", f"--output={output}"]) == 0
        np.testing.assert_allclose(np.load(output)["logits"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loaded.predict_files(tmp_path / "new.jsonl"), expected, rtol=1e-5, atol=1e-5)
    bad = write(
        tmp_path / "bad.jsonl", [*bare[:2], {"wave": {"values": None}}, {"wave": {"values": [["1", 2]]}}, *bare[2:]]
    )
    output = tmp_path / "bad.npz"
    assert main(["predict", f"--workdir={run}", f"--data={bad}", f"--output={output}", "--skip-bad"]) == 0
    np.testing.assert_allclose(np.load(output)["logits"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, r"line 4: got no list in the column 'wave\.values'; expected a list of numbers in each row"),
        ([], r"line 4: got a sequence of shape \(0, 1\)"),
        (7, r"line 4: got '7' in the column"),
        ([1, "2"], r"line 4: got '2' in a list of the column"),
        ([1, None], r"line 4: got None in a list of the column"),
        ([[1, 2], [3]], r"line 4: got rows of unlike length in the column"),
        ([[1, [2]], [3, 4]], r"line 4: got \['2'\] in a list of the column"),
        ([[1, 2, 3]], r"line 4: got 3 features; expected 2 in each sequence"),
        ([[1, 1e39]], r"line 4: got numbers that are not finite in float32"),
    ],
    ids=str,
)
def test_what_is_no_list_of_numbers_is_refused_by_its_line(values: Any, expected: str, tmp_path: Path):
    rows = rows_of(TRACES, LABELS)
    rows[3]["wave"]["values"] = values
    write(tmp_path / "traces.jsonl", rows)
    with pytest.raises(DataError, match=expected):
        build(filed(tmp_path))


def test_settings_of_a_column_of_sequences_are_refused_by_their_key(tmp_path: Path):
    write(tmp_path / "traces.jsonl", rows_of(TRACES, LABELS))
    for changes, expected in (
        ({"data.text": "kind"}, r"data\.sequence: got 'wave\.values'; expected None with data\.text"),
        ({"data.tokens": "bytes"}, r"data\.tokens: got 'bytes'; expected None without data\.text"),
        ({"data.context": 8, "data.vocabulary": 300}, r"data\.vocabulary: got 300; expected None without data\.text"),
        ({"data.target": "wave.values"}, r"data\.target: .*nor data\.sequence"),
    ):
        with pytest.raises(ConfigError, match=expected):
            build(filed(tmp_path, **changes))
    with pytest.raises(DataError, match=r"a list in the field 'wave\.values'.* or name it by data\.sequence"):
        build(filed(tmp_path, **{"data.sequence": "wav.values"}))
    write(tmp_path / "traces.parquet", rows_of(TRACES, LABELS))
    in_parquet = {"data.name": "parquet", "data.file": "traces.parquet"}
    for column, expected in (
        ("kind", "the type string of the column 'kind'"),
        ("wav", "no column 'wav'; expected one of wave.values"),
    ):
        with pytest.raises(DataError, match=expected):
            build(filed(tmp_path, **in_parquet, **{"data.sequence": column}))


def test_what_goes_beyond_the_context_is_cut_off_and_said(tmp_path: Path):
    write(tmp_path / "traces.jsonl", rows_of(TRACES, LABELS))
    with pytest.warns(JaxtrainWarning, match=r"sequences that are longer than 16 values.*unless data\.context"):
        dataset = build(filed(tmp_path, **{"data.context": 16})).dataset
    assert dataset.info.input_shape == (16, 3)
