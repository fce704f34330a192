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
# # Table 1 · Does fine-tuning make a decoder more linear?
#
# **The paper's claim.** Fine-tuning, on whatever task, raises the linearity score (without
# residual): all cells of its table are positive.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 3.2 and Table 1.)
#
# **Cost.** `smoke` seconds, `tiny` about six minutes on two CPU cores once its decoders are
# trained, `laptop` under two hours; `gpu` and `paper` are estimated at hours: they fine-tune models
# of up to 2.7B parameters.

# %% [markdown]
# ## The formula
#
# With $s_l$ the score without residual of block $l$ on some fixed text, before and after:
#
# $$\Delta = \frac{1}{L} \sum_{l=1}^{L} \big(s_l^\mathrm{after} - s_l^\mathrm{before}\big).$$
#
# It is measured on two texts, the same windows before and after: on held-out *general* text, and on
# the *task*'s own, whose texts are joined by the eos token.

# %%
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd

import linlib
from linlib import claims, parallel, plots, store, training
from linlib.stats import binomial_interval, over_seeds, paired_differences
from linlib.tables import save_table, spread_table
from storyworld import TASKS

plots.use_style()

# %% tags=["parameters"]
profile = "laptop"
remeasure = False

# %% [markdown]
# ## The tasks
#
# At `laptop` and below, the tasks come from a generated world, in the columns of SuperGLUE and of
# the helpful/harmless pairs, so that the same code reads both. A question alone says nothing about
# its answer: it names a true value as often as a false one, and only the passage decides which it
# is.

# %% tags=["nbval-check-output"]
example = TASKS["boolq"]("validation", 1)[0]
f"question: {example['question']} passage: {example['passage']}", example["label"]

# %% [markdown]
# ## The measurement
#
# All models are fine-tuned in float32. Before that, each reads held-out windows of general text, on
# which the linearity of its blocks is measured; after each training run, it is measured on the same
# windows again. Three kinds of training have the same number of steps:
#
# - the **task** itself: classification by the state of the last token, or, for preference pairs, a
#   reward model with the pairwise loss;
# - the same rows with **shuffled labels**;
# - **language modelling** of the texts of all tasks, without labels: one run for all tasks, whose
#   row is repeated for each of them.
#
# The last two are controls, which the paper lacks. If they move the score as far, the change is an
# effect of any further training, and not of learning a task.
#
# A row of a task becomes one text. BoolQ reads "question: ... passage: ...", as in the paper;
# MultiRC reads "paragraph: ... question: ... answer: ...", and CB "premise: ... hypothesis: ...".
# If a text is too long, the end of its passage is cut off, and never its question. A preference
# pair is two dialogues; what is cut off is the beginning that they share. Rows that were cut or
# left out are counted in the provenance.

# %%
settings = linlib.load_profile(profile)
section, sizes = settings.require("finetuning", "Table 1"), settings.measure

# %% [markdown]
# The schedule is the same for all models, tasks and kinds of training: the number of steps, the
# batch, the peak of the learning rate and the warm-up come from the profile. All runs of a model
# and a seed start from the same weights: those of the twin that was trained from this seed, or of
# the one pretrained model. The seed also decides the new head, the order of the rows, dropout and,
# for that control, the shuffling of labels.

# %%
schedule = training.options_for(training.fine_tune, section)
schedule |= {"bf16": training.has_fast_bf16(settings.device)}
size = {"seq_len": sizes.seq_len, "n_windows": sizes.checkpoint_windows}
heldout = size | {"split": "heldout", "return_documents": True}
measuring = {"n_folds": sizes.n_folds, "batch_size": sizes.batch_size}
kinds = ["task", "shuffled labels", "language modelling"]

# %% [markdown]
# `task_rows` yields the tokenised rows of each task, and at last those of the language-modelling
# control. `measure_fine_tuning` trains, counts the validation rows that are answered correctly, and
# measures the linearity of the decoder without its head, with folds of whole documents. Runs go
# side by side, and each is kept in the cache: a changed seed or a new task adds runs and repeats
# none. `change_of_scores` puts the scores of each layer after and before side by side and subtracts
# them; a row of the table holds their means over layers, over all tokens.


