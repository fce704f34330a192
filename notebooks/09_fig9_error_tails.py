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
# **Cost.** At `tiny` two to three minutes, nearly all of them for the real decoder, and at `laptop`
# half an hour; seconds per twin. The maps are solved from the moments that notebook 01 collected,
# or collected here if it did not run before.

# %% [markdown]
# ## The formula
#
# With the affine map $(A, b)$ that best predicts a block's output from its input, fitted on one set
# of windows, the error of a token in *another* set of windows is
#
# $$e = \lVert h_{l-1} A + b - h_l \rVert_2.$$
#
# A tail is long only in comparison. The comparison here is a Gaussian cloud with the same mean and
# covariance as the residuals: its errors vary too, but have no outliers. The tail is summarised by
# the share of the total squared error that the worst 1% of tokens hold, as a multiple of the share
# that they hold in the Gaussian cloud; the excess kurtosis of $e$ stands beside it.

# %%
import gc
from functools import partial

import numpy as np
import pandas as pd

import linlib
from linlib import claims, plots, store, training
from linlib.measure import collect_moments, errors, layer_passes

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# Norms of Gaussian vectors in 128 dimensions hardly vary: the worst 1% of tokens hold little more
# than 1% of the squared error. Where one token in a hundred is ten times as large, they hold half.

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(0)
plain = np.linalg.norm(rng.normal(size=(10_000, 128)), axis=1)
spiked = plain * np.where(np.arange(10_000) % 100 == 0, 10, 1)
tails = [errors.tail_statistics(cloud) for cloud in (plain, spiked)]
[round(float(tail["worst_share"]), 3) for tail in tails]

# %% [markdown]
# ## The measurement
#
# The models of Figure 1 are measured in turn, in all of their layers.
#
# 1. *Fit.* The held-out text is cut into two sets of windows. The moments of the first set are
#    those of Figure 1, and are found in the cache if that notebook ran before. From them the
#    least-squares map of each layer is solved twice: over all tokens, and without massive tokens.
#    Where moments are too large to be kept, a few layers are collected per pass, as in Figure 1.
# 2. *Measure.* The second set goes through the model, and the error of each of its tokens is taken;
#    massive tokens are left out by the limits of the first set. The maps have not seen these
#    tokens: on those that it was fitted on, a map would bend towards the outliers and hide a part
#    of the tail.
# 3. *Compare.* As many errors are drawn from a Gaussian with the mean and covariance of the
#    residuals of that layer. Its tail is what the shape of the cloud alone would give. The standard
#    error of the comparison is over documents, each left out in turn.
#
# Weights of packaged models are four-bit weights, dequantised, and instruct models read plain text
# without a chat template.

# %%
settings = linlib.load_profile(profile)
sizes = settings.measure
heldout = {"split": "heldout", "seq_len": sizes.seq_len, "n_windows": 2 * sizes.n_windows}
options = {"n_folds": sizes.n_folds, "batch_size": sizes.batch_size}
reading = {"batch_size": sizes.batch_size, "seed": settings.seed}


# %%
def measure():
    frames, in_passes = {"": {}, "_statistics": {}, "_tokens": {}}, sizes.layers_per_pass
    collect = collect_moments if in_passes else partial(store.cached, collect_moments)
    for name, source in training.models_of(settings).items():
        model, tokenizer = linlib.load(**source)
        joined = {"separator": training.separator_of(settings, name), "return_documents": True}
        both = linlib.token_windows(settings.corpus, tokenizer, **heldout, **joined)
        (windows, other), (documents, owners) = (part.split(sizes.n_windows) for part in both)
        for layers in layer_passes(model, in_passes):
            chosen = {"documents": documents, "layers": layers if in_passes else None}
            moments = collect(model, windows, **chosen, **options)
            for tokens, limits in (("all", None), ("no massive", moments.limits)):
                maps = {layer: moments.group(layer, tokens).linear_map() for layer in layers}
                chosen = {"limits": limits, "documents": owners} | reading
                found = errors.token_errors(model, maps, other, **chosen)
                for layer, of_layer in found.items():
                    place = (name, layer, layer / moments.n_blocks, tokens)
                    frames[""][place] = errors.error_counts(of_layer)
                    frames["_statistics"][place] = errors.error_statistics(of_layer)
                    frames["_tokens"][place] = errors.worst_tokens(of_layer, other, tokenizer)
        del model
        gc.collect()  # each model is freed before the next is opened
    names = ["model", "layer", "depth", "tokens"]
    return {
        suffix: pd.concat(parts, names=names).droplevel(-1).reset_index()
        for suffix, parts in frames.items()
    }


