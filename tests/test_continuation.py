"""Items about the next sentence: their columns and balance, and that they need the question."""

import re
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from linlib.corpora import load_task, pydocs
from linlib.corpora.continuation import continuation_items, sentences

LABELS = "ABCD"


@pytest.fixture(scope="module")
def splits():
    rows = {"train": 1500, "validation": None}
    return {split: load_task("pydocs", "continuation", split, n) for split, n in rows.items()}


def texts_of(rows):
    return [choices["text"] for choices in rows["choices"]]


def answers_of(rows):
    return [LABELS.index(key) for key in rows["answerKey"]]


# Items


def test_columns_are_those_of_arc(splits):
    for rows in splits.values():
        assert rows.column_names == ["id", "question", "choices", "answerKey"]
        assert all(choices["label"] == list(LABELS) for choices in rows["choices"])
        assert len(set(rows["id"])) == len(rows)
    assert len(splits["train"]) == 1500 and len(splits["validation"]) > 300


def test_the_true_candidate_goes_on_and_the_others_go_on_elsewhere_in_the_package(splits):
    documents = pydocs.load("heldout")
    paragraphs, packages = [], {}
    for text, source in zip(documents["text"], documents["source"], strict=True):
        paragraphs += (new := [" ".join(part.split()) for part in text.split("\n\n")])
        packages.setdefault(source.split("/")[0], []).extend(new)
    whole = "\n".join(paragraphs)
    for row in splits["validation"]:
        package = "\n".join(packages[row["id"].rpartition("-")[0]])
        right = LABELS.index(row["answerKey"])
        for place, text in enumerate(row["choices"]["text"]):
            goes_on = f"{row['question']} {text}" in whole
            assert goes_on == (place == right)
            assert text in package


def test_items_are_short(splits):
    for rows in splits.values():
        words = {len(question.split()) for question in rows["question"]}
        assert {12, 40} <= words <= set(range(12, 41))
        words = {len(text.split()) for texts in texts_of(rows) for text in texts}
        assert {5, 25} <= words <= set(range(5, 26))
        assert all(len(set(texts)) == 4 for texts in texts_of(rows))


def test_labels_are_balanced_in_any_number_of_first_rows(splits):
    for rows in splits.values():
        for n in (20, 101, len(rows)):
            counts = Counter(rows["answerKey"][:n])
            assert max(counts.values()) - min(counts.values()) <= 1


def test_fewer_rows_are_the_first_rows_and_more_than_there_are_is_all(splits):
    rows = splits["validation"]
    assert load_task("pydocs", "continuation", "validation", 50)[:] == rows[:50]
    assert len(load_task("pydocs", "continuation", "validation", 10**6)) == len(rows)


def test_train_and_validation_share_no_question(splits):
    assert not {*splits["train"]["question"]} & {*splits["validation"]["question"]}


# What can be told without the question


@pytest.mark.parametrize("pick", [np.argmax, np.argmin])
@pytest.mark.parametrize("measure", [len, lambda text: len(text.split())])
def test_length_is_no_cue(splits, pick, measure):
    for rows in splits.values():
        guesses = [pick([measure(text) for text in texts]) for texts in texts_of(rows)]
        assert np.mean(np.equal(guesses, answers_of(rows))) == pytest.approx(0.25, abs=0.05)


def test_candidates_are_of_similar_length(splits):
    lengths = np.array([[len(text) for text in texts] for texts in texts_of(splits["validation"])])
    assert np.median(lengths.max(1) / lengths.min(1)) < 1.1


