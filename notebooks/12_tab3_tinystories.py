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
# # Table 3 · Does the cosine term tell better stories?
#
# **The paper's claim.** Models pretrained with the cosine term continue TinyStories better: a
# language model as judge gives them higher scores for grammar, creativity, consistency and plot.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 4 and Table 3.)
#
# **Cost.** `smoke` seconds, `tiny` about two minutes on two CPU cores once Figure 4's models are
# trained. `gpu` and `paper` ask an endpoint for a few thousand answers; set
# `LINLIB_JUDGE_BASE_URL`, `LINLIB_JUDGE_MODEL` and `LINLIB_JUDGE_API_KEY`. Answers are cached, and
# a second run costs nothing.

# %% [markdown]
# ## The formula
#
# Each model continues the same beginnings of held-out stories, and each continuation gets four
# scores $s \in [0, 10]$. A cell of the table is their mean over stories, then over seeds:
#
# $$\bar s = \frac{1}{|\mathrm{seeds}|} \sum_\mathrm{seed} \frac{1}{n} \sum_{i=1}^{n}
# s_{i,\mathrm{seed}}.$$

# %%
import matplotlib.pyplot as plt
import pandas as pd

from linlib import plots
from linlib.claims import cosine_improves_stories
from linlib.evaluate.rubric import SCORES
from linlib.experiments import obtain
from linlib.intervals import paired_differences
from linlib.profiles import load_profile
from linlib.store import figures_folder, load_frame, load_paper
from linlib.tables import best_of_column, save_table, spread_table

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## Who judges, and can the judge be trusted?
#
# At `smoke` and `tiny` it is no language model but the generated world itself, which is known. It
# reads every sentence back: *grammar* is the share of words in sentences that the world's grammar
# admits, *creativity* the share of passages that are in no training story, *consistency* the share
# of what is told that agrees with the beginning and the world (a sentence that cannot be read
# agrees with nothing), and *plot* the share of a story's parts that are told in order. A true story
# that is broken on purpose must lose what was broken; *creativity* alone does not know true from
# broken, but only what was told before.

# %% tags=["nbval-check-output"]
from random import Random

from linlib.corpora.storyworld import render_story
from linlib.corpora.storyworld.dataset import records
from linlib.corpora.storyworld.grammar import sentences
from linlib.evaluate.world_judge import judge_completion

record = next(records("heldout"))
beginning, ending = render_story(record).split("\n\n", 1)
mixed = " ".join(Random(0).sample(sentences(ending), len(sentences(ending))))
nonsense = " ".join(Random(0).sample(ending.split(), len(ending.split())))
stranger = ending.replace(record.hero.name, record.helper.name)
told = {"true": ending, "sentences mixed": mixed, "words mixed": nonsense, "one name": stranger}
judged = {name: judge_completion(text, record, beginning) for name, text in told.items()}
pd.DataFrame({name: vars(scores) for name, scores in judged.items()}).T.round(1)

# %% [markdown]
# ## The measurement
#
# One row a model, seed and story. The true endings of the same held-out stories are judged as well:
# what a perfect storyteller of this world gets.

# %%
settings = load_profile(profile)
frame = obtain("tab3_tinystories", settings, remeasure)
frame.round(2).head()

# %% [markdown]
# ## What they tell
#
# The same beginning, continued by one model of each kind. Numbers are fine, and so is reading.

# %%
examples = load_frame("tab3_tinystories_examples", profile).drop_duplicates(["size", "variant"])
pd.options.display.max_colwidth = 400
examples.set_index(["size", "variant"])[["beginning", "completion"]].map(lambda text: text[:380])

# %% [markdown]
# ## What to expect
#
# If the claim holds, the points of the cosine models lie to the right of the plain ones. Bars are
# 95% intervals over seeds, small dots single seeds; the dotted line is what the true endings get.

# %%
runs = frame.groupby(["size", "variant", "seed"], sort=False)[[*SCORES, "mean"]].mean()
scores = runs.rename_axis(columns="score").stack().rename("value").reset_index()
models, truth = (scores[(scores["size"] == "true ending") == is_true] for is_true in (False, True))
sizes, variants = list(models["size"].unique()), list(models["variant"].unique())
fig, axes = plt.subplots(len(sizes), 5, figsize=(14, 2.2 + 1.6 * len(sizes)), squeeze=False)
for row, size in zip(axes, sizes):
    for ax, score in zip(row, [*SCORES, "mean"]):
        rows = models[(models["size"] == size) & (models["score"] == score)]
        plots.interval_points(rows, "value", "score", "variant", ax, variants)
        ax.axvline(truth.query("score == @score")["value"].item(), ls=":", color="black")
        ax.set(title=f"{score}, {size.removesuffix('-' + profile)}", yticks=[], xlim=(-0.3, 10.5))
plots.legend(fig, axes[0, 0])
plots.save(fig, figures_folder(profile) / "tab3_tinystories")
plots.show(fig)

# %% [markdown]
# ## Table 3, paper beside ours
#
# Means over stories, then mean and standard deviation over seeds. The best of a column, within
# paper and within ours, is bold. Scores of different judges cannot be compared: only the order
# within one judge's rows can.

# %%
table = models.assign(config=models["size"] + ", " + models["variant"])
ours = best_of_column(spread_table(table, ["config"], "score", "value", digits=2, sign=""))
paper = best_of_column(load_paper("tab3_tinystories").set_index("config"))
top = spread_table(truth.assign(config="true ending"), ["config"], "score", "value", 2, "")
table = pd.concat({"paper": paper, f"ours ({profile})": pd.concat([ours, top])})
table = table.rename_axis(["source", "config"])
save_table(table, figures_folder(profile) / "tab3_tinystories")
table

# %% [markdown]
# ## How to read it
#
# Each variant minus the plain model of the same seed, score by score, and a plain word on whether
# that is more than the seeds' scatter. How far apart the stories of one model are is in the frame.

# %%
paired_differences(models, ["size", "score"], "value").round(2)

# %% [markdown]
# ## Verdict
#
# *Supported* where the mean of the four scores is higher with the cosine term for every size, by
# more than the seeds' scatter; *contradicted* where it is lower for every size; else mixed, or no
# difference shown.

# %%
finding = cosine_improves_stories(profile)
pd.Series(vars(finding)).to_frame("Table 3")

# %% [markdown]
# ## Deviations
#
# - The paper's judge is GPT-4 with prompts of Eldan and Li. At `smoke` and `tiny` ours is the world
#   itself: its scores are shares, and it cannot like a story. It is never to be read as GPT-4.
# - At `gpu` and `paper` the judge is whatever model the endpoint serves; model, rubric, tokens and
#   cost are in the provenance.
# - The paper says neither how stories were drawn nor how many. Ours are drawn at the temperature of
#   the profile, one continuation a beginning, the same beginnings for all models.
# - Stories are longer than the window of the small models: they tell on with the newest half of the
#   window in view, and may forget who was who. That counts against their consistency.
# - An empty continuation gets 0 on everything.
