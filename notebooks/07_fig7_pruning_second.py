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
# # Figure 7 · Perplexity with the most linear blocks removed, replaced, distilled: second model
#
# **The paper's claim.** A linear map in the place of a removed block recovers part of what its
# removal costs, and distilling the dense model into that map recovers more. ([arXiv
# 2405.12250](https://arxiv.org/abs/2405.12250), section 5 and Figure 7.)
#
# **Cost.** `smoke` seconds, `tiny` about a minute on two CPU cores once the small decoders of
# Figure 1 are trained; `gpu` and `paper` are estimated at an hour.

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
from functools import partial
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import torch

import linlib
from linlib import claims, plots, pruning, store, training
from linlib.measure import window_losses
from linlib.profiles import NotMeasured

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# One map for a whole run of two affine "blocks" is as good as two maps one after the other: the
# composition of affine maps is affine. With the moments of the run no second fit is needed.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x = torch.randn(500, 8, generator=generator, dtype=torch.float64)
first, second = (0.1 * torch.randn(8, 8, generator=generator, dtype=torch.float64) for _ in "12")
after_first = x + x @ first + 1.0
after_second = after_first + after_first @ second - 2.0
run = linlib.BlockMoments(8)
run.update(x, after_second - x)
torch.allclose(run.linear_map()(x), after_second)

# %% [markdown]
# ## The measurement
#
# As in notebook 06, on another model. Blocks are *ordered* by their linearity score with residual
# on training text of the corpus that the perplexity is measured on, maps are *fitted and distilled*
# on stories, and the *loss* is measured on held-out text of the corpus, window by window.
# For each method and number of blocks, `fit_maps` fits the maps to the windows that
# `fitting_arguments` cuts out of the stories, `apply_maps` puts them in the place of the blocks,
# `window_losses` measures the smaller model, and `added_loss` pairs it with the dense one.
#
# The claim is about differences between methods, and the loss varies far more between windows than
# between methods. So the loss of each window is stored (`_windows`), and the methods are compared
# window by window. `_distillation` has the held-out error along each distillation.

# %%
settings = linlib.load_profile(profile)
methods = {"removed": "remove", "replaced": "replace", "replaced + distilled": "distil"}


def measure():
    scale = settings.require("pruning", "Figure 7")
    if scale.second_model is None:
        raise NotMeasured(f"profile '{settings.name}' names no second model to prune")
    ((name, source),) = training.models_of(settings, [scale.second_model]).items()
    model, tokenizer = linlib.load(**source)
    seq_len = settings.measure.seq_len
    windows = partial(linlib.token_windows, settings.corpus, tokenizer, seq_len=seq_len)
    calibration = windows(split="train", n_windows=scale.calibration_windows)
    heldout = windows(split="heldout", n_windows=scale.heldout_windows)
    fitting = pruning.fitting_arguments(scale.stories, tokenizer, settings)
    order = linlib.removal_order(model, calibration, "linearity", batch_size=scale.batch_size)
    numbers = range(1, 1 + min(scale.most_removed, len(order)))
    rows, windowed, histories, dense = [], [], [], None
    for method, n in [("dense", 0), *product(methods, numbers)]:
        blocks, by = sorted(order[:n]), methods.get(method, "remove")
        maps = store.cached(pruning.fit_maps, model, blocks, by, **fitting)
        pruned = pruning.apply_maps(model, maps)
        loss = window_losses(pruned, heldout, batch_size=scale.batch_size).tolist()
        dense = loss if n == 0 else dense
        place = {"model": name, "method": method, "n_removed": n}
        place["removed"] = " ".join(map(str, blocks))
        rows.append(place | pruning.added_loss(loss, dense))
        windowed.append(pd.DataFrame(place | {"window": range(len(loss)), "loss": loss}))
        if maps.history is not None:
            histories.append(pd.DataFrame(place | dict(maps.history)))
    frames = {"": pd.DataFrame(rows), "_windows": pd.concat(windowed)}
    return frames | {"_distillation": pd.concat(histories)}


frame = linlib.result("fig7_pruning_second", measure, settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the three lines lie one below the other: removal on top, distillation lowest.
# The dotted line is the dense model. Bars are 95% intervals over held-out windows. Part of their
# width is common to all methods, since some windows are hard for each of them; that is why methods
# are compared in pairs below and not by overlapping bars.

# %%
pruned, dense = frame[frame["n_removed"] > 0], frame[frame["n_removed"] == 0].iloc[0]
fig, ax = plt.subplots(figsize=(8.4, 4.4))
plots.measured_lines(pruned, "perplexity", "method", ax, "n_removed", list(methods))
ax.axhline(dense["perplexity"], ls=":", color=plots.NULL_COLOUR, label="dense model")
ax.set(title=dense["model"], xlabel="Blocks removed, most linear first", yscale="log")
ax.set(ylabel="Perplexity per token, held-out", xticks=sorted(pruned["n_removed"].unique()))
plots.plain_log_ticks(ax)
plots.legend(fig, ax)
plots.save(fig, store.figures_folder(settings.name) / "fig7_pruning_second")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The scale is logarithmic: equal steps are equal losses. The table pairs the methods window by
# window: `mean` is the loss that each step saves, in nats per token, with its 95% interval. Above
# zero, the step helps.

# %%
gains = claims.paired_gains(store.load_frame("fig7_pruning_second_windows", settings.name))
gains.round(4)

# %% [markdown]
# Distillation minimises a loss other than the one drawn, on other text, the stories that the paper
# distils on. The next table has what it minimised: the squared error of the stream on held-out
# stories. The weights with the lowest error are kept, and these may be the initial ones. For a
# single run there is little to gain: its map was fitted by least squares to the same error, on text
# of the same kind. Only where a second run reads the output of the first is something left to
# learn.

# %%
history = store.load_frame("fig7_pruning_second_distillation", settings.name)
history.pivot(index="step", columns="n_removed", values="heldout_loss").round(4)

# %% [markdown]
# ## Paper beside ours
#
# The paper's figure has no numbers. What can be compared is the order of the three lines.
#
# ## Verdict
#
# There are two steps, from removal to replacement and on to distillation, at each number of blocks
# of each model that was measured (this figure's and, once notebook 06 has run, Figure 6's).
# *Supported* where both steps lower the loss in every cell, with intervals over windows that
# exclude zero; *contradicted* where both raise it in every cell; *no difference shown* where no
# interval excludes zero; *mixed* otherwise.

# %%
finding = claims.replacement_beats_removal(settings.name)
pd.Series(vars(finding)).to_frame("Figure 7")

# %% [markdown]
# ## Deviations
#
# - Captions 6 and 7 of the paper are the same and name no model. We take OPT-125M and OPT-1.3B, and
#   at `tiny` the OPT and the Llama that the profile trained.
# - Perplexity is per token of the model's own tokenizer, over windows that begin with the bos
#   token; at `tiny` on docstring prose instead of WikiText.
# - A model of six blocks has none to spare: removing one takes a sixth of its depth, which in
#   OPT-1.3B would be four blocks of 24.
# - The paper fits and distils its maps on TinyStories, and so do we (at `tiny` on generated
#   stories): on text other than that of the perplexity. Notebook 20 compares both.
# - It does not say whether its maps have a bias. Ours have one. Blocks are ordered by their score
#   on text like the test's, as in Figure 1.
