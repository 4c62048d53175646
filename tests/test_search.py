"""Whole studies: trials equal single runs, resumed studies equal uninterrupted ones, errors are one line."""

import json
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import branin
import pytest
from tiny_runs import GIVEN, PATIENCE, on_devices, run, start, timeless_rows, tiny

from jaxtrain import load_config, load_run, train_and_evaluate
from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import to_json
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.search import run as study_module
from jaxtrain.search.programs import Programs
from jaxtrain.search.report.headline import sentences
from jaxtrain.search.run import run_search
from jaxtrain.search.space import read_space
from jaxtrain.search.study import LocalStudy
from jaxtrain.search.trials import Outcome
from jaxtrain.storage.seals import add_seal, without_seal
from jaxtrain.training.signals import Interruption, interruptions

pytestmark = pytest.mark.unfused
RATES = {"optimizer": {"learning_rate": ("log_uniform", 1e-4, 1e-1)}}
SMALL = {
    "search.trials": 9,
    "search.batch": 9,
    "search.compare_seeds": 0,
    "search.value": "best",
    "track.tensorboard": False,
}
"""Trials are compared by their best evaluation, which a single run reports as its best."""


@pytest.fixture
def pictures() -> None:
    """Asks for the pictures of a study, which take longer than the study."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures out of the reports: tests/test_search_pictures.py draws each of whatever was found."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("jaxtrain.search.report.page.FIGURES", {})


def config(space: Any = None, **overrides: Any) -> Config:
    more = {name.replace("__", "."): value for name, value in overrides.items()}
    return tiny({"search.space": space or RATES, **SMALL, **more})


def trials(folder: Path) -> dict[int, Outcome]:
    lines = (folder / "search" / "trials.jsonl").read_text().splitlines()
    found = [Outcome.from_json(without_seal(json.loads(line))) for line in lines]
    assert len({outcome.trial for outcome in found}) == len(found), "no trial is written twice"
    return {outcome.trial: outcome for outcome in found}


def told(folder: Path) -> dict[int, dict[str, Any]]:
    """Returns the fields that must not depend on how a study was chunked, killed or spread over devices."""
    return {
        number: {key: value for key, value in outcome.to_json().items() if key != "seconds"}
        for number, outcome in trials(folder).items()
    }


def trained(outcome: Outcome, seed: int, base: Config, folder: Path):
    """Trains a trial as a single run, as the command `train` does."""
    own = resolve_config(base, {**outcome.point, "seed": seed}).config
    return train_and_evaluate(own, folder, quiet=True)


def alone(outcome: Outcome, seed: int, base: Config, folder: Path) -> float:
    """Returns the best value of a trial that is trained as a single run."""
    best = trained(outcome, seed, base, folder).best
    assert best is not None
    return best["value"]


@pytest.mark.bits
def test_a_trial_is_the_run_of_its_config_for_every_seed(tmp_path):
    base = config(search__seeds=2, search__trials=3)
    result = run_search(base, tmp_path / "study", quiet=True)
    assert result.status == "done"
    for number, outcome in trials(tmp_path / "study").items():
        best = [alone(outcome, seed, base, tmp_path / f"{number}-{seed}") for seed in (0, 1)]
        assert outcome.seeds == dict(enumerate(best))
        assert outcome.value == pytest.approx(sum(best) / 2)
    assert trials(tmp_path / "study")[0].point == {"optimizer.learning_rate": 1e-3}, (
        "trial 0 is the config's own values"
    )


@pytest.mark.bits
@pytest.mark.slow
@pytest.mark.parametrize("patience", ["20 steps", "15 steps", "5 steps"])
def test_early_stopping_counts_as_in_a_run(patience, tmp_path):
    rates = {"optimizer": {"learning_rate": ("grid", (0.3, 0.5))}}
    base = config(rates, search__sampler="grid", train__early_stopping=patience, eval__every="10 steps")
    run_search(base, tmp_path / "study", quiet=True)
    runs = {n: trained(outcome, 0, base, tmp_path / str(n)) for n, outcome in trials(tmp_path / "study").items()}
    assert any(run.step < 60 for run in runs.values()), "a run was stopped early"
    best = {number: run.best["value"] for number, run in runs.items() if run.best}
    assert best == {number: outcome.value for number, outcome in trials(tmp_path / "study").items()}


def last_rows(folder: Path, count: int) -> list[float]:
    """Returns the loss of a run's last evaluations on the validation split."""
    return [row["loss"] for row in timeless_rows(folder) if row["split"] == "validation"][-count:]


