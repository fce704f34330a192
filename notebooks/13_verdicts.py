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
# # The verdicts · Fifteen claims of the paper on one page
#
# **The question.** Fifteen claims of the paper
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250)) are tested here. Which of them hold, which
# do not, and which could not have been decided by what was measured?
#
# **Cost.** Seconds: this page measures nothing. It reads the frames that the other notebooks have
# stored at this profile. A claim whose notebook has not run says so.

# %% [markdown]
# ## The rule
#
# Each claim says that some effect lies above a threshold: a score above 0.95, a difference above 0.
# The verdict follows from the 95% interval of the effect, and from nothing else:
#
# | verdict | the interval |
# |---|---|
# | supported | lies above the threshold |
# | contradicted | lies below it (claim 1: below a lower one) |
# | smaller than the paper's | neither, and it ends before the paper's effect |
# | inconclusive | none of these: it leaves open whether the claim holds |
# | not testable at this profile | does not exist: one seed, a missing run, a model at chance |
#
# Where the paper gives no number, an effect that would matter stands in its place. Claims 3 and 12,
# that something is small, hold or do not hold, and are never "smaller than the paper's".
#
# Each rule is in the docstring of its claim in `linlib.claims`. Some were revised after results had
# been seen: [CHANGELOG](../CHANGELOG.md) says which, when, and what they were.
#
# Differences between trained models are paired by seed, and their intervals are over seeds, so that
# they include the scatter between trainings. All seeds answer the same questions, which are not
# drawn anew: an effect is one on these questions. Differences between pruned models are paired by
# document. A claim about decoders in general must hold for each real decoder that was measured, and
# is contradicted by one. Intervals are not corrected for the number of claims: where nothing is
# there, each claim has one chance in forty of being called supported.

# %%
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

import linlib
from linlib import claims, plots, stats, store

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## A sanity check
#
# The same interval, 0.2 wide, at four places; the claim begins at 0, and the paper's effect is 0.3.

# %% tags=["nbval-check-output"]
places = {middle: (middle - 0.1, middle + 0.1) for middle in (-0.2, 0.0, 0.15, 0.25)}
{middle: claims.decide(*interval, paper=0.3) for middle, interval in places.items()}

# %% [markdown]
# An interval that is too wide decides nothing. The smallest effect that a design detects in four of
# five repetitions is 1.43 half-widths from the threshold, here 0.14:

# %% tags=["nbval-check-output"]
round(stats.smallest_effect(-0.1, 0.1), 3)

# %% [markdown]
# ## The findings

# %%
settings = linlib.load_profile(profile)
frame = claims.findings(settings.name)
counts = frame["verdict"].value_counts().reindex(list(claims.VERDICTS)).dropna().astype(int)
counts.to_frame("claims")

# %% [markdown]
# ## All claims in one picture
#
# Units differ, so each effect is put on one scale: 0 is where its claim begins to hold, and 1 is
# the paper's effect (a diamond) or, where the paper has no number, one that would matter (a short
# line). The shaded half is the claim's. Beyond 1 the scale is logarithmic.

# %%
fig, ax = plt.subplots(figsize=(13, 7.4))
plots.verdict_bars(frame, ax)
for place, row in enumerate(frame.itertuples()):
    text = f"{row.verdict.split(' at ')[0]}  {row.interval}"
    colour = plots.VERDICT_COLOURS[row.verdict]
    ax.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), va="center", color=colour)
looks = {"color": "black", "ls": ""}
marks = {"o": "real decoders", "s": "models trained here", "|": "would matter"}
handles = [Line2D([], [], marker=mark, label=label, **looks) for mark, label in marks.items()]
handles += [Line2D([], [], marker="D", mfc="white", label="the paper's effect", **looks)]
ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4)
ax.set_xlabel("0: the claim begins to hold · 1: it holds in full")
plots.save(fig, store.figures_folder(settings.name) / "verdicts")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# A bar to the right of 0 supports its claim, however short of the diamond it may end. A bar that
# holds 0 and ends before the diamond excludes what the paper found, and not that there is a little
# of it. A bar that holds both leaves the claim open; the column `smallest` of the next table says
# how strong an effect would have had to be. Of several decoders, the bar reaches from the lowest
# end of their intervals to the highest: it is also wide where they differ.

# %%
columns = ["number", "claim", "scope", "unit", "interval", "threshold", "goal", "smallest"]
frame[[*columns, "verdict"]].set_index("number").round(3)

# %% [markdown]
# What stands beside each verdict: differences of sizes and models, other ways of counting, and, of
# a claim that could not be tested, what is missing.

# %%
frame.set_index("number")[["claim", "details"]]

# %% [markdown]
# ## Deviations
#
# - Effects of real decoders are about the decoders that were measured, on one kind of text; their
#   intervals are over documents, and not over decoders.
# - The models trained here are small twins, and their tasks are generated: what they show about
#   fine-tuning and regularisation need not hold for models a thousand times their size.
# - The paper gives no intervals. Its effects are taken as they stand, and some of them lie within
#   their own sampling error (notebook 11).
