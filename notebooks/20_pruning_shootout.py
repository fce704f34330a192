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
# # Beyond the paper · The shoot-out: every order of removal, every method, what predicts a loss
#
# **The question.** The paper removes the most linear blocks first and replaces them by linear maps
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 5). Is that the right order? Which
# replacement is the best for its cost? And does a block's score say what its removal will cost?
#
# **Cost.** `smoke` seconds, `tiny` some minutes on two CPU cores once the small decoders of Figure
# 1 are trained, `gpu` and `paper` are estimated at hours.

# %% [markdown]
# ## The formula
#
# Scores that order blocks, of a block that takes $x$ to $y = x + \Delta$, all cheap first:
#
# | order | cost of a block |
# |---|---|
# | most linear (the paper), once or re-measured after each removal | $1 - \mathrm{score}(X, Y)$ |
# | most linear w/o residual | $1 - \mathrm{score}(X, \Delta)$ |
# | highest identity score | $\lVert \Delta_c \rVert^2 / \lVert Y_c \rVert^2$ |
# | least block influence (ShortGPT) | $1 - \mathrm{mean} \cos(x, y)$ |
# | greedy by loss (SLEB) | the loss without the block, measured again after each removal |
# | last first, random | none |
#
# The first three are one identity: with $e$ the cost of the identity score and $s$ the score
# without residual, the cost of the first is $(1 - s)\,e$. A block is cheap to *remove* when $e$ is
# small, and cheap to *replace* when $(1 - s)\,e$ is.
#
# Methods: remove; replace a run of blocks by one affine map fitted on the dense model, or refitted
# one after the other on the model already edited; distil the dense model into the maps; or fold the
# map into the MLP of the block before, which leaves a plain model with fewer blocks.

# %%
import matplotlib.pyplot as plt
import torch

from linlib import plots
from linlib.experiments import obtain
from linlib.intervals import over_seeds
from linlib.linearity import BlockMoments
from linlib.profiles import load_profile
from linlib.store import figures_folder, load_frame

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A check on known ground
#
# The identity above, on noisy states: the cost of the first criterion is the product of the two
# others.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x = torch.randn(4000, 16, generator=generator, dtype=torch.float64)
delta = 0.2 * x.roll(1, dims=1) + 0.1 * torch.randn(4000, 16, generator=generator, dtype=x.dtype)
moments = BlockMoments(16)
moments.update(x, delta)
s, e = moments.linearity_no_residual(), 1 - moments.identity_score()
round(1 - moments.linearity_score(), 6), round((1 - s) * e, 6)

# %% [markdown]
# ## The measurement
#
# Orders and maps come from training text of the kind that the perplexity is measured on. (Figures 6
# and 7 fit and distil on stories, as the paper does; they are in the frame again, as `text`
# "stories".) Random orders are drawn from several seeds.

# %%
settings = load_profile(profile)
frame = obtain("pruning_shootout", settings, remeasure)
pruned = frame[frame["n_removed"] > 0]
like_test = pruned[pruned["text"] == "like the test's"]
frame[["model", "order", "method", "n_removed", "removed", "added", "speedup"]].round(3).head()

# %% [markdown]
# ## What to expect
#
# If the paper's order is a good one, its line lies below the random one in the first column. Each
# point is one block fewer, further to the right and faster. Lower is better; the dotted line is the
# dense model. Lines of one panel differ in the order alone, panels of one row in the method alone.

# %%
models, methods, names = (list(like_test[c].unique()) for c in ("model", "method", "order"))
means = like_test.groupby(["model", "method", "order", "n_removed"], sort=False)
means = means[["perplexity", "speedup"]].mean().reset_index()
size = {"figsize": (3.0 * len(methods) + 2, 3.4 * len(models)), "sharex": True}
fig, grid = plt.subplots(len(models), len(methods), squeeze=False, **size)
for model, axes in zip(models, grid):
    for method, ax in zip(methods, axes):
        rows = means[(means["model"] == model) & (means["method"] == method)]
        plots.path_points(rows, "speedup", "perplexity", "order", ax, names)
        ax.set(title=f"{model}\n{method}", xlabel="Measured speed-up")
    axes[0].set(ylabel="Perplexity per token, held-out", yscale="log")
    plots.plain_log_ticks(axes[0])

