"""A graph of ONNX that grows by one operation at a time; operations on known values are done at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from jaxtrain.export.to_onnx.values import Dimension, NoFormError, Shape, Value, is_static, linear_form

OPSET = 18
"""Version of the operations: runtimes since 2023 have them."""

IR_VERSION = 8
"""Version of the file, of the same time."""

UNNAMED = "constant"
"""The name of known values that are no weights."""

Operand = Value | None


class Spec(NamedTuple):
    """Shape and type of a result."""

    shape: Shape
    dtype: np.dtype


class Graph:
    """Nodes and initializers of a graph, and the names of its values."""

    def __init__(self, parent: "Graph | None" = None) -> None:
        """Makes an empty graph; one inside another, as the body of a loop, sees the values of that."""
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[Value] = []
        self.layer = parent.layer if parent else ""
        self.place = parent.place if parent else ""
        self._names: dict[str, int] = parent._names if parent else {}  # and the last number of each
        self._parent = parent
        self._initializers: dict[Any, Value] = {}  # weights by themselves, other numbers by their content
        self._sizes: dict[tuple[int, int], Value] = {}

    def input(self, name: str, shape: Shape, dtype: Any) -> Value:
        """Adds an input."""
        value = Value(self._unused(name), shape, np.dtype(dtype))
        self.inputs.append(value)
        return value

    def constant(self, content: Any, dtype: Any = None, name: str = UNNAMED) -> Value:
        """Returns a known value, which becomes an initializer of this name once an operation needs it."""
        array = np.asarray(content, dtype)
        return Value(name, array.shape, array.dtype, array)

    def integers(self, content: Any) -> Value:
        """Returns a known value of int64, as shapes and axes are given."""
        return self.constant(content, np.int64)

    def add(self, operation: str, *operands: Operand, result: Spec, at_once: bool = True, **attributes: Any) -> Value:
        """Adds an operation of one result."""
        (value,) = self.add_several(operation, *operands, results=[result], at_once=at_once, **attributes)
        return value

    def add_several(
        self, operation: str, *operands: Operand, results: Sequence[Spec], at_once: bool = True, **attributes: Any
    ) -> list[Value]:
        """Adds an operation; its results are known where its operands are, unless not `at_once`."""
        if at_once and all(operand is None or operand.is_known for operand in operands):
            return self._evaluate(operation, operands, len(results), attributes)
        given = [self.name_of(operand) if operand else "" for operand in operands]
        names = [self._unused("value") for _ in results]
        place = self._unused(f"{self.layer}/{operation}" if self.layer else operation)
        self.nodes.append(helper.make_node(operation, given, names, name=place, **attributes))
        return [Value(name, spec.shape, np.dtype(spec.dtype)) for name, spec in zip(names, results, strict=True)]

    def output(self, value: Value) -> Value:
        """Adds an operation that gives a result of the graph a name of its own, as ONNX asks."""
        name = self._unused("result")
        self.nodes.append(helper.make_node("Identity", [self.name_of(value)], [name]))
        return Value(name, value.shape, value.dtype)

    def name_output(self, value: Value, name: str) -> onnx.ValueInfoProto:
        """Gives a value the name of an output of the graph, which it describes."""
        self._names.setdefault(name, 0)
        self.nodes.append(helper.make_node("Identity", [self.name_of(value)], [name], name=f"output/{name}"))
        return describe_value(name, value)

    def name_of(self, value: Value) -> str:
        """Returns the name under which operations find a value; a known one becomes an initializer."""
        if value.content is None:
            if value.is_empty:
                raise NoFormError("an array without numbers")
            return value.name
        if self._parent:
            return self._parent.name_of(value)
        key = value if value.name != UNNAMED else (value.content.dtype, value.shape, value.content.tobytes())
        if key not in self._initializers:
            self._initializers[key] = Value(self._unused(value.name), value.shape, value.dtype, value.content)
        return self._initializers[key].name

    def sizes(self, shape: Iterable[Dimension]) -> Value:
        """Returns dimensions as a vector of int64, computed from the number of examples where they depend on it."""
        dimensions = tuple(shape)
        if is_static(dimensions):
            return self.integers([int(dimension) for dimension in dimensions])
        parts = [self._size(*linear_form(dimension)) for dimension in dimensions]
        return self.add("Concat", *parts, result=Spec((len(parts),), np.dtype(np.int64)), axis=0)

    def _size(self, slope: int, offset: int) -> Value:
        """Returns slope * n + offset as a vector of one number."""
        if self._parent:
            return self._parent._size(slope, offset)
        if slope == 0:
            return self.integers([offset])
        if (slope, offset) not in self._sizes:
            one = Spec((1,), np.dtype(np.int64))
            scaled = self.add("Mul", self._examples(), self.integers([slope]), result=one)
            self._sizes[slope, offset] = self.add("Add", scaled, self.integers([offset]), result=one)
        return self._sizes[slope, offset]

    def _examples(self) -> Value:
        """Returns the number of examples as a vector of one number: the length of the first axis of the inputs."""
        first = self.inputs[0]
        return self.add("Shape", first, result=Spec((1,), np.dtype(np.int64)), start=0, end=1)

    def _evaluate(self, operation: str, operands: Sequence[Operand], results: int, attributes: Any) -> list[Value]:
        """Computes the results of an operation on known values; they take the name of the first that has one."""
        given = {f"input{i}": operand.content for i, operand in enumerate(operands) if operand}
        names = [f"input{i}" if operand else "" for i, operand in enumerate(operands)]
        node = helper.make_node(operation, names, [f"output{i}" for i in range(results)], **attributes)
        named = (operand.name for operand in operands if operand and operand.name != UNNAMED)
        name = next(named, UNNAMED)
        return [
            self.constant(found, name=name) for found in ReferenceEvaluator(_model_of(node, given)).run(None, given)
        ]

    def _unused(self, name: str) -> str:
        """Returns the name, with a number where it is taken, and takes it."""
        candidate = name
        while candidate in self._names:
            self._names[name] += 1
            candidate = f"{name}_{self._names[name]}"
        self._names[candidate] = 0
        return candidate

    def finish(self, name: str, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
        """Returns the graph with these outputs."""
        initializers = [
            numpy_helper.from_array(np.ascontiguousarray(value.content).reshape(value.shape), value.name)
            for value in self._initializers.values()
        ]
        inputs = [describe_value(value.name, value) for value in self.inputs]
        return helper.make_graph(self.nodes, name, inputs, outputs, initializers)


def describe_value(name: str, value: Value) -> onnx.ValueInfoProto:
    """Returns name, type and shape of an input or output."""
    shape = [str(dimension) if not is_static([dimension]) else int(dimension) for dimension in value.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _model_of(node: onnx.NodeProto, given: Mapping[str, Any]) -> onnx.ModelProto:
    """Returns a model of one operation on arrays."""
    inputs = [_describe_array(name, array) for name, array in given.items()]
    graph = helper.make_graph([node], "known", inputs, [onnx.ValueInfoProto(name=name) for name in node.output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def _describe_array(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
