"""Nuclei in microscope pictures, 256 x 256 grey pixels: boxes around the connected parts of their masks.

JAXTRAIN_DATA=<folder with dsb2018_256/> python -m jaxtrain.main --config=configs/nuclei_boxes.py

Mean average precision at an IoU of 0.5 is 0.846, and from 0.5 to 0.95 0.439, on the 50 pictures of the test part; 0.844
and 0.419 on the validation part (one seed). 1,179 s on 2 cores that other work kept busy (load 10 to 13), compilation
included. Nuclei that touch in a mask are one box. The hyperparameters are our own choice; no search.
"""

from ml_collections import ConfigDict

from jaxtrain import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.task = {"name": "detection", "metrics": ("mean_average_precision_50", "mean_average_precision")}
    config.data = {
        "name": "image_masks",
        "folder": "dsb2018_256",
        "most_boxes": 100,
        "batch_size": 16,
        "eval_batch_size": 16,
        "validation_fraction": 0.1,
        "test_fraction": 0.15,
    }
    config.augment = {"crop": {"height": 128}, "flip": {}, "flip_vertical": {}, "quarter_turns": {}}
    config.model = {"name": "grid_resnet", "widths": (16, 32), "blocks": 3}
    config.loss = {"name": "focal_giou"}
    config.optimizer = {"name": "adamw", "learning_rate": 3e-3}
    config.schedule = {"optimizer": {"learning_rate": {"name": "one_cycle"}}}
    config.train.duration = "500 steps"
    config.eval = {"every": "20 %", "metric": "mean_average_precision_50"}
    return config
