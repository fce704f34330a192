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
# # Beyond the paper · Is the most linear block the right one to remove?
#
# **The question.** The paper removes the most linear blocks first and replaces them by linear maps
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 5). It shows one order and no
# control. Does another order, or another replacement, cost less? Is the paper's order better than
# blocks that are drawn at random? And does the score of a block predict the loss that its removal
# adds?
#
# **Cost.** `smoke` seconds; `tiny` about five minutes on two CPU cores, nearly all of it for
# SmolLM2, `laptop` twenty minutes after notebooks 06 and 07; `gpu` and `paper` are estimated at an
# hour.

# %% [markdown]
# ## The formula
#
# Orders of removal, by the cost of a block that takes $x$ to $y = x + \Delta$; cheap blocks go
# first:
#
# | order | cost of a block |
# |---|---|
# | most linear (the paper) | $1 - \mathrm{score}(X, Y)$ |
# | most linear, no massive tokens | the same, over tokens of at most 10 times the median norm |
# | most linear w/o residual | $1 - \mathrm{score}(X, \Delta)$ |
# | highest identity score | $\lVert \Delta_c \rVert^2 / \lVert Y_c \rVert^2$ |
# | least block influence (ShortGPT) | $1 - \mathrm{mean} \cos(x, y)$ |
# | loss (oracle) | the loss without the block, on the very text of the test |
# | last first | none: the control that knows nothing of a block but its place |
#
# Three of them are one identity: with $e$ the cost of the identity score and $s$ the score without
# residual, the cost of the paper's order is
#
# $$1 - \mathrm{score}(X, Y) = (1 - s)\, e.$$
#
# Removing a block predicts $\Delta = 0$ and errs by $e$; the best affine map in its place errs by
# $(1 - s)\, e$. So a block should be cheap to *remove* where $e$ is small, and cheap to *replace*
# where $(1 - s)\, e$ is. All three are shares of variance in the residual stream, and none of them
# knows what the model makes of it. A few tokens of a real decoder, the first of each window above
# all, have states hundreds of times longer than the rest; they decide the first cost nearly alone
# from the middle of the model on, and the second order asks whether that matters. Block influence
# takes each token once, whatever its length. None of these orders looks at the loss.

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import SymLogNorm

import linlib
from linlib import plots, pruning, stats, store, training
from linlib.pruning import sets as studies

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# The identity above, on noisy states: the cost of the paper's order is the product of two others.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x = torch.randn(4000, 16, generator=generator, dtype=torch.float64)
delta = 0.2 * x.roll(1, dims=1) + 0.1 * torch.randn(4000, 16, generator=generator, dtype=x.dtype)
moments = linlib.BlockMoments(16)
moments.update(x, delta)
s, e = moments.linearity_no_residual(), 1 - moments.identity_score()
round(1 - moments.linearity_score(), 6), round((1 - s) * e, 6)

# %% [markdown]
# ## Orders, methods, and how many blocks
#
# Costs are measured once, on the dense model: four of them in one pass that gives the scores of
# all blocks, block influence in another. The oracle takes nothing but the losses that are measured
# here anyway. No order can use it, since it has read the test; it says how good an order by single
# blocks could be. It is not the best set of blocks, which need not hold the best single ones.

# %%
PAPER, ORACLE = "most linear (the paper)", "loss (oracle)"
scores = {
    PAPER: ("linearity_score", "all"),
    "most linear, no massive tokens": ("linearity_score", "no massive"),
    "most linear w/o residual": ("linearity_no_residual", "all"),
    "highest identity score": ("identity_score", "all"),
}
others = {"least block influence": "block influence", "last first": "last"}

# %% [markdown]
# A run of blocks is removed, or replaced by one affine map that is fitted on the dense model, or
# the map is *folded* into the MLP of the block before, which leaves a plain model. Maps that are
# *refitted* come one after the other, each on the model that the maps before are already part of.
# That takes a pass over the calibration text for each run of each set, so models of more than 12
# blocks are left out of it. Distillation is the subject of Figure 6 and is left out altogether.
#
# The grid is drawn for the second of the profile's numbers of blocks: with one block, orders that
# agree on the best one cannot be told apart, and with many, all sets overlap. Costs are not
# measured again after a removal: that is what makes a greedy search expensive, since it takes a
# pass over the text for each remaining block at each step.

# %%
methods = {
    "removed": ("remove", False),
    "replaced": ("replace", False),
    "replaced, refitted": ("replace", True),
    "folded": ("fold", False),
    "folded, refitted": ("fold", True),
}
DEEP = 12  # blocks; deeper models are not refitted
settings = linlib.load_profile(profile)
scale = settings.require("pruning", "this comparison")
names = [name for name in (scale.first_model, scale.second_model) if name]
n_grid, random = scale.numbers[:2][-1], (scale.random_subsets, settings.seed)

