"""Tasks have the columns of SuperGLUE, are balanced and true, and need their passages."""

import hashlib
import json
import re
from collections import Counter
from itertools import islice
from random import Random

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from storyworld import TASKS, records, render_exercise, story_paragraphs, tasks, world
from storyworld.choices import SENSES, _light_stories
from storyworld.corpus import plural, task_stories
from storyworld.questions import FACTS, STATES, Fact, State, about_fact, about_state
from storyworld.stories import FORMS, capitalised
from storyworld.tasks import SHARE_OF_FACTS, _claims, _question
from storyworld.world import KINDS, OBSTACLES, SKILLS, THINGS

CLOZE = [f"input_sentence_{n}" for n in range(1, 5)]
COLUMNS = {
    "boolq": ["question", "passage", "idx", "label"],
    "multirc": ["paragraph", "question", "answer", "idx", "label"],
    "cb": ["premise", "hypothesis", "idx", "label"],
    "rte": ["premise", "hypothesis", "idx", "label"],
    "copa": ["premise", "choice1", "choice2", "question", "idx", "label"],
    "record": ["passage", "query", "entities", "answers", "idx"],
    "wic": ["word", "sentence1", "start1", "end1", "sentence2", "start2", "end2", "idx", "label"],
    "storycloze": [
        "story_id", *CLOZE, "sentence_quiz1", "sentence_quiz2", "answer_right_ending"
    ],
    "arc_easy": ["id", "question", "choices", "answerKey"],
}  # fmt: skip
# What a task's label is, and how many there are.
LABELS = {
    "cb": (lambda row: row["label"], 3),
    "record": (lambda row: row["entities"].index(row["answers"][0]), 2),
    "storycloze": (lambda row: row["answer_right_ending"] - 1, 2),
    "arc_easy": (lambda row: "ABCD".index(row["answerKey"]), 4),
}
# The texts that a row shows without its passage: one, or one a choice.
WITHOUT_PASSAGE = {
    "boolq": lambda row: [row["question"]],
    "multirc": lambda row: [f"{row['question']} {row['answer']}"],
    "cb": lambda row: [row["hypothesis"]],
    "rte": lambda row: [row["hypothesis"]],
    "copa": lambda row: [row["choice1"], row["choice2"]],
    "record": lambda row: [row["query"].replace("@placeholder", e) for e in row["entities"]],
    "wic": lambda row: [row["sentence2"]],
    "storycloze": lambda row: [row["sentence_quiz1"], row["sentence_quiz2"]],
    "arc_easy": lambda row: row["choices"]["text"],
}
SIZES = {"train": 3000, "validation": 900}
ROWS_SHA256 = "f6463a7903493bdc6f8634e6f0dcde9d8546d4ea3ce14b706e6c42c9c12cbe87"


def label_of(name, row):
    return LABELS.get(name, (lambda row: row["label"], 2))[0](row)


def classes_of(name):
    return LABELS.get(name, (None, 2))[1]


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return request.param, {s: TASKS[request.param](s, rows) for s, rows in SIZES.items()}


def test_columns_are_those_of_the_original(task):
    name, splits = task
    for rows in splits.values():
        assert sorted(rows.column_names) == sorted(COLUMNS[name])


def test_labels_are_balanced(task):
    name, splits = task
    for rows in splits.values():
        counts = Counter(label_of(name, row) for row in rows)
        assert set(counts) == set(range(classes_of(name)))
        spread = max(counts.values()) - min(counts.values())
        assert spread <= (0.1 * len(rows) if name == "record" else 1)  # its labels are names


def test_fewer_rows_are_the_first_rows(task):
    name, splits = task
    assert TASKS[name]("validation", 50)[:] == splits["validation"][:50]


def test_tasks_are_the_same_on_every_platform():
    rows = [TASKS[name](split, 100).to_list() for name in sorted(TASKS) for split in SIZES]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == ROWS_SHA256


def accuracy_without_passage(name, splits, leak=None):
    """The accuracy of a bag of words that sees the choices, or the text, but no passage."""
    probe = make_pipeline(
        CountVectorizer(ngram_range=(1, 2)), LogisticRegression(C=0.1, max_iter=2000)
    )
    rows = {
        split: [(WITHOUT_PASSAGE[name](row), label_of(name, row)) for row in split_rows]
        for split, split_rows in splits.items()
    }
    if leak is not None:
        rows = {
            split: [([leak(text, label) for text in texts], label) for texts, label in split_rows]
            for split, split_rows in rows.items()
        }
    if len(rows["train"][0][0]) == 1:
        probe.fit([texts[0] for texts, _ in rows["train"]], [label for _, label in rows["train"]])
        guesses = probe.predict([texts[0] for texts, _ in rows["validation"]])
    else:
        seen = [(t, n == label) for texts, label in rows["train"] for n, t in enumerate(texts)]
        probe.fit(*zip(*seen, strict=True))
        chances = [probe.predict_proba(texts)[:, 1] for texts, _ in rows["validation"]]
        guesses = [np.argmax(chance) for chance in chances]
    answers = [label for _, label in rows["validation"]]
    return np.mean([guess == answer for guess, answer in zip(guesses, answers, strict=True)])


