import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.models import MODELS, layers
from jaxtrain.models.cnn import CNN
from jaxtrain.models.layers import Conv, Dropout, average_pool, batch_axis, convolve, max_pool, normalise
from jaxtrain.models.mlp import MLP

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.permutation(2 * 7 * 9 * 3).reshape(2, 7, 9, 3).astype(np.float32) / 100  # odd sizes, no ties
KEY = jax.random.key(0)


def init(module, inputs) -> Any:
    return jax.jit(module.init)(KEY, inputs)


def apply(module, variables, *arguments, **options) -> Any:
    return jax.jit(lambda *traced: module.apply(*traced, **options))(variables, *arguments)


def on_each_backend(monkeypatch, function, *arguments):
    """Returns outputs and gradients, under random weights, of what is chosen on CPU and of what is elsewhere."""
    weights = RANDOM.normal(size=jax.eval_shape(function, *arguments).shape).astype(np.float32)
    found = []
    for on_cpu in (True, False):
        monkeypatch.setattr(layers, "_on_cpu", lambda on_cpu=on_cpu: on_cpu)
        outputs, gradients = jax.jit(lambda *given: (lambda y, pull: (y, pull(weights)))(*jax.vjp(function, *given)))(
            *arguments
        )
        found.append((outputs, *gradients))
    return found


def assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def name_of(case):
    return "-".join(str(part).replace(", ", "x") for part in case)


CONVOLUTIONS = [
    *itertools.product([(1, 1), (3, 3), (5, 5)], [(1, 1), (2, 2)], ["SAME", "VALID"]),
    ((2, 3), (1, 2), "SAME"),
    ((1, 1), (3, 3), "SAME"),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=name_of)
def test_convolution_by_patches_is_the_native_one_with_its_gradients(monkeypatch, case):
    window, strides, padding = case
    kernel = RANDOM.normal(size=(*window, 3, 4)).astype(np.float32)
    assert_same(*on_each_backend(monkeypatch, lambda x, k: convolve(x, k, strides, padding), IMAGES, kernel))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_convolution_is_that_of_flax_with_the_same_parameters(padding):
    ours, theirs = Conv(4, (3, 3), (2, 2), padding), nn.Conv(4, (3, 3), (2, 2), padding)
    params = init(theirs, IMAGES)["params"]
    assert_same(init(ours, IMAGES)["params"], params)
    params = params | {"bias": jnp.arange(4.0)}
    assert_same(apply(ours, {"params": params}, IMAGES), apply(theirs, {"params": params}, IMAGES))
    assert set(Conv(4, use_bias=False).init(KEY, IMAGES)["params"]) == {"kernel"}


POOLS = [
    ((2, 2), None, "VALID"),
    ((2, 2), None, "SAME"),
    ((3, 3), (2, 2), "VALID"),
    ((3, 3), (2, 2), "SAME"),
    ((2, 3), (1, 2), "SAME"),
    ((1, 2), (2, 3), "VALID"),
]


@pytest.mark.parametrize("case", POOLS, ids=name_of)
@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_pooling_on_cpu_is_the_native_one_with_its_gradients_and_that_of_flax(monkeypatch, pool, case):
    window, strides, padding = case
    on_cpu, elsewhere = on_each_backend(monkeypatch, lambda x: pool(x, window, strides, padding), IMAGES - 5.0)
    assert_same(on_cpu, elsewhere)
    of_flax = {max_pool: nn.max_pool, average_pool: nn.avg_pool}[pool]
    with jax.numpy_dtype_promotion("standard"):
        assert_same(on_cpu[0], of_flax(IMAGES - 5.0, window, strides or window, padding))


def test_pooling_of_negative_images_never_takes_the_padding():
    assert (max_pool(jnp.asarray(-1.0 - abs(IMAGES)), (3, 3), (2, 2), "SAME") <= -1.0).all()


def dropped(rate, inputs, train=True):
    return apply(Dropout(rate), {}, inputs, train=train, rngs={"dropout": KEY})


def test_dropout_keeps_the_mean_and_scales_what_it_keeps():
    outputs = np.asarray(dropped(jnp.float32(0.3), jnp.ones((200, 200))))
    assert abs((outputs == 0).mean() - 0.3) < 0.01
    assert abs(outputs.mean() - 1.0) < 0.01
    np.testing.assert_allclose(np.unique(outputs), [0.0, 1 / 0.7], rtol=1e-6)


def test_dropout_maps_over_rates_and_draws_the_same_at_each():
    rates = jnp.array([0.0, 0.2, 0.5, 0.9])
    outputs = np.asarray(jax.jit(jax.vmap(dropped, in_axes=(0, None)))(rates, jnp.ones((100, 100))))
    np.testing.assert_array_equal(outputs[0], 1.0)
    np.testing.assert_allclose((outputs == 0).mean(axis=(1, 2)), rates, atol=0.02)
    for less, more in itertools.pairwise(outputs):
        assert (more[less == 0] == 0).all()
    np.testing.assert_array_equal(outputs[2], dropped(0.5, jnp.ones((100, 100))))


def test_dropout_is_left_out_by_none_and_in_evaluation():
    inputs = jnp.arange(6.0)
    for rate, train in ((None, True), (None, False), (0.5, False)):
        np.testing.assert_array_equal(apply(Dropout(rate), {}, inputs, train=train), inputs)  # no key is asked for
    with pytest.raises(Exception, match="dropout"):
        apply(Dropout(0.0), {}, inputs, train=True)


def test_dropout_differentiates_by_what_it_keeps():
    gradients = jax.grad(lambda inputs: dropped(0.5, inputs).sum())(jnp.ones(50))
    np.testing.assert_array_equal(gradients, dropped(0.5, jnp.ones(50)))


