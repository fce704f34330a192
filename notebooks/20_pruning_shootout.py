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
# # Beyond the paper · The shoot-out: every order of removal with every method
#
# **The question.** The paper removes the most linear blocks first and replaces them by linear maps
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 5). Is that the right order, and
# which replacement is the best for its cost? Whether the score of a single block predicts what its
# removal costs is the question of notebook 24.
#
# **Cost.** `smoke` seconds, `tiny` some minutes on two CPU cores once the small decoders of Figure
# 1 are trained; `gpu` and `paper` are estimated at hours.

# %% [markdown]
# ## The formula
#
# Orders of removal, by the cost of a block that takes $x$ to $y = x + \Delta$; cheap blocks go
# first:
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
# Methods: remove; replace a run of blocks by one affine map that is fitted on the dense model, or
# refitted, one after the other, on the model that the maps before are already part of; distil the
# dense model into the maps; or fold the map into the MLP of the block before, which leaves a plain
# model with fewer blocks.

# %%
from functools import partial
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import torch

import linlib
from linlib import parallel, plots, pruning, store, training

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# The identity above, on noisy states: the cost of the first criterion is the product of the two
# others.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x = torch.randn(4000, 16, generator=generator, dtype=torch.float64)
delta = 0.2 * x.roll(1, dims=1) + 0.1 * torch.randn(4000, 16, generator=generator, dtype=x.dtype)
moments = linlib.BlockMoments(16)
moments.update(x, delta)
s, e = moments.linearity_no_residual(), 1 - moments.identity_score()
round(1 - moments.linearity_score(), 6), round((1 - s) * e, 6)

# %% [markdown]
# ## Orders and methods
#
# An order is a criterion, with the costs measured once on the dense model or again, on the
# remaining model, after each removal. Measuring again matters where blocks make up for one
# another: a block that looks superfluous may be needed once its neighbour is gone. The greedy
# search by loss does so by definition, and costs a pass over the text for each remaining block at
# each removal, where the other orders need one pass, or one per removal. Random orders, drawn from
# several seeds, are the control: an order that is no better than they are says nothing about
# blocks.

# %%
settings = linlib.load_profile(profile)
scale = settings.require("pruning", "this comparison")
names = [name for name in (scale.first_model, scale.second_model) if name]
orders = {
    ("most linear", 0): {"criterion": "linearity"},
    ("most linear, re-measured", 0): {"criterion": "linearity", "remeasure": True},
    ("most linear w/o residual", 0): {"criterion": "linearity without residual"},
    ("highest identity score", 0): {"criterion": "identity score"},
    ("least block influence", 0): {"criterion": "block influence"},
    ("greedy by loss", 0): {"criterion": "loss", "remeasure": True},
    ("last first", 0): {"criterion": "last"},
}
for seed in scale.random_seeds:
    orders["random", seed] = {"criterion": "random", "seed": seed}

# %% [markdown]
# A method is one of those of `fit_maps`, and whether maps are refitted. Maps that are all fitted
# on the dense model read, once several runs are replaced, states that they were not fitted on:
# what the maps before them produce, and not what the blocks did. Refitting one after the other
# repairs that at the price of a pass over the text per run. Distillation trains all maps together.
# A map of its own costs operations, and no plain model has a place for it; a folded one costs
# nothing, but sees only what the last MLP added to the stream, and not the stream itself.

# %%
methods = {
    "removed": {"method": "remove"},
    "replaced": {"method": "replace"},
    "replaced, refitted": {"method": "replace", "refit": True},
    "replaced + distilled": {"method": "distil"},
    "folded": {"method": "fold"},
    "folded, refitted": {"method": "fold", "refit": True},
}

# %% [markdown]
# What a shorter model costs depends on its shape alone, and not on the values of its weights. So
# three shapes are timed: the dense model; the model without the blocks, which is that of a fold
# too; and the model with a map for each run of blocks.

# %%
same_cost = {
    "dense": ["dense"],
    "removed": ["removed", "folded", "folded, refitted"],
    "replaced": ["replaced", "replaced, refitted", "replaced + distilled"],
}

