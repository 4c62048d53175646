"""Command line: parses the arguments and runs one command.

Modules that import JAX are imported only when a command needs them, so `--help` and usage errors are fast.
"""

import contextlib
import importlib
import io
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jaxtrain.commands.document import Document
from jaxtrain.commands.flags import FLAGS, field_of, parse, values_of
from jaxtrain.commands.options import USAGE, Options, split_overrides, use_recorded_float64
from jaxtrain.config.own_code import explain, text_of
from jaxtrain.errors import (
    InterruptError,
    JaxtrainError,
    JaxtrainWarning,
    OnlyInOrderError,
    UsageError,
    Words,
    nearest,
    one_of,
)
from jaxtrain.files import storage_error


class Command(NamedTuple):
    """A verb: its module in `jaxtrain.commands`, which option it reads, a line of help.

    It reads "config", "workdir", "export", "model", which is a directory of a run or of an export, "pair", which is two
    directories of runs, or none.

    `run(options)` of the module returns the exit code. `words` are those that may follow the verb: none, one ("NAME"),
    or one or more ("DIR...").
    """

    module: str
    reads: str | None
    help: str
    words: str = ""


COMMANDS = {
    "train": Command("train", "config", "trains a config, or resumes the run in its directory (the default verb)"),
    "evaluate": Command("evaluate", "workdir", "evaluates the best state of a run: evaluate --workdir=DIR"),
    "data": Command("data", "config", "reports what was understood of the data, and draws examples, without training"),
    "prepare": Command(
        "prepare", "config", "writes data to arrays once, also what can only be read in order: --output=DIR"
    ),
    "lr_range": Command("lr_range", "config", "runs a learning-rate range test, plots it and suggests a rate"),
    "plan": Command("plan", "config", "reports parameters, memory and time, and plots the schedules, without training"),
    "check": Command("check", "config", "asks why a config might not train, before it does: --only=a,b --skip=a,b"),
    "replay": Command(
        "replay", "workdir", "takes one step of a run again and looks at it: replay --workdir=DIR --step=N [--save]"
    ),
    "search": Command("search", "config", "searches search.space, many trials per program, and writes a report"),
    "export": Command("export", "workdir", "writes a run as files that JAX alone runs: export --workdir=DIR"),
    "sync": Command(
        "sync", "workdir", "sends to an MLflow server what it lacks of a run or a search: sync --workdir=DIR"
    ),
    "serve": Command("serve", "export", "answers requests with an exported model: serve --export=DIR [--port=8000]"),
    "predict": Command(
        "predict", "model", "predicts from files: predict --workdir=DIR|--export=DIR --data=FILES --output=FILE"
    ),
    "compare": Command(
        "compare", None, "compares finished runs, over seeds and by seed, and plots them: compare DIR...", "DIR..."
    ),
    "diff": Command("diff", "pair", "says where two runs, or two searches, part: diff DIR DIR", "DIR..."),
    "report": Command("report", "workdir", "writes a run as a page that opens offline: report --workdir=DIR"),
    "list": Command(
        "listing", None, "lists the families, or one family's members and their knobs: list optimizers", "NAME"
    ),
}


UNREAD: dict[str | None, tuple[str, ...]] = {
    "config": (),
    "workdir": ("--config",),
    "model": ("--config",),
    "pair": ("--config", "--workdir"),
    "export": ("--config", "--workdir", "--trust"),
    None: ("--config", "--workdir", "--trust"),
}
"""The thing that a verb reads -> the options for other things to read, which it does not take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code.

    0 done, 2 usage or config, 3 data, 4 diverged, 5 storage, 6 a check that found a fault.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the encoding of the terminal may lack a character
            stream.reconfigure(errors="backslashreplace")
    document = Document(sys.stdout if "--json" in words else None)
    try:
        with warnings.catch_warnings(), document.reserve_output():
            warnings.showwarning = _show_warning
            code = _run(words, document)
            sys.stdout.flush()
            return code
    except JaxtrainError as error:
        if "--debug" in words:
            traceback.print_exc()
        else:
            print(error.frames, file=sys.stderr, end="\n" if error.frames else "")
        return _end(error, document)
    except RuntimeError as error:  # jax.errors.JaxRuntimeError among them
        if "--debug" in words or not _is_out_of_memory(error):
            raise
        got = Words(f"a program that does not fit ({str(error).splitlines()[0]})")
        hint = "Reduce the model or the batch size; `plan` reports what fits"
        return _end(UsageError("device memory", got, "a program that fits", hint), document)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        error = InterruptError("signal", Words("SIGINT"), "the command to end by itself", "Run it again")
        _show_error(error, document)
        return error.exit_code
    except BrokenPipeError:  # the reader closed the pipe (`| head`)
        _discard_output()
        return 0
    except OSError as error:  # of a library or a stream, since our own modules raise StorageError
        if "--debug" in words:
            raise
        return _end(storage_error(Path(str(error.filename or "a stream")), "used", error), document)


def _end(error: JaxtrainError, document: Document) -> int:
    """Says what an error is, as a line and in the document; returns its exit code."""
    print(f"error: {error}", file=sys.stderr)
    _show_error(error, document)
    return error.exit_code


def _show_error(error: JaxtrainError, document: Document) -> None:
    with contextlib.suppress(OSError):  # the output cannot be written, which may be the error itself
        document.show({"error": error.to_json()})
    _discard_output()


def _discard_output() -> None:
    """Discards what the standard output cannot take: Python would fail on it again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Opens the null device for each standard stream that the shell closed (`2>&-`).

    The first files of a run would take their numbers, and libraries would write messages into them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number is that of the stream
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the process ends)


