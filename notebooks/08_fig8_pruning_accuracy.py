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
# # Figure 8 · Accuracy on ARC-easy with the most linear blocks removed, replaced, distilled
#
# **The paper's claim.** Linear maps in the place of removed blocks, and still more so distilled
# ones, keep the accuracy on ARC-easy that removal loses. ([arXiv
# 2405.12250](https://arxiv.org/abs/2405.12250), section 5 and Figure 8.)
#
# **Cost.** `smoke` seconds, `tiny` about a minute on two CPU cores once Figure 6's models are made,
# `gpu` and `paper` are estimated at an hour.

# %% [markdown]
# ## The formula
#
# A question has four answers. The model is asked none of them: each is appended to the question,
# and the one of the highest log-likelihood is taken as the model's,
#
# $$\hat a = \arg\max_a \sum_t \log p(a_t \mid \text{question}, a_{<t}).$$
#
# lm-evaluation-harness does so, on the pruned models of Figure 6 as they lie in memory.

# %%
import matplotlib.pyplot as plt
import pandas as pd

from linlib import plots
from linlib.claims import replacement_keeps_accuracy
from linlib.corpora.benchmarks import load_task
from linlib.experiments import obtain
from linlib.intervals import binomial_interval
from linlib.profiles import load_profile
from linlib.store import figures_folder

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A check on known ground
#
# How wide must an interval be? Of 256 questions of four answers, guessing gets 64 right. The 95%
# interval about that spans ten points: two methods that differ by less cannot be told apart by
# their bars alone.

# %% tags=["nbval-check-output"]
low, high = binomial_interval(64, 256)
round(low, 3), round(high, 3)

# %% [markdown]
# ## What is asked
#
# At `smoke` and `tiny`, questions about the kinds and properties of the generated world, in the
# columns of ARC-easy; at `gpu` and `paper` ARC-easy itself.

# %% tags=["nbval-check-output"]
question = load_task("storyworld", "arc_easy", "validation", 1)[0]
question["question"], question["choices"]["text"], question["answerKey"]

# %% [markdown]
# ## The measurement
#
# One row a method and number of blocks, the most linear removed first; `removed` counts blocks from
# 0.

# %%
settings = load_profile(profile)
frame = obtain("fig8_pruning_accuracy", settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the line of removal falls towards chance and the others stay near the dense
# model. Whether the dense model itself can do the task is the first thing to look at: a model that
# guesses has nothing to lose. Bars are 95% binomial intervals over questions.

# %%
methods = ["removed", "replaced", "replaced + distilled"]
pruned, dense = frame[frame["n_removed"] > 0], frame[frame["n_removed"] == 0].iloc[0]
fig, ax = plt.subplots(figsize=(8.4, 4.4))
plots.measured_lines(pruned, "accuracy", "method", ax, "n_removed", methods)
ax.axhline(dense["accuracy"], ls=":", color=plots.NULL_COLOUR, label="dense model")
ax.axhspan(dense["low"], dense["high"], color=plots.NULL_COLOUR, alpha=0.12, lw=0)
ax.axhline(dense["chance"], ls="-.", color=plots.NULL_COLOUR, label="chance")
ax.set(title=dense["model"], xlabel="Blocks removed, most linear first")
ax.set(ylabel="Accuracy on ARC-easy", xticks=sorted(pruned["n_removed"].unique()))
plots.legend(fig, ax)
plots.save(fig, figures_folder(profile) / "fig8_pruning_accuracy")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The same questions are asked of all models, so that the bars hold what all share. A line means
# something where it leaves the band about the dense model, or meets the line of chance.

# %%
frame[["method", "n_removed", "removed", "accuracy", "low", "high"]].round(3)

# %% [markdown]
# ## Paper beside ours
#
# The paper's figure, of OPT-1.3B, has no numbers. What can be put beside it is the order of the
# three methods at each number of blocks.

# %%
pruned.pivot(index="n_removed", columns="method", values="accuracy")[methods].round(3)

# %% [markdown]
# ## Verdict
#
# Accuracy is kept where the interval over questions does not end below the dense model's.
# *Supported* where distillation keeps it at every number of blocks and removal loses it at some;
# *contradicted* where neither distillation nor replacement keeps it at any; *no difference shown*
# where the dense model itself is not above chance; *mixed* otherwise.

# %%
finding = replacement_keeps_accuracy(profile)
pd.Series(vars(finding)).to_frame("Figure 8")

# %% [markdown]
# ## Deviations
#
# - The paper prunes OPT-1.3B; we prune the first model of Figures 6 and 7, so that the two figures
#   are about the same models: OPT-125M at `gpu` and `paper`, the OPT twin at `tiny`.
# - At `tiny` the questions are about the generated world, which is part of what the model has read
#   in training: that is why it can answer them at all.
# - The rule of the verdict looks at intervals one by one; the models are asked the same questions,
#   so that paired differences would be sharper.
# - Prompts begin with the token that documents begin with in training.