def accuracy_without_question(splits, leak=lambda text, right: text):
    """The accuracy of a bag of words that sees each candidate by itself."""
    probe = make_pipeline(
        CountVectorizer(ngram_range=(1, 2)), LogisticRegression(C=0.1, max_iter=2000)
    )
    seen = {
        split: [
            [(leak(text, place == right), place == right) for place, text in enumerate(texts)]
            for texts, right in zip(texts_of(rows), answers_of(rows), strict=True)
        ]
        for split, rows in splits.items()
    }
    probe.fit(*zip(*sum(seen["train"], []), strict=True))
    guesses = [
        np.argmax(probe.predict_proba([text for text, _ in item])[:, 1])
        for item in seen["validation"]
    ]
    return np.mean(np.equal(guesses, answers_of(splits["validation"])))


def test_no_label_can_be_read_without_the_question(splits):
    assert accuracy_without_question(splits) == pytest.approx(0.25, abs=0.06)


def test_the_probe_finds_a_leak_where_there_is_one(splits):
    assert accuracy_without_question(splits, lambda text, right: f"{text} {right}") > 0.95


def test_words_in_common_with_the_question_are_a_part_of_the_answer(splits):
    """Paragraphs have a topic: that candidates share words with their question is no leak."""
    rows, guesses = splits["validation"], []
    for question, texts in zip(rows["question"], texts_of(rows), strict=True):
        words = set(re.findall(r"\w{4,}", question.lower()))
        guesses.append(
            np.argmax([len(words & {*re.findall(r"\w{4,}", text.lower())}) for text in texts])
        )
    assert 0.25 < np.mean(np.equal(guesses, answers_of(rows))) < 0.7


# Sentences and small corpora


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One is here. Two is there! Three? Yes.", 4),
        ("Models, e.g. GPT-2 or i.e. OPT, are read. They are large.", 2),
        ("See Fig. 3 of Smith et al. Their result, cf. Eq. 2, holds.", 1),
        ("Written by J. R. Smith vs. Dr. Jones.", 1),
        ("It needs version 2.13 of torch. It is new.", 2),
        ('It says "no." Then it ends. (See below.) It is so.', 4),
        ("Call it. `fit` follows. ``x`` is the result.", 3),
        ("This is ok... but this goes on. and so does this.", 1),
        ("Arrays, lists, etc. Other types are refused.", 1),
        ("Use numpy.linalg.norm. It is fast.", 2),
        ("No stop at the end", 1),
        ("", 0),
    ],
)
def test_sentences_end_at_full_stops_but_not_at_abbreviations(text, parts):
    found = sentences(text)
    assert len(found) == parts and " ".join(found) == text


def corpus(n, source="numpy/core.py"):
    paragraphs = [
        f"This is the beginning of a paragraph of some length about subject number{i}. "
        f"Its next sentence is about subject{i} too. And so on."
        for i in range(n)
    ]
    return Dataset.from_dict({"text": paragraphs, "source": [source] * n})


def test_an_item_is_a_beginning_and_the_next_sentences_of_four_paragraphs():
    rows = continuation_items(corpus(9))
    assert len(rows) == 9
    for row in rows:
        number = re.search(r"number(\d)", row["question"])[1]
        assert row["question"].endswith(f"about subject number{number}.")
        true = row["choices"]["text"][LABELS.index(row["answerKey"])]
        assert true == f"Its next sentence is about subject{number} too."
    assert rows[:] == continuation_items(corpus(9))[:]


def test_packages_with_too_few_paragraphs_have_no_items():
    rows = continuation_items(
        Dataset.from_list([*corpus(6), *corpus(3, "tqdm/std.py"), *corpus(5, "torch/nn.py")])
    )
    assert {name.rpartition("-")[0] for name in rows["id"]} == {"numpy", "torch"}
    with pytest.raises(ValueError, match="3 documents have no package with four paragraphs"):
        continuation_items(corpus(3))


def test_an_unknown_task_of_pydocs_is_named():
    with pytest.raises(ValueError, match="unknown task 'boolq' of pydocs; .*'continuation'"):
        load_task("pydocs", "boolq", "validation", 4)
    with pytest.raises(ValueError, match="unknown split 'test' of task 'continuation'"):
        load_task("pydocs", "continuation", "test", 4)
