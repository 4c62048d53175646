"""Where a run's numbers go: a file of JSON lines (the truth), TensorBoard, the console, memory, nowhere."""

from jaxtrain.trackers.base import Row, Tracker
from jaxtrain.trackers.composite import several
from jaxtrain.trackers.console import ConsoleTracker
from jaxtrain.trackers.event_files import TensorBoardTracker, write_hparams, write_picture
from jaxtrain.trackers.jsonl import JsonlTracker, read_rows
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.trackers.null import NullTracker

__all__ = [
    "ConsoleTracker",
    "JsonlTracker",
    "MemoryTracker",
    "NullTracker",
    "Row",
    "TensorBoardTracker",
    "Tracker",
    "read_rows",
    "several",
    "write_hparams",
    "write_picture",
]
