import contextlib
import doctest
import itertools
import sys
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.config.registry import resolve
from jaxtrain.core.batch_axis import batch_axis
from jaxtrain.core.outside_loops import outside_loops
from jaxtrain.errors import ConfigError, DataError
from jaxtrain.models import MODELS
from jaxtrain.models.attention import attention
from jaxtrain.models.cnn import CNN
from jaxtrain.models.convolution import Conv, average_pool, max_pool
from jaxtrain.models.layers import Dropout
from jaxtrain.models.mlp import MLP
from jaxtrain.models.norms import NORMS, Norm, normalise
from jaxtrain.models.resnet import BasicBlock, Bottleneck, ResNet
from jaxtrain.models.resnet9 import ResNet9
from jaxtrain.models.tabular_mlp import TabularMLP
from jaxtrain.models.unet import UNet
from jaxtrain.models.upsampling import ConvTranspose, upsample
from jaxtrain.models.vit import ViT

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.permutation(2 * 7 * 9 * 3).reshape(2, 7, 9, 3).astype(np.float32) / 100  # odd sizes, no ties
KEY = jax.random.key(0)


def init(module, inputs) -> Any:
    return jax.jit(module.init)(KEY, inputs)


def apply(module, variables, *arguments, **options) -> Any:
    return jax.jit(lambda *traced: module.apply(*traced, **options))(variables, *arguments)


def in_each_form(function, *arguments):
    """Returns outputs and gradients, for random cotangents, of the form for loops on CPU and of the native one."""
    shape = jax.eval_shape(function, *arguments).shape
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = []
    for form in (contextlib.nullcontext(), outside_loops()):

        def differentiate(*given, form=form):
            with form:
                outputs, pull = jax.vjp(function, *given)
            return outputs, *pull(weights)

        found.append(jax.jit(differentiate)(*arguments))
    return found


def assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def name_of(case):
    return "-".join(str(part).replace(", ", "x") for part in case)


# Window, strides, padding, dilation, groups, channels, features; the CPU form depends on the number of channels.
CONVOLUTIONS = [
    ((1, 1), (1, 1), "SAME", (1, 1), 1, 3, 4),
    ((1, 1), (3, 3), "SAME", (1, 1), 1, 12, 4),
    *itertools.product([(3, 3)], [(1, 1), (2, 2)], ["SAME", "VALID"], [(1, 1)], [1], [3, 12], [4]),
    ((5, 5), (1, 1), "SAME", (1, 1), 1, 12, 4),
    ((5, 5), (2, 2), "VALID", (1, 1), 1, 12, 4),
    ((2, 3), (1, 2), "SAME", (1, 1), 1, 12, 4),
    ((3, 3), (1, 1), "SAME", (2, 2), 1, 3, 4),
    *itertools.product([(3, 3)], [(1, 1)], ["SAME", "VALID"], [(3, 1), (2, 2)], [1], [12], [4]),
    ((3, 2), (2, 1), "SAME", (1, 3), 1, 12, 4),
    ((3, 3), (1, 1), "SAME", (1, 1), 3, 12, 6),
    ((3, 3), (2, 2), "VALID", (2, 1), 3, 12, 6),
    ((1, 1), (1, 1), "VALID", (1, 1), 4, 12, 8),
    ((3, 3), (1, 1), "SAME", (1, 1), 6, 6, 6),
    ((3, 3), (2, 1), "VALID", (2, 2), 6, 6, 12),
]


