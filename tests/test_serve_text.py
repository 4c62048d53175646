"""A real server of a language model: text in, text out, whole or as it is made."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import await_text, chromium, save_picture
from served_models import Server, served
from tiny_runs import PATIENCE, tiny

from jaxtrain import ExportedModel, export_run, load_export
from jaxtrain.data.vocabulary import BytePairs, Bytes, Characters, Vocabulary
from jaxtrain.export.generation import GrowingText
from jaxtrain.serve.generation import MOST_TOKENS, PIECE, read_generation
from jaxtrain.serve.refusal import Refusal
from jaxtrain.training.train import train_and_evaluate

GENERATE = "/v2/models/transformer/generate"
TEXT = "the cat sat. a dog ran! über alles? " * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """The export of a run on the bytes of a text, in which one letter has two."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "words.txt").write_text(TEXT)
    given = {
        **{"data.name": "text", "data.path": str(folder), "data.file": "words.txt", "data.context": 16},
        **{"task.name": "language_modelling", "model.name": "transformer", "model.width": 8, "model.layers": 1},
        **{"model.heads": 2, "model.dropout": 0.0, "data.batch_size": 8},
        **{"train.duration": "60 steps", "eval.every": "60 steps", "train.ema": None, "optimizer.learning_rate": 0.03},
    }
    train_and_evaluate(tiny(given), folder / "run", quiet=True)
    return load_export(export_run(folder / "run", formats=["mlflow"])[0])


@pytest.fixture(scope="module")
def server(model: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("server"), model.folder, "--deadline=600") as server:
        yield server


def body(prompt: str, **parameters: Any) -> str:
    return json.dumps({"text_input": prompt, "parameters": parameters})


def events_of(server: Server, request: str) -> Iterator[dict[str, Any]]:
    """Yields the events of a stream as they come."""
    with closing(server.connect()) as connection:
        connection.request("POST", f"{GENERATE}_stream", request)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        for line in answer:
            if line != b"\n":
                yield json.loads(line.removeprefix(b"data: "))


DRAWINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 0.5, "seed": 2**32 - 1},
    {"top_k": 3, "seed": 1},
]


@pytest.mark.parametrize("drawing", DRAWINGS, ids=str)
def test_a_text_is_continued_as_by_the_model_whole_and_in_pieces(
    server: Server, model: ExportedModel, drawing: dict[str, Any]
):
    for prompt in ("the cat", "a dog ran! über alles? the"):  # the second is beyond the context
        expected = model.generate(prompt, 40, **drawing)
        whole = server.ask(GENERATE, body(prompt, max_tokens=40, **drawing))
        assert (whole.status, whole.json["text_output"]) == (200, expected)
        assert whole.json["parameters"]["sha256"] == whole.headers["Model-SHA256"]
        events = [*events_of(server, body(prompt, max_tokens=40, **drawing))]
        pieces = [event["text_output"] for event in events]
        assert "".join(pieces) == expected
        assert all(pieces)
        assert len(pieces) > 2
        assert events[0]["model_name"] == "transformer"


def test_without_parameters_it_is_as_long_as_that_of_a_run_and_repeats_the_id(server: Server, model: ExportedModel):
    answer = server.ask(GENERATE, json.dumps({"text_input": "the", "id": "a-1"})).json
    assert (answer["id"], answer["text_output"]) == ("a-1", model.generate("the"))
    assert server.ask("/v2").json["extensions"] == ["binary_tensor_data", "generate"]


def test_clients_share_batches_and_each_gets_its_own_text(server: Server, model: ExportedModel):
    def ask(seed: int) -> str:
        return server.ask(GENERATE, body("the", max_tokens=60, seed=seed)).json["text_output"]

    shared = sum(server.count(f'jaxtrain_batches_total{{size="{size}"}}') for size in (4, 16))
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(ask, range(8))]
    assert found == [model.generate("the", 60, seed=seed) for seed in range(8)]
    assert len(set(found)) > 1
    assert sum(server.count(f'jaxtrain_batches_total{{size="{size}"}}') for size in (4, 16)) > shared
    assert server.count("jaxtrain_programs_compiled") == 6, "four for predictions, two for texts, before it was ready"


@pytest.mark.parametrize("route", ["", "_stream"])
def test_a_client_that_leaves_ends_its_text(server: Server, route: str):
    before = server.count("jaxtrain_examples_total")
    with closing(server.connect()) as connection:
        connection.request("POST", GENERATE + route, body("the", max_tokens=MOST_TOKENS))
        until(lambda: server.count("jaxtrain_requests_in_progress") == 1)
    until(lambda: server.count("jaxtrain_requests_in_progress") == 0)
    assert server.ask(GENERATE, body("the", max_tokens=1)).status == 200
    assert server.count("jaxtrain_examples_total") - before < MOST_TOKENS // PIECE, "no token is made that nobody reads"


