"""The same models in tuned PyTorch loops on preloaded tensors; needs a Python that has torch.

python benchmarks/peers.py DATA.npz NAME RATE TOTAL_STEPS DEVICE

runs the program NAME once for each line on its standard input. DATA.npz holds images, labels and the rows of each step.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 2048  # of the square matrices whose product measures the BLAS library


def is_installed(package: str, python: str = sys.executable) -> bool:
    """Tells whether a Python interpreter has a package."""
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", probe], check=False).returncode == 0


def in_process(
    python: str, device: str, name: str, rate: float = 0.0, total_steps: int = 0, **arrays: np.ndarray
) -> Callable[[], Any]:
    """Starts a program of this file in another Python; returns a function that runs it once.

    The threads of the other process sleep between runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.npz")
        np.savez(path, allow_pickle=False, **arrays)
        process = subprocess.Popen(
            [python, __file__, str(path), name, str(rate), str(total_steps), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
        sent = process.stdin
        received = process.stdout
        assert sent is not None
        assert received is not None

        def read_answer() -> str:
            line = received.readline()
            if not line:
                raise RuntimeError(f"{python} ended with exit code {process.wait()} while it ran {name}")
            return line

        read_answer()  # waits until the data are loaded

    def run() -> str:
        sent.write("\n")
        sent.flush()
        return read_answer()

    return run


def main(path: str, name: str, rate: str, total_steps: str, device: str) -> None:
    """Runs the program for each input line, and prints a line when it is done."""
    arrays = np.load(path)
    if name == "product":
        factor = torch().rand(SIDE, SIDE, device=device)
        run = lambda: (factor @ factor)[0, 0].item()  # noqa: E731
    else:
        run = torch_steps(name, device, float(rate), int(total_steps), **arrays)
    print("ready", flush=True)
    for _ in sys.stdin:
        run()
        print("done", flush=True)


def device() -> str:
    """Returns PyTorch's name for the device that JAX uses."""
    import jax  # not at the top: the peer that runs this file lacks JAX

    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def torch() -> Any:
    """Returns the module torch, or None if it is not installed."""
    return importlib.import_module("torch") if importlib.util.find_spec("torch") else None


def torch_steps(
    name: str,
    device: str,
    learning_rate: float,
    total_steps: int,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
) -> Callable[[], Any]:
    """Returns a call of `len(rows)` steps of "mlp" or "cnn" on images (n, 28, 28, 1) that returns its losses."""
    th = torch()
    model = _MODELS[name](th.nn).to(device)
    inputs = th.tensor(images, device=device).permute(0, 3, 1, 2)  # a view, so memory stays channels-last
    if name == "cnn":
        model = model.to(memory_format=th.channels_last)
    targets, places = (th.tensor(array, device=device, dtype=th.long) for array in (labels, rows))
    optimizer = th.optim.Adam(model.parameters(), learning_rate, fused=True)
    schedule = th.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps, cycle_momentum=False)

    def run() -> Any:
        reported = []
        for place in places:
            batch = inputs[place]
            wanted = targets[place]
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


if __name__ == "__main__":
    main(*sys.argv[1:])
