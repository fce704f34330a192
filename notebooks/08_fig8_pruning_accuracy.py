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
# **The model.** The first model of Figure 6, at `laptop` and below SmolLM2-135M, whose weights are
# four-bit weights, dequantised. It is an instruct model, and it is asked in plain text here,
# without its chat template.
#
# **Cost.** `smoke` seconds, `tiny` a few minutes on two CPU cores once notebook 06 has distilled
# its maps, `laptop` under an hour; `gpu` and `paper` are estimated at an hour.

# %% [markdown]
# ## The formula
#
# A question has four answers. The model does not see them side by side: each is appended to the
# question, and the one with the highest log-likelihood counts as the model's,
#
# $$\hat a = \arg\max_a \sum_t \log p(a_t \mid \text{question}, a_{<t}).$$
#
# lm-evaluation-harness does so, on the pruned models of Figure 6 in memory. Two models that answer
# the same questions are compared on those that only one of them gets right: if neither is better,
# each is as likely as the other to be that one (McNemar's test). Questions that both get right, or
# both wrong, say nothing about the difference, however many they are.

# %%
from itertools import combinations, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import linlib
from linlib import claims, corpora, evaluate, plots, pruning, stats, store, training
from linlib.pruning import LIKE_TEST, STORIES

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# Two models answer 100 questions. One gets 60 right, the other 50 of the same 60. As shares of
# separate questions, 0.6 and 0.5 cannot be told apart: the interval of their difference, in the
# second row, holds zero. Question by question they can, since not a single one speaks for the
# second model.

# %% tags=["nbval-check-output"]
one, other = np.arange(100) < 60, np.arange(100) < 50
paired = stats.mcnemar(one, other)[:3]
np.round([paired, stats.share_difference(0.6, 0.5, 100, 100)], 3)

# %% [markdown]
# ## The questions
#
# At `laptop` and below, the task is `continuation`, in the columns of ARC-easy: the beginning of a
# held-out docstring paragraph and four candidates for its next sentence, one true and three from
# other paragraphs of the same package. At `gpu` and `paper` it is ARC-easy itself. The task's
# purpose is to have an accuracy to lose; a dense model that guesses makes the figure worthless.

# %%
question = corpora.load_task("pydocs", "continuation", "validation", 1)[0]
question["question"], question["choices"]["text"], question["answerKey"]

# %% [markdown]
# ## What is compared
#
# Each entry is a line of the figure: its name, the method of `pruning.fit_maps`, and the text that
# maps are fitted on: stories, as in the paper, or text like that on which Figure 6 measures the
# loss and from which the questions of `continuation` come. Distillation is shown on stories alone.
# `columns` are those of the frame that are measured.
#
# Where the profile asks a sample of the questions, as `tiny` and `laptop` do, only the last two of
# its numbers of blocks are measured: so few questions cannot tell the mildest pruning from the
# dense model, and each model that is asked takes as long as the one before.

# %%
lines = [("removed", "remove", "none"), ("replaced", "replace", LIKE_TEST)]
lines += [("replaced", "replace", STORIES), ("replaced + distilled", "distil", STORIES)]
columns = ["accuracy", "low", "high", "n", "chance"]
columns += ["difference", "difference_low", "difference_high", "p"]
settings = linlib.load_profile(profile)

# %% [markdown]
# ## The measurement
#
# The pruned models are those of Figure 6. The order comes from training text of the corpus, the
# maps from stories, with the same arguments as there, so that the order and the maps of notebook 06
# are found in the store. `apply_maps` puts the maps into the model, and the harness asks it all
# questions, with prompts that begin with the bos token. The questions of `continuation` are read as
# plain text; those of ARC-easy have the harness's own prompt. An answer is right where the summed
# log-likelihood is highest for the true candidate; the harness also has a score that divides it by
# the length of the answer, which the paper does not mention and which is not used here.
#
# There is one row per method and number of blocks, the most linear removed first; `removed` counts
# blocks from 0. The accuracy has its binomial interval over questions (Wilson's, which stays within
# 0 and 1), and its `difference` from the dense model has a paired one, with McNemar's exact `p`.
# The answers themselves are kept too (`_answers`).


# %%
def measure():
    scale, asked = (settings.require(part, "Figure 8") for part in ("pruning", "evaluation"))
    ((name, source),) = training.models_of(settings, [scale.first_model]).items()
    separator, task = training.separator_of(settings, scale.first_model), scale.task
    model, tokenizer = linlib.load(**source)
    fitting, *_ = pruning.pruning_texts(settings, tokenizer, separator)
    ask = {"limit": scale.task_rows, "add_bos_token": True, "batch_size": asked.batch_size}
    if (place := "pydocs" if task == "continuation" else asked.source) != "hub":
        ask["rows"] = {task: corpora.load_task(place, task, "validation", scale.task_rows)}
    calibration, batch = fitting[LIKE_TEST]["windows"], {"batch_size": scale.batch_size}
    order = store.cached(linlib.removal_order, model, calibration, "linearity", **batch)
    numbers = [n for n in scale.numbers if n <= len(order)][-2 if scale.task_rows else 0 :]
    rows, answers = [], []
    for (method, by, text), n in [(("dense", "remove", "none"), 0), *product(lines, numbers)]:
        blocks = sorted(order[:n])
        maps = store.cached(pruning.fit_maps, model, blocks, by, **fitting.get(text, {}))
        pruned = pruning.apply_maps(model, maps)
        found = store.cached(evaluate.harness.answers, pruned, tokenizer, task, **ask)
        place = {"model": name, "method": method, "n_removed": n, "text": text}
        answers.append(pd.DataFrame(place | dict(found)))
        right, dense = found["correct"], answers[0]["correct"]
        share = (right.mean(), *stats.binomial_interval(right.sum(), len(right)))
        paired = stats.mcnemar(right, dense) if n else [np.nan] * 4
        values = [*share, len(right), evaluate.harness.CHANCE[task], *paired]
        place |= {"removed": " ".join(map(str, blocks)), "task": task}
        rows.append(place | dict(zip(columns, values, strict=True)))
    return {"": pd.DataFrame(rows), "_answers": pd.concat(answers)}


