"""Runs a debug mode of the section `debug` in place of a run."""

from collections.abc import Callable
from pathlib import Path

from jaxtrain.config.debug_modes import debug_modes
from jaxtrain.config.defaults import Config
from jaxtrain.data import Source
from jaxtrain.errors import ConfigError, Words, one_of
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.ownership import demand_own, read_owner
from jaxtrain.storage.result import Result
from jaxtrain.training.debugging.overfit import overfit
from jaxtrain.training.debugging.smoke import smoke
from jaxtrain.training.debugging.strict import train_strictly

MODES = {"smoke": smoke, "overfit": overfit, "strict": train_strictly}
"""(config, workdir, *, data, say, quiet) -> result."""


def debug_run(
    config: Config,
    workdir: str | Path,
    *,
    data: Source | None = None,
    say: Callable[[str], None] = print,
    quiet: bool = False,
) -> Result:
    """Runs the mode that the section `debug` of a resolved config names; the run's own files stay as they are.

    The directory of the run is locked meanwhile, as the run would lock it.

    Args:
        config: a resolved config with one mode on.
        workdir: the directory of the run; "overfit" and "strict" write into `debug/<mode>` of it.
        data: data given in Python, as in `train_and_evaluate`.
        say: prints a line of what was found.
        quiet: whether to print no progress of the training.

    Raises:
        ConfigError: no mode is on, or several are; and what `train_and_evaluate` raises.
        UsageError: another process uses the directory, or it belongs to a run with another config.
    """
    workdir = Path(workdir)
    chosen = debug_modes(config)
    if len(chosen) != 1:
        got = Words(" and ".join(f"debug.{mode}" for mode in chosen) or "no mode")
        raise ConfigError("debug", got, f"one mode at a time: {one_of(MODES)}", "Leave the others out")
    with run_lock(workdir):
        demand_own(workdir, config, read_owner(workdir))
        return MODES[chosen[0]](config, workdir, data=data, say=say, quiet=quiet)