class Norm(nn.Module):
    kind: Literal["batch", "layer"] | None

    @nn.compact
    def __call__(self, inputs, train=False):
        return normalise(inputs, self.kind, train)


def test_batch_norm_is_the_formula_and_remembers_running_statistics():
    inputs = RANDOM.normal(3.0, 2.0, (8, 5, 4)).astype(np.float32)
    mean, var = inputs.mean(axis=(0, 1)), inputs.var(axis=(0, 1))
    variables = init(Norm("batch"), inputs)
    outputs, changed = apply(Norm("batch"), variables, inputs, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(outputs, (inputs - mean) / np.sqrt(var + 1e-5), atol=1e-4)
    stats = jax.tree.map(np.asarray, changed["batch_stats"]["BatchNorm_0"])
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-4)
    evaluated = apply(Norm("batch"), variables | changed, inputs)
    np.testing.assert_allclose(evaluated, (inputs - stats["mean"]) / np.sqrt(stats["var"] + 1e-5), atol=1e-4)


def test_layer_norm_is_the_formula_and_keeps_no_statistics():
    inputs = RANDOM.normal(3.0, 2.0, (8, 5, 4)).astype(np.float32)
    variables = init(Norm("layer"), inputs)
    assert set(variables) == {"params"}
    centred = inputs - inputs.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt(inputs.var(axis=-1, keepdims=True) + 1e-6)
    for train in (False, True):
        np.testing.assert_allclose(apply(Norm("layer"), variables, inputs, train=train), expected, atol=1e-4)


def test_no_norm_leaves_the_inputs_alone():
    assert init(Norm(None), IMAGES) == {}
    np.testing.assert_array_equal(apply(Norm(None), {}, IMAGES, train=True), IMAGES)


def test_batch_norm_on_a_mapped_axis_is_that_of_the_whole_batch():
    inputs = RANDOM.normal(np.arange(8)[:, None], 1.0, (8, 4)).astype(np.float32)  # each share has a mean of its own
    variables = init(Norm("batch"), inputs)

    def normalised(inputs):
        return apply(Norm("batch"), variables, inputs, train=True, mutable=["batch_stats"])

    def share(inputs):
        with batch_axis("devices"):
            return normalised(inputs)

    outputs, stats = jax.pmap(share, "devices")(inputs.reshape(4, 2, 4))
    expected, expected_stats = normalised(inputs)
    np.testing.assert_allclose(outputs.reshape(8, 4), expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6), stats, expected_stats)
    alone, _ = jax.pmap(normalised, "devices")(inputs.reshape(4, 2, 4))
    assert abs(alone.reshape(8, 4) - expected).max() > 0.5


MODEL_INPUTS = {"mlp": np.zeros((5, 4, 4), np.float32)}
"""What a model is given that does not take `(batch, height, width, channels)`."""
SMALL = {"mlp": {"hidden": (8, 6)}, "cnn": {"features": (3, 4), "hidden": (8,)}}


@pytest.mark.parametrize("name", MODELS.members)
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_every_model_gives_its_outputs_and_keeps_only_the_statistics_of_batch_norm(name, norm):
    inputs = MODEL_INPUTS.get(name, np.zeros((5, 8, 8, 1), np.float32))
    model = MODELS.members[name](7, **SMALL.get(name, {}), norm=norm)
    outputs, variables = jax.eval_shape(model.init_with_output, KEY, inputs)
    assert (outputs.shape, outputs.dtype) == ((5, 7), jnp.float32)
    assert set(variables) == ({"params", "batch_stats"} if norm == "batch" else {"params"})


@pytest.mark.parametrize("name", MODELS.members)
def test_every_model_takes_its_dropout_traced_and_none_asks_for_no_key(name):
    inputs = RANDOM.normal(size=MODEL_INPUTS.get(name, np.zeros((5, 8, 8, 1))).shape).astype(np.float32)
    knobs = SMALL.get(name, {})
    plain = MODELS.members[name](7, **knobs)
    variables = init(plain, inputs)

    def at_rate(rate):
        return MODELS.members[name](7, **knobs, dropout=rate).apply(
            variables, inputs, train=True, rngs={"dropout": KEY}
        )

    lanes = jax.jit(jax.vmap(at_rate))(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(lanes[0], apply(plain, variables, inputs, train=True), atol=1e-5)
    assert abs(lanes[1] - lanes[0]).max() > 1e-3


def test_mlp_is_dense_layers_with_the_activation_between():
    inputs = RANDOM.normal(size=(3, 4)).astype(np.float32)
    for activation in ("relu", "gelu", "silu", "tanh"):
        model = MLP(2, (5,), activation)
        variables = init(model, inputs)
        first, last = (variables["params"][f"Dense_{i}"] for i in (0, 1))
        hidden = getattr(nn, activation)(inputs @ first["kernel"] + first["bias"][None])
        np.testing.assert_allclose(
            apply(model, variables, inputs), hidden @ last["kernel"] + last["bias"][None], atol=1e-5
        )


class StockCNN(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        for channels in (3, 4):
            inputs = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(inputs)), (2, 2), (2, 2))
        inputs = nn.relu(nn.Dense(8)(inputs.reshape(len(inputs), -1)))
        return nn.Dense(7)(inputs)


def test_cnn_is_the_network_of_stock_layers_with_the_same_weights():
    inputs = RANDOM.normal(size=(3, 9, 8, 2)).astype(np.float32)
    model = CNN(7, (3, 4), (8,))
    params = init(model, inputs)["params"]
    stock = {"Conv_0": params["Conv_0"], "Conv_1": params["Conv_1"], **params["MLP_0"]}
    np.testing.assert_allclose(
        apply(model, {"params": params}, inputs), apply(StockCNN(), {"params": stock}, inputs), atol=1e-5
    )
