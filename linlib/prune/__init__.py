"""Make a decoder shorter: choose blocks, remove or replace them, distil, keep the result."""

from linlib.prune.cost import flops_per_token, model_costs
from linlib.prune.distil import Distillation, distil
from linlib.prune.export import save_pruned
from linlib.prune.losses import window_losses
from linlib.prune.methods import METHODS, RIDGE, delta_of, prune
from linlib.prune.order import CRITERIA, block_costs, block_influence, removal_order
from linlib.prune.projection import can_fold, output_projection
from linlib.prune.remove import adjacent_runs, remove_blocks
from linlib.prune.replace import AffineMap, affine_maps, fold_runs, replace_runs
from linlib.prune.runs import RunMoments, collect_runs

__all__ = [
    "CRITERIA",
    "METHODS",
    "RIDGE",
    "AffineMap",
    "Distillation",
    "RunMoments",
    "adjacent_runs",
    "affine_maps",
    "block_costs",
    "block_influence",
    "can_fold",
    "collect_runs",
    "delta_of",
    "distil",
    "flops_per_token",
    "fold_runs",
    "model_costs",
    "output_projection",
    "prune",
    "removal_order",
    "remove_blocks",
    "replace_runs",
    "save_pruned",
    "window_losses",
]
