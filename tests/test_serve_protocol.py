"""Requests of the Open Inference Protocol: what is read, what is refused, and how waiting requests become batches."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxtrain.data.info import DataInfo
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.data.tables import Table
from jaxtrain.data.vocabulary import Characters
from jaxtrain.export.loading import inputs_of
from jaxtrain.serve.interface import Interface, of_inputs
from jaxtrain.serve.metrics import Metrics
from jaxtrain.serve.protocol import read_request, write_response
from jaxtrain.serve.refusal import Refusal
from jaxtrain.serve.tensors import TensorSpec
from jaxtrain.serve.waiting import Job, Waiting, join_pieces, join_slices, share_outputs

OUTPUTS = {name: TensorSpec(name, "FP32", (2,)) for name in ("logits", "probabilities")}
STATISTICS = ((0.0,), (1.0,))


def interface(info: DataInfo) -> Interface:
    inputs = inputs_of(info)
    return Interface(of_inputs(inputs), OUTPUTS, inputs)


PICTURES = interface(DataInfo((2, 3), 2, (), *STATISTICS, *STATISTICS, input_dtype="uint8"))
FAR = interface(DataInfo((2,), 2, (), *STATISTICS, (1e6,), (1.0,)))
COLUMNS = Table(
    {
        "day": np.array([1.5, np.nan, 2.5, 3.5]),
        "gain": np.array([0.0, 1.0, 2.0, 3.0]),
        "job": np.array(["cook", "pilot", "", "cook"]),
    }
)
ENCODING = TableEncoding.fit(COLUMNS)
TABLE = interface(
    DataInfo((5,), 2, (), *STATISTICS, (0.0,) * 5, (1.0,) * 5, encoding=ENCODING),
)

GOOD = {"name": "inputs", "datatype": "UINT8", "shape": [2, 2, 3], "data": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255]}


def read(of: Interface, *inputs: Mapping[str, Any], binary: bytes = b"", length: Any = None, **more: Any) -> Any:
    head = json.dumps({"inputs": inputs, **more}).encode()
    given = str(len(head) if length is None else length) if binary or length is not None else None
    return read_request(head + binary, given, of)


def test_values_are_read_flat_or_nested_as_the_shape_is():
    flat = read(PICTURES, GOOD).tensors["inputs"]
    nested = read(PICTURES, {**GOOD, "data": flat.tolist()}).tensors["inputs"]
    assert (flat.dtype, flat.shape, flat[1, 1].tolist()) == (np.uint8, (2, 2, 3), [10, 11, 255])
    np.testing.assert_array_equal(flat, nested)


def test_binary_data_follow_the_json_in_the_order_of_the_inputs():
    given = [
        {"name": "job", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 15}},
        {"name": "gain", "datatype": "FP64", "shape": [2], "data": [1, 2]},
        {"name": "day", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
    ]
    texts = b"\x04\0\0\0cook\x03\0\0\0\xc3\xa9x"
    found = read(TABLE, *given, binary=texts + np.array([0.5, np.nan]).tobytes()).tensors
    assert found["job"].tolist() == ["cook", "éx"]
    np.testing.assert_array_equal(found["day"], [0.5, np.nan])
    arguments = TABLE.arguments(found)
    assert arguments["codes"].tolist() == [[1], [0]], "a category that no training row has is code 0"


@pytest.mark.parametrize(("in_binary", "most"), [(True, 4), (False, 1), (None, 2)])
def test_an_answer_that_would_fill_the_memory_is_refused(in_binary: bool | None, most: int):
    """All outputs are made; JSON takes more memory than binary data."""
    large = {name: TensorSpec(name, "FP32", (2, 2**20)) for name in ("logits", "probabilities")}
    wanted: dict[str, Any] = {"parameters": {"binary_data_output": bool(in_binary)}}
    if in_binary is None:
        wanted = {"outputs": [{"name": "logits"}]}

    def rows(count: int) -> int:
        given = {**GOOD, "shape": [count, 2, 3], "data": [0] * (6 * count)}
        return read(replace(PICTURES, outputs=large), given, **wanted).rows

    assert rows(most) == most
    with pytest.raises(Refusal, match=f"outputs: got more numbers; expected those of at most {most} examples") as found:
        rows(most + 1)
    assert found.value.status == 413


def test_missing_values_of_a_table_are_null():
    given = {"day": ("FP64", [None]), "gain": ("FP64", [2.5]), "job": ("BYTES", [None])}
    inputs = [{"name": n, "datatype": kind, "shape": [1], "data": data} for n, (kind, data) in given.items()]
    found = TABLE.arguments(read(TABLE, *inputs).tensors)
    assert np.isnan(found["numbers"][0, 0])
    assert found["codes"].tolist() == [[3]]
    inputs[1]["data"] = [None]
    with pytest.raises(Refusal, match=r"data of 'gain': got a value of another type; expected numbers"):
        read(TABLE, *inputs)


def test_numbers_far_from_0_are_one_float64_for_a_client():
    given = {"name": "inputs", "datatype": "FP64", "shape": [1, 2], "data": [1000000.1, 999999.9]}
    arguments = FAR.arguments(read(FAR, given).tensors)
    whole = arguments["inputs"].astype(np.float64) + arguments["inputs_remainder"]
    np.testing.assert_allclose(whole, [[1000000.1, 999999.9]], rtol=0, atol=1e-8)


def test_tokens_are_an_input_as_arrays_are():
    vocabulary = Characters.fit("abc", "the text")
    statistics: tuple[tuple[float, ...], ...] = ((), (), (), ())
    of = interface(DataInfo((4,), 3, (4,), *statistics, input_dtype="uint8", vocabulary=vocabulary))
    given = {"name": "inputs", "datatype": "UINT8", "shape": [1, 4], "data": [0, 1, 2, 0]}
    assert of.arguments(read(of, given).tensors)["inputs"].tolist() == [[0, 1, 2, 0]]
    with pytest.raises(Refusal, match="values that differ in kind"):
        of.arguments(read(of, {**given, "data": [0, 1, 2, 200]}).tensors)


WRONG_INPUTS = {
    "another name": (
        {"name": "pixels"},
        "inputs: got a name that the model does not have; expected names among 'inputs'",
    ),
    "a name that is none": ({"name": ["inputs"]}, "'name' of input: got a value of another type; expected a text"),
    "another type": ({"datatype": "FP32"}, "datatype of 'inputs': got another type; expected UINT8"),
    "a negative shape": ({"shape": [-1, 2, 3]}, "shape of 'inputs': got another one; expected [n, 2, 3] with n from 1"),
    "no rows": ({"shape": [0, 2, 3], "data": []}, "shape of 'inputs'"),
    "a fraction as length": ({"shape": [2.0, 2, 3]}, "shape of 'inputs'"),
    "true as length": ({"shape": [True, 2, 3]}, "shape of 'inputs'"),
    "fewer axes": ({"shape": [12]}, "shape of 'inputs'"),
    "too many values": ({"shape": [1, 2, 3]}, "data of 'inputs': got 12 values; expected 6, as the shape declares"),
    "fractions": ({"data": [1.5] * 12}, "got a value of another type; expected integers, for the type UINT8"),
    "whole fractions": ({"data": [1.0] * 12}, "got a value of another type"),
    "true": ({"data": [True] * 12}, "got a value of another type"),
    "texts": ({"data": ["1"] * 12}, "got a value of another type"),
    "an integer above the type": ({"data": [256] * 12}, "got an integer out of range; expected integers from 0 to 255"),
    "an integer below the type": ({"data": [-1] * 12}, "got an integer out of range"),
    "a huge integer": ({"data": [10**400] * 12}, "got an integer out of range"),
    "lists of unlike length": ({"data": [[[1, 2, 3], [4]]]}, "got lists of other lengths"),
    "lists of another shape": ({"data": [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]}, "got lists of other lengths"),
    "an object": ({"data": {"0": 1}}, "'data' of input: got a value of another type; expected a list"),
    "another field": ({"secret": 1}, "input: got a field of another name"),
    "a size and data": ({"parameters": {"binary_data_size": 12}}, "got both JSON and binary"),
    "shared memory": ({"parameters": {"shared_memory_region": "x"}}, "got a field of another name"),
}


@pytest.mark.parametrize("kind", WRONG_INPUTS)
def test_an_input_that_is_wrong_is_refused_by_name(kind: str):
    change, said = WRONG_INPUTS[kind]
    with pytest.raises(Refusal) as found:
        read(PICTURES, {**GOOD, **change})
    assert said in str(found.value)
    assert found.value.status == 400


def test_more_examples_than_a_request_may_have_are_too_large():
    for count in (2**14 + 1, 10**4299):
        with pytest.raises(Refusal, match="at most 16384 in a request") as found:
            read(PICTURES, {**GOOD, "shape": [count, 2, 3]})
        assert found.value.status == 413


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"secret": 1}, "request: got a field of another name"),
        ({"outputs": [{"name": "secret"}]}, "outputs: got a name that the model does not have"),
        ({"outputs": [{"name": "logits", "parameters": {"classification": 3}}]}, "got a field of another name"),
        ({"outputs": []}, "'outputs' of request: got something else; expected a list of objects"),
        ({"parameters": {"timeout": -1}}, "timeout: got a negative time"),
        ({"parameters": {"timeout": 1.5}}, "'timeout' of parameters: got a value of another type"),
        ({"parameters": {"sequence_id": 1}}, "parameters: got a field of another name"),
        ({"id": 7}, "'id' of request: got a value of another type; expected a text"),
        ({"id": "x" * 257}, "id: got 257 characters; expected at most 256"),
    ],
)
def test_a_request_that_is_wrong_around_its_inputs_is_refused(more: dict[str, Any], said: str):
    with pytest.raises(Refusal) as found:
        read(PICTURES, GOOD, **more)
    assert said in str(found.value)


def test_inputs_that_are_missing_or_given_twice_are_refused():
    with pytest.raises(Refusal, match=r"inputs: got 'inputs' twice"):
        read(PICTURES, GOOD, GOOD)
    day = {"name": "day", "datatype": "FP64", "shape": [1], "data": [1]}
    with pytest.raises(Refusal, match=r"inputs: got none for 'gain', 'job'; expected all inputs of the model"):
        read(TABLE, day)
    job = {"name": "job", "datatype": "BYTES", "shape": [2], "data": ["cook", "cook"]}
    with pytest.raises(Refusal, match=r"inputs: got different numbers of examples"):
        read(TABLE, day, {**day, "name": "gain"}, job)


def binary_input(size: Any) -> dict[str, Any]:
    return {"name": "inputs", "datatype": "UINT8", "shape": [2, 2, 3], "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    ("size", "given", "length", "said"),
    [
        (12, 11, None, "got a size that the body does not hold"),
        (11, 11, None, "got 11 bytes; expected 12, as shape and datatype declare"),
        (12, 13, None, "body: got bytes behind those of the inputs"),
        (-1, 12, None, "got a size that the body does not hold"),
        (True, 12, None, "'binary_data_size' of parameters of 'inputs': got a value of another type"),
        (12, 12, -1, "inference-header-content-length: got a length that does not fit"),
        (12, 12, 10**6, "inference-header-content-length"),
        (12, 12, "1e2", "inference-header-content-length"),
        (12, 12, "٣", "inference-header-content-length"),
        (12, 12, "9" * 5000, "inference-header-content-length"),
        (12, 12, 3, "body: got no valid JSON"),
    ],
)
def test_bytes_that_do_not_fit_what_is_declared_are_refused(size: Any, given: int, length: Any, said: str):
    with pytest.raises(Refusal) as found:
        read(PICTURES, binary_input(size), binary=bytes(given), length=length)
    assert said in str(found.value)


def test_texts_that_do_not_fill_their_bytes_are_refused():
    job = {"name": "job", "datatype": "BYTES", "shape": [1]}
    others = [{"name": name, "datatype": "FP64", "shape": [1], "data": [1]} for name in ("day", "gain")]
    for texts in (b"\xff\xff\xff\xffx", b"\x01\0\0\0", b"\x01\0\0\0xy", b"\x01\0\0\0\xff", b"\0\0\0\0\0\0\0\0", b"\0"):
        with pytest.raises(Refusal, match="data of 'job'"):
            read(TABLE, *others, {**job, "parameters": {"binary_data_size": len(texts)}}, binary=texts)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"7", b"[]", b"\xff", b'"', b"[" * 100_000, b'{"a":' * 100_000, b'{"a": NaN}', b'{"a": -Infinity}'),
        *(b'{"a": 1' + b"0" * 5000 + b"}", '{"a": 1}'.encode("utf-16"), b'{"inputs": [{"data": [1e999]}]}'),
    ],
)
def test_a_body_that_is_no_object_of_json_is_refused_without_its_text(body: bytes):
    with pytest.raises(Refusal) as found:
        read_request(body, None, PICTURES)
    assert found.value.status == 400
    assert len(str(found.value)) < 200


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_numbers_that_no_model_takes_are_refused_in_binary_too(value: float):
    given = {"name": "inputs", "datatype": "FP64", "shape": [1, 2], "parameters": {"binary_data_size": 16}}
    request = read(FAR, given, binary=np.array([1.0, value]).tobytes())
    with pytest.raises(Refusal, match="data of 'inputs': got a number that is not finite"):
        FAR.arguments(request.tensors)


def test_an_answer_holds_what_was_asked_for_and_null_for_what_json_has_no_number_for():
    request = read(PICTURES, GOOD, id="a", outputs=[{"name": "logits"}])
    outputs = {"logits": np.array([[1.5, np.inf]], np.float32), "probabilities": np.zeros((1, 2), np.float32)}
    headers, body = write_response(outputs, request, PICTURES, {"model_name": "m"})
    assert headers == {"content-type": "application/json"}
    assert json.loads(body) == {
        "model_name": "m",
        "id": "a",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}],
    }


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


PROGRAM: Any = SimpleNamespace(sizes=(1, 4))


def job(loop: asyncio.AbstractEventLoop, *values: int, seconds: float = 1e3, program: Any = PROGRAM) -> Job:
    return Job(program, {"x": np.array(values)}, len(values), time.monotonic() + seconds, loop.create_future())


def test_what_waits_becomes_one_batch(loop: asyncio.AbstractEventLoop):
    waiting = Waiting(Metrics([4]))
    for values in ((1,), (2, 3)):
        waiting.add(job(loop, *values))
    batch = waiting.take()
    assert join_slices(batch)["x"].tolist() == [1, 2, 3]
    finished = share_outputs(batch, {"y": np.array([10, 20, 30])})
    assert [join_pieces(one)["y"].tolist() for one in finished] == [[10], [20, 30]]


def test_a_large_request_is_split_and_small_ones_do_not_wait_for_its_end(loop: asyncio.AbstractEventLoop):
    waiting = Waiting(Metrics([4]))
    large = job(loop, *range(10))
    waiting.add(large)
    waiting.add(job(loop, 77))
    taken = []
    finished = []
    for _ in range(3):
        batch = waiting.take()
        rows = join_slices(batch)["x"]
        taken.append(rows.tolist())
        finished += share_outputs(batch, {"y": rows})
    assert taken == [[0, 1, 2, 3], [77, 4, 5, 6], [7, 8, 9]]
    assert [one.rows for one in finished] == [1, 10]
    assert join_pieces(large)["y"].tolist() == [*range(10)]


def test_a_request_that_fits_a_batch_and_not_the_rest_of_one_comes_next(loop: asyncio.AbstractEventLoop):
    waiting = Waiting(Metrics([4]))
    for values in ((1, 2, 3), (4, 5), (6,)):
        waiting.add(job(loop, *values))
    assert [join_slices(waiting.take())["x"].tolist() for _ in range(2)] == [[1, 2, 3, 4], [5, 6]]


def test_a_batch_is_of_one_program_and_none_waits_for_the_other(loop: asyncio.AbstractEventLoop):
    waiting = Waiting(Metrics([4]))
    other: Any = SimpleNamespace(sizes=(2,))
    for value, program in enumerate((PROGRAM, PROGRAM, other, other, other, PROGRAM)):
        waiting.add(job(loop, value, program=program))
    batches = [waiting.take() for _ in range(4)]
    assert [join_slices(batch)["x"].tolist() for batch in batches] == [[0, 1], [2, 3], [4], [5]]
    assert [batch[0].job.program for batch in batches] == [PROGRAM, other, other, PROGRAM]


def test_rows_that_nobody_waits_for_are_dropped_and_counted(loop: asyncio.AbstractEventLoop):
    metrics = Metrics([4])
    waiting = Waiting(metrics)
    left, late, kept = job(loop, 1, 2), job(loop, 3, seconds=-1.0), job(loop, 4)
    for one in (left, late, kept):
        waiting.add(one)
    left.answer.cancel()
    assert [piece.job for piece in waiting.take()] == [kept]
    assert metrics.dropped_rows == 3


def test_metrics_are_in_the_form_that_prometheus_reads():
    metrics = Metrics([1, 4])
    metrics.count_response(200)
    metrics.count_batch(3, 4, 0.25)
    metrics.seconds.add(0.003)
    lines = metrics.render({"ready": ("1 if ready", 1.0)}, {"name": 'a"\n'}).splitlines()
    assert 'jaxtrain_model_info{name="a\\"\\n"} 1' in lines
    assert 'jaxtrain_responses_total{code="200"} 1' in lines
    assert 'jaxtrain_batches_total{size="4"} 1' in lines
    assert 'jaxtrain_inference_seconds_bucket{le="0.0025"} 0' in lines
    assert 'jaxtrain_inference_seconds_bucket{le="0.005"} 1' in lines
    samples = [line for line in lines if not line.startswith("#")]
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert all(any(sample.startswith(name) for name in names) for sample in samples)
