"""Which code a config that was read as data may name: a file from somebody else must not choose what is called here.

A `.py` file and a flag are what a user writes, so they may name any function. The `config.json` of a run, and other
JSON, may name members of our tables, of optax, and of modules that the user trusts. A run that this user made is known
by a signature in its `run.json`, made with a key in the user's own settings, so its own functions need no flag.
"""

import contextlib
import hashlib
import hmac
import importlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrain.errors import ConfigError, StorageError
from jaxtrain.files import guarded, make_directory, read_bytes, read_json, user_folder

OURS = ("optax", "optax.contrib")
"""Modules whose own public functions any config may name."""

CHOOSING = ("name", "metrics", "host", "questions")
"""The keys whose values choose members, by a name in a table or by `package.module:function`."""


def demand_trusted(content: Mapping[str, Any], path: Path, trust: Sequence[str]) -> None:
    """Raises ConfigError, before any import, if the content of a JSON file names code that it may not.

    Args:
        content: the config, unresolved.
        path: its file, which errors name; a signed `run.json` beside it vouches for what the user's own run named.
        trust: modules that the user trusts, with the modules in them.
    """
    named = dict(references(content))
    own = _own_references(path.parent) if named else set()
    for key, name in named.items():
        if name not in own:
            _demand(key, name, path, trust)


def references(content: Any, key: str = "", chooses: bool = False) -> Iterator[tuple[str, str]]:
    """Yields (dotted key, "package.module:function") for each function that a config names."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from references(value, f"{key}.{name}".lstrip("."), chooses or name in CHOOSING)
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from references(value, f"{key}[{number}]", chooses)
    elif chooses and isinstance(content, str) and ":" in content:
        yield key, content


def modules_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the modules whose functions a config names."""
    return tuple({name.partition(":")[0] for _, name in references(config)})


def _demand(key: str, name: str, path: Path, trust: Sequence[str]) -> None:
    module, _, attribute = name.partition(":")
    trusted = any(_is_in(module, package) for package in trust)
    if not trusted and not (module in OURS and attribute.isidentifier() and not attribute.startswith("_")):
        raise _untrusted(key, name, path, module)
    defined_in = _module_of(name)
    if not any(_is_in(defined_in, package) for package in (*trust, "optax")):  # such as what a module has imported
        raise _untrusted(key, name, path, defined_in)


def _untrusted(key: str, name: str, path: Path, module: str) -> ConfigError:
    expected = "a member of our tables, of optax or of a module that you trust, since the file is not of a run of yours"
    hint = f"{path} would call it: if you trust that code, add --trust={module.partition('.')[0] or 'MODULE'}"
    return ConfigError(key, name, expected, hint)


def _is_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _module_of(name: str) -> str:
    """Returns the module that defines what a trusted module holds under a name; "" if that cannot be told."""
    module, _, attribute = name.partition(":")
    target: Any = None
    with contextlib.suppress(ImportError, AttributeError):  # reported, with the names there are, by the registry
        target = importlib.import_module(module)
        for part in attribute.split("."):
            target = getattr(target, part)
    if target is None:
        return module
    return str(getattr(getattr(target, "func", target), "__module__", ""))


def _own_references(folder: Path) -> set[str]:
    """Returns the functions named by the run in a folder, if this user made it; else none."""
    try:
        saved = read_json(folder / "run.json")
        is_own = bool(saved["signature"]) and hmac.compare_digest(
            saved["signature"], sign(saved["id"], saved["config"])
        )
    except (StorageError, KeyError, TypeError):
        return set()
    return {name for _, name in references(saved["config"])} if is_own else set()


def sign(run: str, config: Mapping[str, Any]) -> str:
    """Returns the signature, by this user's key, of a run's id and config (as JSON can hold it); "" without a key."""
    key = _user_key()
    content = json.dumps([run, config], sort_keys=True).encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest() if key else ""


def _user_key() -> bytes:
    """Returns the key in the user's settings, made on first use; empty where they can be neither read nor written."""
    try:
        folder = user_folder("XDG_CONFIG_HOME", ".config")
        with contextlib.suppress(StorageError):
            return read_bytes(folder / "key")
        make_directory(folder, private=True)
        return _make_key(folder)
    except StorageError:
        return b""


def _make_key(folder: Path) -> bytes:
    new = folder / f".key.{os.getpid()}.tmp"
    with guarded(folder, "written"):
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_hex(32).encode())
            with contextlib.suppress(FileExistsError):  # another process was faster: its key counts
                os.link(new, folder / "key")
        finally:
            new.unlink(missing_ok=True)
    return read_bytes(folder / "key")
