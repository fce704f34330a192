"""Tasks of storyworld: SuperGLUE's columns, balanced, true, unreadable without a passage."""

import re
from collections import Counter
from itertools import islice
from random import Random

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from linlib.corpora.storyworld import choices, tasks, words
from linlib.corpora.storyworld.dataset import records, stories_for
from linlib.corpora.storyworld.exercises import render_exercise
from linlib.corpora.storyworld.facts import KINDS, SKILLS, THINGS
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.questions import FACTS, STATES, Fact, State, about_fact, about_state
from linlib.corpora.storyworld.senses import SENSES
from linlib.corpora.storyworld.stories import FORMS, capitalised, story_paragraphs
from linlib.corpora.storyworld.tasks import TASKS, _claims, _question
from linlib.corpora.storyworld.textbook import plural

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


def test_a_task_is_the_same_every_time(task):
    name, splits = task
    assert TASKS[name]("validation", 50)[:] == splits["validation"][:50]


def accuracy_without_passage(name, splits, leak=None):
    """Of a bag of words on what remains: of a text's class, or of the right choice."""
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
    assert accuracy_without_passage(name, splits) < 1 / classes_of(name) + 0.05


def test_the_probe_finds_a_leak_where_there_is_one():
    splits = {split: TASKS["boolq"](split, n) for split, n in SIZES.items()}
    told = accuracy_without_passage(
        "boolq", splits, lambda text, label: f"{text} {'no yes'.split()[label]}"
    )
    assert told > 0.99


def test_choices_differ_and_hold_the_answer_once(task):
    name, splits = task
    for row in splits["validation"]:
        texts = WITHOUT_PASSAGE[name](row)
        assert len(set(texts)) == len(texts)


def test_the_right_cause_effect_and_ending_belong_to_the_story():
    for name in ("copa", "storycloze"):
        seed = {"copa": "copa", "storycloze": "cloze"}[name]
        stories = choices._light_stories(seed, "train", 300)
        for row, (record, _) in zip(TASKS[name]("train", 300), stories, strict=True):
            assert not THINGS[record.thing].heavy
            own = OBSTACLES[record.obstacle]
            right = WITHOUT_PASSAGE[name](row)[label_of(name, row)]
            wrong = WITHOUT_PASSAGE[name](row)[1 - label_of(name, row)]
            parts = [own.rescue, own.happens, own.attempt]
            told = [
                part.format(
                    thing=record.thing, name=record.hero.name, place=record.place,
                    **FORMS[record.hero.pronoun],
                )
                for part in parts
            ]  # fmt: skip
            assert any(part.lower() in right.lower() for part in told)
            assert not any(part.lower() in wrong.lower() for part in told)


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


def test_a_name_is_asked_for_where_both_are_told():
    heroes = 0
    for row, (_, record, _) in zip(
        TASKS["record"]("train", 200), stories_for("record", "train", 200), strict=True
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


def test_labels_follow_from_the_record():
    rows = TASKS["boolq"]("train", 300)
    claims = _claims("boolq", "train", 300, truths=(False, True), share_of_facts=0.0)
    for row, (question, value, _) in zip(rows, claims, strict=True):
        assert f"{row['question']}?" == question.yes_no(value)
        assert (value == question.true) == bool(row["label"])
        assert row["passage"] in story_paragraphs(question.record)[question.told_in]
        record, in_trouble = question.record, question.told_in == 1
        assert (record.sad if in_trouble else record.glad) in row["passage"]
    claims = _claims("cb", "train", 300, truths=(True, False, None))
    assert {type(question.about) for question, _, _ in claims} == {Fact, State}


def test_right_answers_are_told_and_wrong_ones_are_not_the_fact():
    rows = TASKS["multirc"]("train", 400)
    pairs = zip(rows.select(range(0, 400, 2)), rows.select(range(1, 400, 2)), strict=True)
    for (_, record, rng), pair in zip(stories_for("multirc", "train", 200), pairs, strict=True):
        question = _question(record, rng, rng.choice((1, 3)))
        assert pair[0]["paragraph"] == story_paragraphs(record)[question.told_in]
        assert {row["label"] for row in pair} == {0, 1}
        for row in pair:
            assert row["question"] == question.open()
            assert (row["answer"] == question.claim(question.true)) == bool(row["label"])


def test_a_premise_tells_what_is_claimed_unless_it_is_neutral():
    rows = TASKS["cb"]("train", 300)
    claims = _claims("cb", "train", 300, truths=(True, False, None), once=True)
    for row, (question, value, _) in zip(rows, claims, strict=True):
        telling = story_paragraphs(question.record)[question.told_in]
        assert telling.startswith(row["premise"]) == (row["label"] != tasks.NEUTRAL)
        if row["label"] != tasks.NEUTRAL:
            assert f"{row['hypothesis']}." == question.claim(value)
            assert (value == question.true) == (row["label"] == 0)


def test_exercises_tell_the_truth_about_their_paragraph():
    for record in islice(records("train"), 300):
        paragraph, *lines = render_exercise(record).split("\n")
        told_in = story_paragraphs(record).index(paragraph)
        topics = [fact for fact in FACTS if fact.paragraph == told_in]
        questions = [about_fact(fact, record, Random(0)) for fact in topics]
        true = {q.claim(q.true) for q in questions}
        true |= {f"Question: {q.open()}|Answer: {capitalised(q.true)}." for q in questions}
        true |= {f"Question: {q.yes_no(q.true)}|Answer: yes" for q in questions}
        denied = {q.yes_no(q.true) for q in questions}
        for state in STATES if told_in in (1, 3) else ():
            is_so, answer = (told_in == 1), "yes" if told_in == 1 else "no"
            asked = about_state(state, record, told_in)
            true.add(f"Question: {asked.yes_no(state.trouble)}|Answer: {answer}")
            true.add(f"Question: {asked.claim(state.trouble)} True or False?|Answer: {is_so}")
        joined = "\n".join(lines).replace("?\nAnswer", "?|Answer").split("\n")
        assert 1 <= len(joined) <= 3
        for item in joined:
            if item.endswith("|Answer: no") and item not in true:
                assert item.split("Question: ")[1].split("|")[0] not in denied
            else:
                assert item in true


PASSAGES = {"boolq": "passage", "multirc": "paragraph", "cb": "premise", "rte": "premise",
            "record": "passage", "storycloze": "story_id"}  # fmt: skip


@pytest.mark.parametrize("name", PASSAGES)
def test_train_and_validation_share_no_passage(name):
    train, validation = (set(TASKS[name](split, n)[PASSAGES[name]]) for split, n in SIZES.items())
    assert not train & validation


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'test' of task 'boolq'.*'validation'"):
        TASKS["boolq"]("test", 4)
