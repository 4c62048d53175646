"""A study in a database, shared by any number of workers; optuna-dashboard can open it, too."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from jaxtrain.config.identity import demand_equal
from jaxtrain.config.schema import as_python
from jaxtrain.search.identity import with_earlier_value
from jaxtrain.search.optuna_samplers import optuna_sampler, refuse_unpickling
from jaxtrain.search.optuna_trials import end_trial, running_trial, silence_optuna, suggest, trial_id
from jaxtrain.search.samplers import NonAdaptiveSampler, make_sampler
from jaxtrain.search.shared.database import Database
from jaxtrain.search.shared.workers import Workers
from jaxtrain.search.space import Point, Space, Trial
from jaxtrain.search.study import Ledger
from jaxtrain.search.trials import Outcome, Values
from jaxtrain.training.signals import Interruption

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

T = TypeVar("T")

STALE_SECONDS = 60.0
"""Seconds without a heartbeat after which a worker's trials go to others."""

POLL_SECONDS = 1.0

# Names of our attributes of the study and its trials.
_IDENTITY = "identity"
_WORKER = "worker"
_POINT = "point"
_OUTCOME = "outcome"
_RUNG = "value at rung "


class SharedStudy:
    """One worker's view of a shared study. The database is authoritative; the ledger keeps the worker's own outcomes.

    Trial numbers, 0 to `trials` - 1, are assigned once, under a lock. A trial whose worker died goes to another worker
    with the same number and point. Each trial stores the name of its worker, who owns it while alive.
    """

    def __init__(
        self,
        space: Space,
        ledger: Ledger,
        *,
        url: str,
        name: str,
        identity: Mapping[str, Any],
        higher_is_better: bool,
        trials: int,
        batch: int,
        stop: Interruption,
        say: Callable[[str], None],
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Opens or makes the study, and adds the outcomes in the ledger that the database lacks.

        identity: the config fields that identify the study, as JSON. Raises ConfigError for an invalid sampler or
        address, StorageError for an unreachable database, UsageError if the name belongs to another study.
        """
        sampler_name = space.config["search"]["sampler"]
        refuse_unpickling(sampler_name)
        sampler = make_sampler(space, higher_is_better)
        self._non_adaptive = sampler if isinstance(sampler, NonAdaptiveSampler) else None
        self._space = space
        self._ledger = ledger
        self._trials = trials
        self._batch = batch
        self._name = name
        self._stop = stop
        self._say = say
        self._database = Database(url)
        self._study = self._with_lock(lambda: self._open(identity, higher_is_better))
        self._workers = Workers(self._database, self._study, stale_seconds)
        if self._non_adaptive is None:
            self._study.sampler = optuna_sampler(sampler_name, self._seed())
        self._database.retry(self._workers.sign_on)
        self._with_lock(self._tell_missing)

    def take(self) -> list[Trial]:
        """Returns trials that no living worker runs, then new ones; waits while other workers run all the rest.

        Empty when every trial has ended, or when a signal asks to stop.
        """
        while self._stop.signal is None:
            taken = self._with_lock(self._take)
            if taken is not None:
                return taken
            self._pause()
        return []

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Writes outcomes to the ledger, then to the database, except for trials that went to another worker."""
        self._ledger.append(outcomes)
        accepted = self._with_lock(lambda: [self._end(outcome, of_any_worker=False) for outcome in outcomes])
        for outcome, is_accepted in zip(outcomes, accepted, strict=True):
            if not is_accepted:
                reason = "this worker showed no heartbeat for too long, so another worker runs the trial"
                self._say(f"trial {outcome.trial}: {reason}; the outcome from here is discarded")

    def outcomes(self) -> list[Outcome]:
        """Returns the outcomes of all workers, ordered by trial number."""
        trials = self._database.retry(self._all_trials)
        saved = [trial.user_attrs.get(_OUTCOME) for trial in trials if trial.state.is_finished()]
        return [Outcome.from_json(outcome) for outcome in saved if outcome]

    def share_rung(self, rung: int, values: Values) -> Values:
        """Stores the values of trials at a rung; returns those of all the study's trials that reached it so far.

        So workers stop trials by what is known of a rung, without waiting for each other.
        """
        return self._with_lock(lambda: self._share_rung(f"{_RUNG}{rung}", values))

    def release(self) -> None:
        """Releases the trials without an outcome and signs off; if that fails, the heartbeat's absence shows it."""
        self._workers.stop()
        self._database.try_once(self._give_back)

    def claim(self, task: str) -> bool:
        """Claims a task for this worker; False if it is done or a living worker has it."""
        return self._with_lock(lambda: self._claim(task))

    def publish(self, task: str, result: Any) -> None:
        """Stores the result of a task, as JSON, for all workers."""
        self._database.retry(lambda: self._study.set_user_attr(f"result:{task}", result))

    def fetch(self, task: str) -> Any:
        """Returns the result of a task, None before it is published."""
        return self._database.retry(lambda: self._study.user_attrs.get(f"result:{task}"))

    def _with_lock(self, action: Callable[[], T]) -> T:
        """Runs an idempotent action under the study's lock, with retries while the database is unreachable."""

        def held() -> T:
            with self._database.lock(f"study {self._name}"):
                return action()

        return self._database.retry(held)

    def _open(self, identity: Mapping[str, Any], higher_is_better: bool) -> "Study":
        """Opens the study, made if it is missing; raises UsageError if it has another identity."""
        import optuna

        direction = "maximize" if higher_is_better else "minimize"
        with silence_optuna():
            study = optuna.create_study(
                storage=self._database.storage, study_name=self._name, direction=direction, load_if_exists=True
            )
        ours = {**identity, "direction": direction}
        theirs = study.user_attrs.get(_IDENTITY)
        if theirs is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(_IDENTITY, ours)
            return study
        if theirs and "search" in theirs:
            theirs = with_earlier_value(theirs, theirs)
        whose = f"the name of another study in {self._database}"
        expected = "a new name, or that of the same study"
        hint = "Give another search.study, or another search.storage"
        demand_equal(
            f"search.study={self._name}",
            ours,
            theirs or {},
            whose,
            expected,
            hint,
        )
        return study

    def _seed(self) -> int:
        """Returns a seed for this worker only: with the config's seed all workers would draw the same points."""
        text = f"{self._space.config['seed']} {self._workers.own}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    def _all_trials(self) -> "list[FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _take(self) -> list[Trial] | None:
        """Returns the next batch; None while there is none and other workers are not done."""
        trials = self._all_trials()
        attributes = self._study.user_attrs
        # Checks all trials, also those beyond this batch: `is_gone` measures silence from the first time it looks.
        free = [trial for trial in trials if self._is_free(trial, attributes)][: self._batch]
        new = range(len(trials), min(len(trials) + self._batch - len(free), self._trials))
        taken = [self._take_over(trial) for trial in free] + [self._add_trial(number) for number in new]
        return taken if taken or all(trial.state.is_finished() for trial in trials) else None

    def _is_free(self, trial: "FrozenTrial", attributes: Mapping[str, Any]) -> bool:
        """Tells whether a trial has not ended and no other living worker runs it."""
        if trial.state.is_finished():
            return False
        if trial.state.name == "WAITING":
            return True
        owner = trial.user_attrs.get(_WORKER)
        return owner == self._workers.own or self._workers.is_gone(owner, f"trial {trial.number}", attributes)

    def _take_over(self, trial: "FrozenTrial") -> Trial:
        from optuna.trial import Trial as OptunaTrial
        from optuna.trial import TrialState

        storage = self._study._storage
        key = trial._trial_id
        storage.set_trial_user_attr(key, _WORKER, self._workers.own)
        storage.set_trial_state_values(key, TrialState.RUNNING)
        point = trial.user_attrs.get(_POINT)
        if point is None:  # its worker died before it stored the point
            return self._suggest(OptunaTrial(self._study, key))
        return self._space.trial(trial.number, as_python(point))

    def _add_trial(self, number: int) -> Trial:
        if number and self._non_adaptive is None:
            trial = self._study.ask()
            trial.set_user_attr(_WORKER, self._workers.own)
            return self._suggest(trial)
        point = self._non_adaptive.ask([number])[0] if self._non_adaptive else self._space.own
        self._study.add_trial(running_trial(self._space, point, {_WORKER: self._workers.own, _POINT: point}))
        return self._space.trial(number, point)

    def _suggest(self, trial: Any) -> Trial:
        point: Point = self._space.suggest(suggest(trial))
        trial.set_user_attr(_POINT, point)
        return self._space.trial(trial.number, point)

    def _end(self, outcome: Outcome, of_any_worker: bool) -> bool:
        """Ends a trial with an outcome; False if it has another outcome, or belongs to another worker."""
        from optuna.trial import TrialState

        storage = self._study._storage
        key = trial_id(self._study, outcome.trial)
        trial = storage.get_trial(key)
        saved = _as_json(outcome.to_json())
        if trial.state.is_finished():
            return trial.user_attrs.get(_OUTCOME) == saved  # an earlier try wrote it, and its answer was lost
        is_own = trial.state == TrialState.RUNNING and trial.user_attrs.get(_WORKER) == self._workers.own
        if not (is_own or of_any_worker):
            return False
        storage.set_trial_user_attr(key, _OUTCOME, saved)
        storage.set_trial_state_values(key, TrialState.RUNNING)
        in_space = self._non_adaptive is not None or trial.params.keys() == outcome.point.keys()
        end_trial(self._study, outcome.trial, outcome, in_space)
        return True

    def _share_rung(self, key: str, values: Values) -> Values:
        for number, value in values.items():
            place = trial_id(self._study, number)
            if not self._study._storage.get_trial(place).state.is_finished():  # another worker may have ended it
                self._study._storage.set_trial_user_attr(place, key, value)
        return {t.number: t.user_attrs[key] for t in self._all_trials() if key in t.user_attrs} | values

    def _tell_missing(self) -> None:
        """Ends the unfinished trials whose outcome is only in the ledger, because of an outage or a kill."""
        points = {
            trial.number: trial.user_attrs.get(_POINT) for trial in self._all_trials() if not trial.state.is_finished()
        }
        for outcome in self._ledger.outcomes():
            if outcome.trial in points and points[outcome.trial] == _as_json(outcome.point):
                self._end(outcome, of_any_worker=True)

    def _give_back(self) -> None:
        from optuna.trial import TrialState

        with self._database.lock(f"study {self._name}"):
            for trial in self._all_trials():
                if trial.state == TrialState.RUNNING and trial.user_attrs.get(_WORKER) == self._workers.own:
                    self._study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            self._workers.sign_off()

    def _claim(self, task: str) -> bool:
        attributes = self._study.user_attrs
        owner = attributes.get(f"claim:{task}")
        has_owner = owner not in (None, self._workers.own) and not self._workers.is_gone(owner, task, attributes)
        if has_owner or f"result:{task}" in attributes:
            return False
        self._study.set_user_attr(f"claim:{task}", self._workers.own)
        return True

    def _pause(self) -> None:
        deadline = time.monotonic() + POLL_SECONDS
        while time.monotonic() < deadline and self._stop.signal is None:
            time.sleep(0.05)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
