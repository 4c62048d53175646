"""Families: tables of ordinary functions, whose keyword arguments are the knobs of a section of the config.

One line adds a member to its table, as a function or, in `Imported`, as an import path. Any other function can be named
in the config by its import path, `"package.module:function"` (such as `"optax:lion"`). The signature is the schema:
names, types, defaults and, through `Annotated`, constraints. A knob whose annotation or default is `float` is a
hyperparameter: its traced value is read from `values` at every call. All other knobs are static and shape the compiled
program.
"""

import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jaxtrain.config.schema import MISSING, Knob, is_config_value, knob_of
from jaxtrain.errors import ConfigError, Words, nearest, one_of, unknown

Values = Mapping[str, Any]
"""The hyperparameters of one step, by full name: `"optimizer.learning_rate"` -> float32 scalar."""


class Product(NamedTuple):
    """Description of what the members of a family build, and a test that recognises it."""

    description: str
    is_one: Callable[[Any], bool]


def having(*names: str) -> Callable[[Any], bool]:
    """Recognises objects by their attributes."""
    return lambda built: all(hasattr(built, name) for name in names)


@dataclass(frozen=True)
class BoundMember:
    """A member with its static knobs fixed; its floats are read from `values` at each call.

    It is hashable and compares by its fields, so that runs that differ only in floats share one compiled program.
    `offered` names what the framework offers and the member takes. `name` is the user's name for it, for messages.
    """

    function: Callable[..., Any]
    section: str
    static: tuple[tuple[str, Any], ...]
    floats: tuple[str, ...]
    offered: tuple[str, ...] = ()
    name: str = field(default="", compare=False)
    product: Product | None = field(default=None, compare=False)

    def __call__(self, values: Values, *supplied: Any, **offers: Any) -> Any:
        """Calls the member with the framework's arguments, its static knobs, and its floats taken from `values`.

        Of what is offered by name it gets what its signature has. Raises ConfigError, with the user's name for the
        member, if it builds something else than its family does.
        """
        floats = {name: values[f"{self.section}.{name}"] for name in self.floats}
        taken = {name: offer for name, offer in offers.items() if name in self.offered}
        try:
            built = self.function(*supplied, **taken, **dict(self.static), **floats)
        except Exception as error:
            if error.__traceback__ and error.__traceback__.tb_next:
                raise  # of Python code, whose frames say more
            raise self._is_no_member(f"raises {type(error).__name__}: {error}") from error
        if self.product and not self.product.is_one(built):
            raise self._is_no_member(f"returns a {type(built).__name__}")
        return built

    def takes(self, name: str) -> bool:
        """Tells whether the member has an argument that is offered to it by this name."""
        return name in self.offered

    def _is_no_member(self, does: str) -> ConfigError:
        """Builds the error for a function that builds something else than its family does."""
        expected = f"a function that builds {self.product.description if self.product else 'a member'}"
        return ConfigError(f"{self.section}.name", self.name, expected, f"Name another function: this one {does}")


class Imported(Mapping[str, Callable[..., Any]]):
    """Members by import path, as `{"cnn": "jaxtrain.models.cnn:CNN"}`: a run imports only those that it looks up."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        """Takes name -> `module:function`."""
        self._paths = paths

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """Imports a member."""
        module, _, attribute = self._paths[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        """Tells whether there is a member of this name, without importing it."""
        return name in self._paths

    def __iter__(self) -> Iterator[str]:
        """Yields the names."""
        return iter(self._paths)

    def __len__(self) -> int:
        """Returns the number of members."""
        return len(self._paths)


@dataclass(frozen=True)
class Family:
    """A table of members, and the names of the leading arguments that the framework supplies to each of them.

    `offered` names further arguments that it supplies by name to members whose signature has them.
    `common` is a function whose keyword arguments, after the first `common_supplied` ones, are knobs of the section
    for every member. `reason_against` returns (what is expected, hint) for imported functions that are no members.
    `product` is what the members build. `beside` is a dataclass for a section of several members, each under a key of
    its own: its fields are the keys of the section that hold no member. `key` is the key that names members.
    """

    section: str
    members: Mapping[str, Callable[..., Any]]
    supplied: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    common: Callable[..., Any] | None = None
    common_supplied: int = 0
    reason_against: Callable[[Callable[..., Any]], tuple[str, str] | None] | None = None
    product: Product | None = None
    beside: type | None = None
    key: str = "name"

    def member(self, name: str, path: str = "") -> Callable[..., Any]:
        """Returns a member by its name in the table, or by its import path `module:function`."""
        if name in self.members:
            return self.members[name]
        key = f"{path or self.section}.{self.key}"
        if ":" in name:
            return self._check(key, name, import_member(key, name))
        names = [*self.members, "package.module:function"]
        raise ConfigError(key, name, one_of(names), nearest(name, self.members))

    def _check(self, key: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns an imported function; raises ConfigError if there is a reason against it."""
        reason = self.reason_against(function) if self.reason_against else None
        if reason:
            expected, hint = reason
            raise ConfigError(key, name, expected, hint)
        signature = inspect.signature(function)
        try:
            signature.bind_partial(*self.supplied)
        except TypeError as error:
            expected = f"a function that takes ({', '.join(self.supplied)}) first"
            raise ConfigError(key, name, expected, f"Its signature is {signature}") from error
        if unnamed := [p.name for p in list(signature.parameters.values())[len(self.supplied) :] if _is_unnamed(p)]:
            expected = f"a function whose arguments{' after the first' if self.supplied else ''} can be passed by name"
            raise ConfigError(key, name, expected, f"Wrap it: {', '.join(unnamed)} must be passed by position")
        return function

    def knobs(self, name: str, path: str = "") -> dict[str, Knob]:
        """Returns the knobs of a member, then those common to its family, each in the order of the signature."""
        own = self.own_knobs(self.member(name, path))
        return own | (knobs_of(self.common, self.common_supplied) if self.common else {})

    def own_knobs(self, member: Callable[..., Any]) -> dict[str, Knob]:
        """Returns the knobs of a member's signature: its arguments without those that the framework supplies."""
        return knobs_of(member, len(self.supplied), self.offered)

    def takes(self, name: str, offered: str) -> bool:
        """Tells whether a member's signature has an argument that is offered to it."""
        return offered in inspect.signature(self.member(name)).parameters

    def bind(self, section: Mapping[str, Any], path: str = "") -> BoundMember:
        """Binds the chosen member to a resolved section; its floats are named `<path>.<knob>`."""
        function = self.member(section["name"])
        bound = bind(function, self.own_knobs(function), section, path or self.section)
        offered = tuple(name for name in self.offered if self.takes(section["name"], name))
        return replace(bound, offered=offered, product=self.product)

    def bind_common(self, section: Mapping[str, Any]) -> BoundMember:
        """Binds the function that is common to all members to a resolved section."""
        assert self.common is not None
        return bind(self.common, knobs_of(self.common, self.common_supplied), section, self.section)


