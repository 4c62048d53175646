"""Prefixes in the names of numbers, and which names are printed. Imports no JAX: consoles and commands read it."""

NORMS = "norm_"  # prefix of the norms that a call measures on its last step only
BY_LAYER = "_by_layer"  # suffix of norms of each array of parameters, in the order of the tree's leaves
SAMPLES = "gradient_samples"  # numbers of each array of gradients, on a call's last step; no metric that is written
SKIPPED = "skipped"  # the share of steps whose batch was skipped as a spike, where `train.on_spike` is set
SEED = "seed_"  # prefix of the numbers of one seed: "seed_3/loss"
FOLD = "fold_"  # prefix of the numbers of one fold: "fold_3/loss"
DIAGNOSTICS = (NORMS, SEED, FOLD, SKIPPED)
"""Prefixes of numbers that are plotted but not printed."""


def is_printed(name: str) -> bool:
    """Tells whether a number is printed: neither a diagnostic nor one of an array, such as "f1_per_class/3"."""
    metric, _, index = name.rpartition("/")
    return not (name.startswith(DIAGNOSTICS) or (metric and index.isdecimal()))
