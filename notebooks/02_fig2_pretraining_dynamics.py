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
# **Cost.** Seconds at `laptop` and below, once the models are trained (see notebooks 01 and 04).
# `gpu` and `paper` download each checkpoint that they follow, by its revision on the hub.

# %% [markdown]
# ## The formula
#
# At each saved step $t$, the score of Figure 1 is taken for each of the $L$ blocks, with and
# without residual, on documents that the map was not fitted on. What is followed is the share of
# variance that a linear map does *not* explain, as a geometric mean over blocks:
#
# $$\log u_t = \frac{1}{L}\sum_{l=1}^{L} \log\Big(1 - \mathrm{score}\big(h_{l-1}^{(t)},
# h_l^{(t)}\big)\Big).$$
#
# A falling score is a rising $u_t$. On this scale a change from 0.999 to 0.99 counts as much as one
# from 0.99 to 0.9; in a plain mean of scores it would vanish beside the least linear block.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import linlib
from linlib import claims, plots, store, training
from linlib.measure import layer_passes

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
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
# architectures, trained here from the seeds of the profile; all checkpoints of their training were
# kept, at steps 1, 2, 4, 8 and so on. **Published runs** are followed by the revisions of their
# repositories, where the profile names any. Each of these checkpoints is opened, reads the same
# windows of held-out text, and has the linearity of its blocks measured, in float32 or in the
# profile's dtype. A window begins with a bos token, and documents in it are joined by the token
# that joined them in training; folds for held-out scores are of whole documents. The plain
# **Mistral** twin of Figure 4 is trained from several seeds too; the checkpoints of its runs are
# measured in the same way, in float32, on held-out windows of its own corpus (`measurements`).

# %%
settings = linlib.load_profile(profile)
sizes = settings.measure
heldout = {"split": "heldout", "seq_len": sizes.seq_len, "n_windows": sizes.checkpoint_windows}
heldout |= {"return_documents": True}
measuring = {"n_folds": sizes.n_folds, "batch_size": sizes.batch_size}

# %% [markdown]
# A profile may have any of the three kinds; one that has none of them cannot measure this figure.
# Of the scores, those below are kept: with and without residual, in sample and held out, beside the
# identity score, the null value and the effective number of tokens; `warmup_steps` is where the
# learning rate reached its peak, which the profile fixes. A large model is measured a few
# layers at a time (`layer_passes`), so that the moments of these layers fit in memory; the numbers
# are the same.

# %%
if not (settings.zoo or settings.checkpoints):
    settings.require("pretraining", "Figure 2")
COLUMNS = ["model", "seed", "step", "layer", "depth", "tokens", "warmup_steps"]
COLUMNS += ["linearity_score", "linearity_no_residual", "identity_score", "null_score"]
COLUMNS += ["heldout_score", "heldout_no_residual", "n_tokens", "n_eff", "d_model"]


# %%
def measure():
    sources = {}
    for label, folders in training.train_zoo(settings).items():
        for seed, folder in folders.items():
            for step, checkpoint in training.checkpoints(folder).items():
                source = {"name_or_path": checkpoint, "device": settings.device}
                sources[label, seed, step] = source, settings.zoo.warmup_steps
    for followed in settings.checkpoints:
        for step, source in training.published_checkpoints(settings, followed).items():
            sources[followed.label, settings.seed, step] = source, followed.warmup_steps

    frames = []
    for (label, seed, step), (source, warmup) in sources.items():
        model, tokenizer = linlib.load(**source)
        windows, documents = linlib.token_windows(settings.corpus, tokenizer, **heldout)
        read = {"documents": documents} | measuring
        place = {"model": label, "seed": seed, "step": step, "warmup_steps": warmup}
        for layers in layer_passes(model, sizes.layers_per_pass):
            scores = linlib.linearity_profile(model, windows, layers=layers, **read)
            frames.append(scores.assign(**place))
    if settings.pretraining:
        size = next(iter(settings.pretraining.runs))
        runs = training.train_variants(settings, variants=["plain"], sizes=[size])
        place = {"model": f"Mistral ({settings.name})"}
        place["warmup_steps"] = settings.pretraining.warmup_steps
        for run, along in zip(runs, training.measurements(settings, runs)):
            frames.append(along.assign(seed=run.seed, **place))
    return pd.concat(frames)[COLUMNS].sort_values(COLUMNS[:6])


# %% [markdown]
# One row per model, seed, step, layer and token group. Models with several seeds have a thin line
# for each in the figure, and from three seeds on a band, the 95% interval over seeds; one over two
# seeds would span decades. Published models have one seed.