@pytest.mark.bits
@pytest.mark.parametrize(("value", "count"), [("last", 1), ("mean of last 2", 2), ("mean of last 99", 6)])
@pytest.mark.parametrize("patience", [None, "10 steps"])
def test_a_value_of_the_last_evaluations_is_that_of_the_run(value, count, patience, tmp_path):
    rates = {"optimizer": {"learning_rate": ("grid", (0.3, 0.5))}}
    more = {"train__early_stopping": patience, "eval__every": "10 steps", "search__value": value}
    base = config(rates, search__sampler="grid", **more)
    run_search(base, tmp_path / "study", quiet=True)
    for number, outcome in trials(tmp_path / "study").items():
        trained(outcome, 0, base, tmp_path / str(number))
        rows = last_rows(tmp_path / str(number), count)
        assert outcome.value == sum(rows) / len(rows)
        best = min(loss for _, loss in outcome.curve)
        assert outcome.value is not None
        assert outcome.value > best or number == 0, "a high rate is restless"


@pytest.mark.slow
def test_rungs_compare_trials_by_the_same_value(tmp_path):
    more = {"search__reduction": 2, "search__first_rung": "20 %", "eval__every": "5 steps", "search__value": "last"}
    rates = {"optimizer": {"learning_rate": ("log_uniform", 1e-3, 1.0)}}
    run_search(config(rates, search__halving="successive", **more), tmp_path / "halved", quiet=True)
    run_search(config(rates, **more), tmp_path / "whole", quiet=True)
    halved, whole = trials(tmp_path / "halved"), trials(tmp_path / "whole")
    at_rung = {number: {step: value for step, value in outcome.curve}[15] for number, outcome in whole.items()}
    assert {n: o.value for n, o in halved.items() if o.step == 15} == {
        n: value for n, value in at_rung.items() if halved[n].step == 15
    }
    first = sorted(at_rung, key=lambda number: at_rung[number])
    assert {number for number, outcome in halved.items() if outcome.step == 15} == set(first[4:])
    assert all(o.value == whole[n].value for n, o in halved.items() if o.status == "done")


def test_a_study_killed_and_resumed_has_the_same_values_of_last_evaluations(tmp_path, monkeypatch):
    halved = {"search__halving": "successive", "search__reduction": 2, "search__value": "mean of last 3"}
    run_search(config(**halved), tmp_path / "whole", quiet=True)
    stopped_after_the_first_rung(config(**halved), tmp_path / "stopped", monkeypatch)
    run_search(config(**halved), tmp_path / "stopped", quiet=True)
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")


@pytest.mark.bits
@pytest.mark.parametrize("value", ["best", "last"])
def test_the_best_config_ends_with_the_state_that_the_value_assumed(value, tmp_path):
    rates = {"optimizer": {"learning_rate": ("grid", (0.3, 0.5))}}
    base = config(
        rates, search__sampler="grid", eval__every="10 steps", optimizer__learning_rate=0.4, search__value=value
    )
    best = run_search(base, tmp_path / "study", quiet=True).findings.best
    assert best is not None
    written = load_config(tmp_path / "study/search/best_config.json")
    again = train_and_evaluate(written, tmp_path / "best", quiet=True)
    assert again.best is not None
    assert again.best["step"] < again.step, "else both are one"
    chosen = again.best["step"] if value == "best" else again.step
    assert again.test is not None
    assert again.test["step"] == load_run(tmp_path / "best").step == chosen
    values = {row["step"]: row["loss"] for row in timeless_rows(tmp_path / "best") if row["split"] == "validation"}
    assert values[chosen] == best.value


def test_a_study_of_another_value_is_refused(tmp_path):
    run_search(config(search__trials=2), tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r"search\.value = 'last', there 'best'"):
        run_search(config(search__trials=2, search__value="last"), tmp_path, quiet=True)


