"""Fashion-MNIST, 28 x 28 pixels, 10 classes, with a multilayer perceptron.

JAXTRAIN_DATA=<folder with fashion_mnist/> python -m jaxtrain.main --config=configs/fashion_mnist_mlp.py

Test accuracy 89.3 % (one seed); 5 s on 2 cores of an AMD EPYC, with a warm compilation cache.
"""

from ml_collections import ConfigDict

from jaxtrain import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data = {"name": "fashion_mnist", "batch_size": 128, "validation_fraction": 0.1}
    config.model = {"name": "mlp", "hidden": (128, 128)}
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    config.schedule = {"optimizer": {"learning_rate": {"name": "one_cycle"}}}
    config.train.duration = "10 epochs"
    return config