# %% [markdown]
# ## The null
#
# An order is worth its measurement if it beats blocks that are drawn at random. For each of the
# profile's numbers of blocks, sets are drawn from all there are: `random_subsets` of the profile,
# or all of them where that many do not exist. Six blocks have 6, 15 and 15 sets of one, two and
# four. A random *order* from a few seeds would be a poorer control: its mean hides how far apart
# sets lie, and a few ruinous sets make any order look good. The rank among many sets does not
# depend on how ruinous they are. Of seven orders that know nothing, one has a rank of 0.1 or better
# in about half of all cases, so that a single good rank proves little.
#
# ## The text
#
# Held-out text is one window in sixteen, so that the few windows that there is time for come from
# many documents of the corpus; adjacent ones would come from two or three, and no interval over
# documents could be given. Calibration text, on which costs are measured and maps are fitted, is
# spread in the same way over the training part. `study_text` cuts both.
#
# ## The measurement
#
# `losses_of_sets` gives the loss of the model without each of many sets on each document. Models
# that agree in their first blocks share the states behind these, so that a set costs about a third
# of a forward pass beside the language-modelling head. `added_by_set` pairs it with the dense model
# by document: the difference in nats per token, with its 95% interval over documents.
# `cheapest_sets` takes from each order its first blocks. The store keeps the losses: random sets
# are those of Figures 6 and 7, and notebook 22 finds here the losses without each single block.
#
# Four frames are stored: one row per model, order, number of blocks and method; the random sets
# (`_subsets`); the cost of each block in each order (`_costs`); and the losses by document of the
# dense model, of single blocks and of the grid (`_documents`).


# %%
def measure():
    tables = {"": {}, "_subsets": {}, "_costs": {}, "_documents": {}}
    for name, source in training.models_of(settings, names).items():
        model, tokenizer = linlib.load(**source)
        blocks, separator = range(model.config.num_hidden_layers), training.separator_of
        given, text = studies.study_text(settings, tokenizer, separator(settings, name))
        losses = partial(store.cached, studies.losses_of_sets, model, **given)
        single = losses([[], *([block] for block in blocks)], "remove")
        dense = single[single["removed"] == ""]
        score = store.cached(linlib.linearity_profile, model, **text)
        score = score.pivot(index="layer", columns="tokens")
        costs = {order: [*(1 - score[column])] for order, column in scores.items()}
        for order, criterion in others.items():
            costs[order] = store.cached(pruning.block_costs, model, text["input_ids"], criterion)
        costs[ORACLE] = [*studies.added_by_set(single, dense)["added"][1:]]
        tables["_costs"][name] = studies.cost_table(costs)
        numbers = [n for n in scale.numbers if n < len(blocks)]
        order = sorted(blocks, key=costs[PAPER].__getitem__)
        null = studies.random_removals(losses, len(blocks), order, numbers, *random)
        tables["_subsets"][name] = null.query("drawn == 'random'")
        chosen, sets = studies.cheapest_sets(costs, numbers)
        size, found = min(n_grid, numbers[-1]), {"alone": single}
        grid = [one for one in sets if len(one) == size]
        for method, (kind, refit) in methods.items():
            able = dict.fromkeys(sets if kind == "remove" else grid)
            able = [one for one in able if kind != "fold" or pruning.can_fold(model.config, one)]
            if able and not (refit and len(blocks) > DEEP):
                found[method] = losses(able, kind, refit=refit)
        found = pd.concat(found, names=["method"]).reset_index("method")
        tables["_documents"][name] = found
        added = studies.added_by_set(found[found["method"] != "alone"], dense)
        tables[""][name] = chosen.merge(added)
    return {suffix: studies.by_model(frames) for suffix, frames in tables.items()}


# %%
frame = linlib.result("pruning_shootout", measure, settings, remeasure)

# %% [markdown]
# In each frame `added` is the loss above the dense model's in nats per token, with its interval
# `added_low` to `added_high` over documents; `removed` lists the blocks, counted from 0.

# %%
subsets, costs, documents = (
    store.load_frame(f"pruning_shootout_{name}", settings.name)
    for name in ("subsets", "costs", "documents")
)
models, orders = list(frame["model"].unique()), list(costs["order"].unique())
most = frame.groupby("model")["n_removed"].transform("max")
grid = frame[frame["n_removed"] == most.clip(upper=n_grid)]
frame.round(3).head()

# %% [markdown]
# ## What to expect of the grid
#
# Rows are orders, columns methods; a cell is the loss that the shorter model adds to the dense one,
# which is the row of zeros on top. The paper's order has a frame. If it is a good one, no row below
# it is lighter. If maps do what the paper says, the columns right of the first are. Below zero
# (blue) a shorter model is better on this text than the dense one, which says more about the dense
# model than about pruning. Compare rows within a column for the order, and columns within a row for
# the method. The scale of colours is logarithmic beyond 0.1 and the numbers are exact; how large a
# difference must be to mean something is said at the end.

