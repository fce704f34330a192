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
# # Beyond the paper · Functional linearity: how much of a block's work does a linear map do?
#
# **The question.** "Your Transformer is Secretly Linear" ([arXiv
# 2405.12250](https://arxiv.org/abs/2405.12250)) says so because a linear map explains 0.99 of the
# variance of what a block puts out. But a model is not made to put out variance; it is made to
# predict the next token. Is a block linear in what it *does*: of the loss that is added where the
# block is removed, how much does its best affine map win back? And does the paper's score say which
# blocks these are?
#
# **Cost.** `smoke` seconds; `tiny` about three minutes on two CPU cores after notebook 20, nearly
# all of it for SmolLM2, `laptop` half an hour; `gpu` and `paper` are estimated at half an hour.

# %% [markdown]
# ## The formula
#
# Let $L_\mathrm{dense}$ be the loss of the whole model in nats per token, $L_\mathrm{removed}$ that
# without one block, and $L_\mathrm{linear}$ that with the block's best affine map in its place. The
# **functional linearity** of the block is the share of its work that the map does too:
#
# $$\phi = \frac{L_\mathrm{removed} - L_\mathrm{linear}}{L_\mathrm{removed} - L_\mathrm{dense}}.$$
#
# It is 1 where the map does as well as the block, and 0 where it does no better than nothing. The
# share may honestly leave this range: below 0 the map does harm, above 1 the model is better on
# this text with the map than with the block. Where a removal costs nothing there is nothing to
# share, and $\phi$ is not defined.
#
# There is a score that asks the same of variance in place of loss. A removal predicts that the
# block adds nothing; the score without residual is the share of that error which the map avoids,
#
# $$\mathrm{score}(X, \Delta) = \frac{\mathrm{score}(X, Y) - I}{1 - I}, \qquad
# I = 1 - \frac{\lVert \Delta_c \rVert^2}{\lVert Y_c \rVert^2}.$$
#
# If loss went with variance, $\phi$ would equal the score *without* residual, and not the 0.99. It
# need not. To second order the loss grows with the square of the error that is made in the stream,
# but each direction has a weight of its own: what the following blocks and the head read counts,
# and what they ignore does not, however much variance it has. A map that errs where nobody looks
# does better than its score says, and one that misses the small part that matters does worse. The
# score weights directions by their variance, which the longest states decide; the loss weights
# tokens equally.

# %%
from functools import partial
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import linlib
from linlib import plots, stats, store, training
from linlib.measure import TOKEN_GROUPS
from linlib.pruning import interval_columns
from linlib.pruning import sets as studies

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# The identity above, on noisy states: the score without residual is the skill of the map over the
# prediction that nothing changes.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
x = torch.randn(4000, 16, generator=generator, dtype=torch.float64)
delta = 0.2 * x.roll(1, dims=1) + 0.1 * torch.randn(4000, 16, generator=generator, dtype=x.dtype)
moments = linlib.BlockMoments(16)
moments.update(x, delta)
score, identity = moments.linearity_score(), moments.identity_score()
round(moments.linearity_no_residual(), 6), round((score - identity) / (1 - identity), 6)

# %% [markdown]
# ## The measurement
#
# Each block is taken out alone: removed, replaced by an affine map fitted on all tokens, and
# replaced by one that was fitted without massive tokens. In SmolLM2, the first token of each window
# and some others have norms of more than ten times the median in most layers (notebook 21 names
# them); a map that is fitted on all tokens is fitted to them above all. The loss is measured on all
# tokens in each case. The scores beside the shares are those of the same group of tokens: of the
# map that is fitted on all tokens the raw score, of the other the score without massive tokens.
#
# Text is cut as in notebook 20 by `study_text`: maps are fitted on training text like the test's,
# and the loss is measured on held-out text from many documents. `losses_of_sets` gives the losses
# by document; those of removed blocks are found in the store if notebook 20 was run. The scores of
# the blocks come from the calibration text, held out between folds of whole documents.
#
# All intervals are over documents: tokens of one document depend on each other. That of the share,
# a ratio of sums over documents, is Fieller's. Where a block's work, $L_\mathrm{removed} -
# L_\mathrm{dense}$, is not clearly above 0, the share is not defined and stays empty. The blocks
# that have one were chosen by the same documents; where their work is small, chance has made it
# look larger than it is, and the share closer to 0 or 1 than it would be on other text.
#
# Two frames are stored: one row per model, block and token group, with the share `phi`, the block's
# `work`, what is `left` to do after the map ($L_\mathrm{linear} - L_\mathrm{dense}$), and the
# scores; and the losses in nats by document (`_documents`).

# %%
settings = linlib.load_profile(profile)
scale = settings.require("pruning", "this comparison")
names = [name for name in (scale.first_model, scale.second_model) if name]
columns = ["heldout_score", "heldout_no_residual", "dominated", "dominated_no_residual"]