# %% [markdown]
# The dense model's perplexity is the reference in every panel: what the speed-up must not cost. The
# first column has a logarithmic scale of its own, the others share one in each row.

# %%
dense = frame[frame["method"] == "dense"].set_index("model")["perplexity"]
for model, axes in zip(models, grid):
    mapped = means[(means["model"] == model) & (means["method"] != "removed")]["perplexity"]
    for ax in axes:
        ax.axhline(dense[model], ls=":", color=plots.NULL_COLOUR, label="dense model")
    for ax in axes[1:]:
        ax.set_ylim(0.97 * min(mapped.min(), dense[model]), 1.03 * max(mapped.max(), dense[model]))
plots.legend(fig, grid[0, 0])
plots.save(fig, figures_folder(profile) / "pruning_shootout")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The numbers behind the lines: the loss above the dense model's, in nats per token, as a mean over
# the numbers of blocks. Rows are orders, columns methods. Below zero a shorter model is better on
# this text than the dense one, which says more about the dense model than about pruning. Only sets
# of blocks that every method can do without are in the mean: a fold needs a block before the run,
# so that sets with the first block are left out here, and folds of them are missing above.

# %%
cells = ["model", "order", "seed", "n_removed"]
complete = like_test.groupby(cells)["method"].transform("nunique") == len(methods)
table = like_test[complete].pivot_table("added", ["model", "order"], "method", sort=False)
table[methods].round(3)

# %% [markdown]
# The text that maps are fitted on matters too. The same blocks, the most linear ones, with maps
# from text like the test's and from stories, where the paper takes them:

# %%
linear = pruned[(pruned["order"] == "most linear") & pruned["method"].str.startswith("replaced")]
linear = linear[linear["method"] != "replaced, refitted"]
linear.pivot_table("added", ["model", "n_removed"], ["method", "text"], sort=False).round(3)

# %% [markdown]
# ## What predicts the loss?
#
# Every block of every small decoder was removed alone, and replaced alone. How well does a score
# rank the blocks by the loss that this adds? Spearman's rank correlation over the blocks of a
# model: 1 is a perfect order, 0 none. Small points are models, bars 95% intervals over models.

# %%
prediction = load_frame("pruning_shootout_prediction", profile)
fig, ax = plt.subplots(figsize=(8.4, 4.0))
plots.interval_points(prediction, "rho", "criterion", "method", ax, ["removed", "replaced"])
ax.set(xlabel="Rank correlation of a block's cost with the loss that is added", xlim=(-1.05, 1.05))
plots.legend(fig, ax)
plots.save(fig, figures_folder(profile) / "pruning_shootout_prediction")
plots.show(fig)

# %%
over_seeds(prediction, ["criterion", "method"], "rho").round(2)

# %% [markdown]
# ## What it costs
#
# Parameters, operations and measured speed; the models take turns on the same text, and the
# speed-up is the median over rounds. A folded model has the cost of a removal, a map costs $d^2$
# more.

# %%
cost = load_frame("pruning_shootout_cost", profile)
cost[cost["method"].isin(["dense", "removed", "replaced"])].round(2)

# %% [markdown]
# ## Deviations
#
# - There is no paper beside this: it compares one order, without intervals or controls.
# - At `tiny` models have six blocks: a rank correlation over six is coarse, which is why its
#   interval is taken over five models. They share one text and one recipe, and are not independent.
# - The speed is of this machine, for windows as long as those measured and without a cache.
# - Where a run begins with the first block nothing can be folded. A panel of folds lacks those
#   points, and a mean over random orders has fewer seeds there.
# - Two methods are compared here by their means; paired intervals are in Figure 7's notebook.
