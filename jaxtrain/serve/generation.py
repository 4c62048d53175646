"""Continues a text by a served model: what clients ask for, and the text as it comes, a piece at a time.

Some tokens at a time are a row that waits for the device as those of inferences do, so who else waits shares its batch.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from jaxtrain.data.vocabulary import Vocabulary
from jaxtrain.export.generation import Drawing, GrowingText, arguments_of
from jaxtrain.serve.device import Device
from jaxtrain.serve.fields import Fields
from jaxtrain.serve.refusal import Refusal, bad_request, too_late
from jaxtrain.serve.strict_json import read_object
from jaxtrain.training.generation import Growing

LENGTH = 200
"""Tokens of a continuation where the client names no number."""

PIECE = 16
"""Tokens that are drawn at a time. Each piece begins with a whole window, and others wait until it ends."""

MOST_TOKENS = 2**13
"""The most tokens of a continuation; the deadline often ends one earlier."""

LONGEST_PROMPT = 2**16
"""Characters of a prompt. A model sees the last ones alone, as many as its context holds."""

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class GenerationRequest:
    """A request that was checked: the tokens of the prompt (n,), and how many are drawn, in which way."""

    prompt: np.ndarray
    length: int
    drawing: Drawing
    id: str | None


def read_generation(body: bytes, vocabulary: Vocabulary) -> GenerationRequest:
    """Returns the request in a body; raises Refusal for one that is not of the protocol, or out of bounds."""
    fields = Fields(read_object(body), "request")
    fields.demand_known("id", "text_input", "parameters")
    parameters = Fields(fields.get("parameters", dict, {}), "parameters")
    parameters.demand_known("max_tokens", "temperature", "top_k", "seed")
    length = _within(parameters, "max_tokens", LENGTH, 1, MOST_TOKENS)
    top_k = _within(parameters, "top_k", 1, 1, vocabulary.size) if "top_k" in parameters else None
    drawing = Drawing(_temperature(parameters), top_k, _within(parameters, "seed", 0, 0, LARGEST_SEED))
    return GenerationRequest(_encode(fields.get("text_input", str), vocabulary), length, drawing, fields.identity())


def _within(fields: Fields, name: str, default: int, least: int, most: int) -> int:
    value = fields.get(name, int, default)
    if not least <= value <= most:
        raise bad_request(name, "an integer out of range", f"an integer from {least} to {most}")
    return value


def _temperature(fields: Fields) -> float:
    temperature = fields.number("temperature", 1.0)
    if not 0 <= temperature < math.inf:
        raise bad_request("temperature", "a number out of range", "a number, at least 0")
    return temperature


def _encode(prompt: str, vocabulary: Vocabulary) -> np.ndarray:
    if len(prompt) > LONGEST_PROMPT:
        raise Refusal(413, "text_input", "a longer one", f"at most {LONGEST_PROMPT} characters", "Send the end of it")
    try:
        tokens = vocabulary.encode(prompt.encode().decode())
    except UnicodeEncodeError as error:  # half of a pair of surrogates
        raise bad_request("text_input", "a text that is no Unicode", "a text") from error
    if not len(tokens):
        raise bad_request("text_input", "no text", "a text of at least one character")
    return tokens


async def continue_text(
    device: Device, vocabulary: Vocabulary, context: int, request: GenerationRequest, deadline: float
) -> AsyncIterator[str]:
    """Yields the text that continues a prompt, in pieces of whole characters, as `ExportedModel.generate` makes it.

    Raises Refusal where the text is not whole at the `deadline`, a time of `time.monotonic`.
    """
    growing = Growing(request.prompt[None], context)
    text = GrowingText(vocabulary)
    while growing.made < request.length:
        tokens = await _next_tokens(device, growing, request, deadline)
        growing.append(tokens)
        if piece := "".join(map(text.append, tokens[0].tolist())):
            yield piece
    if rest := text.finish():
        yield rest


async def _next_tokens(device: Device, growing: Growing, request: GenerationRequest, deadline: float) -> np.ndarray:
    """Returns the tokens (1, count) that follow a sequence, as many as a piece holds."""
    assert device.continuation is not None
    count = min(growing.room, request.length - growing.made, PIECE)
    arguments = arguments_of(growing, count, request.drawing)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return (await device.submit(device.continuation, arguments, 1, deadline))["tokens"][:, :count]
    except TimeoutError as error:
        raise too_late() from error
