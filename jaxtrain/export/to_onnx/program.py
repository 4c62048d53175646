"""The program of a run's predictions as a model of ONNX."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from onnx import helper

from jaxtrain.core.trees import named_leaves
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import UsageError, Words
from jaxtrain.export.loading import inputs_of
from jaxtrain.export.outputs import head_of, restores_on_host
from jaxtrain.export.program import Member, batched, prefixes_of, program_of
from jaxtrain.export.stored_weights import Quantized
from jaxtrain.export.to_onnx.convert import inline, without_unused
from jaxtrain.export.to_onnx.graph import IR_VERSION, OPSET, Graph, Spec
from jaxtrain.export.to_onnx.layout import cast, elementwise, expand
from jaxtrain.export.to_onnx.names import REMAINDER, name_outputs
from jaxtrain.export.to_onnx.values import Value, held_dtype
from jaxtrain.training.trained_run import Run

MOST_BYTES = 2**31 - 1
"""The largest size of a file of protocol buffers."""


def onnx_program(run: Run, members: Mapping[int, Member]) -> bytes:
    """Returns the model for any number of examples, weights inside; `members` by their seeds, `run` is the first.

    Inputs and outputs have the names of `model.jaxexp`, but for an output with the name of an input. Where that takes a
    value and its remainder, this takes float64, and numbers that leave that standardised leave this in their own units,
    as float64.

    Raises UsageError for an operation without a form in ONNX, which it names, and for more than 2 GB.
    """
    _demand_size(members)
    inputs = inputs_of(run.info)
    specs = batched(inputs)
    graph = Graph()
    arguments = _take_inputs(graph, specs)
    head = head_of(run.config["task"]["name"], run.info)
    weights = [_weights(member.plain()) for member in members.values()]

    def program(weights: Sequence[Any], arguments: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        own = [_with_weights(member, arrays) for member, arrays in zip(members.values(), weights, strict=True)]
        return program_of(inputs, own, head)(**arguments)

    traced, results = jax.make_jaxpr(program, return_shape=True)(jax.tree.map(_spec_of, weights), specs)
    traced = without_unused(traced)
    operands = [*_constants(graph, members), *(arguments[name] for name in sorted(specs))]
    outputs = dict(zip(sorted(results), inline(graph, traced, operands), strict=True))
    shapes = {name: tuple(result.shape) for name, result in results.items()}
    names = name_outputs(results, specs)
    given = {name: _in_own_units(graph, name, expand(graph, outputs[name], shapes[name]), run.info) for name in names}
    described = [graph.name_output(given[name], own) for name, own in names.items()]
    model = helper.make_model(
        graph.finish(run.config["model"]["name"], described),
        producer_name="jaxtrain",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, {"task": run.config["task"]["name"], "class_names": json.dumps(run.class_names)})
    return model.SerializeToString(deterministic=True)


def _demand_size(members: Mapping[int, Member]) -> None:
    """Raises UsageError for weights that no file of protocol buffers holds."""
    size = sum(array.nbytes for member in members.values() for array in member.arrays.values())
    if size > MOST_BYTES:
        got = Words(f"onnx for a model of {size:,} bytes")
        raise UsageError("--format", got, f"at most {MOST_BYTES:,}, the size of its files", "Leave onnx out")


def _take_inputs(graph: Graph, specs: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Value]:
    """Adds the inputs; returns the arguments of the program, of which some are parts of float64."""
    arguments = {}
    for name, spec in specs.items():
        if name.endswith(REMAINDER):
            continue
        parts = name + REMAINDER in specs
        given = graph.input(name, spec.shape, np.float64 if parts else spec.dtype)
        arguments[name] = cast(graph, given, spec.dtype)
        if parts:
            arguments[name + REMAINDER] = _remainder(graph, given, arguments[name])
    return arguments


def _remainder(graph: Graph, number: Value, value: Value) -> Value:
    """Returns what float32 does not hold of float64 numbers; 0 for what is no number, or too large for float32."""
    rest = elementwise(graph, "Sub", number, cast(graph, value, np.float64))
    is_nan = elementwise(graph, "IsNaN", value, dtype=np.bool_)
    is_infinite = elementwise(graph, "IsInf", value, dtype=np.bool_)
    is_none = elementwise(graph, "Or", is_nan, is_infinite)
    zero = graph.constant(0.0, np.float32)
    return elementwise(graph, "Where", is_none, zero, cast(graph, rest, np.float32), dtype=np.float32)


def _weights(member: Member) -> dict[str, Any]:
    return {"params": member.params, **member.model_state}


def _with_weights(member: Member, arrays: Mapping[str, Any]) -> Member:
    """Returns a member that predicts with other arrays."""
    state = {name: arrays[name] for name in member.model_state}
    return replace(member, params=arrays["params"], model_state=state)


def _spec_of(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype)


def _constants(graph: Graph, members: Mapping[int, Member]) -> list[Value]:
    """Returns the weights under their paths in `weights.safetensors`, in the order of the leaves."""
    return [
        _restored(graph, leaf, prefix + path)
        for prefix, member in zip(prefixes_of(members), members.values(), strict=True)
        for path, leaf in named_leaves(_weights(member))
    ]


def _restored(graph: Graph, leaf: Any, name: str) -> Value:
    """Returns a weight; one that is stored in fewer bytes becomes float32 where the model is loaded.

    Integers are multiplied by their scale. Runtimes take DequantizeLinear as leave to round activations, too.
    """
    if not isinstance(leaf, Quantized):
        return _as_float(graph, graph.constant(np.asarray(leaf), name=name))
    values = _as_float(graph, graph.constant(leaf.values, name=name), np.dtype(np.float32))
    scale = graph.constant(leaf.scale, name=f"{name}_scale")
    return graph.add("Mul", values, scale, result=Spec(values.shape, values.dtype), at_once=False)


def _as_float(graph: Graph, stored: Value, dtype: np.dtype | None = None) -> Value:
    """Returns stored numbers in the type that the graph holds for them, converted where the model is loaded."""
    held = dtype or held_dtype(stored.dtype)
    if held == stored.dtype:
        return stored
    to = helper.np_dtype_to_tensor_dtype(held)
    return graph.add("Cast", stored, result=Spec(stored.shape, held), at_once=False, to=to)


def _in_own_units(graph: Graph, name: str, value: Value, info: DataInfo) -> Value:
    """Returns an output; numbers that float32 cannot hold in their own units are brought to these as float64."""
    graph.layer = ""
    if name != "numbers" or not restores_on_host(info):
        return value
    shape = (1, *info.target_shape)
    statistics = (info.target_std, info.target_mean)
    scale, offset = (graph.constant(np.reshape(numbers, shape), np.float64) for numbers in statistics)
    return elementwise(graph, "Add", elementwise(graph, "Mul", cast(graph, value, np.float64), scale), offset)
