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
# # Figure 3 · How much does a block add to the stream?
#
# **The paper's claim.** The norm of what a block contributes is low beside the norm of the residual
# stream that it is added to, and this is why adjacent layers are so nearly linear and so closely
# aligned in cosine. ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 3 and Figure 3.)
#
# **Cost.** Seconds per model once the models are there; notebook 01 says where they come from.

# %% [markdown]
# ## The formula
#
# For each token, the state $h_{l-1}$ that enters block $l$ and the block's contribution
# $\Delta_l = h_l - h_{l-1}$ give
#
# $$r_l = \frac{\lVert\Delta_l\rVert_2}{\lVert h_l\rVert_2}, \qquad
# c_l = \frac{h_{l-1}\cdot h_l}{\lVert h_{l-1}\rVert_2\,\lVert h_l\rVert_2}.$$
#
# As in the paper's caption, the contribution stands beside the *resulting* stream. States are those
# of the residual stream, before the final norm. Norms are not centred: this is a statement about
# single tokens, and not about the cloud that they form. Block 1 reads the embedding, which is small
# in most decoders, so that nearly all of the resulting stream is its own: it is shown and counted
# apart from the others.

# %%
import gc

import matplotlib.pyplot as plt
import pandas as pd
import torch

import linlib
from linlib import claims, plots, store, training
from linlib.measure import stream_norms

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# In high dimension two independent directions are nearly orthogonal. A contribution of relative
# norm $r$ in a random direction then leaves a cosine of about $1/\sqrt{1 + r^2}$: even a block
# that adds half as much as the stream holds turns it only a little. A high cosine alone is a weak
# sign of linearity.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
stream, direction = torch.randn(2, 1000, 512, generator=generator)
ratios = [0.1, 0.5, 1.0]
cosines = [torch.cosine_similarity(stream, stream + r * direction).mean().item() for r in ratios]
[(r, round(cosine, 3), round((1 + r**2) ** -0.5, 3)) for r, cosine in zip(ratios, cosines)]

# %% [markdown]
# ## The measurement
#
# The models of Figure 1 read the same held-out windows as there, each model in turn. After each
# block, five quantities are taken for each token: the norms of the block's input, of its output and
# of its contribution, the ratio of the last two, and the cosine of input and output. The documents
# of the tokens go with them, for the intervals. Weights of packaged models are four-bit weights,
# dequantised, and instruct models read plain text without a chat template.

# %%
settings = linlib.load_profile(profile)
sizes = settings.measure
heldout = {"split": "heldout", "seq_len": sizes.seq_len, "n_windows": 2 * sizes.n_windows}


# %%
def measure():
    frames = {}
    for name, source in training.models_of(settings).items():
        model, tokenizer = linlib.load(**source)
        joined = {"separator": training.separator_of(settings, name), "return_documents": True}
        both = linlib.token_windows(settings.corpus, tokenizer, **heldout, **joined)
        windows, documents = (part[: sizes.n_windows] for part in both)
        read = {"documents": documents, "batch_size": sizes.batch_size}
        frames[name] = stream_norms(model, windows, **read)
        del model
        gc.collect()  # each model is freed before the next is opened
    return pd.concat(frames, names=["model"]).droplevel(-1).reset_index()


frame = linlib.result("fig3_norms", measure, settings, remeasure)

# %% [markdown]
# The frame has one row per model, layer, token group and quantity. Quartiles are over tokens, and
# norms are in the units of the residual stream; `low` and `high` are the 95% interval of the median
# over documents, by resampling whole ones, since tokens of a document depend on each other.

# %%
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the left panel stays below one half, and the right one above 0.9: an update
# of half the stream in a random direction leaves a cosine of 0.89, by the sanity check. Massive
# tokens are left out, since their states would set the scale; the table below has both groups.

# %%
inside = frame.query("tokens == 'no massive'")
fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6))
ratio, cosine = (inside[inside["quantity"] == name] for name in ("ratio", "cosine"))
plots.quartile_lines(ratio, left, 0.5, "half of\nthe stream")
plots.quartile_lines(cosine, right, 0.9, "cosine\n0.9")
left.set(title="What a block adds, beside the stream", yscale="log")
left.set(ylabel=r"$\|\Delta_l\| \; / \; \|h_l\|$")
plots.plain_log_ticks(left)
plots.magnify_near_1(right)
right.set(title="Direction kept by a block", ylabel=r"$\cos(h_{l-1}, h_l)$")
plots.legend(fig, left)
plots.save(fig, store.figures_folder(settings.name) / "fig3_norms")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# Lines are medians over tokens, and bands hold the middle half of the tokens. Stars are block 1.
# The right axis is logarithmic in the distance from 1, where most cosines are. A block above the
# left dashed line adds more than half of what the stream then holds, and "small updates" cannot
# explain its linearity.
#
# The norms themselves, model by model; where the two lines meet, the ratio is 1.

# %%
models = sorted(inside["model"].unique())
fig, axes = plots.panels(len(models))
for ax, model in zip(axes, models):
    plots.norm_lines(inside[inside["model"] == model], ax).set(title=model)
fig.supylabel(r"$L_2$ norm of a token's state (median, quartiles)")
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "fig3_norms_stream")
plots.show(fig)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure without numbers, so values cannot be compared. These are our medians
# over tokens, averaged over layers, block 1 apart:

# %%
ours = frame.query("quantity in ['ratio', 'cosine']")
ours = ours.assign(block=ours["layer"].eq(1).map({True: "1", False: "2 .. L"}))
ours.pivot_table("median", ["model", "block"], ["quantity", "tokens"]).round(3)

# %% [markdown]
# ## Verdicts
#
# Both are about real decoders, massive tokens and block 1 left out, and take the median over blocks
# 2 .. L of the median over tokens, with the interval of that block over documents. *What a block
# adds is small* (claim 3): supported where the interval lies below 0.5, contradicted above.
# *Adjacent states align* (claim 4): the same of the cosine, supported above 0.9. Of several
# decoders, each must satisfy the claim.

# %%
finding = claims.contributes_little(settings.name)
finding.to_frame("Claim 3")

# %%
finding = claims.aligned_in_cosine(settings.name)
finding.to_frame("Claim 4")

# %% [markdown]
# A median over blocks says nothing about each of them. For each model, trained ones among them: in
# how many blocks after the first the ratio is below one half, its median, the block that adds most,
# and what block 1 adds.

# %%
by_layer = ratio.set_index("layer")
table = by_layer.query("layer > 1").groupby("model")["median"]
table = table.agg(
    blocks="size", below_half=lambda r: (r < 0.5).sum(), median="median", largest="max", at="idxmax"
)
table.assign(block_1=by_layer.query("layer == 1").set_index("model")["median"]).round(3)

# %% [markdown]
# ## Deviations
#
# - The paper does not say whether it shows means or medians, or which tokens; we show medians and
#   quartiles over the tokens of held-out windows, with and without massive ones.
# - "Block output" is read as what the whole block adds, attention and MLP together.
# - The ratio is to the resulting stream, as in the paper's caption, and block 1, which reads the
#   embedding, is counted apart.