def test_no_label_can_be_read_without_the_passage(task):
    name, splits = task
    assert accuracy_without_passage(name, splits) < 1 / classes_of(name) + 0.05


@pytest.mark.parametrize("share_of_facts", [0.0, 1.0])
@pytest.mark.parametrize("name", ["multirc", "cb", "rte"])
def test_neither_states_nor_facts_give_themselves_away(name, share_of_facts, monkeypatch):
    monkeypatch.setattr(tasks, "SHARE_OF_FACTS", share_of_facts)
    splits = {split: TASKS[name](split, n) for split, n in SIZES.items()}
    texts = [WITHOUT_PASSAGE[name](row)[0] for row in splits["validation"]]
    about_feelings = [bool(re.search(r" (sad|happy)\.?$", text)) for text in texts]
    assert np.mean(about_feelings) == 1 - share_of_facts
    assert accuracy_without_passage(name, splits) < 1 / classes_of(name) + 0.05


def test_the_probe_finds_a_leak_where_there_is_one():
    splits = {split: TASKS["boolq"](split, n) for split, n in SIZES.items()}
    accuracy = accuracy_without_passage(
        "boolq", splits, lambda text, label: f"{text} {'no yes'.split()[label]}"
    )
    assert accuracy > 0.99


def test_choices_differ_and_hold_the_answer_once(task):
    name, splits = task
    for row in splits["validation"]:
        texts = WITHOUT_PASSAGE[name](row)
        assert len(set(texts)) == len(texts)


def test_the_right_cause_effect_and_ending_belong_to_the_story():
    for name in ("copa", "storycloze"):
        seed = {"copa": "copa", "storycloze": "cloze"}[name]
        stories = _light_stories(seed, "train", 300)
        for row, (record, _, _) in zip(TASKS[name]("train", 300), stories, strict=True):
            assert not THINGS[record.thing].heavy
            own = OBSTACLES[record.obstacle]
            right = WITHOUT_PASSAGE[name](row)[label_of(name, row)]
            wrong = WITHOUT_PASSAGE[name](row)[1 - label_of(name, row)]
            parts = [own.rescue, own.happens, own.attempt]
            phrases = [
                part.format(
                    thing=record.thing, name=record.hero.name, place=record.place,
                    **FORMS[record.hero.pronoun],
                )
                for part in parts
            ]  # fmt: skip
            assert any(phrase.lower() in right.lower() for phrase in phrases)
            assert not any(phrase.lower() in wrong.lower() for phrase in phrases)


def test_arc_asks_what_the_world_knows():
    questions = TASKS["arc_easy"]("train", 400)
    skills = {f"Which animal can {can}?": name for name, (can, _, _) in SKILLS.items()}
    for row in questions:
        texts, right = row["choices"]["text"], "ABCD".index(row["answerKey"])
        if row["question"] in skills:
            kinds = [KINDS[text.split(" ", 1)[1]] for text in texts]
            able = [skills[row["question"]] in kind.skills for kind in kinds]
            assert able == [place == right for place in range(4)]
        elif row["question"].startswith("Where do "):
            plural_kind = row["question"][len("Where do ") : -len(" live?")]
            (kind,) = [kind for kind in KINDS.values() if plural(kind.name) == plural_kind]
            assert texts[right] == kind.home


def test_the_passage_of_a_query_names_both_characters():
    heroes = 0
    for row, (_, record, _) in zip(
        TASKS["record"]("train", 200), task_stories("record", "train", 200), strict=True
    ):
        heroes += row["answers"] == [record.hero.name]
        assert set(row["entities"]) == {record.hero.name, record.helper.name}
        assert row["passage"] == story_paragraphs(record)[2]
        assert record.helper.name in row["passage"] and "@placeholder" in row["query"]
    assert heroes == 100


def test_wic_marks_its_word_and_its_senses():
    for row in TASKS["wic"]("train", 300):
        for number in (1, 2):
            start, end = row[f"start{number}"], row[f"end{number}"]
            assert row[f"sentence{number}"][start:end].lower() == row["word"]
    for word, senses in SENSES.items():
        assert len(senses) == 2
        for templates in senses:
            assert all(re.search(rf"\b{word}\b", template) for template in templates)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.open)
def test_the_paragraph_of_a_fact_states_its_true_value(fact):
    for record in islice(records("train"), 200):
        question = about_fact(fact, record, Random(record.key))
        paragraphs = story_paragraphs(record)
        assert question.true == fact.value(record) != question.false
        assert question.false not in {record.hero.name, record.helper.name}
        assert question.true in paragraphs[fact.paragraph]
        if fact.once:
            others = [p for number, p in enumerate(paragraphs) if number != fact.paragraph]
            claimed = question.claim(question.true)
            assert not any(claimed in other for other in others)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.open)
