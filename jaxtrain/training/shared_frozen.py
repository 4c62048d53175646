"""Whether runs that are trained as lanes have equal frozen parameters, which are then held once."""

from collections.abc import Collection

import jax

from jaxtrain.core.frozen import join_params
from jaxtrain.core.trees import match_paths
from jaxtrain.training.experiment import Experiment


def shares_frozen(experiment: Experiment, seeds: Collection[int]) -> bool:
    """Returns whether runs of these seeds start from equal frozen parameters, whatever their other floats.

    Those of one seed do, unless a float of the model shapes its initial weights. Those of several do where
    `checkpoint.init_from` gives them all.
    """
    if experiment.rules.is_frozen is None:
        return False
    return _come_from_elsewhere(experiment) or (len(set(seeds)) == 1 and not experiment.frozen_depends_on_floats)


def _come_from_elsewhere(experiment: Experiment) -> bool:
    section = experiment.config["checkpoint"]
    if section["init_from"] is None or section["init_except"] is None:
        return section["init_from"] is not None
    state = experiment.state_shapes()
    weights = {"params": join_params(state.params, state.frozen), "model_state": state.model_state}
    kept = match_paths("checkpoint.init_except", section["init_except"], weights)["params"]
    is_frozen = experiment.rules.is_frozen
    assert is_frozen is not None
    both = jax.tree.map(lambda keep, frozen: keep and frozen, kept, is_frozen(weights["params"]))
    return not any(jax.tree.leaves(both))
