"""Models: Flax Linen modules. The framework supplies the first field, `outputs`; the other fields are knobs."""

from jaxtrain.config.registry import Family, Product, having
from jaxtrain.models.cnn import CNN
from jaxtrain.models.mlp import MLP
from jaxtrain.models.resnet import ResNet
from jaxtrain.models.resnet9 import ResNet9
from jaxtrain.models.transformer import Transformer
from jaxtrain.models.unet import UNet
from jaxtrain.models.vit import ViT

MODELS = Family(
    "model",
    {
        "mlp": MLP,
        "cnn": CNN,
        "resnet9": ResNet9,
        "resnet": ResNet,
        "unet": UNet,
        "vit": ViT,
        "transformer": Transformer,
    },
    supplied=("outputs",),
    product=Product("a Linen module", having("init", "apply")),
)
