"""The options of the command line, in one table: how each is read, what it means, and which verbs take it."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from jaxtrain.commands.options import USAGE
from jaxtrain.errors import UsageError, Words, nearest, one_of


class Once(argparse.Action):
    """Stores an option's value; rejects a repeated option and an empty value."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        """Stores the value."""
        if getattr(namespace, self.dest) is not None:
            got = Words(f"two values, {getattr(namespace, self.dest)!r} and {value!r}")
            raise UsageError(str(option), got, "one value")
        if not value:
            raise UsageError(str(option), Words("nothing"), f"{option}={self.metavar}")
        setattr(namespace, self.dest, value)


class Several(argparse.Action):
    """Stores the values of an option that may be repeated; rejects an empty value, a name of the current folder."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        """Adds the value to those before it."""
        if not value:
            raise UsageError(str(option), Words("nothing"), f"{option}={self.metavar}")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), value])


class Number(Once):
    """Stores an option's value as a number; rejects other texts."""

    kind: type[int] | type[float] = float
    expected = "a number"

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        """Stores the number."""
        super().__call__(parser, namespace, value, option)
        try:
            setattr(namespace, self.dest, self.kind(value))
        except ValueError as error:
            raise UsageError(str(option), value, self.expected) from error


class Integer(Number):
    """Stores an option's value as an integer; rejects other texts."""

    kind = int
    expected = "an integer"


class Count(Integer):
    """Stores an option's value as an integer from 1 on."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        """Stores the count."""
        super().__call__(parser, namespace, value, option)
        if getattr(namespace, self.dest) < 1:
            raise UsageError(str(option), value, "an integer, at least 1")


class Port(Integer):
    """Stores an option's value as the number of a port."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        """Stores the port."""
        super().__call__(parser, namespace, value, option)
        if not 0 <= getattr(namespace, self.dest) < 2**16:
            raise UsageError(str(option), value, "a port from 1 to 65535, or 0 for any free one")


class Flag(NamedTuple):
    """One option: its meaning, how its value is called and stored, and the verbs that take it, all where none is named.

    One without a value is on where it is given. The action `Several` allows it several times.
    """

    help: str
    value: str | None = None
    action: Any = Once
    verbs: tuple[str, ...] = ()

    def add_to(self, parser: argparse.ArgumentParser, name: str, *, of_verb: bool = False) -> None:
        """Adds the option to a parser, whose help says which verbs take it unless it is that of one verb."""
        meaning = ": ".join(filter(None, ("" if of_verb else ", ".join(self.verbs), self.help)))
        if self.value is None:
            parser.add_argument(name, action="store_true", help=meaning)
        else:
            default = [] if self.action is Several else None
            parser.add_argument(name, action=self.action, metavar=self.value, default=default, help=meaning)


FLAGS = {
    "--config": Flag("a .py file with get_config(), or a config.json", "FILE"),
    "--workdir": Flag("the run's directory (default: runs/<config>-<hash>)", "DIR"),
    "--quiet": Flag("prints only errors"),
    "--trust": Flag("lets a config.json of somebody else name functions of a module", "MODULE", Several),
    "--accept-edited": Flag(
        "accepts files of the run that others changed",
        verbs=("train", "search"),  # which resume from the files of a directory
    ),
    "--seed": Flag("of a run of several seeds, the one to take", "N", Integer, ("export", "predict", "replay")),
    "--fold": Flag("of a run of folds, the one to take", "N", Integer, ("export", "predict", "replay")),
    "--step": Flag(
        "the step to look at: the one that takes the state after N steps to the next", "N", Integer, ("replay",)
    ),
    "--trial": Flag("of a search, the trial to take", "N", Integer, ("replay",)),
    "--save": Flag("writes the state before the step and its batch as .npz", verbs=("replay",)),
    "--output": Flag(
        "the folder or file to write; export writes to the run's directory where there is none",
        "PATH",
        verbs=("export", "prepare", "predict", "compare"),
    ),
    "--profile": Flag("the number of steps that JAX's profiler traces", "STEPS", Count, ("train",)),
    "--ensemble": Flag("joins all seeds of a run", verbs=("export",)),
    "--precision": Flag("the type of the weights: float32 (default) or bfloat16", "TYPE", verbs=("export",)),
    "--quantize": Flag("the type to which weights are rounded: int8", "TYPE", verbs=("export",)),
    "--format": Flag(
        "what is written beside program and weights: onnx, mlflow, or both with a comma (default: what is installed)",
        "NAMES",
        verbs=("export",),
    ),
    "--export": Flag("the directory of an export", "DIR", verbs=("predict", "serve")),
    "--data": Flag(
        "a file, a folder or a pattern such as 'new/*.png'; may be repeated",
        "FILES",
        Several,
        ("predict",),
    ),
    "--skip-bad": Flag("leaves out examples that cannot be read", verbs=("predict",)),
    "--length": Flag("of a text, the tokens that are written (default: 200)", "N", Count, ("predict",)),
    "--temperature": Flag(
        "of a text, 1 draws as the model says (default), 0 takes the most probable token", "T", Number, ("predict",)
    ),
    "--top-k": Flag("of a text, draws from the K most probable tokens (default: all)", "K", Count, ("predict",)),
    "--host": Flag("the address to serve at (default: 127.0.0.1)", "NAME", verbs=("serve",)),
    "--port": Flag("the port to serve at (default: 8000; 0: any free)", "N", Port, ("serve",)),
    "--deadline": Flag("in which a request is answered or refused (default: 30)", "SECONDS", Count, ("serve",)),
    "--most-requests": Flag("of requests that are taken at a time (default: 128)", "N", Count, ("serve",)),
    "--most-megabytes": Flag("of a request, at most (default: 16)", "N", Count, ("serve",)),
    "--uri": Flag("the MLflow server to send to (default: that of the config)", "ADDRESS", verbs=("sync",)),
    "--metric": Flag("the metric to compare (default: eval.metric)", "NAME", verbs=("compare",)),
    "--sort": Flag("best, last, test, seconds, name, or a key that differs", "KEY", verbs=("compare",)),
    "--json": Flag("prints one JSON document (docs/json.md); lines for people go to the standard error"),
    "--only": Flag("the questions to ask, with commas", "NAMES", verbs=("check",)),
    "--skip": Flag("the questions to leave out, with commas", "NAMES", verbs=("check",)),
    "--debug": Flag("prints the traceback of an error"),
}
"""Option -> what it is. Each is a field of `Options`, but those of OF_MAIN."""

