"""Questions about a passage of a story, in the columns of SuperGLUE; and the table of all tasks.

All answers follow from the facts of the story. A passage is at most the paragraph that states the
answer, so that it fits into the windows of small models.

Most questions, and all of boolq's, ask how the hero feels, which small models can learn to answer.
They ask whether there is trouble, and the passage (except in multirc, the beginning of a paragraph)
decides whether that is so: the question alone reveals nothing about the label, whereas the passage
alone reveals most labels. The other questions ask for a single fact, which has to be found in the
passage; they name the true value and the value of another story equally often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

from storyworld.choices import arc_easy, copa, storycloze, wic
from storyworld.corpus import task_stories, to_dataset
from storyworld.questions import (
    ENDING,
    FACTS,
    HELP,
    STATES,
    TROUBLE,
    Question,
    about_fact,
    about_state,
)
from storyworld.stories import StoryRecord, fill, story_paragraphs

if TYPE_CHECKING:
    from datasets import Dataset

SHARE_OF_FACTS = 0.1  # share of the questions that ask for a fact
FEELING = STATES[0]  # sad or happy: all wordings of both paragraphs state it


def boolq(split: str, n_rows: int) -> Dataset:
    """Yes-or-no questions. The columns of `super_glue/boolq`.

    `question` (without a question mark), `passage`, `idx`, `label` (1 stands for yes).

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, half of them with each label.
    """
    rows = []
    claims = _claims("boolq", split, n_rows, truths=(False, True), share_of_facts=0.0)
    for index, (question, value, passage) in enumerate(claims):
        row = {"question": question.yes_no(value).removesuffix("?"), "passage": passage}
        rows.append(row | {"idx": index, "label": index % 2})
    return to_dataset(rows)


def multirc(split: str, n_rows: int) -> Dataset:
    """Is an answer to a question right? The columns of `super_glue/multirc`.

    `paragraph`, `question`, `answer`, `idx` (the numbers of paragraph, question and answer),
    `label` (1 stands for right). Each question has two answers, one of which is right.

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, that is, of answers.
    """
    rows = []
    for number, record, rng in task_stories("multirc", split, -(-n_rows // 2)):
        question = _question(record, rng, rng.choice((TROUBLE, ENDING)), SHARE_OF_FACTS)
        for label in rng.sample((0, 1), 2):
            row = {
                "paragraph": story_paragraphs(record)[question.paragraph],
                "question": question.open(),
                "answer": question.claim(question.true if label else question.false),
                "idx": {"paragraph": number, "question": number, "answer": len(rows)},
                "label": label,
            }
            rows.append(row)
    return to_dataset(rows[:n_rows])


def cb(split: str, n_rows: int) -> Dataset:
    """Does the premise entail or contradict the hypothesis? The columns of `super_glue/cb`.

    `premise`, `hypothesis` (without a full stop), `idx`, `label` (0 entailment, 1 contradiction,
    2 neutral). A neutral premise is a paragraph that says nothing about the hypothesis.

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, a third of them with each label.
    """
    rows = []
    claims = _claims("cb", split, n_rows, (True, False, None), SHARE_OF_FACTS, once=True)
    for index, (question, value, premise) in enumerate(claims):
        row = {"premise": premise, "hypothesis": question.claim(value).removesuffix(".")}
        rows.append(row | {"idx": index, "label": index % 3})
    return to_dataset(rows)


def rte(split: str, n_rows: int) -> Dataset:
    """Does the premise entail the hypothesis? The columns of `super_glue/rte`.

    `premise`, `hypothesis`, `idx`, `label` (0 entailment, 1 no entailment). Of the hypotheses that
    are not entailed, one half contradict the premise; the premise says nothing about the others.

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, half of them with each label.
    """
    rows = []
    claims = _claims("rte", split, n_rows, (True, False, True, None), SHARE_OF_FACTS, once=True)
    for index, (question, value, premise) in enumerate(claims):
        row = {"premise": premise, "hypothesis": question.claim(value)}
        rows.append(row | {"idx": index, "label": index % 2})
    return to_dataset(rows)


def record(split: str, n_rows: int) -> Dataset:
    """Which of two characters is meant? The columns of `super_glue/record`.

    `passage` (a paragraph about the hero and the helper), `query` (with "@placeholder" in place of
    a name), `entities`, `answers`, `idx` (the numbers of passage and query).

    Args:
        split: "train" or "validation".
        n_rows: The number of rows; the hero is the answer to half of them.
    """
    rows = []
    for index, story, rng in task_stories("record", split, n_rows):
        about_hero = index % 2 == 0
        query = rng.choice(_HERO_QUERIES if about_hero else _HELPER_QUERIES)
        row = {
            "passage": story_paragraphs(story)[HELP],
            "query": fill(query, story),
            "entities": sorted((story.hero.name, story.helper.name)),
            "answers": [(story.hero if about_hero else story.helper).name],
            "idx": {"passage": index, "query": index},
        }
        rows.append(row)
    return to_dataset(rows)


_HERO_QUERIES = ("@placeholder got the {thing} back.", "The {thing} belonged to @placeholder.")
_HELPER_QUERIES = ("@placeholder {rescue}.", "Because of the {thing}, @placeholder helped.")

# Task -> function of the split ("train" or "validation") and the number of rows.
TASKS: dict[str, Callable[[str, int], Dataset]] = {
    "arc_easy": arc_easy,
    "boolq": boolq,
    "cb": cb,
    "copa": copa,
    "multirc": multirc,
    "record": record,
    "rte": rte,
    "storycloze": storycloze,
    "wic": wic,
}


def _claims(
    task: str,
    split: str,
    n_rows: int,
    truths: Sequence[bool | None],
    share_of_facts: float,
    once: bool = False,
) -> Iterator[tuple[Question, str, str]]:
    """One question per story, with the value that the row claims and the row's passage.

    Args:
        task: The task's name, part of the seed.
        split: "train" or "validation".
        n_rows: The number of questions.
        truths: Whether the passage makes the claim true, in turn; None if it says nothing about it.
        share_of_facts: The share of the questions that ask for a fact rather than a state.
        once: Whether to ask only for facts that a single paragraph states.
    """
    for number, story, rng in task_stories(task, split, n_rows):
        truth = truths[number % len(truths)]
        true = rng.random() < 0.5 if truth is None else truth
        question = _question(story, rng, TROUBLE if true else ENDING, share_of_facts, once)
        value = question.true if true else question.false  # for a feeling, that of the trouble
        neutral = truth is None
        passage = question.unrelated_passage(rng) if neutral else question.supporting_passage()
        yield question, value, passage


def _question(
    story: StoryRecord, rng: Random, paragraph: int, share_of_facts: float, once: bool = False
) -> Question:
    """A question about any fact or, failing that, about the hero's feeling in a paragraph."""
    if rng.random() < share_of_facts:
        facts = [fact for fact in FACTS if fact.once or not once]
        return about_fact(rng.choice(facts), story, rng)
    return about_state(FEELING, story, paragraph)