@pytest.mark.parametrize("value", ["worst", "mean of last", "mean of last 0", "Best"])
def test_a_value_that_is_none_is_refused_with_the_forms(value):
    with pytest.raises(ConfigError, match=r"search\.value: got .*'best', 'last' or 'mean of last 3'"):
        config(search__value=value)


@pytest.mark.bits
@pytest.mark.slow
def test_trials_start_from_another_runs_weights_as_runs_do(tmp_path):
    train_and_evaluate(tiny({"seed": 5}), tmp_path / "first", quiet=True)
    base = config(search__trials=2, checkpoint__init_from=str(tmp_path / "first"))
    run_search(base, tmp_path / "study", quiet=True)
    (_, outcome) = trials(tmp_path / "study").values()
    assert outcome.value == alone(outcome, 0, base, tmp_path / "alone")
    fresh = resolve_config(base, {"checkpoint.init_from": None}).config
    assert outcome.value != alone(outcome, 0, fresh, tmp_path / "fresh")


@pytest.mark.bits
@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize("halving", ["successive", "hyperband"])
def test_a_survivor_of_halving_equals_its_unhalved_run(halving, tmp_path):
    more = {"search__reduction": 2, "search__first_rung": "20 %", "eval__every": "10 steps"}
    base = config(search__halving=halving, **more)
    run_search(base, tmp_path / "halved", quiet=True)
    run_search(config(**more), tmp_path / "whole", quiet=True)
    halved, whole = trials(tmp_path / "halved"), trials(tmp_path / "whole")
    survivors = [outcome for outcome in halved.values() if outcome.status == "done"]
    stopped = [outcome for outcome in halved.values() if outcome.status == "stopped"]
    assert 0 < len(survivors) < 9
    assert {outcome.step for outcome in stopped} <= {20, 30}, "at a quarter of the 60 steps, or at half"
    for outcome in survivors:
        assert outcome.value == whole[outcome.trial].value
        assert outcome.curve == whole[outcome.trial].curve
    if halving == "successive":
        first = sorted(whole.values(), key=lambda o: min(value for step, value in o.curve if step <= 20))
        assert {o.trial for o in stopped if o.step == 20} == {o.trial for o in first[4:]}, "the best half went on"


def test_trials_that_share_a_shape_share_one_compiled_program(tmp_path):
    base = config(search__trials=6, model__hidden=(5,), search__batch=6)
    with count_compilations() as one:
        run_search(base, tmp_path / "one", quiet=True)
    with count_compilations() as many:
        run_search(resolve_config(base, {"search.batch": 6, "seed": 7}).config, tmp_path / "many", quiet=True)
    assert one.count > 0
    assert many.count == 0, "other rates, other seeds: nothing is compiled again"


@pytest.mark.slow
def test_a_conditional_space_is_grouped_by_what_shapes_the_program(tmp_path, pictures):
    space = {
        "optimizer": {
            "name": ("choice", ("adamw", "sgd")),
            "momentum": ("uniform", 0.0, 0.9),
            "learning_rate": ("log_uniform", 1e-3, 1e-1),
        }
    }
    base = config(space, search__trials=8)
    programs = Programs()
    found = read_space(base)
    members = {"adamw": {"optimizer.name": "adamw"}, "sgd": {"optimizer.name": "sgd", "optimizer.momentum": 0.5}}
    groups = programs.group([found.trial(i, point) for i, point in enumerate([*members.values()] * 2)])
    assert [[trial.number for trial in group.trials] for group in groups] == [[0, 2], [1, 3]]
    run_search(base, tmp_path, quiet=True)
    for outcome in trials(tmp_path).values():
        assert ("optimizer.momentum" in outcome.point) == (outcome.point["optimizer.name"] == "sgd")
        assert outcome.status == "done"


@pytest.mark.bits
@pytest.mark.slow
def test_any_leaf_can_vary_batch_size_length_and_width_among_them(tmp_path):
    space = {
        "data": {"batch_size": ("choice", (32, 64))},
        "train": {"duration": ("choice", ("40 steps", "60 steps"))},
        "model": {"hidden": ("choice", ((8,), (16,)))},
    }
    base = config(space, search__sampler="grid", search__halving="successive", search__first_rung="30 %")
    run_search(base, tmp_path / "study", quiet=True)
    found = trials(tmp_path / "study")
    assert len(found) == 8, "the config's own values are one of the combinations"
    outcome = next(o for o in found.values() if o.status == "done" and o.trial)
    assert outcome.value == alone(outcome, 0, base, tmp_path / "alone")


