"""Make a decoder shorter: choose blocks, remove or replace them, distil, measure, save the result.

    blocks = removal_order(model, windows, method="fold")[:2]
    maps = fit_maps(model, blocks, "fold", windows)
    smaller = apply_maps(model, maps)

`prune` does the last two at once. Fitting is apart from applying so that fitted or distilled maps
can be kept (`store.cached(fit_maps, model, ...)`) and put into the model again in no time.
"""

from linlib.pruning.distil import distil
from linlib.pruning.fit import METHODS, Maps, apply_maps, fit_maps, prune, run_moments
from linlib.pruning.losses import (
    LIKE_TEST,
    STORIES,
    added_loss,
    interval_columns,
    pruning_texts,
)
from linlib.pruning.maps import affine_maps, can_fold, output_projection, replace_runs
from linlib.pruning.order import CRITERIA, block_costs, removal_order
from linlib.pruning.remove import adjacent_runs, remove_blocks
from linlib.pruning.save import load_pruned, save_pruned
from linlib.pruning.sets import losses_of_sets, random_removals, study_text

__all__ = [
    "CRITERIA",
    "LIKE_TEST",
    "METHODS",
    "Maps",
    "STORIES",
    "added_loss",
    "adjacent_runs",
    "affine_maps",
    "apply_maps",
    "block_costs",
    "can_fold",
    "distil",
    "fit_maps",
    "interval_columns",
    "load_pruned",
    "output_projection",
    "prune",
    "pruning_texts",
    "losses_of_sets",
    "random_removals",
    "removal_order",
    "remove_blocks",
    "replace_runs",
    "run_moments",
    "save_pruned",
    "study_text",
]
