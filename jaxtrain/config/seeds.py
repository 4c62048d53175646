"""Ranges of seeds: several count up from `seed`, and all of them have 32 bits."""

from jaxtrain.config.defaults import Config
from jaxtrain.errors import ConfigError

SEEDS = 2**32


def check_seeds(config: Config, key: str, before: int = 0) -> None:
    """Raises ConfigError where the seeds that `key` counts, after `before` others from `seed` on, do not all exist."""
    section, _, name = key.partition(".")
    count = config[section][name]
    most = max(0, SEEDS - config["seed"] - before)
    if count > most:
        hint = f"Lower it, or seed, which is {config['seed']:,}"
        raise ConfigError(key, count, f"at most {most:,}, since seeds end at 2**32 - 1", hint)
