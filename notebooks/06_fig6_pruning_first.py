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
# and Figure 6.) What a linear map in their place wins back is the claim of Figure 7's notebook.
#
# **Cost.** `smoke` seconds, `tiny` about a minute on two CPU cores once the small decoders of
# Figure 1 are trained, `gpu` and `paper` are estimated at an hour.

# %% [markdown]
# ## The formula
#
# A run of adjacent blocks takes $x$ to $x + \Delta$. Leaving it out predicts $\Delta = 0$. The
# affine map that replaces it is fitted on the moments of $(x, \Delta)$ and shrunk towards the
# identity, never towards zero:
#
# $$x \mapsto x + xW + b, \qquad W = (X^\top X + \lambda I)^{-1} X^\top D,$$
#
# with $X$ and $D$ centred. Distillation then trains $W$ and $b$ alone, so that the stream after
# every replaced run comes near the dense model's: $\sum_{\text{runs}} \mathrm{mean}\, \lVert
# h^{\text{student}} - h^{\text{dense}} \rVert^2$.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

from linlib import plots
from linlib.claims import removal_costs_little
from linlib.experiments import obtain
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
# A "block" that is exactly affine is found again from its moments; a huge ridge leaves nothing of
# the map but its mean, so that a state passes unchanged up to a shift.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x = torch.randn(500, 8, generator=generator, dtype=torch.float64)
weight = 0.1 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
moments = BlockMoments(8)
moments.update(x, x @ weight + 3.0)
found, shrunk = moments.delta_map(), moments.delta_map(ridge=1e9)
exact = torch.allclose(found.weight, weight) and torch.allclose(found.bias, 0 * x[0] + 3)
exact, float(shrunk.weight.abs().max().round(decimals=6))

# %% [markdown]
# ## The measurement
#
# Scores and maps come from *training* text, the perplexity from held-out text of the same corpus.
# Blocks go in the order of their linearity score with residual, the most linear first. Which ones
# those are is in the column `removed`, counted from 0.

# %%
settings = load_profile(profile)
frame = obtain("fig6_pruning_first", settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the line of removal begins flat: the first block costs next to nothing. The
# dotted line is the dense model. Bars are 95% intervals over held-out windows; they hold what all
# windows share, so that methods are compared in pairs below and not by overlapping bars.

# %%
methods = ["removed", "replaced", "replaced + distilled"]
pruned, dense = frame[frame["n_removed"] > 0], frame[frame["n_removed"] == 0].iloc[0]
fig, ax = plt.subplots(figsize=(8.4, 4.4))
plots.measured_lines(pruned, "perplexity", "method", ax, "n_removed", methods)
ax.axhline(dense["perplexity"], ls=":", color=plots.NULL_COLOUR, label="dense model")
ax.set(title=dense["model"], xlabel="Blocks removed, most linear first", yscale="log")
ax.set(ylabel="Perplexity per token, held-out", xticks=sorted(pruned["n_removed"].unique()))
plots.plain_log_ticks(ax)
plots.legend(fig, ax)
plots.save(fig, figures_folder(profile) / "fig6_pruning_first")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The scale is logarithmic: equal steps are equal losses. The table has the loss above the dense
# model's, in nats per token, with its interval over the same windows; 0.1 is a perplexity about a
# tenth higher.

# %%
columns = ["method", "n_removed", "removed", "perplexity", "added", "added_low", "added_high"]
pruned[columns].round(3)

# %% [markdown]
# Distillation minimises another loss than the one drawn, on another text, the one that the paper
# distils on. Here is what it minimised: the squared error of the stream on held-out stories. The
# kept look is the lowest, and may be the start. For a single run it can hardly be anything else:
# the map was fitted by least squares, on text of the same kind, to just that error. Only where a
# second run reads what the first one made is there something left to learn.

# %%
history = load_frame("fig6_pruning_first_distillation", profile)
history.pivot(index="step", columns="n_removed", values="heldout_loss").round(4)

# %% [markdown]
# ## Paper beside ours
#
# The paper's figure has no numbers, and names neither its model nor its order beyond "sequentially
# removes the most linear layers". What can be compared is the shape of the three lines, and its
# statement that a few blocks go without a significant loss.
#
# ## Verdict
#
# *Supported* where removing the most linear block adds less than 0.1 nats per token in both models
# (this figure's and the next one's), with its interval; *contradicted* where it adds more in both.

# %%
obtain("fig7_pruning_second", settings)
finding = removal_costs_little(profile)
pd.Series(vars(finding)).to_frame("Figure 6")

# %% [markdown]
# ## Deviations
#
# - Captions 6 and 7 of the paper are the same and name no model. We take OPT-125M and OPT-1.3B, and
#   at `tiny` the OPT and the Llama that the profile trained.
# - Perplexity is per token of the model's own tokenizer, over windows that begin with the bos
#   token; at `tiny` on docstring prose in the place of WikiText.
# - A model of six blocks has no block to spare: leaving out one takes a sixth of its depth, which
#   in OPT-1.3B would be four blocks of 24.
# - The paper fits and distils its maps on TinyStories, we on the same (at `tiny` on generated
#   stories): other text than the perplexity is measured on. Notebook 20 has both.
# - It does not say whether its maps have a bias. Ours have one. Blocks are ordered by their score
#   on text like the test's, as in Figure 1.
