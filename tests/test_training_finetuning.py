"""Fine-tuning: both losses, controls, resuming, before and after; and bad settings named."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from test_models import CONFIGS, tiny_config
from test_training_tasks import decided_by_a_word, preferring_a_word
from transformers import AutoModelForCausalLM, Trainer

import linlib
from linlib import load_profile, parallel, store
from linlib.models import load_classifier, load_model, load_tokenizer
from linlib.training import (
    CHANGES,
    fine_tune,
    measure_fine_tuning,
    options_for,
    outcome,
)
from linlib.training.finetuning import count_correct
from linlib.training.tasks import LANGUAGE_MODEL, SHUFFLED, TASK, texts_of

OPTIONS = dict(training=TASK, steps=80, batch_size=8, learning_rate=3e-3, warmup_ratio=0.1, seed=0)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return {"name_or_path": saved_model(tmp_path_factory.mktemp("opt"), tokenizer, "opt")}


def saved_model(folder, tokenizer, name):
    torch.manual_seed(0)
    config = tiny_config(name)
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 64
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def windows_of(tokenizer):
    return torch.randint(3, len(tokenizer), (8, 32), generator=torch.Generator().manual_seed(0))


def general_text(tokenizer):
    windows = windows_of(tokenizer)
    return {"general": (windows, torch.arange(len(windows))[:, None].expand(windows.shape))}


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_does_not_move_a_classifier_of_any_architecture(name, tmp_path):
    torch.manual_seed(0)
    config = tiny_config(name)
    if name != "modernbert-decoder":  # whose config must name one
        config.pad_token_id = None
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    pad, short = 0, torch.tensor([[5, 9, 7]])
    model = load_classifier(tmp_path, 2, pad)
    padded = torch.tensor([[5, 9, 7, pad, pad], [8, 4, 6, 11, 3]])
    with torch.no_grad():
        alone = model(input_ids=short, attention_mask=torch.ones_like(short)).logits[0]
        batched = model(input_ids=padded, attention_mask=(padded != pad).long()).logits[0]
    torch.testing.assert_close(alone, batched, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [decided_by_a_word, preferring_a_word])
def test_a_task_is_learnt_and_its_controls_teach_nothing(make, base, tokenizer, tmp_path):
    train, validation = (make(n, seed, len(tokenizer)) for n, seed in ((160, 0), (100, 1)))
    (_, learnt), (_, shuffled), (modelled, none) = (
        fine_tune(tmp_path / training, base, train, validation, **OPTIONS | {"training": training})
        for training in (TASK, SHUFFLED, LANGUAGE_MODEL)
    )
    assert learnt >= 95 and 25 <= shuffled <= 75 and none is None
    texts = torch.tensor(texts_of(validation))
    before, after = (
        m(input_ids=texts, labels=texts).loss.item()
        for m in (load_model(base["name_or_path"]), modelled)
    )
    assert after < before - 0.05


def test_correct_answers_are_those_that_plain_calls_give(base, tokenizer):
    classified, pairs = (
        make(30, 2, len(tokenizer)) for make in (decided_by_a_word, preferring_a_word)
    )
    for rows, n_labels in ((classified, 2), (pairs, 1)):
        torch.manual_seed(0)
        model = load_classifier(base["name_or_path"], n_labels, tokenizer.pad_token_id)
        count = count_correct(model, tokenizer, rows, 16)
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


@pytest.mark.parametrize("make", [decided_by_a_word, preferring_a_word])
def test_the_same_seed_gives_the_same_weights(make, base, tokenizer, tmp_path):
    rows = make(40, 0, len(tokenizer))
    weights = [
        fine_tune(tmp_path / name, base, rows, rows, **OPTIONS | {"steps": 3, "seed": seed})[
            0
        ].state_dict()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["score.weight"], weights[2]["score.weight"])


@pytest.mark.parametrize("make", [decided_by_a_word, preferring_a_word])
def test_a_killed_run_continues_from_its_checkpoint(make, base, tokenizer, tmp_path, monkeypatch):
    rows = make(80, 0, len(tokenizer))
    options = OPTIONS | {"steps": 6, "checkpoint_interval": 2}
    whole = fine_tune(tmp_path / "whole", base, rows, rows, **options)[0].state_dict()
    step = Trainer.training_step

    def die(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", die)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(tmp_path / "cut", base, rows, rows, **options)
    steps = []
    monkeypatch.setattr(
        Trainer,
        "training_step",
        lambda self, *a, **k: steps.append(self.state.global_step) or step(self, *a, **k),
    )
    resumed = fine_tune(tmp_path / "cut", base, rows, rows, **options)[0].state_dict()
    assert steps == [4, 5]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_accumulated_batch_is_the_batch(tokenizer, tmp_path):
    folder = saved_model(tmp_path / "llama", tokenizer, "llama")  # without dropout
    rows = decided_by_a_word(40, 0, len(tokenizer))
    whole, accumulated = (
        fine_tune(
            tmp_path / str(number),
            {"name_or_path": folder},
            rows,
            rows,
            **OPTIONS | {"steps": 2, "micro_batch_size": number},
        )[0].state_dict()
        for number in (None, 2)
    )
    for name, weight in whole.items():
        torch.testing.assert_close(weight, accumulated[name], atol=1e-4, rtol=0)


def test_a_backbone_is_measured_through_any_head(base, tokenizer):
    torch.manual_seed(0)
    classifier = load_classifier(base["name_or_path"], 2, tokenizer.pad_token_id)
    models = (classifier, load_model(base["name_or_path"]))
    pd.testing.assert_frame_equal(
        *(linlib.linearity_profile(model, windows_of(tokenizer)) for model in models)
    )


# ----------------------------------------------------------------------- before and after


def test_a_run_is_done_once_and_found_again(base, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    rows = decided_by_a_word(16, 0, len(tokenizer))
    item = dict(
        base=base, train=rows, validation=rows, texts=general_text(tokenizer),
        options=OPTIONS | {"steps": 2}, measuring={"n_folds": 2, "batch_size": 4},
    )  # fmt: skip
    (folder,) = parallel.side_by_side(measure_fine_tuning, [item])
    assert not (folder / "trainer").exists()
    stamp = (folder / "layers.csv").stat().st_mtime_ns
    assert parallel.side_by_side(measure_fine_tuning, [item]) == [folder]
    assert (folder / "layers.csv").stat().st_mtime_ns == stamp
    others = [
        {"options": OPTIONS | {"steps": 3}},
        {"train": decided_by_a_word(16, 1, len(tokenizer))},
        {"base": base | {"pad_token": "<|eos|>"}},
    ]
    assert not any(store.is_cached(measure_fine_tuning, **item | other) for other in others)


def test_before_and_after_are_what_plain_calls_measure(base, tokenizer, tmp_path):
    rows, texts = decided_by_a_word(20, 0, len(tokenizer)), general_text(tokenizer)
    texts["task"] = (texts["general"][0].flip(1), texts["general"][1].flip(1))
    options, measuring = OPTIONS | {"steps": 4}, {"n_folds": 2, "batch_size": 4}
    measure_fine_tuning(tmp_path, base, rows, rows, texts, options, measuring)
    change, answers = outcome(tmp_path)
    model, correct = fine_tune(tmp_path / "again", base, rows, rows, **options)
    assert answers["correct"] == correct and answers["rows"] == answers["n_validation"] == 20
    assert answers["chance"] == 0.5
    assert answers["accuracy_low"] < answers["accuracy"] == correct / 20 < answers["accuracy_high"]
    assert list(change["text"].unique()) == ["general", "task"]
    assert list(change["layer"].unique()) == [1, 2, 3] and set(CHANGES) < set(change.columns)
    name, untrained = "linearity_no_residual", load_model(base["name_or_path"])
    for text, (windows, documents) in texts.items():
        found = change[change["text"] == text]
        before, after = (
            linlib.linearity_profile(one, windows, documents=documents, **measuring)
            for one in (untrained, model)
        )
        np.testing.assert_allclose(found[name], after[name], atol=1e-6)
        np.testing.assert_allclose(found[f"{name}_before"], before[name], atol=1e-6)
        np.testing.assert_allclose(found[f"delta_{name}"], after[name] - before[name], atol=1e-6)
        assert (found[f"delta_{name}"] != 0).all()


def test_a_language_model_answers_nothing(base, tokenizer, tmp_path):
    rows = decided_by_a_word(16, 0, len(tokenizer))
    options = OPTIONS | {"steps": 1, "training": LANGUAGE_MODEL}
    measuring = {"n_folds": 2, "batch_size": 4}
    measure_fine_tuning(
        tmp_path, base, rows, rows.select([]), general_text(tokenizer), options, measuring
    )
    _, answers = outcome(tmp_path)
    assert answers.pop("rows") == 16 and answers.pop("n_validation") == 0
    assert set(answers.values()) == {None}
    json.dumps(answers)


def test_a_section_gives_the_options_of_a_training():
    options = options_for(fine_tune, load_profile("smoke").finetuning)
    assert options == {
        "steps": 2, "batch_size": 8, "learning_rate": 1e-3, "warmup_ratio": 0.1,
        "micro_batch_size": None, "checkpoint_interval": None,
    }  # fmt: skip


# ------------------------------------------------------------------------------ bad input


def test_bad_settings_are_named(base, tokenizer, tmp_path):
    rows = decided_by_a_word(20, 0, len(tokenizer))

    def tune(train=rows, validation=rows, source=base, **changes):
        return fine_tune(tmp_path, source, train, validation, **OPTIONS | changes)

    with pytest.raises(ValueError, match="unknown training 'lora'; choose from"):
        tune(training="lora")
    with pytest.raises(ValueError, match="a batch of 8 cannot be split over .*, 3 at once"):
        tune(micro_batch_size=3)
    pairs = preferring_a_word(20, 0, len(tokenizer))
    for odd in ({"batch_size": 3}, {"micro_batch_size": 1}):
        with pytest.raises(ValueError, match=r" = \d texts cannot be made of preference pairs"):
            tune(pairs, pairs, **odd)
    long = Dataset.from_dict({"input_ids": [[5] * 65], "labels": [0]})
    with pytest.raises(ValueError, match="a text of 65 tokens does not fit the model, .* most 64"):
        tune(validation=long)
    with pytest.raises(ValueError, match="no row to train on"):
        tune(rows.select([]))
    with pytest.raises(FloatingPointError, match="the loss of fine-tuning became nan"):
        tune(learning_rate=1e30, warmup_ratio=0.0)


def test_a_tokenizer_without_a_pad_token_is_refused(base, tokenizer_folder, tmp_path):
    unpadded = load_tokenizer(tokenizer_folder)
    unpadded.pad_token = None
    load_model(base["name_or_path"]).save_pretrained(tmp_path)
    unpadded.save_pretrained(tmp_path)
    rows = decided_by_a_word(20, 0, len(unpadded))
    with pytest.raises(ValueError, match="has no pad token"):
        fine_tune(tmp_path / "run", {"name_or_path": tmp_path}, rows, rows, **OPTIONS)