# %%
def measure():
    named = (section.models, section.extra_models)
    sources = {s: training.models_of(settings, *named, seed=s) for s in section.seeds}
    labels, items, runs, layers = [], [], [], []
    for name, source in sources[section.seeds[0]].items():
        _, tokenizer = linlib.load(**source)
        separator = training.separator_of(settings, name)
        general = linlib.token_windows(settings.corpus, tokenizer, separator=separator, **heldout)
        texts = {"general": general}
        for task, train, validation in training.task_rows(section, tokenizer):
            rows, chosen = {"train": train, "validation": validation}, kinds[2:]
            if task != "all tasks":
                texts[task] = training.task_windows([validation, train], tokenizer, **size)
                rows["texts"], chosen = {one: texts[one] for one in ("general", task)}, kinds[:2]
            for kind, seed in product(chosen, section.seeds):
                labels.append({"model": name, "task": task, "training": kind, "seed": seed})
                options = schedule | {"training": kind, "seed": seed}
                items.append({"texts": texts, "base": sources[seed][name]} | rows)
                items[-1] |= {"options": options, "measuring": measuring}
    tune = training.measure_fine_tuning
    folders = parallel.side_by_side(tune, items, settings.workers, "fine-tuning runs")
    for label, folder in zip(labels, folders):
        change, answers = training.outcome(folder)
        tasks = section.tasks if label["task"] == "all tasks" else [label["task"]]
        for task, text in product(tasks, ["general", "task"]):
            own = label | {"task": task, "text": text}
            read = task if text == "task" else text
            rows = change[change["text"] == read].drop(columns="text")
            means = rows[rows["tokens"] == "all"][training.CHANGES].mean().to_dict()
            runs.append(own | {"steps": section.steps} | answers | means)
            layers.append(pd.DataFrame([own]).merge(rows, how="cross"))
    return {"": pd.DataFrame(runs), "_layers": pd.concat(layers)}


# %% [markdown]
# Two frames: one row per model, task, kind of training and seed, with scores averaged over layers
# and the validation accuracy; and the scores of each layer.

# %%
frame = linlib.result("tab1_finetuning", measure, settings, remeasure)
value, cell = "delta_linearity_no_residual", ["model", "task"]
general = frame.query("text == 'general'")
frame[[*cell, "training", "seed", "text", "accuracy", value]].round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, all points of "task" lie to the right of zero, with their intervals; and if
# fine-tuning on a task is the cause, to the right of the two controls as well. Small dots are
# seeds; black ticks are the paper's means over its models. In the upper row linearity is measured
# on general text, by which the verdict goes, and in the lower one on the task's own.
#
# The two rows answer different questions. On general text, a change is one of the model: what it
# does with sentences that have nothing to do with its new task. On the task's own text, a change
# may also be one of familiarity, since training made this text more familiar than it was; the
# control of language modelling, which reads the same texts without labels, shows how much of it is
# that. Bars are wide where the pretrained models of different seeds differ.

# %%
models, tasks = list(frame["model"].unique()), list(frame["task"].unique())
paper = store.load_paper("tab1_finetuning").groupby("task")[value].mean()
texts = {"general": "measured on general text", "task": "measured on the task's text"}

# %%
size = {"figsize": (4 * len(models) + 2, 7.6), "squeeze": False, "sharex": True, "sharey": True}
fig, axes = plt.subplots(len(texts), len(models), **size)
for (text, model), ax in zip(product(texts, models), axes.flat):
    rows = frame[(frame["model"] == model) & (frame["text"] == text)]
    plots.interval_points(rows, value, "task", "training", ax, kinds)
    for place, task in enumerate(tasks):
        label = "the paper's mean" if place == 0 else None
        ax.plot([paper[task]] * 2, [place - 0.4, place + 0.4], "k", lw=2.2, label=label)
    ax.set(title=f"{model}\n{texts[text]}", xlabel="Change of the score w/o residual", ylabel="")
    ax.title.set_fontsize(11)
plots.label_outer(axes)
plots.legend(fig, axes[0, 0])
plots.save(fig, store.figures_folder(settings.name) / "tab1_finetuning")
plots.show(fig)

# %% [markdown]
# ## Was anything learned at all?
#
# A change of linearity says little about a model that learned nothing. This table shows the mean
# validation accuracy over seeds, with the binomial interval of one validation set, beside the
# accuracy of always giving the more frequent label. A cell is *learned* where the interval lies
# above that. Nothing can be learned from shuffled labels.

# %%
answered = general.dropna(subset="accuracy").groupby([*cell, "training"], sort=False)
accuracy = answered.agg(
    chance=("chance", "first"), accuracy=("accuracy", "mean"), n=("n_validation", "first")
)
right = (accuracy["accuracy"] * accuracy["n"]).round().astype(int)
bounds = [binomial_interval(*answers) for answers in zip(right, accuracy["n"].astype(int))]
accuracy[["low", "high"]] = bounds
accuracy["learned"] = accuracy["low"] > accuracy["chance"]
accuracy.round(2)

