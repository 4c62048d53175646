"""Workers share a study: no trial is lost to a race, a kill or an outage, and each counts once."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from postgres_server import PostgresServer, postgres_server
from shared_workers import open_study, outcome, run_parent, space
from tiny_runs import PATIENCE

from jaxtrain.errors import ConfigError, StorageError, UsageError
from jaxtrain.search.shared import database
from jaxtrain.search.shared import study as shared
from jaxtrain.search.shared.study import SharedStudy
from jaxtrain.search.trials import Outcome
from jaxtrain.training.signals import Interruption

Opened = Callable[..., SharedStudy]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens studies that are released after the test."""
    with ExitStack() as studies:
        yield lambda url, folder, **options: studies.enter_context(open_study(url, folder, **options))


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared, "POLL_SECONDS", 0.1)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def finished_once(url: str, trials: int) -> dict[str, Any]:
    """Asserts that a study has each of its trials ended, with the outcome of its own point; returns its attributes."""
    storage = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    study = optuna.load_study(study_name="study", storage=storage)
    found, attributes = study.trials, study.user_attrs
    storage.engine.dispose()
    assert [trial.number for trial in found] == list(range(trials))
    for trial in found:
        assert trial.state == optuna.trial.TrialState.COMPLETE
        ended = Outcome.from_json(trial.user_attrs["outcome"])
        assert ended.trial == trial.number
        assert trial.value == ended.value == trial.params["a.x"] == trial.user_attrs["point"]["a.x"]
    return attributes


def write_line(study: SharedStudy, trials: list[Any]) -> None:
    """Writes to the worker's ledger alone, as a kill between ledger and database does."""
    study._ledger.append([outcome(trial) for trial in trials])


@pytest.mark.slow
@pytest.mark.needs("database")
def test_eight_workers_at_once_make_and_work_a_new_study_twenty_times(postgres: PostgresServer, tmp_path: Path):
    urls = [postgres.new_database(f"race_{number}") for number in range(20)]
    codes = run_parent(urls, tmp_path, workers=8, kills=0, seconds=0.005, options={"trials": 8, "batch": 1})
    assert codes == [[0] * 8] * 20
    for number, url in enumerate(urls):
        finished_once(url, 8)
        ledgers = [path.read_text().splitlines() for path in (tmp_path / str(number)).glob("*/trials.jsonl")]
        ran = sorted(json.loads(line)["trial"] for lines in ledgers for line in lines)
        assert ran == list(range(8)), "a trial ran twice"


@pytest.mark.slow
@pytest.mark.needs("database")
def test_workers_that_are_killed_lose_no_trial_and_leave_none_running(postgres: PostgresServer, tmp_path: Path):
    url = postgres.new_database("kills")
    options = {"trials": 60, "batch": 3, "stale_seconds": 3.0}
    codes = run_parent([url], tmp_path, workers=6, kills=15, seconds=0.2, options=options)
    assert codes == [[0] * 6]
    signs = {key: sign for key, sign in finished_once(url, 60).items() if key.startswith("worker:")}
    assert sum(sign is not None for sign in signs.values()) >= 5, "few were killed at work"


@pytest.mark.slow
def test_workers_of_one_machine_share_a_file(sqlite: str, tmp_path: Path):
    options = {"trials": 24, "batch": 2, "stale_seconds": 20.0}
    assert run_parent([sqlite], tmp_path, workers=4, kills=0, seconds=0.01, options=options) == [[0] * 4]
    finished_once(sqlite, 24)


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe"])
def test_one_worker_is_handed_every_trial_once(sqlite: str, opened: Opened, tmp_path: Path, sampler: str):
    study = opened(sqlite, tmp_path, space=space(sampler), trials=10, batch=4)
    sizes, points = [], []
    while trials := study.take():
        sizes.append(len(trials))
        points += [trial.point for trial in trials]
        study.tell([outcome(trial) for trial in trials])
    assert sizes == [4, 4, 2]
    assert points[0] == {"a.x": 0.5, "a.y": None}, "trial 0 is the config's own"
    assert [found.trial for found in study.outcomes()] == list(range(10))
    assert [found.point for found in study.outcomes()] == points


