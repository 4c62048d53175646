"""Baseline of startup.py: a script in plain JAX, Flax and optax that trains the same MLP for one step.

python bare_start.py FOLDER_WITH_IDX_FILES TOTAL_STEPS [FOLDER_OF_COMPILED_PROGRAMS]
"""

import gzip
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


class MLP(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        hidden = inputs.reshape(inputs.shape[0], -1)
        for width in (128, 128):
            hidden = nn.relu(nn.Dense(width)(hidden))
        return nn.Dense(10)(hidden)


def read(folder, name, offset):
    with gzip.open(folder / f"{name}-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def main(folder, total_steps, cache=None):
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    folder = Path(folder)
    images = read(folder, "train-images-idx3", 16).reshape(-1, 28, 28, 1).astype(np.float32)
    labels = read(folder, "train-labels-idx1", 8).astype(np.int32)
    test_images = read(folder, "t10k-images-idx3", 16)
    test_labels = read(folder, "t10k-labels-idx1", 8)
    sample = images[::6]  # like jaxtrain: statistics of 10,000 images
    images = (images - sample.mean()) / sample.std()
    order = np.random.default_rng(0).permutation(len(images))[: len(images) * 9 // 10]
    images, labels = jax.device_put((images[order], labels[order]))

    model = MLP()
    optimizer = optax.adam(optax.cosine_onecycle_schedule(int(total_steps), 2e-3))

    @jax.jit
    def init(key):
        params = model.init(key, jnp.zeros((1, 28, 28, 1)))
        return params, optimizer.init(params)

    @jax.jit
    def step(params, opt_state, images, labels, rows):
        def loss(params):
            logits = jnp.asarray(model.apply(params, images[rows]))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
            return losses.mean(), (logits.argmax(-1) == labels[rows]).mean()

        (value, accuracy), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value, accuracy

    params, opt_state = init(jax.random.key(0))
    params, opt_state, value, accuracy = step(params, opt_state, images, labels, np.arange(128, dtype=np.int32))
    print(f"step 1  loss {float(value):.4f}  accuracy {float(accuracy):.4f}", flush=True)
    return test_images, test_labels


if __name__ == "__main__":
    main(*sys.argv[1:])