@pytest.mark.bits
def test_a_trial_that_diverges_is_a_result_and_leaves_its_neighbours_alone(tmp_path, pictures):
    space = {"optimizer": {"learning_rate": ("grid", (3e-3, 1e30, 1e-2))}}
    base = config(space, search__sampler="grid", optimizer__name="sgd")
    result = run_search(base, tmp_path / "study", quiet=True)
    found = trials(tmp_path / "study")
    assert {n: o.status for n, o in found.items()} == {0: "done", 1: "done", 2: "diverged", 3: "done"}
    assert found[2].value is None
    solo = trained(found[2], 0, base, tmp_path / "2")
    assert solo.status == "diverged"
    assert abs(found[2].step - solo.step) <= 1
    assert result.findings.order[-1].trial == 2
    for number in (1, 3):
        assert found[number].value == alone(found[number], 0, base, tmp_path / str(number))


@pytest.mark.slow
def test_a_loss_that_overflows_in_evaluation_is_a_divergence_and_not_a_crash(tmp_path):
    rates = {"optimizer": {"learning_rate": ("log_uniform", 1e-3, 100.0, 12)}}
    more = {"data__name": "diabetes", "task__name": "regression", "loss__name": "mse", "optimizer__name": "sgd"}
    base = config(rates, search__sampler="grid", search__trials=12, eval__every="1 steps", **more)
    run_search(base, tmp_path, quiet=True)
    found = trials(tmp_path)
    assert {outcome.status for outcome in found.values()} == {"done", "diverged"}
    assert all(isinstance(value, float) for outcome in found.values() for _, value in outcome.curve)


