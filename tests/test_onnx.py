"""ONNX: each primitive, and each model, gives JAX's numbers in onnxruntime, whatever the number of examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import export, lax

from jaxtrain.export.to_onnx.convert import inline
from jaxtrain.export.to_onnx.graph import IR_VERSION, OPSET, Graph
from jaxtrain.export.to_onnx.layout import expand
from jaxtrain.export.to_onnx.values import held_dtype

SIZES = (1, 5)


def draw(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Returns numbers around 0, or all integers of a small range."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype) == np.bool_:
        return random.random(shape) < 0.5
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    low = 0 if np.dtype(dtype).kind == "u" else -7
    return random.integers(low, 8, shape).astype(dtype)


def converted(function: Callable[..., Any], *specs: jax.ShapeDtypeStruct) -> onnx.ModelProto:
    """Returns the model of a function whose arguments have a first axis of any length n."""
    (n,) = export.symbolic_shape("n")
    batched = [jax.ShapeDtypeStruct((n, *spec.shape[1:]), spec.dtype) for spec in specs]
    graph = Graph()
    inputs = [graph.input(f"x{i}", spec.shape, spec.dtype) for i, spec in enumerate(batched)]
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*batched)
    found = inline(graph, traced, inputs)
    outputs = []
    for i, (value, shape) in enumerate(zip(found, jax.tree.leaves(shapes), strict=True)):
        assert value.dtype == held_dtype(shape.dtype)
        outputs.append(graph.name_output(expand(graph, value, shape.shape), f"y{i}"))
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph.finish("test", outputs), ir_version=IR_VERSION, opset_imports=opset)
    onnx.checker.check_model(model, full_check=True)
    return model


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options)


def assert_equal(function: Callable[..., Any], *examples: np.ndarray, tolerance: float = 2e-6) -> onnx.ModelProto:
    """Compares a function of arrays (n, ...) with its model, for several n; the examples hold the most."""
    model = converted(function, *[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in examples])
    running = session(model.SerializeToString())
    for size in SIZES:
        given = [array[:size] for array in examples]
        names = [i.name for i in running.get_inputs()]
        found: Any = running.run(None, {name: given[int(name[1:])] for name in names})
        expected = jax.tree.leaves(jax.jit(function)(*given))
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.shape == theirs.shape
            wanted = np.asarray(theirs, held_dtype(theirs.dtype))
            assert mine.dtype == wanted.dtype
            np.testing.assert_allclose(mine, wanted, rtol=tolerance, atol=tolerance)
    return model


X = draw((5, 4, 3))
POSITIVE = np.abs(X) + 0.1
SMALL = X * 1e-4

UNARY: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    **{name: (getattr(lax, name), X) for name in ("abs", "neg", "sign", "floor", "ceil", "exp", "exp2", "tanh")},
    **{name: (getattr(lax, name), X) for name in ("sin", "cos", "sinh", "cosh", "asinh", "atan", "erf", "erfc")},
    **{name: (getattr(lax, name), X) for name in ("logistic", "square", "is_finite", "cbrt")},
    **{name: (getattr(lax, name), POSITIVE) for name in ("log", "sqrt", "rsqrt")},
    **{name: (getattr(lax, name), np.tanh(X)) for name in ("asin", "acos", "atanh", "tan")},
    "acosh": (lax.acosh, 1 + POSITIVE),
    "log1p": (lambda x: lax.log1p(x) / x, SMALL),
    "log1p of infinity": (lax.log1p, np.full((5, 1), np.inf, np.float32)),
    "expm1": (lambda x: lax.expm1(x) / x, SMALL),
    "expm1 far out": (lax.expm1, X * 200),
    "round": (jnp.round, X * 4),
    "halves away from 0": (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), np.round(X * 4) / 2),
    "halves to even": (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), np.round(X * 4) / 2),
    **{f"power {y}": (lambda x, y=y: lax.integer_pow(x, y), POSITIVE) for y in (-2, -1, 2, 3, 7)},
    "clamp": (lambda x: lax.clamp(-0.5, x, 0.7), X),
    "nan": (jnp.isnan, np.where(X > 0, np.nan, X)),
}


@pytest.mark.parametrize("name", UNARY)
def test_operations_on_single_numbers(name: str):
    function, examples = UNARY[name]
    assert_equal(function, examples.astype(np.float32), tolerance=5e-6)


BINARY = {
    **{name: getattr(lax, name) for name in ("add", "sub", "mul", "div", "max", "min", "rem", "atan2")},
    **{name: getattr(lax, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "pow": lambda x, y: lax.pow(jnp.abs(x), y),
}


@pytest.mark.parametrize("name", BINARY)
def test_operations_on_pairs_of_numbers(name: str):
    second = draw((5, 4, 3), seed=1)
    second[:, 0] = X[:, 0]
    assert_equal(BINARY[name], X, second, tolerance=5e-6)
    if name not in ("pow", "atan2"):
        assert_equal(BINARY[name], draw((5, 6), np.int32), draw((5, 6), np.int32, 1) | 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32, np.uint16])
def test_integers_wrap_around_as_those_of_jax(dtype: Any):
    first = draw((5, 6), dtype)
    second = draw((5, 6), dtype, 1) + np.asarray(3, dtype)
    assert_equal(lambda x, y: (x + y, x - y, x * y, lax.max(x, y), x < y, x & y, x ^ ~y), first, second)
    assert_equal(lambda x: x.astype(jnp.float32) / 255, first)


def test_truth_values():
    first, second = draw((5, 6), np.bool_), draw((5, 6), np.bool_, 1)
    assert_equal(lambda x, y: (x & y, x | y, x ^ y, ~x, x == y, x.any(axis=1), x.all(axis=0)), first, second)
    assert_equal(lambda x: (x.astype(int), x.sum(axis=1), jnp.where(x, x, ~x)), first)
    assert_equal(
        lambda x: (x.astype(bool), lax.select_n(x % 3, x, x + 1, x * 2)), draw((5, 6), np.uint8).astype(np.int32)
    )


def test_types_that_runtimes_lack_are_float32():
    assert_equal(lambda x: jnp.exp(x.astype(jnp.bfloat16)).astype(jnp.float32), X, tolerance=2e-2)


REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: (x.sum(axis=1), x.sum(axis=(1, 2)), x.sum(), x.sum(axis=0, keepdims=True)),
    "product": lambda x: x.prod(axis=2),
    "extremes": lambda x: (x.max(axis=1), x.min(axis=(1, 2)), x.max()),
    "places": lambda x: (x.argmax(axis=1), x.argmin(axis=2)),
    "mean over the examples": lambda x: x - x.mean(axis=0, keepdims=True),
    "running": lambda x: (jnp.cumsum(x, axis=1), lax.cumsum(x, axis=2, reverse=True)),
    "other running": lambda x: (
        lax.cummax(x, axis=1),
        lax.cummin(x, 2, True),
        lax.cumprod(x, 2),
        lax.cumlogsumexp(x, 1),
    ),
    "sorted": lambda x: (jnp.sort(x, axis=1), jnp.argsort(x, axis=2), -jnp.sort(-x, axis=2)),
    "largest": lambda x: lax.top_k(x, 2),
    "deviation": lambda x: (x.std(axis=2), jax.nn.logsumexp(x, axis=1), jax.nn.softmax(x, axis=2)),
    "median": lambda x: jnp.median(x, axis=1),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str):
    assert_equal(REDUCTIONS[name], X, tolerance=5e-6)


def test_a_picture_of_one_value_has_its_mean_however_many_pixels_it_has():
    """Else rounding, divided by a deviation that should be 0, becomes a picture."""
    constant = np.full((5, 96, 96, 1), 3.3370237, np.float32)

    def centre(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        row = x.reshape(-1, 9216)
        return x - x.mean(axis=(1, 2), keepdims=True), row - row.mean(axis=1, keepdims=True)

    model = converted(centre, jax.ShapeDtypeStruct(constant.shape, constant.dtype))
    for found in session(model.SerializeToString()).run(None, {"x0": constant}):
        assert np.abs(np.asarray(found)).max() == 0.0


W = draw((3, 6), seed=2)
PLACES: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda x: (x.reshape(-1, 12), x.reshape(-1), x.reshape(x.shape[0], 2, 2, 3), x[:, None], x[..., None]),
    "transpose": lambda x: (x.transpose(2, 0, 1), x.swapaxes(0, 1).reshape(4, -1)),
    "repeated": lambda x: (jnp.tile(x, (1, 2, 1)), jnp.repeat(x, 2, axis=1), jnp.broadcast_to(x[:, :1], x.shape)),
    "joined": lambda x: (
        jnp.concatenate([x, x[:, :1], x[:, :0]], axis=1),
        jnp.stack([x, -x], axis=1),
        jnp.vstack([x, x]),
    ),
    "cut": lambda x: (x[:, 1:3], x[:, ::2], x[:, ::-1], x[:, :, 1], x[..., -1], jnp.split(x, [1, 3], axis=1)),
    "all but the first": lambda x: jnp.concatenate([x, x])[1 : x.shape[0] + 1],
    "padded": lambda x: lax.pad(x, 2.0, ((0, 0, 0), (1, 2, 1), (-1, 1, 2))),
    "counted": lambda x: (
        jnp.arange(x.shape[0]) * 2,
        jnp.arange(x.shape[0], dtype=float)[:, None] + x[:, :, 0],
        x * jnp.arange(3.0)[None, None],
    ),
    "as long as the examples": lambda x: (
        jnp.zeros(x.shape[0]),
        jnp.full((x.shape[0], 2), 3),
        jnp.eye(3)[None] + x[:, :3],
    ),
    "rolled": lambda x: (jnp.roll(x, 1, axis=1), jnp.flip(x, axis=2), jnp.moveaxis(x, 1, 2)),
    "where": lambda x: (
        jnp.where(x > 0, x, 0.0),
        jnp.where(x[:, :1] > 0, x, -x),
        jnp.select([x > 1, x > 0], [x, -x], 0.5),
    ),
    "triangle": lambda x: jnp.tril(x) + jnp.triu(jnp.ones((4, 3)))[None],
}


@pytest.mark.parametrize("name", PLACES)
def test_numbers_that_move(name: str):
    assert_equal(PLACES[name], X)


TABLE = draw((9, 5), seed=3)
CODES = np.random.default_rng(4).integers(0, 9, (5, 4)).astype(np.int32)
INDEXED: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "rows of a table": (lambda i: jnp.asarray(TABLE)[i], (CODES,)),
    "columns of a table": (lambda i: jnp.asarray(TABLE)[:, i % 5], (CODES,)),
    "single numbers": (lambda i: jnp.asarray(TABLE)[i, i % 5], (CODES,)),
    "with an axis between": (lambda i: jnp.asarray(TABLE).reshape(9, 5, 1)[i, :, i * 0], (CODES,)),
    "one of each row": (lambda x, i: jnp.take_along_axis(x, i[:, None] % 4, axis=1), (X, CODES[:, :3])),
    "several of each row": (lambda x, i: jnp.take_along_axis(x[:, :, 0], i % 4, axis=1), (X, CODES)),
    "outside are nan": (lambda i: jnp.take(jnp.asarray(TABLE), i - 4, axis=0, mode="fill"), (CODES,)),
    "outside are moved inside": (lambda i: jnp.take(jnp.asarray(TABLE), i * 2, axis=1, mode="clip"), (CODES,)),
    "integers outside": (lambda x, i: jnp.take(x, i, axis=1, mode="fill"), (draw((5, 6), np.int32), CODES[:, 0])),
    "a window at a computed place": (
        lambda x, i: jax.vmap(lambda row, start: lax.dynamic_slice(row, (start, 0), (2, 3)))(x, i[:, 0]),
        (X, CODES),
    ),
    "a part of all": (lambda x, i: lax.dynamic_slice_in_dim(x, i[0, 0], 2, axis=1), (X, CODES)),
    "a known part": (lambda x: (x[:, 2], x[:, jnp.array([0, 2])], lax.dynamic_index_in_dim(x, 1, 1)), (X,)),
    "a written part": (
        lambda x, i: lax.dynamic_update_slice(x, -x[:, :2, :1], (0, i[0, 0] % 4, i[0, 1] % 3)),
        (X, CODES),
    ),
    "written columns": (
        lambda x: (x.at[:, 1].set(0.0), x.at[:, :, 0].add(2.0), x.at[:, jnp.array([0, 3])].mul(3.0)),
        (X,),
    ),
    "written at computed places": (
        lambda i: jnp.zeros((9, 3)).at[i[:, 0]].add(1.0) + jnp.zeros((9, 3)).at[i[:, 1] + 5].max(1.0),
        (CODES,),
    ),
    "one-hot": (lambda i: (jax.nn.one_hot(i, 9), jnp.zeros((9, 4)).at[i, jnp.arange(4)[None]].set(1.0)), (CODES,)),
    "searched": (lambda x: jnp.searchsorted(jnp.linspace(-1.0, 1.0, 7), x), (X,)),
    "interpolated": (lambda x: jnp.interp(x, jnp.linspace(-1.0, 1.0, 7), jnp.arange(7.0) ** 2), (X,)),
}


@pytest.mark.parametrize("name", INDEXED)
def test_numbers_at_computed_places(name: str):
    function, examples = INDEXED[name]
    assert_equal(function, *examples)


PRODUCTS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda x: (x @ W, W.T @ x.transpose(0, 2, 1), x.reshape(-1, 12) @ jnp.ones((12,)), x[:, 0] @ W),
    "of the examples": lambda x: (jnp.einsum("nij,nkj->nik", x, x), jnp.einsum("nij,nij->n", x, x), x.T @ x[:, :, 0]),
    "of several axes": lambda x: (
        jnp.einsum("nij,ijk->nk", x, jnp.ones((4, 3, 2))),
        jnp.tensordot(x, W.T, ((2,), (1,))),
    ),
    "heads": lambda x: jnp.einsum("nihd,njhd->nhij", x.reshape(-1, 2, 2, 3), x.reshape(-1, 2, 2, 3)),
    "outer": lambda x: (
        jnp.einsum("ni,nj->nij", x[:, 0], x[:, 1]),
        jnp.outer(jnp.arange(3.0), jnp.arange(2.0))[None] + x[:, :3, :2],
    ),
    "integers": lambda x: x.astype(jnp.int32).reshape(-1, 12) @ jnp.ones((12, 2), jnp.int32),
    "attention": lambda x: jax.nn.dot_product_attention(*[x.reshape(-1, 2, 2, 3)] * 3, is_causal=True),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str):
    assert_equal(PRODUCTS[name], X, tolerance=5e-6)


IMAGES = draw((5, 9, 7, 4), seed=5)
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strides": {"window_strides": (2, 3), "padding": "VALID"},
    "pads": {"padding": ((1, 2), (3, 0))},
    "pads that cut": {"padding": ((-1, 2), (0, -2))},
    "dilated": {"rhs_dilation": (2, 1)},
    "transposed": {"lhs_dilation": (2, 3), "padding": ((2, 1), (1, 1))},
    "groups": {"feature_group_count": 2},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str):
    options = {"window_strides": (1, 1), "padding": "SAME", **CONVOLUTIONS[name]}
    groups = options.get("feature_group_count", 1)
    kernel = jnp.asarray(draw((3, 2, 4 // groups, 6), seed=6))
    layout = ("NHWC", "HWIO", "NHWC")
    assert_equal(
        lambda x: lax.conv_general_dilated(x, kernel, dimension_numbers=layout, **options), IMAGES, tolerance=1e-5
    )


def test_convolutions_of_other_layouts_and_ranks():
    assert_equal(
        lambda x: lax.conv_general_dilated(x.reshape(-1, 28, 9), jnp.asarray(draw((5, 28, 3))), (2,), "SAME"),
        IMAGES,
        tolerance=1e-5,
    )
    assert_equal(
        lambda x: lax.conv_transpose(x, jnp.asarray(draw((2, 2, 4, 3))), (2, 2), "SAME"), IMAGES, tolerance=1e-5
    )


def test_pooling():
    windows = ((1, 3, 2, 1), (1, 2, 2, 1))
    for reducer, begin in ((lax.max, -jnp.inf), (lax.min, jnp.inf), (lax.add, 0.0)):
        for padding in ("VALID", "SAME"):
            assert_equal(
                lambda x, r=reducer, b=begin, p=padding: lax.reduce_window(x, b, r, *windows, p), IMAGES, tolerance=5e-6
            )
    assert_equal(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3), (1, 1, 2), "SAME"), X)


def test_resized_pictures():
    for method in ("nearest", "linear", "cubic"):
        assert_equal(lambda x, m=method: jax.image.resize(x, (x.shape[0], 5, 11, 4), m), IMAGES, tolerance=1e-5)


def halve(x: jax.Array) -> jax.Array:
    """Halves numbers until all are small: a loop whose steps depend on them."""
    return lax.while_loop(lambda held: jnp.abs(held[0]).max() > held[1], lambda held: (held[0] / 2, held[1]), (x, 0.3))[
        0
    ]


CALLS: dict[str, Callable[[Any], Any]] = {
    "scan": lambda x: lax.scan(lambda c, w: (jnp.tanh(c @ w), c.sum(axis=1)), x[:, :, 0], draw((3, 4, 4))),
    "scan of the inputs": lambda x: lax.scan(
        lambda c, row: (c + row, c * row), jnp.zeros(x[:, 0].shape), x.swapaxes(0, 1), reverse=True
    ),
    "fori": lambda x: lax.fori_loop(0, 4, lambda i, held: held + i * x, x),
    "while": halve,
    "branch": lambda x: lax.cond(x.sum() > 0, jnp.sin, lambda x: x * 2, x),
    "switch": lambda x: lax.switch(jnp.int32(x.sum()), [jnp.sin, jnp.cos, jnp.tanh], x),
    "platform": lambda x: lax.platform_dependent(x, tpu=jnp.sin, default=jnp.cos),
    "remat": lambda x: jax.checkpoint(lambda x: jnp.sin(x) * 2)(x),
    "custom": lambda x: (
        jax.nn.relu(x),
        jax.nn.silu(x),
        jax.nn.gelu(x),
        jax.nn.softplus(x),
        jax.nn.elu(x),
        jax.nn.relu6(x),
    ),
    "barrier": lambda x: lax.optimization_barrier((x, -x)),
    "vmap": lambda x: jax.vmap(lambda row: row @ row.T)(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_programs_inside_programs(name: str):
    assert_equal(CALLS[name], X, tolerance=5e-6)
