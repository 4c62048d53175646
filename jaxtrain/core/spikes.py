"""Spikes: a batch whose loss or gradient norm leaves the range of the recent past is skipped.

The step goes back to the state before such a batch, which leaves no trace in parameters, optimizer and averages. The
recent past is part of the state, so a run with spikes resumes like any other, and lanes skip batches of their own.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain.core.floats import as_floats
from jaxtrain.core.metric import Mean, Metrics
from jaxtrain.core.metric_names import NORMS, SAMPLES, SKIPPED
from jaxtrain.core.recent_past import RecentPast
from jaxtrain.core.state import TrainState


def skip_spike(state: TrainState, advanced: TrainState, gradients: Any, metrics: Metrics) -> tuple[TrainState, Metrics]:
    """Returns (advanced, metrics), or where the batch is a spike the state before it, at the next step.

    The metrics of a skipped batch count nothing. "skipped" is the share of steps whose batch was skipped.
    """
    past: RecentPast = state.recent
    loss = metrics["loss"].sum / metrics["loss"].count
    norm = as_floats(optax.tree.norm(gradients))
    is_spike = state.live & past.is_spike(loss, norm, state.step)
    before = state.replace(step=state.step + 1, recent=past.skip())
    after = advanced.replace(recent=past.keep(loss, norm))
    kept = {name: metric if _is_diagnostic(name) else _zero_if(is_spike, metric) for name, metric in metrics.items()}
    skipped = Mean(is_spike.astype(jnp.float32), jnp.ones(()))
    return jax.tree.map(lambda old, new: jnp.where(is_spike, old, new), before, after), kept | {SKIPPED: skipped}


def steps_taken(metrics: Metrics) -> np.ndarray:
    """Tells which rows of the stacked metrics of a call, on the host, are those of a step, bool (..., k)."""
    counted = [np.asarray(metrics[name].count) > 0 for name in ("loss", SKIPPED) if name in metrics]
    return np.any(counted, axis=0)


def _is_diagnostic(name: str) -> bool:
    return name.startswith(NORMS) or name == SAMPLES


def _zero_if(is_spike: jax.Array, metric: Mean) -> Mean:
    return jax.tree.map(lambda leaf: jnp.where(is_spike, jnp.zeros_like(leaf), leaf), metric)
