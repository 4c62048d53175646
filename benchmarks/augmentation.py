"""Times augmentations of a batch of 128 pictures, 32 x 32 x 3, inside a loop of steps, in milliseconds a batch.

python benchmarks/augmentation.py [MEMBER+MEMBER ...] [--output=FILE.json]

Each program gathers batch after batch from pictures on the device, as a call does, augments them and adds them up.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
from jax import lax

from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.resolve import resolve_config
from jaxtrain.tasks.augment import AUGMENTATIONS, augmentation_of

BATCH = 128
PICTURES = 1024
STEPS = 100
KNOBS = {"crop": {"height": 24}}


def main() -> None:
    """Times each augmentation, the pair of crop and flip, and a loop without any."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("chosen", nargs="*", help="members, joined by + (all, and pad_and_crop+flip)")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="two steps, as a smoke test")
    options = parser.parse_args()
    chosen = options.chosen or ["pad_and_crop+flip", *AUGMENTATIONS.members]
    steps, rounds = (2, 1) if options.quick else (STEPS, 7)
    programs = {name: program(name, steps) for name in ("", *chosen)}
    took = {name: 1e3 * min(times) / steps for name, times in timing.seconds_in_turns(programs, rounds).items()}
    where = timing.environment()
    rows = [[name or "none", f"{took[name]:.2f}", f"{took[name] - took['']:+.2f}"] for name in took]
    heading = ["", "ms/batch", "beyond none"]
    busy = f"load average {where['load_average']}; the least of {rounds} rounds, taken in turns"
    print("\n".join([*timing.environment_lines(where), busy, "", *timing.table([heading, *rows])]))
    timing.save({"ms": took, "environment": where}, options.output)


def program(names: str, steps: int) -> Any:
    """Returns a call of `steps` augmented batches."""
    members = {f"augment.{name}": KNOBS.get(name, True) for name in names.split("+") if name}
    config = resolve_config({}, members).config
    augmentation = augmentation_of(config)
    generator = np.random.default_rng(0)
    pictures = jnp.asarray(generator.normal(size=(PICTURES, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, 10, PICTURES), jnp.int32)
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}

    def augmented(i: jax.Array, pictures: jax.Array, values: Any) -> jax.Array:
        rows = (jnp.arange(BATCH) * 7 + i) % PICTURES
        batch = {"inputs": pictures[rows], "targets": labels[rows]}
        return augmentation(jax.random.fold_in(jax.random.key(0), i), batch, values)["inputs"]

    @jax.jit
    def run(pictures: jax.Array, values: Any) -> jax.Array:
        shape = jax.eval_shape(augmented, jnp.zeros((), jnp.int32), pictures, values)
        total = jnp.zeros(shape.shape, shape.dtype)
        return lax.fori_loop(0, steps, lambda i, total: total + augmented(i, pictures, values), total)

    return lambda: jax.block_until_ready(run(pictures, values))


if __name__ == "__main__":
    main()