# %%
size = {"figsize": (6.4 * len(models), 4.6), "squeeze": False, "sharey": True}
fig, axes = plt.subplots(1, len(models), **size)
plt.close(fig)  # shown below, when all is drawn
worst = grid["added"].abs().max()
looks = {"cmap": "vlag", "norm": SymLogNorm(0.1, vmin=-worst, vmax=worst), "fmt": ".2f"}
looks |= {"cbar_kws": {"format": "{x:g}", "label": "Added loss, nats per token (0: dense)"}}

# %%
for model, ax in zip(models, axes.flat):
    rows = grid[grid["model"] == model]
    table = rows.pivot(index="order", columns="method", values="added").reindex(["dense", *orders])
    table = table[[method for method in methods if method in table]]
    table.loc["dense"], marks = 0.0, plt.Rectangle((0, orders.index(PAPER) + 1), table.shape[1], 1)
    table.columns = table.columns.str.replace(", ", ",\n")
    sns.heatmap(table, annot=table.round(2) + 0.0, ax=ax, cbar=ax is axes.flat[-1], **looks)
    marks.set(fill=False, lw=3, edgecolor="black", clip_on=False)
    ax.add_patch(marks).set_zorder(3)
    ax.set(title=f"{model}, {rows['n_removed'].iloc[0]} blocks", xlabel="", ylabel="")

# %%
for ax in axes.flat:
    ax.tick_params(length=0, labelsize=10)
    ax.tick_params("x", rotation=0)
plots.save(fig, store.figures_folder(settings.name) / "pruning_shootout")
plots.show(fig)

# %% [markdown]
# Rows that look alike chose the same blocks, or blocks that do as little; the table below says
# which. Columns of maps tell how much of the damage a linear map in the same place repairs. Where a
# whole row stays dark, the order took blocks that no linear map can stand in for; where only the
# first cell is dark, the blocks are needed and nearly linear at once. That is the case which the
# paper's title has in mind, and the only one in which an order by linearity has a reason behind it:
# a block that can be removed for nothing needs no map.
#
# An empty cell cannot be measured: nothing can be folded into a block before the first. Columns
# that a panel lacks were not measured, as said above. The blocks behind the rows, counted from 0:

# %%
removed = grid[grid["method"] == "removed"]
removed.pivot(index="order", columns="model", values="removed").loc[orders, models]

# %% [markdown]
# ## Is the paper's order better than chance?
#
# Grey points are the sets that were drawn at random, or all there are; coloured ones the orders. An
# order that knows something of blocks lies at the left end. The scale is logarithmic, but linear
# around 0.

# %%
removed = frame[frame["method"] == "removed"]
np.random.seed(settings.seed)  # of the jitter

# %%
fig, axes = plt.subplots(1, len(models), figsize=(6.4 * len(models), 4.6), squeeze=False)
plt.close(fig)  # shown below, when all is drawn
for model, ax in zip(models, axes.flat):
    ax.set_xscale("symlog", linthresh=0.1)
    both = {"x": "added", "y": "n_removed", "orient": "h", "ax": ax, "jitter": False}
    rows = subsets[subsets["model"] == model].assign(order="random sets")
    grey = {"hue": "order", "palette": ["0.7"], "size": 4, "jitter": 0.35}
    sns.stripplot(rows, **both | grey)
    rows = removed[removed["model"] == model]
    both |= {"hue": "order", "hue_order": orders, "dodge": True}
    sns.stripplot(rows, size=8, linewidth=0.7, **both)
    ax.set(title=model, ylabel="Blocks removed", xlabel="Added loss, nats per token")
    ax.xaxis.set_major_formatter("{x:g}")

# %%
plots.legend(fig, ax)
for ax in axes.flat:
    ax.get_legend().remove()
plots.save(fig, store.figures_folder(settings.name) / "pruning_shootout_null")
plots.show(fig)

# %% [markdown]
# The p value of an order is the chance that a random set of the same size is as cheap: the share of
# sets that are not dearer, the order's own among them. It cannot be smaller than one over their
# number, which stands in the last row; six blocks taken singly can never show an order to be better
# than chance at the usual level of 0.05, and one order of seven below that level is no surprise.
# Sets of different sizes are not independent either: an order that begins well has a good start.

