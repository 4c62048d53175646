"""The one rule that chooses, from sizes, whether each step of a run is guarded or each call (`core/guards.py`)."""

import functools

from jaxtrain.core.flops import count_flops
from jaxtrain.core.state import Batch, Rules, TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import tree_bytes

LARGE_STATE = 2**26
"""Bytes of the state of one run from which on its steps are guarded: a guarded call would hold as much twice more."""

MOST_WORK = 200
"""FLOP for each number of the state beyond which a guard of steps takes too long, since it computes updates twice."""


def guards_steps(rules: Rules, state: TrainState, batch: Batch) -> bool:
    """Tells whether each step is guarded, for the shapes of the state of one run and of a batch.

    Elementwise optimizers take some ten FLOP for each number of their state; those that multiply matrices, or take the
    loss again, may take more than the gradients.
    """
    size = tree_bytes(state.replace(frozen=None))
    return size >= LARGE_STATE and _work_of_guard(rules, state, batch) <= MOST_WORK * size / 4


def step_flops(rules: Rules, state: TrainState, batch: Batch, *, guard: bool = False) -> float:
    """Returns the FLOP of a step without norms, for shapes of its arguments."""
    return count_flops(functools.partial(train_step, rules=rules, measure_norms=False, guard=guard), state, batch)


def _work_of_guard(rules: Rules, state: TrainState, batch: Batch) -> float:
    guarded, plain = (step_flops(rules, state, batch, guard=guard) for guard in (True, False))
    return guarded - plain
