"""A request that is not answered: an HTTP status and one line, which never holds what the client sent."""

from jaxtrain.errors import Words, message


class Refusal(Exception):
    """An HTTP status with one line of the form "KEY: got X; expected Y. Hint".

    `got` describes what was found. The data of a request never go into it, as they may be secret, large or markup.
    """

    def __init__(self, status: int, key: str, got: str, expected: str, hint: str = "") -> None:
        self.status = status
        super().__init__(message(key, Words(got), expected, hint))


def bad_request(key: str, got: str, expected: str, hint: str = "") -> Refusal:
    """Returns the refusal of a request that is wrong in itself."""
    return Refusal(400, key, got, expected, hint)


def overloaded(got: str) -> Refusal:
    """Returns the refusal of a request that would be answered a moment later."""
    return Refusal(503, "server", got, "a moment of patience", "Send the request again")


def too_late() -> Refusal:
    """Returns the refusal of a request whose answer took longer than its deadline."""
    return Refusal(504, "server", "no answer in time", "one within the deadline", "Send it again")


def client_left() -> Refusal:
    """Returns the refusal, which nobody reads, of a request whose client left before its answer."""
    return Refusal(499, "client", "one that left", "one that waits for its answer")