@pytest.mark.one_fast_of(5)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=name_of)
def test_convolution_is_that_of_flax_in_each_form_with_its_gradients(case):
    window, strides, padding, dilation, groups, channels, features = case
    images = RANDOM.normal(size=(2, 7, 9, channels)).astype(np.float32)
    ours = Conv(features, window, strides, padding, dilation=dilation, groups=groups)
    theirs = nn.Conv(features, window, strides, padding, kernel_dilation=dilation, feature_group_count=groups)
    params = {"kernel": RANDOM.normal(size=(*window, channels // groups, features)).astype(np.float32)}
    params |= {"bias": np.arange(features, dtype=np.float32)}
    in_loop, native = in_each_form(lambda x, p: ours.apply({"params": p}, x), images, params)
    _, of_flax = in_each_form(lambda x, p: theirs.apply({"params": p}, x), images, params)
    assert_same(in_loop, native)
    assert_same(in_loop, of_flax)


def test_convolution_starts_with_the_parameters_of_flax():
    images = np.zeros((2, 7, 9, 12), np.float32)
    ours = init(Conv(6, groups=3, dilation=(2, 1)), images)
    assert_same(ours, init(nn.Conv(6, (3, 3), feature_group_count=3, kernel_dilation=(2, 1)), images))


def test_convolution_has_no_bias_where_none_is_wanted_and_refuses_groups_that_do_not_divide():
    assert set(Conv(4, use_bias=False).init(KEY, IMAGES)["params"]) == {"kernel"}
    for channels, features in ((3, 4), (4, 3)):
        with pytest.raises(ValueError, match="groups: got 2; expected "):
            Conv(features, groups=2).init(KEY, jnp.zeros((1, 8, 8, channels)))


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
def test_pooling_in_loops_is_the_native_one_with_its_gradients_and_that_of_flax(pool, case):
    window, strides, padding = case
    in_loop, native = in_each_form(lambda x: pool(x, window, strides, padding), IMAGES - 5.0)
    assert_same(in_loop, native)
    of_flax = {max_pool: nn.max_pool, average_pool: nn.avg_pool}[pool]
    with jax.numpy_dtype_promotion("standard"):
        assert_same(in_loop[0], of_flax(IMAGES - 5.0, window, strides or window, padding))


def test_the_first_of_the_largest_values_moves_the_pooled_one_in_each_form_and_in_both_modes():
    images = np.repeat(RANDOM.integers(0, 3, (2, 4, 6, 5)), 2, axis=1).astype(np.float32)  # many ties
    assert_same(*in_each_form(max_pool, images))
    moves = RANDOM.normal(size=images.shape).astype(np.float32)
    forwards = jax.jvp(max_pool, (images,), (moves,))[1]
    back = jax.vjp(max_pool, images)[1](jnp.ones_like(forwards))[0]
    np.testing.assert_allclose(forwards.sum(), (back * moves).sum(), rtol=1e-4)


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
        np.testing.assert_array_equal(apply(Dropout(rate), {}, inputs, train=train), inputs)  # no key is needed
    with pytest.raises(Exception, match="dropout"):
        apply(Dropout(0.0), {}, inputs, train=True)


def test_dropout_differentiates_by_what_it_keeps():
    gradients = jax.grad(lambda inputs: dropped(0.5, inputs).sum())(jnp.ones(50))
    np.testing.assert_array_equal(gradients, dropped(0.5, jnp.ones(50)))


class Normalised(nn.Module):
    kind: Norm | None

    @nn.compact
    def __call__(self, inputs, train=False):
        return normalise(inputs, self.kind, train)


def test_batch_norm_is_the_formula_and_remembers_running_statistics():
    inputs = RANDOM.normal(3.0, 2.0, (8, 5, 4)).astype(np.float32)
    mean, var = inputs.mean(axis=(0, 1)), inputs.var(axis=(0, 1))
    variables = init(Normalised("batch"), inputs)
    outputs, changed = apply(Normalised("batch"), variables, inputs, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(outputs, (inputs - mean) / np.sqrt(var + 1e-5), atol=1e-4)
    stats = jax.tree.map(np.asarray, changed["batch_stats"]["BatchNorm_0"])
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-4)
    evaluated = apply(Normalised("batch"), variables | changed, inputs)
    np.testing.assert_allclose(evaluated, (inputs - stats["mean"]) / np.sqrt(stats["var"] + 1e-5), atol=1e-4)


def test_layer_norm_is_the_formula_and_keeps_no_statistics():
    inputs = RANDOM.normal(3.0, 2.0, (8, 5, 4)).astype(np.float32)
    variables = init(Normalised("layer"), inputs)
    assert set(variables) == {"params"}
    centred = inputs - inputs.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt(inputs.var(axis=-1, keepdims=True) + 1e-6)
    for train in (False, True):
        np.testing.assert_allclose(apply(Normalised("layer"), variables, inputs, train=train), expected, atol=1e-4)


def test_root_mean_square_norm_is_the_formula_and_centres_nothing():
    inputs = RANDOM.normal(3.0, 2.0, (8, 5, 4)).astype(np.float32)
    variables = init(Normalised("rms"), inputs)
    expected = inputs / np.sqrt((inputs**2).mean(axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(apply(Normalised("rms"), variables, inputs), expected, atol=1e-4)


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (32, 8), (18, 3), (8, 2), (7, 1), (3, 1), (1, 1)])
def test_group_norm_is_the_formula_with_groups_of_four_channels_or_more(channels, groups):
    inputs = RANDOM.normal(3.0, 2.0, (2, 5, 4, channels)).astype(np.float32)
    parts = inputs.reshape(2, 20, groups, -1)
    mean, var = (function(axis=(1, 3), keepdims=True) for function in (parts.mean, parts.var))
    expected = ((parts - mean) / np.sqrt(var + 1e-6)).reshape(inputs.shape)
    variables = init(Normalised("group"), inputs)
    assert set(variables) == {"params"}
    np.testing.assert_allclose(apply(Normalised("group"), variables, inputs, train=True), expected, atol=1e-4)


def test_the_table_of_norms_is_what_a_knob_may_name():
    assert set(NORMS) == set(get_args(Norm))


def test_no_norm_leaves_the_inputs_alone():
    assert init(Normalised(None), IMAGES) == {}
    np.testing.assert_array_equal(apply(Normalised(None), {}, IMAGES, train=True), IMAGES)


def test_batch_norm_on_a_mapped_axis_is_that_of_the_whole_batch():
    inputs = RANDOM.normal(np.arange(8)[:, None], 1.0, (8, 4)).astype(
        np.float32
    )  # each device's share has another mean
    variables = init(Normalised("batch"), inputs)

    def normalised(inputs):
        return apply(Normalised("batch"), variables, inputs, train=True, mutable=["batch_stats"])

    def share(inputs):
        with batch_axis("devices"):
            return normalised(inputs)

    outputs, stats = jax.pmap(share, "devices")(inputs.reshape(4, 2, 4))
    expected, expected_stats = normalised(inputs)
    np.testing.assert_allclose(outputs.reshape(8, 4), expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6), stats, expected_stats)
    alone, _ = jax.pmap(normalised, "devices")(inputs.reshape(4, 2, 4))
    assert abs(alone.reshape(8, 4) - expected).max() > 0.5


ROWS = {
    "numbers": np.zeros((5, 3), np.float32),
    "flags": np.zeros((5, 1), np.float32),
    "codes": np.array([[0, 6], [1, 5], [2, 4], [3, 3], [3, 0]], np.int32),
}
MODEL_INPUTS: dict[str, Any] = {"mlp": np.zeros((5, 4, 4), np.float32), "tabular_mlp": ROWS}
"""The inputs of models that do not take `(batch, height, width, channels)`."""
SMALL = {
    "mlp": {"hidden": (8, 6)},
    "tabular_mlp": {"category_sizes": (4, 7), "hidden": (8, 6)},
    "cnn": {"features": (3, 4), "hidden": (8,)},
    "resnet9": {"widths": (4, 6, 6, 8)},
    "resnet": {"width": 4},
    "unet": {"width": 4, "depth": 2},
    "vit": {"width": 8, "layers": 2, "heads": 2},
    "grid_resnet": {"widths": (4, 8)},
}
WITH_NORM = [name for name in MODELS.members if "norm" in MODELS.knobs(name)]
IMAGE_MODELS = [name for name in MODELS.members if name not in ("transformer", "text_encoder", "sequence_encoder")]
"""Models that take pictures; those of sequences have tests of their own."""
CONVOLUTIONAL = [name for name in IMAGE_MODELS if "mlp" not in name]


@pytest.mark.parametrize("name", WITH_NORM)
@pytest.mark.parametrize("norm", [None, *NORMS])
def test_every_model_gives_its_outputs_and_keeps_only_the_statistics_of_batch_norm(name, norm):
    inputs = MODEL_INPUTS.get(name, np.zeros((5, 8, 8, 1), np.float32))
    model = MODELS.members[name](7, **SMALL.get(name, {}), norm=norm)
    outputs, variables = jax.eval_shape(model.init_with_output, KEY, inputs)
    expected = {"unet": (5, 8, 8, 7), "grid_resnet": (5, 2, 2, 7)}.get(name, (5, 7))
    assert (outputs.shape, outputs.dtype) == (expected, jnp.float32)
    assert set(variables) == ({"params", "batch_stats"} if norm == "batch" else {"params"})


@pytest.mark.parametrize("name", MODELS.members)
def test_the_example_of_every_model_runs(name):
    model = MODELS.members[name]
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(model, name, globs=vars(sys.modules[model.__module__]).copy())
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_model_takes_its_dropout_traced_and_none_asks_for_no_key(name):
    zeros = MODEL_INPUTS.get(name, np.zeros((5, 8, 8, 1), np.float32))
    inputs = jax.tree.map(lambda leaf: leaf + RANDOM.normal(size=leaf.shape).astype(leaf.dtype), zeros)
    knobs = SMALL.get(name, {}) | ({"norm": None} if name in WITH_NORM else {})
    plain = MODELS.members[name](7, **knobs)
    variables = jax.tree.map(
        lambda leaf: leaf + RANDOM.normal(0.0, 0.1, leaf.shape).astype(np.float32), init(plain, inputs)
    )  # no weight stays at 0

    def at_rate(rate):
        return MODELS.members[name](7, **knobs, dropout=rate).apply(
            variables, inputs, train=True, rngs={"dropout": KEY}
        )

    lanes = jax.jit(jax.vmap(at_rate))(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(lanes[0], apply(plain, variables, inputs, train=True), rtol=1e-4, atol=1e-4)
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


def test_tabular_mlp_is_an_mlp_on_numbers_flags_waves_and_vectors():
    inputs = {
        "numbers": RANDOM.normal(size=(5, 2)).astype(np.float32),
        "flags": np.array([[0.0], [1.0], [0.0], [1.0], [1.0]], np.float32),
        "codes": np.array([[0, 6], [1, 5], [2, 4], [3, 3], [3, 0]], np.int32),
    }
    model = TabularMLP(2, (4, 7), hidden=(5,), embedding=3, frequencies=2)
    params = init(model, inputs)["params"]
    vectors = [params["embeddings"][first + inputs["codes"][:, i]] for i, first in enumerate((0, 4))]
    assert not vectors[0][0].any()  # an unknown category is the zero vector
    assert not vectors[1][4].any()
    assert vectors[0][1:].any(axis=1).all()
    waves = []
    for number, frequencies in zip(inputs["numbers"].T, params["frequencies"], strict=True):
        phases = 2 * np.pi * number[:, None] * frequencies[None]
        waves += [np.sin(phases), np.cos(phases)]
    features = np.concatenate([inputs["numbers"], inputs["flags"], *waves, *vectors], axis=1)
    expected = apply(MLP(2, (5,)), {"params": params["MLP_0"]}, features)
    np.testing.assert_allclose(apply(model, {"params": params}, inputs), expected, atol=1e-5)
    scaled = init(model.clone(frequency_scale=0.6), inputs)["params"]
    np.testing.assert_allclose(scaled["frequencies"], 2 * params["frequencies"], rtol=1e-6)


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


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 8, 1), (5, 1, 2)])
def test_resnet9_takes_images_of_any_size(shape):
    assert jax.eval_shape(ResNet9(7).init_with_output, KEY, jnp.zeros((3, *shape)))[0].shape == (3, 7)