# %%
pairs = removed.merge(subsets, on=["model", "n_removed"], suffixes=("", "_random"))
pairs = pairs[pairs["removed"] != pairs["removed_random"]]
pairs["as_cheap"] = pairs["added_random"] <= pairs["added"]
counts = pairs.groupby(["order", "model", "n_removed"], sort=False)["as_cheap"].agg(["sum", "size"])
p = ((counts["sum"] + 1) / (counts["size"] + 1)).unstack(["model", "n_removed"]).loc[orders, models]
p.loc["smallest possible"] = (1 / (counts["size"] + 1)).groupby(["model", "n_removed"]).min()
p.round(2)

# %% [markdown]
# ## Does the cost of a block predict the loss that its removal adds?
#
# Spearman's rank correlation over the blocks of a model: 1 is a perfect order, 0 is none. The p
# value is that of permutations, the interval Fisher's, both of which ask whether another model of
# this kind would show the same. Block 0 turns token embeddings into states, so that most criteria
# call it expensive and its removal is ruinous; a correlation may rest on it alone. So each is given
# without it as well. Two blocks that are cheap alone may be dear together, so a good correlation is
# needed for a good order and does not make one.

# %%
added = costs[costs["order"] == ORACLE].rename(columns={"cost": "added"})
pairs = costs[costs["order"] != ORACLE].merge(added[["model", "block", "added"]])
found = {}
for (model, order), rows in pairs.groupby(["model", "order"], sort=False):
    for blocks, some in (("all", rows), ("without block 0", rows[rows["block"] > 0])):
        if len(some) > 2:  # fewer have no ranks to speak of
            found[model, order, blocks] = stats.rank_correlation(some["cost"], some["added"])
ranks = pd.DataFrame(found, index=["rho", "low", "high", "p"]).T
ranks.rename_axis(["model", "order", "blocks"]).round(3)

# %% [markdown]
# How much of what is missing is noise of the text? If the losses that blocks add on one half of the
# documents correlate by $r$ with those on the other half, a criterion that knew the true losses
# could be expected to correlate by about $\sqrt{2r / (1 + r)}$ with those on all documents
# (Spearman and Brown). If this ceiling is high and a criterion is not, the criterion is wrong, and
# more text would not help it.

# %%
alone = documents[documents["method"] == "alone"].fillna({"removed": "dense"})
half = alone.groupby(["model", "removed"])["document"].rank() % 2
sums = alone.groupby(["model", "removed", half.rename("half")])[["loss", "n_tokens"]].sum()
halves = (sums["loss"] / sums["n_tokens"]).unstack("half").drop("dense", level="removed")
r = halves.groupby("model").corr("spearman").iloc[::2, -1].droplevel(1).clip(lower=0)
pd.DataFrame({"halves": r, "ceiling": np.sqrt(2 * r / (1 + r))}).round(2)

# %% [markdown]
# ## The smallest effect that this can see
#
# Each order is compared with the paper's on the same documents. A difference must be about 2.8 of
# its standard errors to be found in four of five such measurements; `smallest_effect` says how much
# that is, in nats per token. Orders that chose the same blocks are left out.

# %%
keys = ["model", "method", "removed"]
losses = grid[[*keys, "order"]].merge(documents, on=keys)
paper = losses[losses["order"] == PAPER].drop(columns="order")
losses = losses.merge(paper, on=["model", "method", "document"], suffixes=("", "_paper"))
losses = losses[losses["removed"] != losses["removed_paper"]]
found = {}
for key, rows in losses.groupby(["model", "method", "order"], sort=False):
    mean, low, high = stats.clustered_mean(rows["loss"] - rows["loss_paper"], rows["n_tokens"])
    found[key] = mean, low, high, stats.smallest_effect(low, high)
columns = ["above the paper's", "low", "high", "smallest effect"]
differences = pd.DataFrame(found, columns).T.rename_axis(["model", "method", "order"])
differences.drop(["folded", "folded, refitted"], level="method", errors="ignore").round(3)

# %% [markdown]
# And a rank correlation over all blocks would have to be this large to be found as often, by the
# normal approximation of Fisher's z. With six blocks, only an order that is nearly perfect shows.

# %%
n_blocks = costs.groupby("model", sort=False)["block"].nunique()
np.tanh(2.8 * np.sqrt(1.06 / (n_blocks - 3).clip(lower=1))).round(2)

# %% [markdown]
# ## Deviations
#
# - The paper has no such figure: it shows one order, without intervals or controls.
# - The random sets say where an order lies for one model and one text. That a model's six blocks
#   allow 15 pairs bounds what they can show: the best of 15 has a p value of 1/15.
# - Maps are fitted on text like the test's. Figures 6 and 7 show what other text costs.
# - One number of blocks is drawn as a grid, and one text is measured. An order that is good for two
#   blocks of this model need not be good for ten, or for another model.
# - The oracle has read the test. It is a bound for orders by single blocks, and no rival.
# - The weights of packaged models are four-bit weights, dequantised; instruct models read plain
#   text, without their chat template.
