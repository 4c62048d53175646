"""A batch of trials without its study: nothing is saved, and no signal is listened to."""

from collections.abc import Sequence

import timing  # noqa: F401 (before jaxtrain: puts this clone first on the path)

from jaxtrain.parallel.compilation import Compilations
from jaxtrain.search.batch import Batch
from jaxtrain.search.programs import Programs
from jaxtrain.search.space import Space, Trial
from jaxtrain.training.signals import Interruption


def make_batch(
    space: Space, programs: Programs, trials: Sequence[Trial], seeds: Sequence[int], *, higher_is_better: bool = False
) -> Batch:
    """Makes the batch of these trials, each with these seeds."""
    return Batch(
        space=space,
        trials=trials,
        seeds=seeds,
        programs=programs,
        higher_is_better=higher_is_better,
        stop=Interruption(),
        compiled=Compilations(),
        save=lambda batch, work: None,
        pace={},
    )
