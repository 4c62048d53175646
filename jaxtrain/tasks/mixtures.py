"""Mixtures of examples, as mixup and CutMix make them: an example with the targets of others beside its own.

The loss of a mixture is the mean of the losses by each of its targets, weighted by their shares, so that any loss with
one number for each example works. For cross-entropy it equals the loss by the mixed distribution.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.core.state import Batch


class Partner(NamedTuple):
    """Targets of other examples, (batch, ...), and the shares (batch,) that they have in each example."""

    targets: Any
    share: jax.Array


def partners_of(batch: Batch) -> tuple[Partner, ...]:
    """Returns the further targets of a batch; the rest of each example belongs to its own."""
    return batch.get("partners", ())


def next_example(tree: Any) -> Any:
    """Returns arrays (batch, ...) in which each example is replaced by the one before it: its partner in mixtures."""
    return jax.tree.map(lambda array: jnp.roll(array, 1, axis=0), tree)


def mix_targets(batch: Batch, kept: jax.Array) -> Batch:
    """Mixes targets as examples were mixed: a share `kept` (batch,) is the example itself, the rest its partner."""
    own = next_example(Partner(batch["targets"], own_share(batch)))
    theirs = (own, *next_example(partners_of(batch)))
    mixed = [partner._replace(share=partner.share * kept) for partner in partners_of(batch)]
    mixed += [partner._replace(share=partner.share * (1.0 - kept)) for partner in theirs]
    return {**batch, "partners": tuple(mixed)}


def own_share(batch: Batch) -> jax.Array:
    """Returns the share of each example's own targets, (batch,)."""
    own = jnp.ones(jax.tree.leaves(batch["targets"])[0].shape[:1], jnp.float32)
    return own - sum((partner.share for partner in partners_of(batch)), jnp.zeros_like(own))


def mixed_losses(losses_by: Callable[[Any], jax.Array], batch: Batch) -> jax.Array:
    """Returns one loss for each example, (batch,); `losses_by` computes them by given targets."""
    losses = losses_by(batch["targets"])
    if not partners_of(batch):
        return losses
    parts = [partner.share * losses_by(partner.targets) for partner in partners_of(batch)]
    return own_share(batch) * losses + sum(parts, jnp.zeros_like(losses))


def main_targets(batch: Batch) -> Any:
    """Returns for each example the targets with the largest share, by which metrics count it."""
    targets = batch["targets"]
    if not partners_of(batch):
        return targets
    largest = own_share(batch)
    for partner in partners_of(batch):
        is_larger = partner.share > largest
        targets = jax.tree.map(lambda old, new, larger=is_larger: _where(larger, new, old), targets, partner.targets)
        largest = jnp.maximum(largest, partner.share)
    return targets


def _where(condition: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)
