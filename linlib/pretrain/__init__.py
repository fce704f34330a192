"""Training: decoders from scratch on `transformers.Trainer`, and the zoo of small ones."""

from linlib.pretrain.train import Recipe, checkpoint_steps, train
from linlib.pretrain.zoo import TrainedModel, ZooText, train_zoo, zoo_config

__all__ = [
    "Recipe",
    "TrainedModel",
    "ZooText",
    "checkpoint_steps",
    "train",
    "train_zoo",
    "zoo_config",
]
