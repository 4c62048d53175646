"""Command line: parses the arguments and runs one command.

Modules that import JAX are imported only when a command needs them, so `--help` and usage errors are fast.
"""

import argparse
import importlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jaxtrain.commands.options import USAGE, Options, split_overrides
from jaxtrain.errors import (
    JaxtrainError,
    JaxtrainWarning,
    OnlyInOrderError,
    StorageError,
    UsageError,
    Words,
    message,
    nearest,
    one_of,
)
from jaxtrain.files import storage_error


class Command(NamedTuple):
    """A verb: its module in `jaxtrain.commands`, which option it reads ("config", "workdir" or none), a line of help.

    `run(options)` of the module returns the exit code.
    """

    module: str
    reads: str | None
    help: str


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
    "search": Command("search", "config", "searches search.space, many trials per program, and writes a report"),
    "export": Command("export", "workdir", "writes a run as files that JAX alone runs: export --workdir=DIR"),
    "list": Command("listing", None, "lists the families, or one family's members and their knobs: list optimizers"),
}

VERBS_OF = {
    "--accept-edited": ("train", "search"),  # which resume from the files of a directory
    "--seed": ("export",),
    "--output": ("export", "prepare"),
    "--ensemble": ("export",),
    "--only": ("check",),
    "--skip": ("check",),
}
"""Option -> the verbs that read it; all verbs read the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code.

    0 done, 2 usage or config, 3 data, 4 diverged, 5 storage, 6 a check that found a fault.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the encoding of the terminal may lack a character
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = _run(words)
            sys.stdout.flush()
            return code
    except JaxtrainError as error:
        if "--debug" in words:
            traceback.print_exc()
        else:
            print(error.frames, file=sys.stderr, end="\n" if error.frames else "")
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:  # jax.errors.JaxRuntimeError among them
        if "--debug" in words or "out of memory" not in str(error).lower():
            raise
        got = Words(f"a program that does not fit ({str(error).splitlines()[0]})")
        hint = "Reduce the model or the batch size; `plan` reports what fits"
        print(f"error: {message('device memory', got, 'a program that fits', hint)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader closed the pipe (`| head`)
        _discard_output()
        return 0
    except OSError as error:  # of a library or a stream, since our own modules raise StorageError
        if "--debug" in words:
            raise
        print(f"error: {storage_error(Path(str(error.filename or 'a stream')), 'used', error)}", file=sys.stderr)
        _discard_output()
        return StorageError.exit_code


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


def _run(words: Sequence[str]) -> int:
    overrides, rest = split_overrides(words)
    parsed = _parse(rest)
    warnings.simplefilter("ignore" if parsed.quiet else "default", JaxtrainWarning)
    verb, *more = parsed.words or ["train"]
    if verb not in COMMANDS:
        raise UsageError("verb", verb, one_of(COMMANDS), nearest(verb, COMMANDS))
    if len(more) > (1 if verb == "list" else 0):
        expected = "at most one name" if verb == "list" else "options alone"
        raise UsageError(verb, Words(f"the stray argument {more[-1]!r}"), expected, f"Usage: {USAGE}")
    options = Options(
        tuple(more),
        overrides,
        parsed.config,
        parsed.workdir,
        parsed.quiet,
        parsed.accept_edited,
        tuple(parsed.trust),
        parsed.seed,
        parsed.output,
        parsed.ensemble,
        parsed.only,
        parsed.skip,
    )
    _check_options(verb, options)
    try:
        return importlib.import_module(f"jaxtrain.commands.{COMMANDS[verb].module}").run(options)
    except OnlyInOrderError as error:
        if options.config is None:
            raise
        raise options.explain_preparation(error) from error


def _check_options(verb: str, options: Options) -> None:
    """Raises UsageError for a missing or needless --config or --workdir, before anything heavy is imported."""
    reads = COMMANDS[verb].reads
    if reads == "config" and options.config is None:
        raise UsageError("--config", Words("nothing"), "a config file", f"Usage: {USAGE}")
    if reads == "workdir" and options.workdir is None:
        raise UsageError("--workdir", Words("nothing"), "the directory of a run", f"Give {verb} --workdir=DIR")
    if reads == "workdir" and (options.config or options.overrides):
        hint = "Leave the config and its overrides out: the run's own config.json is used"
        raise UsageError(verb, Words("a config"), "--workdir=DIR alone", hint)
    if options.output is None and verb == "prepare":
        raise UsageError("--output", Words("nothing"), "the folder to write", "Give prepare --config=FILE --output=DIR")
    for option, verbs in VERBS_OF.items():
        if getattr(options, option.removeprefix("--").replace("-", "_")) not in (None, False) and verb not in verbs:
            raise UsageError(verb, Words(option), f"it with {one_of(verbs)} alone", f"Leave {option} out")
    if reads is None and options.trust:
        raise UsageError(verb, Words("--trust"), "it with a config or a directory alone", "Leave --trust out")
    if reads is None and (options.config or options.overrides or options.workdir):
        hint = "Leave --config and --workdir out"
        raise UsageError(verb, Words("a config or a directory"), f"{verb} or {verb} NAME", hint)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Prints a warning as one line: our own as `warning: ...`, others under the name of their class."""
    kind = "warning" if issubclass(category, JaxtrainWarning) else category.__name__
    print(f"{kind}: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Argument parser that raises UsageError in place of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        option, _, reason = message.removeprefix("argument ").partition(": ")
        got = "nothing" if reason == "expected one argument" else reason.replace("ignored", "the") or message
        raise UsageError(
            option if reason else "command line", Words(got), "options of the usual form", f"Usage: {USAGE}"
        )


class _Once(argparse.Action):
    """Stores an option's value; rejects a repeated option and an empty value."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            got = Words(f"two values, {getattr(namespace, self.dest)!r} and {value!r}")
            raise UsageError(str(option), got, "one value")
        if not value:
            raise UsageError(str(option), Words("nothing"), f"{option}={self.metavar}")
        setattr(namespace, self.dest, value)


class _OneInteger(_Once):
    """Stores an option's value as an integer; rejects other texts."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        super().__call__(parser, namespace, value, option)
        try:
            setattr(namespace, self.dest, int(value))
        except ValueError as error:
            raise UsageError(str(option), value, "an integer") from error


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {verb:<10}{command.help}" for verb, command in COMMANDS.items())
    parser = _Parser(
        "jaxtrain",
        usage=USAGE,
        allow_abbrev=False,
        epilog=f"verbs:\n{verbs}\n\n--config.KEY=VALUE overrides any key of the config; 'list' shows the keys.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--config", action=_Once, metavar="FILE", help="a .py file with get_config(), or a config.json")
    parser.add_argument(
        "--workdir", action=_Once, metavar="DIR", help="the run's directory (default: runs/<config>-<hash>)"
    )
    parser.add_argument("--quiet", action="store_true", help="prints only errors")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="lets a config.json of somebody else name functions of a module",
    )
    parser.add_argument(
        "--accept-edited", action="store_true", help="takes files of the run that were changed by others as they stand"
    )
    parser.add_argument("--seed", action=_OneInteger, metavar="N", help="of a run of several seeds, the one to export")
    parser.add_argument("--ensemble", action="store_true", help="exports all seeds of a run, joined")
    parser.add_argument(
        "--output",
        action=_Once,
        metavar="DIR",
        help="the folder that prepare or export writes (export: in the run's directory)",
    )
    parser.add_argument("--only", action=_Once, metavar="NAMES", help="the questions of check to ask, with commas")
    parser.add_argument("--skip", action=_Once, metavar="NAMES", help="the questions of check to leave out")
    parser.add_argument("--debug", action="store_true", help="prints the traceback of an error")
    return parser


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses the command line without its overrides; options and words may come in any order."""
    parser = _parser()
    options, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        hint = nearest(unknown[0].partition("=")[0], known)
        got = Words(f"the unknown option {unknown[0]!r}")
        raise UsageError("command line", got, one_of([*known, "--config.KEY=VALUE"]), hint)
    return options


if __name__ == "__main__":
    run_command()
