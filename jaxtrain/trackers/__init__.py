"""Trackers record a run's metrics: metrics.jsonl (authoritative), TensorBoard, the console, memory."""

from jaxtrain.trackers.base import Row, Tracker
from jaxtrain.trackers.composite import CompositeTracker
from jaxtrain.trackers.console import ConsoleTracker
from jaxtrain.trackers.event_files import TensorBoardTracker, write_hparams, write_picture
from jaxtrain.trackers.jsonl import JsonlTracker, read_rows
from jaxtrain.trackers.memory import MemoryTracker

__all__ = [
    "CompositeTracker",
    "ConsoleTracker",
    "JsonlTracker",
    "MemoryTracker",
    "Row",
    "TensorBoardTracker",
    "Tracker",
    "read_rows",
    "write_hparams",
    "write_picture",
]
