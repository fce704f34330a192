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
# # Table 3 · Does a model with the cosine term write better stories?
#
# **The paper's claim.** Models pretrained with the cosine term continue TinyStories better: a
# language model as judge gives them higher scores for grammar, creativity, consistency and plot.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 4 and Table 3.)
#
# **Cost.** `smoke` seconds, `tiny` and `laptop` about two minutes on two CPU cores once Figure 4's
# models are trained. `gpu` and `paper` ask an endpoint for a few thousand answers; set
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
from random import Random

import matplotlib.pyplot as plt
import pandas as pd

import linlib
import storyworld
from linlib import claims, evaluate, parallel, plots, store, training
from linlib.stats import paired_differences
from linlib.tables import best_of_column, save_table, spread_table

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## Who judges, and can the judge be trusted?
#
# At `laptop` and below, the judge is no language model but the generated world itself, whose rules
# are known. It parses every sentence: *grammar* is the share of words in sentences that the world's
# grammar admits, *creativity* the share of passages that are in no training story, *consistency*
# the share of statements that agree with the beginning and with the world (a sentence that cannot
# be parsed agrees with nothing), and *plot* the share of a story's parts that come in order. A true
# story that is broken on purpose must lose the score of what was broken. *Creativity* is the
# exception: it knows only what is new, not what is true.

# %% tags=["nbval-check-output"]
record = next(storyworld.records("heldout"))
beginning, ending = storyworld.render_story(record).split("\n\n", 1)
sentences, words = storyworld.sentences(ending), ending.split()
variations = {
    "true": ending,
    "sentences mixed": " ".join(Random(0).sample(sentences, len(sentences))),
    "words mixed": " ".join(Random(0).sample(words, len(words))),
    "one name": ending.replace(record.hero.name, record.helper.name),
}
judged = {
    name: vars(storyworld.judge_completion(text, record, beginning))
    for name, text in variations.items()
}
pd.DataFrame(judged).T.round(1)

# %% [markdown]
# The true ending gets full marks. Mixed sentences are still sentences of this world, so that only
# the plot suffers; of mixed words nothing can be parsed, and all scores are 0. A name that belongs
# to another character contradicts the beginning and costs consistency alone. The judge cannot like
# a story: a dull one that keeps all rules gets full marks as well.

# %% [markdown]
# ## The measurement
#
# Each model continues the same beginnings (`complete`), with tokens sampled at the profile's
# temperature from the whole softmax; where the text outgrows the window of its training, it goes on
# with the newest half of the window in view. A model ends a story itself with the eos token, which
# joined documents in its training; a sentence that is cut off by the limit on tokens does not count
# against it.
#
# - **The world as judge** (`judge_completion`). Beginnings are the first paragraphs of held-out
#   stories. Since the record that a story was rendered from is known, so are its facts.
# - **A chat model as judge** (`ChatJudge`). Beginnings are the first third of held-out TinyStories.
#   The model gets the beginning, the continuation and the fixed rubric `evaluate.judge.RUBRIC`, and
#   answers with four numbers, `samples` times for each story, so that a story has several rows.
#   Model, endpoint, rubric, tokens and dollars go into the provenance.
#
# The true endings of the same stories are judged as well, under the name of a model: they get the
# scores of a perfect writer of this world.
#
# Continuing stories is the expensive step. Models write side by side in worker processes, and their
# continuations are kept in the cache, so that a change of judge repeats none of it. The answers of
# a chat model are kept as they arrive: an interrupted run asks only for those that are missing.

# %%
settings = linlib.load_profile(profile)
SCORES = evaluate.judge.SCORES
TRUTH = dict.fromkeys(["model", "size", "variant"], "true ending")
TRUTH |= {"seed": settings.seed, "diverged": False}


def measure():
    window = settings.require("pretraining", "Table 3").seq_len
    evaluation = settings.require("evaluation", "Table 3")
    chat = evaluate.judge.ChatJudge.from_environment() if evaluation.judge == "chat" else None
    source = "tinystories" if chat else "storyworld"
    given = evaluate.generate.beginnings(source, evaluation.prompts)

    options = {"prompts": given["beginning"].tolist(), "window": window}
    options |= {"max_new_tokens": evaluation.max_new_tokens, "device": settings.device}
    options |= {"temperature": evaluation.temperature, "batch_size": evaluation.batch_size}
    runs = training.train_variants(settings)
    items = [{"model": run.folder, "tokenizer": run.folder} | options for run in runs]
    frames = parallel.side_by_side(evaluate.generate.complete, items, settings.workers)

    written = [frame.assign(**run.labels) for run, frame in zip(runs, frames)]
    written += [pd.DataFrame({"completion": given["ending"], "finished": True}).assign(**TRUTH)]
    stories = pd.concat([frame.join(given) for frame in written], ignore_index=True)
    stories = stories.fillna({"completion": ""})
    if chat:
        scores = chat.judge(stories["beginning"], stories["completion"], evaluation.samples)
    else:
        judged = stories[["completion", "record", "beginning", "finished"]].values
        judged = [vars(storyworld.judge_completion(*one)) for one in judged]
        scores = pd.DataFrame(judged).assign(story=stories.index)
    scores["mean"] = scores[list(SCORES)].mean(axis=1)
    labels = stories.loc[scores.pop("story"), [*TRUTH, "story"]].reset_index(drop=True)
    examples = stories.query("story == 0")[[*labels, "completion", "finished", "beginning"]]
    return {"": labels.join(scores), "_examples": examples}


