"""Reading exercises: a paragraph of a story, then questions with their answers."""

from __future__ import annotations

from random import Random

from linlib.corpora.storyworld.questions import (
    ENDING,
    FACTS,
    STATES,
    TROUBLE,
    Question,
    about_fact,
    about_state,
)
from linlib.corpora.storyworld.record import StoryRecord
from linlib.corpora.storyworld.stories import capitalised, story_paragraphs

N_ITEMS = 3


def render_exercise(record: StoryRecord) -> str:
    """A paragraph of the story and a few items on what it tells, as schoolbooks have them.

    An item on a fact is an open question, a question for yes or no (as often one as the other), or
    a true statement. Where a paragraph tells how things stand, two items ask whether there is
    trouble: for yes or no, or for true or false.
    """
    rng = Random(f"exercise {record.style}")
    told_in = rng.randrange(4)
    states = rng.sample(STATES, 2) if told_in in (TROUBLE, ENDING) else []
    facts = [fact for fact in FACTS if fact.paragraph == told_in]
    facts = rng.sample(facts, min(N_ITEMS - len(states), len(facts)))
    items = [_on_state(about_state(state, record, told_in), rng) for state in states]
    items += [_on_fact(about_fact(fact, record, rng), rng) for fact in facts]
    return "\n".join([story_paragraphs(record)[told_in], *items])


def _on_state(question: Question, rng: Random) -> str:
    trouble = question.about.trouble
    is_so = question.true == trouble
    if rng.random() < 0.5:
        return _item(question.yes_no(trouble), "yes" if is_so else "no")
    return _item(f"{question.claim(trouble)} True or False?", str(is_so))


def _on_fact(question: Question, rng: Random) -> str:
    form = rng.choice(("open", "yes or no", "statement"))
    if form == "statement":
        return question.claim(question.true)
    if form == "open":
        return _item(question.open(), f"{capitalised(question.true)}.")
    answer = rng.choice(("yes", "no"))
    return _item(question.yes_no(question.true if answer == "yes" else question.false), answer)


def _item(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}"