def test_optuna_finds_params_values_and_curves(sqlite: str, opened: Opened, tmp_path: Path):
    study = opened(sqlite, tmp_path, trials=3, batch=3)
    done, stopped, diverged = study.take()
    ended = [outcome(done), outcome(stopped, "stopped"), outcome(diverged, "diverged")]
    study.tell(ended)
    found = optuna.load_study(study_name="study", storage=sqlite)
    first, second, third = found.trials
    assert found.best_trial == first
    assert first.params == {"a.x": 0.5, "a.y": "None"}
    assert first.intermediate_values == {1: 1.0, 2: 0.5}
    assert [trial.state.name for trial in found.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert second.value == stopped.point["a.x"]
    assert third.value is None
    assert study.outcomes() == ended


def test_own_values_outside_the_space_do_not_reach_a_sampler_that_learns(sqlite: str, opened: Opened, tmp_path: Path):
    study = opened(sqlite, tmp_path, space=space("tpe", own={"a.x": 2.0, "a.y": None}), trials=1)
    study.tell([outcome(trial) for trial in study.take()])
    assert optuna.load_study(study_name="study", storage=sqlite).trials[0].state.name == "FAIL"
    assert [found.value for found in study.outcomes()] == [2.0]


def test_two_workers_of_a_sampler_that_learns_draw_other_points(sqlite: str, opened: Opened, tmp_path: Path):
    studies = [opened(sqlite, tmp_path / name, space=space("tpe"), trials=8) for name in "ab"]
    points = [trial.point["a.x"] for study in studies for trial in study.take()]
    assert len(points) == len(set(points)) == 8


def test_a_clean_stop_gives_trials_back_at_once(sqlite: str, opened: Opened, tmp_path: Path):
    first, second = (opened(sqlite, tmp_path / name, trials=4) for name in "ab")
    taken = first.take()
    first.tell([outcome(taken[1])])
    first.release()
    shown = optuna.load_study(study_name="study", storage=sqlite).trials
    assert [trial.state.name for trial in shown] == ["WAITING", "COMPLETE", "WAITING", "WAITING"]
    assert second.take() == [taken[0], taken[2], taken[3]]


def test_workers_see_the_values_of_a_rung_so_far(sqlite: str, opened: Opened, tmp_path: Path):
    """Of all workers, also of trials that have ended, and of those without a value; each rung has its own."""
    first, second = (opened(sqlite, tmp_path / name, trials=5, batch=2) for name in "ab")
    own = first.take()
    assert first.share_rung(0, {0: 0.5, 1: None}) == {0: 0.5, 1: None}
    first.tell([outcome(own[1], "diverged")])
    assert len(second.take()) == 2
    assert second.share_rung(0, {2: 0.25, 3: 0.75}) == {0: 0.5, 1: None, 2: 0.25, 3: 0.75}
    assert second.share_rung(1, {2: 0.125}) == {2: 0.125}
    assert first.share_rung(1, {0: 0.375}) == {0: 0.375, 2: 0.125}
    assert first.share_rung(1, {1: 0.0}) == {0: 0.375, 1: 0.0, 2: 0.125}, "a trial that has ended raises no error"


def test_a_signal_ends_the_wait_for_others(sqlite: str, opened: Opened, tmp_path: Path):
    stop = Interruption()
    first, second = (
        opened(sqlite, tmp_path / "a", trials=2),
        opened(sqlite, tmp_path / "b", trials=2, stop=stop),
    )
    assert len(first.take()) == 2
    threading.Timer(0.3, setattr, (stop, "signal", 15)).start()
    assert second.take() == []


def test_a_silent_workers_trials_go_to_another_and_its_late_outcome_is_dropped(
    sqlite: str, opened: Opened, tmp_path: Path
):
    said: list[str] = []
    silent = opened(sqlite, tmp_path / "a", trials=2, say=said.append)
    other = opened(sqlite, tmp_path / "b", trials=2, stale_seconds=1.0)
    taken = silent.take()
    silent._workers.stop()  # like a machine that froze
    assert other.take() == taken
    silent.tell([outcome(taken[0])])
    assert "another worker runs the trial" in said[0]
    assert other.outcomes() == []
    other.tell([outcome(trial) for trial in taken])
    assert [found.trial for found in other.outcomes()] == [0, 1]


def test_a_living_worker_keeps_its_trials(sqlite: str, opened: Opened, tmp_path: Path):
    stop = Interruption()
    living = opened(sqlite, tmp_path / "a", trials=2, stale_seconds=1.0)
    other = opened(sqlite, tmp_path / "b", trials=2, stale_seconds=1.0, stop=stop)
    assert living.take()
    threading.Timer(2.5, setattr, (stop, "signal", 15)).start()
    assert other.take() == []


def test_a_trial_whose_worker_died_before_it_gave_its_name_is_run(sqlite: str, opened: Opened, tmp_path: Path):
    study = opened(sqlite, tmp_path, space=space("tpe"), trials=3, batch=3, stale_seconds=0.5)
    nameless = optuna.load_study(study_name="study", storage=sqlite).ask()
    assert [trial.number for trial in study.take()] == [1, 2]
    study.tell([])
    deadline = time.monotonic() + PATIENCE
    while nameless.number not in (numbers := [trial.number for trial in study.take()]):
        assert time.monotonic() < deadline
    assert numbers == [0, 1, 2]


def test_what_the_ledger_holds_and_the_database_missed_is_told_at_the_next_start(
    sqlite: str, opened: Opened, tmp_path: Path
):
    killed = opened(sqlite, tmp_path, trials=2)
    taken = killed.take()
    write_line(killed, taken[:1])
    killed._workers.stop()
    again = opened(sqlite, tmp_path, trials=2)
    assert again.outcomes() == [outcome(taken[0])]


def test_the_ledger_of_a_study_that_was_deleted_is_not_told_to_the_next(sqlite: str, opened: Opened, tmp_path: Path):
    with open_study(sqlite, tmp_path, trials=2) as study:
        write_line(study, study.take())
    optuna.delete_study(study_name="study", storage=sqlite)
    other = opened(sqlite, tmp_path / "other", space=space(seed=1), trials=2)
    assert len(other.take()) == 2
    again = opened(sqlite, tmp_path, space=space(seed=1), trials=2)
    assert [found.trial for found in again.outcomes()] == [0], "trial 0 is the same; the point of trial 1 is not"


def test_another_identity_is_refused_and_shown(sqlite: str, opened: Opened, tmp_path: Path):
    opened(sqlite, tmp_path / "a", identity={"metric": "loss", "space": {"x": (0, 1)}})
    opened(sqlite, tmp_path / "b", identity={"metric": "loss", "space": {"x": (0, 1)}})
    with pytest.raises(UsageError) as caught:
        opened(sqlite, tmp_path / "c", identity={"metric": "loss", "space": {"x": (0, 2)}}, higher_is_better=True)
    assert "space.x = [0, 2], there [0, 1]" in str(caught.value)
    assert "direction = 'maximize', there 'minimize'" in str(caught.value)
    assert "another search.study, or another search.storage" in str(caught.value)
    assert "metric" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_is_done_by_one_living_worker(sqlite: str, opened: Opened, tmp_path: Path):
    first, second = (opened(sqlite, tmp_path / name, stale_seconds=1.0) for name in "ab")
    assert first.claim("comparison")
    assert first.claim("comparison"), "it is the worker's own"
    assert not second.claim("comparison")
    first._workers.stop()
    deadline = time.monotonic() + PATIENCE
    while not second.claim("comparison"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert second.fetch("comparison") is None
    second.publish("comparison", {"gain": 0.5})
    assert first.fetch("comparison") == {"gain": 0.5}
    assert not first.claim("comparison"), "it is done"


def test_a_database_out_of_reach_is_one_line(opened: Opened, tmp_path: Path):
    with pytest.raises(StorageError) as caught:
        opened("postgresql://me:secret@127.0.0.1:1/studies?password=secret", tmp_path)
    assert "search.storage=postgresql://me:***@127.0.0.1:1/studies: " in str(caught.value)
    assert "refused" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_accepts_and_never_answers_is_given_up(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Within ten seconds, though a name may stand for two addresses."""
    options = database._CONNECT["postgresql+psycopg"]
    assert 2 * options["connect_timeout"] < 10
    monkeypatch.setitem(options, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"search\.storage="):
            opened(f"postgres://me@127.0.0.1:{mute.getsockname()[1]}/studies", tmp_path)
        assert time.monotonic() - began < PATIENCE


def test_a_folder_that_is_not_there_is_one_line(opened: Opened, tmp_path: Path):
    with pytest.raises(StorageError, match="No such file or directory"):
        opened(f"sqlite:///{tmp_path}/missing/study.db", tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:secret@host/studies",
        "sqlite://",
        "sqlite:///:memory:",
        "me:secret@host",
        "postgresql://me:secret@host:x/y",
    ],
)
def test_other_addresses_are_refused_without_showing_a_password(opened: Opened, tmp_path: Path, url: str):
    with pytest.raises(ConfigError, match="postgresql://USER@HOST/NAME") as caught:
        opened(url, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_sampler_that_unpickles_is_refused(sqlite: str, opened: Opened, tmp_path: Path):
    with pytest.raises(ConfigError, match="unpickle"):
        opened(sqlite, tmp_path, space=space("optuna:CmaEsSampler"))


@pytest.mark.needs("database")
def test_an_outage_between_take_and_tell_loses_nothing(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with postgres_server() as server:
        study = opened(server.url, tmp_path, trials=2)
        taken = study.take()
        server.stop()
        monkeypatch.setattr(database, "RETRY_SECONDS", 1.0)
        with pytest.raises(StorageError) as caught:
            study.tell([outcome(trial) for trial in taken])
        assert "\n" not in str(caught.value)
        server.start()
        again = opened(server.url, tmp_path, trials=2)
        assert [found.trial for found in again.outcomes()] == [0, 1]
        assert again.take() == []


@pytest.mark.needs("database")
def test_a_short_outage_is_waited_for(opened: Opened, tmp_path: Path):
    with postgres_server() as server:
        study = opened(server.url, tmp_path, trials=2)
        taken = study.take()
        server.stop()
        restart = threading.Timer(1.0, server.start)
        restart.start()
        study.tell([outcome(trial) for trial in taken])
        restart.join()
        assert len(study.outcomes()) == 2


def test_importing_the_module_imports_no_database_and_no_optuna():
    code = "import sys, jaxtrain.search.shared.study; print({'optuna', 'sqlalchemy', 'psycopg'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
