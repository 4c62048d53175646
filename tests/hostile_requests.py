"""Requests that a server must refuse, drawn by a seed: good ones of the digits' model with something wrong in them."""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

SECRET = "s3cret-" + "0123456789abcdef"
"""A text that stands in many of the requests, and must stand in no answer."""

PATH = "/v2/models/mlp/infer"


class HostileRequest(NamedTuple):
    """A request with a body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def good_request(rows: int = 1) -> dict[str, Any]:
    given = {"name": "inputs", "datatype": "UINT8", "shape": [rows, 8, 8, 1], "data": [7] * (64 * rows)}
    return {"id": "1", "inputs": [given], "outputs": [{"name": "class"}]}


def hostile_request(draw: random.Random) -> HostileRequest:
    """Draws a request."""
    return draw.choice(KINDS)(draw)


def _post(body: bytes | str, path: str = PATH, method: str = "POST", **headers: str) -> HostileRequest:
    content = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return HostileRequest(method, path, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def _odd_value(draw: random.Random) -> Any:
    """Draws a value of JSON that fits nowhere, or hardly anywhere."""
    values = [
        *(
            None,
            True,
            -1,
            0,
            1.5,
            2**63,
            -(2**70),
            10**300,
            1e308,
            float("nan"),
            float("-inf"),
            "",
            SECRET,
            SECRET * 50,
        ),
        *([], {}, [[]], [SECRET], {SECRET: SECRET}, [None], [True], [1, SECRET], [[1], [2, 3]], "\ud800", "\0", "‮"),
        *([10**4200], [[0] * 64], [[[[7]]]] * 64, ["7"] * 64, [7.0] * 64, [256] * 64, [-1] * 64, [7] * 65, [7] * 63),
    ]
    return draw.choice(values)


def _with_odd_fields(draw: random.Random) -> HostileRequest:
    """Replaces, adds or removes a field or two, anywhere."""
    request = good_request()
    for _ in range(draw.randint(1, 2)):
        places = [request, *(part for part in [*_objects(request)] if part)]
        place = draw.choice(places)
        name = draw.choice([*place, "parameters", "data", "shape", "timeout", "binary_data_size", SECRET])
        if draw.random() < 0.2:
            place.pop(name, None)
        else:
            place[name] = _odd_value(draw)
    return _post(json.dumps(request | {SECRET: 0}))


def _objects(request: dict[str, Any]) -> list[dict[str, Any]]:
    lists = [request.get("inputs"), request.get("outputs"), [request.get("parameters")]]
    return [item for items in lists if isinstance(items, list) for item in items if isinstance(item, dict)]


def _with_odd_data(draw: random.Random) -> HostileRequest:
    request = good_request()
    request["inputs"][0]["data"][draw.randrange(64)] = draw.choice(
        [1.7, "7", SECRET, None, True, 256, -1, [7], 10**400]
    )
    return _post(json.dumps(request))


def _with_odd_shape(draw: random.Random) -> HostileRequest:
    request = good_request()
    lengths = [-1, 0, 2, 8.0, True, "1", None, 2**31, 2**63, 10**4000, SECRET, [1]]
    shape = [draw.choice([1, 8, *lengths]) for _ in range(draw.randint(0, 6))]
    request["inputs"][0]["shape"] = shape if shape != [1, 8, 8, 1] else [-1, 8, 8, 1]
    return _post(json.dumps(request))


def _with_odd_names(draw: random.Random) -> HostileRequest:
    request = good_request()
    part = draw.choice(["inputs", "outputs"])
    request[part] = draw.choice([[{**request[part][0], "name": SECRET}], [*request["inputs"] * 2], [SECRET], {}, 7])
    return _post(json.dumps(request))


def _nested(draw: random.Random) -> HostileRequest:
    opening = draw.choice(["[", '{"a":', '{"inputs":[', '[{"data":'])
    return _post(opening * draw.choice([10, 1_000, 100_000]))


def _cut(draw: random.Random) -> HostileRequest:
    text = json.dumps(good_request())
    return _post(text[: draw.randrange(len(text))])


def _noise(draw: random.Random) -> HostileRequest:
    return _post(draw.randbytes(draw.choice([0, 1, 10, 1_000])) or SECRET)


def _flipped(draw: random.Random) -> HostileRequest:
    """Flips some bytes of a good request; few of these remain good."""
    content = bytearray(json.dumps(good_request() | {"x": 1}).encode())
    for _ in range(draw.randint(1, 8)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return _post(bytes(content))


def _not_json(draw: random.Random) -> HostileRequest:
    text = json.dumps(good_request())
    wrong = {"[7": "[NaN", "7, 7": "7 7", '"inputs"': "'inputs'", "{": "{,", "]": "],", "1": "01", "7,": "Infinity,"}
    was = draw.choice([*wrong])
    return _post(text.replace(was, wrong[was], 1))


def _in_another_encoding(draw: random.Random) -> HostileRequest:
    return _post(json.dumps(good_request()).encode(draw.choice(["utf-16", "utf-32", "utf-8-sig", "utf-16-be"])))


def _in_wrong_binary(draw: random.Random) -> HostileRequest:
    request = good_request()
    del request["inputs"][0]["data"]
    size = draw.choice([-1, 0, 63, 65, True, "64", 2**70, None, 64.0])
    request["inputs"][0]["parameters"] = {"binary_data_size": size}
    head = json.dumps(request).encode()
    length = draw.choice(
        [len(head), len(head), -1, 0, 10**9, "x", SECRET, "1" * 5000, len(head) + 1, len(head) - 1, "²"]
    )
    rest = draw.randbytes(draw.choice([0, 63, 64, 65, 1000]))
    return _post(head + rest, Inference_Header_Content_Length=str(length))


def _with_bytes_left(draw: random.Random) -> HostileRequest:
    head = json.dumps(good_request()).encode()
    return _post(head + draw.randbytes(draw.randint(1, 100)), Inference_Header_Content_Length=str(len(head)))


def _elsewhere(draw: random.Random) -> HostileRequest:
    paths = [
        f"/v2/models/{SECRET}/infer",
        "/v2/models//infer",
        "/..%2f..%2fetc/passwd",
        "/v2/%00",
        f"/{SECRET}?{SECRET}",
    ]
    path = draw.choice([*paths, "/v2", "/metrics", "/", "/v2/models/mlp/versions/9/infer"])
    return _post(json.dumps(good_request()), path, draw.choice(["POST", "PUT", "DELETE", "BREW"]))


def _compressed(draw: random.Random) -> HostileRequest:
    return _post(draw.randbytes(100), Content_Encoding=draw.choice(["gzip", "deflate", "br", SECRET]))


KINDS: tuple[Callable[[random.Random], HostileRequest], ...] = (
    *(_with_odd_fields, _with_odd_fields, _with_odd_data, _with_odd_shape, _with_odd_names, _nested, _cut, _noise),
    *(_flipped, _not_json, _in_another_encoding, _in_wrong_binary, _with_bytes_left, _elsewhere, _compressed),
)
