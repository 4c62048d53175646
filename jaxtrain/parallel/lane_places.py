"""The places of lanes on the axis of their states, of which every device has an equal part."""

from typing import NamedTuple

import numpy as np


class LanePlaces(NamedTuple):
    """Lanes that are spread over devices: each has as many as the others, but for one, and after them padding.

    share: the lanes of a device, before padding to a multiple of the width; width: the lanes that a device takes at a
    time.
    """

    lanes: int
    devices: int
    share: int
    width: int

    @classmethod
    def of(cls, lanes: int, devices: int, width: int, min_lanes: int = 0) -> "LanePlaces":
        """Spreads lanes, at least `min_lanes` with padding, of which a device takes at most `width` at a time."""
        share = -(-max(lanes, min_lanes) // devices)
        return cls(lanes, devices, share, min(width, share))

    @property
    def padded(self) -> int:
        """The length of the axis."""
        chunks = -(-self.share // self.width)
        return self.devices * chunks * self.width

    def of_lanes(self) -> np.ndarray:
        """Returns the place of each lane, (lanes,)."""
        device, place = np.divmod(np.arange(self.lanes), -(-self.lanes // self.devices))
        return device * (self.padded // self.devices) + place

    def lanes_at(self) -> np.ndarray:
        """Returns the lane at each place, (padded,); padding repeats the last lane."""
        lanes = np.full(self.padded, self.lanes - 1)
        lanes[self.of_lanes()] = np.arange(self.lanes)
        return lanes
