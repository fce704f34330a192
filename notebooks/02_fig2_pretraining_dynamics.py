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
# averaged over layers, in every model that the authors follow.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 3.2 and Figure 2.)
#
# **Cost.** `smoke` and `tiny`: seconds once the models are trained (see notebooks 01 and 04). `gpu`
# and `paper` download every checkpoint that they follow, by its revision on the hub.

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

from linlib import plots
from linlib.experiments import obtain
from linlib.linearity import BlockMoments
from linlib.profiles import load_profile
from linlib.store import figures_folder

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A check on known ground
#
# A falling score with residual can mean two different things: the contribution becomes less linear,
# or it only becomes *larger* beside the stream. Here the contribution is the same pure noise both
# times, and never linear at all; tripling it is enough to lower the score with residual, while the
# score without residual stays at the null value $d/(n-1)$. So both are followed, and the identity
# score $1 - \lVert\Delta\rVert^2/\lVert Y\rVert^2$ beside them.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x, noise = torch.randn(2, 5000, 50, generator=generator)
small, large = BlockMoments(50), BlockMoments(50)
small.update(x, 0.3 * noise)
large.update(x, 0.9 * noise)
names = ["linearity_score", "linearity_no_residual", "identity_score"]
{name: [round(getattr(m, name)(), 3) for m in (small, large)] for name in names}

# %% [markdown]
# ## The measurement
#
# One row a model, seed, step, layer and token group. The zoo reads docstring prose and stories from
# one seed; the plain Mistral twin reads stories from several, so it alone has a band, a 95%
# interval over seeds, with its seeds as thin lines. Hub models have one seed by nature.

# %%
settings = load_profile(profile)
frame = obtain("fig2_pretraining_dynamics", settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, every line in the left panel falls from left to right. Step 0 is the model at
# initialisation, which hub checkpoints rarely include.

# %%
everything = frame.query("tokens == 'all'")
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True)
plots.dynamics_lines(everything, "linearity_score", left)
plots.dynamics_lines(everything, "linearity_no_residual", right)
left.set(title="Linearity score", ylabel="Score, mean over layers")
right.set(title="Linearity score w/o residual")
plots.legend(fig, left)
plots.save(fig, figures_folder(profile) / "fig2_pretraining_dynamics")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# Steps are on a logarithmic axis, with a place for step 0. Below, the same two scores on held-out
# windows (upper row) show that the fall is no matter of fitting, and the lower row leaves out the
# first token of every window, where attention sinks form during training: a massive first state
# raises the score of everything around it.

# %%
controls = {"all": "all tokens", "no first position": "no first position"}
fig, axes = plt.subplots(2, 2, figsize=(12, 7.6), sharex=True, sharey=True)
for row, (tokens, title) in zip(axes, controls.items()):
    group = frame[frame["tokens"] == tokens]
    plots.dynamics_lines(group, "heldout_score", row[0])
    plots.dynamics_lines(group, "heldout_no_residual", row[1])
    row[0].set(title=f"Held-out score ({title})", ylabel="Score, mean over layers")
    row[1].set(title=f"Held-out score w/o residual ({title})")
plots.label_outer(axes)
plots.legend(fig, axes[0, 0])
plots.save(fig, figures_folder(profile) / "fig2_pretraining_dynamics_controls")
plots.show(fig)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure without numbers, and says that the score with residual falls for all
# models. Ours, as means over layers (and seeds): at initialisation, at the highest point, and at
# the end.

# %%
scores = ["linearity_score", "linearity_no_residual", "identity_score"]
means = everything.groupby(["model", "step"])[scores].mean()
means.groupby("model").agg(["first", "max", "last"]).round(3)

# %% [markdown]
# ## Verdict
#
# Two readings of "falls": by order, as Spearman's rank correlation of the mean score with the step
# from step 1 on (at $-1$ a score falls at every checkpoint), and by the change from step 1 to the
# end. The verdict in the README asks for the second, in every model; step 1 is still close to the
# initialisation, so a score that rises first and falls later can fail it.

# %%
trained = means.query("step > 0").reset_index()
ranks = trained.groupby("model")[["step", *scores]].corr(method="spearman")["step"].unstack()
change = trained.groupby("model")[scores].last() - trained.groupby("model")[scores].first()
pd.concat({"rank": ranks[scores], "change": change}, axis=1).round(2)

# %% [markdown]
# ## Deviations
#
# - At `smoke` and `tiny` a pretraining is minutes long, from initialisation on; the paper follows
#   open models over their whole pretraining.
# - The zoo has one seed a model, and so no interval: its lines agree or disagree by their number.
# - The paper does not say on which text the checkpoints were scored; ours is held-out text of the
#   kind that the model was trained on, or WikiText for hub models.
# - `gpu` and `paper` need the checkpoints as safetensors; a revision that has only pickled weights
#   is refused by name.
