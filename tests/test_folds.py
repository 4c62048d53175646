"""Folds of the data: how they are cut, and that a fold trained as a lane is the run of that fold alone."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import Interrupting, config_file, outcome, result_of, run, tiny

from jaxtrain import Source, evaluate, load_export, load_run
from jaxtrain.config.identity import digest
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.data.cut import Rule, cut_folds
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.embedded import breast_cancer, digits
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import as_source
from jaxtrain.data.text_columns import Texts
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.main import main
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.experiment import build
from jaxtrain.training.intervals import interval
from jaxtrain.training.plan import plan
from jaxtrain.training.runners import make_runner
from jaxtrain.training.train import train_and_evaluate

FOLDS = 3
GIVEN: dict[str, Any] = {"data.folds": FOLDS, "data.stratify": True, "train.duration": "40 steps"}


def trained(workdir: Path, data: Source | None = None, trackers: Any = (), **given: Any) -> Path:
    config = tiny({**GIVEN, **{key.replace("__", "."): value for key, value in given.items()}})
    train_and_evaluate(config, workdir, data=data, quiet=True, trackers=trackers)
    return workdir


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of all folds."""
    return trained(tmp_path_factory.mktemp("folds") / "whole")


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The directories of the runs of each fold alone."""
    folder = tmp_path_factory.mktemp("solos")
    return [trained(folder / str(fold), data__fold=fold) for fold in range(FOLDS)]


def lane_digests(workdir: Path, step: int = 40, **given: Any) -> list[str]:
    runner = make_runner(build(tiny({**GIVEN, **given}), folds=True), train_step)
    restored = Checkpoints(workdir / "checkpoints", keep=1, say=print).restore(runner.shapes(), step)
    assert restored is not None
    lanes = [jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), restored.state) for lane in range(FOLDS)]
    return [state_digest(lane) for lane in lanes]


# Training


@pytest.mark.bits
def test_each_lane_is_the_run_of_its_fold_alone_to_the_bit(whole, solos):
    expected = [result_of(solo)["state_digest"] for solo in solos]
    assert lane_digests(whole) == expected
    assert len(set(expected)) == FOLDS
    rows = {(row["step"], row["split"]): row for row in read_rows(whole / "metrics.jsonl")}
    for fold, solo in enumerate(solos):
        own = {(row["step"], row["split"]): row for row in read_rows(solo / "metrics.jsonl") if row["split"] != "test"}
        assert own
        for place, row in own.items():
            for name in ("loss", "accuracy"):
                assert rows[place][f"fold_{fold}/{name}"] == row[name], (fold, place)


@pytest.mark.bits
def test_every_feed_gives_the_folds_the_same_numbers(whole, tmp_path):
    host = outcome(trained(tmp_path / "host", data__feed="host"))
    assert host == outcome(whole)


@pytest.mark.bits
def test_folds_that_do_not_divide_over_the_devices_keep_their_numbers(whole, tmp_path):
    assert outcome(trained(tmp_path / "two", parallel__mesh=2)) == outcome(whole)


def test_the_result_holds_each_fold_and_the_interval_over_them(whole, solos):
    found = result_of(whole)["folds"]
    assert found.keys() == {"train", "validation", "test", "diverged"}
    losses = [result_of(solo)["last"]["validation"]["loss"] for solo in solos]
    assert list(found["validation"]["loss"]["values"].values()) == losses
    spread = interval(np.array(losses))
    told = found["validation"]["loss"]
    assert (told["mean"], told["low"], told["high"]) == (spread.mean, spread.low, spread.high)


@pytest.mark.bits
def test_folds_that_were_interrupted_end_as_undisturbed_ones(whole, tmp_path):
    trained(tmp_path / "cut", trackers=[Interrupting(20)])
    assert result_of(tmp_path / "cut")["status"] == "interrupted"
    trained(tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(whole)


@pytest.mark.bits
def test_a_run_of_folds_is_evaluated_and_predicts_by_each_fold(whole, solos):
    inputs = digits(Path()).splits["train"].inputs[:50]
    for fold, solo in enumerate(solos):
        own = load_run(whole, fold=fold)
        assert own.info.input_mean == load_run(solo, fold=fold).info.input_mean
        if own.step == load_run(solo).step:
            np.testing.assert_array_equal(own.predict(inputs), load_run(solo).predict(inputs))
    with pytest.raises(UsageError, match="fold: got 3; expected one of 0, 1, 2, the folds of"):
        load_run(whole, fold=3)
    with pytest.raises(UsageError, match="fold: got 0; expected 1, the folds of"):
        load_run(solos[1], fold=0)
    numbers = evaluate(whole)
    assert numbers["validation"].keys() >= {"loss", "fold_0/loss", "fold_2/loss"}


def test_a_fold_is_exported_with_the_statistics_of_its_own_rows(whole, tmp_path, capsys):
    inputs = digits(Path()).splits["train"].inputs[:50]
    assert main(["export", f"--workdir={whole}", f"--output={tmp_path / 'two'}", "--fold=2", "--quiet"]) == 0
    model = load_export(tmp_path / "two")
    assert model.description["run"]["fold"] == 2
    own = load_run(whole, fold=2)
    np.testing.assert_allclose(model.predict(inputs)["logits"], own.predict(inputs), atol=1e-5)
    assert abs(own.predict(inputs) - load_run(whole, fold=0).predict(inputs)).max() > 1e-2
    np.save(tmp_path / "new.npy", inputs)
    words = [f"--data={tmp_path / 'new.npy'}", f"--output={tmp_path / 'out.npz'}", "--quiet"]
    assert main(["predict", f"--workdir={whole}", "--fold=2", *words]) == 0
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["logits"], own.predict(inputs))
    assert main(["export", f"--workdir={whole}", f"--output={tmp_path / 'none'}"]) == 2
    assert "got a run of folds; expected one of its models. Give --fold=0 to --fold=2" in capsys.readouterr().err


@pytest.mark.bits
def test_folds_of_groups_of_unlike_sizes_are_lanes_too(tmp_path):
    source = breast_cancer(Path())
    split = source.splits["train"]
    data = Source({"train": split}, columns={"ward": np.minimum(np.arange(len(split.inputs)) // 60, 4)})
    given = {"data__stratify": False, "data__group_by": "ward", "data__batch_size": 32, "data__test_fraction": 0.0}
    whole = trained(tmp_path / "whole", data, **given)
    for fold in range(FOLDS):
        solo = trained(tmp_path / str(fold), data, **given, data__fold=fold)
        losses = {row["step"]: row["loss"] for row in read_rows(solo / "metrics.jsonl") if row["split"] == "validation"}
        rows = [row for row in read_rows(whole / "metrics.jsonl") if row["split"] == "validation"]
        assert {row["step"]: row[f"fold_{fold}/loss"] for row in rows} == losses


def test_the_command_trains_folds_and_says_their_mean_and_interval(tmp_path):
    config = config_file(tmp_path, {**GIVEN, "train.duration": "20 steps"})
    done = run(tmp_path, f"--config={config}", "--workdir=run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    begin = lines.index("across folds: mean, standard deviation, 95 % interval of the mean")
    assert any(line.split()[:2] == ["validation", "accuracy"] for line in lines[begin:])


# Cutting


def test_folds_part_the_rows_and_have_each_class_in_like_shares():
    labels = np.repeat([0, 1, 2], [50, 23, 7])
    rows = np.setdiff1d(np.arange(80), [3, 55, 79])
    parts = cut_folds(rows, 5, 0, Rule(labels=labels))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    counts = np.array([np.bincount(labels[part], minlength=3) for part in parts])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    again = cut_folds(rows, 5, 0, Rule(labels=labels))
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert any((a != b).any() for a, b in zip(parts, cut_folds(rows, 5, 1, Rule(labels=labels)), strict=True))


def test_no_group_lies_in_two_folds_and_their_sizes_are_near():
    groups = np.repeat(np.arange(12), [30, 5, 5, 5, 5, 10, 10, 2, 2, 2, 2, 2])
    parts = cut_folds(np.arange(80), 4, 0, Rule(groups=groups))
    owners = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, owners)) == 12
    assert sorted(map(len, parts)) == [16, 17, 17, 30]


def test_each_fold_is_normalised_by_its_own_training_rows():
    dataset = load_dataset(as_source(digits(Path()), "digits"), Settings(folds=4))
    whole = digits(Path()).splits["train"].inputs
    assert len({fold.info.input_mean for fold in dataset.folds}) == 4
    for fold in dataset.folds:
        own = whole[fold.parts["train"].rows].astype(np.float64)
        assert fold.info.input_mean == pytest.approx([own.mean()], rel=1e-12)
        assert fold.split("train")["inputs"].mean() == pytest.approx(0, abs=1e-5)
    tests = [fold.parts["test"].rows.tolist() for fold in dataset.folds]  # pyright: ignore[reportOptionalMemberAccess]
    assert all(rows == tests[0] for rows in tests)
    alone = load_dataset(as_source(digits(Path()), "digits"), Settings(folds=4, fold=2))
    np.testing.assert_array_equal(alone.split("train")["inputs"], dataset.folds[2].split("train")["inputs"])


def test_the_first_fold_is_another_run_than_all_and_no_folds_the_same_as_ever():
    digests = [digest(tiny(given)) for given in ({}, {"data.folds": 3}, {"data.folds": 3, "data.fold": 0})]
    assert len(set(digests)) == 3
    assert digests[0] == "90e56dc4"


def source_of(**more: Any) -> Source:
    inputs = np.arange(40.0).reshape(20, 2)
    return Source({"train": (inputs, np.repeat([0, 1], [3, 17]))}, **more)


@pytest.mark.parametrize(
    ("source", "given", "expected"),
    [
        (source_of(), {"folds": 19}, "data.folds: got 19; expected at most 18, the number of rows"),
        (source_of(), {"folds": 4, "stratify": True}, "expected at most 3, the number of rows of the class 0"),
        (
            source_of(columns={"ward": np.arange(20) // 10}),
            {"folds": 3, "group_by": "ward", "test_fraction": 0.0},
            "data.folds: got 3; expected at most 2, the number of groups",
        ),
        (
            source_of(columns={"day": np.arange(20)}),
            {"folds": 3, "order_by": "day"},
            "None with data.order_by",
        ),
        (source_of(), {"fold": 0}, "data.fold: got 0; expected None without data.folds"),
        (source_of(), {"folds": 3, "fold": 3}, "data.fold: got 3; expected 0 to 2"),
        (
            Source({"train": source_of().splits["train"], "validation": source_of().splits["train"]}),
            {"folds": 3},
            "data.folds: got 3; expected None for data with a validation split",
        ),
        (
            Source({"train": ({"kind": ["a"] * 19 + ["b"], "size": np.arange(20.0)}, np.arange(20) % 2)}),
            {"folds": 2, "test_fraction": 0.0},
            "whose examples are encoded as",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::jaxtrain.errors.JaxtrainWarning")
def test_folds_that_cannot_be_are_one_line(source, given, expected):
    with pytest.raises(ConfigError) as error:
        load_dataset(as_source(source, "mine"), Settings(**{"test_fraction": 0.1, **given}))
    assert expected in str(error.value)


@pytest.mark.filterwarnings("ignore::jaxtrain.errors.JaxtrainWarning")
def test_folds_with_unlike_numbers_of_codes_or_tokens_are_one_line():
    kinds = [*["a", "b"] * 9, "c", "c"]  # codes keep the shape: the last rows lie in one fold, by their group
    groups = {"group": np.array([0] * 9 + [1] * 9 + [2, 2])}
    settings = Settings(folds=3, group_by="group", test_fraction=0.0)
    table = Source({"train": ({"kind": kinds, "size": np.arange(20.0)}, np.arange(20) % 2)}, columns=groups)
    with pytest.raises(ConfigError, match=r"data.folds: got fold \d, which has another number of categories") as error:
        load_dataset(as_source(table, "mine"), settings, coded=True)
    assert "data.fold" in error.value.hint
    texts = Texts({"text": [f"{kind} text" for kind in kinds]}, tokens="characters", context=8)
    source = Source({"train": (texts, np.arange(20) % 2)}, columns=groups)
    with pytest.raises(ConfigError, match=r"data.folds: got fold \d, which has another number of categories or tokens"):
        load_dataset(as_source(source, "mine"), settings)
    one = load_dataset(as_source(source, "mine"), Settings(folds=3, fold=1, group_by="group", test_fraction=0.0))
    assert one.sizes["train"] + one.sizes["validation"] == 20


@pytest.mark.parametrize(
    ("call", "given", "expected"),
    [
        (plan, {}, "data.folds: got 3; expected one fold, which data.fold chooses"),
        (build, {}, "for this command. Set data.fold=0 here, and train all folds with what this finds"),
        (
            lambda config: train_and_evaluate(config, "never-made", quiet=True),
            {"lr_range.before_training": True},
            "lr_range.before_training: got True; expected False where all folds are trained. Run lr_range with",
        ),
        (
            lambda config: build(config, folds=True),
            {"train.seeds": 2},
            "expected 1 with data.folds, whose folds are the lanes. Train the folds once for each seed: set",
        ),
    ],
)
def test_folds_where_one_data_set_is_needed_are_one_line(call, given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        call(tiny({**GIVEN, **given}))
    assert expected in str(error.value)
