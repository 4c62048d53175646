"""The source of data that are given in Python."""

from pathlib import Path

from jaxtrain.data.source import Source
from jaxtrain.errors import DataError

MEMORY = "memory"
"""The name of the source of data that are given in Python."""


def memory(path: Path) -> Source:
    """Data given in Python, as `train_and_evaluate(config, workdir, data=Source(...))`: the command has none."""
    hint = "Call the function in Python again, with data=Source(...)"
    raise DataError(
        "data.name", MEMORY, "a source that reads files, since this run was trained on data in Python", hint
    )