HELP = {"-h", "--help"}

OF_MAIN = ("--debug", "--json")
"""The options that say how a command ends, which holds also where the others cannot be read."""


def field_of(name: str) -> str:
    """Returns the field of `Options` that holds an option: "--skip-bad" is `skip_bad`."""
    return name.removeprefix("--").replace("-", "_")


def values_of(parsed: argparse.Namespace) -> dict[str, Any]:
    """Returns the values of the options by their fields of `Options`, those given several times as tuples."""
    values = {field_of(name): getattr(parsed, field_of(name)) for name in FLAGS if name not in OF_MAIN}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def parse(
    words: Sequence[str], verbs: Mapping[str, str], unread: Mapping[str, Sequence[str]] | None = None
) -> argparse.Namespace:
    """Parses the command line without its overrides; options and words may come in any order.

    `verbs` are name -> help. With --help, prints the options, those of the verb where there is one, and exits; `unread`
    are further options that a verb does not take. Raises UsageError for what is no option, and for a value that an
    option does not take.
    """
    verb = next((word for word in words if word in verbs), None)
    if verb is not None and not HELP.isdisjoint(words):
        _parser_of(verb, verbs[verb], (unread or {}).get(verb, ())).parse_args(["--help"])
    parser = _parser(verbs)
    options, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        hint = nearest(unknown[0].partition("=")[0], known)
        got = Words(f"the unknown option {unknown[0]!r}")
        raise UsageError("command line", got, one_of([*known, "--config.KEY=VALUE"]), hint)
    return options


def _parser_of(verb: str, meaning: str, unread: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of one verb, which is asked for its help alone."""
    parser = _Parser(
        "jaxtrain", usage=f"python -m jaxtrain.main {verb} [options]", description=meaning, allow_abbrev=False
    )
    for name, flag in FLAGS.items():
        if name not in unread and (not flag.verbs or verb in flag.verbs):
            flag.add_to(parser, name, of_verb=True)
    if "--config" not in unread:
        parser.epilog = "--config.KEY=VALUE overrides any key of the config; 'list' shows the keys."
    return parser


def _parser(verbs: Mapping[str, str]) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {verb:<10}{meaning}" for verb, meaning in verbs.items())
    parser = _Parser(
        "jaxtrain",
        usage=USAGE,
        allow_abbrev=False,
        epilog=f"verbs:\n{listed}\n\n--config.KEY=VALUE overrides any key of the config; 'list' shows the keys.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    for name, flag in FLAGS.items():
        flag.add_to(parser, name)
    return parser


class _Parser(argparse.ArgumentParser):
    """Argument parser that raises UsageError in place of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        option, _, reason = message.removeprefix("argument ").partition(": ")
        got = "nothing" if reason == "expected one argument" else reason.replace("ignored", "the") or message
        raise UsageError(
            option if reason else "command line", Words(got), "options of the usual form", f"Usage: {USAGE}"
        )
