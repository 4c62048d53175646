"""The same models in PyTorch, tuned, with the data preloaded as tensors; only where torch is installed."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def torch() -> Any:
    """Returns the module torch; None where it is not installed."""
    return importlib.import_module("torch") if importlib.util.find_spec("torch") else None


def torch_steps(
    name: str, learning_rate: float, total_steps: int, images: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> Callable[[], Any]:
    """Returns `len(rows)` steps of "mlp" or "cnn" on images (n, 28, 28, 1), that read loss and right answers."""
    th = torch()
    device = "cuda" if jax.default_backend() == "gpu" and th.cuda.is_available() else "cpu"
    model = _MODELS[name](th.nn).to(device)
    inputs = th.tensor(images, device=device).permute(0, 3, 1, 2)  # a view, hence channels last in memory
    if name == "cnn":
        model = model.to(memory_format=th.channels_last)
    targets, places = (th.tensor(array, device=device, dtype=th.long) for array in (labels, rows))
    optimizer = th.optim.Adam(model.parameters(), learning_rate, fused=True)
    schedule = th.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps, cycle_momentum=False)

    def run() -> Any:
        reported = []
        for place in places:
            batch, wanted = inputs[place], targets[place]
            logits = model(batch)
            loss = th.nn.functional.cross_entropy(logits, wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            reported.append(th.stack([loss.detach(), (logits.detach().argmax(1) == wanted).sum().float()]))
        return th.stack(reported).cpu()

    return run


def _mlp(nn: Any) -> Any:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def _cnn(nn: Any) -> Any:
    convolutions = (nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1))
    layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU(), nn.MaxPool2d(2))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))


_MODELS: dict[str, Callable[[Any], Any]] = {"mlp": _mlp, "cnn": _cnn}
