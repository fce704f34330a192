"""Fine-tuning: texts, truncation, both losses, controls, resuming; and bad data named."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from test_models import CONFIGS, tiny_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
)

from linlib.corpora.benchmarks import HUB_TASKS, load_task
from linlib.experiments import finetuning
from linlib.experiments.subjects import hub_subjects
from linlib.finetune import (
    ALL_TASKS,
    LANGUAGE_MODEL,
    SHUFFLED,
    TASK,
    TASK_NAMES,
    Base,
    Encoded,
    FineTuning,
    FineTuningJob,
    control_rows,
    count_correct,
    encode,
    fine_tune,
    rows_of_tasks,
    run_jobs,
    texts_of,
)
from linlib.measure import linearity_profile
from linlib.models import load_classifier, load_model, load_tokenizer
from linlib.profiles import HubModel, load_profile

BOOLQ = {"question": "Is the fox quick?", "passage": "The quick brown fox jumps. " * 4, "label": 1}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def opt_folder(tmp_path_factory, tokenizer):
    return saved_model(tmp_path_factory.mktemp("opt"), tokenizer, "opt")


def saved_model(folder, tokenizer, name):
    torch.manual_seed(0)
    config = tiny_config(name)
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 64
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def boolq(**changes):
    return Dataset.from_list([BOOLQ, BOOLQ | changes])


# Texts


def test_boolq_reads_as_in_the_paper_and_cb_keeps_two_labels(tokenizer):
    (ids, _) = encode("boolq", boolq(), tokenizer, 200).rows["input_ids"]
    assert tokenizer.decode(ids) == f"question: {BOOLQ['question']} passage: " + (
        BOOLQ["passage"].strip()
    )
    rows = [{"premise": "A fox.", "hypothesis": "An animal.", "label": label} for label in range(3)]
    encoded = encode("cb", Dataset.from_list(rows), tokenizer, 100)
    assert list(encoded.rows["labels"]) == [1, 0]  # entailment, contradiction
    assert encoded.left_out == 1 and encoded.truncated == 0


WORDS = [
    "paragraph: question: answer: premise: hypothesis: passage:",
    "What adds? Does every block",
]


def other_tokenizer(kind, sentences):
    """As Llama-3 and Pythia have them (byte-level, offsets trimmed, bos added), or as Llama-2."""
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        alphabet = []
    special = ["<unk>", "<s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trimmed = processors.ByteLevel(trim_offsets=True)
    tokenizer.post_processor = processors.Sequence([trimmed, bos]) if kind == "byte-level" else bos
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", pad_token="<pad>"
    )


@pytest.mark.parametrize("kind", ["plain", "byte-level", "metaspace"])
@pytest.mark.parametrize("task", ["boolq", "multirc", "cb"])
def test_only_the_end_of_the_passage_is_cut_and_cuts_are_counted(tokenizer, corpus, task, kind):
    if kind != "plain":
        tokenizer = other_tokenizer(kind, [*corpus["text"], *WORDS])
    long = ("Every block adds  its contribution to the residual stream. " * 30).strip()
    row = {
        "boolq": {"question": "Does every block add?", "passage": long},
        "multirc": {"paragraph": long, "question": "What adds?", "answer": "Every block."},
        "cb": {"premise": long, "hypothesis": "Every block adds."},
    }[task]
    before, after = {
        "boolq": (f"question: {row.get('question')} passage: ", ""),
        "multirc": ("paragraph: ", " question: What adds? answer: Every block."),
        "cb": ("premise: ", " hypothesis: Every block adds."),
    }[task]
    short = {key: "Every block." if value == long else value for key, value in row.items()}
    rows = Dataset.from_list([row | {"label": 1}, short | {"label": 0}])
    encoded = encode(task, rows, tokenizer, 100)
    assert encoded.truncated == 1
    cut, whole = encoded.rows["input_ids"]
    assert len(cut) == 100
    text, intact = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (cut, whole))
    assert intact == f"{before}Every block.{after}"
    kept = text.removeprefix(before.rstrip()).removesuffix(after)
    assert text == f"{before.rstrip()}{kept}{after}" and len(kept) > 20
    assert long.startswith(kept.strip())
    if kind != "plain":
        assert cut[0] == whole[0] == tokenizer.bos_token_id


def test_a_question_that_leaves_no_room_is_refused(tokenizer):
    rows = boolq(question="Is it so? " * 40)
    with pytest.raises(ValueError, match=r"row 1 of task 'boolq': its question takes \d+ tokens"):
        encode("boolq", rows, tokenizer, 60)


def test_a_missing_column_is_named_with_what_was_found(tokenizer):
    rows = boolq().rename_column("passage", "text")
    with pytest.raises(ValueError, match=r"'boolq' lacks column 'passage'; it has \['question', "):
        encode("boolq", rows, tokenizer, 60)
    with pytest.raises(ValueError, match="lacks column 'chosen', 'rejected'"):
        encode("reward_modeling", rows, tokenizer, 60)


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_is_refused(tokenizer, label):
    with pytest.raises(ValueError, match=rf"row 1 of task 'boolq' has label {label}; labels are"):
        encode("boolq", boolq(label=label), tokenizer, 200)


def test_an_unknown_task_is_refused(tokenizer):
    with pytest.raises(ValueError, match="unknown task 'rte'; choose from"):
        encode("rte", boolq(), tokenizer, 60)


PAIR = {"chosen": "Human: who? Assistant: the fox.", "rejected": "Human: who? Assistant: a dog."}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"chosen": " "}, "has an empty 'chosen' text"),
        ({"rejected": ""}, "has an empty 'rejected' text"),
        ({"rejected": PAIR["chosen"]}, "has the same text as chosen and rejected"),
    ],
)
def test_a_pair_without_a_preference_is_refused_or_counted(tokenizer, bad, problem):
    rows = Dataset.from_list([PAIR, PAIR | bad])
    with pytest.raises(ValueError, match=f"row 1 of task 'reward_modeling' {problem}, and 1 of 2"):
        encode("reward_modeling", rows, tokenizer, 60)
    encoded = encode("reward_modeling", rows, tokenizer, 60, drop_unusable=True)
    assert len(encoded.rows) == 1 and encoded.left_out == 1


def test_a_long_dialogue_loses_what_its_answers_share(tokenizer):
    long = "Human: " + "who is it? " * 40
    pair = {"chosen": f"{long} It is a fox and no dog.", "rejected": f"{long} A dog."}
    encoded = encode("reward_modeling", Dataset.from_list([PAIR, pair]), tokenizer, 60)
    assert encoded.truncated == 1
    whole = {key: tokenizer(text)["input_ids"] for key, text in pair.items()}
    cut = {key: encoded.rows[f"{key}_ids"][1] for key in pair}
    assert max(map(len, cut.values())) == 60
    assert {len(whole[key]) + 1 - len(ids) for key, ids in cut.items()} == {
        len(whole["chosen"]) + 1 - 60
    }
    for key, ids in cut.items():
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[:-1]).endswith(pair[key][len(long) :])


def test_a_bos_token_stays_and_eos_does_not_close_where_it_pads(tokenizer, corpus):
    other = other_tokenizer("byte-level", corpus["text"])
    other.eos_token = other.pad_token
    long = "Human: " + "who is it? " * 40
    rows = Dataset.from_list([{"chosen": f"{long} The fox.", "rejected": f"{long} A dog."}])
    (chosen,) = encode("reward_modeling", rows, other, 50).rows["chosen_ids"]
    assert chosen[0] == other.bos_token_id and chosen[-1] != other.eos_token_id


def test_answers_that_do_not_fit_are_refused_or_counted(tokenizer):
    pair = {"chosen": "Who? " + "The fox. " * 40, "rejected": "Who? " + "A dog. " * 40}
    rows = Dataset.from_list([PAIR, pair])
    with pytest.raises(ValueError, match="row 1 of .* has answers that do not fit: 60 tokens"):
        encode("reward_modeling", rows, tokenizer, 60)
    assert encode("reward_modeling", rows, tokenizer, 60, drop_unusable=True).left_out == 1


# Sources


def test_tasks_come_from_storyworld_or_from_a_folder(tmp_path):
    assert set(TASK_NAMES) < set(HUB_TASKS)
    rows = load_task("storyworld", "boolq", "train", 12)
    (tmp_path / "boolq").mkdir()
    rows.to_parquet(tmp_path / "boolq" / "train.parquet")
    rows.select(range(4)).to_parquet(tmp_path / "boolq" / "validation.parquet")
    assert load_task(str(tmp_path), "boolq", "train")[:] == rows[:]
    some = load_task(str(tmp_path), "boolq", "train", 5)
    assert len(some) == 5 and set(some["idx"]) < set(rows["idx"])
    assert len(load_task(str(tmp_path), "boolq", "validation", 9)) == 4


def test_bad_sources_are_told():
    with pytest.raises(ValueError, match="unknown task 'squad' of storyworld; choose from"):
        load_task("storyworld", "squad", "train", 4)
    with pytest.raises(ValueError, match="unknown task 'rte' of hub; choose from"):
        load_task("hub", "rte", "train", 4)
    with pytest.raises(ValueError, match="unknown split 'test' of task 'cb'"):
        load_task("storyworld", "cb", "test", 4)
    with pytest.raises(ValueError, match="storyworld has no end: say how many rows of 'cb'"):
        load_task("storyworld", "cb", "train")
    with pytest.raises(FileNotFoundError, match="no folder .*boolq for task 'boolq'; found"):
        load_task("/nowhere", "boolq", "train")
    with pytest.raises(FileNotFoundError, match="'boolq' .aps/super_glue. could not be had"):
        load_task("hub", "boolq", "train")


# Models


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_does_not_move_a_classifier_of_any_architecture(name, tmp_path):
    torch.manual_seed(0)
    config = tiny_config(name)
    config.pad_token_id = None
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    pad, short = 0, torch.tensor([[5, 9, 7]])
    model = load_classifier(tmp_path, 2, pad)
    padded = torch.tensor([[5, 9, 7, pad, pad], [8, 4, 6, 11, 3]])
    with torch.no_grad():
        alone = model(input_ids=short, attention_mask=torch.ones_like(short)).logits[0]
        batched = model(input_ids=padded, attention_mask=(padded != pad).long()).logits[0]
    torch.testing.assert_close(alone, batched, atol=1e-5, rtol=1e-4)


def how(training=TASK, **changes):
    fixed = dict(steps=80, batch_size=8, learning_rate=3e-3, warmup_share=0.1, seed=0)
    return FineTuning(training, **(fixed | changes))


def told_by_a_word(n, seed, vocabulary):
    """Texts whose class is whether token 7 or token 8 is among them."""
    rng = np.random.default_rng(seed)
    texts = rng.integers(20, vocabulary, (n, 10))
    labels = rng.permutation(np.arange(n) % 2)
    texts[np.arange(n), rng.integers(0, 9, n)] = 7 + labels
    return Encoded(Dataset.from_dict({"input_ids": texts, "labels": labels}), 0, 0)


def preferring_a_word(n, seed, vocabulary):
    rows = told_by_a_word(2 * n, seed, vocabulary).rows
    texts, labels = np.array(rows["input_ids"]), np.array(rows["labels"])
    pairs = {"chosen_ids": texts[labels == 1], "rejected_ids": texts[labels == 0]}
    return Encoded(Dataset.from_dict(pairs), 0, 0)


@pytest.mark.parametrize("make", [told_by_a_word, preferring_a_word])
def test_a_task_is_learnt_and_its_controls_teach_nothing(make, opt_folder, tokenizer, tmp_path):
    base = Base(opt_folder, tokenizer)
    train, validation = (make(n, seed, len(tokenizer)) for n, seed in ((160, 0), (100, 1)))
    learnt = fine_tune(base, train, validation, how(), tmp_path / "a")
    shuffled = fine_tune(base, train, validation, how(SHUFFLED), tmp_path / "b")
    modelled = fine_tune(base, train, validation, how(LANGUAGE_MODEL), tmp_path / "c")
    assert learnt.n_validation == 100 and learnt.correct >= 95
    assert 25 <= shuffled.correct <= 75
    assert modelled.correct is None
    texts = torch.tensor(texts_of(validation.rows))
    before, after = (
        m(input_ids=texts, labels=texts).loss.item()
        for m in (load_model(opt_folder), modelled.model)
    )
    assert after < before - 0.05


def test_correct_answers_are_those_that_plain_calls_give(
    opt_folder, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    classified, pairs = (
        make(30, 2, len(tokenizer)).rows for make in (told_by_a_word, preferring_a_word)
    )
    for rows, n_labels in ((classified, 2), (pairs, 1)):
        torch.manual_seed(0)
        model = load_classifier(opt_folder, n_labels, tokenizer.pad_token_id)
        count = count_correct(model, tokenizer, rows, how(), tmp_path)
        with torch.no_grad():
            if n_labels == 2:
                logits = model(input_ids=torch.tensor(rows["input_ids"])).logits
                right = logits.argmax(-1) == torch.tensor(rows["labels"])
            else:
                chosen, rejected = (
                    model(input_ids=torch.tensor(rows[column])).logits[:, 0]
                    for column in ("chosen_ids", "rejected_ids")
                )
                right = chosen > rejected
        assert count == int(right.sum()) and 0 < count < 30
    assert not list(tmp_path.iterdir())


def test_controls_keep_the_rows_and_spoil_the_labels():
    rows = told_by_a_word(60, 0, 320).rows
    spoilt = control_rows(rows, how(SHUFFLED))
    assert spoilt["input_ids"][:] == rows["input_ids"][:]
    assert sorted(spoilt["labels"]) == sorted(rows["labels"])
    agree = np.mean(np.array(spoilt["labels"]) == np.array(rows["labels"]))
    assert 0.25 < agree < 0.75
    assert control_rows(rows, how(SHUFFLED, seed=1))["labels"][:] != spoilt["labels"][:]
    pairs = preferring_a_word(60, 0, 320).rows
    swapped = control_rows(pairs, how(SHUFFLED))
    kept = [a == b for a, b in zip(pairs["chosen_ids"], swapped["chosen_ids"], strict=True)]
    assert sum(kept) == 30
    for before, after in zip(pairs, swapped, strict=True):
        assert sorted(before.values()) == sorted(after.values())
    assert len(control_rows(pairs, how(LANGUAGE_MODEL))) == 120


@pytest.mark.parametrize("make", [told_by_a_word, preferring_a_word])
def test_the_same_seed_gives_the_same_weights(make, opt_folder, tokenizer, tmp_path):
    base, rows = Base(opt_folder, tokenizer), make(40, 0, len(tokenizer))
    weights = [
        fine_tune(base, rows, rows, how(steps=3, seed=seed), tmp_path / name).model.state_dict()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["score.weight"], weights[2]["score.weight"])


@pytest.mark.parametrize("make", [told_by_a_word, preferring_a_word])
def test_a_killed_run_goes_on_from_its_checkpoint(
    make, opt_folder, tokenizer, tmp_path, monkeypatch
):
    base, rows = Base(opt_folder, tokenizer), make(80, 0, len(tokenizer))
    recipe = how(steps=6, checkpoint_every=2)
    whole = fine_tune(base, rows, rows, recipe, tmp_path / "whole").model.state_dict()
    step = Trainer.training_step

    def die(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", die)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(base, rows, rows, recipe, tmp_path / "cut")
    steps = []
    monkeypatch.setattr(
        Trainer,
        "training_step",
        lambda self, *a, **k: steps.append(self.state.global_step) or step(self, *a, **k),
    )
    resumed = fine_tune(base, rows, rows, recipe, tmp_path / "cut").model.state_dict()
    assert steps == [4, 5]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_accumulated_batch_is_the_batch(tokenizer, tmp_path):
    folder = saved_model(tmp_path / "llama", tokenizer, "llama")  # without dropout
    base, rows = Base(folder, tokenizer), told_by_a_word(40, 0, len(tokenizer))
    at_once, accumulated = (
        fine_tune(
            base, rows, rows, how(steps=2, texts_at_once=number), tmp_path / str(number)
        ).model.state_dict()
        for number in (None, 2)
    )
    for name, weight in at_once.items():
        torch.testing.assert_close(weight, accumulated[name], atol=1e-4, rtol=0)


def test_bad_settings_are_told(opt_folder, tokenizer, tmp_path, tokenizer_folder):
    rows = told_by_a_word(20, 0, len(tokenizer))
    base = Base(opt_folder, tokenizer)
    with pytest.raises(ValueError, match="unknown training 'lora'; choose from"):
        fine_tune(base, rows, rows, how("lora"), tmp_path)
    with pytest.raises(ValueError, match="a batch of 8 cannot be made of 3 at once"):
        fine_tune(base, rows, rows, how(texts_at_once=3), tmp_path)
    pairs = preferring_a_word(20, 0, len(tokenizer))
    for odd in ({"batch_size": 3}, {"texts_at_once": 1}):
        with pytest.raises(ValueError, match=r" = \d texts cannot be made of preference pairs"):
            fine_tune(base, pairs, pairs, how(**odd), tmp_path)
    long = Encoded(Dataset.from_dict({"input_ids": [[5] * 65], "labels": [0]}), 0, 0)
    with pytest.raises(ValueError, match="a text of 65 tokens does not fit the model, .* most 64"):
        fine_tune(base, rows, long, how(), tmp_path)
    with pytest.raises(ValueError, match="no row to train on"):
        fine_tune(base, Encoded(rows.rows.select([]), 0, 0), rows, how(), tmp_path)
    unpadded = load_tokenizer(tokenizer_folder)
    unpadded.pad_token = None
    with pytest.raises(ValueError, match="has no pad token"):
        fine_tune(Base(opt_folder, unpadded), rows, rows, how(), tmp_path)
    with pytest.raises(FloatingPointError, match="the loss of fine-tuning became nan"):
        fine_tune(base, rows, rows, how(learning_rate=1e30, warmup_share=0.0), tmp_path)


# Jobs, and the table


def test_a_job_is_done_once_and_found_again(opt_folder, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    rows = told_by_a_word(16, 0, len(tokenizer))
    windows = torch.randint(3, len(tokenizer), (8, 32))
    fixed = dict(
        model="OPT", identity="opt", base=Base(opt_folder, tokenizer), task="boolq", train=rows,
        validation=rows, windows=windows, measuring=(("n_folds", 2), ("batch_size", 4)),
    )  # fmt: skip
    job = FineTuningJob(how=how(steps=2), **fixed)
    (first,) = run_jobs([job], workers=1)
    written = json.loads((job.folder / "recipe.json").read_text())
    assert written["how"]["steps"] == 2 and not (job.folder / "trainer").exists()
    stamp = (job.folder / "layers.csv").stat().st_mtime_ns
    (again,) = run_jobs([job], workers=1)
    assert (job.folder / "layers.csv").stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(first.layers, again.layers)
    assert FineTuningJob(how=how(steps=3), **fixed).folder != job.folder
    other = told_by_a_word(16, 1, len(tokenizer))
    assert FineTuningJob(how=how(steps=2), **(fixed | {"train": other})).folder != job.folder


def test_one_epoch_of_hub_columns_runs_through_the_same_code(
    opt_folder, tokenizer, tmp_path, monkeypatch
):
    """The `gpu` profile's path, on a folder with SuperGLUE's columns and a small random OPT."""
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path / "root"))
    for split, n in (("train", 24), ("validation", 8)):
        rows = load_task("storyworld", "boolq", split, n)
        (tmp_path / "tasks" / "boolq").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(tmp_path / "tasks" / "boolq" / f"{split}.parquet")
    gpu, smoke = load_profile("gpu"), load_profile("smoke")
    model = HubModel(id=str(opt_folder), label="OPT-125M")
    settings = gpu.finetuning.model_copy(
        update={
            "models": ("OPT-125M",),
            "source": str(tmp_path / "tasks"),
            "tasks": ("boolq",),
            "seeds": (0, 1),
            "steps": 3,
            "batch_size": 8,
            "texts_at_once": None,
            "length": 64,
        }  # fmt: skip
    )
    profile = smoke.model_copy(update={"zoo": None, "hub_models": (model,), "finetuning": settings})
    measured = finetuning.measure(profile)
    frame, layers = measured.frames[""], measured.frames["_layers"]
    assert set(frame["training"]) == {TASK, SHUFFLED, LANGUAGE_MODEL} and len(frame) == 6
    data = measured.provenance["task_data"]["OPT-125M"]["boolq"]
    assert data["train"]["truncated"] > 0 and data["train"]["rows"] == 24
    assert data["validation"]["left_out"] == 0 and len(data["validation"]["sha256"]) == 64
    assert frame["chance"].dropna().eq(0.5).all()
    assert set(measured.provenance["models"]) == {"OPT-125M"} == set(frame["model"])
    # Before and after are what plain calls on the same windows give.
    windows = finetuning.checkpoint_windows(profile, tokenizer)
    before = linearity_profile(load_model(opt_folder), windows, batch_size=16)
    expected = before.query("tokens == 'all'")["linearity_no_residual"].mean()
    np.testing.assert_allclose(frame["linearity_no_residual_before"], expected, rtol=1e-5)
    everything = layers.query("tokens == 'all'").groupby(["training", "seed"])
    change = everything["delta_linearity_no_residual"].mean().sort_index()
    rows = frame.set_index(["training", "seed"]).sort_index()
    np.testing.assert_allclose(rows["delta_linearity_no_residual"], change, atol=1e-9)
    np.testing.assert_allclose(
        rows["linearity_no_residual"] - rows["linearity_no_residual_before"], change, atol=1e-9
    )
    assert (rows["delta_linearity_no_residual"] != 0).all()
    assert rows.loc[TASK, "accuracy"].between(0, 1).all()
    assert rows.loc[LANGUAGE_MODEL, "accuracy"].isna().all()


def test_a_profile_that_cannot_fine_tune_says_so():
    smoke = load_profile("smoke")
    with pytest.raises(ValueError, match="profile 'smoke' fine-tunes nothing"):
        finetuning.measure(smoke.model_copy(update={"finetuning": None}))
    with pytest.raises(ValueError, match=r"names \['OPT-9T'\], and has no such models"):
        settings = smoke.finetuning.model_copy(update={"models": ("OPT-9T",)})
        finetuning.measure(
            smoke.model_copy(update={"finetuning": settings, "zoo": None, "hub_models": ()})
        )


def test_a_backbone_is_measured_through_any_head(opt_folder, tokenizer):
    windows = torch.randint(3, len(tokenizer), (8, 32))
    torch.manual_seed(0)
    classifier = load_classifier(opt_folder, 2, tokenizer.pad_token_id)
    frames = [linearity_profile(m, windows) for m in (classifier, load_model(opt_folder))]
    pd.testing.assert_frame_equal(*frames)


def test_weights_of_a_folder_are_its_identity(tokenizer, tmp_path):
    folder = saved_model(tmp_path / "model", tokenizer, "llama")
    hub = HubModel(id=str(folder), label="m")
    (before,) = hub_subjects([hub])
    (same,) = hub_subjects([hub])
    model = load_model(folder)
    next(model.parameters()).data += 1
    model.save_pretrained(folder)
    (after,) = hub_subjects([hub])
    assert before.identity == same.identity != after.identity


def test_the_language_modelling_control_reads_every_task_alike(tokenizer):
    settings = load_profile("smoke").finetuning.model_copy(
        update={"tasks": ("boolq", "cb"), "train_texts": 6, "steps": 5, "batch_size": 4,
                "length": 100}
    )  # fmt: skip
    *tasks, (name, control, _) = rows_of_tasks(settings, tokenizer)
    texts = control.rows["input_ids"][:]
    assert name == ALL_TASKS and len(texts) == 20
    for place, (_, train, _) in enumerate(tasks):
        own = train.rows["input_ids"][:]
        assert texts[place::2] == [own[number % len(own)] for number in range(10)]