@pytest.mark.slow
def test_asha_compares_with_all_trials_that_reached_the_rung_so_far(tmp_path):
    """Successive halving would keep one of each batch; by what earlier ones reached, a whole batch may stop."""
    more = {"search__halving": "asha", "search__batch": 4, "search__trials": 16, "eval__every": "5 steps"}
    base = config(search__storage=f"sqlite:///{tmp_path}/study.db", **more)
    result = run_search(base, tmp_path, quiet=True)
    outcomes = {outcome.trial: outcome for outcome in result.findings.outcomes}
    assert len(outcomes) == 16
    alive = set(outcomes)
    for step in (5, 20):
        reached = {n: min(value for at, value in outcomes[n].curve if at <= step) for n in sorted(alive)}
        seen: dict[int, float] = {}
        kept: set[int] = set()
        batches: dict[int, set[int]] = {}
        for number in reached:
            batches.setdefault(number // 4, set()).add(number)
        for batch in batches.values():
            seen |= {number: reached[number] for number in batch}
            best = sorted(seen, key=lambda number: (seen[number], number))[: max(1, len(seen) // 3)]
            kept |= batch & set(best)
        assert {n for n in alive if outcomes[n].step > step} == kept
        alive = kept
    assert {n for n, outcome in outcomes.items() if outcome.status == "done"} == alive
    assert any(not batch & alive for batch in (set(range(n, n + 4)) for n in range(0, 16, 4))), (
        "a whole batch was stopped"
    )


def test_asha_is_refused_in_a_study_of_one_process(tmp_path):
    with pytest.raises(ConfigError, match=r"search\.halving: got 'asha'; expected .*search\.storage"):
        run_search(config(search__halving="asha"), tmp_path, quiet=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.bits
@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{}, {"search__halving": "successive", "search__sampler": "sobol"}])
def test_a_study_with_more_trials_than_fit_is_cut_into_chunks(overrides, tmp_path, monkeypatch):
    import jaxtrain.search.programs

    run_search(config(search__seeds=2, **overrides), tmp_path / "whole", quiet=True)
    monkeypatch.setattr(jaxtrain.search.programs, "MAX_CHUNK", 5)
    run_search(config(search__seeds=2, **overrides), tmp_path / "cut", quiet=True)
    assert told(tmp_path / "cut") == told(tmp_path / "whole")


@pytest.mark.bits
def test_trials_too_big_to_share_a_device_run_one_by_one(tmp_path, monkeypatch):
    import jaxtrain.parallel.width
    import jaxtrain.search.programs

    run_search(config(search__trials=3), tmp_path / "lanes", quiet=True)
    for module in (jaxtrain.parallel.width, jaxtrain.search.programs):
        monkeypatch.setattr(module, "memory_limit", lambda mesh: 1000)
    run_search(config(search__trials=3), tmp_path / "one_by_one", quiet=True)
    assert told(tmp_path / "one_by_one") == told(tmp_path / "lanes")


def test_a_study_that_is_done_is_not_run_again_and_can_be_made_longer(tmp_path):
    run_search(config(search__trials=4, search__batch=4), tmp_path, quiet=True)
    before = trials(tmp_path)
    with count_compilations() as compiled:
        run_search(config(search__trials=4, search__batch=4), tmp_path, quiet=True)
    assert trials(tmp_path) == before
    assert compiled.count == 0
    run_search(config(search__trials=7, search__batch=4), tmp_path, quiet=True)
    after = trials(tmp_path)
    assert {number: after[number] for number in before} == before
    assert sorted(after) == [*range(7)]


def stopped_after_the_first_rung(base: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a study and signals it once it has written its first outcomes."""
    tell, caught = LocalStudy.tell, list[Interruption]()

    @contextmanager
    def noted(say: Any):
        with interruptions(say) as stop:
            caught.append(stop)
            yield stop

    def told_and_stopped(study: LocalStudy, outcomes: Any) -> None:
        tell(study, outcomes)
        os.kill(os.getpid(), signal.SIGTERM)
        while caught[-1].signal is None:  # a thread reads the signal, and the study could end first
            time.sleep(0.001)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStudy, "tell", told_and_stopped)
        patched.setattr(study_module, "interruptions", noted)
        result = run_search(base, folder, quiet=True)
    assert (result.status, result.exit_code) == ("interrupted", 143)


@pytest.mark.parametrize("more", [6, 13])
def test_a_study_that_was_stopped_goes_on_with_another_number_of_trials(more, tmp_path, monkeypatch, capsys):
    halved = {"search__halving": "successive", "search__reduction": 2}
    run_search(config(**halved), tmp_path / "whole", quiet=True)
    stopped_after_the_first_rung(config(**halved), tmp_path / "stopped", monkeypatch)
    run_search(config(search__trials=more, **halved), tmp_path / "stopped")
    assert "restarts" not in capsys.readouterr().err, "the states that were saved are used"
    found = told(tmp_path / "stopped")
    assert sorted(found) == [*range(max(more, 9))], "the batch that was begun is finished as it was"
    assert {number: found[number] for number in range(9)} == told(tmp_path / "whole")


@pytest.mark.bits
def test_a_study_whose_sampler_learns_is_extended_in_the_batches_that_it_began_with(tmp_path):
    """By default a batch is a quarter of the trials: the points of the first study must come again."""
    given = {"search__sampler": "tpe", "search__batch": None, "train__duration": "5 steps", "eval__every": "5 steps"}
    run_search(config(search__trials=16, **given), tmp_path, quiet=True)
    before = told(tmp_path)
    run_search(config(search__trials=40, **given), tmp_path, quiet=True)
    found = told(tmp_path)
    assert sorted(found) == [*range(40)]
    assert {number: found[number] for number in before} == before


@pytest.mark.bits
def test_a_study_that_was_stopped_goes_on_where_lanes_fit_one_by_one(tmp_path, monkeypatch):
    import jaxtrain.parallel.width
    import jaxtrain.search.programs

    halved = {"search__halving": "successive", "search__reduction": 2}
    run_search(config(**halved), tmp_path / "whole", quiet=True)
    stopped_after_the_first_rung(config(**halved), tmp_path / "stopped", monkeypatch)
    for module in (jaxtrain.parallel.width, jaxtrain.search.programs):
        monkeypatch.setattr(module, "memory_limit", lambda mesh: 1000)
    run_search(config(**halved), tmp_path / "stopped", quiet=True)
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")


def test_a_damaged_checkpoint_starts_the_batch_afresh(tmp_path, monkeypatch, capsys):
    halved = {"search__halving": "successive", "search__reduction": 2}
    run_search(config(**halved), tmp_path / "whole", quiet=True)
    stopped_after_the_first_rung(config(**halved), tmp_path / "stopped", monkeypatch)
    for file in (tmp_path / "stopped/search/batches").rglob("*"):
        if file.is_file() and file.suffix != ".json" and file.stat().st_size > 500:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    run_search(config(**halved), tmp_path / "stopped")
    assert "restarts from step 0" in capsys.readouterr().err
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")


def test_a_sampler_that_gives_other_points_than_it_did_is_refused(tmp_path):
    run_search(config(search__trials=3, search__batch=3), tmp_path, quiet=True)
    ledger = tmp_path / "search" / "trials.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    rows[1]["point"] = {"optimizer.learning_rate": 0.5}
    ledger.write_text("".join(json.dumps(add_seal(without_seal(row))) + "\n" for row in rows))
    with pytest.raises(
        UsageError, match=r"trials\.jsonl: got .*0\.5.* as trial 1; expected .* which the sampler now gives"
    ):
        run_search(config(search__trials=5, search__batch=3), tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"lr_range__before_training": True}, "lr_range.before_training"),
        ({"train__seeds": 2}, "train.seeds"),
        ({"parallel__backend": "pmap"}, "parallel.backend"),
        ({"seed": 2**32 - 2, "search__seeds": 3}, "search.seeds"),
        ({"seed": 2**32 - 2, "search__seeds": 2, "search__compare_seeds": 1}, "search.compare_seeds"),
    ],
)
def test_what_lanes_cannot_do_as_runs_do_is_refused(overrides, key, tmp_path):
    with pytest.raises(ConfigError) as found:
        run_search(config(**overrides), tmp_path, quiet=True)
    assert found.value.key == key


def test_the_folder_of_another_study_is_refused_with_the_difference(tmp_path):
    run_search(config(search__trials=2), tmp_path, quiet=True)
    other = {"optimizer": {"learning_rate": ("log_uniform", 1e-4, 0.5)}}
    with pytest.raises(UsageError, match=r"search\.space\.optimizer\.learning_rate = .*0\.5.*there .*0\.1"):
        run_search(config(other, search__trials=2), tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r"eval\.metric = 'accuracy', there 'loss'"):
        run_search(config(search__trials=2, eval__metric="accuracy"), tmp_path, quiet=True)
    assert len(trials(tmp_path)) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda text: '{"trial": 0}\n{}\n' + text,
        lambda text: text.replace('"value": ', '"value": 1'),
        lambda text: text.replace('"value": ', '"value": "x", "other": '),
        lambda text: text + text,
    ],
    ids=["lines that are no trials", "changed values", "other fields", "doubled lines"],
)
def test_a_trial_whose_line_cannot_be_trusted_is_trained_again(change, tmp_path, capsys):
    run_search(config(search__trials=2), tmp_path, quiet=True)
    place = tmp_path / "search" / "trials.jsonl"
    before = told(tmp_path)
    place.write_text(change(place.read_text()) + '{"trial": 0, "torn')
    run_search(config(search__trials=2), tmp_path)
    assert capsys.readouterr().err.count(f"{place}: got 2 of ") == 1
    assert told(tmp_path) == before


def test_a_trial_edited_on_purpose_is_accepted_and_said_to_be(tmp_path):
    run_search(config(search__trials=2), tmp_path, quiet=True)
    place = tmp_path / "search" / "trials.jsonl"
    rows = [json.loads(line) | {"value": 1e-9} for line in place.read_text().splitlines()]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_search(config(search__trials=2), tmp_path, quiet=True, accept_edited=True)
    assert [outcome.value for outcome in result.findings.outcomes] == [1e-9, 1e-9]
    assert "Changed by others and accepted as they stood: trials 0, 1." in sentences(result.findings)
    again = run_search(config(search__trials=2), tmp_path, quiet=True)
    assert all(outcome.edited for outcome in again.findings.outcomes)


def test_a_comparison_that_was_changed_is_made_again(tmp_path, capsys):
    result = run_search(config(search__trials=4, search__compare_seeds=2), tmp_path, quiet=True)
    assert result.findings.comparison is not None, "else there is no comparison"
    place = tmp_path / "search" / "comparison.json"
    before = place.read_bytes()
    place.write_bytes(before.replace(b'"verdict": "', b'"verdict": "not '))
    run_search(config(search__trials=4, search__compare_seeds=2), tmp_path)
    assert f"{place}: got content that fails its checksum" in capsys.readouterr().err
    assert place.read_bytes() == before


@pytest.mark.parametrize("hidden", [(0,), (-3,)])
def test_a_width_that_the_model_does_not_allow_is_refused_before_anything_runs(hidden, tmp_path):
    with pytest.raises(ConfigError, match=r"search\.space\.model\.hidden: got .*; expected a tuple of int, at least 1"):
        run_search(config({"model": {"hidden": ("choice", ((8,), hidden))}}), tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("space", "key"),
    [
        ({"loss": {"name": ("choice", ("cross_entropy", "mse"))}}, "search.space.loss.name"),
        ({"data": {"batch_size": ("int", 16, 5000)}}, "search.space.data.batch_size"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_entry_before_anything_runs(space, key, tmp_path):
    with pytest.raises(ConfigError) as found:
        run_search(config(space, eval__metric="accuracy"), tmp_path, quiet=True)
    assert found.value.key == key
    assert not (tmp_path / "search").exists()


def test_files_hold_no_address_of_a_database(tmp_path):
    result = run_search(
        config(search__trials=2, search__storage=f"sqlite:///{tmp_path}/study.db"), tmp_path, quiet=True
    )
    for name in ("config.json", "best_config.json"):
        assert "study.db" not in (result.folder / name).read_text()


@pytest.mark.bits
@pytest.mark.slow
def test_the_best_config_is_accepted_and_trains_to_the_value_of_its_trial(tmp_path):
    result = run_search(config(search__trials=4), tmp_path / "study", quiet=True)
    best = result.findings.best
    assert best is not None
    again = train_and_evaluate(load_config(tmp_path / "study/search/best_config.json"), tmp_path / "best", quiet=True)
    assert again.best is not None
    assert (
        again.best["value"]
        == best.value
        == min(outcome.value or 9.0 for outcome in trials(tmp_path / "study").values())
    )


@pytest.mark.bits
@pytest.mark.slow
def test_the_best_is_compared_on_unused_seeds_as_runs_of_its_config(tmp_path):
    base = config(search__trials=4, search__seeds=2, search__compare_seeds=3)
    result = run_search(base, tmp_path / "study", quiet=True)
    comparison, best = result.findings.comparison, result.findings.best
    assert comparison is not None
    assert best is not None
    assert [*comparison.best] == [*comparison.own] == [2, 3, 4]
    for point, values in ((best.point, comparison.best), ({}, comparison.own)):
        own = resolve_config(base, {**point, "seed": 3}).config
        again = train_and_evaluate(own, tmp_path / f"alone{len(point)}", quiet=True)
        assert again.test is not None
        assert values[3] == pytest.approx(again.test["loss"], rel=1e-6)


@pytest.mark.slow
def test_higher_is_better_where_the_metric_says_so(tmp_path):
    result = run_search(config(eval__metric="accuracy", search__trials=5), tmp_path, quiet=True)
    assert result.findings.best is not None
    assert result.findings.best.value == max(outcome.value or 0.0 for outcome in trials(tmp_path).values())


def test_without_a_validation_split_nothing_is_run(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.validation_fraction: got 0\.0; expected above 0"):
        run_search(config(data__validation_fraction=0.0), tmp_path, quiet=True)


def test_a_value_that_no_program_can_be_built_from_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match=r"eval\.metric"):
        run_search(
            config({"task": {"metrics": ("choice", (("accuracy",), ()))}}, eval__metric="accuracy"),
            tmp_path,
            quiet=True,
        )
    assert not (tmp_path / "search" / "trials.jsonl").exists()


# The command, killed by SIGKILL


def study_file(folder: Path, space: Any = None, **overrides: Any) -> Path:
    path = folder / "study.json"
    path.write_text(to_json(config(space, **overrides)))
    return path


@pytest.mark.slow
@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize("halving", [None, "successive"])
def test_all_diverged_writes_the_report_and_exits_with_4(halving, tmp_path):
    space = {"optimizer": {"learning_rate": ("grid", (1e30, 1e31))}}
    path = study_file(
        tmp_path,
        space=space,
        search__sampler="grid",
        search__halving=halving,
        optimizer__name="sgd",
        optimizer__learning_rate=1e32,
    )
    done = run(tmp_path, "search", f"--config={path}", "--workdir=study")
    assert done.returncode == 4, done.stderr
    assert "every trial diverged" in done.stdout
    assert (tmp_path / "study/search/report.html").exists()
    assert not (tmp_path / "study/search/best_config.json").exists()


@pytest.mark.bits
@pytest.mark.slow
def test_one_device_and_four_give_the_same_trials(tmp_path):
    path = study_file(tmp_path, search__seeds=2, search__halving="successive", parallel__mesh=None)
    for count in (1, 4):
        done = run(tmp_path, "search", f"--config={path}", f"--workdir=on{count}", **on_devices(count))
        assert done.returncode == 0, done.stderr
    assert told(tmp_path / "on1") == told(tmp_path / "on4")


def lines_in(ledger: Path) -> int:
    return len(ledger.read_bytes().splitlines()) if ledger.exists() else 0


@pytest.mark.slow
def test_a_study_killed_and_stopped_equals_one_never_killed(tmp_path):
    more = {"train__duration": "1200 steps", "search__halving": "successive", "eval__every": "60 steps"}
    path = study_file(tmp_path, search__trials=15, search__batch=5, **more)
    line = ("search", f"--config={path}")
    assert run(tmp_path, *line, "--workdir=whole").returncode == 0
    whole = told(tmp_path / "whole")
    ledger = tmp_path / "killed/search/trials.jsonl"
    for number in (signal.SIGKILL, signal.SIGTERM):
        process, before = start(tmp_path, *line, "--workdir=killed"), lines_in(ledger)
        while process.poll() is None and lines_in(ledger) == before:
            time.sleep(0.005)
        os.kill(process.pid, number)
        printed, _ = process.communicate(timeout=PATIENCE)
        assert number == signal.SIGKILL or "--workdir=killed" in printed.splitlines()[-1], "the next command resumes"
        assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGTERM)
    done = run(tmp_path, *line, "--workdir=killed")
    assert done.returncode == 0, done.stderr
    assert told(tmp_path / "killed") == whole
    results = [json.loads((tmp_path / name / "search/result.json").read_text()) for name in ("whole", "killed")]
    assert results[0]["best"]["trial"] == results[1]["best"]["trial"]
    assert not (tmp_path / "killed/search/batches").exists(), "what was saved of a batch goes with it"


# Branin's function, through the same interface


def lowest(folder: Path, sampler: str, seed: int, space: Any = branin.SPACE, trials: int = 60) -> float:
    given = {**GIVEN, "task": {"name": "branin:task"}, "data": {"name": "diabetes"}, "loss": {"name": "mse"}}
    given |= {"train": {"duration": "1 steps"}, "seed": seed, "track": {"tensorboard": False}}
    given["search"] = {"space": space, "sampler": sampler, "trials": trials, "batch": 10, "compare_seeds": 0}
    best = run_search(resolve_config(given).config, folder / f"{sampler}{seed}", quiet=True).findings.best
    assert best is not None
    assert best.value == pytest.approx(float(branin.branin(best.point["task.x"], best.point["task.y"])), rel=1e-4)
    assert best.value is not None
    return best.value


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "bar"), [("random", 2.0), ("sobol", 2.0), ("tpe", 0.8)])
def test_branin_by_sampler(sampler, bar, tmp_path):
    """tests/test_search_optuna.py shows that `tpe` equals Optuna's own to the bit."""
    assert sorted(lowest(tmp_path, sampler, seed) for seed in range(5))[2] < bar


def test_branin_on_a_grid(tmp_path):
    space = {"task": {"x": ("uniform", -5.0, 10.0, 8), "y": ("uniform", 0.0, 15.0, 8)}}
    assert lowest(tmp_path, "grid", 0, space, trials=64) < 2.0