# %%
frame = linlib.result("fig8_pruning_accuracy", measure, settings, remeasure)
frame.round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, the line of removal falls towards chance, the dashed line, and the others stay
# at the dense model's, the black one. Look first at whether the dense model itself can do the task:
# a model whose grey band, its 95% interval, reaches chance has nothing to lose. Bars are the
# intervals of each accuracy by itself, over questions. All models answer the same questions, so
# that overlapping bars are no proof that two are alike; the paired differences below decide, and a
# difference whose interval holds zero says that a loss is not shown, and not that there is none.

# %%
pruned, dense = frame[frame["n_removed"] > 0], frame[frame["n_removed"] == 0].iloc[0]
drawn = pruned.assign(line=pruned["method"] + (" (" + pruned["text"] + ")").replace(" (none)", ""))
removed = pruned.drop_duplicates("n_removed")

# %%
fig, ax = plt.subplots(figsize=(9, 5))
groups = list(drawn["line"].unique())
plots.accuracy_axis(dense["accuracy"], dense["low"], dense["high"], dense["chance"], ax)
plots.measured_lines(drawn, "accuracy", "line", ax, "n_removed", groups)
plots.block_ticks(removed["n_removed"], removed["removed"], ax)
ax.set(title=f"{dense['model']}, {dense['n']} questions of {dense['task']}")
ax.set(ylabel="Accuracy")
plots.legend(fig, ax)
plots.save(fig, store.figures_folder(settings.name) / "fig8_pruning_accuracy")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# The accuracies with their own intervals, over questions, and the differences from the dense model.
# An accuracy that rises again as more blocks are removed is no improvement: with few questions, and
# with a model that has come near chance, lines move by several points by chance alone.

# %%
shown = ["method", "text", "n_removed", "removed", "accuracy", "low", "high", "difference", "p"]
frame[shown].round(3)

# %% [markdown]
# ### Methods beside one another
#
# The claim is about the methods, and these too answer the same questions. `difference` is the
# accuracy of the second minus that of the first, paired by question.

# %%
answers = store.load_frame("fig8_pruning_accuracy_answers", settings.name)
answers["line"] = answers["method"] + (" (" + answers["text"] + ")").replace(" (none)", "")
right = answers.pivot(index="item", columns=["n_removed", "line"], values="correct")
pairs = [(n, *two) for n, two in product(pruned["n_removed"].unique(), combinations(groups, 2))]
found = [stats.mcnemar(right[n, second], right[n, first]) for n, first, second in pairs]
table = pd.DataFrame(pairs, columns=["n_removed", "first", "second"])
table[["difference", "low", "high", "p"]] = found
table.round(3)

# %% [markdown]
# ### What this design can see
#
# The smallest difference that so many questions detect with 80% power: about 2.8 standard errors of
# the paired difference. It is the smaller, the fewer questions two models answer differently. A
# claim about less than that needs more questions, and not another look at these.

# %%
intervals = zip(table["low"], table["high"])
sees = [stats.smallest_effect(low, high) for low, high in intervals]
table[["n_removed", "first", "second"]].assign(smallest_effect=sees, questions=len(right)).round(3)

# %% [markdown]
# ## Paper beside ours
#
# The paper's figure, of OPT-1.3B, has no numbers. What can be put beside it is the order of the
# three methods at each number of blocks, on stories.

# %%
drawn.pivot(index="n_removed", columns="line", values="accuracy")[groups].round(3)

# %% [markdown]
# ## Verdict
#
# About the accuracy of the distilled model minus that of removal, on the same questions, with the
# most blocks removed and maps from stories. *Supported* where the paired interval lies above zero,
# *contradicted* where it lies below; *smaller than the paper's* where it holds zero and excludes a
# difference that would matter, *inconclusive* where it holds both; *not testable at this profile*
# where the dense model itself is not above chance.

# %%
finding = claims.keeps_accuracy(settings.name)
finding.to_frame("Figure 8")

# %% [markdown]
# ## Deviations
#
# - The paper prunes OPT-1.3B. We prune the first model of Figures 6 and 7, so that the figures are
#   about the same models: OPT-125M at `gpu` and `paper`, SmolLM2-135M with four-bit weights at
#   `laptop` and below.
# - At `laptop` and below, the questions are not ARC-easy's but those of `continuation`, and few.
# - Of a sample of the questions, only the last two numbers of blocks are measured, and distillation
#   on text like the test's is left out.
# - Prompts begin with the bos token, as all text of this project does.
# - To be kept is not to be shown to be lost. With few questions that is a low bar, and the smallest
#   detectable difference says how low.
