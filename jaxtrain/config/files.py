"""Config files: a `.py` with `get_config()`, or the `config.json` of a run, read into nested dicts."""

import json
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from jaxtrain.errors import ConfigError, JaxtrainError, nearest


def read(path: Path) -> dict[str, Any]:
    """Reads a config file into nested dicts, unresolved; raises ConfigError where it is missing or broken."""
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*") if file.suffix in (".py", ".json")]
        what = "an existing .py file with get_config(), or a run's config.json"
        raise ConfigError("--config", str(path), what, nearest(path.name, beside))
    try:
        found = plain(json.loads(path.read_text()) if path.suffix == ".json" else _call_get_config(path))
    except JaxtrainError:
        raise
    except Exception as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f" at line {where[-1].lineno}" if where else ""
        hint = f"Fix the {type(error).__name__}{line}: {error}".splitlines()[0]
        raise ConfigError("--config", str(path), "a file that can be read without an error", hint) from error
    if not isinstance(found, dict):
        what = "a JSON object" if path.suffix == ".json" else "a file whose get_config() returns a ConfigDict or a dict"
        raise ConfigError("--config", str(path), what, f"Make it a dict, not a {type(found).__name__}")
    return found


def _call_get_config(path: Path) -> Any:
    """Runs a Python config file; what it imports is found as the command would find it.

    It is no import, since the byte code that an import keeps is stale where a file is edited twice within a second.
    """
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError("--config", str(path), "a file that defines get_config()")
    return module.get_config()


def plain(found: Any) -> Any:
    """Turns ConfigDicts, mappings and placeholders into plain nested dicts."""
    if isinstance(found, ml_collections.ConfigDict):
        found = found.to_dict()
    return {str(k): plain(v) for k, v in found.items()} if isinstance(found, Mapping) else found
