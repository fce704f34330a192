"""Training: decoders from scratch on `transformers.Trainer`, and the zoo of small ones."""

from linlib.pretrain.train import Recipe, checkpoint_steps, has_fast_bf16, train
from linlib.pretrain.zoo import TrainedModel, ZooText, train_zoo, zoo_config

__all__ = [
    "Recipe",
    "TrainedModel",
    "ZooText",
    "checkpoint_steps",
    "has_fast_bf16",
    "train",
    "train_zoo",
    "zoo_config",
]
