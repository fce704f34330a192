# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Beyond the paper · What predicts the loss of removing a block?
#
# **The question.** The paper removes the most linear blocks first ([arXiv
# 2405.12250](https://arxiv.org/abs/2405.12250), section 5). That is a good order only if the score
# of a block predicts the loss that its removal, or its replacement by a linear map, adds. Does it,
# and does another criterion predict it better?
#
# **Cost.** `smoke` seconds, `tiny` about a minute on two CPU cores once the small decoders of
# Figure 1 are trained; `gpu` and `paper` are estimated at an hour.

# %% [markdown]
# ## The formula
#
# A criterion gives a cost to each block, which takes $x$ to $y = x + \Delta$. Three of them are one
# identity. With $e = \lVert \Delta_c \rVert^2 / \lVert Y_c \rVert^2$ the cost of the identity score
# and $s = \mathrm{score}(X, \Delta)$ the score without residual, the cost of the paper's score is
#
# $$1 - \mathrm{score}(X, Y) = (1 - s)\, e.$$
#
# Removing a block predicts $\Delta = 0$ and errs by $e$; the best linear map in its place errs by
# $(1 - s)\, e$. So the cost of the identity score should predict what a removal adds, and that of
# the linearity score what a replacement adds. The prediction is measured by Spearman's rank
# correlation, over the blocks of a model, of the cost and the loss that is added: 1 is a perfect
# order, 0 is none.

# %%
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import torch

import linlib
from linlib import parallel, plots, pruning, stats, store, training

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# What a rank correlation of few blocks can say: of six values in random order, the correlation with
# their right order is above 0.8 in about 3% of cases. A single model of six blocks decides little.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
ranks = torch.rand(10_000, 6, generator=generator).argsort(dim=1).double()
correlations = 1 - 6 * (ranks - torch.arange(6)).square().sum(dim=1) / (6 * 35)
round((correlations > 0.8).double().mean().item(), 2)

# %% [markdown]
# ## The criteria
#
# Beside the three of the identity above there are ShortGPT's block influence, $1 - \mathrm{mean}
# \cos(x, y)$, and two references. "Loss" is the loss without the block on training text: the best
# that a criterion can hope for, since its correlation with the loss on held-out text says how much
# of the rest is noise. "Last" is the control: it knows nothing of a block but its place.

# %%
settings = linlib.load_profile(profile)
scale = settings.require("pruning", "this comparison")
criteria = ["linearity", "linearity without residual", "identity score"]
criteria += ["block influence", "loss", "last"]
methods = {"removed": "remove", "replaced": "replace"}

# %% [markdown]
# ## The measurement
#
# Each block of each model is removed alone, and replaced alone. The models are the small decoders
# of the profile or, where it trains none, those of Figures 6 and 7.
#
# `block_costs` measures the cost of each block under a criterion, on training text.
# `losses_without` fits a map in the place of the block (for a removal there is none), on the same
# text, and returns the loss of each window of held-out text. Both run side by side in worker
# processes, which open the models themselves, and the store keeps what they return. `added_loss` is
# the difference from the dense model's loss on the same windows.
#
# Two frames are stored: one row per model, method, block and criterion, with the cost of the block
# and the loss that is added; and the rank correlation over the blocks of a model (`_ranks`).


# %%
def measure():
    names = None if settings.zoo else filter(None, [scale.first_model, scale.second_model])
    rows, seq_len, n_test = [], settings.measure.seq_len, scale.heldout_windows
    for name, source in training.models_of(settings, names).items():
        _, tokenizer = linlib.load(**source)
        heldout = linlib.token_windows(
            settings.corpus, tokenizer, split="heldout", seq_len=seq_len, n_windows=n_test
        )
        fitting = pruning.fitting_arguments(settings.corpus, tokenizer, settings)
        text = {"input_ids": fitting["windows"], "batch_size": scale.batch_size, "model": source}
        items = [text | {"criterion": criterion} for criterion in criteria]
        costs = parallel.side_by_side(pruning.block_costs, items, settings.workers, "criteria")
        text = {"heldout": heldout, "fitting": fitting, "model": source}
        cells = [*product(methods, range(len(costs[0])))]
        items = [text | {"method": methods[method], "blocks": [block]} for method, block in cells]
        items.append(text | {"method": "remove", "blocks": []})
        *losses, dense = parallel.side_by_side(
            pruning.losses_without, items, settings.workers, "models"
        )
        for (method, block), loss in zip(cells, losses):
            added = pruning.added_loss(loss, dense)
            added = {key: value for key, value in added.items() if "added" in key}
            for criterion, cost in zip(criteria, costs):
                place = {"model": name, "method": method, "block": block, "criterion": criterion}
                rows.append(place | {"cost": cost[block]} | added)
    blocks = pd.DataFrame(rows)
    groups = blocks.groupby(["model", "method", "criterion"], sort=False)
    rho = groups[["cost", "added"]].apply(lambda g: g["cost"].corr(g["added"], method="spearman"))
    ranks = pd.DataFrame({"rho": rho, "n_blocks": groups.size()}).reset_index()
    return {"": blocks, "_ranks": ranks}


blocks = linlib.result("block_prediction", measure, settings, remeasure)

# %%
ranks = store.load_frame("block_prediction_ranks", settings.name)
ranks.round(2).head()

# %% [markdown]
# ## What to expect
#
# If the identity describes what happens to the loss, the identity score leads where blocks are
# removed and the linearity score where they are replaced. A criterion is worth its measurement if
# it lies above "last". Small points are models, bars 95% intervals over models.

# %%
fig, ax = plt.subplots(figsize=(8.4, 4.0))
plots.interval_points(ranks, "rho", "criterion", "method", ax, list(methods))
ax.set(xlabel="Rank correlation of a block's cost with the loss that is added", xlim=(-1.05, 1.05))
plots.legend(fig, ax)
plots.save(fig, store.figures_folder(settings.name) / "block_prediction")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# Each point ranks the blocks of one model. Where even "loss" is far from 1, blocks differ by less
# than the noise between training and held-out text, and no criterion can order them. A negative
# value means that a criterion removes the wrong blocks first. The numbers behind the bars:

# %%
stats.over_seeds(ranks, ["criterion", "method"], "rho").round(2)

# %% [markdown]
# The loss that removing or replacing each block adds, in nats per token, as a mean over models.
# Below zero, models are better on this text without the block.

# %%
worth = blocks[blocks["criterion"] == criteria[0]]
worth.pivot_table("added", "block", "method", sort=False).round(3)

# %% [markdown]
# ## Deviations
#
# - The paper has no such figure: it shows one order, without intervals or controls.
# - At `tiny` models have six blocks: a rank correlation over six is coarse, which is why its
#   interval is taken over five models. They share text and training settings, and are not
#   independent.
# - Each block is judged alone. What it is worth once others are gone is another question, which
#   notebook 20 answers by measuring orders again after each removal.
