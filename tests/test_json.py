"""The documents of `--json`: as docs/json.md says, alone on the standard output, the same as what files hold."""

import contextlib
import io
import json
import random
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from csv_to_best_config import search_table
from json_schema import faults, read_schemas
from mlflow_server import mlflow_server
from tiny_runs import GIVEN, command, config_file, environment, result_of, run, start

from jaxtrain.commands.document import FORMAT, Document
from jaxtrain.export.loading import load_export
from jaxtrain.main import COMMANDS, main
from jaxtrain.storage.seals import without_seal
from jaxtrain.tasks.losses import LOSSES

ELSEWHERE = {"serve", "sync"}
"""Verbs whose tests need a process or a server of their own."""

SAID = "printed by a config"


class Answer(NamedTuple):
    """The exit code of a command, its document, and its lines for people."""

    code: int
    document: dict[str, Any]
    lines: list[str]


def ask(*words: object) -> Answer:
    """Runs a command in this process with --json; fails where its standard output is not one document of plain JSON."""
    output = io.StringIO()
    errors = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main([*map(str, words), "--json"])
    return Answer(code, json.loads(output.getvalue(), parse_constant=_refuse), errors.getvalue().splitlines())


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def write_table(path: Path, rows: int) -> None:
    """Writes three well separated kinds as a CSV file."""
    draw = random.Random(0)
    lines = ["length,width,kind"]
    for i in range(rows):
        kind = i % 3
        lines.append(f"{kind + draw.gauss(0, 0.2):.3f},{2 - kind + draw.gauss(0, 0.2):.3f},{'abc'[kind]}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a config of it, which prints when it is read."""
    folder = tmp_path_factory.mktemp("json")
    write_table(folder / "table.csv", 240)
    space = {"optimizer": {"learning_rate": ("log_uniform", 1e-3, 1e-1)}}
    config = {
        **GIVEN,
        "data": {"name": "csv", "path": str(folder), "file": "table.csv", "target": "kind", "batch_size": 32},
        "train": {"duration": "20 steps"},
        "track": {"pictures": None},
        "lr_range": {"rates": 6, "seeds": 1, "steps": "4 steps"},
        "search": {"trials": 2, "compare_seeds": 2, "space": space},
    }
    text = f"from ml_collections import ConfigDict\nprint({SAID!r})\ndef get_config(): return ConfigDict({config!r})\n"
    (folder / "table.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def answers(place: Path) -> dict[str, Answer]:
    """The answer of each verb, in an order in which each finds what it reads."""
    config = f"--config={place / 'table.py'}"
    workdir = f"--workdir={place / 'run'}"
    found = {}
    for verb, words in {
        "list": ["optimizers"],
        "data": [config, f"--workdir={place / 'data'}"],
        "check": [config, f"--workdir={place / 'check'}", "--only=classes,balance"],
        "plan": [config, f"--workdir={place / 'plan'}"],
        "lr_range": [config, f"--workdir={place / 'range'}"],
        "prepare": [f"--config={config_file(place)}", f"--output={place / 'prepared'}"],
        "search": [config, f"--workdir={place / 'study'}"],
        "train": [config, workdir],
        "evaluate": [workdir],
        "replay": [workdir, "--step=10"],
        "export": [workdir, f"--output={place / 'export'}", "--format=mlflow"],
        "predict": [workdir, f"--data={place / 'table.csv'}", f"--output={place / 'predicted.csv'}"],
        "diff": [place / "run", place / "run"],
        "compare": [place / "run", f"--output={place / 'curves.png'}"],
        "report": [workdir],
    }.items():
        found[verb] = ask(verb, *words)
    return found


def test_every_verb_has_a_schema_and_every_schema_a_verb():
    assert read_schemas().keys() - {"error"} == COMMANDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("verb", sorted(COMMANDS.keys() - ELSEWHERE))
def test_a_verb_prints_the_document_that_the_page_describes(verb: str, answers: dict[str, Answer]):
    code, document, lines = answers[verb]
    assert code == 0, lines
    assert faults(document, verb) == []
    assert (document["verb"], document["format"]) == (verb, FORMAT)
    assert lines, "lines for people go to the standard error"
    assert (SAID in lines) == (verb in ("data", "check", "plan", "lr_range", "search", "train"))


@pytest.mark.slow
def test_documents_repeat_what_is_in_the_files(place: Path, answers: dict[str, Answer]):
    documents = {verb: answer.document for verb, answer in answers.items()}
    result = result_of(place / "run")
    assert {key: documents["train"][key] for key in result} == result
    assert documents["train"]["workdir"] == str(place / "run")
    evaluation = json.loads((place / "run" / "evaluation.json").read_text())
    assert documents["evaluate"]["metrics"] == {key: value for key, value in evaluation.items() if key != "step"}
    assert documents["evaluate"]["metrics"]["test"]["loss"] == pytest.approx(result["test"]["loss"], rel=1e-5)
    found = json.loads((place / "study" / "search" / "result.json").read_text())
    assert {key: documents["search"][key] for key in found} == found
    best = json.loads(Path(documents["search"]["best_config"]).read_text())
    assert best["optimizer"]["learning_rate"] == documents["search"]["best"]["point"]["optimizer.learning_rate"]
    tested = json.loads((place / "range" / "lr_range" / "result.json").read_text())
    assert documents["lr_range"]["suggestions"] == tested["suggestions"]
    assert documents["lr_range"]["reliable"] == (not tested["doubt"])
    assert documents["export"]["description"] == without_seal(json.loads((place / "export" / "model.json").read_text()))
    load_export(documents["export"]["folder"])
    assert documents["predict"]["examples"] == documents["predict"]["measured"] == 240
    assert len(Path(documents["predict"]["output"]).read_text().splitlines()) == 241
    assert documents["data"]["examples"] == {"train": 192, "validation": 24, "test": 24}
    assert documents["plan"]["steps"] == result["step"]
    asked = json.loads((place / "check" / "check" / "result.json").read_text())
    assert {key: documents["check"][key] for key in asked} == asked
    assert list(asked["answers"]) == ["classes", "balance"]
    drawn = [documents["plan"]["picture"], documents["compare"]["picture"], *documents["data"]["pictures"]]
    assert all(Path(path).is_file() for path in [*drawn, *documents["lr_range"]["files"], documents["report"]["page"]])


@pytest.mark.slow
def test_the_arguments_of_prepare_read_the_same_data(place: Path, answers: dict[str, Answer]):
    prepared = answers["prepare"].document
    again = ask("data", *prepared["arguments"], f"--workdir={place / 'again'}").document
    whole = ask("data", f"--config={place / 'tiny.py'}", f"--workdir={place / 'again'}").document
    assert sum(prepared["examples"].values()) == sum(whole["examples"].values())
    assert again["examples"] == whole["examples"]
    assert again["info"] == whole["info"]


def test_list_tells_knobs_and_those_without_a_default(answers_of_list: dict[str, Any]):
    members = {member["name"]: member for member in answers_of_list["members"]}
    assert members.keys() == LOSSES.members.keys()
    smoothing = {knob["name"]: knob for knob in members["cross_entropy"]["knobs"]}["label_smoothing"]
    assert (smoothing["default"], smoothing["allowed"][:5]) == ("0", "float")
    assert ask("list").document["members"] is None


@pytest.fixture
def answers_of_list() -> dict[str, Any]:
    document = ask("list", "losses").document
    assert faults(document, "list") == []
    return document


@pytest.mark.parametrize(
    ("words", "verb", "key", "code"),
    [
        (["tain"], None, "verb", 2),
        (["train"], "train", "--config", 2),
        (["train", "--config=nowhere.py"], "train", "config file", 2),
        (["list", "--colour=red"], None, "command line", 2),
        (["data", "--config=CONFIG", "--config.data.target=colour"], "data", "PLACE/table.csv", 3),
        (["data", "--config=CONFIG", "--config.data.file=none.csv"], "data", "csv", 3),
        (["evaluate", "--workdir=nowhere"], "evaluate", "nowhere", 2),
        (["list", "losses", "--quiet", "--workdir=x"], "list", "list", 2),
    ],
)
def test_an_error_is_the_document(
    words: list[str],
    verb: str | None,
    key: str,
    code: int,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    ended, document, lines = ask(*(word.replace("CONFIG", str(place / "table.py")) for word in words))
    assert faults(document, "error") == []
    error = document["error"]
    assert (ended, document["verb"], error["exit_code"]) == (code, verb, code)
    assert error["key"] == key.replace("PLACE", str(place))
    line = f"error: {error['key']}: got {error['got']}; expected {error['expected']}"
    assert lines[-1] == (f"{line}. {error['hint']}" if error["hint"] else line)


@pytest.mark.slow
def test_a_run_that_diverged_has_its_document_with_null_for_what_is_not_finite(place: Path, tmp_path: Path):
    words = [f"--config={place / 'table.py'}", f"--workdir={tmp_path / 'run'}", "--quiet"]
    code, document, lines = ask("train", *words, "--config.optimizer.name=sgd", "--config.optimizer.learning_rate=1e30")
    assert (code, document["status"]) == (4, "diverged")
    assert faults(document, "train") == []
    assert document["reason"]
    assert document["reason"] in lines[-1]


@pytest.mark.slow
def test_seeds_of_a_run_and_their_spreads_are_described(place: Path, tmp_path: Path):
    words = [f"--config={place / 'table.py'}", f"--workdir={tmp_path / 'run'}", "--config.train.seeds=2"]
    code, document, _ = ask("train", *words)
    assert (code, faults(document, "train")) == (0, [])
    spread = document["seeds"]["validation"]["loss"]
    assert spread["low"] < spread["mean"] < spread["high"]


def test_ctrl_c_has_a_document(tmp_path: Path):
    path = config_file(tmp_path)
    # A process that was started in the background ignores Ctrl-C.
    stop = "signal.signal(signal.SIGINT, signal.default_int_handler)\nos.kill(os.getpid(), signal.SIGINT)\n"
    path.write_text(f"{path.read_text()}\nimport os, signal\n{stop}")
    code, document, lines = ask("data", f"--config={path}")
    assert faults(document, "error") == []
    assert (code, document["error"]["exit_code"], lines[-1]) == (130, 130, "interrupted")


def test_only_the_first_document_is_printed():
    stream = io.StringIO()
    document = Document(stream)
    document.show({"a": 1})
    document.show({"error": "later"})
    assert json.loads(stream.getvalue()) == {"verb": None, "format": FORMAT, "a": 1}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["list", "losses", "--quiet"], 5, "error: a stream: got the error 'No space left on device'"),
        (["tain"], 2, "error: verb: got 'tain'"),
    ],
)
def test_an_output_that_takes_nothing_ends_in_one_line(words: list[str], code: int, told: str):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*words, "--json"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(PYTHONUNBUFFERED=""),
        )
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(told)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_serve_prints_its_document_when_it_is_ready(place: Path, answers: dict[str, Answer], tmp_path: Path):
    folder = answers["export"].document["folder"]
    process = start(tmp_path, "serve", f"--export={folder}", "--port=0", "--json")
    assert process.stdout
    try:
        text = "".join(_lines_up_to(process.stdout, "}\n"))
        document = json.loads(text)
        assert faults(document, "serve") == []
        assert document["export"] == folder
        with urllib.request.urlopen(f"{document['address']}v2/models/{document['model']}") as answer:
            assert json.load(answer)["name"] == document["model"]
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, rest) == (0, "")
    assert "ready: mlp at" in errors


