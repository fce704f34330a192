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
# # Figure 4 · Does pulling adjacent layers together make a model less linear?
#
# **The paper's claim.** Pretraining with a cosine term that aligns the outputs of adjacent blocks
# lowers the linearity score (without residual) at *every* layer.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 4 and Figure 4; its text refers to
# Figures 4 and 5 with their numbers swapped.)
#
# **Cost.** `smoke` seconds, `tiny` about ten minutes on two CPU cores (each variant from several
# seeds), `laptop` under two hours; `gpu` and `paper` are estimated at a day and a week: they
# pretrain 150M and 650M models.

# %% [markdown]
# ## The formula
#
# With $h_i$ the output of block $i$, before the final norm, the loss gains one of two terms, summed
# over adjacent blocks and averaged over tokens:
#
# $$L_\mathrm{MSE} = \lambda \sum_i \mathrm{mean}\,\lVert h_i - h_{i-1}\rVert^2, \qquad
# L_\mathrm{cosine} = \lambda \sum_i \mathrm{mean}\,\big(1 - \cos(h_i, h_{i-1})\big).$$
#
# A variant is named after its term and $\lambda$: `cosine-0.5`, `mse-2.0`, `plain`. The sums begin
# at the output of block 1; in `cosine-0.5-from-embeddings` at $h_0$, what enters it. The paper does
# not say where its sums begin.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

import linlib
from linlib import claims, plots, store, training
from linlib.stats import over_seeds, paired_differences, seed_differences

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# Three "layers" of the same random state, each twice the one before, point in one direction: the
# cosine term is 0 and the MSE term is not. So the cosine term does not constrain the *size* of a
# block's contribution, and penalises only a change of direction of the stream.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
state = torch.randn(4, 16, 64, generator=generator)
layers = [state, 2 * state, 4 * state]
terms = {kind: linlib.Regulariser(kind, 0.5)(layers).item() for kind in ("cosine", "mse")}
{kind: round(abs(term), 2) for kind, term in terms.items()}

# %% [markdown]
# ## The measurement
#
# Each variant is pretrained from several seeds on the same text. A seed fixes the initialisation
# and the order of the data, whatever the variant, so that variants can be compared in pairs. After
# the training, all its checkpoints (steps 0, 1, 2, 4, 8, ..., and at regular intervals) read
# held-out windows of the same corpus, on which their linearity and their loss are measured
# (`measurements`).
#
# A rate that suits one variant may be near divergence for another, so each variant is tuned first:
# its learning rate is chosen by its own validation loss (`tune_variants`), before linearity is
# considered, from a seed that is not compared below. While the best rate of a variant is at an end
# of what was tried, the next one, twice or half as large, is tried too. The initialisation is that
# of the plain model of the first size. Larger sizes take over the rate of their variant: a sweep of
# the largest size would cost more than all runs that are compared.
#
# A run has `diverged` if its loss ended more than 0.5 nats above that of the run that tuned its
# variant. Such a run is a training that went wrong, and says nothing about what the term does to a
# model that has learned something; it is left out with its partner, and the finding says what would
# come out with it.

# %%
settings = linlib.load_profile(profile)
settings.require("pretraining", "Figure 4")
LABELS = ["model", "size", "variant", "seed", "diverged"]
SCORES = ["linearity_score", "linearity_no_residual", "identity_score"]
SCORES += ["heldout_score", "heldout_no_residual", "null_score"]


# %%
def measure():
    _, sweep = training.tune_variants(settings)
    runs = training.train_variants(settings)
    measured = zip(runs, training.measurements(settings, runs))
    layers = pd.concat(frame.assign(**run.labels) for run, frame in measured)

    last = layers[layers["step"] == layers["step"].max()]
    where, counts = ["layer", "depth", "tokens"], ["n_tokens", "n_eff", "d_model"]
    last = last[[*LABELS, *where, *SCORES, *counts, "validation_loss"]]

    each = layers.groupby([*LABELS[1:], "step", "tokens"], sort=False)
    along = each[[*SCORES, "validation_loss"]].mean().reset_index()
    return {
        "": last,
        "_training": along,
        "_comparison": training.compare_at_equal_loss(along),
        "_sweep": sweep,
    }


# %% [markdown]
# Four frames: the scores of each layer at the end of training; their means over layers along
# training; the runs at equal steps and at equal loss; and the sweep of the tuning. The first has
# one row per size, variant, seed, layer and token group.

# %%
frame = linlib.result("fig4_regularised_linearity", measure, settings, remeasure)
frame.round(3).head()

# %% [markdown]
# The sweep of each variant. A choice on the edge of the grid means that the grid is too small.

# %%
sweep = store.load_frame("fig4_regularised_linearity_sweep", settings.name)
sweep.drop(columns="seed").round(4)

# %% [markdown]
# ## What to expect
#
# The figure has the difference of each variant from the plain model of the same seed, layer by
# layer: small dots are seeds, large ones their means with 95% intervals. If the claim holds, the
# points of the cosine term lie left of zero in every layer, and their bars end before it. Bars are
# about pairs: what a seed does to both of its models, the one with the term and the plain one,
# cancels in their difference, and only the scatter of that difference is left.

# %%
VALUE = "linearity_no_residual"
everything = frame.query("tokens == 'all' and not diverged")
sizes, variants = (list(everything[column].unique()) for column in ("size", "variant"))
gaps = seed_differences(everything, ["size", "layer"], VALUE).sort_values("layer")
others = [name for name in variants if name != "plain"]

