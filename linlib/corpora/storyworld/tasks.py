"""Questions about a passage of a story, in the columns of SuperGLUE; and the table of all tasks.

Every answer follows from the story's record, and a passage is the paragraph that tells it, so that
it fits the windows of small models. Most questions, and all of boolq's, ask how things stand, which
small models can learn; there, but for multirc, the passage is only the beginning of the paragraph,
which tells it. The others ask for one fact, which they must find, and whose false value is the same
fact of another story. A question names a true value as often as a false one: without its passage it
says nothing about its label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from datasets import Dataset

from linlib.corpora.storyworld.choices import arc_easy, copa, storycloze
from linlib.corpora.storyworld.dataset import stories_for
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.questions import (
    ENDING,
    FACTS,
    HELP,
    INTRODUCTION,
    STATES,
    TROUBLE,
    Question,
    about_fact,
    about_state,
)
from linlib.corpora.storyworld.senses import wic
from linlib.corpora.storyworld.stories import story_paragraphs, story_parts

ENTAILMENT, CONTRADICTION, NEUTRAL = range(3)  # labels of cb, as in SuperGLUE
SHARE_OF_FACTS = 0.1  # of the questions


def boolq(split: str, n_rows: int) -> Dataset:
    """Yes-or-no questions: `question`, `passage`, `idx`, `label` (1 is yes), as `super_glue/boolq`.

    Its questions have no question mark.

    Args:
        split: "train" or "validation".
        n_rows: how many; half of them are true.
    """
    rows = []
    for index, (question, _) in enumerate(_questions("boolq", split, n_rows, share_of_facts=0.0)):
        label = index % 2
        asked = question.yes_no(question.true if label else question.false)
        row = {"question": asked.removesuffix("?"), "passage": _telling(question)}
        rows.append(row | {"idx": index, "label": label})
    return Dataset.from_list(rows)


def multirc(split: str, n_rows: int) -> Dataset:
    """Candidate answers, two to a question: the columns of `super_glue/multirc`.

    `paragraph`, `question`, `answer`, `idx` (numbers of paragraph, question and answer), `label`
    (1 is right).

    Args:
        split: "train" or "validation".
        n_rows: how many answers; of the two to a question, one is right.
    """
    rows = []
    for number, (question, rng) in enumerate(_questions("multirc", split, -(-n_rows // 2))):
        for label in rng.sample((0, 1), 2):
            idx = {"paragraph": number, "question": number, "answer": len(rows)}
            rows.append(
                {
                    "paragraph": story_paragraphs(question.record)[question.told_in],
                    "question": question.open(),
                    "answer": question.claim(question.true if label else question.false),
                    "idx": idx,
                    "label": label,
                }
            )
    return Dataset.from_list(rows[:n_rows])


def cb(split: str, n_rows: int) -> Dataset:
    """Does the premise entail the hypothesis? The columns of `super_glue/cb`.

    `premise`, `hypothesis`, `idx`, `label` (0 entailment, 1 contradiction, 2 neutral). A premise
    is neutral where it is a paragraph that does not tell. A hypothesis has no full stop.

    Args:
        split: "train" or "validation".
        n_rows: how many; a third of each label.
    """
    rows = []
    for index, (question, rng) in enumerate(_questions("cb", split, n_rows, once=True)):
        label = index % 3
        true = rng.random() < 0.5 if label == NEUTRAL else label == ENTAILMENT
        premise = _silent(question, rng) if label == NEUTRAL else _telling(question)
        hypothesis = question.claim(question.true if true else question.false)
        row = {"premise": premise, "hypothesis": hypothesis.removesuffix(".")}
        rows.append(row | {"idx": index, "label": label})
    return Dataset.from_list(rows)


def rte(split: str, n_rows: int) -> Dataset:
    """Does the premise entail the hypothesis, or not? The columns of `super_glue/rte`.

    `premise`, `hypothesis`, `idx`, `label` (0 entailment, 1 not). What is not entailed contradicts
    the premise, or is not told there: half of each.

    Args:
        split: "train" or "validation".
        n_rows: how many; half of each label.
    """
    rows = []
    for index, (question, rng) in enumerate(_questions("rte", split, n_rows, once=True)):
        label = index % 2
        is_silent = label == 1 and rng.random() < 0.5
        premise = _silent(question, rng) if is_silent else _telling(question)
        true = rng.random() < 0.5 if is_silent else label == 0
        hypothesis = question.claim(question.true if true else question.false)
        row = {"premise": premise, "hypothesis": hypothesis}
        rows.append(row | {"idx": index, "label": label})
    return Dataset.from_list(rows)


def record(split: str, n_rows: int) -> Dataset:
    """Who is meant? The columns of `super_glue/record`.

    `passage`, `query` (with "@placeholder" in the place of a name), `entities`, `answers`, `idx`
    (numbers of passage and query). The passage tells of the hero and of the helper.

    Args:
        split: "train" or "validation".
        n_rows: how many; half of the answers are the hero.
    """
    rows = []
    for index, story, rng in stories_for("record", split, n_rows):
        about_hero = index % 2 == 0
        query = rng.choice(_HERO_QUERIES if about_hero else _HELPER_QUERIES)
        rescue = OBSTACLES[story.obstacle].rescue.format(thing=story.thing)
        rows.append(
            {
                "passage": story_paragraphs(story)[HELP],
                "query": query.format(thing=story.thing, rescue=rescue),
                "entities": sorted((story.hero.name, story.helper.name)),
                "answers": [(story.hero if about_hero else story.helper).name],
                "idx": {"passage": index, "query": index},
            }
        )
    return Dataset.from_list(rows)


_HERO_QUERIES = ("@placeholder got the {thing} back.", "The {thing} belonged to @placeholder.")
_HELPER_QUERIES = ("@placeholder {rescue}.", "Because of the {thing}, @placeholder helped.")

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


def _questions(
    task: str,
    split: str,
    count: int,
    once: bool = False,
    share_of_facts: float | None = None,
) -> Iterator[tuple[Question, Random]]:
    """Questions, one a story, each with its source of chance; `once`: one paragraph tells it."""
    share = SHARE_OF_FACTS if share_of_facts is None else share_of_facts
    facts = [fact for fact in FACTS if fact.once or not once]
    for _, record, rng in stories_for(task, split, count):
        if rng.random() < share:
            yield about_fact(rng.choice(facts), record, rng), rng
        else:
            told_in = rng.choice((TROUBLE, ENDING))
            yield about_state(rng.choice(STATES), record, told_in), rng


def _telling(question: Question) -> str:
    """The paragraph that tells what is asked, or its beginning, where that tells it already."""
    return _paragraph(question, question.told_in)


def _silent(question: Question, rng: Random) -> str:
    """A paragraph that does not tell what is asked; the first tells of no state."""
    if question.about in STATES:
        return _paragraph(question, INTRODUCTION)
    others = [number for number in range(4) if number != question.told_in]
    return _paragraph(question, rng.choice(others))


def _paragraph(question: Question, number: int) -> str:
    parts = story_parts(question.record)[number]
    if question.about in STATES:  # sorrow is told third in its paragraph, joy first
        parts = parts[:2] if number == ENDING else parts[:3]
    return " ".join(parts)