@pytest.mark.slow
def test_resnet9_has_nine_layers_of_weights_and_two_residual_blocks():
    model = ResNet9(7, (4, 6, 6, 8), norm=None)
    inputs = RANDOM.normal(size=(3, 8, 8, 2)).astype(np.float32)
    params = init(model, inputs)["params"]
    kernels = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    assert sorted(kernels) == sorted(
        [(3, 3, *pair) for pair in ((2, 4), (4, 6), (6, 6), (6, 6), (6, 6), (6, 8), (8, 8), (8, 8))] + [(8, 7)]
    )

    def convolved(hidden, i) -> Any:
        outputs: Any = nn.Conv(params[f"Conv_{i}"]["bias"].size, (3, 3)).apply({"params": params[f"Conv_{i}"]}, hidden)
        return nn.relu(outputs)

    def pooled(hidden):
        return nn.max_pool(hidden, (2, 2), (2, 2))

    hidden = pooled(convolved(convolved(inputs, 0), 1))
    hidden += convolved(convolved(hidden, 2), 3)
    hidden = pooled(convolved(pooled(convolved(hidden, 4)), 5))
    hidden += convolved(convolved(hidden, 6), 7)
    expected = 0.125 * hidden.max(axis=(1, 2)) @ params["Dense_0"]["kernel"]
    scaled: Any = jax.jit(lambda scale: model.clone(scale=scale).apply({"params": params}, inputs))
    for scale in (0.125, 0.25):
        np.testing.assert_allclose(scaled(jnp.float32(scale)), scale * 8 * expected, atol=1e-5)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_weights_of_each_lane_make_batched_products_and_no_convolutions_on_cpu(name):
    inputs = np.zeros((5, 8, 8, 1), np.float32)
    model = MODELS.members[name](7, **SMALL[name])
    lanes = jax.eval_shape(jax.vmap(model.init, (0, None)), jax.random.split(KEY, 3), inputs)

    def loss(params, others):
        return model.apply({"params": params, **others}, inputs, train=True, mutable=[*others])[0].sum()

    params = lanes.pop("params")
    solo = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (params, lanes))
    programs = [
        jax.jit(jax.vmap(jax.grad(loss))).trace(params, lanes).lower(lowering_platforms=("cpu",)).as_text(),
        jax.jit(jax.grad(loss)).trace(*solo).lower(lowering_platforms=("cpu",)).as_text(),
    ]
    assert not any("stablehlo.convolution" in program for program in programs)
    as_lanes, alone = (program.count("stablehlo.dot_general") for program in programs)
    kernels = sum("kernel" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
    assert as_lanes == alone >= 2 * kernels - 1


def parameters(model, *shape):
    """Counts the parameters of a model for an input of this shape."""
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, *shape)))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("layers", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
)
def test_resnets_have_the_published_number_of_parameters(layers, count):
    """The counts are those of torchvision's models."""
    assert parameters(ResNet(1000, layers, stem="imagenet"), 224, 224, 3) == count