# %%
layers = everything["layer"].max()
size = {"figsize": (13, 2 + 0.75 * layers), "squeeze": False, "sharex": True, "sharey": True}
fig, (axes,) = plt.subplots(1, len(sizes), **size)
for ax, name in zip(axes, sizes):
    rows = gaps[gaps["size"] == name].astype({"layer": str})
    plots.interval_points(rows, "difference", "layer", "variant", ax, others)
    ax.set(title=name, xlabel="Score w/o residual minus the plain model's", ylabel="")
axes[0].set_ylabel("Layer")
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "fig4_regularised_linearity")
plots.show(fig)

# %% [markdown]
# The scores themselves, as in the paper's figure. Bands are 95% intervals over seeds, thin lines
# single seeds, and the dotted line is the score of noise.

# %%
fig, (axes,) = plt.subplots(1, len(sizes), figsize=(12, 4.2), sharey=True, squeeze=False)
for ax, name in zip(axes, sizes):
    group = everything[everything["size"] == name]
    plots.interval_lines(group, VALUE, "variant", ax, groups=variants, at_most=1)
    ax.axhline(group["null_score"].max(), ls=":", color=plots.NULL_COLOUR, label="noise, d/(n-1)")
    ax.set(title=name, xlabel="Normalized depth (layer / L)", xlim=(0, 1.03), ylim=(0, 1.04))
axes[0].set_ylabel("Linearity score w/o residual")
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "fig4_regularised_linearity_scores")
plots.show(fig)

# %% [markdown]
# ## Along training
#
# The difference need not keep its sign: it is shown along the whole run, as the regularised model
# minus the plain model of the same seed, mean over layers, with a 95% interval over seeds. Above
# zero, the regulariser makes a model *more* linear.

# %%
along = store.load_frame("fig4_regularised_linearity_training", settings.name)
along = along.query("tokens == 'all' and not diverged")
fig, (axes,) = plt.subplots(1, len(sizes), figsize=(12, 4.2), sharey=True, squeeze=False)
for ax, size in zip(axes, sizes):
    group = along[along["size"] == size]
    differences = paired_differences(group, ["size", "step"], "linearity_no_residual")
    plots.difference_lines(differences, "variant", ax, groups=variants)
    plots.step_axis(ax, group["step"].max()).set(title=size)
axes[0].set_ylabel("Score w/o residual, minus plain")
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "fig4_regularised_linearity_training")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The regulariser may also change how *fast* a model learns, and linearity falls with learning. To
# separate the two effects, this figure shows the score against the validation loss: if the lines of
# two variants coincide, the regulariser moved a model along the same path and did nothing else. The
# loss axis is reversed, so that training runs from left to right.

# %%
fig, (axes,) = plt.subplots(1, len(sizes), figsize=(12, 4.2), sharey=True, squeeze=False)
for ax, size in zip(axes, sizes):
    group = along[along["size"] == size]
    columns = ["validation_loss", "linearity_no_residual", "variant"]
    plots.path_lines(group, *columns, ax, groups=variants)
    ax.set(title=size, xlabel="Validation loss, nats per token")
    ax.invert_xaxis()
axes[0].set_ylabel("Score w/o residual, mean over layers")
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "fig4_regularised_linearity_loss")
plots.show(fig)

# %% [markdown]
# ## Equal steps, and equal loss
#
# Means over layers and seeds, at the last step, and at the point where each run first reached the
# lowest loss that all runs of its pair reach. A pair is a variant and the plain model.

# %%
comparison = store.load_frame("fig4_regularised_linearity_comparison", settings.name)
comparison = comparison.query("not diverged")
groups = ["size", "pair", "at", "variant"]
losses = over_seeds(comparison, groups, "validation_loss").set_index(groups)["mean"]
scores = over_seeds(comparison, groups, "linearity_no_residual").set_index(groups)
scores.assign(validation_loss=losses).round(3)

# %% [markdown]
# ## Paper beside ours
#
# The paper shows this figure without numbers and without intervals. Its claim is "lower at each
# layer": how many layers are lower here on average, and for how many of them is it significant?

# %%
by_layer = paired_differences(everything, ["size", "layer"], "linearity_no_residual")
by_layer.groupby(["size", "variant"]).agg(
    layers=("layer", "size"),
    lower_on_average=("mean", lambda mean: (mean < 0).sum()),
    lower=("clear", lambda clear: (clear == "lower").sum()),
    higher=("clear", lambda clear: (clear == "higher").sum()),
)

# %% [markdown]
# ## Verdict
#
# The difference between `cosine-0.5` and the plain model of the same seed is pooled over sizes, and
# its interval alone decides. Runs that diverged are left out, and reported.

# %%
claims.cosine_lowers_linearity(settings.name).to_frame("Claim 7")

# %% [markdown]
# All variants, as the difference from the plain model of the same seed, with its interval and the
# smallest difference that so many seeds detect with 80% power.

# %%
groups = ["size", "pair", "at"]
differences = paired_differences(comparison, groups, "linearity_no_residual")
differences.drop(columns="pair").round(3)

# %% [markdown]
# And did the term help or harm the language model itself, at equal steps?

# %%
at_end = comparison.query("at == 'equal steps'")
paired_differences(at_end, ["size", "pair"], "validation_loss").drop(columns="pair").round(3)

# %% [markdown]
# ## Deviations
#
# - The paper names its models by size alone. Ours reach the names with 32,000 untied embeddings;
#   the small twins have the same design with fewer and narrower blocks, and read `storyworld`, a
#   generated corpus in the style of TinyStories with textbook paragraphs, for a minute each.
# - A run at `laptop` is short: the learning rate has decayed to zero at its end, and the effect of
#   many more steps on the difference between variants cannot be seen here.
# - The paper does not give learning rate, initialisation, steps and batch size; our learning rates
#   were chosen by the loss of each variant (above).
# - Intervals over few seeds are wide by nature (Student's t), and are not corrected for the number
#   of comparisons shown.
