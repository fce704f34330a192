"""Training: decoders from scratch on `transformers.Trainer`, plain and regularised."""

from linlib.pretrain.checkpoints import checkpoint_steps
from linlib.pretrain.jobs import Job, TrainedModel, run_job, run_side_by_side
from linlib.pretrain.mistral import SIZES, Variant, mistral_config, train_variants, tune_plain
from linlib.pretrain.recipe import Recipe
from linlib.pretrain.regularise import Regulariser, parse_variant
from linlib.pretrain.text import TrainingText
from linlib.pretrain.train import train
from linlib.pretrain.zoo import train_zoo, zoo_config

__all__ = [
    "SIZES",
    "Job",
    "Recipe",
    "Regulariser",
    "TrainedModel",
    "TrainingText",
    "Variant",
    "checkpoint_steps",
    "mistral_config",
    "parse_variant",
    "run_job",
    "run_side_by_side",
    "train",
    "train_variants",
    "train_zoo",
    "tune_plain",
    "zoo_config",
]
