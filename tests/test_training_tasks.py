"""The tasks of Table 1 as texts: templates, truncation, controls; and bad data named."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from linlib import load_profile, store
from linlib.models import load_tokenizer
from linlib.training import encode, task_rows
from linlib.training.tasks import (
    ALL_TASKS,
    LANGUAGE_MODEL,
    SHUFFLED,
    chance_of,
    control_rows,
    texts_of,
)

BOOLQ = {"question": "Is the fox quick?", "passage": "The quick brown fox jumps. " * 4, "label": 1}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


def boolq(**changes):
    return Dataset.from_list([BOOLQ, BOOLQ | changes])


def test_boolq_reads_as_in_the_paper_and_cb_keeps_two_labels(tokenizer):
    (ids, _) = encode("boolq", boolq(), tokenizer, 200)[0]["input_ids"]
    assert tokenizer.decode(ids) == f"question: {BOOLQ['question']} passage: " + (
        BOOLQ["passage"].strip()
    )
    rows = [{"premise": "A fox.", "hypothesis": "An animal.", "label": label} for label in range(3)]
    encoded, counts = encode("cb", Dataset.from_list(rows), tokenizer, 100)
    assert list(encoded["labels"]) == [1, 0]  # entailment, contradiction
    assert counts == {"truncated": 0, "left_out": 1}


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
    encoded, counts = encode(task, rows, tokenizer, 100)
    assert counts == {"truncated": 1, "left_out": 0}
    cut, whole = encoded["input_ids"]
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
    with pytest.raises(ValueError, match=r"row 1 of task 'boolq' has a question of \d+ tokens"):
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
    with pytest.raises(ValueError, match=rf"row 1 of task 'reward_modeling' {problem} \(1 of 2"):
        encode("reward_modeling", rows, tokenizer, 60)
    encoded, counts = encode("reward_modeling", rows, tokenizer, 60, drop_unusable=True)
    assert len(encoded) == 1 and counts["left_out"] == 1


def test_a_long_dialogue_loses_what_its_answers_share(tokenizer):
    long = "Human: " + "who is it? " * 40
    pair = {"chosen": f"{long} It is a fox and no dog.", "rejected": f"{long} A dog."}
    encoded, counts = encode("reward_modeling", Dataset.from_list([PAIR, pair]), tokenizer, 60)
    assert counts["truncated"] == 1
    whole = {key: tokenizer(text)["input_ids"] for key, text in pair.items()}
    cut = {key: encoded[f"{key}_ids"][1] for key in pair}
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
    (chosen,) = encode("reward_modeling", rows, other, 50)[0]["chosen_ids"]
    assert chosen[0] == other.bos_token_id and chosen[-1] != other.eos_token_id


def test_answers_that_do_not_fit_are_refused_or_counted(tokenizer):
    pair = {"chosen": "Who? " + "The fox. " * 40, "rejected": "Who? " + "A dog. " * 40}
    rows = Dataset.from_list([PAIR, pair])
    with pytest.raises(ValueError, match="row 1 of .* has answers that do not fit: 60 tokens"):
        encode("reward_modeling", rows, tokenizer, 60)
    _, counts = encode("reward_modeling", rows, tokenizer, 60, drop_unusable=True)
    assert counts["left_out"] == 1


# ------------------------------------------------------------------------------ controls


def decided_by_a_word(n, seed, vocabulary):
    """Texts whose class is whether token 7 or token 8 is among them."""
    rng = np.random.default_rng(seed)
    texts = rng.integers(20, vocabulary, (n, 10))
    labels = rng.permutation(np.arange(n) % 2)
    texts[np.arange(n), rng.integers(0, 9, n)] = 7 + labels
    return Dataset.from_dict({"input_ids": texts, "labels": labels})


def preferring_a_word(n, seed, vocabulary):
    """Pairs of which the chosen text contains token 8, and the other one token 7."""
    rows = decided_by_a_word(2 * n, seed, vocabulary)
    texts, labels = np.array(rows["input_ids"]), np.array(rows["labels"])
    pairs = {"chosen_ids": texts[labels == 1], "rejected_ids": texts[labels == 0]}
    return Dataset.from_dict(pairs)


def test_controls_keep_the_rows_and_shuffle_the_labels():
    rows = decided_by_a_word(60, 0, 320)
    shuffled = control_rows(rows, SHUFFLED, seed=0)
    assert shuffled["input_ids"][:] == rows["input_ids"][:]
    assert sorted(shuffled["labels"]) == sorted(rows["labels"])
    agree = np.mean(np.array(shuffled["labels"]) == np.array(rows["labels"]))
    assert 0.25 < agree < 0.75
    assert control_rows(rows, SHUFFLED, seed=1)["labels"][:] != shuffled["labels"][:]
    pairs = preferring_a_word(60, 0, 320)
    swapped = control_rows(pairs, SHUFFLED, seed=0)
    kept = [a == b for a, b in zip(pairs["chosen_ids"], swapped["chosen_ids"], strict=True)]
    assert sum(kept) == 30
    for before, after in zip(pairs, swapped, strict=True):
        assert sorted(before.values()) == sorted(after.values())
    assert len(control_rows(pairs, LANGUAGE_MODEL, seed=0)) == 120


def test_chance_is_the_share_of_the_more_frequent_label():
    rows = Dataset.from_dict({"input_ids": [[1]] * 4, "labels": [0, 0, 0, 1]})
    assert chance_of(rows) == 0.75
    assert chance_of(preferring_a_word(4, 0, 320)) == 0.5


def test_the_language_modelling_control_reads_all_tasks_alike(tokenizer):
    section = replace(
        load_profile("smoke").finetuning,
        tasks=("boolq", "cb"),
        train_texts=6,
        steps=5,
        batch_size=4,
        seq_len=100,
    )
    with store.recording() as opened:
        *tasks, (name, control, validation) = task_rows(section, tokenizer)
    texts = control["input_ids"][:]
    assert name == ALL_TASKS and len(texts) == 20 and len(validation) == 0
    for place, (_, train, _) in enumerate(tasks):
        own = train["input_ids"][:]
        assert texts[place::2] == [own[number % len(own)] for number in range(10)]
    assert texts_of(tasks[0][1]) == tasks[0][1]["input_ids"][:]
    counted = {label.split(" ", 1)[1]: counts for label, counts in opened["task rows"].items()}
    assert set(counted) == {"boolq train", "boolq validation", "cb train", "cb validation"}
    assert counted["cb train"]["rows"] == 6 and counted["cb train"]["left_out"] == 3
