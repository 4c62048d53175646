"""Digits, 8 x 8 pixels, 10 classes: an embedded data set.

python -m jaxtrain.main --config=configs/digits.py

Test accuracy over seeds 0 to 4: median 98.6 % (98.3 to 98.9 %); 7 s per run on 2 cores of an AMD EPYC,
compilation included.
"""

from ml_collections import ConfigDict

from jaxtrain import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data = {"name": "digits", "batch_size": 64, "test_fraction": 0.2, "validation_fraction": 0.1}
    config.model = {"name": "mlp", "hidden": (128, 128), "dropout": 0.2}
    config.loss = {"name": "cross_entropy", "label_smoothing": 0.05}
    config.optimizer = {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.1}
    config.schedule = {"optimizer": {"learning_rate": {"name": "one_cycle"}}}
    config.train.duration = "40 epochs"
    return config
