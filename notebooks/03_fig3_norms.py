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
# $$r_l = \frac{\lVert\Delta_l\rVert_2}{\lVert h_{l-1}\rVert_2}, \qquad
# c_l = \frac{h_{l-1}\cdot h_l}{\lVert h_{l-1}\rVert_2\,\lVert h_l\rVert_2}.$$
#
# States are those of the residual stream, before the final norm. Norms are not centred: this is a
# statement about single tokens, and not about the cloud that they form.

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
profile = "tiny"
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
# block, four quantities are taken for each token: the norm of the block's input, the norm of its
# contribution, the ratio of the two, and the cosine of input and output.

# %%
settings = linlib.load_profile(profile)


# %%
def measure():
    frames, sizes = {}, settings.measure
    heldout = {"split": "heldout", "seq_len": sizes.seq_len, "n_windows": 2 * sizes.n_windows}
    for name, source in training.models_of(settings).items():
        model, tokenizer = linlib.load(**source)
        windows = linlib.token_windows(settings.corpus, tokenizer, **heldout)[: sizes.n_windows]
        frames[name] = stream_norms(model, windows, batch_size=sizes.batch_size)
        del model
        gc.collect()  # each model is freed before the next is opened
    return pd.concat(frames, names=["model"]).droplevel(-1).reset_index()


frame = linlib.result("fig3_norms", measure, settings, remeasure)

# %% [markdown]
# The frame has one row per model, layer, token group and quantity; quartiles are over tokens, and
# norms are in the units of the residual stream.

# %%
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the red line (what the block adds) stays far below the blue one (what it is
# added to) in every panel. First positions are left out here, since a massive first token would set
# the scale; the table below has both.

# %%
inside = frame.query("tokens == 'no first position'")
models = sorted(inside["model"].unique())
fig, axes = plots.panels(len(models))
for ax, model in zip(axes, models):
    plots.norm_lines(inside[inside["model"] == model], ax).set(title=model)
fig.supylabel(r"$L_2$ norm of a token's state (median, quartiles)")
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "fig3_norms")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The bands hold the middle half of all tokens. Where the red line meets the blue one, a block adds
# as much as the stream held before, and small updates cannot explain its linearity. This is most
# likely in early blocks, since the embeddings that they read are small.
#
# The same numbers as a ratio, and the cosine of adjacent states, for all models together:

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))
plots.quartile_lines(inside.query("quantity == 'ratio'"), left)
plots.quartile_lines(inside.query("quantity == 'cosine'"), right)
left.axhline(1, color=plots.NULL_COLOUR, ls=":", label="as large as the stream")
left.set(title="Relative size of the contribution", yscale="log")
left.set(ylabel=r"$\|\Delta_l\| \; / \; \|h_{l-1}\|$")
right.set(title="Cosine of adjacent states", ylabel=r"$\cos(h_{l-1}, h_l)$", ylim=(None, 1.02))
plots.legend(fig, left)
plots.save(fig, store.figures_folder(settings.name) / "fig3_norms_ratio")
plots.show(fig)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure without numbers, so values cannot be compared. These are our medians,
# averaged over layers:

# %%
ours = frame.query("quantity in ['ratio', 'cosine']")
ours.pivot_table(index="model", columns=["quantity", "tokens"], values="median").round(3)

# %% [markdown]
# ## Verdict
#
# *Supported* where the median contribution is smaller than half of the stream in every layer of
# every model, first positions left out; *contradicted* where it is not in most layers; *mixed*
# otherwise.

# %%
finding = claims.contributes_little(settings.name)
pd.Series(vars(finding)).to_frame("Figure 3")

# %% [markdown]
# The same count for each model, and the number of layers whose median contribution is larger than
# the whole stream:

# %%
ratio = inside.query("quantity == 'ratio'").groupby("model")["median"]
ratio.agg(layers="size", below_half=lambda r: (r < 0.5).sum(), above_one=lambda r: (r > 1).sum())

# %% [markdown]
# ## Deviations
#
# - The paper does not say whether it shows means or medians, or which tokens; we show medians and
#   quartiles over all tokens of held-out windows, first positions apart.
# - "Block output" is read as what the whole block adds, attention and MLP together.
