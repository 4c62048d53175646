"""The losses and gradient norms of the newest steps, and what is told from them: whether a batch is a spike."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

WINDOW = 64
"""The number of steps in the recent past; no batch is a spike before it is full."""

FACTOR = 6.0
"""The distance of a spike from the median of the recent past, in units of the distance of its largest value.

In 150,000 steps of sound runs, with losses of 0.001 to 2.3 and batches of 4 to 64, the farthest was 3.8 times as far.
"""

LEAST_DISTANCE = 0.01
"""The least distance of the largest value from the median, in shares of the median."""

MOST = 10
"""The batches that a run may skip, besides one in a hundred steps: what happens more often is no accident."""


class RecentPast(struct.PyTreeNode):
    """The losses and gradient norms of the newest steps, as part of the state.

    losses, norms: of the newest steps that were kept, (WINDOW,), a ring; kept, skipped: counts of steps, int32.
    """

    losses: jax.Array
    norms: jax.Array
    kept: jax.Array
    skipped: jax.Array

    @classmethod
    def none(cls, dtype: Any = jnp.float32) -> "RecentPast":
        """Returns the recent past of a run before its first step."""
        losses, norms = jnp.zeros((2, WINDOW), dtype)
        kept, skipped = jnp.zeros(2, jnp.int32)
        return cls(losses, norms, kept, skipped)

    def is_spike(self, loss: jax.Array, norm: jax.Array, step: jax.Array) -> jax.Array:
        """Tells whether the loss of a batch or the norm of its gradient leaves the range of the recent past, or is nan.

        Nothing is a spike while the recent past is short, or once too many batches were skipped.
        """
        leaves_range = _is_far(self.losses, loss) | _is_far(self.norms, norm)
        return leaves_range & (self.kept >= WINDOW) & (self.skipped < MOST + step // 100)

    def keep(self, loss: jax.Array, norm: jax.Array) -> "RecentPast":
        """Returns the recent past with the step after it, which takes the place of the oldest one."""
        at = self.kept % WINDOW
        losses = self.losses.at[at].set(loss)
        norms = self.norms.at[at].set(norm)
        return self.replace(losses=losses, norms=norms, kept=self.kept + 1)

    def skip(self) -> "RecentPast":
        """Returns the recent past after a batch that was skipped."""
        return self.replace(skipped=self.skipped + 1)


def _is_far(recent: jax.Array, value: jax.Array) -> jax.Array:
    middle = jnp.median(recent)
    distance = jnp.maximum(recent.max() - middle, LEAST_DISTANCE * jnp.abs(middle))
    return ~(value <= middle + FACTOR * distance)  # also true of nan
