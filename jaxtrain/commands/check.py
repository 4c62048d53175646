"""The command `check`: asks why a config might not train, before it does."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrain.check.answers import Answer
from jaxtrain.check.ask import TIME_OVER, ask, exit_code, to_json
from jaxtrain.check.context import Context
from jaxtrain.check.questions import GROUPS, questions_of
from jaxtrain.commands.check_pictures import draw
from jaxtrain.commands.options import Options, command, join
from jaxtrain.files import demand_writable, list_directory, make_directory, write_bytes, write_json
from jaxtrain.trackers.progress import plain_lines

WIDTH = 19
"""Characters of the longest name of a question, and a space."""


def run(options: Options) -> int:
    """Asks the questions, prints a line each, and writes `check/`; returns 6 where there is a fault, else 0."""
    config, workdir = options.resolve()
    questions = questions_of(config["check"]["questions"], _names(options.only), _names(options.skip) or ())
    from jaxtrain.parallel.compilation import use_persistent_cache

    use_persistent_cache()
    folder = workdir / "check"
    demand_writable(folder / "result.json")
    context = Context(config, say=plain_lines(options.quiet).say)
    began = time.perf_counter()
    answers: dict[str, Answer] = {}
    for name, answer in ask(context, questions):
        options.show([*_heading(name, list(answers)), *answer_lines(name, answer)])
        answers[name] = answer
    make_directory(folder)
    for name, png in draw(context, answers):
        write_bytes(folder / name, png)
    write_json(folder / "config.json", config)
    result = to_json(answers, time.perf_counter() - began)
    write_json(folder / "result.json", result)
    found = [name for name, answer in answers.items() if answer.status == "fault"]
    error = f"check: got a fault in {', '.join(found)}; expected none. See {folder / 'result.json'}" if found else ""
    options.show(_last_lines(result, folder, options), error)
    options.document.show({**result, "files": [str(folder / name) for name in list_directory(folder)]})
    return exit_code(answers)


def answer_lines(name: str, answer: Answer) -> list[str]:
    """Formats one answer: a line, and for what is not ok two more on what it means and what to do."""
    status = answer.status.upper() if answer.status == "fault" else answer.status
    lines = [f"  {status:<10}{name:<{WIDTH}} {answer.measured}"]
    if answer.meaning:
        indent = " " * (13 + WIDTH)
        lines += [f"{indent}it means: {answer.meaning}", f"{indent}do: {answer.remedy}"]
    return lines


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name for name in text.split(",") if name)


def _heading(name: str, before: list[str]) -> list[str]:
    """Returns the heading of a group of questions before its first one."""
    group = _group_of(name)
    return [f"{group}:"] if not before or _group_of(before[-1]) != group else []


def _group_of(name: str) -> str:
    return next((group for group, questions in GROUPS.items() if name in questions), "your own")


def _last_lines(result: Mapping[str, Any], folder: Path, options: Options) -> list[str]:
    answers = result["answers"]
    told = ", ".join(f"{count} {status}" for status, count in result["counts"].items())
    chosen = options.again()
    bad = [name for name, answer in answers.items() if answer["status"] == "fault"]
    words = ["check", *chosen, f"--only={','.join(bad)}"] if bad else chosen
    late = [name for name, answer in answers.items() if answer["measured"].endswith(TIME_OVER)]
    return [
        f"{len(answers)} questions in {result['seconds']:.0f} s: {told}",
        *([f"nothing is known of {', '.join(late)}: raise check.seconds, or choose questions by --only"] * bool(late)),
        f"wrote {folder}/: {', '.join(list_directory(folder))}",
        "next:",
        f"  {command()} {join(words)}",
    ]
