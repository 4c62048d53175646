"""Families: tables of ordinary functions, whose keyword arguments are the knobs of a section of the config.

A member joins its table by one line, and any other function joins by its reference, `"package.module:function"` (or
`"optax:lion"`). Its signature is the schema: names, types, defaults and, through `Annotated`, what a number may be.
A knob whose annotation or default is `float` is a hyperparameter: it reaches the function as an entry of `values`,
traced, at every call. All others are static and shape the compiled program.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtrain.config.schema import MISSING, Knob, holds, knob_of
from jaxtrain.errors import ConfigError, Words, nearest, one_of, unknown

Values = Mapping[str, Any]
"""This step's hyperparameters, by their full name: `"optimizer.learning_rate"` -> float32 scalar."""


@dataclass(frozen=True)
class Bound:
    """A member with its static knobs fixed; its floats are read from `values` whenever it is called.

    Equal and hashable by what it holds, so that two runs which differ in floats alone share one compiled program.
    """

    function: Callable[..., Any]
    section: str
    static: tuple[tuple[str, Any], ...]
    floats: tuple[str, ...]

    def __call__(self, values: Values, *supplied: Any) -> Any:
        """Calls the member with what the framework supplies, its static knobs, and its floats out of `values`."""
        floats = {name: values[f"{self.section}.{name}"] for name in self.floats}
        return self.function(*supplied, **dict(self.static), **floats)


@dataclass(frozen=True)
class Family:
    """A table of members and what the framework supplies to each of them as leading arguments.

    `common` is a function whose keyword arguments, after `common_supplied` leading ones, are knobs of the section
    whichever member is chosen.
    """

    section: str
    members: Mapping[str, Callable[..., Any]]
    supplied: tuple[str, ...] = ()
    common: Callable[..., Any] | None = None
    common_supplied: int = 0

    def member(self, name: str, path: str = "") -> Callable[..., Any]:
        """Returns a member by its name in the table, or by its reference `module:function`."""
        if name in self.members:
            return self.members[name]
        key = f"{path or self.section}.name"
        if ":" in name:
            return reference(key, name)
        names = [*self.members, "package.module:function"]
        raise ConfigError(key, name, one_of(names), nearest(name, self.members))

    def knobs(self, name: str, path: str = "") -> dict[str, Knob]:
        """Returns the knobs of a member and those common to all of its family, in the order of their signatures."""
        own = knobs_of(self.member(name, path), len(self.supplied))
        return own | (knobs_of(self.common, self.common_supplied) if self.common else {})

    def bind(self, section: Mapping[str, Any], path: str = "") -> Bound:
        """Fixes the chosen member to a resolved section, whose floats will be named `<path>.<knob>`."""
        function = self.member(section["name"])
        return bind(function, knobs_of(function, len(self.supplied)), section, path or self.section)

    def bind_common(self, section: Mapping[str, Any]) -> Bound:
        """Fixes the function that is common to all members to a resolved section."""
        assert self.common is not None
        return bind(self.common, knobs_of(self.common, self.common_supplied), section, self.section)


def bind(function: Callable[..., Any], knobs: Mapping[str, Knob], section: Mapping[str, Any], path: str) -> Bound:
    """Splits a resolved section into static knobs and floats."""
    floats = tuple(name for name, knob in knobs.items() if knob.is_traced(section[name]))
    return Bound(function, path, tuple((n, section[n]) for n in knobs if n not in floats), floats)


def reference(key: str, name: str) -> Callable[..., Any]:
    """Imports `package.module:attribute`; the error names the key of the config that asked for it."""
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise ConfigError(key, name, "package.module:function, where each part is an identifier")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the user's module was found, and an import inside it failed: show the user's own frames
        place = "Put it into the folder where you start the command, or into one of PYTHONPATH"
        hint = f"{place} ({error}). {_nearest_module(error.name)}"
        raise ConfigError(key, name, "a module that can be imported, then ':' and a name in it", hint) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [known for known in dir(found) if not known.startswith("_") and callable(getattr(found, known))]
            raise ConfigError(key, name, f"a callable of {module_name}", nearest(part, public))
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(
            key, name, f"a callable of {module_name}", f"Name a function or class, not a {type(found).__name__}"
        )
    try:
        inspect.signature(found)
    except ValueError as error:
        hint = f"Wrap it in a function that names its arguments ({error})"
        raise ConfigError(key, name, "a callable with a signature", hint) from error
    return found


def _nearest_module(name: str) -> str:
    """Suggests a module beside the one that is missing."""
    parent, _, last = name.rpartition(".")
    searched = getattr(sys.modules.get(parent), "__path__", [])
    return nearest(last, [module.name for module in pkgutil.iter_modules(searched if parent else None)])


def knobs_of(function: Callable[..., Any], supplied: int = 0) -> dict[str, Knob]:
    """Reads a signature after its `supplied` leading arguments.

    No knobs are a Linen module's `parent` and `name`, and what has a default that no config holds, such as a function
    or a dtype: it keeps that default.
    """
    parameters = list(inspect.signature(function).parameters.values())[supplied:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: knob_of(p, function) for p in named if p.name not in ("parent", "name") and holds(p.default)}


def resolve(knobs: Mapping[str, Knob], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Checks what is given against the knobs, fills in the defaults, and refuses names that are none of them."""
    for name in given:
        if name not in knobs:
            raise unknown(f"{path}.{name}", name, knobs)
    resolved = {}
    for name, knob in knobs.items():
        value = given.get(name, knob.default)
        if value is MISSING:
            raise ConfigError(f"{path}.{name}", Words("nothing"), knob.allowed, "Give it a value: it has no default")
        resolved[name] = knob.check(f"{path}.{name}", value) if name in given else value
    return resolved
