"""Texts of unlike length: padding changes no number, one program serves all lengths, and files train and predict."""

import csv as csv_format
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain.commands.data import data_report
from jaxtrain.core.state import Task
from jaxtrain.data import load, text_columns
from jaxtrain.data.info import DataInfo
from jaxtrain.data.order import Groups, batch_indices
from jaxtrain.data.source import Source
from jaxtrain.data.text_columns import TEXT_COLUMN, Texts
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning
from jaxtrain.main import main
from jaxtrain.parallel.mesh import device_mesh
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

COUNT = 200
DRAW = np.random.default_rng(0)
LABELS = DRAW.choice(["bad", "good"], COUNT).tolist()
TEXTS = [f"{'a ' * DRAW.integers(0, 13)}{'bcd' if label == 'bad' else 'egh'}" for label in LABELS]
"""A text of 3 to 27 bytes whose last letters tell its class."""

ROWS = [{"text": text, "noise": i, "label": label} for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))]
GIVEN = {
    **{"data.target": "label", "data.text": "text", "data.context": 32, "data.batch_size": 16},
    **{"task.name": "sequence_classification", "train.duration": "40 steps", "train.ema": None},
    **{"model.name": "text_encoder", "model.width": 16, "model.layers": 0, "model.dropout": 0.1},
    **{"optimizer.name": "adamw", "optimizer.learning_rate": 0.02},
}
IN_MEMORY = {name: value for name, value in GIVEN.items() if name not in ("data.target", "data.text", "data.context")}


def source(texts=TEXTS, labels=LABELS, **settings):
    return Source({"train": (Texts({"text": texts}, **{"context": 32, **settings}), labels)})


def in_memory(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return tiny({**IN_MEMORY, "data.name": "memory", **dotted})


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return build(in_memory(), data=source())


def batch_of(experiment: Experiment, step: int) -> dict[str, jax.Array]:
    batches = experiment.batches(step, 1, 1)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[jnp.asarray(batches.rows[0])], batches.data)


def as_csv(folder):
    with open(folder / "texts.csv", "w", newline="") as file:
        writer = csv_format.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return {"data.name": "csv", "data.file": "texts.csv"}


def as_jsonl(folder):
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return {"data.name": "jsonl", "data.file": "texts.jsonl"}


def as_parquet(folder):
    pa: Any = pytest.importorskip("pyarrow")
    pq: Any = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "texts.parquet")
    return {"data.name": "parquet", "data.file": "texts.parquet"}


def as_folder(folder):
    for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        place = folder / "texts" / label
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:03}.txt").write_text(f"{text}\n")
    return {"data.name": "text_folder", "data.folder": "texts", "data.target": None, "data.text": None}


WRITERS = {"csv": as_csv, "jsonl": as_jsonl, "parquet": as_parquet, "text_folder": as_folder}


def written(folder, name, **changes):
    """Writes the texts in a form, and returns the config that trains on them."""
    given = {**GIVEN, "data.path": str(folder), **WRITERS[name](folder)}
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return tiny({name: value for name, value in {**given, **dotted}.items() if value is not None} | {"train.ema": None})


def test_texts_become_tokens_padded_to_the_longest_of_a_few_lengths(experiment):
    texts = experiment.dataset.info.texts
    assert texts is not None
    assert texts.lengths == (4, 8, 16, 32)
    assert experiment.dataset.info.input_shape == (32,)
    rows = experiment.dataset.read("train", np.arange(8))["inputs"]
    own = experiment.dataset.parts["train"].source_rows(np.arange(8))
    for row, place in zip(rows, own, strict=True):
        text = TEXTS[place].encode()
        np.testing.assert_array_equal(row, [*text, *[256] * (32 - len(text))])
        assert texts.decode(row) == TEXTS[place]
    few = build(in_memory(), data=source(context=256)).dataset.info.texts
    assert few is not None
    assert few.lengths == (32,)  # no text needs the others, 64 to 256


