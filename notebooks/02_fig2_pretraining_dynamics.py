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
# # Figure 2 · Does pretraining make a decoder less linear?
#
# **The paper's claim.** As models are pretrained, the linearity of the main stream falls gradually,
# averaged over layers, in all models that the authors follow.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 3.2 and Figure 2.)
#
# **Cost.** `smoke` and `tiny`: seconds once the models are trained (see notebooks 01 and 04). `gpu`
# and `paper` download each checkpoint that they follow, by its revision on the hub.

# %% [markdown]
# ## The formula
#
# At each saved step $t$, the score of Figure 1 is averaged over the $L$ blocks, with and without
# residual:
#
# $$\overline{\mathrm{score}}_t = \frac{1}{L}\sum_{l=1}^{L} \mathrm{score}\big(h_{l-1}^{(t)},
# h_l^{(t)}\big), \qquad \overline{\mathrm{score}}{}^{\Delta}_t = \frac{1}{L}\sum_{l=1}^{L}
# \mathrm{score}\big(h_{l-1}^{(t)}, \Delta_l^{(t)}\big).$$

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

import linlib
from linlib import claims, plots, store, training
from linlib.measure import layer_passes

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# A falling score with residual can mean two different things: the contribution becomes less linear,
# or it only becomes *larger* relative to the stream. Here the contribution is the same pure noise
# both times, and never linear at all; tripling it is enough to lower the score with residual, while
# the score without residual stays at the null value $d/(n-1)$. So both are followed, together with
# the identity score $1 - \lVert\Delta\rVert^2/\lVert Y\rVert^2$.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x, noise = torch.randn(2, 5000, 50, generator=generator)
small, large = linlib.BlockMoments(50), linlib.BlockMoments(50)
small.update(x, 0.3 * noise)
large.update(x, 0.9 * noise)
names = ["linearity_score", "linearity_no_residual", "identity_score"]
{name: [round(getattr(m, name)(), 3) for m in (small, large)] for name in names}

# %% [markdown]
# ## The measurement
#
# Three kinds of pretraining runs are followed. The **zoo** is a set of small decoders of different
# architectures, trained here from one seed; all checkpoints of their training were kept, at steps
# 1, 2, 4, 8 and so on. **Published runs** are followed by the revisions of their repositories,
# where the profile names any. Each of these checkpoints is opened, reads the same windows of
# held-out text, and has the linearity of its blocks measured, in float32 or in the profile's dtype.
# A window begins with a bos token, and documents in it are joined by the token that joined them in
# training; folds for held-out scores are of whole documents. The plain **Mistral** twin of Figure 4
# is trained from several seeds; the checkpoints of its runs are measured in the same way, in
# float32, on held-out windows of its own corpus (`measurements`).

# %%
settings = linlib.load_profile(profile)
sizes = settings.measure
heldout = {"split": "heldout", "seq_len": sizes.seq_len, "n_windows": sizes.checkpoint_windows}
heldout |= {"return_documents": True}
measuring = {"n_folds": sizes.n_folds, "batch_size": sizes.batch_size}

# %% [markdown]
# A profile may have any of the three kinds; one that has none of them cannot measure this figure.
# Of the scores, those below are kept: with and without residual, in sample and held out, beside the
# identity score, the null value and the effective number of tokens. A large model is measured a few
# layers at a time (`layer_passes`), so that the moments of these layers fit in memory; the numbers
# are the same.

# %%
if not (settings.zoo or settings.checkpoints):
    settings.require("pretraining", "Figure 2")
COLUMNS = ["model", "seed", "step", "layer", "depth", "tokens", "linearity_score"]
COLUMNS += ["linearity_no_residual", "identity_score", "null_score", "heldout_score"]
COLUMNS += ["heldout_no_residual", "n_tokens", "n_eff", "d_model"]


