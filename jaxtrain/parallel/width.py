"""The width of a population: the number of lanes that each device takes at a time, as memory allows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from jaxtrain.core.batches import Batches
from jaxtrain.errors import UsageError, Words
from jaxtrain.parallel.memory import memory_limit
from jaxtrain.parallel.population import Population


def preferred_width(lanes: int, width: int | None, *, share_frozen: bool = False) -> int:
    """Returns the number of lanes to take at a time if memory allows: `width`, or for None 1 on a CPU, else all.

    On a CPU `lax.map` over lanes is faster than `vmap`, except for lanes that share frozen parameters: what depends on
    those alone is computed once for all lanes of a `vmap`.
    """
    one_by_one = jax.default_backend() == "cpu" and not share_frozen
    return width or (1 if one_by_one else lanes)


def fit_width(population: Population, width: int | None, hparams: Mapping[str, Any], batches: Batches) -> Population:
    """Sets the width of a population: the number of lanes that each device takes at a time.

    For `width` None it is that of `preferred_width`, halved until the program fits in memory by XLA's memory analysis.
    A given `width` is used as it is. Raises UsageError if that, or a single lane, does not fit.
    """
    wanted = preferred_width(population.lanes, width, share_frozen=population.share_frozen)
    limit = memory_limit(population.mesh)
    while True:
        candidate = replace(population, width=wanted)
        planned = candidate.plan_bytes(hparams, batches)
        if planned <= limit:
            return candidate
        if width is not None or wanted == 1:
            got = Words(f"{population.lanes}, at width {wanted} {planned / 2**20:,.0f} MiB on each device")
            hint = "Take fewer lanes, or a smaller model or batch"
            raise UsageError("lanes", got, f"at most {limit / 2**20:,.0f} MiB", hint)
        wanted = max(1, min(wanted, candidate.effective_width) // 2)
