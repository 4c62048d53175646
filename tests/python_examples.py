"""Examples that Python code reads one by one: a module of its own, which processes that read them import."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.readers.embedded import digits


class Drawings:
    """The digits, read one by one; each process that reads notes its number in a folder.

    A process that reads row `fatal` is killed; another than that of the run refuses row `bad`.
    """

    def __init__(self, folder: Path, fatal: int = -1, bad: int = -1) -> None:
        self.inputs, self.targets = (
            np.asarray(digits(Path()).splits["train"].inputs),
            digits(Path()).splits["train"].targets,
        )
        self.folder, self.fatal, self.bad = folder, fatal, bad

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        (self.folder / str(os.getpid())).touch()
        if row == self.fatal and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        if row == self.bad:
            raise ValueError("no drawing")
        return self.inputs[row], self.targets[row]
