"""The command: arguments -> one call. Nothing heavy is imported before it is known what to do."""

import argparse
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxtrain.errors import JaxtrainError, JaxtrainWarning, UsageError, nearest
from jaxtrain.knobs import Text

VERBS = {
    "train": "trains a config, or resumes the run in its directory (the default verb)",
    "evaluate": "evaluates the best state of a run: evaluate --workdir=DIR",
    "lr_range": "tests learning rates, draws the curve and suggests one",
    "plan": "says what a config comes to (size, memory, time, what fits) and draws its schedules; trains nothing",
    "search": "searches search.space: many trials as lanes of few programs, then a report",
    "list": "lists the families, or the members of one with their knobs: list optimizers",
}
USAGE = "python -m jaxtrain.main [verb] --config=configs/x.py [--workdir=DIR] [--config.section.knob=value ...]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 usage or config, 3 data, 4 diverged, 5 storage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no such letter is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        overrides, rest = split_overrides(words)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(_parsed(rest), overrides)
    except JaxtrainError as error:
        if "--debug" in words:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:  # JAX's own is one
        if "--debug" in words or "out of memory" not in str(error).lower():
            raise
        size = "memory: given a model and batches that do not fit on the device; allowed: what `plan` says would fit"
        print(f"error: {size}. {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # a reader that went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Shows our own warnings as a line, and others by the name of what they are."""
    kind = "warning" if issubclass(category, JaxtrainWarning) else category.__name__
    print(f"{kind}: {message}", file=sys.stderr)


def run_command() -> NoReturn:
    """Runs the command as a process: the installed script `jaxtrain`."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: a user's own modules are found from where the command starts
    sys.exit(main())


def split_overrides(words: Sequence[str]) -> tuple[dict[str, Text], list[str]]:
    """Takes `--config.a.b=value` (or `--config.a.b value`) out of a command line: {"a.b": value}, and the rest."""
    overrides: dict[str, Text] = {}
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--config.").partition("=")
        if not all(key.split(".")):
            raise UsageError(f"{word}: given no whole name of a key; allowed: --config.section.knob=VALUE")
        if not equals and (value := next(remaining, "--")).startswith("--"):
            raise UsageError(f"--config.{key}: given no value; allowed: --config.{key}=VALUE")
        if key in overrides:
            raise UsageError(f"--config.{key}: given twice, {str(overrides[key])!r} and {value!r}; allowed: once")
        overrides[key] = Text(value)
    return overrides, rest


class _Parser(argparse.ArgumentParser):
    """Raises our own error in one line, where argparse prints its usage first."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"command line: {message}; allowed: {USAGE}")


class _Once(argparse.Action):
    """Keeps an option's value, and refuses a second one."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise UsageError(f"{option}: given twice, {getattr(namespace, self.dest)!r} and {value!r}; allowed: once")
        if not value:
            raise UsageError(f"{option}: given nothing; allowed: {option}={self.metavar}")
        setattr(namespace, self.dest, value)


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {verb:<10}{line}" for verb, line in VERBS.items())
    parser = _Parser(
        "jaxtrain",
        usage=USAGE,
        allow_abbrev=False,
        epilog=f"verbs:\n{verbs}\n\n--config.KEY=VALUE overrides a key of the config, at any depth; 'list' shows them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--config", action=_Once, metavar="FILE", help="a .py file with get_config(), or a config.json")
    parser.add_argument("--workdir", action=_Once, metavar="DIR", help="the run's directory (runs/<config>-<hash>)")
    parser.add_argument("--quiet", action="store_true", help="prints errors alone")
    parser.add_argument("--debug", action="store_true", help="shows the traceback of an error")
    return parser


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """Parses what is left of the command line; options and words may stand in any order."""
    parser = _parser()
    options, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        allowed = [option for action in parser._actions for option in action.option_strings]
        hint = nearest(unknown[0].partition("=")[0], allowed)
        shown = ", ".join([*allowed, "--config.KEY=VALUE"])
        raise UsageError(
            f"command line: given the unknown option {unknown[0]!r}; allowed: {shown}. {hint}".rstrip(" .")
        )
    return options


def _run(options: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    warnings.simplefilter("ignore" if options.quiet else "default", JaxtrainWarning)
    verb, *more = options.words or ["train"]
    if verb not in VERBS:
        raise UsageError(f"verb: given {verb!r}; allowed: {', '.join(VERBS)}. {nearest(verb, VERBS)}".strip())
    if len(more) > (1 if verb == "list" else 0):
        raise UsageError(f"{verb}: given the stray argument {more[-1]!r}; allowed: {USAGE}")
    if verb == "list":
        if overrides or options.config or options.workdir:
            raise UsageError("list: given a config or a directory; allowed: list, or list NAME, which read neither")
        return _list(more)
    runner = {"train": _train, "evaluate": _evaluate, "lr_range": _lr_range, "search": _search, "plan": _plan}[verb]
    return runner(options, overrides)


def _list(names: list[str]) -> int:
    from jaxtrain.listing import families, members

    print("\n".join(members(names[0]) if names else families()))
    return 0


def _train(options: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    config, workdir = _configured(options, overrides)
    from jaxtrain.compilation import use_persistent_cache
    from jaxtrain.report import train_report
    from jaxtrain.train import train_and_evaluate

    if config["train"]["seeds"] > 1:
        use_a_host_device_per_core()
    use_persistent_cache()
    result = train_and_evaluate(config, workdir, quiet=options.quiet)
    if not options.quiet:
        print("\n".join(train_report(result, workdir)))
    elif result.status == "diverged":
        print(f"error: {result.reason}", file=sys.stderr)
    return result.exit_code


def _lr_range(options: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    use_a_host_device_per_core()
    config, workdir = _configured(options, overrides)
    from jaxtrain.compilation import use_persistent_cache
    from jaxtrain.range_test import lr_range
    from jaxtrain.report import ALL_DIVERGED, lr_range_report

    use_persistent_cache()
    result = lr_range(config, workdir)
    if not options.quiet:
        kept = {k: v for k, v in overrides.items() if not k.startswith("lr_range.") and k != result.target}
        chosen = [f"--config={options.config}", *(f"--config.{key}={value}" for key, value in kept.items())]
        print("\n".join(lr_range_report(result, chosen, workdir)))
    elif result.status == "diverged":
        print(f"error: {ALL_DIVERGED}", file=sys.stderr)
    return 0 if result.status == "done" else 4


def _plan(options: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    config, workdir = _configured(options, overrides)
    from jaxtrain.compilation import use_persistent_cache
    from jaxtrain.plan import plan
    from jaxtrain.report import plan_report
    from jaxtrain.run_directory import demand_own

    if config["train"]["seeds"] > 1:
        use_a_host_device_per_core()
    use_persistent_cache()
    # In a directory that was asked for; else beside the one that training would make, which this must not make.
    picture = workdir / "plan.png" if options.workdir else workdir.with_name(f"{workdir.name}-plan.png")
    if options.workdir:
        demand_own(workdir, config)
    found = plan(config, picture)
    if not options.quiet:
        print("\n".join(plan_report(found, picture, _again(options, overrides))))
    return 0


def _again(options: argparse.Namespace, overrides: Mapping[str, Any]) -> list[str]:
    """Returns the options of a command that chose the config and the directory."""
    chosen = [f"--config={options.config}", *(f"--config.{key}={value}" for key, value in overrides.items())]
    return chosen + ([f"--workdir={options.workdir}"] if options.workdir else [])


def _search(options: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    use_a_host_device_per_core()
    config, workdir = _configured(options, overrides)
    from jaxtrain.compilation import use_persistent_cache
    from jaxtrain.report import NOTHING_LEFT, search_report
    from jaxtrain.search import search

    use_persistent_cache()
    result = search(config, workdir, quiet=options.quiet)
    if not options.quiet:
        print("\n".join(search_report(result, _again(options, overrides))))
    elif result.status == "diverged":
        print(f"error: {NOTHING_LEFT}", file=sys.stderr)
    return result.exit_code


def use_a_host_device_per_core() -> None:
    """Makes a device of each core of a CPU, for lanes; before JAX starts, and never over a user's own XLA_FLAGS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")


def _configured(options: argparse.Namespace, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Resolves the config, shows it, and chooses the directory."""
    if options.config is None:
        raise UsageError(f"--config: given nothing; allowed: {USAGE}")
    from jaxtrain import config as configs
    from jaxtrain.listing import config_lines
    from jaxtrain.run_directory import from_default

    path = Path(options.config)
    loaded = configs.load(path, overrides)
    if not options.quiet:
        lines = [*loaded.notes, *config_lines(loaded.config, from_default(loaded.config))]
        print("\n".join(lines), flush=True)
    default = Path("runs") / f"{_name(path)}-{configs.digest(loaded.config)}"
    return loaded.config, Path(options.workdir or default)


def _name(path: Path) -> str:
    """Returns what a run is called after: the config file, or for a run's config.json the directory it lies in."""
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def _evaluate(options: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    if options.workdir is None:
        raise UsageError("--workdir: given nothing; allowed: evaluate --workdir=DIR, the directory of a run")
    if overrides or options.config:
        raise UsageError("evaluate: given a config; allowed: evaluate --workdir=DIR, whose own config.json is used")
    from jaxtrain.compilation import use_persistent_cache
    from jaxtrain.report import evaluation_report
    from jaxtrain.runs import evaluate

    use_persistent_cache()
    found = evaluate(options.workdir)
    if not options.quiet:
        print("\n".join(evaluation_report(found, Path(options.workdir))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
