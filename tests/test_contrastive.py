"""The task `contrastive`: NT-Xent against NumPy, padding that counts nothing, lanes, representations, errors."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import result_of, tiny

from jaxtrain import build, load_run
from jaxtrain.core.state import stream
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.tasks.augment import augmentation_of
from jaxtrain.tasks.contrastive import neighbour_accuracy
from jaxtrain.tasks.inputs import normalise_batch
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

GIVEN: dict[str, Any] = {
    **{"task.name": "contrastive", "task.features": 12, "task.projection": 6, "task.temperature": 0.2},
    **{"augment.pad_and_crop.pixels": 1.0, "augment.noise.deviation": 0.5, "model.dropout": None},
}


def by_hand(first: np.ndarray, second: np.ndarray, temperature: float) -> list[float]:
    """Returns the NT-Xent loss of each of 2 n vectors, each compared with all others."""
    vectors = np.concatenate([first, second]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    losses = []
    for i in range(len(vectors)):
        others = [np.exp(vectors[i] @ vectors[j] / temperature) for j in range(len(vectors)) if j != i]
        partner = np.exp(vectors[i] @ vectors[(i + len(first)) % len(vectors)] / temperature)
        losses.append(float(-np.log(partner / sum(others))))
    return losses


@pytest.fixture(scope="module")
def parts() -> tuple[Any, ...]:
    config = tiny(GIVEN)
    experiment = build(config)
    rules, state = experiment.rules, experiment.init()
    batch = normalise_batch(experiment.dataset.read("train", np.arange(9)), experiment.dataset.info)
    values = rules.schedule(jnp.zeros((), jnp.int32), state.hparams)
    return config, rules.task, state, dict(batch), values


def test_the_loss_is_nt_xent_of_two_augmented_views(parts: tuple[Any, ...]):
    config, task, state, batch, values = parts
    key = jax.random.key(3)
    loss, (_, metrics) = jax.jit(task.loss, static_argnums=5)(state.params, state.model_state, batch, key, values, True)
    vectors = []
    for view_key in jax.random.split(stream(key, "views")):
        seen = augmentation_of(config)(view_key, batch, values)["inputs"]
        hidden = np.asarray(task.predict(state.params, state.model_state, seen, values))
        layers = state.params["projection"]
        for name in ("layers_0", "layers_2"):
            hidden = hidden @ np.asarray(layers[name]["kernel"]) + np.asarray(layers[name]["bias"])
            hidden = np.maximum(hidden, 0) if name == "layers_0" else hidden
        vectors.append(hidden)
    expected = by_hand(vectors[0], vectors[1], 0.2)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-4)
    assert metrics["loss"].result() == pytest.approx(np.mean(expected), rel=1e-4)


def test_padding_rows_are_no_others(parts: tuple[Any, ...]):
    _, task, state, batch, values = parts
    measure = jax.jit(lambda batch: task.loss(state.params, state.model_state, batch, jax.random.key(0), values, False))
    mask = np.float32(np.arange(9) < 6)
    one = measure({**batch, "mask": mask})[1][1]
    junk = {name: np.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)) > 0, leaf, 0) for name, leaf in batch.items()}
    other = measure({**junk, "mask": mask})[1][1]
    assert set(one) == {"loss", "accuracy", "neighbour_accuracy"}
    assert one["loss"].count == 12
    for name, metric in one.items():
        assert np.isfinite(metric.result())
        assert metric.result() == pytest.approx(other[name].result(), rel=1e-5)


def test_neighbour_accuracy_is_that_by_hand():
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(20, 3)).astype(np.float32), random.integers(0, 2, 20)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = [
        labels[max((j for j in range(15) if j != i), key=lambda j, i=i: unit[i] @ unit[j])] == labels[i]
        for i in range(15)
    ]
    found = neighbour_accuracy(jnp.asarray(vectors), jnp.asarray(labels), jnp.asarray(np.arange(20) < 15, jnp.float32))
    assert found.result() == pytest.approx(np.mean(hits))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("contrastive") / "run"
    train_and_evaluate(tiny(GIVEN), workdir, quiet=True)
    return workdir


def test_it_learns_without_labels_and_predicts_representations(trained: Path):
    losses = [row["loss"] for row in read_rows(trained / "metrics.jsonl") if row["split"] == "train"]
    assert losses[-1] < losses[0] - 0.3
    assert result_of(trained)["test"]["neighbour_accuracy"] > 0.5  # by chance 0.1
    assert load_run(trained).predict(np.zeros((2, 8, 8, 1))).shape == (2, 12)


def test_a_lane_equals_its_run_alone_and_a_temperature_is_no_program(trained: Path, tmp_path: Path):
    train_and_evaluate(tiny(GIVEN | {"train.seeds": 2}), tmp_path / "lanes", quiet=True)
    lanes = [row["seed_0/loss"] for row in read_rows(tmp_path / "lanes" / "metrics.jsonl") if "seed_0/loss" in row]
    alone = [row["loss"] for row in read_rows(trained / "metrics.jsonl") if "loss" in row]
    np.testing.assert_allclose(lanes, alone, atol=1e-3)
    with count_compilations() as compiled:
        train_and_evaluate(tiny(GIVEN | {"task.temperature": 0.7}), tmp_path / "warm", quiet=True)
    assert compiled.count == 0


def test_its_weights_start_a_classification(trained: Path, tmp_path: Path):
    start = {"checkpoint.init_from": str(trained), "checkpoint.init_except": "Dense_1", "model.dropout": None}
    train_and_evaluate(tiny(start | {"train.duration": "20 steps"}), tmp_path / "fine", quiet=True)
    assert result_of(tmp_path / "fine")["status"] == "done"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"augment": {}}, "augment: got no augmentation; expected at least one for 'contrastive'"),
        ({"augment.mixup": True}, "augment: got mixed examples; expected augmentations that mix no examples"),
        ({"loss.label_smoothing": 0.1}, "loss.label_smoothing: got 0.1; expected 0.0 with 'contrastive'"),
        ({"loss.name": "mse"}, "loss.name: got predictions of shape"),
        ({"task.metrics": ("acuracy",)}, "task.metrics"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(overrides: dict[str, Any], message: str, tmp_path: Path):
    given = {k: v for k, v in GIVEN.items() if not (k.startswith("augment") and "augment" in overrides)} | overrides
    with pytest.raises(ConfigError) as caught:
        train_and_evaluate(tiny({k: v for k, v in given.items() if k != "augment"}), tmp_path, quiet=True)
    assert message in str(caught.value)
