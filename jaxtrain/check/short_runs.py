"""Short runs of a config's own optimizer, without dropout, augmentation, decay and averages, by one compiled program.

Rates, numbers of steps, targets and inputs are inputs of the program, so all questions about learning share it. A
second one has the config's augmentations.
"""

import functools
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.check.context import Context, is_regulariser
from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Rules, TrainState
from jaxtrain.core.trees import named_leaves
from jaxtrain.parallel.mesh import compile_eval_call, compile_train_call, replicate

CAPACITY = 50
"""Most steps of one call."""

WARM_UP = "check.warm_up"
"""The float that holds the steps over which the rate rises to its value."""

HELD_OUT = 0.2
"""The share of the training examples that judges short runs of a config without a validation split."""

JUDGED = 16
"""Batches, of at most 1,000 examples in all, that judge a short run."""

JUDGEMENTS = 8
"""Times that a run is judged on its way; the best counts, so that learning by heart does not hide what was learned."""


class Outcome(NamedTuple):
    """The result of a short run.

    losses: the training loss of each step; judged: the least loss on the examples held out, of some times on the way,
    nan if not asked; live: whether all numbers stayed finite; state: the state at its end.
    """

    losses: np.ndarray
    judged: float
    live: bool
    state: TrainState

    @property
    def begin(self) -> float:
        """The loss of the first step."""
        return float(self.losses[0])

    @property
    def end(self) -> float:
        """The mean loss of the last quarter of the steps; infinite for a run that diverged."""
        if not self.live:
            return math.inf
        return float(self.losses[-max(1, len(self.losses) // 4) :].mean())


class _Warming(NamedTuple):
    """A schedule that raises one float from 0 to its value, and keeps all others."""

    target: str

    def __call__(self, step: jax.Array, hparams: Values) -> dict[str, jax.Array]:
        if self.target not in hparams:
            return dict(hparams)
        share = jnp.minimum(1.0, (jnp.asarray(step, jnp.float32) + 1.0) / hparams[WARM_UP])
        return {**hparams, self.target: hparams[self.target] * share}


class ShortRuns:
    """Makes short runs of a context's config, from its initial weights, on batches of its training examples."""

    def __init__(self, context: Context, target: str) -> None:
        """Compiles the program and times a step; `target` is the float that rates are given for."""
        experiment = context.experiment
        self.target = target
        self.size = context.config["data"]["batch_size"]
        self._context = context
        self._mesh = experiment.mesh
        rules = experiment.rules
        self._rules = Rules(context.quiet_task, _Warming(target), rules.optimizer, rules.accumulate, rules.is_frozen)
        self._call = self._compile(self._rules)
        self._evaluate = compile_eval_call(self._rules, self._mesh)
        self._place_examples()
        state = context.state
        hparams = {name: jnp.zeros(()) if is_regulariser(name) else value for name, value in state.hparams.items()}
        hparams.pop("train.ema", None)
        self._start = state.replace(hparams=hparams | {WARM_UP: jnp.ones(())}, ema=None)
        self.run(1)
        began = time.perf_counter()
        self.run(4)
        self.step_seconds = (time.perf_counter() - began) / 4

    def _compile(self, rules: Rules) -> Any:
        """Compiles a call of up to CAPACITY steps."""
        return compile_train_call(rules, self._mesh, self._context.config["parallel"]["backend"], self._context.step)

    @functools.cached_property
    def _augmenting_call(self) -> Any:
        """The same call with the run's own augmentations."""
        return self._compile(self._rules._replace(task=self._context.experiment.rules.task))

    def _place_examples(self) -> None:
        """Reads the examples, and keeps some of them apart where there is no validation split."""
        context = self._context
        rows = dict(context.rows("train"))
        most = min(1_000, JUDGED * self.size)
        if "validation" in context.dataset.sizes:
            judged = {name: values[:most] for name, values in context.rows("validation").items()}
        else:
            order = np.random.default_rng(2).permutation(len(rows["inputs"]))
            kept = max(self.size, round((1 - HELD_OUT) * len(order)))
            judged = {name: values[order[kept:][:most]] for name, values in rows.items()}
            rows = {name: values[order[:kept]] for name, values in rows.items()}
        self.rows = rows
        self.judged_rows = judged
        self._data = replicate(rows, self._mesh)
        self._judged = replicate(judged, self._mesh) if len(judged["inputs"]) else None

    def order(self, steps: int) -> np.ndarray:
        """Returns the examples of each batch, (steps, batch), each epoch in another order."""
        count = len(self.rows["inputs"])
        epochs = -(-steps * self.size // count)
        generator = np.random.default_rng(1)
        whole = np.concatenate([generator.permutation(count) for _ in range(epochs)])
        return whole[: steps * self.size].reshape(steps, self.size).astype(np.int32)

    def run(
        self,
        steps: int,
        *,
        rate: float | None = None,
        warm_up: int = 1,
        data: Mapping[str, np.ndarray] | None = None,
        order: np.ndarray | None = None,
        judge: bool = False,
        augment: bool = False,
        hparams: Mapping[str, float] = {},
    ) -> Outcome:
        """Takes some steps at a rate (None: the config's own), on other data or batches if they are given."""
        call = self._augmenting_call if augment else self._call
        given = {WARM_UP: float(warm_up), **hparams} | ({} if rate is None else {self.target: rate})
        floats = {name: jnp.asarray(value, jnp.float32) for name, value in given.items()}
        start = self._start.replace(hparams={**self._start.hparams, **floats})
        state = jax.tree.map(jnp.array, start)  # a call takes its arrays for its own
        placed = self._data if data is None else replicate(dict(data), self._mesh)
        batches = self.order(steps) if order is None else order
        losses: list[np.ndarray] = []
        judged: list[float] = []
        length = min(CAPACITY, max(10, steps // JUDGEMENTS)) if judge else CAPACITY
        for begin in range(0, steps, length):
            count = min(length, steps - begin)
            rows = np.zeros((CAPACITY, self.size), np.int32)
            rows[:count] = batches[begin : begin + count]
            state, output = call(state, Batches(placed, rows), count)
            loss = jax.device_get(output.metrics["loss"])
            losses.append(np.asarray(loss.finish(loss.sum[:count], loss.count[:count]), np.float64))
            if not bool(output.live):
                break
            judged += [self._judge(state)] if judge else []
        whole = np.concatenate(losses)
        live = bool(state.live) and bool(np.isfinite(whole).all())
        return Outcome(whole, min(judged, default=math.nan), live, state)

    def _judge(self, state: TrainState) -> float:
        """Returns the loss of a state on the examples held out, with its current weights."""
        if self._judged is None:
            return math.nan
        return self._loss_of(state, self._judged, len(self.judged_rows["inputs"]))

    def loss_of(self, state: TrainState, rows: Mapping[str, np.ndarray]) -> float:
        """Returns the loss of a state on some examples in evaluation."""
        return self._loss_of(state, replicate(dict(rows), self._mesh), len(rows["inputs"]))

    def _loss_of(self, state: TrainState, placed: Any, count: int) -> float:
        devices = self._mesh.size
        size = min(-(-count // devices) * devices, self._context.config["data"]["eval_batch_size"])
        places = np.arange(-(-count // size) * size)
        rows = np.where(places < count, places, 0).astype(np.int32).reshape(-1, size)
        mask = (places < count).astype(np.float32).reshape(-1, size)
        quiet = state.replace(hparams=self._start.hparams)  # smoothing changes the loss of an evaluation, too
        metrics = jax.device_get(self._evaluate(quiet, Batches(placed, rows, mask)))
        return metrics["loss"].result()

    def moved(self, state: TrainState) -> dict[str, float]:
        """Returns path -> the change of the parameters relative to their initial norm."""
        before = dict(named_leaves(self._start.params))
        return {
            path: float(np.linalg.norm(np.asarray(leaf - before[path], np.float64)))
            / max(float(np.linalg.norm(np.asarray(before[path], np.float64))), 1e-12)
            for path, leaf in named_leaves(state.params)
        }
