"""JSON of a client: an object in UTF-8, without NaN and infinities, and not nested beyond reason."""

import json
from typing import Any, NoReturn

from jaxtrain.serve.refusal import bad_request


def read_object(content: bytes | memoryview) -> dict[str, Any]:
    """Returns the object in some bytes; raises Refusal for any other content."""
    try:
        value = json.loads(str(content, "utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise bad_request("body", "JSON that is nested too deeply", "an object of the protocol") from error
    except ValueError as error:  # also of bytes that are no UTF-8, and of integers of thousands of digits
        raise bad_request("body", "no valid JSON", "a JSON object in UTF-8, without NaN and Infinity") from error
    if not isinstance(value, dict):
        raise bad_request("body", "JSON that is no object", "an object of the protocol")
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")