# %% [markdown]
# ## Table 1, paper beside ours
#
# Change of the score without residual, mean over layers: mean ± standard deviation over seeds, and
# in brackets the mean validation accuracy, which the paper does not give. The language-modelling
# control is one training run for all four tasks.

# %%
names = {"task": f"ours ({settings.name})"} | {name: f"control: {name}" for name in kinds[1:]}
ours = pd.concat(general[general["training"] == name].assign(source=names[name]) for name in kinds)
shares = ours.groupby(["source", "model", "task"])["accuracy"].mean().unstack("task")
ours = spread_table(ours, ["source", "model"], "task", value)
shares = shares.reindex_like(ours).map(lambda share: f" ({share:.0%})" if share > 0 else "")
ours = ours + shares
paper = store.load_paper("tab1_finetuning").assign(source="paper")
means, spreads = paper["delta_linearity_no_residual"], paper["std"]
paper["cell"] = means.map("{:+.3f} ± ".format) + spreads.map("{:.3f}".format)
paper = paper.set_index(["source", "model", "task"])["cell"].unstack("task", sort=False)
table = pd.concat([ours, paper])
save_table(table, store.figures_folder(settings.name) / "tab1_finetuning")
table

# %% [markdown]
# ## At which depth does the score change?
#
# The paper has no such figure. Lines are the change of each layer's score, as a mean over seeds
# with a 95% interval; thin lines are single seeds. The language-modelling line is the same in all
# panels of a model.

# %%
layers = store.load_frame("tab1_finetuning_layers", settings.name)
layers = layers.query("tokens == 'all' and text == 'general'")
size = {"figsize": (3.4 * len(tasks) + 2, 2.5 * len(models) + 0.4), "squeeze": False}
fig, axes = plt.subplots(len(models), len(tasks), sharex=True, sharey=True, **size)
for (model, task), ax in zip(product(models, tasks), axes.flat):
    rows = layers[(layers["model"] == model) & (layers["task"] == task)]
    ax.axhline(0, ls=":", color=plots.NULL_COLOUR)
    plots.interval_lines(rows, value, "training", ax, groups=kinds)
    ax.set(title=f"{model}, {task}", xlabel="Depth (layer / L)", ylabel="Change of score")
plots.label_outer(axes)
plots.legend(fig, axes.flat[0])
plots.save(fig, store.figures_folder(settings.name) / "tab1_finetuning_layers")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# Each cell is compared with zero, and with its two controls seed by seed. Of a dozen 95% intervals,
# one may well miss by chance: single cells are descriptive, and the verdict is below.

# %%
changes = over_seeds(general.query("training == 'task'"), cell, value).set_index(cell)
compared = general.rename(columns={"training": "variant"})
for control in kinds[1:]:
    against = paired_differences(compared, cell, value, control).query("variant == 'task'")
    changes[f"minus {control}"] = against.set_index(cell)["mean"]
changes.round(3)

# %% [markdown]
# ## Verdict
#
# The change is pooled over models, and its interval over seeds decides.

# %%
claims.fine_tuning_raises_linearity(settings.name).to_frame("Claim 6")

# %% [markdown]
# ## Deviations
#
# - The paper names no learning rate, no number of steps and no seeds; ours are in the profile, the
#   same for every model, task and control. At `laptop` and below, they were chosen by hand for the
#   accuracy of validation rows, and linearity played no part. Those of `gpu` and `paper` have not
#   been tried.
# - CB has three labels and the paper speaks of binary classification: we keep entailment against
#   contradiction. Equal steps mean about one pass over BoolQ, and many over the small CB.
# - The paper does not say on which text it measures. We take the profile's held-out text, which no
#   task contains, and the task's own text beside it.
# - At `laptop` and below, a fine-tuning run is a few dozen steps of 8 short texts, and most
#   questions ask about the state of things in a paragraph: models of this size, in so few steps, do
#   not learn to look up single facts. Their pretraining text contains such questions with their
#   answers, in exercises on other stories than those of validation.
# - A seed stands for the pretraining of a small decoder and for its fine-tuning, so that intervals
#   hold the scatter of both. Pretrained models of the hub are the same for all seeds.
# - Answers to one question of MultiRC are not independent: its binomial interval is too narrow.
# - A preference pair counts as two texts, so that all runs read about as much.
# - The paper's Llama-2-7B is not in the `paper` profile: all its weights in float32, with Adam's
#   moments, need about 110 GB.
# - Intervals of single cells are not corrected for their number.