frame = linlib.result("fig9_error_tails", measure, settings, remeasure)

# %% [markdown]
# Three frames are stored, all by model, layer and token group: the counts of errors, one row per
# bin and cloud (`measured` or `gaussian`), in multiples of the layer's root mean square; the
# statistics of the tail beside those of the Gaussian cloud, with `log_excess`, the logarithm of the
# ratio of the two shares, and its standard error; and the eight worst tokens, with the text before
# them.

# %%
statistics = store.load_frame("fig9_error_tails_statistics", settings.name)
frame.head()

# %% [markdown]
# ## What to expect
#
# A curve says which share of tokens errs at least so much. Each coloured line is one layer, and a
# thin grey line its Gaussian cloud; the black line has the heaviest tail of its model, and the
# dashed one is its Gaussian. If tails are long, coloured lines reach far to the right of
# the grey ones. Massive tokens are left out, so that attention sinks are not mistaken for the tail.

# %%
inside = frame.query("tokens == 'no massive'")
tails = statistics.query("tokens == 'no massive'").sort_values("log_excess")
heaviest = tails.groupby("model").tail(1).set_index("model").sort_index()
fig, axes = plots.panels(len(heaviest), sharey=True)
for ax, (model, tail) in zip(axes, heaviest.iterrows()):
    plots.survival_curves(inside[inside["model"] == model], ax, tail["layer"])
    times = f"{np.exp(tail['log_excess']):.1f}"
    ax.set(title=f"{model}\nlayer {tail['layer']}: {times} × Gaussian")
fig.supxlabel("Error of a token, in multiples of the rms error of its layer")
fig.supylabel("Share of tokens with at least this error")
plots.depth_bar(fig, axes)
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "fig9_error_tails")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# A line ends at the worst token of all. Where it crosses the dotted line, the worst 1% of tokens
# begin; the title compares the share of the squared error that these hold with the Gaussian's. The
# table has means over layers.

# %%
columns = ["excess_kurtosis", "gaussian_excess_kurtosis", "worst_share", "gaussian_worst_share"]
statistics.groupby(["tokens", "model"])[[*columns, "maximum"]].mean().round(3)

# %% [markdown]
# ## Which tokens are they?
#
# These are the worst tokens of the layer with the heaviest tail in each model, with the text before
# them.

# %%
tokens = store.load_frame("fig9_error_tails_tokens", settings.name)
worst = tokens.query("tokens == 'no massive'").merge(heaviest["layer"].reset_index())
worst = worst.groupby("model").head(4)
worst[["model", "layer", "error", "before", "token", "position"]].round(1)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure for OPT-1.3B without numbers, and claims long tails of *some* layers.
# For each model: in how many layers the worst 1% of tokens hold more than twice a Gaussian's share
# (`heavy`), in how many of them clearly so, and the largest multiple.

# %%
groups = dict(list(statistics.groupby(["tokens", "model"])))
intervals = pd.concat({group: claims.tail_intervals(rows) for group, rows in groups.items()})
intervals = intervals.assign(heavy=intervals["excess"] > 2, clear=intervals["low"] > 2)
intervals.groupby(level=[0, 1]).agg(
    layers=("layer", "size"),
    heavy=("heavy", "sum"),
    clear=("clear", "sum"),
    largest=("excess", "max"),
).round(2)

# %% [markdown]
# "Clearly" is by the 95% interval over documents, corrected for the number of layers that were
# looked at (Bonferroni), without which the heaviest of thirty would look heavy by chance.
#
# ## Verdict
#
# It is about real decoders, massive tokens left out. *Supported* where in some layer of each the
# corrected interval of the multiple lies above 2; *contradicted* where those of all layers of one
# lie below.

# %%
finding = claims.long_tails(settings.name)
finding.to_frame("Claim 14")

# %% [markdown]
# ## Deviations
#
# - The paper shows counts per bin. The figure has survival curves, in which thirty layers can be
#   told apart; the stored frame has the bins.
# - Our maps are fitted on other windows than those whose errors are shown; the paper does not say.
# - Errors are in multiples of the layer's rms and not in the units of the stream, so that layers
#   can be compared; multiplied by the `rms` column of the statistics, they are in those units.
# - A Gaussian cloud of the same covariance is drawn beside each layer: without it any spread of
#   norms looks like a tail.