def test_vision_transformers_have_the_published_number_of_parameters_but_for_the_class_token():
    """22,050,664 is that of ViT-S/16, with a class token and its position: 2 x 384 of them."""
    assert parameters(ViT(1000, 16, 384, 12, 6), 224, 224, 3) == 22_050_664 - 2 * 384


def test_the_unet_of_the_paper_has_its_number_of_parameters():
    """31,031,685 for one channel and two classes with padding or without: the paper's layers, counted by hand."""
    widths = [1, 64, 128, 256, 512, 1024]
    down = sum(9 * a * b + b + 9 * b * b + b for a, b in itertools.pairwise(widths))
    up = sum(4 * 2 * b * b + b + 9 * 2 * b * b + b + 9 * b * b + b for b in (64, 128, 256, 512))
    assert parameters(UNet(2, 64, 4, norm=None), 32, 32, 1) == down + up + 64 * 2 + 2


def randomised(variables):
    """Returns variables with random values in place of the zeros and ones that they start from."""
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: np.abs(generator.normal(0.3, 0.1, leaf.shape)).astype(np.float32), variables)


def native(hidden, kernel, stride=1):
    pads = [(kernel.shape[0] // 2,) * 2] * 2
    return jax.lax.conv_general_dilated(hidden, kernel, (stride,) * 2, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def by_statistics(hidden, params, stats, i):
    scale, bias = params[f"BatchNorm_{i}"]["scale"], params[f"BatchNorm_{i}"]["bias"]
    mean, var = stats[f"BatchNorm_{i}"]["mean"], stats[f"BatchNorm_{i}"]["var"]
    shape = (1, 1, 1, -1)
    return (hidden - mean.reshape(shape)) / np.sqrt(var + 1e-5).reshape(shape) * scale.reshape(shape) + bias.reshape(
        shape
    )


@pytest.mark.parametrize(("block", "convolutions"), [(BasicBlock, (2, 1)), (Bottleneck, (1, 2, 1))])
def test_residual_blocks_are_their_native_operations_with_the_shortcut_added(block, convolutions):
    inputs = RANDOM.normal(size=(2, 7, 6, 3)).astype(np.float32)
    module = block(4, 2, "batch")
    variables = randomised(jax.eval_shape(lambda inputs: module.init(KEY, inputs, False), inputs))
    params, stats = variables["params"], variables["batch_stats"]
    hidden: Any = inputs
    for i, stride in enumerate(convolutions):
        hidden = by_statistics(native(hidden, params[f"Conv_{i}"]["kernel"], stride), params, stats, i)
        hidden = nn.relu(hidden) if i < len(convolutions) - 1 else hidden
    last = len(convolutions)
    shortcut = by_statistics(native(inputs, params[f"Conv_{last}"]["kernel"], 2), params, stats, last)
    np.testing.assert_allclose(
        apply(module, variables, inputs, train=False), nn.relu(hidden + shortcut), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("norm", ["batch", "group", None])
def test_residual_blocks_start_as_identities(norm):
    inputs = np.abs(RANDOM.normal(size=(2, 6, 6, 16))).astype(np.float32)
    module = Bottleneck(4, 1, norm)
    np.testing.assert_array_equal(apply(module, module.init(KEY, inputs, False), inputs, train=False), inputs)


def test_the_stem_for_large_images_reduces_them_to_a_quarter():
    model = ResNet(3, 18, 4, "imagenet", norm=None)
    variables = randomised(jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 2))))
    images = RANDOM.normal(size=(1, 32, 32, 2)).astype(np.float32)
    assert parameters(model, 32, 32, 2) == parameters(model, 64, 64, 2)
    kernel = variables["params"]["Conv_0"]
    hidden = nn.relu(native(images, kernel["kernel"], 2) + kernel["bias"].reshape(1, 1, 1, -1))
    reduced = nn.max_pool(hidden, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
    assert reduced.shape == (1, 8, 8, 4)
    _, found = apply(model, variables, images, capture_intermediates=lambda module, _: module.name == "BasicBlock_0")
    ours: Any = BasicBlock(4, 1, None).apply({"params": variables["params"]["BasicBlock_0"]}, reduced, False)
    np.testing.assert_allclose(found["intermediates"]["BasicBlock_0"]["__call__"][0], ours, rtol=1e-4)


def test_unet_is_its_native_operations():
    images = RANDOM.normal(size=(2, 8, 4, 3)).astype(np.float32)
    model = UNet(2, 4, 1, norm=None)
    params = randomised(jax.eval_shape(model.init, KEY, images))["params"]

    def twice(hidden: Any, first) -> Any:
        for i in (first, first + 1):
            bias = params[f"Conv_{i}"]["bias"].reshape(1, 1, 1, -1)
            hidden = nn.relu(native(hidden, params[f"Conv_{i}"]["kernel"]) + bias)
        return hidden

    fine = twice(images, 0)
    coarse = twice(nn.max_pool(fine, (2, 2), (2, 2)), 2)
    up: Any = nn.ConvTranspose(4, (2, 2), (2, 2)).apply({"params": params["ConvTranspose_0"]}, coarse)
    hidden = twice(jnp.concatenate([fine, up], axis=-1), 4)
    expected = native(hidden, params["Conv_6"]["kernel"]) + params["Conv_6"]["bias"].reshape(1, 1, 1, -1)
    np.testing.assert_allclose(apply(model, {"params": params}, images), expected, rtol=1e-4)


def test_vit_is_its_native_operations():
    images = RANDOM.normal(size=(2, 8, 4, 3)).astype(np.float32)
    model = ViT(5, 4, 8, 2, 2)
    params = jax.tree.map(lambda leaf: leaf - 0.25, randomised(jax.eval_shape(model.init, KEY, images)))["params"]
    conv = nn.Conv(8, (4, 4), (4, 4), "VALID").apply({"params": params["Conv_0"]}, images)
    hidden: Any = conv.reshape(2, 2, 8) + params["positions"]  # pyright: ignore[reportAttributeAccessIssue]

    def normed(hidden, own) -> Any:
        return nn.LayerNorm().apply({"params": own}, hidden)

    def dense(hidden, own) -> Any:
        return hidden @ own["kernel"] + own["bias"].reshape(1, 1, -1)

    for layer in range(2):
        (blocks,) = (tree for name, tree in params.items() if "Block" in name)
        own = jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks)
        projected = dense(normed(hidden, own["LayerNorm_0"]), own["Dense_0"]).reshape(2, 2, 3, 2, 4)
        attended = nn.dot_product_attention(*(projected[:, :, i] for i in range(3))).reshape(2, 2, 8)
        hidden += dense(attended, own["Dense_1"])
        inner = nn.gelu(dense(normed(hidden, own["LayerNorm_1"]), own["Dense_2"]), approximate=False)
        hidden += dense(inner, own["Dense_3"])
    mean = normed(hidden, params["LayerNorm_0"]).mean(axis=1)
    expected = mean @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]
    np.testing.assert_allclose(apply(model, {"params": params}, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_upsampling_repeats_pixels_with_the_gradients_of_the_native_resize(factor):
    shape = (2, 7 * factor, 9 * factor, 3)
    ours, theirs = (
        in_each_form(function, IMAGES)[0]
        for function in (lambda x: upsample(x, factor), lambda x: jax.image.resize(x, shape, "nearest"))
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("factor", [2, 3])
def test_transposed_convolution_is_that_of_flax_with_its_gradients_and_parameters(factor):
    ours = ConvTranspose(4, factor)
    theirs = nn.ConvTranspose(4, (factor, factor), (factor, factor))
    assert_same(init(ours, IMAGES), init(theirs, IMAGES))
    params = {"kernel": RANDOM.normal(size=(factor, factor, 3, 4)).astype(np.float32)}
    params |= {"bias": np.arange(4, dtype=np.float32)}
    found, expected = (
        in_each_form(lambda x, p, module=module: module.apply({"params": p}, x), IMAGES, params)[0]
        for module in (ours, theirs)
    )
    assert_same(found, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_loops_is_the_native_one_with_its_gradients(masked):
    queries, keys, values = RANDOM.normal(size=(3, 2, 5, 3, 4)).astype(np.float32)
    mask = jnp.asarray(np.tril(np.ones((1, 5, 5), bool))) if masked else None
    in_loop, native = in_each_form(lambda q, k, v: attention(q, k, v, mask), queries, keys, values)
    assert_same(in_loop, native)


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3)])
def test_resnet9_learns_from_images_of_any_size(shape):
    inputs = jnp.ones((2, *shape, 3))
    model = ResNet9(4, widths=(4, 4, 4))
    variables = init(model, inputs)

    def loss(params) -> Any:
        outputs, _ = model.apply({**variables, "params": params}, inputs, train=True, mutable=["batch_stats"])
        return jnp.square(outputs - jnp.arange(4.0)[None]).sum()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert jax.tree.all(jax.tree.map(lambda leaf: np.isfinite(leaf).all(), gradients))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (CNN(3), (7,)),
        (ResNet9(3), (6, 6)),
        (CNN(3), (1, 1, 1)),
        (ResNet(3), (7,)),
        (UNet(3), (8, 8)),
        (UNet(3, depth=3), (12, 16, 1)),
        (ViT(3), (7,)),
        (ViT(3, patch=4), (8, 6, 1)),
    ],
)
def test_what_cannot_be_convolved_or_pooled_is_refused_in_a_line(model, shape):
    with pytest.raises(DataError, match=r"^model.*: got .*; expected "):
        model.init(jax.random.key(0), jnp.ones((2, *shape)))


@pytest.mark.parametrize(
    ("name", "knob", "given"),
    [("mlp", "hidden", (0,)), ("cnn", "features", (-3,)), ("resnet9", "widths", (4, 0)), ("resnet9", "widths", ())],
)
def test_widths_are_checked_before_a_model_is_made(name, knob, given):
    with pytest.raises(ConfigError, match=rf"model\.{knob}: got .*; expected a tuple of int.*, at least 1"):
        resolve(MODELS.knobs(name), {knob: given}, "model")


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize(
    ("window", "strides"), [((3, 3), (2, 2)), ((2, 2), (1, 1)), ((2, 2), (3, 3)), ((17, 17), None), ((2, 2), None)]
)
def test_of_equal_values_the_first_moves_the_pooled_one_as_in_the_native_operation(window, strides):
    """Small integers tie nearly everywhere; of a window of many places the place does not fit in a byte."""
    images = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 17, 17, 2)), jnp.float32)
    ours = jax.grad(lambda x: max_pool(x, window, strides).sum())(images)
    native = jax.grad(lambda x: nn.max_pool(x, window, strides or window).sum())(images)
    np.testing.assert_array_equal(ours, native)
