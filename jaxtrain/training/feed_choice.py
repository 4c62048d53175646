"""Chooses the feed of a run: by the config, else by the sizes of the data and the memory of the devices."""

from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.data.dataset import Dataset
from jaxtrain.parallel.memory import memory_limit
from jaxtrain.parallel.mesh import Devices
from jaxtrain.training.feeds import DeviceFeed, Feed, HostFeed
from jaxtrain.training.fold_feeds import FoldsOnDevice, FoldsOnHost

SHARE = 0.5
"""The share of the free memory of a device that data may take."""


def make_feed(section: Config, dataset: Dataset, mesh: Devices, placed: dict[Any, Any]) -> Feed:
    """Makes the feed that the section `data` names; for None, the devices' if their memory holds the data."""
    if is_on_devices(section, dataset, mesh):
        return (FoldsOnDevice if dataset.folds else DeviceFeed)(section, dataset, mesh, placed)
    return (FoldsOnHost if dataset.folds else HostFeed)(section, dataset, mesh)


def is_on_devices(section: Config, dataset: Dataset, mesh: Devices) -> bool:
    """Tells whether the devices keep the data."""
    if section["feed"] is not None:
        return section["feed"] == "device"
    return not dataset.is_decoded and _fits(dataset, mesh)


def _fits(dataset: Dataset, mesh: Devices) -> bool:
    folds = dataset.folds or (dataset,)
    needed = sum(fold.nbytes(name) for fold in folds for name in fold.parts if name != "test")
    return needed <= SHARE * memory_limit(mesh)
