"""The transformer: its formula in NumPy, causality, cached decoding, and the form of attention on each platform."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.errors import ConfigError, DataError
from jaxtrain.models import transformer
from jaxtrain.models.attention import attention, rotate
from jaxtrain.models.transformer import Transformer

KEY = jax.random.key(0)
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 9)).astype(np.uint8)
MODEL = Transformer(11, width=16, layers=2, heads=2, expansion=3)


@pytest.fixture(scope="module")
def variables() -> Any:
    return jax.jit(MODEL.init)(KEY, TOKENS)


@functools.cache
def compiled(model=MODEL) -> Any:
    return jax.jit(model.apply)


def test_it_is_the_formula(variables):
    """Written out for each head and position, with numbers in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    table = params["Embed_0"]["embedding"]
    blocks = params["blocks"]

    def norm(x, scale):
        return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6) * scale

    def turned(vector, position):
        pairs = vector[: len(vector) // 2] + 1j * vector[len(vector) // 2 :]
        pairs = pairs * np.exp(1j * position * 10_000.0 ** (-np.arange(len(pairs)) / len(pairs)))
        return np.concatenate([pairs.real, pairs.imag])

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    expected = []
    for sequence in TOKENS:
        hidden = table[sequence]
        for layer in range(2):
            own = jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks)
            queries, keys, values = (
                (norm(hidden, own["RMSNorm_0"]["scale"]) @ own["Dense_0"]["kernel"]).reshape(9, 3, 2, 8).swapaxes(0, 1)
            )
            mixed = np.zeros((9, 2, 8))
            for head in range(2):
                for t in range(9):
                    scores = [turned(queries[t, head], t) @ turned(keys[s, head], s) / np.sqrt(8) for s in range(t + 1)]
                    weights = np.exp(scores) / np.exp(scores).sum()
                    mixed[t, head] = weights @ values[: t + 1, head]
            hidden = hidden + mixed.reshape(9, 16) @ own["Dense_1"]["kernel"]
            inner = gelu(norm(hidden, own["RMSNorm_1"]["scale"]) @ own["Dense_2"]["kernel"])
            hidden = hidden + inner @ own["Dense_3"]["kernel"]
        expected.append(norm(hidden, params["RMSNorm_0"]["scale"]) @ table.T)
    np.testing.assert_allclose(compiled()(variables, TOKENS), expected, atol=1e-4)


def test_no_position_sees_a_later_token(variables):
    changed = TOKENS.copy()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    before = compiled()(variables, TOKENS)
    after = compiled()(variables, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (np.abs(before - after)[:, 5:].max(axis=-1) > 1e-4).all()


def test_cached_decoding_gives_the_logits_of_the_whole_sequence(variables):
    decode = jax.jit(functools.partial(MODEL.apply, method="decode"))
    whole, filled = decode(variables, TOKENS)
    cache = jax.tree.map(jnp.zeros_like, filled)
    for i in range(TOKENS.shape[1]):
        logits, cache = decode(variables, TOKENS[:, i : i + 1], cache, i)
        np.testing.assert_allclose(logits[:, 0], whole[:, i], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cache, filled)


@pytest.mark.parametrize("change", [{"remat": True}, {"unrolled": 0}])
def test_neither_remat_nor_a_loop_over_the_layers_changes_numbers(variables, change, monkeypatch):
    def gradients(model):
        return jax.jit(jax.grad(lambda v: jnp.square(model.apply(v, TOKENS)).mean()))(variables)

    expected = gradients(MODEL)
    monkeypatch.setattr(transformer, "UNROLLED", change.pop("unrolled", transformer.UNROLLED))
    found = gradients(MODEL.clone(**change))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)


def test_dropout_is_traced_and_differs_between_layers(variables):
    def at_rate(rate):
        return MODEL.clone(dropout=rate).apply(variables, TOKENS, train=True, rngs={"dropout": KEY})

    lanes = jax.jit(jax.vmap(at_rate))(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(lanes[0], compiled()(variables, TOKENS), atol=1e-5)
    assert abs(lanes[1] - lanes[0]).max() > 1e-2


def test_both_forms_of_attention_agree_and_the_platform_chooses():
    shape = (2, 6, 2, 8)
    q, k, v = (jax.random.normal(key, shape) for key in jax.random.split(KEY, 3))
    mask = jnp.tril(jnp.ones((1, 6, 6), bool))
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])
    np.testing.assert_allclose(attention(q, k, v, mask), expected, atol=1e-5)
    traced = jax.jit(attention).trace(q, k, v, mask)
    texts = {name: traced.lower(lowering_platforms=(name,)).compiler_ir() for name in ("cpu", "cuda", "tpu")}
    # One form transposes queries, keys and values for batched products, the other contracts them where they lie.
    found = {name: "batching_dims = [0, 1] x [0, 1]" in str(text) for name, text in texts.items()}
    assert found == {"cpu": True, "cuda": False, "tpu": False}


def test_rotated_products_depend_on_the_distance_alone():
    query, key = (jax.random.normal(k, (1, 1, 1, 8)) for k in jax.random.split(KEY))

    def product(i, j):
        return jnp.vdot(rotate(query, jnp.array([i])), rotate(key, jnp.array([j])))

    np.testing.assert_allclose(product(3, 1), product(12, 10), atol=1e-5)
    assert abs(product(3, 1) - product(4, 1)) > 1e-3


def test_what_it_cannot_take_is_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"model.width: got 10; expected a multiple of 8, twice model.heads=4"):
        jax.eval_shape(Transformer(11, width=10).init, KEY, TOKENS)
    with pytest.raises(DataError, match=r"model.name: got 'transformer' for inputs of shape \(4,\), float32"):
        jax.eval_shape(Transformer(11).init, KEY, jnp.zeros((2, 4)))
