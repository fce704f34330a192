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
# **Cost.** `smoke` seconds, `tiny` about a minute on two CPU cores once notebook 06 has distilled
# its maps; `gpu` and `paper` are estimated at an hour.

# %% [markdown]
# ## The formula
#
# A question has four answers. The model does not see them side by side: each is appended to the
# question, and the one with the highest log-likelihood counts as the model's,
#
# $$\hat a = \arg\max_a \sum_t \log p(a_t \mid \text{question}, a_{<t}).$$
#
# lm-evaluation-harness does so, on the pruned models of Figure 6 in memory.

# %%
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd

import linlib
from linlib import claims, corpora, evaluate, plots, pruning, stats, store, training

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# How wide must an interval be? Of 256 questions of four answers, guessing gets 64 right. The 95%
# interval around that spans ten points: two methods that differ by less cannot be distinguished by
# their bars alone.

# %% tags=["nbval-check-output"]
low, high = stats.binomial_interval(64, 256)
round(low, 3), round(high, 3)

# %% [markdown]
# ## The questions
#
# At `smoke` and `tiny` they are about the kinds and properties of the generated world, in the
# columns of ARC-easy; at `gpu` and `paper` they are ARC-easy itself.

# %% tags=["nbval-check-output"]
question = corpora.load_task("storyworld", "arc_easy", "validation", 1)[0]
question["question"], question["choices"]["text"], question["answerKey"]

# %% [markdown]
# ## The measurement
#
# The pruned models are those of Figure 6. The order comes from training text of the corpus, the
# maps from stories, with the same arguments as there, so that the maps that notebook 06 fitted and
# distilled are found in the store and not fitted again. `apply_maps` puts them into the model, and
# the harness asks it all questions, with prompts that begin with the bos token. Where the questions
# are not the hub's, ours take their place under the harness's own definition of ARC-easy.
#
# There is one row per method and number of blocks, the most linear removed first; `removed` counts
# blocks from 0. The interval of the accuracy is the binomial one over questions (Wilson's, which
# stays within 0 and 1). The accuracy is the share of questions whose right answer has the highest
# summed log-likelihood; the harness also has one that divides by the length of the answer, which
# the paper does not mention and which is not used here.
#
# The dense model is measured like all others, as the one with no block removed. It decides whether
# the figure says anything: if its interval includes chance, there is no accuracy to lose.

# %%
settings = linlib.load_profile(profile)
methods = {"removed": "remove", "replaced": "replace", "replaced + distilled": "distil"}
task, chance = "arc_easy", evaluate.harness.CHANCE["arc_easy"]


def measure():
    scale, asked = (settings.require(part, "Figure 8") for part in ("pruning", "evaluation"))
    ((name, source),) = training.models_of(settings, [scale.first_model]).items()
    model, tokenizer = linlib.load(**source)
    seq_len, n_windows = settings.measure.seq_len, scale.calibration_windows
    calibration = linlib.token_windows(
        settings.corpus, tokenizer, split="train", seq_len=seq_len, n_windows=n_windows
    )
    fitting = pruning.fitting_arguments(scale.stories, tokenizer, settings)
    harness = {"max_length": seq_len, "add_bos_token": True, "batch_size": asked.batch_size}
    if asked.source == "hub":
        harness["limit"] = asked.rows
    else:
        harness["rows"] = {task: corpora.load_task(asked.source, task, "validation", asked.rows)}
    order = linlib.removal_order(model, calibration, "linearity", batch_size=scale.batch_size)
    numbers = range(1, 1 + min(scale.most_removed, len(order)))
    for method, n in [("dense", 0), *product(methods, numbers)]:
        blocks, by = sorted(order[:n]), methods.get(method, "remove")
        maps = store.cached(pruning.fit_maps, model, blocks, by, **fitting)
        pruned = pruning.apply_maps(model, maps)
        scores = store.cached(evaluate.harness.evaluate, pruned, tokenizer, [task], **harness)
        accuracy, n_rows = scores.set_index("metric").loc["acc", ["value", "n"]]
        low, high = stats.binomial_interval(round(accuracy * n_rows), n_rows)
        place = {"model": name, "method": method, "n_removed": n}
        place["removed"] = " ".join(map(str, blocks))
        scored = {"accuracy": accuracy, "low": low, "high": high, "n": n_rows, "chance": chance}
        yield place | scored


frame = linlib.result("fig8_pruning_accuracy", measure, settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the line of removal falls towards chance and the others stay near the dense
# model. Look first at whether the dense model itself can do the task: a model that guesses has
# nothing to lose. Bars are 95% binomial intervals over questions.

# %%
pruned, dense = frame[frame["n_removed"] > 0], frame[frame["n_removed"] == 0].iloc[0]
fig, ax = plt.subplots(figsize=(8.4, 4.4))
plots.measured_lines(pruned, "accuracy", "method", ax, "n_removed", list(methods))
ax.axhline(dense["accuracy"], ls=":", color=plots.NULL_COLOUR, label="dense model")
ax.axhspan(dense["low"], dense["high"], color=plots.NULL_COLOUR, alpha=0.12, lw=0)
ax.axhline(dense["chance"], ls="-.", color=plots.NULL_COLOUR, label="chance")
ax.set(title=dense["model"], xlabel="Blocks removed, most linear first")
ax.set(ylabel="Accuracy on ARC-easy", xticks=sorted(pruned["n_removed"].unique()))
plots.legend(fig, ax)
plots.save(fig, store.figures_folder(settings.name) / "fig8_pruning_accuracy")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# All models answer the same questions, so that part of the bars' width is common to them. A line
# is informative where it leaves the band around the dense model, or meets the line of chance. An
# accuracy that rises again as more blocks are removed is no improvement: with few questions, and
# with a model that has come near chance, lines move by several points by chance alone.

# %%
frame[["method", "n_removed", "removed", "accuracy", "low", "high"]].round(3)

# %% [markdown]
# ## Paper beside ours
#
# The paper's figure, of OPT-1.3B, has no numbers. What can be put beside it is the order of the
# three methods at each number of blocks.

# %%
pruned.pivot(index="n_removed", columns="method", values="accuracy")[list(methods)].round(3)

# %% [markdown]
# ## Verdict
#
# Accuracy is kept where the interval over questions does not end below the dense model's accuracy.
# *Supported* where distillation keeps it at each number of blocks and removal loses it at some;
# *contradicted* where neither distillation nor replacement keeps it at any; *no difference shown*
# where the dense model itself is not above chance; *mixed* otherwise.

# %%
finding = claims.replacement_keeps_accuracy(settings.name)
pd.Series(vars(finding)).to_frame("Figure 8")

# %% [markdown]
# ## Deviations
#
# - The paper prunes OPT-1.3B. We prune the first model of Figures 6 and 7, so that the figures are
#   about the same models: OPT-125M at `gpu` and `paper`, the OPT twin at `tiny`.
# - At `tiny` the questions are about the generated world, which is part of what the model read in
#   training: that is why it can answer them at all.
# - The rule of the verdict looks at each interval alone. The models answer the same questions, so
#   and paired differences would be sharper.
# - Prompts begin with the token that documents begin with in training.
