"""Models: Flax Linen modules. The framework supplies the first field, `outputs`; the other fields are knobs.

A model with a field `category_sizes`, the number of codes of each column of categories, gets its inputs taken apart:
{"numbers" and "flags": float32, "codes": int32}, each (batch, columns). Other models get categories as columns of 0
and 1 in one array. One with a field `tokens` is told how many different tokens there are; the last one is padding where
inputs are texts of unlike length. One with a field `masked` takes sequences of numbers of unlike length: where that is
True, the last feature is 1 beside values and 0 beside padding.
"""

from jaxtrain.config.registry import Family, Imported, Product, having

MODELS = Family(
    "model",
    Imported(
        {
            "mlp": "jaxtrain.models.mlp:MLP",
            "tabular_mlp": "jaxtrain.models.tabular_mlp:TabularMLP",
            "cnn": "jaxtrain.models.cnn:CNN",
            "resnet9": "jaxtrain.models.resnet9:ResNet9",
            "resnet": "jaxtrain.models.resnet:ResNet",
            "unet": "jaxtrain.models.unet:UNet",
            "vit": "jaxtrain.models.vit:ViT",
            "grid_resnet": "jaxtrain.models.grid_resnet:GridResNet",
            "transformer": "jaxtrain.models.transformer:Transformer",
            "text_encoder": "jaxtrain.models.encoders:TextEncoder",
            "sequence_encoder": "jaxtrain.models.encoders:SequenceEncoder",
        }
    ),
    supplied=("outputs",),
    offered=("category_sizes", "tokens", "masked"),
    product=Product("a Linen module", having("init", "apply")),
)
