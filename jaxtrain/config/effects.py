"""Rejects config files that change the process: its working directory, arguments, streams, or settings of JAX.

`config.json` could not repeat such a change. Other variables may change, since libraries set some when
they are imported.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtrain.errors import ConfigError
from jaxtrain.files import guarded, working_directory

VARIABLES = ("JAX_", "XLA_", "CUDA_VISIBLE_DEVICES")
"""Beginnings of the variables that change the devices or the numbers of a run."""


@contextmanager
def demand_no_effects(path: Path) -> Iterator[None]:
    """Raises ConfigError if a block changes what a config file must not change, and puts it back in any case."""
    directory = working_directory()
    arguments = list(sys.argv)
    depth = sys.getrecursionlimit()
    streams = (sys.stdout, sys.stderr)
    variables = _variables()
    settings = _settings()
    try:
        yield
        changed = _changes(directory, arguments, streams, variables) or _changed_setting(settings)
    finally:
        if directory is not None and working_directory() != directory:
            with guarded(directory, "entered"):
                os.chdir(directory)
        sys.setrecursionlimit(max(depth, sys.getrecursionlimit()))
        sys.argv[:] = arguments
        sys.stdout, sys.stderr = streams
        for name in _variables().keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        _put_back(settings)
    if changed:
        what, hint = changed
        raise ConfigError("config file", str(path), f"a file that leaves {what} unchanged", hint)


def _changes(
    directory: Path | None, arguments: list[str], streams: tuple[Any, Any], variables: dict[str, str]
) -> tuple[str, str] | None:
    """Returns what a config file changed and what to do instead; None if nothing."""
    if working_directory() != directory:
        return "the working directory", "Write absolute paths, or start the command in that directory"
    if sys.argv != arguments:
        return "sys.argv", "Return the values from get_config()"
    if (sys.stdout, sys.stderr) != streams or any(stream is not None and stream.closed for stream in streams):
        return "the standard streams", "Leave the output to the command"
    now = _variables()
    if changed := sorted({name for name, _ in now.items() ^ variables.items()}):
        return f"the environment variable {changed[0]}", "Set it in the shell: a resumed run would not have it"
    return None


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


def _settings() -> dict[str, Any]:
    """Returns the settings of `jax.config`; imports JAX here, so that a mistyped path is told at once."""
    import jax

    return dict(jax.config.values)


def _changed(settings: dict[str, Any]) -> list[str]:
    """Returns the settings that have another value now; those that an imported library defined are new, not changed."""
    now = _settings()
    return sorted(name for name, value in settings.items() if now[name] != value)


def _put_back(settings: dict[str, Any]) -> None:
    import jax

    for name in _changed(settings):
        jax.config.update(name, settings[name])


def _changed_setting(settings: dict[str, Any]) -> tuple[str, str] | None:
    """Returns the first setting of JAX that a config file changed and what to do instead; None if none."""
    changed = _changed(settings)
    if not changed:
        return None
    hint = f"Set the environment variable {changed[0].upper()} in the shell: a resumed run would not have it"
    return f"jax.config.{changed[0]}", hint