# %%
def measure():
    frames = {"": {}, "_documents": {}}
    for name, source in training.models_of(settings, names).items():
        model, tokenizer = linlib.load(**source)
        separator = training.separator_of(settings, name)
        given, text = studies.study_text(settings, tokenizer, separator)
        losses = partial(store.cached, studies.losses_of_sets, model, **given)
        alone = [[block] for block in range(model.config.num_hidden_layers)]
        found = {"removed": losses([[], *alone], "remove")}
        for tokens in TOKEN_GROUPS:
            fitting = given["fitting"] | {"tokens": tokens}
            found[tokens] = losses(alone, "replace", fitting=fitting)
        found = pd.concat(found, names=["method"]).reset_index("method")
        keys = ["removed", "document", "n_tokens"]
        loss = found.pivot(index=keys, columns="method", values="loss")
        loss = loss.drop("").join(loss.loc[""]["removed"].rename("dense"))
        rows = []
        for (block, one), tokens in product(loss.groupby(level="removed"), TOKEN_GROUPS):
            sizes, work = one.index.get_level_values("n_tokens"), one["removed"] - one["dense"]
            found = {"phi": stats.ratio(one["removed"] - one[tokens], work)}
            found["work"] = stats.clustered_mean(work, sizes)
            found["left"] = stats.clustered_mean(one[tokens] - one["dense"], sizes)
            rows.append({"block": int(block), "tokens": tokens} | interval_columns(found))
        scores = store.cached(linlib.linearity_profile, model, **text)
        scores = scores.assign(block=scores["layer"] - 1)[["block", "tokens", *columns]]
        frames[""][name] = pd.DataFrame(rows).merge(scores).sort_values("block")
        loss = loss.rename_axis(["block", *keys[1:]]).reset_index()
        frames["_documents"][name] = loss.astype({"block": int}).sort_values(["block", "document"])
    return {suffix: studies.by_model(tables) for suffix, tables in frames.items()}


# %%
frame = linlib.result("functional_linearity", measure, settings, remeasure)

# %%
documents = store.load_frame("functional_linearity_documents", settings.name)
models, defined = list(frame["model"].unique()), frame[frame["phi"].notna()]
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# Each point is a block: the share of its work that a map does, against the share of variance that a
# map explains, on the left of the block's output and on the right of its contribution alone. If the
# 0.99 of the paper's title were a statement about what blocks do, the points on the left would lie
# at 1. On the dotted line, on the right, loss goes with variance. Hollow points have scores that
# rest on fewer effective tokens than there are dimensions. Bars are 95% intervals over documents;
# they are long where a block does little, since the share of little is hard to know. Nothing is cut
# off: a bar may leave the range from 0 to 1, as the share may. Beyond 1 and -1 the scale is
# logarithmic.

# %%
panels = {
    "heldout_score": ("dominated", "Held-out score, with residual"),
    "heldout_no_residual": ("dominated_no_residual", "Held-out score, w/o residual"),
}
colours = dict(zip(TOKEN_GROUPS, ("C0", "C1")))
sizes = dict(zip(TOKEN_GROUPS, (55, 18)))
size = {"figsize": (11, 4 * len(models)), "squeeze": False, "sharey": "row", "sharex": True}
fig, axes = plt.subplots(len(models), len(panels), **size)
plt.close(fig)  # shown below, when all is drawn

# %%
for (model, (score, (hollow, label))), ax in zip(product(models, panels.items()), axes.flat):
    if score == "heldout_no_residual":
        ax.plot([0, 1], [0, 1], ":", color=plots.NULL_COLOUR, label="loss goes with variance")
    for tokens, colour in colours.items():
        rows = defined[(defined["model"] == model) & (defined["tokens"] == tokens)]
        beyond = [rows["phi"] - rows["phi_low"], rows["phi_high"] - rows["phi"]]
        looks = {"ecolor": colour, "alpha": 0.45, "elinewidth": 1}
        ax.errorbar(rows[score], rows["phi"], beyond, fmt="none", **looks)
        faces = rows[hollow].astype(bool).map({True: "white", False: colour})
        name = f"fitted and scored on tokens: {tokens}"
        looks = {"edgecolors": colour, "label": name, "zorder": 3}
        ax.scatter(rows[score], rows["phi"], sizes[tokens], faces, **looks)
    ax.set(title=model, xlabel=label)

# %%
for ax in axes.flat:
    ax.set_yscale("symlog", linthresh=1)
    ax.yaxis.set_major_formatter("{x:g}")
for ax in axes[:, 0]:
    ax.set(ylabel="Share of the block's work\nthat its map does, $\\phi$")
plots.legend(fig, axes[0, 1])
plots.save(fig, store.figures_folder(settings.name) / "functional_linearity")
plots.show(fig)

# %% [markdown]
# ## How linear is what a block does?
#
# The median over blocks of the share, beside the median scores of the same blocks. Its interval
# comes from drawing the documents again, with replacement, 999 times: blocks are those of this
# model that have a share, whichever documents are drawn, and only the text is random. `blocks`
# counts those with a share, `undefined` the others. The median is taken since the share of a block
# that does little can be any number, and a mean would be made by one such block. A median near 1
# says that most blocks could be affine for all that this text shows; one that is clearly below 1,
# and below the score, that the variance which is left over is the part that matters.