def _lines_up_to(stream: Any, last: str) -> Iterator[str]:
    for line in stream:
        yield line
        if line == last:
            return


@pytest.mark.slow
@pytest.mark.needs("peers")
def test_sync_tells_what_it_sent(place: Path, answers: dict[str, Answer], tmp_path: Path):
    shutil.copytree(answers["train"].document["workdir"], tmp_path / "run")
    with mlflow_server(tmp_path) as server:
        words = ("sync", f"--workdir={tmp_path / 'run'}", f"--uri={server.uri}")
        first = ask(*words)
        second = ask(*words)
    assert faults(first.document, "sync") == faults(second.document, "sync") == []
    (sent,) = first.document["sent"]
    assert sent["counts"]["row"] > 0
    assert sent["page"].startswith(server.uri)
    assert second.document["sent"] == [{**sent, "counts": {}}]


@pytest.mark.slow
def test_a_program_that_knows_the_page_alone_goes_from_a_table_to_a_tested_best_config(tmp_path: Path):
    write_table(tmp_path / "table.csv", 240)
    best, accuracy = search_table(tmp_path, "table.csv", "kind", run)
    assert (tmp_path / best).is_file()
    assert accuracy > 0.9
    assert accuracy == result_of(tmp_path / "by-train")["test"]["accuracy"]