@pytest.mark.parametrize("layers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_padding_changes_no_loss_metric_gradient_or_prediction(layers, monkeypatch):
    monkeypatch.setattr(text_columns, "LENGTHS", 2)  # two branches to compile, not four
    experiment = build(in_memory(model__layers=layers, model__heads=2, model__dropout=None), data=source())
    state = experiment.init()
    info = experiment.dataset.info
    values = experiment.rules.schedule(state.step, state.hparams)
    assert info.texts is not None
    task = experiment.rules.task

    def loss(params: Any, batch: Any) -> Any:
        result, (_, metrics) = task.loss(params, state.model_state, batch, jax.random.key(1), values, False)
        return result, metrics

    of_task = jax.jit(jax.value_and_grad(loss, has_aux=True))
    logits_of = jax.jit(lambda rows: task.predict(state.params, state.model_state, rows, values))
    whole = batch_of(experiment, 1)
    places = np.argsort(np.sum(np.asarray(whole["inputs"]) != info.texts.padding, axis=1), kind="stable")[[0, 8, 15]]
    batch = {name: leaf[places] for name, leaf in whole.items()}
    (padded, metrics), gradients = of_task(state.params, batch)
    # The reference: each text by itself at its own length, without any padding.
    alone = [row[row < info.texts.padding][None] for row in np.asarray(batch["inputs"])]
    assert len({rows.shape for rows in alone}) > 1
    logits = jnp.concatenate([logits_of(jnp.asarray(rows)) for rows in alone])
    np.testing.assert_allclose(logits_of(batch["inputs"]), logits, rtol=1e-5, atol=1e-6)
    picked = jax.nn.log_softmax(logits)[jnp.arange(3), batch["targets"]]
    np.testing.assert_allclose(padded, -picked.mean(), rtol=1e-5)
    assert metrics["accuracy"].result() == pytest.approx(np.mean(logits.argmax(axis=1) == batch["targets"]))
    last = {"inputs": jnp.asarray(alone[1]), "targets": batch["targets"][1:2]}
    wide = {**last, "inputs": batch["inputs"][1:2]}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        of_task(state.params, wide)[1],
        of_task(state.params, last)[1],
    )
    assert jax.tree.leaves(gradients)[0].shape == jax.tree.leaves(state.params)[0].shape


def test_a_batch_is_computed_at_the_length_that_it_needs(experiment):
    info = experiment.dataset.info
    lengths: list[int] = []

    class Recording:
        """Notes the length of the inputs of the branch that ran."""

        @staticmethod
        def loss(params, model_state, batch, key, values, train):
            jax.debug.callback(lambda _, n=batch["inputs"].shape[1]: lengths.append(n), batch["targets"][0])
            return jnp.sum(params) * 0.0, (model_state, {})

    from jaxtrain.tasks.padding import cut_padding

    assert info.texts is not None
    task = cut_padding(Task(init=lambda *_: None, loss=Recording.loss, predict=lambda *_: None), info.texts)
    inputs = np.full((4, 32), info.texts.padding, np.uint16)
    for longest in (1, 4, 5, 16, 17, 32, 0):
        inputs[:] = info.texts.padding
        inputs[2, :longest] = 7
        batch = {"inputs": jnp.asarray(inputs), "targets": jnp.zeros(4)}
        jax.block_until_ready(jax.jit(lambda p, b: task.loss(p, {}, b, None, {}, True)[0])(jnp.ones(2), batch))
    jax.effects_barrier()
    assert lengths == [4, 4, 8, 16, 32, 32, 4]


def test_all_lengths_share_one_program_of_steps_and_one_of_evaluations(experiment):
    from jaxtrain.core.steps import train_step
    from jaxtrain.parallel import mesh as programs
    from jaxtrain.parallel.shared_programs import shared_program
    from jaxtrain.training.runners import make_runner

    runner = make_runner(experiment, train_step)
    state = runner.init()
    trained = shared_program(programs._jit_train_call, experiment.rules, device_mesh(1), train_step)
    evaluated = shared_program(programs._jit_eval_call, experiment.rules, device_mesh(1))
    before = (trained._cache_size(), evaluated._cache_size())  # of other tests, which share the functions
    for step in range(0, 30, 3):
        state, _ = runner.call(state, experiment.batches(step, 3), 3)
    runner.evaluate(state, "validation")
    assert trained._cache_size() <= before[0] + 1
    assert evaluated._cache_size() <= before[1] + 1


