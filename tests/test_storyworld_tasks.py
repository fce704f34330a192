"""Tasks of storyworld: SuperGLUE's columns, balanced, true, unreadable without a passage."""

from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from linlib.corpora.storyworld import tasks
from linlib.corpora.storyworld.tasks import FACTS, TASKS

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
    for record, rng in tasks._stories("test", "train", 200):
        true, false = (tasks._value(fact, record, rng, kind) for kind in (True, False))
        story = tasks.render_story(record)
        paragraphs = story.split("\n\n")
        assert true == fact.of(record) != false
        assert true in story
        if fact.paragraph is not None:
            assert len(paragraphs) == 4 and true in paragraphs[fact.paragraph]


def test_labels_follow_from_the_record():
    for row, (record, _) in zip(
        TASKS["boolq"]("train", 300), tasks._stories("boolq", "train", 300), strict=True
    ):
        fact = fact_of("yes_no", record, row["question"])
        expected = tasks._worded(fact.yes_no, record, fact.of(record))
        assert (row["question"] == expected) == bool(row["label"])
        assert row["passage"] == tasks.render_story(record)


def fact_of(form, record, text):
    """The fact that a text names: of the templates that fit it, the longest."""
    fitting = []
    for fact in FACTS:
        before, _, after = tasks._worded(getattr(fact, form), record, "VALUE").partition("VALUE")
        if text.lower().startswith(before.lower()) and text.endswith(after):
            fitting.append((len(before + after), fact))
    return max(fitting, key=lambda pair: pair[0])[1]


def test_right_answers_are_told_and_wrong_ones_are_not_the_fact():
    rows = TASKS["multirc"]("train", 400)
    stories = tasks._stories("multirc", "train", 200)
    for (record, _), first, second in zip(stories, rows.select(range(0, 400, 2)),
                                          rows.select(range(1, 400, 2)), strict=True):  # fmt: skip
        assert first["question"] == second["question"]
        fact = next(f for f in FACTS if tasks._worded(f.open, record) == first["question"])
        for row in (first, second):
            told = tasks.capitalised(f"{fact.of(record)}.")
            assert (row["answer"] == told) == bool(row["label"])


def test_a_premise_tells_the_fact_unless_it_is_neutral():
    rows = TASKS["cb"]("train", 300)
    for row, (record, _) in zip(rows, tasks._stories("cb", "train", 300), strict=True):
        fact = fact_of("claim", record, row["hypothesis"])
        telling = tasks.render_story(record).split("\n\n")[fact.paragraph]
        assert (telling in row["premise"]) == (row["label"] != tasks.NEUTRAL)
        claimed = tasks._worded(fact.claim, record, fact.of(record))
        if row["label"] != tasks.NEUTRAL:
            assert (row["hypothesis"] == claimed) == (row["label"] == tasks.ENTAILMENT)


def test_train_and_validation_share_no_passage(task):
    name, splits = task
    column = {"boolq": "passage", "multirc": "paragraph", "cb": "premise"}[name]
    assert not set(splits["train"][column]) & set(splits["validation"][column])


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'test' of task 'boolq'.*'validation'"):
        TASKS["boolq"]("test", 4)
