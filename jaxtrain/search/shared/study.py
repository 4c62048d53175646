"""A study in a database that any number of workers share; it opens in optuna-dashboard, too."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from jaxtrain.config.identity import difference, in_words
from jaxtrain.config.schema import as_python
from jaxtrain.errors import UsageError, Words
from jaxtrain.search.optuna_samplers import optuna_sampler, refuse_unpickling
from jaxtrain.search.optuna_trials import end_trial, quiet, running_trial, suggest, trial_id
from jaxtrain.search.samplers import Listed, make_sampler
from jaxtrain.search.shared.database import Database
from jaxtrain.search.shared.workers import Workers
from jaxtrain.search.space import Point, Space, Trial
from jaxtrain.search.study import Ledger
from jaxtrain.search.trials import Outcome
from jaxtrain.training.signals import Interruption

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

T = TypeVar("T")

STALE_SECONDS = 60.0
"""How long a worker may be silent before its trials go to others."""

POLL_SECONDS = 1.0

# What the study and its trials carry beside Optuna's own.
_IDENTITY, _WORKER, _POINT, _OUTCOME = "identity", "worker", "point", "outcome"


class SharedStudy:
    """One worker's view of the study: the database is the truth, the worker's own ledger its memory of what it did.

    Numbers are given once, 0 to `trials` - 1, under a lock: a trial whose worker died goes to another under the same
    number and with the same point. Which worker runs it stands in the trial, and counts while that worker is alive.
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
        """Opens the study, or makes it, and tells it what the ledger knows and the database missed.

        `identity` is what JSON can hold and makes the study what it is. ConfigError for a sampler or an address that
        cannot be used, StorageError for a database out of reach, UsageError where the name is another study's.
        """
        sampler_name = space.config["search"]["sampler"]
        refuse_unpickling(sampler_name)
        sampler = make_sampler(space, higher_is_better)
        self._listed = sampler if isinstance(sampler, Listed) else None
        self._space, self._ledger, self._trials, self._batch = space, ledger, trials, batch
        self._name, self._stop, self._say = name, stop, say
        self._database = Database(url)
        self._study = self._locked(lambda: self._opened(identity, higher_is_better))
        self._workers = Workers(self._database, self._study, stale_seconds)
        if self._listed is None:
            self._study.sampler = optuna_sampler(sampler_name, self._seed())
        self._database.persistently(self._workers.sign_on)
        self._locked(self._tell_missing)

    def take(self) -> list[Trial]:
        """Returns trials that no living worker runs, then new ones; waits while others run all that is left.

        Empty when every trial has ended, or a signal asks for a stop.
        """
        while self._stop.signal is None:
            taken = self._locked(self._take)
            if taken is not None:
                return taken
            self._pause()
        return []

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Writes outcomes to the ledger first, then to the database, unless another worker was given the trial."""
        self._ledger.append(outcomes)
        told = self._locked(lambda: [self._end(outcome, of_any_worker=False) for outcome in outcomes])
        for outcome, counts in zip(outcomes, told, strict=True):
            if not counts:
                silent = "this worker was silent for so long that another was given it"
                self._say(f"trial {outcome.trial}: {silent}, whose outcome counts; this one is dropped")

    def outcomes(self) -> list[Outcome]:
        """Returns what all workers have found, in the order of the trials' numbers."""
        trials = self._database.persistently(self._all)
        found = [trial.user_attrs.get(_OUTCOME) for trial in trials if trial.state.is_finished()]
        return [Outcome.from_json(outcome) for outcome in found if outcome]

    def release(self) -> None:
        """Gives back the trials without an outcome and signs off, or leaves it to the others to see that it is gone."""
        self._workers.stop()
        self._database.once(self._give_back)

    def claim(self, task: str) -> bool:
        """Takes a task that one worker of the study does; False where it was done or a living worker has it."""
        return self._locked(lambda: self._claim(task))

    def publish(self, task: str, result: Any) -> None:
        """Shows all workers what came of a task: what JSON can hold."""
        self._database.persistently(lambda: self._study.set_user_attr(f"result:{task}", result))

    def published(self, task: str) -> Any:
        """Returns what came of a task, None before it is known."""
        return self._database.persistently(lambda: self._study.user_attrs.get(f"result:{task}"))

    def _locked(self, action: Callable[[], T]) -> T:
        """Does what may be done twice while no other worker of the study does anything."""

        def held() -> T:
            with self._database.lock(f"study {self._name}"):
                return action()

        return self._database.persistently(held)

    def _opened(self, identity: Mapping[str, Any], higher_is_better: bool) -> "Study":
        """Opens the study, made where it is missing; UsageError where its identity is another."""
        import optuna

        direction = "maximize" if higher_is_better else "minimize"
        with quiet():
            study = optuna.create_study(
                storage=self._database.storage, study_name=self._name, direction=direction, load_if_exists=True
            )
        ours, theirs = {**identity, "direction": direction}, study.user_attrs.get(_IDENTITY)
        if theirs is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(_IDENTITY, ours)
            return study
        if found := difference(ours, theirs or {}):
            got = Words(f"the name of another study in {self._database} ({in_words(found)})")
            hint = "Give another search.study, or another search.storage"
            raise UsageError(f"search.study={self._name}", got, "a new name, or that of the same study", hint)
        return study

    def _seed(self) -> int:
        """Returns a seed of this worker alone: with the config's, all workers would draw the same points."""
        text = f"{self._space.config['seed']} {self._workers.own}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    def _all(self) -> "list[FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _take(self) -> list[Trial] | None:
        """Returns the next batch, None where there is none but other workers are not done."""
        trials, shown = self._all(), self._study.user_attrs
        # All are looked at, also those beyond this batch: who watches late takes a dead worker's trials late.
        free = [trial for trial in trials if self._is_free(trial, shown)][: self._batch]
        new = range(len(trials), min(len(trials) + self._batch - len(free), self._trials))
        taken = [self._take_over(trial) for trial in free] + [self._make(number) for number in new]
        return taken if taken or all(trial.state.is_finished() for trial in trials) else None

    def _is_free(self, trial: "FrozenTrial", shown: Mapping[str, Any]) -> bool:
        """Whether no other living worker runs a trial that has not ended."""
        if trial.state.is_finished():
            return False
        owner, waits = trial.user_attrs.get(_WORKER), trial.state.name == "WAITING"
        return waits or owner == self._workers.own or self._workers.is_gone(owner, f"trial {trial.number}", shown)

    def _take_over(self, trial: "FrozenTrial") -> Trial:
        from optuna.trial import Trial as OptunaTrial
        from optuna.trial import TrialState

        storage, key = self._study._storage, trial._trial_id
        storage.set_trial_user_attr(key, _WORKER, self._workers.own)
        storage.set_trial_state_values(key, TrialState.RUNNING)
        point = trial.user_attrs.get(_POINT)
        if point is None:  # its worker died before it knew the point
            return self._suggested(OptunaTrial(self._study, key))
        return self._space.trial(trial.number, as_python(point))

    def _make(self, number: int) -> Trial:
        if number and self._listed is None:
            trial = self._study.ask()
            trial.set_user_attr(_WORKER, self._workers.own)
            return self._suggested(trial)
        point = self._listed.ask([number])[0] if self._listed else self._space.own
        self._study.add_trial(running_trial(self._space, point, {_WORKER: self._workers.own, _POINT: point}))
        return self._space.trial(number, point)

    def _suggested(self, trial: Any) -> Trial:
        point: Point = self._space.suggest(suggest(trial))
        trial.set_user_attr(_POINT, point)
        return self._space.trial(trial.number, point)

    def _end(self, outcome: Outcome, of_any_worker: bool) -> bool:
        """Ends a trial with an outcome; False where it has another, or is another worker's."""
        from optuna.trial import TrialState

        storage, key = self._study._storage, trial_id(self._study, outcome.trial)
        trial, saved = storage.get_trial(key), _as_json(outcome.to_json())
        if trial.state.is_finished():
            return trial.user_attrs.get(_OUTCOME) == saved  # written, though the answer was lost
        is_own = trial.state == TrialState.RUNNING and trial.user_attrs.get(_WORKER) == self._workers.own
        if not (is_own or of_any_worker):
            return False
        storage.set_trial_user_attr(key, _OUTCOME, saved)
        storage.set_trial_state_values(key, TrialState.RUNNING)
        in_space = self._listed is not None or trial.params.keys() == outcome.point.keys()
        end_trial(self._study, outcome.trial, outcome, in_space)
        return True

    def _tell_missing(self) -> None:
        """Tells what the ledger holds of trials that have not ended: an outage or a kill came in between."""
        points = {trial.number: trial.user_attrs.get(_POINT) for trial in self._all() if not trial.state.is_finished()}
        for outcome in self._ledger.outcomes():
            if outcome.trial in points and points[outcome.trial] == _as_json(outcome.point):
                self._end(outcome, of_any_worker=True)

    def _give_back(self) -> None:
        from optuna.trial import TrialState

        with self._database.lock(f"study {self._name}"):
            for trial in self._all():
                if trial.state == TrialState.RUNNING and trial.user_attrs.get(_WORKER) == self._workers.own:
                    self._study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            self._workers.sign_off()

    def _claim(self, task: str) -> bool:
        shown = self._study.user_attrs
        owner = shown.get(f"claim:{task}")
        has_owner = owner not in (None, self._workers.own) and not self._workers.is_gone(owner, task, shown)
        if has_owner or f"result:{task}" in shown:
            return False
        self._study.set_user_attr(f"claim:{task}", self._workers.own)
        return True

    def _pause(self) -> None:
        deadline = time.monotonic() + POLL_SECONDS
        while time.monotonic() < deadline and self._stop.signal is None:
            time.sleep(0.05)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
