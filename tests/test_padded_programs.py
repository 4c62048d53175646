"""Padded programs: any number of examples, few compilations, the same bits whatever stands beside an example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxtrain.export.padded import PaddedProgram
from jaxtrain.parallel.compilation import count_compilations

SIZES = (1, 4, 16)
WEIGHTS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def program(given: jax.Array, more: jax.Array) -> dict[str, jax.Array]:
    outputs = jnp.tanh(given) @ WEIGHTS
    return {"sum": outputs + more[:, None].astype(jnp.float32), "place": jnp.argmax(outputs, axis=1)}


@pytest.fixture(scope="module")
def exported() -> export.Exported:
    (count,) = export.symbolic_shape("n")
    specs = {
        "given": jax.ShapeDtypeStruct((count, 5), jnp.float32),
        "more": jax.ShapeDtypeStruct((count,), jnp.int32),
    }
    return export.export(jax.jit(program))(**specs)


@pytest.fixture(scope="module")
def padded(exported: export.Exported) -> PaddedProgram:
    return PaddedProgram(exported, SIZES)


def rows(count: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(count)
    given = draw.normal(size=(count, 5)).astype(np.float32)
    return {"given": given, "more": draw.integers(9, size=count, dtype=np.int32)}


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 16, 17, 40])
def test_any_number_of_examples_has_its_outputs_after_as_many_compilations_as_sizes(padded: PaddedProgram, count: int):
    given = rows(count)
    found = padded(given)
    expected = np.tanh(given["given"]) @ WEIGHTS
    np.testing.assert_allclose(found["sum"], expected + given["more"][:, None], atol=1e-5)
    assert found["place"].tolist() == expected.argmax(axis=1).tolist()
    assert padded.compilations <= len(SIZES)


def test_sizes_are_compiled_when_first_needed_or_ahead(exported: export.Exported):
    padded = PaddedProgram(exported, SIZES)
    with count_compilations() as made:
        padded(rows(3))
        padded(rows(4))
    assert made.count == padded.compilations == 1
    with count_compilations() as made:
        padded.compile_all()
        padded(rows(40))
    assert made.count == len(SIZES) - 1
    assert padded.compilations == len(SIZES)


def test_neighbours_change_no_bit(padded: PaddedProgram):
    given = rows(16)
    alone = padded({name: array[:5] for name, array in given.items()})
    np.testing.assert_array_equal(alone["sum"], padded(given)["sum"][:5])


def test_arguments_are_those_of_the_program(padded: PaddedProgram):
    assert padded.specs["given"] == jax.ShapeDtypeStruct((5,), jnp.float32)
    given = rows(3)
    for wrong in ({"given": given["given"]}, {**given, "more": given["more"].astype(np.int8)}):
        with pytest.raises(TypeError):
            padded(wrong)
    with pytest.raises(TypeError):
        padded({**given, "given": given["given"][:, :4]})
