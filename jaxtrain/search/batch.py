"""Trains a batch of trials from rung to rung: every seed of every trial is a lane, and every program compiles once.

A batch is the unit of checkpointing: between rungs its lane states are kept on the host and saved with their records.
Outcomes are yielded after each rung, once they are saved.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jaxtrain.config.trial_value import last_evaluations
from jaxtrain.core.frozen import map_lanes
from jaxtrain.core.metric import as_loss
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import CallOutput
from jaxtrain.errors import ConfigError, one_of
from jaxtrain.parallel.compilation import Compilations
from jaxtrain.search.halving import brackets, budget_share, rung_fractions, rung_step, survivors
from jaxtrain.search.lanes import Lanes
from jaxtrain.search.programs import Program, Programs, signature
from jaxtrain.search.space import Space, Trial
from jaxtrain.search.trials import Judgement, Lane, Outcome, Record, Values, outcome_of
from jaxtrain.training.signals import Interruption

SAVE_SECONDS = 30.0  # time between saves, which bounds the work that a kill between rungs loses
CALL_SECONDS = 2.0  # target duration of a call: its overhead, about that of a step, is then negligible


class Interrupted(Exception):
    """Raised when a signal requests a stop, after the batch was saved."""


@dataclass
class Chunk:
    """Lanes of one program that are stepped together, at step `at`; states are on the host, None before the first."""

    program: int
    lanes: list[Lane]
    at: int = 0
    states: Any = None


@dataclass
class Work:
    """Checkpointable progress of a batch: chunks, per-lane records, completed rungs, and outcomes of ended trials."""

    chunks: list[Chunk]
    records: dict[Lane, Record]
    rung: int = 0
    ended: list[Outcome] = field(default_factory=list)


@dataclass(kw_only=True)
class Batch:
    """Trains trials over seeds, and selects the trials to continue at each rung.

    Attributes:
        save: saves the work, with its states.
        pace: signature -> measured seconds of a step of one lane.
        on_progress: is called with the fraction of the steps done.
        splits: the splits measured at every evaluation, validation first.
        use_rungs: whether trials are stopped at rungs.
        share: takes a rung and the values of these trials there; returns the values of all with which they compete.
    """

    space: Space
    trials: Sequence[Trial]
    seeds: Sequence[int]
    programs: Programs
    higher_is_better: bool
    stop: Interruption
    compiled: Compilations
    save: Callable[["Batch", Work], None]
    pace: dict[str, float]
    on_progress: Callable[[float], None] = lambda part: None
    splits: tuple[str, ...] = ("validation",)
    use_rungs: bool = True
    share: Callable[[int, Values], Values] = lambda rung, values: values

    def __post_init__(self) -> None:
        """Groups the trials into programs, and assigns them to brackets."""
        section = self.space.config["search"]
        self.groups: list[Program] = self.programs.group(self.trials)
        self.fractions = rung_fractions(section, self.programs.experiment(self.space.config)) if self.use_rungs else []
        assigned = brackets(len(self.trials), len(self.fractions), section)
        self._bracket = {trial.number: bracket for trial, bracket in zip(self.trials, assigned, strict=True)}
        self._trial = {trial.number: trial for trial in self.trials}
        self._group = {trial.number: i for i, group in enumerate(self.groups) for trial in group.trials}
        self._saved_at = time.perf_counter()

    def new_work(self) -> Work:
        """Returns the work before the first step: one lane for every seed of every trial."""
        lanes = [[(trial.number, seed) for trial in group.trials for seed in self.seeds] for group in self.groups]
        records = {lane: Record() for group in lanes for lane in group}
        return self.rechunk(Work([Chunk(program, group) for program, group in enumerate(lanes)], records))

    def run(self, work: Work) -> Iterator[list[Outcome]]:
        """Trains to the end, and yields the outcomes of each rung and of the end. Raises Interrupted on a signal."""
        if work.ended:  # a kill may have prevented the caller from writing outcomes that were saved
            yield list(work.ended)
        for rung, fraction in enumerate([*self.fractions, 1.0]):
            if rung < work.rung:
                continue
            # Back and forth: where not all programs are kept, those of the chunks before were used last.
            for chunk in work.chunks if rung % 2 else reversed(work.chunks):
                self._advance(work, chunk, rung_step(fraction, self.groups[chunk.program].experiment.lengths))
            ended = self._end_trials(work, rung)
            work.rung = rung + 1
            work.ended = work.ended + ended
            if not work.chunks:  # all trials have ended, and the caller writes them next: no need to save
                yield ended
                return
            self._save(work)
            yield ended

    def rechunk(self, work: Work) -> Work:
        """Splits chunks into those that fit on these devices; a saved batch may come from larger ones."""
        chunks = []
        for chunk in work.chunks:
            size = self._lanes(work, chunk).lanes
            parts = [slice(begin, begin + size) for begin in range(0, len(chunk.lanes), size)]
            chunks += [
                replace(chunk, lanes=chunk.lanes[part], states=_select_lanes(chunk.states, part)) for part in parts
            ]
        return replace(work, chunks=chunks)

    def seconds(self, work: Work) -> float:
        """Estimates the remaining seconds of the batch; programs without a pace are timed over a few steps.

        Programs that are no longer compiled, since there are too many, count as the mean of the others.
        """
        budget = budget_share(self.fractions, self.space.config["search"]["reduction"])
        paces = [self._pace(work, chunk) for chunk in work.chunks]
        known = [pace for pace in paces if pace is not None]
        mean = sum(known) / max(1, len(known))
        total = 0.0
        for chunk, pace in zip(work.chunks, paces, strict=True):
            steps = self.groups[chunk.program].experiment.lengths.total * budget - chunk.at
            total += (mean if pace is None else pace) * len(chunk.lanes) * steps
        return total

    def _pace(self, work: Work, chunk: Chunk) -> float | None:
        """Returns the seconds of a step of one lane; None if that is unknown and the program is not compiled."""
        group = self.groups[chunk.program]
        key = signature(group.experiment.config)
        if key not in self.pace and self.programs.is_compiled(group.experiment):
            lanes = self._lanes(work, chunk).with_lanes(len(chunk.lanes))
            self.pace[key] = group.step_seconds(lanes, self._trials_and_seeds(chunk))
        return self.pace.get(key)

    def current_values(self, work: Work) -> dict[int, float | None]:
        """Returns the current value of each trial that has not ended; None if one of its seeds has no value."""
        ended = {outcome.trial for outcome in work.ended}
        running = [number for number in self._trial if number not in ended]
        return {n: self.judgement(n).value(list(self._records(work, n).values())) for n in running}

    # Training a chunk.

    def _advance(self, work: Work, chunk: Chunk, until: int) -> None:
        """Trains a chunk up to step `until`, with the evaluations that are due."""
        if chunk.at >= until:
            return
        experiment = self.groups[chunk.program].experiment
        lanes = self._lanes(work, chunk).with_lanes(len(chunk.lanes))
        states = self._place_or_init(chunk, lanes)
        while chunk.at < until:
            due = min(until, (chunk.at // experiment.lengths.eval + 1) * experiment.lengths.eval)
            states = self._call(work, chunk, lanes, states, due)
            self.on_progress(self._fraction_done(work))
            if chunk.at == due:
                states = self._evaluate(work, chunk, lanes, states)
            if self.stop.signal is not None or time.perf_counter() - self._saved_at > SAVE_SECONDS:
                chunk.states = lanes.fetch(states)
                self._save(work)
        chunk.states = lanes.fetch(states)

    def _fraction_done(self, work: Work) -> float:
        """Returns the fraction of steps done, over the lanes that have not ended."""
        totals = [self.groups[c.program].experiment.lengths.total * len(c.lanes) for c in work.chunks]
        return sum(chunk.at * len(chunk.lanes) for chunk in work.chunks) / max(1, sum(totals))

    def _place_or_init(self, chunk: Chunk, lanes: Lanes) -> TrainState:
        """Returns the states of a chunk on the devices; makes them if the chunk has none."""
        if chunk.states is not None:
            return lanes.place(chunk.states)
        return self.groups[chunk.program].init(lanes, self._trials_and_seeds(chunk))

    def _trials_and_seeds(self, chunk: Chunk) -> list[tuple[Trial, int]]:
        return [(self._trial[number], seed) for number, seed in chunk.lanes]

    def _call(self, work: Work, chunk: Chunk, lanes: Lanes, states: TrainState, due: int) -> TrainState:
        """Makes one call, no further than step `due`; updates the pace and records the lanes that diverged."""
        experiment = self.groups[chunk.program].experiment
        key = signature(experiment.config)
        alive = [lane for lane in chunk.lanes if work.records[lane].diverged is None]
        steps = min(due - chunk.at, experiment.capacity, self._max_call_steps(key, len(alive)))
        batches = experiment.batches(chunk.at, steps)
        began = time.perf_counter()
        compilation_before = self.compiled.seconds
        states, output = lanes.call(states, batches, steps)
        live = lanes.fetch(output.live)
        seconds = max(time.perf_counter() - began - (self.compiled.seconds - compilation_before), 1e-6)
        for lane in alive:
            work.records[lane].seconds += seconds / len(alive)
        if alive:
            self.pace[key] = seconds / (steps * len(alive))
        self._record_diverged(work, chunk, lanes, output, live, steps)
        chunk.at += steps
        return states

    def _max_call_steps(self, key: str, alive: int) -> int:
        """Returns the steps that take about CALL_SECONDS; 1 for a program that was not timed yet."""
        return max(1, int(CALL_SECONDS / (self.pace[key] * max(1, alive)))) if key in self.pace else 1

    def _record_diverged(
        self, work: Work, chunk: Chunk, lanes: Lanes, output: CallOutput, live: np.ndarray, steps: int
    ) -> None:
        """Records, for each lane that died in a call, the steps taken before its loss became non-finite."""
        died = [i for i, lane in enumerate(chunk.lanes) if not live[i] and work.records[lane].diverged is None]
        if died:
            finite = np.isfinite(lanes.fetch(output.metrics["loss"].sum))[:, :steps]
            for i in died:
                work.records[chunk.lanes[i]].diverged = chunk.at + int(np.argmin([*finite[i], False]))

    def _evaluate(self, work: Work, chunk: Chunk, lanes: Lanes, states: TrainState) -> TrainState:
        """Evaluates every lane on the splits, and updates plateau schedules where a plain run would be evaluated."""
        values = [self._evaluate_split(chunk, lanes, states, split) for split in self.splits]
        for i, lane in enumerate(chunk.lanes):
            if work.records[lane].diverged is None:
                work.records[lane].evaluations.append([chunk.at, *(value[i] for value in values)])
        experiment = self.groups[chunk.program].experiment
        if not experiment.schedule.plateaus or not experiment.lengths.due(experiment.lengths.eval, chunk.at):
            return states
        losses = as_loss(np.asarray(values[0], np.float32), self.higher_is_better)
        return lanes.edit(states, functools.partial(experiment.schedule.after_evaluation, loss=losses))

    def _evaluate_split(self, chunk: Chunk, lanes: Lanes, states: TrainState, split: str) -> list[float]:
        """Returns the value of `eval.metric` on a split, for each lane."""
        experiment = self.groups[chunk.program].experiment
        metrics = lanes.fetch(lanes.evaluate(states, experiment.eval_batches(split)))
        metric = experiment.config["eval"]["metric"]
        if metric not in metrics:  # the metrics of a user's own task are known only once it has run
            raise ConfigError("eval.metric", metric, one_of(metrics))
        return [jax.tree.map(lambda leaf, i=i: leaf[i], metrics[metric]).result() for i in range(len(chunk.lanes))]

    # Selection at a rung.

    def _end_trials(self, work: Work, rung: int) -> list[Outcome]:
        """Ends the trials that diverged or do not survive the rung, and all at the last; returns their outcomes."""
        last = rung == len(self.fractions)
        values = self.current_values(work)
        kept: set[int] = set() if last else {n for n, value in values.items() if value is not None}
        for bracket in range(0 if last else rung + 1):
            rivals = {number: value for number, value in values.items() if self._bracket[number] == bracket}
            known = self.share(rung, rivals) if rivals else {}
            best = survivors(known, self.space.config["search"]["reduction"], self.higher_is_better)
            kept -= rivals.keys() - set(best)
        self._gather(work, kept)
        return [self._outcome(work, number, rung, stopped=not last) for number in values if number not in kept]

    def _outcome(self, work: Work, number: int, rung: int, stopped: bool) -> Outcome:
        group = self.groups[self._group[number]]
        step = rung_step([*self.fractions, 1.0][rung], group.experiment.lengths)
        records = self._records(work, number)
        return outcome_of(self.space, self._trial[number], records, self.judgement(number), step, stopped)

    def _records(self, work: Work, number: int) -> dict[int, Record]:
        return {seed: work.records[number, seed] for seed in self.seeds}

    def judgement(self, number: int) -> Judgement:
        """Returns the rule that computes the value of a trial from its evaluations."""
        patience = self.groups[self._group[number]].experiment.lengths.patience
        return Judgement(self.higher_is_better, patience, last_evaluations(self.space.config["search"]["value"]))

    def _gather(self, work: Work, kept: set[int]) -> None:
        """Gathers the lanes of the trials kept into fewer chunks, of narrower programs."""
        gathered = []
        for program in range(len(self.groups)):
            chunks = [chunk for chunk in work.chunks if chunk.program == program]
            indices = [[i for i, (number, _) in enumerate(chunk.lanes) if number in kept] for chunk in chunks]
            pairs = list(zip(chunks, indices, strict=True))
            lanes = [chunk.lanes[i] for chunk, own in pairs for i in own]
            if lanes:
                parts = [_select_lanes(chunk.states, own) for chunk, own in pairs if own]
                states = map_lanes(lambda *leaves: np.concatenate(leaves), *parts)
                gathered.append(Chunk(program, lanes, chunks[0].at, states))
        work.chunks = gathered
        work.chunks = self.rechunk(work).chunks

    def _lanes(self, work: Work, chunk: Chunk) -> Lanes:
        """Returns the program of a chunk, as wide as all chunks of that program need."""
        width = sum(len(other.lanes) for other in work.chunks if other.program == chunk.program)
        return self.programs.lanes(self.groups[chunk.program].experiment, width, self.seeds)

    def _save(self, work: Work) -> None:
        self.save(self, work)
        self._saved_at = time.perf_counter()
        if self.stop.signal is not None:
            raise Interrupted


def _select_lanes(states: Any, lanes: slice | list[int]) -> Any:
    """Selects lanes of states on the host; returns None if there are no states yet."""
    return map_lanes(lambda leaf: leaf[lanes], states)
