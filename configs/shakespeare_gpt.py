"""Tiny Shakespeare, 1.1 million characters of plays, with a small GPT.

JAXTRAIN_DATA=<folder with tinyshakespeare/> python -m jaxtrain.main --config=configs/shakespeare_gpt.py

Test loss 1.82 nats a character on the last tenth of the text, validation loss 1.69 on the twentieth before it (one
seed); 51 min on 2 cores of an AMD EPYC that other programs kept busy. The size is that of nanoGPT's example for a CPU
(Karpathy, https://github.com/karpathy/nanoGPT), with twice its context and a learning rate of 3e-3.
"""

from ml_collections import ConfigDict

from jaxtrain import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data = {
        "name": "text",
        "file": "tinyshakespeare/input.txt",
        "tokens": "characters",
        "context": 128,
        "batch_size": 16,
        "validation_fraction": 0.05,
        "test_fraction": 0.1,
    }
    config.task = {"name": "language_modelling"}
    config.model = {"name": "transformer", "layers": 4, "width": 128, "heads": 4}
    config.optimizer = {"name": "adamw", "learning_rate": 3e-3}
    config.schedule = {"optimizer": {"learning_rate": {"name": "warmup_cosine"}}}
    config.train.duration = "800 steps"
    config.eval.every = "25 %"
    return config
