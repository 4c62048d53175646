"""Every optimizer and every schedule trains on the digits, at a suitable rate."""

import itertools

import jax
import pytest
from tiny_runs import RATE_OF, tiny

from jaxtrain.optimizers import OPTIMIZERS
from jaxtrain.optimizers.schedules import SCHEDULES
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.training.experiment import build

STEPS = 300
DIGITS = build(tiny())
PAIRS = list(zip(OPTIMIZERS.members, itertools.cycle(SCHEDULES.members), strict=False))
"""Every optimizer and every schedule, paired."""


def test_every_optimizer_has_a_rate_that_fits_it():
    assert set(RATE_OF) == set(OPTIMIZERS.members)


@pytest.mark.filterwarnings("ignore:.*schedule_free:jaxtrain.errors.JaxtrainWarning")
@pytest.mark.one_fast_of(6)
@pytest.mark.parametrize(("optimizer", "schedule"), PAIRS)
def test_every_optimizer_and_every_schedule_trains_the_digits(optimizer, schedule):
    """300 steps reach an accuracy of 0.9 on the test split; Rprop trains with full batches."""
    rate = RATE_OF[optimizer] * (3.0 if schedule == "exponential" else 1.0)  # it is low for most of the run
    given = {"name": optimizer, "learning_rate": rate}
    if optimizer == "rprop":
        moved = {"schedule": None, "data.batch_size": DIGITS.dataset.sizes["train"]}
    else:
        moved = {"schedule": {"optimizer": {"learning_rate": {"name": schedule}}}}
    whole = {"optimizer": given, "train.duration": f"{STEPS} steps", "train.ema": None}
    found = build(tiny(whole | moved), beside=DIGITS)
    call = compile_train_call(found.rules, found.mesh, "mesh")
    state, _ = call(found.init(), found.batches(0, STEPS, STEPS), STEPS)
    assert bool(state.live)
    assert jax.device_get(found.evaluate(state, "test")["accuracy"]).result() >= 0.9