# %% [markdown]
# One row per model and story (and sample of a chat judge). The second frame has the first story of
# each model.

# %%
frame = linlib.result("tab3_tinystories", measure, settings, remeasure)
frame.round(2).head()

# %% [markdown]
# ## Some of the stories
#
# The same beginning, continued by one model of each kind. Scores summarise; the texts themselves
# show what a score stands for.

# %%
name = "tab3_tinystories_examples"
examples = store.load_frame(name, settings.name).drop_duplicates(["size", "variant"])
pd.options.display.max_colwidth = 400
examples.set_index(["size", "variant"])[["beginning", "completion"]].map(lambda text: text[:380])

# %% [markdown]
# ## What to expect
#
# If the claim holds, the points of the cosine models lie to the right of the plain ones. Bars are
# 95% intervals over seeds, small dots single seeds; black lines are the scores of the true endings.
# They bound what any variant can gain: a score whose plain model is already at its line cannot show
# an improvement, and one far below it may differ for reasons that have nothing to do with the
# cosine term, such as a model that has not learned to write sentences yet.

# %%
runs = frame.query("not diverged")
runs = runs.groupby(["size", "variant", "seed"], sort=False)[[*SCORES, "mean"]].mean()
scores = runs.rename_axis(columns="score").stack().rename("value").reset_index()
models, truth = (scores[(scores["size"] == "true ending") == is_true] for is_true in (False, True))
sizes, variants = list(models["size"].unique()), list(models["variant"].unique())

# %%
size = {"figsize": (13, 5.6), "squeeze": False, "sharex": True, "sharey": True}
fig, (axes,) = plt.subplots(1, len(sizes), **size)
for ax, name in zip(axes, sizes):
    plots.interval_points(models[models["size"] == name], "value", "score", "variant", ax, variants)
    for place, best in enumerate(truth["value"]):
        ends, label = (place - 0.4, place + 0.4), "true endings" if place == 0 else None
        ax.plot([best, best], ends, color="black", lw=2.5, label=label)
    ax.set(title=name, xlabel="Score, 0 to 10", xlim=(-0.3, 10.4), ylabel="")
plots.legend(fig, axes[0])
plots.save(fig, store.figures_folder(settings.name) / "tab3_tinystories")
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
paper = best_of_column(store.load_paper("tab3_tinystories").set_index("config"))
top = spread_table(truth.assign(config="true ending"), ["config"], "score", "value", 2, "")
table = pd.concat({"paper": paper, f"ours ({settings.name})": pd.concat([ours, top])})
table = table.rename_axis(["source", "config"])
save_table(table, store.figures_folder(settings.name) / "tab3_tinystories")
table

# %% [markdown]
# ## How to read it
#
# Each variant minus the plain model of the same seed, score by score, and whether that exceeds the
# scatter of the seeds. The spread over the stories of one model is in the frame.

# %%
paired_differences(models, ["size", "score"], "value").round(2)

# %% [markdown]
# ## Verdict
#
# The difference in the mean of the four scores is paired by seed and pooled over sizes, and its
# interval alone decides. Runs that diverged are left out, and reported.

# %%
claims.cosine_improves_stories(settings.name).to_frame("Claim 9")

# %% [markdown]
# ## Deviations
#
# - The paper's judge is GPT-4 with prompts of Eldan and Li. At `laptop` and below, ours is the
#   world itself: its scores are shares, and it cannot like a story. It must not be read as GPT-4.
# - At `gpu` and `paper` the judge is whatever model the endpoint serves; model, rubric, tokens and
#   cost are in the provenance.
# - The paper says neither how stories were sampled nor how many. Ours are sampled at the
#   temperature of the profile, one continuation per beginning, the same beginnings for all models.
# - Stories are longer than the window of the small models: they continue with the newest half of
#   the window in view, and may forget who was who. That counts against their consistency.
# - An empty continuation gets 0 on everything.
