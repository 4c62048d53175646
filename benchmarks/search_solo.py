"""Runs the same 32 trials in sequence: Optuna around `jaxtrain.train_and_evaluate`, in one process.

python benchmarks/search_solo.py CONFIG.json TRIALS
"""

import sys
import tempfile
from pathlib import Path

import timing  # noqa: F401 (before jax: puts this clone first on the path)

from jaxtrain import load_config, train_and_evaluate
from jaxtrain.parallel.compilation import use_persistent_cache


def main(path: str, trials: int) -> None:
    """Runs the study with one folder per trial."""
    import optuna

    use_persistent_cache()
    with tempfile.TemporaryDirectory() as folder:

        def objective(trial: optuna.Trial) -> float:
            chosen = {
                "optimizer.learning_rate": trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
                "optimizer.momentum": trial.suggest_float("momentum", 0.0, 0.99),
                "optimizer.weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
            }
            result = train_and_evaluate(load_config(path, chosen), Path(folder, str(trial.number)), quiet=True)
            return result.best["value"] if result.best else float("nan")

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, trials)
        print(study.best_value)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