# %%
by_block = documents.set_index(["model", "block", "document"])
found, generator = {}, np.random.default_rng(settings.seed)
for (model, tokens), rows in defined.groupby(["model", "tokens"], sort=False):
    loss = by_block.loc[model].loc[rows["block"].tolist()].unstack("block")
    work, done = (loss["removed"] - loss[other] for other in ("dense", tokens))
    draws = generator.multinomial(len(loss), np.full(len(loss), 1 / len(loss)), size=999)
    medians = np.median((draws @ done) / (draws @ work), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    found[model, tokens] = {"phi": rows["phi"].median(), "low": low, "high": high}
    found[model, tokens] |= rows[list(panels)].median().to_dict() | {"blocks": len(rows)}
    found[model, tokens]["undefined"] = frame["model"].eq(model).sum() // 2 - len(rows)
medians = pd.DataFrame(found).T
medians.round(3)

# %% [markdown]
# In one line, for maps that are fitted on all tokens:

# %%
shares = {model: row for (model, tokens), row in medians.iterrows() if tokens == "all"}
"; ".join(
    f"in {model} the median map does {row['phi']:.0%} [{row['low']:.0%}, {row['high']:.0%}] of "
    f"what its block does for the loss, and {row['heldout_no_residual']:.0%} of its variance"
    for model, row in shares.items()
)

# %% [markdown]
# ## Does the score say which blocks are linear in what they do?
#
# Spearman's rank correlation over blocks of the share with each score, with Fisher's interval and
# the p value of permutations. A correlation near 1 means that the score, whatever its size, ranks
# blocks by what they do; one near 0 that it does not say which blocks could be replaced.

# %%
found = {}
for (model, tokens), rows in defined.groupby(["model", "tokens"], sort=False):
    if len(rows) > 3:  # fewer have no interval
        for score in panels:
            found[model, tokens, score] = stats.rank_correlation(rows[score], rows["phi"])
pd.DataFrame(found, index=["rho", "low", "high", "p"]).T.round(3)

# %% [markdown]
# ## Massive tokens in the fit: better or worse?
#
# What a map that is fitted without massive tokens adds to the loss, less what one adds that is
# fitted on all: above 0, leaving them out makes a worse replacement. A massive token is met by the
# map all the same, far from anything that it was fitted on, and the other tokens attend to it. A
# removal passes it on unchanged, so that such a map can be worse than a removal. Where massive
# tokens are born or die, in one block early and one late in the model, a map of all tokens spends
# itself on them, and the other may win. `better` and `worse` count the blocks whose interval
# excludes 0. A model without massive tokens has no row.

# %%
difference = documents.assign(loss=documents["no massive"] - documents["all"])
found = {}
for model, rows in difference.groupby("model", sort=False):
    if not rows["loss"].any():
        continue  # it has no massive token
    ends = [stats.clustered_mean(one["loss"], one["n_tokens"]) for _, one in rows.groupby("block")]
    over = rows.groupby("document")[["loss", "n_tokens"]].sum()
    mean, low, high = stats.clustered_mean(over["loss"], over["n_tokens"])
    found[model] = {"mean": mean, "low": low, "high": high, "median": np.median(ends, axis=0)[0]}
    found[model] |= {"better": sum(e[2] < 0 for e in ends), "worse": sum(e[1] > 0 for e in ends)}
    found[model]["smallest effect"] = stats.smallest_effect(low, high)
massive = pd.DataFrame(found).T
massive.round(3)

# %% [markdown]
# ## The smallest effect that this can see
#
# For the share of a single block, the median over blocks of the smallest deviation from 1 (the map
# does all) or from 0 (it does nothing) that would be found in four of five such measurements. For
# the difference that massive tokens make, it stands in the table above, in nats per token.

# %%
ends = zip(defined["phi_low"], defined["phi_high"])
smallest = defined.assign(smallest=[stats.smallest_effect(*one) for one in ends])
smallest.groupby(["model", "tokens"], sort=False)["smallest"].describe()[["50%", "min", "max"]]

# %% [markdown]
# The numbers behind the figure, block by block. `work` is what removing the block adds to the loss
# in nats per token, and `left` what its map still adds. Where `left` is larger than `work`, the map
# does harm.

# %%
values = ["work", "phi", "left", *panels]
frame.pivot(index=["model", "block"], columns="tokens", values=values).round(2)

# %% [markdown]
# ## Deviations
#
# - The paper has no such figure. It speaks of variance, and removes blocks without asking what
#   share of their work the maps do.
# - Each block is taken out alone. Several maps in a row add more than the sum of their losses.
# - The map of least squares is not the one of least loss: a map that is trained on the loss would
#   do more, so the share is a lower bound of what some affine map can do.
# - The share depends on the text. Maps are fitted on text like the test's; Figure 6 shows what
#   other text costs.
# - The weights of packaged models are four-bit weights, dequantised; instruct models read plain
#   text, without their chat template.
