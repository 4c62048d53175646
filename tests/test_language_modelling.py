"""Language models: what a run learns and reports, predicts from files, and generates; and an error for each misuse."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain.core.metric import merge
from jaxtrain.data.source import Source
from jaxtrain.data.texts import Text
from jaxtrain.errors import ConfigError, DataError, UsageError
from jaxtrain.tasks import make_task
from jaxtrain.tasks.generation import choose
from jaxtrain.tasks.lora import LoRA
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.training.experiment import build
from jaxtrain.training.generation import generate
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

WORDS = np.random.default_rng(0).choice(["the cat sat. ", "a dog ran! ", "über alles? "], 600)
CONTENT = "".join(WORDS)
CONTEXT = 24
GIVEN = {
    **{"data.name": "text", "data.file": "words.txt", "data.tokens": "characters", "data.context": CONTEXT},
    **{"data.batch_size": 8, "task.name": "language_modelling", "train.duration": "60 steps", "train.ema": None},
    **{"model.name": "transformer", "model.width": 16, "model.layers": 1, "model.heads": 2, "model.dropout": 0.1},
    **{"optimizer.name": "adamw", "optimizer.learning_rate": 0.02},
}


def config_of(folder, **changes):
    given = {**GIVEN, "data.path": str(folder)} | {name.replace("__", "."): value for name, value in changes.items()}
    return tiny(given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "words.txt").write_text(CONTENT)
    return folder


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train_and_evaluate(config_of(folder), workdir, quiet=True)
    return workdir


@pytest.fixture(scope="module")
def trained(workdir) -> Any:
    return load_run(workdir)


def test_a_run_learns_the_text_and_reports_its_numbers_in_agreement(workdir):
    result = json.loads((workdir / "result.json").read_text())
    test = result["test"]
    assert test["loss"] < 1.0
    assert test["accuracy"] > 0.7
    assert test["perplexity"] == pytest.approx(math.exp(test["loss"]), rel=1e-5)
    # ü has two bytes; a bit for each byte is fewer than for each character.
    assert 0.9 * test["loss"] / math.log(2) < test["bits_per_byte"] < test["loss"] / math.log(2)


def test_numbers_are_those_of_every_token_of_the_split_once(trained, folder):
    """The last batch of an evaluation is padded with rows that must not count."""
    experiment = build(config_of(folder, data__eval_batch_size=16))
    assert experiment.dataset.sizes["test"] % 16
    split = experiment.dataset.split("test")
    logits = np.asarray(trained.predict(split["inputs"]), np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    nats = -np.log(np.take_along_axis(chances, split["targets"][..., None].astype(int), -1))[..., 0]
    found = {name: metric.result() for name, metric in experiment.evaluate(trained.state, "test").items()}
    lengths = trained.info.vocabulary.byte_lengths[split["targets"]]
    assert lengths.max() == 2
    assert found["loss"] == pytest.approx(nats.mean(), rel=1e-4)
    assert found["perplexity"] == pytest.approx(np.exp(nats.mean()), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats.sum() / np.log(2) / lengths.sum(), rel=1e-4)
    assert found["accuracy"] == pytest.approx((logits.argmax(-1) == split["targets"]).mean(), rel=1e-6)


def test_bits_per_byte_merge_by_their_bytes():
    logits = jax.random.normal(jax.random.key(0), (6, 5, 7))
    targets = jnp.arange(30).reshape(6, 5) % 7
    lengths = jnp.asarray(jnp.arange(30).reshape(6, 5) % 3 + 1, jnp.float32)
    mask = jnp.array([1.0, 1, 0, 1, 1, 1])
    measure: Any = METRICS.members["bits_per_byte"]
    whole = measure(logits, targets, mask, lengths)
    parts = [measure(logits[own], targets[own], mask[own], lengths[own]) for own in (slice(0, 2), slice(2, 6))]
    merged = merge({"m": parts[0]}, {"m": parts[1]})["m"]
    assert merged.result() == pytest.approx(whole.result(), rel=1e-5)
    kept = np.asarray(mask, bool)
    nats = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(targets)[..., None], -1)[..., 0]
    assert whole.result() == pytest.approx(nats[kept].sum() / np.log(2) / np.asarray(lengths)[kept].sum(), rel=1e-5)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(folder, workdir, tmp_path):
    config = config_of(folder)
    train_and_evaluate(config, tmp_path, trackers=[Interrupting(20)], quiet=True)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"
    train_and_evaluate(config, tmp_path, quiet=True)
    assert outcome(tmp_path) == outcome(workdir)


def test_the_host_feeds_the_batches_of_the_device(folder, workdir, tmp_path):
    train_and_evaluate(config_of(folder, data__feed="host"), tmp_path, quiet=True)
    assert outcome(tmp_path)["state_digest"] == outcome(workdir)["state_digest"]


def uncached(run, text, length):
    """Takes the most probable token again and again, each time from the whole window."""
    tokens = run.info.vocabulary.encode(text).astype(int).tolist()
    begin = 0
    for _ in range(length):
        if len(tokens) - begin > CONTEXT:
            begin = len(tokens) - (CONTEXT + 1) // 2
        window = np.zeros((1, CONTEXT), np.uint8)
        window[0, : len(tokens) - begin] = tokens[begin:]
        tokens.append(int(run.predict(window)[0, len(tokens) - begin - 1].argmax()))
    return run.info.vocabulary.decode(np.array(tokens[-length:]))


@pytest.mark.parametrize("prompt", ["the", "a dog ran! über alles? the cat"], ids=["short", "beyond the context"])
def test_cached_generation_equals_uncached_decoding(trained, prompt):
    expected = uncached(trained, prompt, 60)
    assert trained.generate(prompt, 60, temperature=0.0) == expected
    assert trained.generate(prompt, 60, temperature=1.0, top_k=1, seed=3) == expected


def test_generation_is_a_function_of_its_seed_and_prompts_are_continued_beside_each_other(trained):
    drawn = [trained.generate("the", 40, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 40
    assert "sat" in trained.generate("the", 40, temperature=0.1)
    state = trained.state
    weights = (state.params, state.model_state, trained.rules.schedule(state.step, state.hparams))
    prompts = np.array([trained.info.vocabulary.encode(prompt) for prompt in ("the c", "a dog")])
    found = generate(trained.task, weights, prompts, 30, context=CONTEXT, temperature=0.0)
    texts = [trained.info.vocabulary.decode(tokens) for tokens in found]
    assert texts == [trained.generate(prompt, 30, temperature=0.0) for prompt in ("the c", "a dog")]


def test_an_adapted_model_generates_with_its_adapters(trained):
    lora = LoRA("Dense_1", 2)
    values = {**trained.rules.schedule(trained.state.step, trained.state.hparams), "lora.alpha": 1.0}
    task = lora.adapt(trained.task)
    batch = {"inputs": np.zeros((1, CONTEXT), np.uint8)}
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0), batch, values)[0]["lora"])
    prompt = trained.info.vocabulary.encode("the cat")[None]
    found = []
    for up in (0.0, 1.0):
        adapters = {
            path: {"down": jnp.ones(p["down"].shape), "up": jnp.full(p["up"].shape, up)} for path, p in shapes.items()
        }
        params = {"base": trained.state.params, "lora": adapters}
        drawn = generate(task, (params, {}, values), prompt, 30, context=CONTEXT, temperature=0.0)[0]
        found.append(trained.info.vocabulary.decode(drawn))
    assert found[0] == trained.generate("the cat", 30, temperature=0.0) != found[1]


def test_tokens_are_drawn_with_their_probabilities():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    draws = 4000

    def shares(temperature, top_k=None):
        keys = jax.random.split(jax.random.key(0), draws)
        drawn = jax.vmap(lambda key: choose(logits, key, jnp.float32(temperature), top_k)[0])(keys)
        return np.bincount(drawn, minlength=4) / draws

    np.testing.assert_allclose(shares(1.0), [0.5, 0.3, 0.15, 0.05], atol=0.03)
    squared = np.square([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(shares(0.5), squared / squared.sum(), atol=0.03)
    np.testing.assert_allclose(shares(1.0, 2), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(0.0), [1, 0, 0, 0])


def test_a_run_predicts_from_new_files(trained, folder):
    logits = trained.predict_files(folder / "words.txt")
    assert logits.shape == ((len(CONTENT) - 1) // CONTEXT, CONTEXT, trained.info.classes)


def test_a_text_in_python_trains_in_half_precision_with_byte_pairs(tmp_path):
    changes = {"data__context": 8, "train__precision": "bfloat16", "train__duration": "20 steps", "model__remat": True}
    config = config_of(tmp_path, **changes)
    source = Source({"train": Text(CONTENT, context=8, tokens="byte_pairs", vocabulary=280)})
    result = train_and_evaluate(config, tmp_path, data=source, quiet=True)
    assert result.status == "done"
    assert isinstance(load_run(tmp_path).generate("the", 12), str)


def test_what_cannot_be_is_refused_in_a_line(folder, trained):
    with pytest.raises(
        DataError, match=r"words.txt: got .* tokens \(characters\) in the validation part; expected at l"
    ):
        build(config_of(folder, data__context=5000))
    with pytest.raises(DataError, match=r"task.name: got 'language_modelling' for data that are no text"):
        build(tiny({"task.name": "language_modelling", "model.name": "mlp"}))
    with pytest.raises(DataError, match=r"one integer label for each example in 'classification'"):
        build(config_of(folder, task__name="classification"))
    with pytest.raises(UsageError, match=r"prompt: got .*; expected at least one token"):
        trained.generate("")
    with pytest.raises(UsageError, match=r"temperature: got -1; expected a number, at least 0"):
        trained.generate("the", temperature=-1)
    with pytest.raises(UsageError, match=r"top_k: got 0; expected None or at least 1"):
        trained.generate("the", top_k=0)
    with pytest.raises(UsageError, match=r"length: got 0; expected at least 1"):
        trained.generate("the", 0)


def test_what_cannot_continue_a_text_says_so(trained):
    other = make_task(tiny(), build(tiny()).dataset.info)
    with pytest.raises(ConfigError, match=r"task.name: got a task without a function decode; expected a task that"):
        generate(other, ({}, {}, {}), np.zeros((1, 2), int), 1, context=4)
    task = make_task({**trained.config, "model": {"name": "test_language_modelling:Bigram"}}, trained.info)
    with pytest.raises(ConfigError, match=r"model.name: got '.*Bigram'; expected a model with a method decode"):
        generate(task, ({}, {}, {"loss.label_smoothing": 0.0}), np.zeros((1, 2), int), 1, context=4)


class Bigram:
    """A model that cannot be continued."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def init(self, *arguments, **options):
        return {}

    def apply(self, *arguments, **options):
        return None
