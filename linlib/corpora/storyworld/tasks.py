"""Questions about a passage of a story, in the columns of SuperGLUE; and the table of all tasks.

Every answer follows from the story's record, and a passage is the paragraph that tells it, so that
it fits the windows of small models. Most questions, and all of boolq's, ask how the hero feels,
which small models can learn; there, but for multirc, the passage is only the beginning of the
paragraph that tells it, and the question is always about the trouble: the passage makes it true or
not, so that whoever reads the passage alone can guess most labels, and whoever reads the question
alone none. The others ask for one fact, which they must find, and whose false value is the same
fact of another story; they name a true value as often as a false one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from datasets import Dataset

from linlib.corpora.storyworld.choices import arc_easy, copa, storycloze
from linlib.corpora.storyworld.dataset import stories_for
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.questions import (
    ENDING,
    FACTS,
    HELP,
    STATES,
    TROUBLE,
    Question,
    about_fact,
    about_state,
    silent,
    telling,
)
from linlib.corpora.storyworld.record import StoryRecord
from linlib.corpora.storyworld.senses import wic
from linlib.corpora.storyworld.stories import story_paragraphs

NEUTRAL = 2  # of cb's labels, as in SuperGLUE: entailment, contradiction, neutral
SHARE_OF_FACTS = 0.1  # of the questions
FEELING = STATES[0]  # sad or happy: what every wording of both paragraphs tells


def boolq(split: str, n_rows: int) -> Dataset:
    """Yes-or-no questions: `question`, `passage`, `idx`, `label` (1 is yes), as `super_glue/boolq`.

    Its questions have no question mark.

    Args:
        split: "train" or "validation".
        n_rows: how many; half of them are true.
    """
    rows = []
    claims = _claims("boolq", split, n_rows, truths=(False, True), share_of_facts=0.0)
    for index, (question, value, _) in enumerate(claims):
        asked = question.yes_no(value).removesuffix("?")
        row = {"question": asked, "passage": telling(question)}
        rows.append(row | {"idx": index, "label": index % 2})
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
    for number, (_, record, rng) in enumerate(stories_for("multirc", split, -(-n_rows // 2))):
        question = _question(record, rng, rng.choice((TROUBLE, ENDING)))
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
    claims = _claims("cb", split, n_rows, truths=(True, False, None), once=True)
    for index, (question, value, rng) in enumerate(claims):
        label = index % 3
        premise = silent(question, rng) if label == NEUTRAL else telling(question)
        row = {"premise": premise, "hypothesis": question.claim(value).removesuffix(".")}
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
    claims = _claims("rte", split, n_rows, truths=(True, False, True, None), once=True)
    for index, (question, value, rng) in enumerate(claims):
        premise = silent(question, rng) if index % 4 == 3 else telling(question)
        row = {"premise": premise, "hypothesis": question.claim(value)}
        rows.append(row | {"idx": index, "label": index % 2})
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


def _claims(
    task: str,
    split: str,
    count: int,
    truths: Sequence[bool | None],
    once: bool = False,
    share_of_facts: float = SHARE_OF_FACTS,
) -> Iterator[tuple[Question, str, Random]]:
    """Questions, one a story, each with the value that a row claims and its source of chance.

    Args:
        task: whose.
        split: "train" or "validation".
        count: how many.
        truths: whether claims are true, in turn; None is as often true as not.
        once: ask only for facts that no second paragraph tells.
        share_of_facts: of the questions.
    """
    for number, record, rng in stories_for(task, split, count):
        true = truths[number % len(truths)]
        true = rng.random() < 0.5 if true is None else true
        question = _question(record, rng, TROUBLE if true else ENDING, once, share_of_facts)
        if question.about is FEELING:
            yield question, question.about.trouble, rng
        else:
            yield question, question.true if true else question.false, rng


def _question(
    record: StoryRecord,
    rng: Random,
    told_in: int,
    once: bool = False,
    share_of_facts: float = SHARE_OF_FACTS,
) -> Question:
    """A question about a fact or, as most of them, about how things stand in a paragraph."""
    if rng.random() < share_of_facts:
        facts = [fact for fact in FACTS if fact.once or not once]
        return about_fact(rng.choice(facts), record, rng)
    return about_state(FEELING, record, told_in)
