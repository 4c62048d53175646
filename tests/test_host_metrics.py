"""Metrics of `eval.host`: what they are given, where their numbers go, and what is refused before training."""

import doctest
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny_runs import Interrupting, outcome, result_of, timeless_rows, tiny

from jaxtrain import load_run, run_search
from jaxtrain.commands.evaluate import evaluate
from jaxtrain.config.identity import changes_numbers, digest
from jaxtrain.config.trust import references
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, as_source
from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.tasks.classification import classification
from jaxtrain.tasks.metrics import on_host
from jaxtrain.tasks.metrics.on_host import HOST_METRICS
from jaxtrain.training.train import train_and_evaluate

SEEN: list[tuple[Any, Any]] = []
WRONG = {
    "eval.host": ("test_host_metrics:wrong",),
    "eval.metric": "wrong",
    "eval.higher_is_better": False,
}


def wrong(predictions, targets):
    """The number of wrong classes, of which the task has the share as accuracy, and that of the examples."""
    return {"wrong": np.sum(predictions.argmax(axis=-1) != targets), "examples": len(targets)}


def right(predictions, targets):
    return {"right": np.sum(predictions.argmax(axis=-1) == targets)}


def recorded(predictions, targets):
    SEEN.append((predictions, targets))
    return {"worst": float(np.abs(predictions - targets).max())}


def nan_at_first(predictions, targets):
    SEEN.append((predictions, targets))
    return {"later": np.nan if len(SEEN) <= 3 else len(SEEN)}  # the check before training is a call, too


def raises(predictions, targets):
    return inner(predictions)


def inner(predictions):
    raise KeyError("a table")


def numbers_of(split, workdir, name):
    return {row["step"]: row[name] for row in timeless_rows(workdir) if row["split"] == split}