def test_batches_hold_texts_of_about_one_length_and_each_text_once_an_epoch():
    groups = Groups(np.random.default_rng(1).integers(0, 3, 100))
    whole = batch_indices(0, 100, examples=100, batch_size=8, seed=0, groups=groups)
    for epoch in range(8):
        assert sorted(whole.reshape(-1)[100 * epoch : 100 * (epoch + 1)]) == list(range(100))
    # Of 12 or 13 batches of an epoch, one spans two epochs, and one or two lie between two groups.
    mixed = sum(len(set(groups.of[batch])) > 1 for batch in whole)
    assert mixed <= 8 * 3 + 1
    plain = batch_indices(0, 100, examples=100, batch_size=8, seed=0)
    assert sum(len(set(groups.of[batch])) > 1 for batch in plain) > 90
    for step in (0, 11, 37, 99):  # a function of seed and step
        row = batch_indices(step, 1, examples=100, batch_size=8, seed=0, groups=groups)
        np.testing.assert_array_equal(row, whole[step : step + 1])
    other = batch_indices(0, 100, examples=100, batch_size=8, seed=1, groups=groups)
    assert not np.array_equal(whole, other)


def test_resumed_equals_uninterrupted_whatever_the_feed(tmp_path):
    train_and_evaluate(in_memory(), tmp_path / "whole", data=source(), quiet=True)
    for name, feed in (("cut", None), ("host", "host")):
        config = in_memory(data__feed=feed)
        train_and_evaluate(config, tmp_path / name, data=source(), trackers=[Interrupting(20)], quiet=True)
        train_and_evaluate(config, tmp_path / name, data=source(), quiet=True)
        assert outcome(tmp_path / name) == outcome(tmp_path / "whole")


@pytest.mark.unfused
def test_a_lane_of_seeds_is_the_run_of_its_seed_alone(tmp_path):
    train_and_evaluate(in_memory(train__seeds=2), tmp_path / "lanes", data=source(), quiet=True)
    train_and_evaluate(in_memory(seed=1), tmp_path / "solo", data=source(), quiet=True)
    lanes, solo = (load_run(tmp_path / "lanes", seed=1), load_run(tmp_path / "solo"))
    np.testing.assert_allclose(lanes.predict(TEXTS), solo.predict(TEXTS), rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_folds_of_texts_are_lanes_and_equal_the_run_of_a_fold_alone(tmp_path):
    train_and_evaluate(
        in_memory(data__folds=3, train__duration="20 steps"), tmp_path / "all", data=source(), quiet=True
    )
    one = in_memory(data__folds=3, data__fold=2, train__duration="20 steps")
    train_and_evaluate(one, tmp_path / "one", data=source(), quiet=True)
    lane, alone = load_run(tmp_path / "all", fold=2), load_run(tmp_path / "one")
    np.testing.assert_allclose(lane.predict(TEXTS), alone.predict(TEXTS), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n != "csv" else []) for n in WRITERS])
def test_each_form_of_files_trains_and_is_predicted_from(name, tmp_path, capsys):
    config = written(tmp_path, name)
    result = train_and_evaluate(config, tmp_path / "run", quiet=True)
    assert result.test is not None
    assert result.test["accuracy"] > 0.9
    run = load_run(tmp_path / "run")
    assert run.class_names == ("bad", "good")
    files = {"csv": ["texts.csv"], "jsonl": ["texts.jsonl"], "parquet": ["texts.parquet"], "text_folder": ["texts"]}
    paths = [str(tmp_path / file) for file in files[name]]
    output = tmp_path / "predictions.csv"
    assert main(["predict", f"--workdir={tmp_path / 'run'}", "--data", *paths, f"--output={output}"]) == 0
    with open(output, newline="") as file:
        rows = list(csv_format.DictReader(file))
    texts, labels = (TEXTS, LABELS)
    if name == "text_folder":  # by class
        order = np.argsort(LABELS, kind="stable")
        texts, labels = [TEXTS[i] for i in order], [LABELS[i] for i in order]
        assert rows[0]["id"].startswith("bad/")
        paths = [str(tmp_path / "texts" / row["id"]) for row in rows]
    found = run.predict(texts)
    np.testing.assert_allclose(run.predict_files(*paths), found, rtol=1e-6)
    assert [row["class_name"] for row in rows] == [run.class_names[label] for label in found.argmax(axis=1)]
    right = np.mean([row["class_name"] == label for row, label in zip(rows, labels, strict=True)])
    assert f"accuracy {right:.4g}" in capsys.readouterr().out
    np.testing.assert_allclose(run.predict({TEXT_COLUMN: texts[:3]}), found[:3], rtol=1e-5)


