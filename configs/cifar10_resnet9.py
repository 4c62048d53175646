"""CIFAR-10 as JPEG files in Parquet, 32 x 32 pixels, 10 classes, with a small residual network, crops and flips.

JAXTRAIN_DATA=<folder with cifar10_jpeg/> python -m jaxtrain.main --config=configs/cifar10_resnet9.py

Test accuracy 76.5 % (one seed); 40 min on 2 cores of an AMD EPYC that other programs kept busy.

Widths and the one-cycle schedule as in configs/fashion_mnist_resnet9.py; crops and flips of He et al. (2016),
https://arxiv.org/abs/1512.03385, section 4.2.
"""

from ml_collections import ConfigDict

from jaxtrain import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data = {
        "name": "parquet",
        "file": "cifar10_jpeg/train.parquet",
        "test_file": "cifar10_jpeg/test.parquet",
        "target": "label",
        "batch_size": 256,
        "validation_fraction": 0.1,
    }
    config.augment = {"pad_and_crop": {"pixels": 4}, "flip": {"probability": 0.5}}
    config.model = {"name": "resnet9", "widths": (16, 32, 64, 128)}
    config.loss = {"name": "cross_entropy", "label_smoothing": 0.1}
    config.optimizer = {"name": "adamw", "learning_rate": 0.01}
    config.schedule = {"optimizer": {"learning_rate": {"name": "one_cycle"}}}
    config.train.duration = "450 steps"
    return config
