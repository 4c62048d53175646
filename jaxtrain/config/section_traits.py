"""Traits of the config's sections: one table says what each affects: programs, digests and searches.

A new section gets a line here, and nothing else needs to know its name.
"""

from typing import NamedTuple


class Traits(NamedTuple):
    """Effects of a section.

    in_program: its floats are inputs of the compiled program; changes_numbers: it affects the numbers of a run, so it
    is part of the digest that names the run's directory; per_trial: trials of a search may differ in it.
    """

    in_program: bool
    changes_numbers: bool
    per_trial: bool


TRAITS = {
    "seed": Traits(in_program=False, changes_numbers=True, per_trial=True),
    "task": Traits(in_program=True, changes_numbers=True, per_trial=True),
    "model": Traits(in_program=True, changes_numbers=True, per_trial=True),
    "loss": Traits(in_program=True, changes_numbers=True, per_trial=True),
    "optimizer": Traits(in_program=True, changes_numbers=True, per_trial=True),
    "augment": Traits(in_program=True, changes_numbers=True, per_trial=True),
    "data": Traits(in_program=False, changes_numbers=True, per_trial=True),
    "schedule": Traits(in_program=False, changes_numbers=True, per_trial=True),  # its floats have names of their own
    "train": Traits(in_program=False, changes_numbers=True, per_trial=True),
    "eval": Traits(in_program=False, changes_numbers=True, per_trial=True),
    "parallel": Traits(in_program=False, changes_numbers=True, per_trial=False),
    "lora": Traits(in_program=False, changes_numbers=True, per_trial=True),
    "lr_range": Traits(in_program=False, changes_numbers=True, per_trial=False),  # unless nothing is tested first
    "checkpoint": Traits(in_program=False, changes_numbers=False, per_trial=False),
    "log": Traits(in_program=False, changes_numbers=False, per_trial=False),
    "track": Traits(in_program=False, changes_numbers=False, per_trial=False),
    "search": Traits(in_program=False, changes_numbers=False, per_trial=False),
    "check": Traits(in_program=False, changes_numbers=False, per_trial=False),
}

PROGRAM = tuple(section for section, traits in TRAITS.items() if traits.in_program)
"""The sections whose floats enter the compiled program, in addition to `train.ema` and the schedules' own."""

SHARED_BY_TRIALS = tuple(section for section, traits in TRAITS.items() if not traits.per_trial)
"""The sections that all trials of a search share."""

SAME_DATA = ("task.name", "data.name", "data.path", "data.seed", "data.validation_fraction", "data.test_fraction")
"""The keys that decide on which data trials are compared: they are equal for all of them."""

STUDY = ("space", "sampler", "seeds", "value", "batch", "halving", "first_rung", "reduction")
"""The knobs of `search` that identify a study, together with the config that is searched."""
