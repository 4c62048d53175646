"""Peak FLOP/s of accelerators, by the names that JAX gives them."""

from typing import NamedTuple


class Peak(NamedTuple):
    """FLOP a second of dense matrix products: of bfloat16, and of float32 at JAX's default precision."""

    bfloat16: float
    float32: float


PEAKS = {
    "NVIDIA H200": Peak(989e12, 495e12),
    "NVIDIA H100 PCIe": Peak(756e12, 378e12),
    "NVIDIA H100": Peak(989e12, 495e12),
    "NVIDIA A100": Peak(312e12, 156e12),
    "NVIDIA L40S": Peak(362e12, 183e12),
    "NVIDIA L4": Peak(121e12, 60e12),
    "NVIDIA A10": Peak(125e12, 62.5e12),
    "TPU v4": Peak(275e12, 275e12),
    "TPU v5 lite": Peak(197e12, 197e12),
    "TPU v5e": Peak(197e12, 197e12),
    "TPU v5p": Peak(459e12, 459e12),
    "TPU v5": Peak(459e12, 459e12),
    "TPU v6 lite": Peak(918e12, 918e12),
    "TPU v6e": Peak(918e12, 918e12),
}
"""Beginnings of names, the longer before the shorter. float32 is TF32 on these GPUs, and bfloat16 on TPUs."""


def peak_flops(device_kind: str, precision: str) -> float | None:
    """Returns the FLOP a second of a kind of device in "bfloat16" or "float32"; None where it is not known."""
    peak = next((own for name, own in PEAKS.items() if device_kind.startswith(name)), None)
    return getattr(peak, precision, None)