def _mute_libraries() -> None:
    """Keeps this process from printing tracebacks of libraries beside our one line, for what is raised here as well.

    After a failed save, Orbax's threads and coroutines that it gave up complain, some only when the process ends.
    """
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda thread: print(
        f"{thread.thread.name if thread.thread else 'thread'}: {thread.exc_type.__name__}: {thread.exc_value}",
        file=sys.stderr,
    )
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    asyncio_log = logging.getLogger("asyncio")
    asyncio_log.propagate = False
    asyncio_log.addHandler(logging.NullHandler())  # without any handler, logging prints what is not passed on


def run_command() -> NoReturn:
    """Entry point of the installed script `jaxtrain`: runs the command and exits with its code."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does, so that modules in the current folder can be imported
    _open_closed_streams()
    if "--debug" not in sys.argv:
        _mute_libraries()
    sys.exit(main())


def _run(words: Sequence[str], document: Document) -> int:
    overrides, rest = split_overrides(words)
    helps = {verb: command.help for verb, command in COMMANDS.items()}
    parsed = parse(rest, helps, {verb: UNREAD[command.reads] for verb, command in COMMANDS.items()})
    warnings.simplefilter("ignore" if parsed.quiet else "default", JaxtrainWarning)
    verb, *more = parsed.words or ["train"]
    if verb not in COMMANDS:
        raise UsageError("verb", verb, one_of(COMMANDS), nearest(verb, COMMANDS))
    document.verb = verb
    _check_words(verb, more)
    options = Options(tuple(more), overrides, document, **values_of(parsed))
    _check_options(verb, options)
    if COMMANDS[verb].reads in ("workdir", "model") and options.workdir is not None:
        use_recorded_float64(Path(options.workdir))
    try:
        return importlib.import_module(f"jaxtrain.commands.{COMMANDS[verb].module}").run(options)
    except OnlyInOrderError as error:
        if options.config is None:
            raise
        raise options.explain_preparation(error) from error
    except (JaxtrainError, KeyboardInterrupt, BrokenPipeError):
        raise
    except BaseException as error:  # SystemExit among them, and what no `except Exception` knows
        explained = None if _is_out_of_memory(error) else explain(error)
        if explained is None:
            raise
        raise explained from error


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "out of memory" in text_of(error).lower()


def _check_words(verb: str, words: Sequence[str]) -> None:
    """Raises UsageError for words after a verb that takes none or fewer, and where some are missing."""
    allowed = COMMANDS[verb].words
    if allowed == "DIR..." and not words:
        raise UsageError(verb, Words("nothing"), "directories of runs, or folders of many", f"Give {verb} DIR...")
    if allowed != "DIR..." and len(words) > (1 if allowed else 0):
        expected = "at most one name" if allowed else "options alone"
        raise UsageError(verb, Words(f"the stray argument {words[-1]!r}"), expected, f"Usage: {USAGE}")


def _check_options(verb: str, options: Options) -> None:
    """Raises UsageError for a missing or needless --config or --workdir, before anything heavy is imported."""
    reads = COMMANDS[verb].reads
    if reads == "config" and options.config is None:
        raise UsageError("--config", Words("nothing"), "a config file", f"Usage: {USAGE}")
    if reads == "workdir" and options.workdir is None:
        raise UsageError("--workdir", Words("nothing"), "the directory of a run", f"Give {verb} --workdir=DIR")
    if reads == "export":
        _check_export(verb, options)
    if reads == "model":
        _check_model(verb, options)
    if reads in ("workdir", "model") and (options.config or options.overrides):
        hint = "Leave the config and its overrides out: the run's own config.json is used"
        raise UsageError(verb, Words("a config"), "--workdir=DIR alone", hint)
    if options.output is None and verb == "prepare":
        raise UsageError("--output", Words("nothing"), "the folder to write", "Give prepare --config=FILE --output=DIR")
    for name, flag in FLAGS.items():
        if flag.verbs and verb not in flag.verbs and getattr(options, field_of(name)) not in (None, False, ()):
            raise UsageError(verb, Words(name), f"it with {one_of(flag.verbs)} alone", f"Leave {name} out")
    if reads is None and options.trust:
        raise UsageError(verb, Words("--trust"), "it with a config or a directory alone", "Leave --trust out")
    if reads in (None, "pair") and (options.config or options.overrides or options.workdir):
        hint = "Leave --config and --workdir out"
        raise UsageError(verb, Words("a config or a directory"), f"{verb} {COMMANDS[verb].words}", hint)


def _check_export(verb: str, options: Options) -> None:
    """Raises UsageError unless an export alone is given to read."""
    if options.export is None:
        raise UsageError("--export", Words("nothing"), "the directory of an export", f"Give {verb} --export=DIR")
    if options.config or options.overrides or options.workdir or options.trust:
        raise UsageError(verb, Words("a config or a directory of a run"), "--export=DIR alone", "Leave them out")


def _check_model(verb: str, options: Options) -> None:
    """Raises UsageError unless there is one model, data for it and an output."""
    if (options.workdir is None) == (options.export is None):
        got = Words("nothing" if options.workdir is None else "both")
        raise UsageError("--workdir or --export", got, "the directory of a run, or that of an export")
    if not options.data:
        raise UsageError("--data", Words("nothing"), "files to predict from", f"Give {verb} --data=FILES")
    if options.output is None:
        expected = "the file to write, named *.csv, *.jsonl, *.parquet or *.npz, or a folder for masks"
        raise UsageError("--output", Words("nothing"), expected)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Prints a warning as one line: our own as `warning: ...`, others under the name of their class."""
    kind = "warning" if issubclass(category, JaxtrainWarning) else category.__name__
    print(f"{kind}: {message}", file=sys.stderr)


if __name__ == "__main__":
    run_command()