# %% [markdown]
# Maps are fitted on text like that on which the perplexity is measured. Figures 6 and 7 fit theirs
# on stories, as the paper does; for the paper's order and its two kinds of maps, both are compared.
# Distillation stops early by held-out windows: of the corpus those that come after the ones on
# which the perplexity is measured. `fitting_arguments` cuts a text into all these windows, by the
# numbers of the profile, once it is given the tokenizer of a model.

# %%
LIKE_TEST, STORIES = "like the test's", "stories"
variants = [*product(methods, [LIKE_TEST])]
variants += [("replaced", STORIES), ("replaced + distilled", STORIES)]
seq_len, n_test = settings.measure.seq_len, scale.heldout_windows
heldout_text = partial(
    linlib.token_windows, settings.corpus, split="heldout", seq_len=seq_len, n_windows=n_test
)
texts = {
    LIKE_TEST: partial(pruning.fitting_arguments, settings.corpus, settings=settings),
    STORIES: partial(pruning.fitting_arguments, scale.stories, settings=settings),
}

# %% [markdown]
# ## The measurement
#
# The two models of Figures 6 and 7 are pruned in each order, by each method, to each number of
# blocks; a cell of this grid is a set of blocks with a method and a text to fit on. Orders come
# from training text of the kind that the perplexity is measured on. A fold needs a block before it,
# and blocks whose MLP is followed by a norm take none: `can_fold` says so, and the grid lacks the
# rest.
#
# Orders, and then pruned models, are measured side by side in worker processes. `removal_order`
# gives the blocks in the order of their removal. `losses_without` opens the model, fits the maps,
# puts them in the place of the blocks and returns the loss of each held-out window; the first of
# its results is the dense model's, since no block is removed there. The store keeps all of it.
# Speed is measured afterwards, in this process, by `model_costs`.


# %%
def measure():
    rows, costs = [], {}
    for name, source in training.models_of(settings, names).items():
        model, tokenizer = linlib.load(**source)
        heldout = heldout_text(tokenizer=tokenizer)
        fitting = {text: windows(tokenizer=tokenizer) for text, windows in texts.items()}
        most = min(scale.most_removed, model.config.num_hidden_layers - 1)
        common = {"model": source, "input_ids": fitting[LIKE_TEST]["windows"], "n_remove": most}
        items = [common | {"batch_size": scale.batch_size} | order for order in orders.values()]
        found = parallel.side_by_side(linlib.removal_order, items, settings.workers, "orders")
        cells = [(None, None, "dense", LIKE_TEST, [])] + [
            (order, seed, method, text, sorted(removed[:n]))
            for (order, seed), removed in zip(orders, found)
            for n, (method, text) in product(range(1, most + 1), variants)
            if text == LIKE_TEST or order == "most linear"
            if "folded" not in method or pruning.can_fold(model.config, removed[:n])
        ]
        items = [
            {"model": source, "blocks": blocks, "heldout": heldout, "fitting": fitting[text]}
            | methods.get(method, {"method": "remove"})
            for _, _, method, text, blocks in cells
        ]
        losses = parallel.side_by_side(pruning.losses_without, items, settings.workers, "models")
        for (order, seed, method, text, blocks), loss in zip(cells, losses):
            place = {"model": name, "order": order, "seed": seed, "method": method, "text": text}
            place |= {"n_removed": len(blocks), "removed": " ".join(map(str, blocks))}
            n_runs = {"n_runs": len(pruning.adjacent_runs(blocks))}
            rows.append(place | pruning.added_loss(loss, losses[0]) | n_runs)
        sets = [blocks for *_, blocks in cells if blocks]
        costs[name] = pruning.model_costs(model, sets, heldout[:8], scale.timing_rounds)
    costs = pd.concat(costs, names=["model"]).reset_index("model")
    costs = costs.assign(method=costs["method"].map(same_cost)).explode("method")
    speed = costs[["model", "method", "n_removed", "n_runs", "speedup"]]
    return {"": pd.DataFrame(rows).merge(speed, validate="many_to_one"), "_cost": costs}


frame = linlib.result("pruning_shootout", measure, settings, remeasure)

# %% [markdown]
# There is one row per model, order, seed, method, text and number of blocks. `perplexity` is that
# on held-out text, `added` the loss above the dense model's in nats per token, both with their
# intervals over windows; `n_runs` counts the runs of adjacent blocks, and `speedup` is the dense
# model's time over the pruned one's.

