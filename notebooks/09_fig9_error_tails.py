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
# # Figure 9 · On which tokens does the linear map fail?
#
# **The paper's claim.** In some layers of OPT-1.3B the errors of the linear approximation have a
# long tail: on most tokens the block is nearly linear, and on a few it is not.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 3 and Figure 9.)
#
# **Cost.** Seconds a model once the models are there; the maps come from the moments that notebook
# 01 collected.

# %% [markdown]
# ## The formula
#
# With the affine map $(A, b)$ that best predicts a block's output from its input, fitted on one set
# of windows, the error of a token in *another* set of windows is
#
# $$e = \lVert h_{l-1} A + b - h_l \rVert_2.$$
#
# A tail is long only in comparison. The comparison here is a Gaussian cloud with the same mean and
# covariance as the residuals: its errors vary too, but they have no outliers. Two numbers sum the
# tail up: the excess kurtosis of $e$, and the share of the total squared error that the worst 1%
# of tokens hold.

# %%
import numpy as np

from linlib import plots
from linlib.experiments import obtain
from linlib.measure import tail_statistics
from linlib.profiles import load_profile
from linlib.store import figures_folder, load_frame

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A check on known ground
#
# Norms of Gaussian vectors in 128 dimensions hardly vary: the worst 1% of tokens hold a little over
# 1% of the squared error. With one token in a hundred ten times as large, they hold half of it.

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(0)
plain = np.linalg.norm(rng.normal(size=(10_000, 128)), axis=1)
spiked = plain * np.where(np.arange(10_000) % 100 == 0, 10, 1)
[round(float(tail_statistics(errors)["worst_share"]), 3) for errors in (plain, spiked)]

# %% [markdown]
# ## The measurement
#
# A histogram: one row a model, layer, token group and bin. Errors are in multiples of the layer's
# root mean square, so that layers and models can share an axis.

# %%
settings = load_profile(profile)
frame = obtain("fig9_error_tails", settings, remeasure)
statistics = load_frame("fig9_error_tails_statistics", profile)
frame.head()

# %% [markdown]
# ## What to expect
#
# If tails are long, lines reach far to the right of the grey area, on a log scale of counts. First
# positions are left out, so that a single attention sink a window is not taken for the tail; the
# statistics below have them both ways.

# %%
inside = frame.query("tokens == 'no first position'")
models = sorted(inside["model"].unique())
fig, axes = plots.panels(len(models), sharey=True)
for ax, model in zip(axes, models):
    plots.error_histogram(inside[inside["model"] == model], ax).set(title=model)
fig.supxlabel("Error of a token, in multiples of the rms error of its layer")
fig.supylabel("Tokens (log scale)")
plots.legend(fig, axes[0])
plots.save(fig, figures_folder(profile) / "fig9_error_tails")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The horizontal axis is the error of a token, 1 being the layer's typical one. Where a line
# ends is the worst token of all. The grey area shows where it would end if the residuals were
# Gaussian, taken at its widest over the layers.

# %%
columns = ["excess_kurtosis", "gaussian_excess_kurtosis", "worst_share", "gaussian_worst_share"]
statistics.groupby(["tokens", "model"])[[*columns, "maximum"]].mean().round(3)

# %% [markdown]
# ## Which tokens are they?
#
# The worst tokens of the layer with the heaviest tail in each model, with what stands before them.

# %%
tokens = load_frame("fig9_error_tails_tokens", profile).query("tokens == 'no first position'")
heaviest = statistics.query("tokens == 'no first position'").sort_values("worst_share")
heaviest = heaviest.groupby("model").tail(1)[["model", "layer"]]
worst = tokens.merge(heaviest).groupby("model").head(4)
worst[["model", "layer", "error", "before", "token", "position"]].round(1)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure for OPT-1.3B without numbers, so the comparison is one of kind: in
# how many layers do the worst 1% of tokens hold more than twice what they would in a Gaussian
# cloud, and how much at most?

# %%
excess = statistics.assign(times=statistics["worst_share"] / statistics["gaussian_worst_share"])
table = excess.query("tokens == 'no first position'").groupby("model")["times"]
table.agg(layers="size", heavy=lambda t: (t > 2).sum(), largest="max").round(2)

# %% [markdown]
# ## Deviations
#
# - Our maps are fitted on other windows than those whose errors are shown; the paper does not say.
# - Errors are in multiples of the layer's rms and not in the units of the stream, so that layers
#   can be compared; the `rms` column of the statistics turns them back.
# - A Gaussian cloud of the same covariance is drawn beside every layer: without it any spread of
#   norms looks like a tail.
