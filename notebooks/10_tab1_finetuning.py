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
# residual): every cell of its table is positive.
# ([arXiv 2405.12250](https://arxiv.org/abs/2405.12250), section 3.3 and Table 1.)
#
# **Cost.** `smoke` seconds, `tiny` about six minutes on two CPU cores once its decoders are
# trained, `gpu` and `paper` are estimated at hours: they fine-tune models of up to 2.7B parameters.

# %% [markdown]
# ## The formula
#
# With $s_l$ the score without residual of block $l$ on some fixed text, before and after:
#
# $$\Delta = \frac{1}{L} \sum_{l=1}^{L} \big(s_l^\mathrm{after} - s_l^\mathrm{before}\big).$$
#
# The text is no part of the task: held-out windows, the same before and after.

# %%
import matplotlib.pyplot as plt
import pandas as pd

from linlib import plots
from linlib.corpora.storyworld.tasks import TASKS
from linlib.experiments import obtain
from linlib.intervals import binomial_interval, over_seeds, paired_differences
from linlib.profiles import load_profile
from linlib.store import figures_folder, load_frame, load_paper
from linlib.tables import save_table, spread_table

plots.use_style()

# %% tags=["parameters"]
profile = "tiny"
remeasure = False

# %% [markdown]
# ## What is learnt
#
# At `smoke` and `tiny` the tasks come from a generated world, in the columns of SuperGLUE and of
# the helpful/harmless pairs. A question alone says nothing about its answer: it names a true value
# as often as a false one, and only the passage tells which.

# %% tags=["nbval-check-output"]
example = TASKS["boolq"]("validation", 1)[0]
f"question: {example['question']} passage: {example['passage']}", example["label"]

# %% [markdown]
# ## The measurement
#
# One row a model, task, kind of training and seed. Two controls, which the paper lacks, train for
# just as many steps: on the same rows with **shuffled labels**, and on plain **language
# modelling** of the tasks' texts. If they move the score as far, then not fine-tuning moves it,
# but any further training.

# %%
settings = load_profile(profile)
frame = obtain("tab1_finetuning", settings, remeasure)
value, cell = "delta_linearity_no_residual", ["model", "task"]
frame[[*cell, "training", "seed", "accuracy", value]].round(3).head()

# %% [markdown]
# ## What to expect
#
# If the claim holds, all points of "task" lie right of zero, with their intervals; and if it is
# fine-tuning that does it, right of the two controls as well. Small dots are single seeds.

# %%
trainings = ["task", "shuffled labels", "language modelling"]
models = list(frame["model"].unique())
fig, (axes,) = plt.subplots(
    1, len(models), figsize=(4 * len(models) + 2, 4), sharex=True, sharey=True, squeeze=False
)
for ax, model in zip(axes, models):
    rows = frame[frame["model"] == model]
    plots.interval_points(rows, value, "task", "training", ax, trainings)
    ax.set(title=model, xlabel="Change of the score")
plots.legend(fig, axes[0])
plots.save(fig, figures_folder(profile) / "tab1_finetuning")
plots.show(fig)

# %% [markdown]
# ## Was anything learnt at all?
#
# A change of linearity says little about a model that learned nothing. Here is the mean validation
# accuracy over seeds with the binomial interval of one validation set, chance being 50%: a cell
# is *learnt* where the interval lies above it. Labels that were shuffled can teach nothing.

# %%
answered = frame.dropna(subset="accuracy").groupby([*cell, "training"], sort=False)
accuracy = answered.agg(correct=("correct", "mean"), n=("n_validation", "first"))
bounds = [binomial_interval(round(c), n) for c, n in zip(accuracy["correct"], accuracy["n"])]
accuracy["accuracy"] = accuracy["correct"] / accuracy["n"]
accuracy[["low", "high"]] = bounds
accuracy["learnt"] = accuracy["low"] > 0.5
accuracy.drop(columns=["correct", "n"]).round(2)

# %% [markdown]
# ## Table 1, paper beside ours
#
# Change of the score without residual, mean over layers: mean ± standard deviation over seeds. The
# language-modelling control is one training for all four tasks.

# %%
names = {"task": f"ours ({profile})"} | {name: f"control: {name}" for name in trainings[1:]}
ours = pd.concat(frame[frame["training"] == name].assign(source=names[name]) for name in trainings)
ours = spread_table(ours, ["source", "model"], "task", value)
paper = load_paper("tab1_finetuning").assign(source="paper")
means, spreads = paper["delta_linearity_no_residual"], paper["std"]
paper["cell"] = means.map("{:+.3f} ± ".format) + spreads.map("{:.3f}".format)
paper = paper.set_index(["source", "model", "task"])["cell"].unstack("task", sort=False)
table = pd.concat([ours, paper])
save_table(table, figures_folder(profile) / "tab1_finetuning")
table

# %% [markdown]
# ## Where in depth does the change sit?
#
# The paper has no such figure. Change of every layer's score, mean over models and seeds with a 95%
# interval; thin lines are the models' single seeds.

# %%
layers = load_frame("tab1_finetuning_layers", profile).query("tokens == 'all'")
layers = layers.assign(run=layers["model"] + layers["seed"].astype(str))
layers = layers.drop(columns="seed").rename(columns={"run": "seed"})
tasks = list(layers["task"].unique())
fig, (axes,) = plt.subplots(1, len(tasks), figsize=(15, 3.8), sharey=True, squeeze=False)
for ax, task in zip(axes, tasks):
    ax.axhline(0, ls=":", color=plots.NULL_COLOUR)
    plots.interval_lines(layers[layers["task"] == task], value, "training", ax, groups=trainings)
    ax.set(title=task, xlabel="Normalized depth (layer / L)", xlim=(0, 1.03))
axes[0].set_ylabel("Change of the score w/o residual")
plots.legend(fig, axes[0])
plots.save(fig, figures_folder(profile) / "tab1_finetuning_layers")
plots.show(fig)

# %% [markdown]
# ## How to read it
#
# Each cell against zero: does the interval over seeds exclude it?

# %%
changes = over_seeds(frame.query("training == 'task'"), cell, value)
changes.assign(rises=changes["low"] > 0, falls=changes["high"] < 0).round(3)

# %% [markdown]
# ## Verdict
#
# And each cell against the two controls, seed by seed. There is a difference only where the
# interval of the difference excludes zero *and* the two trainings' own intervals do not overlap.

# %%
compared = frame.rename(columns={"training": "variant"})
against = {
    control: paired_differences(compared, cell, value, control).query("variant == 'task'")
    for control in trainings[1:]
}
columns = ["mean", "low", "high", "verdict"]
beside = [rows.set_index(cell)[columns].add_prefix(f"vs {c}: ") for c, rows in against.items()]
beside[0].join(beside[1]).round(3)

# %% [markdown]
# ## Deviations
#
# - The paper names no learning rate, no number of steps and no seeds; ours are in the profile. They
#   were chosen by validation accuracy alone, and are the same for every model, task and control.
# - CB has three labels and the paper speaks of binary classification: we keep entailment against
#   contradiction.
# - The paper does not say on which text it measures. We take the profile's held-out text, which no
#   task contains.
# - At `tiny` a fine-tuning is 48 steps of 8 short texts. Most questions ask how things stand in a
#   paragraph; the others ask for one fact, which models of this size rarely find.
# - A preference pair counts as two texts, so that every training reads about as much.
# - The paper's Llama-2-7B is not in the `paper` profile: all its weights in float32, with Adam's
#   moments, need about 110 GB.
# - Intervals over three seeds are wide by nature, and are not corrected for the number of cells.