def until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline


def test_the_deadline_ends_a_text(model: ExportedModel, tmp_path: Path):
    with served(tmp_path, model.folder, "--deadline=1") as server:
        answer = server.ask(GENERATE, body("the", max_tokens=MOST_TOKENS))
        assert (answer.status, answer.json["error"].partition(";")[0]) == (504, "server: got no answer in time")
        *pieces, last = events_of(server, body("the", max_tokens=MOST_TOKENS))
        assert last["error"].startswith("server: got no answer in time")
        assert "".join(piece["text_output"] for piece in pieces).startswith(model.generate("the", 8)[:6])


WRONG: dict[str, tuple[Any, str]] = {
    "no text": ({}, "'text_input' of request: got nothing; expected a text"),
    "an empty text": ({"text_input": ""}, "text_input: got no text"),
    "another type": ({"text_input": 3}, "'text_input' of request: got a value of another type"),
    "half a character": ({"text_input": "\ud800"}, "text_input: got a text that is no Unicode"),
    "a long text": ({"text_input": "x" * 70_000}, "text_input: got a longer one; expected at most 65536"),
    "another field": ({"text_input": "a", "stream": True}, "request: got a field of another name"),
    "another parameter": ({"parameters": {"best_of": 2}}, "parameters: got a field of another name"),
    "no tokens": ({"parameters": {"max_tokens": 0}}, "max_tokens: got an integer out of range; expected an integer f"),
    "many tokens": ({"parameters": {"max_tokens": 10**6}}, "max_tokens: got an integer out of range"),
    "a fraction": ({"parameters": {"max_tokens": 1.5}}, "'max_tokens' of parameters: got a value of another type"),
    "a flag": ({"parameters": {"temperature": True}}, "'temperature' of parameters: got a value of another type"),
    "below 0": ({"parameters": {"temperature": -1}}, "temperature: got a number out of range"),
    "a huge number": ({"parameters": {"temperature": 10**400}}, "'temperature' of parameters: got a number out of"),
    "beyond all": ({"parameters": {"temperature": float("inf")}}, "temperature: got a number out of range"),
    "a seed below 0": ({"parameters": {"seed": -1}}, "seed: got an integer out of range"),
    "no choice": (
        {"parameters": {"top_k": 0}},
        "top_k: got an integer out of range; expected an integer from 1 to 256",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_request_is_refused_in_a_line(kind: str):
    given, said = WRONG[kind]
    content = json.dumps({"text_input": "the", **given} if "text_input" not in given and given else given)
    with pytest.raises(Refusal) as refused:
        read_generation(content.replace("Infinity", "1e999").encode(), Bytes())
    assert str(refused.value).startswith(said)
    assert refused.value.status == (413 if kind == "a long text" else 400)


def test_other_models_have_no_such_route(server: Server):
    assert server.ask("/v2/models/other/generate", body("the")).status == 404
    assert server.ask(GENERATE, "[" * 100_000).status == 400
    assert server.ask(f"{GENERATE}_stream", body("")).status == 400
    assert server.ask(f"{GENERATE}_stream").status == 405


VOCABULARIES = [Bytes(), Characters.fit("the cat", "here"), BytePairs.fit("über über €5 the the", 280)]


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.kind)
def test_pieces_of_a_text_join_to_it_and_hold_whole_characters(vocabulary: Vocabulary):
    tokens = [*vocabulary.encode("the über €5 🙂"), *range(0, vocabulary.size, 3)]
    text = GrowingText(vocabulary)
    pieces = [text.append(int(token)) for token in tokens] + [text.finish()]
    assert "".join(pieces) == vocabulary.decode(np.array(tokens))
    if vocabulary.unknown is None:
        whole = [GrowingText(vocabulary).append(int(token)) for token in vocabulary.encode("€")]
        assert "€" not in "".join(whole[:-1])
        assert "🙂" in pieces


@pytest.mark.needs("browser")
def test_the_page_continues_a_text(server: Server, model: ExportedModel, tmp_path: Path):
    with chromium(tmp_path, f"127.0.0.1:{server.port}") as page:
        page.open(server.url)
        page.evaluate("part('prompt').value = 'the cat'; part('tokens').value = 30; part('predict').click()")
        await_text(page, "#result .continued", "the cat" + model.generate("the cat", 30, temperature=0.8))
        save_picture(page, tmp_path / "text.png")
        page.evaluate("part('prompt').value = ''; part('predict').click()")
        await_text(page, "#error", "text_input: got no text; expected a text of at least one character")
        assert all("400" in error for error in page.errors), "only the refusal is logged"
        page.evaluate("part('examples').querySelector('button').click()")
        page.wait("!part('predict').disabled && document.querySelector('.continued').innerText.length > 30")