def test_data_says_what_was_understood():
    config = in_memory()
    lines = "\n".join(data_report(load(config["data"], source()), config))
    assert "200 examples of texts of up to 32 bytes, 2 classes" in lines
    counts = re.search(r"padded to    4 \((\d+) texts\), 8 \((\d+) texts\), 16 \((\d+) texts\), 32", lines)
    assert counts is not None
    assert int(counts[1]) < int(counts[3])


def test_what_training_lacks_or_is_too_long_is_said_and_counted():
    long = [*TEXTS, "a " * 100 + "bcd"]
    with pytest.warns(JaxtrainWarning, match=r"1 of 201 texts of 'text' that are longer than 32 tokens"):
        build(in_memory(), data=source(long, [*LABELS, "bad"]))
    built = build(in_memory(), data=source(tokens="characters"))
    info = built.dataset.info
    with pytest.warns(JaxtrainWarning, match=r"1 of 2 rows with characters of 'text' that no training row has"):
        encoded = info.encode({"text": ["a bcd", "ü bcd"]})
    assert info.texts is not None
    assert encoded[1, 0] == info.texts.vocabulary.unknown != info.texts.padding


def test_the_description_of_texts_survives_json(experiment):
    info = experiment.dataset.info
    again = DataInfo.from_json(json.loads(json.dumps(info.to_json())))
    assert again == info
    assert again.texts == info.texts
    np.testing.assert_array_equal(again.encode({"text": TEXTS[:2]}), info.encode({"text": TEXTS[:2]}))
    assert again != DataInfo.from_json(
        json.loads(json.dumps(build(in_memory(), data=source(context=64)).dataset.info.to_json()))
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model.name": "mlp"}, r"model.name: got 'mlp'; expected a model of texts, such as text_encoder"),
        ({"data.quantiles": 4}, r"data.quantiles: got 4; expected None for texts"),
        ({"data.text": "txt"}, r"no column 'txt', which data.text names; expected one of .*text"),
        ({"data.text": "label"}, r"data.target: got 'label'; expected a column .* nor data.text"),
        ({"data.text": None, "data.tokens": "bytes"}, r"data.tokens: got 'bytes'; expected None without data.text"),
        ({"model.width": 18, "model.layers": 1}, r"model.width: got 18; expected a multiple of 8"),
    ],
)
def test_a_config_that_does_not_fit_texts_is_refused_in_one_line(tmp_path, changes, expected):
    given = {**GIVEN, "data.path": str(tmp_path), **as_csv(tmp_path), **changes}
    if changes.get("model.name") == "mlp":
        given = {name: value for name, value in given.items() if not name.startswith("model.")} | changes
    if changes.get("data.text", "") is None:
        given["data.context"] = None
    with pytest.raises((ConfigError, DataError), match=expected) as caught:
        build(tiny(given))
    assert "\n" not in str(caught.value)


def test_sequence_classification_of_other_data_is_refused():
    with pytest.raises(DataError, match=r"'sequence_classification' for inputs of shape .* that are of one length"):
        build(tiny({"task.name": "sequence_classification"}))


def test_an_empty_text_is_named_by_its_line_or_file(tmp_path):
    with pytest.raises(DataError, match=r"no text in the column 'text'; expected a text in each row"):
        build(in_memory(), data=source([*TEXTS[:-1], ""]))
    given = written(tmp_path, "csv")
    path = tmp_path / "texts.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], ",5,bad", *lines[6:]]))
    with pytest.raises(DataError, match=r"texts.csv, line 6: got no text in the column 'text'"):
        build(given)
    given = written(tmp_path, "text_folder")
    first = sorted((tmp_path / "texts" / "bad").iterdir())[0]
    first.write_text(" \n")
    with pytest.raises(DataError, match=rf"{first.name}: got no text; expected a text in each file"):
        build(given)


def test_a_run_of_texts_says_what_new_inputs_it_cannot_take(experiment):
    info = experiment.dataset.info
    with pytest.raises(DataError, match=r"no column 'text'; expected the column of texts 'text'"):
        info.encode({"words": ["a"]})
    with pytest.raises(DataError, match=r"row 1: got no text"):
        info.encode({"text": ["a", None]})
    with pytest.raises(
        DataError, match=r"numbers of dtype int64 from 0 to 257; expected tokens, integers from 0 to 256"
    ):
        info.prepare(np.full((1, 32), 257) * np.arange(32)[None].clip(0, 1))