def curve(path):
    """A regression of two outputs in units far from 0, with 70 examples for validation."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 3))
    targets = np.stack([1e4 + 300 * inputs[:, 0], 0.01 * inputs[:, 1]], axis=1)
    return {"train": (inputs[:130], targets[:130]), "validation": (inputs[130:], targets[130:])}


CURVE = {
    "data.name": "test_host_metrics:curve",
    "task.name": "regression",
    "loss.name": "mse",
    "data.eval_batch_size": 32,
    "data.test_fraction": 0,
    "eval.host": ("test_host_metrics:recorded",),
    "model.dropout": 0.0,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    train_and_evaluate(tiny(WRONG), workdir, quiet=True)
    return workdir


@pytest.mark.parametrize("feed", ["device", "host"])
def test_a_function_gets_the_predictions_of_a_loaded_run_and_the_targets_as_they_lie_in_the_data(feed, tmp_path):
    SEEN.clear()
    train_and_evaluate(tiny({**CURVE, "data.feed": feed}), tmp_path, quiet=True)
    inputs, targets = curve("")["validation"]
    found = evaluate(tmp_path)["validation"]
    np.testing.assert_array_equal(SEEN[-1][1], targets)
    assert SEEN[-1][1].dtype == targets.dtype
    np.testing.assert_allclose(SEEN[-1][0], load_run(tmp_path).predict(inputs), rtol=1e-6)
    assert found["worst"] == np.abs(SEEN[-1][0] - targets).max()


def test_its_numbers_are_in_rows_result_and_evaluation_and_choose_the_best_step(whole):
    result = result_of(whole)
    rows = numbers_of("validation", whole, "wrong")
    assert result["best"]["metric"] == "wrong"
    assert result["best"]["value"] == rows[result["best"]["step"]] == min(rows.values())
    accuracies = numbers_of("validation", whole, "accuracy")
    examples = result["last"]["validation"]["examples"]
    for step, number in rows.items():
        assert number == pytest.approx((1 - accuracies[step]) * examples, abs=1e-3)
    evaluated = evaluate(whole)
    assert evaluated["step"] == result["best"]["step"]
    assert evaluated["test"]["wrong"] == result["test"]["wrong"] > 0
    assert "wrong" not in result["last"]["train"]


def test_the_run_itself_is_that_without_it(whole, tmp_path):
    train_and_evaluate(tiny(), tmp_path, quiet=True)
    assert result_of(tmp_path)["state_digest"] == result_of(whole)["state_digest"]


def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path):
    train_and_evaluate(tiny(WRONG), tmp_path, quiet=True, trackers=[Interrupting(20)])
    assert result_of(tmp_path)["status"] == "interrupted"
    train_and_evaluate(tiny(WRONG), tmp_path, quiet=True)
    assert outcome(tmp_path) == outcome(whole)


def test_higher_is_better_turns_the_choice_around(whole, tmp_path):
    given = {"eval.host": ("test_host_metrics:right",), "eval.metric": "right", "eval.higher_is_better": True}
    train_and_evaluate(tiny(given), tmp_path, quiet=True)
    rows = numbers_of("validation", tmp_path, "right")
    best = result_of(tmp_path)["best"]
    assert best["value"] == max(rows.values()) > min(rows.values())
    assert best["step"] == result_of(whole)["best"]["step"]


def test_early_stopping_follows_it_and_nan_is_never_the_best(tmp_path):
    SEEN.clear()
    given = {
        "eval.host": ("test_host_metrics:nan_at_first",),
        "eval.metric": "later",
        "eval.higher_is_better": False,
        "train.duration": "400 steps",
        "train.early_stopping": "40 steps",
    }
    train_and_evaluate(tiny(given), tmp_path, quiet=True)
    result = result_of(tmp_path)
    assert result["best"] == {"step": 60, "metric": "later", "value": 4.0}
    assert (result["status"], result["step"]) == ("done", 100)


def test_each_seed_has_the_numbers_of_its_own_run_and_the_run_their_mean(whole, tmp_path):
    train_and_evaluate(tiny({**WRONG, "train.seeds": 2}), tmp_path, quiet=True)
    result = result_of(tmp_path)
    rows = [row for row in timeless_rows(tmp_path) if row["split"] == "validation"]
    assert {row["step"]: row["seed_0/wrong"] for row in rows} == numbers_of("validation", whole, "wrong")
    assert all(row["wrong"] == (row["seed_0/wrong"] + row["seed_1/wrong"]) / 2 for row in rows)
    assert result["best"]["value"] == min(row["wrong"] for row in rows)
    assert set(result["seeds"]["test"]["wrong"]) >= {"mean"}


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        (
            {"eval.metric": "wrong"},
            "eval.higher_is_better",
            "None; expected True or False, for a number of eval.host, with",
        ),
        ({"eval.higher_is_better": True}, "eval.higher_is_better", "True; expected None with eval.metric=loss"),
        (
            {"eval.metric": "wrnog", "eval.higher_is_better": True},
            "eval.metric",
            "'wrnog'; expected one of accuracy, loss, wrong, examples",
        ),
        ({"eval.metric": "acuracy"}, "eval.metric", "'acuracy'; expected one of accuracy, loss, wrong, examples"),
        (
            {"task.name": "test_host_metrics:own_task", "eval.metric": "accuracy", "eval.higher_is_better": False},
            "eval.higher_is_better",
            "False; expected None, for a metric of the task, with eval.metric=accuracy",
        ),
        ({"eval.host": ("roc_auc",)}, "eval.host", "'roc_auc'; expected one of roc_auc_exact, .*Did you mean 'roc_auc"),
        ({"eval.host": ("roc_auc_exact",)}, "eval.host", r"for predictions of shape \(10,\) and targets of shape \(\)"),
        ({"eval.host": ("test_host_metrics:wrong",) * 2}, "eval.host", "a second metric called examples, wrong; .*new"),
        ({"eval.host": ("test_host_metrics:LOSS",)}, "eval.host", "a second metric called loss; expected names that"),
        ({"eval.host": ("test_host_metrics:STEP",)}, "eval.host", "a second metric called step; expected names that"),
        ({"eval.host": ("test_host_metrics:SEED",)}, "eval.host", "the name 'seed_1/x'; .*Start no name with one of"),
        ({"eval.host": ("test_host_metrics:NUMBER",)}, "eval.host", "a float; expected {name: number} from test_host"),
        ({"eval.host": ("test_host_metrics:ARRAY",)}, "eval.host", r"an array of shape \(2,\) under 'x'; expected {na"),
        ({"eval.host": ("test_host_metrics:TEXT",)}, "eval.host", "a str under 'x'; expected {name: number} from test"),
        (
            {"data.validation_fraction": 0, "data.test_fraction": 0},
            "eval.host",
            r"expected \(\) for data without a val",
        ),
        ({"data.folds": 3}, "eval.host", r"expected \(\) where folds are trained together. Train each fold alone"),
        ({"eval.host": ("test_host_metrics:raises",)}, "eval.host", "'test_host_metrics:raises', which raises KeyErr"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_training(given, key, words, tmp_path):
    with pytest.raises(ConfigError, match=words) as refusal:
        train_and_evaluate(tiny({"eval.host": ("test_host_metrics:wrong",), **given}), tmp_path / "run", quiet=True)
    assert refusal.value.key == key
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def own_task(model, loss, info):
    """The classification of the table under a name that is not."""
    return classification(model, loss, info)


def _returning(found):
    return lambda predictions, targets: found


LOSS = _returning({"loss": 1.0})
STEP = _returning({"step": 1.0})
SEED = _returning({"seed_1/x": 1.0})
NUMBER = _returning(1.0)
ARRAY = _returning({"x": np.ones(2)})
TEXT = _returning({"x": "1"})


def test_a_function_that_raises_shows_its_own_frames(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        train_and_evaluate(tiny({"eval.host": ("test_host_metrics:raises",)}), tmp_path, quiet=True)
    frames = refusal.value.frames
    assert "in raises" in frames
    assert frames.rstrip().endswith('raise KeyError("a table")')
    assert "jaxtrain/training" not in frames


def test_a_direction_needs_a_function(tmp_path):
    with pytest.raises(ConfigError, match=r"True; expected None .*, which is no number"):
        train_and_evaluate(tiny({"eval.higher_is_better": True}), tmp_path, quiet=True)


def test_a_search_is_refused(tmp_path):
    space = {"optimizer": {"learning_rate": ("log_uniform", 1e-3, 1e-2)}}
    with pytest.raises(ConfigError, match=r"^eval.host: got .* expected \(\) in a search"):
        run_search(tiny({**WRONG, "search.space": space, "search.trials": 2}), tmp_path, quiet=True)


def test_digests_of_configs_without_it_stay_and_a_foreign_config_may_not_name_one():
    assert not {"host", "higher_is_better"} & changes_numbers(tiny())["eval"].keys()
    assert len({digest(tiny()), digest(tiny(WRONG)), digest(tiny({**WRONG, "eval.higher_is_better": True}))}) == 3
    assert list(references(tiny(WRONG))) == [("eval.host[0]", "test_host_metrics:wrong")]


@pytest.mark.parametrize("name", HOST_METRICS.members)
def test_the_example_of_every_member_holds(name):
    member = HOST_METRICS.members[name]
    (example,) = doctest.DocTestFinder(recurse=False).find(member, name, globs={name: member, "np": np})
    assert doctest.DocTestRunner().run(example).failed == 0


def test_members_take_one_logit_or_two_and_are_nan_without_a_class():
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 500)
    logits = random.normal(size=(500, 2)).astype(np.float32)
    scores = logits[:, 1] - logits[:, 0]
    for predictions in (logits, scores):
        assert on_host.roc_auc_exact(predictions, targets) == {"roc_auc_exact": roc_auc_score(targets, scores)}
        found = on_host.average_precision_exact(predictions, targets)
        assert found == {"average_precision_exact": average_precision_score(targets, scores)}
    assert np.isnan(on_host.roc_auc_exact(scores, np.ones(500, int))["roc_auc_exact"])
    assert np.isnan(on_host.average_precision_exact(scores, np.zeros(500, int))["average_precision_exact"])


def test_targets_of_bad_examples_are_those_of_the_ones_read_in_their_place():
    data = [(np.full(2, row, np.float32), np.float32(row)) for row in range(8)]
    settings = Settings(feed="stream", skip_bad=2, validation_fraction=0.0, test_fraction=0.0)
    dataset = load_dataset(as_source(Source({"train": data}), "memory"), settings, standardised=True)
    assert dataset.bad is not None
    for row in (3, 7):  # as one whose picture alone cannot be decoded
        dataset.bad.note("train", row, DataError("picture", Words("damaged bytes"), "a picture"))
    assert dataset.targets("train").ravel().tolist() == [0, 1, 2, 4, 4, 5, 6, 0]