# %%
def measure():
    sources = {}
    for label, folder in training.train_zoo(settings).items():
        for step, checkpoint in training.checkpoints(folder).items():
            sources[label, step] = {"name_or_path": checkpoint, "device": settings.device}
    for followed in settings.checkpoints:
        for step, place in followed.checkpoints.items():
            sources[followed.label, step] = training.source_of(settings, followed, place)

    frames = []
    for (label, step), source in sources.items():
        model, tokenizer = linlib.load(**source)
        windows, documents = linlib.token_windows(settings.corpus, tokenizer, **heldout)
        read = {"documents": documents} | measuring
        for layers in layer_passes(model, sizes.layers_per_pass):
            scores = linlib.linearity_profile(model, windows, layers=layers, **read)
            frames.append(scores.assign(model=label, seed=settings.seed, step=step))
    if settings.pretraining:
        size = next(iter(settings.pretraining.runs))
        runs = training.train_variants(settings, variants=["plain"], sizes=[size])
        for run, along in zip(runs, training.measurements(settings, runs)):
            frames.append(along.assign(model=f"Mistral ({settings.name})", seed=run.seed))
    return pd.concat(frames)[COLUMNS].sort_values(COLUMNS[:6])


# %% [markdown]
# One row per model, seed, step, layer and token group. The Mistral alone has several seeds, and so
# a band: a 95% interval over seeds, with its seeds as thin lines. Published models have one seed.

# %%
frame = linlib.result("fig2_pretraining_dynamics", measure, settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, all lines in the left panel fall from left to right. Step 0 is the model at
# initialisation, which hub checkpoints rarely include.

# %%
everything = frame.query("tokens == 'all'")
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True)
plots.dynamics_lines(everything, "linearity_score", left)
plots.dynamics_lines(everything, "linearity_no_residual", right)
left.set(title="Linearity score", ylabel="Score, mean over layers")
right.set(title="Linearity score w/o residual")
plots.legend(fig, left)
plots.save(fig, store.figures_folder(settings.name) / "fig2_pretraining_dynamics")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# Steps are on a logarithmic axis, with a place for step 0. Below, the upper row has the same two
# scores on held-out documents, to show whether a change comes from fitting; the lower row leaves
# out massive tokens, whose norms exceed ten times the median. They form during training, at the
# first token of a window above all, and a few of them can decide the score of a layer.

# %%
controls = {"all": "all tokens", "no massive": "no massive tokens"}
fig, axes = plt.subplots(2, 2, figsize=(12, 7.6), sharex=True, sharey=True)
for row, (tokens, title) in zip(axes, controls.items()):
    group = frame[frame["tokens"] == tokens]
    plots.dynamics_lines(group, "heldout_score", row[0])
    plots.dynamics_lines(group, "heldout_no_residual", row[1])
    row[0].set(title=f"Held-out score ({title})", ylabel="Score, mean over layers")
    row[1].set(title=f"Held-out score w/o residual ({title})")
plots.label_outer(axes)
plots.legend(fig, axes[0, 0])
plots.save(fig, store.figures_folder(settings.name) / "fig2_pretraining_dynamics_controls")
plots.show(fig)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure without numbers, and says that the score with residual falls for all
# models. Our scores are means over layers (and seeds): at initialisation, at the highest point, and
# at the end.

# %%
scores = ["linearity_score", "linearity_no_residual", "identity_score"]
means = everything.groupby(["model", "step"])[scores].mean()
means.groupby("model").agg(["first", "max", "last"]).round(3)

# %% [markdown]
# ## Verdict
#
# *Supported* where the score with residual, as a mean over layers, is lower at the end of training
# than at the first checkpoint after step 0 in every model; *contradicted* where it is lower in
# none; *mixed* otherwise.

# %%
finding = claims.falls_in_pretraining(settings.name)
pd.Series(vars(finding)).to_frame("Figure 2")

# %% [markdown]
# The first checkpoint, step 1 here, is still close to the initialisation, so a score that rises
# first and falls later can fail this rule. The table has that change beside another reading of
# "falls": Spearman's rank correlation of the mean score with the step, from step 1 on, which is
# $-1$ where a score falls at each checkpoint.

# %%
trained = means.query("step > 0").reset_index()
ranks = trained.groupby("model")[["step", *scores]].corr(method="spearman")["step"].unstack()
change = trained.groupby("model")[scores].last() - trained.groupby("model")[scores].first()
pd.concat({"rank": ranks[scores], "change": change}, axis=1).round(2)

# %% [markdown]
# ## Deviations
#
# - At `smoke` and `tiny` a pretraining run takes minutes, starting from initialisation; the paper
#   follows open models over the whole of theirs.
# - The zoo has one seed per model, and so no interval: what counts is how many of its lines agree.
# - The paper does not say on which text the checkpoints were scored; ours is held-out text of the
#   kind that the model was trained on, or WikiText for hub models.
# - `gpu` and `paper` need the checkpoints as safetensors; a revision that has only pickled weights
#   is refused by name.