def _is_unnamed(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty


def bind(function: Callable[..., Any], knobs: Mapping[str, Knob], section: Mapping[str, Any], path: str) -> BoundMember:
    """Binds a function to a resolved section, split into static knobs and floats."""
    floats = tuple(name for name, knob in knobs.items() if knob.is_traced(section[name]))
    static = tuple((name, section[name]) for name in knobs if name not in floats)
    return BoundMember(function, path, static, floats, name=section.get("name", ""))


def import_member(key: str, name: str) -> Callable[..., Any]:
    """Imports `package.module:attribute`; `key` is the key of the config that errors name."""
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise ConfigError(key, name, "package.module:function, where each part is an identifier")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import inside the user's module failed: show the user's own frames
        place = "Put it into the folder where you start the command, or into one of PYTHONPATH"
        hint = f"{place} ({error}). {_nearest_module(error.name)}"
        raise ConfigError(key, name, "a module that can be imported, then ':' and a name in it", hint) from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            public = [known for known in dir(target) if not known.startswith("_") and callable(getattr(target, known))]
            raise ConfigError(key, name, f"a callable of {module_name}", nearest(part, public))
        target = getattr(target, part)
    if not callable(target):
        raise ConfigError(
            key, name, f"a callable of {module_name}", f"Name a function or class, not a {type(target).__name__}"
        )
    try:
        inspect.signature(target)
    except ValueError as error:
        hint = f"Wrap it in a function that names its arguments ({error})"
        raise ConfigError(key, name, "a callable with a signature", hint) from error
    return target


def _nearest_module(name: str) -> str:
    """Suggests the module with the name nearest to the missing one, in the same package."""
    parent, _, last = name.rpartition(".")
    searched = getattr(sys.modules.get(parent), "__path__", [])
    return nearest(last, [module.name for module in pkgutil.iter_modules(searched if parent else None)])


def knobs_of(function: Callable[..., Any], supplied: int = 0, others: tuple[str, ...] = ()) -> dict[str, Knob]:
    """Returns the knobs of a signature, without its first `supplied` arguments and the `others`.

    A Linen module's `parent` and `name` are not knobs. Neither are arguments whose default cannot be written in a
    config, such as a function or a dtype: they keep that default.
    """
    read = _remembered_knobs if inspect.isfunction(function) or inspect.isclass(function) else _read_knobs
    return dict(read(function, supplied, others))


def _read_knobs(function: Callable[..., Any], supplied: int, others: tuple[str, ...]) -> dict[str, Knob]:
    parameters = list(inspect.signature(function).parameters.values())[supplied:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    no_knobs = ("parent", "name", *others)
    return {p.name: knob_of(p, function) for p in named if p.name not in no_knobs and is_config_value(p.default)}


_remembered_knobs = functools.lru_cache(maxsize=512)(_read_knobs)
"""Reads a signature once: a search resolves a config for each trial."""


def resolve(knobs: Mapping[str, Knob], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Checks the given values against the knobs, rejects unknown names, and fills in the defaults."""
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
