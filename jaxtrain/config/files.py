"""Reads config files into nested dicts: a `.py` with `get_config()`, or the `config.json` of a run.

A config file describes a run; it does not act. Its exceptions, `sys.exit` among them, become a ConfigError in one line
with the user's own frames as a note. KeyboardInterrupt passes, since it is the user's Ctrl-C. Changes of the process,
such as of its working directory, are rejected by `config/effects.py`; warning filters are put back.
"""

import inspect
import json
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ml_collections

from jaxtrain.config.effects import demand_no_effects
from jaxtrain.config.own_code import add_frames, own_frames, text_of
from jaxtrain.config.schema import MOST_NESTED, is_too_deep
from jaxtrain.config.trust import demand_trusted
from jaxtrain.errors import ConfigError, JaxtrainError, StorageError, Words, nearest
from jaxtrain.files import is_file, list_directory, read_bytes, reported_as


def read(path: Path, trust: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a config file into nested dicts, unresolved; raises ConfigError if the file is missing or broken.

    `trust` lists modules whose functions a `.json` file may name; for others it raises ConfigError.
    """
    stored = _read_bytes(path)
    try:
        content = _as_dict(json.loads(stored) if path.suffix == ".json" else _call_get_config(path, stored), path)
        repr(content)  # later errors show values, so one that cannot be printed is reported here
    except JaxtrainError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit among them: the command would end as if it had trained
        raise _explain(error, path) from error
    if not isinstance(content, dict):
        what = "a JSON object" if path.suffix == ".json" else "a file whose get_config() returns a ConfigDict or a dict"
        raise ConfigError("config file", str(path), what, f"Make it a dict, not a {type(content).__name__}")
    if path.suffix == ".json":
        demand_trusted(content, path, trust)
    return content


def _read_bytes(path: Path) -> bytes:
    with reported_as(ConfigError, "config file"):
        if is_file(path):
            return read_bytes(path)
    beside: list[str] = []
    with suppress(StorageError):
        beside += (name for name in list_directory(path.parent) if name.endswith((".py", ".json")))
    what = "an existing .py file with get_config(), or a run's config.json"
    raise ConfigError("config file", str(path), what, nearest(path.name, {*beside} - {path.name}))


def _as_dict(content: Any, path: Path) -> Any:
    """Converts the content of a file as `to_plain` does; an error names the file, and the key in its hint."""
    try:
        return to_plain(content)
    except ConfigError as error:
        expected = "a config that is not nested without end"
        hint = f"Write {error.key} with {error.expected}"
        raise ConfigError("config file", str(path), expected, hint) from error


def _call_get_config(path: Path, stored: bytes) -> Any:
    """Runs a Python config file and calls its `get_config()`; its imports use the command's search path.

    The file is compiled here and not imported, since cached byte code is stale if a file is edited twice in a second.
    """
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    with warnings.catch_warnings(), demand_no_effects(path), _findable(module):
        exec(compile(stored, str(path), "exec"), vars(module))
        content = _get_config_of(module, path)()
        if inspect.iscoroutine(content):
            content.close()  # Python would warn that it was never awaited
        return content


@contextmanager
def _findable(module: types.ModuleType) -> Iterator[None]:
    """Enters a module in `sys.modules` for a block, where dataclasses look it up, unless its name is taken."""
    name = module.__name__
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _get_config_of(module: types.ModuleType, path: Path) -> Callable[[], Any]:
    """Returns `get_config`; raises ConfigError where it is missing, no function, or needs arguments."""
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        hint = "" if get_config is None else f"Make it a function: get_config is a {type(get_config).__name__}"
        raise ConfigError("config file", str(path), "a file that defines get_config()", hint)
    try:
        signature = inspect.signature(get_config)
    except (TypeError, ValueError):  # a callable without a signature, such as some built-in ones
        return get_config
    try:
        signature.bind()
    except TypeError as error:
        hint = f"Give its arguments a default, or set overrides in its place: {error}"
        raise ConfigError("config file", str(path), "a get_config() that needs no arguments", hint) from error
    return get_config


def _explain(error: BaseException, path: Path) -> ConfigError:
    """Composes the error for an exception of a config file: one line, and the user's own frames as a note."""
    lines = [frame.lineno for frame in own_frames(error) if frame.filename == str(path)]
    at = f" at line {lines[-1]}" if lines else ""
    expected = "a file that can be read without an error"
    if isinstance(error, SystemExit):
        expected = "a file that does not end the command"
    elif isinstance(error, RecursionError) and not lines:
        expected = "a config that is not nested without end"
    text = text_of(error)
    hint = f"Fix the {type(error).__name__}{at}{': ' if text else ''}{text}"
    return add_frames(ConfigError("config file", str(path), expected, hint), error)


def to_plain(value: Any, path: str = "config") -> Any:
    """Converts ConfigDicts and mappings into plain nested dicts, and placeholders into their values.

    Raises ConfigError, naming the key in `path`, for a value that is nested too deep or in itself.
    """
    return _to_plain(value, path, MOST_NESTED)


def _to_plain(value: Any, path: str, levels: int) -> Any:
    is_mapping = isinstance(value, Mapping | ml_collections.ConfigDict)
    if (is_mapping and not levels) or (isinstance(value, list | tuple) and is_too_deep(value, levels)):
        expected = f"at most {MOST_NESTED} levels, and no value within itself"
        raise ConfigError(path, Words("a value that is nested too deep"), expected, "Write it without nesting")
    if not is_mapping:
        return value
    return {str(k): _to_plain(v, _below(path, k), levels - 1) for k, v in value.items()}


def _below(path: str, key: Any) -> str:
    """Returns the path of a key of a mapping; the levels above the first two say enough about a deep one."""
    if path == "config":
        return str(key)
    return f"{path}.{key}" if path.count(".") < 2 else path
