"""Requests and responses of inference by the Open Inference Protocol v2, in JSON and with its binary extension.

The binary extension: a header `Inference-Header-Content-Length` says how many bytes of JSON come first; the data of
tensors with a parameter `binary_data_size` follow, in the order of the tensors.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.files import as_json_value
from jaxtrain.serve.fields import Fields
from jaxtrain.serve.interface import Interface
from jaxtrain.serve.refusal import Refusal, bad_request
from jaxtrain.serve.strict_json import read_object
from jaxtrain.serve.tensors import TensorSpec, from_bytes, from_json, to_bytes

HEADER_LENGTH = "inference-header-content-length"

MOST_ROWS = 2**14
"""Examples in a request."""

MOST_VALUES = 2**24
"""Numbers that the program may make for a request, 64 MiB: small inputs may have large outputs."""

MOST_WRITTEN = 2**22
"""Numbers in an answer in JSON, where each takes about 50 bytes of memory until it is sent."""

LONGEST_TIMEOUT = 10**12
"""Microseconds that a client may grant; what is more is as good as this."""


@dataclass(frozen=True)
class InferenceRequest:
    """A request that was checked: tensors (rows, ...) by name, and the outputs that the client wants.

    `outputs` are the names of the outputs, and whether each is wanted in binary. `seconds` is the time that the client
    grants, None for any.
    """

    tensors: Mapping[str, np.ndarray]
    rows: int
    outputs: Mapping[str, bool]
    id: str | None
    seconds: float | None


def read_request(body: bytes, header_length: str | None, interface: Interface) -> InferenceRequest:
    """Returns the request in a body; raises Refusal for one that is not of the protocol, or not for this model."""
    head, binary = _split(body, header_length)
    fields = Fields(read_object(head), "request")
    fields.demand_known("id", "parameters", "inputs", "outputs")
    parameters = Fields(fields.get("parameters", dict, {}), "parameters")
    parameters.demand_known("binary_data_output", "timeout", "priority")
    tensors = _read_tensors(fields.objects("inputs"), binary, interface)
    in_binary = parameters.get("binary_data_output", bool, False)
    chosen = fields.objects("outputs") if "outputs" in fields else []
    outputs = _read_outputs(chosen, in_binary, interface) or {name: in_binary for name in interface.outputs}
    rows = _count_rows(tensors)
    _demand_small_answer(rows, outputs, interface)
    return InferenceRequest(tensors, rows, outputs, fields.identity(), _read_seconds(parameters))


def write_response(
    outputs: Mapping[str, np.ndarray], request: InferenceRequest, interface: Interface, about: Mapping[str, Any]
) -> tuple[dict[str, str], bytes]:
    """Returns headers and body of an answer; `about` are its fields on the model."""
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, in_binary in request.outputs.items():
        spec = interface.outputs[name]
        described.append({"name": name, "datatype": spec.datatype, "shape": list(outputs[name].shape)})
        if in_binary:
            parts.append(to_bytes(outputs[name]))
            described[-1]["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            described[-1]["data"] = outputs[name].ravel().tolist()
    identity = {} if request.id is None else {"id": request.id}
    head = _to_json({**about, **identity, "outputs": described})
    if not parts:
        return {"content-type": "application/json"}, head
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return headers, b"".join([head, *parts])


def _to_json(value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # a model may overflow; JSON has no number for that
        return json.dumps(as_json_value(dict(value)), separators=(",", ":")).encode()


def _split(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """Returns the JSON and the binary data of a body."""
    whole = memoryview(body)
    if header_length is None:
        return whole, whole[:0]
    is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
    if not is_number or int(header_length) > len(body):
        raise bad_request(HEADER_LENGTH, "a length that does not fit", "the bytes of JSON at the begin of the body")
    return whole[: int(header_length)], whole[int(header_length) :]


def _read_tensors(inputs: Sequence[Any], binary: memoryview, interface: Interface) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for given in inputs:
        fields = Fields(given, "input")
        fields.demand_known("name", "datatype", "shape", "data", "parameters")
        spec = _spec_of(fields, interface.inputs, "inputs")
        if spec.name in tensors:
            raise bad_request("inputs", f"{spec.name!r} twice", "each input once")
        tensors[spec.name], binary = _read_tensor(fields, spec, binary)
    if missing := [name for name in interface.inputs if name not in tensors]:
        raise bad_request("inputs", f"none for {', '.join(map(repr, missing))}", "all inputs of the model")
    if binary:
        raise bad_request("body", "bytes behind those of the inputs", "as many as `binary_data_size` declares")
    return tensors


def _spec_of(fields: Fields, specs: Mapping[str, TensorSpec], key: str) -> TensorSpec:
    name = fields.get("name", str)
    if name not in specs:
        raise bad_request(key, "a name that the model does not have", f"names among {', '.join(map(repr, specs))}")
    return specs[name]


def _read_tensor(fields: Fields, spec: TensorSpec, binary: memoryview) -> tuple[np.ndarray, memoryview]:
    """Returns a tensor, and the binary data that are left for those after it."""
    datatype = fields.get("datatype", str)
    if datatype != spec.datatype:
        raise bad_request(f"datatype of {spec.name!r}", "another type", spec.datatype)
    shape = _read_shape(fields, spec)
    parameters = Fields(fields.get("parameters", dict, {}), f"parameters of {spec.name!r}")
    parameters.demand_known("binary_data_size")
    if "binary_data_size" not in parameters:
        if "data" not in fields:
            raise bad_request(f"data of {spec.name!r}", "nothing", "a list of values, or `binary_data_size`")
        return from_json(fields.get("data", list), spec, shape), binary
    size = parameters.get("binary_data_size", int)
    if "data" in fields or not 0 <= size <= len(binary):
        got = "both JSON and binary" if "data" in fields else "a size that the body does not hold"
        raise bad_request(f"data of {spec.name!r}", got, "as many bytes as `binary_data_size` declares")
    return from_bytes(binary[:size], spec, shape), binary[size:]


def _read_shape(fields: Fields, spec: TensorSpec) -> tuple[int, ...]:
    shape = fields.get("shape", list)
    fits = len(shape) == 1 + len(spec.shape) and set(map(type, shape)) == {int}
    if not fits or tuple(shape[1:]) != spec.shape or shape[0] < 1:
        expected = f"[n, {', '.join(map(str, spec.shape))}]" if spec.shape else "[n]"
        raise bad_request(f"shape of {spec.name!r}", "another one", f"{expected} with n from 1")
    if shape[0] > MOST_ROWS:
        key = f"shape of {spec.name!r}"
        raise Refusal(413, key, "more examples", f"at most {MOST_ROWS} in a request", "Send several requests")
    return tuple(shape)


def _count_rows(tensors: Mapping[str, np.ndarray]) -> int:
    counts = {len(tensor) for tensor in tensors.values()}
    if len(counts) > 1:
        raise bad_request("inputs", "different numbers of examples", "one number for all inputs")
    return counts.pop()


def _demand_small_answer(rows: int, outputs: Mapping[str, bool], interface: Interface) -> None:
    """Raises Refusal for more examples than those whose outputs fit the limits; one example is never too many."""
    values = {name: math.prod(spec.shape) for name, spec in interface.outputs.items()}
    most = _most_rows(MOST_VALUES, sum(values.values()))  # the program makes those, too, that nobody asks for
    most_written = _most_rows(MOST_WRITTEN, sum(values[name] for name, in_binary in outputs.items() if not in_binary))
    if rows > min(most, most_written):
        hint = "Send several requests" if most <= most_written else "Send several requests, or ask for binary data"
        raise Refusal(413, "outputs", "more numbers", f"those of at most {min(most, most_written)} examples", hint)


def _most_rows(limit: int, values: int) -> int:
    return max(1, limit // max(1, values))


def _read_outputs(chosen: Sequence[Any], in_binary: bool, interface: Interface) -> dict[str, bool]:
    outputs: dict[str, bool] = {}
    for given in chosen:
        fields = Fields(given, "output")
        fields.demand_known("name", "parameters")
        spec = _spec_of(fields, interface.outputs, "outputs")
        parameters = Fields(fields.get("parameters", dict, {}), f"parameters of {spec.name!r}")
        parameters.demand_known("binary_data")
        outputs[spec.name] = parameters.get("binary_data", bool, in_binary)
    return outputs


def _read_seconds(parameters: Fields) -> float | None:
    """Returns the parameter `timeout`, which counts microseconds."""
    if "timeout" not in parameters:
        return None
    microseconds = parameters.get("timeout", int)
    if microseconds < 0:
        raise bad_request("timeout", "a negative time", "microseconds, 0 for any")
    return min(microseconds, LONGEST_TIMEOUT) / 1e6 if microseconds else None