def test_a_state_is_one_thing_in_the_trouble_and_another_at_the_end(state):
    record = next(records("train"))
    trouble, ending = (about_state(state, record, n) for n in (1, 3))
    assert (trouble.true, trouble.false) == (state.trouble, state.ending)
    assert (ending.true, ending.false) == (state.ending, state.trouble)


def test_each_feeling_is_stated_in_its_own_paragraph_alone():
    for record in islice(records("train"), 300):
        trouble, ending = story_paragraphs(record)[1::2]
        assert record.sad in trouble and record.glad in ending
        assert not any(re.search(rf"\b{word}\b", ending) for word in world.SAD)
        assert not any(re.search(rf"\b{word}\b", trouble) for word in world.GLAD)


def test_labels_follow_from_the_record():
    rows = TASKS["boolq"]("train", 300)
    claims = _claims("boolq", "train", 300, truths=(False, True), share_of_facts=0.0)
    for row, (question, value, passage) in zip(rows, claims, strict=True):
        assert row["passage"] == passage
        assert f"{row['question']}?" == question.yes_no(value)
        assert (value == question.true) == bool(row["label"])
        assert row["passage"] in story_paragraphs(question.record)[question.paragraph]
        record, in_trouble = question.record, question.paragraph == 1
        assert (record.sad if in_trouble else record.glad) in row["passage"]
    claims = _claims("cb", "train", 300, (True, False, None), SHARE_OF_FACTS)
    assert {type(question.about) for question, _, _ in claims} == {Fact, State}


def test_right_answers_claim_the_true_value():
    rows = TASKS["multirc"]("train", 400)
    pairs = zip(rows.select(range(0, 400, 2)), rows.select(range(1, 400, 2)), strict=True)
    for (_, record, rng), pair in zip(task_stories("multirc", "train", 200), pairs, strict=True):
        question = _question(record, rng, rng.choice((1, 3)), SHARE_OF_FACTS)
        assert pair[0]["paragraph"] == story_paragraphs(record)[question.paragraph]
        assert {row["label"] for row in pair} == {0, 1}
        for row in pair:
            assert row["question"] == question.open()
            assert (row["answer"] == question.claim(question.true)) == bool(row["label"])


@pytest.mark.parametrize(
    ("name", "truths", "labels", "end"),
    [
        ("cb", (True, False, None), (0, 1, 2), "."),
        ("rte", (True, False, True, None), (0, 1, 0, 1), ""),
    ],
)
def test_a_premise_decides_the_claim_unless_it_is_neutral(name, truths, labels, end):
    rows = TASKS[name]("train", 300)
    claims = _claims(name, "train", 300, truths, SHARE_OF_FACTS, once=True)
    for number, (row, (question, value, _)) in enumerate(zip(rows, claims, strict=True)):
        truth = truths[number % len(truths)]
        answering = story_paragraphs(question.record)[question.paragraph]
        assert row["label"] == labels[number % len(truths)]
        assert f"{row['hypothesis']}{end}" == question.claim(value)
        assert answering.startswith(row["premise"]) == (truth is not None)
        if truth is not None:
            assert (value == question.true) == truth


def test_exercises_are_true_of_their_paragraph():
    n_denied = 0
    for record in islice(records("train"), 300):
        paragraph, *lines = render_exercise(record).split("\n")
        number = story_paragraphs(record).index(paragraph)
        topics = [fact for fact in FACTS if fact.paragraph == number]
        questions = [about_fact(fact, record, Random(0)) for fact in topics]
        true = {q.claim(q.true) for q in questions}
        true |= {f"Question: {q.open()}|Answer: {capitalised(q.true)}." for q in questions}
        true |= {f"Question: {q.yes_no(q.true)}|Answer: yes" for q in questions}
        affirmed = {q.yes_no(q.true) for q in questions}
        for state in STATES if number in (1, 3) else ():
            holds, answer = (number == 1), "yes" if number == 1 else "no"
            question = about_state(state, record, number)
            true.add(f"Question: {question.yes_no(state.trouble)}|Answer: {answer}")
            true.add(f"Question: {question.claim(state.trouble)} True or False?|Answer: {holds}")
        items = "\n".join(lines).replace("?\nAnswer", "?|Answer").split("\n")
        assert 1 <= len(items) <= 3
        for item in items:
            if item.endswith("|Answer: no") and item not in true:
                n_denied += 1
                assert item.split("Question: ")[1].split("|")[0] not in affirmed
            else:
                assert item in true
    assert n_denied > 30


PASSAGES = {"boolq": "passage", "multirc": "paragraph", "cb": "premise", "rte": "premise",
            "record": "passage", "storycloze": "story_id"}  # fmt: skip


@pytest.mark.parametrize("name", PASSAGES)
def test_train_and_validation_share_no_passage(name):
    train, validation = (set(TASKS[name](split, n)[PASSAGES[name]]) for split, n in SIZES.items())
    assert not train & validation


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'test' of task 'boolq'.*'validation'"):
        TASKS["boolq"]("test", 4)