# %%
pruned = frame[frame["n_removed"] > 0]
like_test = pruned[pruned["text"] == LIKE_TEST]
frame[["model", "order", "method", "n_removed", "removed", "added", "speedup"]].round(3).head()

# %% [markdown]
# ## What to expect
#
# If the paper's order is a good one, its line lies below the random one in the first column. Each
# point has one block fewer than the one before and lies further to the right, being faster. Lower
# is better; the dotted line is the dense model. Lines of one panel differ in the order alone, and
# panels of one row in the method alone.

# %%
models, by_method, by_order = (list(like_test[c].unique()) for c in ("model", "method", "order"))
means = like_test.groupby(["model", "method", "order", "n_removed"], sort=False)
means = means[["perplexity", "speedup"]].mean().reset_index()
size = {"figsize": (3.0 * len(by_method) + 2, 3.4 * len(models)), "sharex": True}
fig, grid = plt.subplots(len(models), len(by_method), squeeze=False, **size)
for model, axes in zip(models, grid):
    for method, ax in zip(by_method, axes):
        rows = means[(means["model"] == model) & (means["method"] == method)]
        plots.path_points(rows, "speedup", "perplexity", "order", ax, by_order)
        ax.set(title=f"{model}\n{method}", xlabel="Measured speed-up")
    axes[0].set(ylabel="Perplexity per token, held-out", yscale="log")
    plots.plain_log_ticks(axes[0])

# %% [markdown]
# The dense model's perplexity is the reference in each panel, and the price of the speed-up is the
# distance from it. The first column has a logarithmic scale of its own, the others share one in
# each row.

# %%
dense = frame[frame["method"] == "dense"].set_index("model")["perplexity"]
for model, axes in zip(models, grid):
    mapped = means[(means["model"] == model) & (means["method"] != "removed")]["perplexity"]
    for ax in axes:
        ax.axhline(dense[model], ls=":", color=plots.NULL_COLOUR, label="dense model")
    for ax in axes[1:]:
        ax.set_ylim(0.97 * min(mapped.min(), dense[model]), 1.03 * max(mapped.max(), dense[model]))
plots.legend(fig, grid[0, 0])
plots.save(fig, store.figures_folder(settings.name) / "pruning_shootout")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The numbers behind the lines: the loss above the dense model's, in nats per token, as a mean over
# the numbers of blocks. Rows are orders, columns methods. Below zero a shorter model is better on
# this text than the dense one, which says more about the dense model than about pruning. The mean
# is over those sets of blocks that all methods can leave out. A fold needs a block before the run,
# so that sets with the first block are not among them, and folds of such sets are missing above.

# %%
cells = ["model", "order", "seed", "n_removed"]
complete = like_test.groupby(cells)["method"].transform("nunique") == len(by_method)
table = like_test[complete].pivot_table("added", ["model", "order"], "method", sort=False)
table[by_method].round(3)

# %% [markdown]
# The text that maps are fitted on matters too. The same blocks, the most linear ones, with maps
# from text like the test's and from stories, where the paper takes them:

# %%
linear = pruned[(pruned["order"] == "most linear") & pruned["method"].str.startswith("replaced")]
linear = linear[linear["method"] != "replaced, refitted"]
linear.pivot_table("added", ["model", "n_removed"], ["method", "text"], sort=False).round(3)

# %% [markdown]
# ## What it costs
#
# Parameters, operations and measured speed. The models take turns on the same text, and the
# speed-up is the median over rounds. A folded model costs what a removal costs; a map costs $d^2$
# parameters more. Compare `n_runs`: of two sets with equally many blocks, the one that lies in
# fewer runs needs fewer maps.

# %%
cost = store.load_frame("pruning_shootout_cost", settings.name)
cost[cost["method"].isin(["dense", "removed", "replaced"])].round(2)

# %% [markdown]
# ## Deviations
#
# - The paper has no such figure: it uses one order, without intervals or controls.
# - At `tiny` models have six blocks, so that four removed are most of the model, and orders have
#   little to choose from.
# - The speed is that of this machine, for windows as long as those measured, without a cache.
# - Where a run begins with the first block nothing can be folded. A panel of folds lacks those
#   points, and a mean over random orders is over fewer seeds there.
# - Two methods are compared here by their means; paired intervals are in Figure 7's notebook.