# %%
frame = linlib.result("fig2_pretraining_dynamics", measure, settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, lines in the left panel *rise* from their ring to the right: the share that is
# not linear grows. The ring is the first checkpoint at or after the end of warm-up, fixed in the
# profile before looking. Before it a model has learned next to nothing, and what its score does
# says little about pretraining. Step 0 is the model at initialisation, which hub checkpoints rarely
# include.

# %%
everything = frame.query("tokens == 'all'")
fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8))
for ax, score in ((left, "heldout_score"), (right, "heldout_no_residual")):
    plots.dynamics_lines(everything, score, ax)
    plots.warmup_marks(everything, score, ax)
left.set(title="With residual", ylabel="Share not linear, $1 - R^2$\n(geometric mean over layers)")
right.set(title="Without residual")
plots.legend(fig, left)
plots.save(fig, store.figures_folder(settings.name) / "fig2_pretraining_dynamics")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# Upwards is less linear; both axes are logarithmic, with a place for step 0, and each panel has a
# scale of its own. A block can become less linear in the left panel because what it adds is less
# linear, or because it adds more: the right panel tells the two apart, as in the sanity check.
#
# Below, the upper row has the same without massive tokens, whose norms exceed ten times the median.
# They form during training, at the first token of a window above all, and a few of them can decide
# the score of a layer. The lower row has all tokens in sample, as in the paper.

# %%
rows = {"no massive": "heldout", "all": "linearity"}
titles = {"heldout": "Held out, no massive tokens", "linearity": "In sample, all tokens"}
fig, axes = plt.subplots(2, 2, figsize=(13, 8), sharex=True, sharey="col")
for row, (tokens, kind) in zip(axes, rows.items()):
    group = frame[frame["tokens"] == tokens]
    for ax, name in zip(row, ("score", "no_residual")):
        plots.dynamics_lines(group, f"{kind}_{name}", ax)
        plots.warmup_marks(group, f"{kind}_{name}", ax)
        where = "without residual" if name == "no_residual" else "with residual"
        ax.set(title=f"{titles[kind]}, {where}", ylabel="$1 - R^2$ (mean over layers)")

# %%
for ax in axes[0]:
    ax.set(xlabel="")
plots.legend(fig, axes[0, 0])
plots.save(fig, store.figures_folder(settings.name) / "fig2_pretraining_dynamics_controls")
plots.show(fig)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure without numbers, and says that the score with residual falls for all
# models. Our scores are plain means over layers and seeds, as in the paper, all tokens in sample:
# at the end of warm-up, at the highest point from there on, and at the end.

# %%
scores = ["linearity_score", "linearity_no_residual", "identity_score"]
trained = everything[everything["step"] >= everything["warmup_steps"]]
means = trained.groupby(["model", "step"])[scores].mean()
means.groupby("model").agg(["first", "max", "last"]).round(3)

# %% [markdown]
# ## Verdict
#
# The effect is the change of the mean over layers of $\log(1 - R^2)$, held out, all tokens, from
# the ring to the last checkpoint, paired by seed and pooled over the models that have several, with
# the interval over seeds. *Supported* where the interval lies above 0, so that the score falls;
# *contradicted* where it lies below. A rise of less than a tenth (0.095) would not matter.

# %%
finding = claims.falls_in_pretraining(settings.name)
finding.to_frame("Claim 5")

# %% [markdown]
# The same change for each model and seed, as the factor by which the share that is not linear is
# multiplied, with and without residual: above 1 the score fell.

# %%
shares = 1 - trained.set_index(["model", "seed", "step"])[["heldout_score", "heldout_no_residual"]]
runs = np.log(shares).groupby(["model", "seed", "step"]).mean().groupby(["model", "seed"])
factors = np.exp(runs.last() - runs.first()).unstack("seed")
factors.round(2)

# %% [markdown]
# ## Deviations
#
# - At `laptop` and below, a pretraining run takes minutes, starting from initialisation; the paper
#   follows open models over the whole of theirs.
# - The paper averages scores over layers. We average $\log(1 - R^2)$, held out, and show the plain
#   means in a table.
# - The change is counted from the end of warm-up. From step 1, where a model is still close to its
#   initialisation, a score that rises first and falls later can show either sign.
# - The paper does not say on which text the checkpoints were scored; ours is held-out text of the
#   kind that the model was trained on, or WikiText for hub models.
# - `gpu` and `paper` need the checkpoints as safetensors; a revision that has only pickled weights
#   is refused by name.
