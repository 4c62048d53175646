"""Models: Flax Linen modules. The framework supplies the first field, `outputs`; the other fields are knobs.

A model with a field `category_sizes`, the number of codes of each column of categories, gets its inputs taken apart:
{"numbers" and "flags": float32, "codes": int32}, each (batch, columns). Other models get categories as columns of 0
and 1 in one array. One with a field `tokens` is told how many different tokens there are; the last one is padding where
inputs are texts of unlike length. One with a field `masked` takes sequences of numbers of unlike length: where that is
True, the last feature is 1 beside values and 0 beside padding.
"""

from jaxtrain.config.registry import Family, Product, having
from jaxtrain.models.cnn import CNN
from jaxtrain.models.encoders import SequenceEncoder, TextEncoder
from jaxtrain.models.grid_resnet import GridResNet
from jaxtrain.models.mlp import MLP
from jaxtrain.models.resnet import ResNet
from jaxtrain.models.resnet9 import ResNet9
from jaxtrain.models.tabular_mlp import TabularMLP
from jaxtrain.models.transformer import Transformer
from jaxtrain.models.unet import UNet
from jaxtrain.models.vit import ViT

MODELS = Family(
    "model",
    {
        "mlp": MLP,
        "tabular_mlp": TabularMLP,
        "cnn": CNN,
        "resnet9": ResNet9,
        "resnet": ResNet,
        "unet": UNet,
        "vit": ViT,
        "grid_resnet": GridResNet,
        "transformer": Transformer,
        "text_encoder": TextEncoder,
        "sequence_encoder": SequenceEncoder,
    },
    supplied=("outputs",),
    offered=("category_sizes", "tokens", "masked"),
    product=Product("a Linen module", having("init", "apply")),
)
