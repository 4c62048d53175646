"""Runs the same 32 trials of one epoch in tuned PyTorch under Optuna, with trials as threads of one process.

python benchmarks/search_peers.py DATA.npz TRIALS JOBS

DATA.npz holds inputs (n, 784), targets, validation_inputs and validation_targets. Prints the best loss on validation.
"""

import importlib
import sys
from typing import Any

import numpy as np
import optuna

torch: Any = importlib.import_module("torch")
nn = torch.nn
BATCH = 128


def main(path: str, trials: int, jobs: int) -> None:
    """Runs the study; several jobs share the cores equally."""
    arrays = np.load(path)
    inputs, held_out = (torch.tensor(arrays[name]) for name in ("inputs", "validation_inputs"))
    targets, wanted = (torch.tensor(arrays[name], dtype=torch.long) for name in ("targets", "validation_targets"))
    if jobs > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))

    def objective(trial: optuna.Trial) -> float:
        layers = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)]
        model = nn.Sequential(*layers)
        optimizer = torch.optim.SGD(
            model.parameters(),
            trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
            momentum=trial.suggest_float("momentum", 0.0, 0.99),
            weight_decay=trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
            fused=True,
        )
        for rows in torch.randperm(len(inputs))[: len(inputs) // BATCH * BATCH].reshape(-1, BATCH):
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            return nn.functional.cross_entropy(model(held_out), wanted).item()

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, trials, n_jobs=jobs)
    print(study.best_value)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
