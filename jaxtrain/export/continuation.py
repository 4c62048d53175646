"""The program by which an export continues texts. It caches keys and values, and takes the weights as an argument."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxtrain.errors import ConfigError, JaxtrainWarning, Words, first_line
from jaxtrain.export.generation import NUMBERS
from jaxtrain.export.loading import CONTINUATION
from jaxtrain.export.outputs import Head, head_of
from jaxtrain.export.program import ERRORS_OF_TRACING, Member, prefixes_of, serialize, weights_of
from jaxtrain.tasks.generation import Decode, extend_each
from jaxtrain.training.trained_run import Run


def export_continuation(run: Run, members: Mapping[int, Member]) -> bytes | None:
    """Exports the program that draws tokens after windows; `run` is the first of the members.

    With the weights inside it would hold a second copy of them. Returns None, with a warning, for a model that has no
    such program.
    """
    head = head_of(run.config["task"]["name"], run.info)

    def program(weights: Mapping[str, jax.Array], **rows: jax.Array) -> dict[str, jax.Array]:
        pairs = zip(prefixes_of(members), members.values(), strict=True)
        restored = [
            member.restored({path: weights[prefix + path] for path in member.arrays}) for prefix, member in pairs
        ]
        return {"tokens": extend_each(**rows, decode=_joined(restored, head))}

    (size,) = export.symbolic_shape("n")
    rows = {name: jax.ShapeDtypeStruct((size,), dtype) for name, dtype in NUMBERS.items()}
    tokens = jax.ShapeDtypeStruct((size, *run.info.input_shape), np.int32)
    try:
        return serialize(program, jax.eval_shape(lambda: weights_of(members)), tokens=tokens, **rows)
    except ConfigError:
        reason = "which caches nothing"
    except ERRORS_OF_TRACING as error:
        reason = f"whose method decode cannot be exported ({first_line(error)})"
    got = Words(f"the model {run.config['model']['name']!r}, {reason}")
    expected = "one with a method decode, for any number of texts"
    warnings.warn(JaxtrainWarning(CONTINUATION, got, expected, "It is left out"), stacklevel=2)
    return None


def _joined(members: Sequence[Member], head: Head) -> Decode:
    """Returns the function that decodes by all members, whose predictions are joined as those of the export are."""

    def decode(tokens: jax.Array, caches: Any, position: jax.Array | int) -> tuple[jax.Array, Any]:
        own = caches or [None] * len(members)
        found = [member.decode(tokens, cache, position) for member, cache in zip(members, own, strict=True)]
        logits = jnp.stack([logits for logits, _ in found])
        return head.join(logits) if len(members) > 1 else logits[0], [cache for _, cache in found]

    return decode
