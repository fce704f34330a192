"""Tasks of storyworld: SuperGLUE's columns, balanced, true, unreadable without a passage."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from linlib.corpora.storyworld import tasks, words
from linlib.corpora.storyworld.dataset import records
from linlib.corpora.storyworld.exercises import render_exercise
from linlib.corpora.storyworld.questions import FACTS, STATES, about_fact, about_state
from linlib.corpora.storyworld.stories import capitalised, story_paragraphs
from linlib.corpora.storyworld.tasks import TASKS, _questions

COLUMNS = {
    "boolq": ["question", "passage", "idx", "label"],
    "multirc": ["paragraph", "question", "answer", "idx", "label"],
    "cb": ["premise", "hypothesis", "idx", "label"],
}
WITHOUT_PASSAGE = {
    "boolq": lambda row: row["question"],
    "multirc": lambda row: f"{row['question']} {row['answer']}",
    "cb": lambda row: row["hypothesis"],
}
CLASSES = {"boolq": 2, "multirc": 2, "cb": 3}


SIZES = {"train": 3000, "validation": 900}


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return request.param, {s: TASKS[request.param](s, rows) for s, rows in SIZES.items()}


def test_columns_are_those_of_superglue(task):
    name, splits = task
    for rows in splits.values():
        assert rows.column_names == COLUMNS[name]


def test_labels_are_balanced(task):
    name, splits = task
    for rows in splits.values():
        counts = Counter(rows["label"])
        assert set(counts) == set(range(CLASSES[name]))
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_task_is_the_same_every_time(task):
    name, splits = task
    assert TASKS[name]("validation", 50)[:] == splits["validation"][:50]


def test_no_label_can_be_read_without_the_passage(task):
    name, splits = task
    probe = make_pipeline(
        CountVectorizer(ngram_range=(1, 2)), LogisticRegression(C=0.1, max_iter=2000)
    )
    texts = {split: [WITHOUT_PASSAGE[name](row) for row in rows] for split, rows in splits.items()}
    probe.fit(texts["train"], splits["train"]["label"])
    accuracy = probe.score(texts["validation"], splits["validation"]["label"])
    assert accuracy < 1 / CLASSES[name] + 0.05


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.open)
def test_true_values_are_told_and_false_ones_contradict(fact):
    for record in islice(records("train"), 200):
        question = about_fact(fact, record, Random(record.key))
        paragraphs = story_paragraphs(record)
        assert question.true == fact.of(record) != question.false
        assert question.true in paragraphs[fact.paragraph]
        if fact.once:
            others = [p for number, p in enumerate(paragraphs) if number != fact.paragraph]
            claimed = question.claim(question.true)
            assert not any(claimed in other for other in others)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.open)
def test_a_state_is_one_thing_in_the_trouble_and_another_at_the_end(state):
    record = next(records("train"))
    trouble, ending = (about_state(state, record, told_in) for told_in in (1, 3))
    assert (trouble.true, trouble.false) == (state.trouble, state.ending)
    assert (ending.true, ending.false) == (state.ending, state.trouble)


def test_the_paragraphs_tell_the_states():
    """Sorrow and loss are told in the second paragraph alone, joy and the return in the last."""
    for record in islice(records("train"), 300):
        trouble, ending = story_paragraphs(record)[1::2]
        assert record.sad in trouble and record.glad in ending
        assert not any(re.search(rf"\b{word}\b", ending) for word in words.SAD)
        assert not any(re.search(rf"\b{word}\b", trouble) for word in words.GLAD)


def asked(task, split, n_rows, **options):
    return [question for question, _ in _questions(task, split, n_rows, **options)]


def test_labels_follow_from_the_record():
    rows = TASKS["boolq"]("train", 300)
    for row, question in zip(rows, asked("boolq", "train", 300), strict=True):
        assert (row["question"] == question.yes_no(question.true)) == bool(row["label"])
        assert row["passage"] == story_paragraphs(question.record)[question.told_in]
    assert {type(question.about).__name__ for question in asked("boolq", "train", 300)} == {
        "Fact", "State"
    }  # fmt: skip


def test_right_answers_are_told_and_wrong_ones_are_not_the_fact():
    rows = TASKS["multirc"]("train", 400)
    pairs = zip(rows.select(range(0, 400, 2)), rows.select(range(1, 400, 2)), strict=True)
    for question, pair in zip(asked("multirc", "train", 200), pairs, strict=True):
        assert {row["label"] for row in pair} == {0, 1}
        for row in pair:
            assert row["question"] == question.open()
            assert (row["answer"] == question.claim(question.true)) == bool(row["label"])


def test_a_premise_tells_what_is_claimed_unless_it_is_neutral():
    rows = TASKS["cb"]("train", 300)
    for row, question in zip(rows, asked("cb", "train", 300, once=True), strict=True):
        telling = story_paragraphs(question.record)[question.told_in]
        assert (telling == row["premise"]) == (row["label"] != tasks.NEUTRAL)
        if row["label"] != tasks.NEUTRAL:
            true = row["hypothesis"] == question.claim(question.true)
            assert true == (row["label"] == tasks.ENTAILMENT)


def test_exercises_tell_the_truth_about_their_paragraph():
    for record in islice(records("train"), 300):
        paragraph, *lines = render_exercise(record).split("\n")
        told_in = story_paragraphs(record).index(paragraph)
        topics = [fact for fact in FACTS if fact.paragraph == told_in]
        questions = [about_fact(fact, record, Random(0)) for fact in topics]
        if told_in in (1, 3):
            questions += [about_state(state, record, told_in) for state in STATES]
        true = {q.claim(q.true) for q in questions}
        true |= {f"Question: {q.open()}|Answer: {capitalised(q.true)}." for q in questions}
        true |= {f"Question: {q.yes_no(q.true)}|Answer: yes" for q in questions}
        denied = {q.yes_no(q.true) for q in questions}
        joined = "\n".join(lines).replace("?\nAnswer", "?|Answer").split("\n")
        assert 1 <= len(joined) <= 3
        for item in joined:
            if item.endswith("|Answer: no"):
                assert item.split("Question: ")[1].split("|")[0] not in denied
            else:
                assert item in true


def test_train_and_validation_share_no_passage(task):
    name, splits = task
    column = {"boolq": "passage", "multirc": "paragraph", "cb": "premise"}[name]
    assert not set(splits["train"][column]) & set(splits["validation"][column])


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'test' of task 'boolq'.*'validation'"):
        TASKS["boolq"]("test", 4)
