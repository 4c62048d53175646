"""Ranges of seeds, which count up from `seed` and have 32 bits, and the number of lanes that a config trains."""

from jaxtrain.config.defaults import Config
from jaxtrain.errors import ConfigError

SEEDS = 2**32


def lane_count(config: Config) -> int:
    """Returns how many runs the config trains as lanes of one program: its seeds, or the folds of its data."""
    folds = config["data"].get("folds")
    return folds if folds and config["data"]["fold"] is None else config["train"]["seeds"]


def check_seeds(config: Config, key: str, before: int = 0) -> None:
    """Raises ConfigError where the seeds that `key` counts, after `before` others from `seed` on, do not all exist."""
    section, _, name = key.partition(".")
    count = config[section][name]
    most = max(0, SEEDS - config["seed"] - before)
    if count > most:
        hint = f"Lower it, or seed, which is {config['seed']:,}"
        raise ConfigError(key, count, f"at most {most:,}, since seeds end at 2**32 - 1", hint)
