"""Fields of an object that a client sends, whose types are checked when they are read."""

from collections.abc import Mapping
from typing import Any

from jaxtrain.serve.refusal import bad_request

LONGEST_ID = 256
"""Characters of a request's id."""


class Fields:
    """The fields of an object of the protocol, whose types are checked when they are read."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self._fields = fields
        self._where = where

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def demand_known(self, *names: str) -> None:
        """Raises Refusal if there is a field of another name: to ignore it could give another answer than was meant."""
        if not self._fields.keys() <= set(names):
            raise bad_request(self._where, "a field of another name", f"no other fields than {', '.join(names)}")

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        """Returns a field; raises Refusal where it has another type, or is missing without a default."""
        value = self._fields.get(name, default)
        if type(value) is not kind:
            got = "a value of another type" if name in self._fields else "nothing"
            raise bad_request(f"{name!r} of {self._where}", got, KINDS[kind])
        return value

    def number(self, name: str, default: float) -> float:
        """Returns a field that is a number, whole or not."""
        if type(self._fields.get(name)) is not int:
            return self.get(name, float, default)
        try:
            return float(self._fields[name])
        except OverflowError as error:
            raise bad_request(f"{name!r} of {self._where}", "a number out of range", KINDS[float]) from error

    def identity(self) -> str | None:
        """Returns the field `id`, which is the only thing of a request that its answer repeats."""
        if "id" not in self:
            return None
        identity = self.get("id", str)
        if len(identity) > LONGEST_ID:
            raise bad_request("id", f"{len(identity)} characters", f"at most {LONGEST_ID}")
        return identity

    def objects(self, name: str) -> list[dict[str, Any]]:
        """Returns a field that is a list of objects."""
        value = self.get(name, list)
        if not value or set(map(type, value)) != {dict}:
            raise bad_request(f"{name!r} of {self._where}", "something else", "a list of objects, at least one")
        return value


KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "an integer", float: "a number"}
"""Type of a field -> its name in a refusal."""
