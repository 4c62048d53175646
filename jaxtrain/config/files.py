"""Reads config files into nested dicts: a `.py` with `get_config()`, or the `config.json` of a run."""

import json
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from jaxtrain.errors import ConfigError, JaxtrainError, nearest


def read(path: Path) -> dict[str, Any]:
    """Reads a config file into nested dicts, unresolved; raises ConfigError if the file is missing or broken."""
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*") if file.suffix in (".py", ".json")]
        what = "an existing .py file with get_config(), or a run's config.json"
        raise ConfigError("--config", str(path), what, nearest(path.name, beside))
    try:
        content = to_plain(json.loads(path.read_text()) if path.suffix == ".json" else _call_get_config(path))
    except JaxtrainError:
        raise
    except Exception as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f" at line {where[-1].lineno}" if where else ""
        hint = f"Fix the {type(error).__name__}{line}: {error}".splitlines()[0]
        raise ConfigError("--config", str(path), "a file that can be read without an error", hint) from error
    if not isinstance(content, dict):
        what = "a JSON object" if path.suffix == ".json" else "a file whose get_config() returns a ConfigDict or a dict"
        raise ConfigError("--config", str(path), what, f"Make it a dict, not a {type(content).__name__}")
    return content


def _call_get_config(path: Path) -> Any:
    """Runs a Python config file and calls its `get_config()`; its imports use the command's search path.

    The file is compiled here and not imported, since cached byte code is stale if a file is edited twice in a second.
    """
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError("--config", str(path), "a file that defines get_config()")
    return module.get_config()


def to_plain(value: Any) -> Any:
    """Converts ConfigDicts and mappings into plain nested dicts, and placeholders into their values."""
    if isinstance(value, ml_collections.ConfigDict):
        value = value.to_dict()
    return {str(k): to_plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value
