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

N_QUESTIONS = 3


def render_exercise(record: StoryRecord) -> str:
    """A paragraph of the story and a few items on what it tells, as schoolbooks have them.

    An item is an open question, a question for yes or no (as often one as the other), or a true
    statement.
    """
    rng = Random(f"exercise {record.style}")
    told_in = rng.randrange(4)
    topics = [fact for fact in FACTS if fact.paragraph == told_in]
    if told_in in (TROUBLE, ENDING):
        topics += STATES
    items = [
        _item(
            about_fact(topic, record, rng)
            if topic in FACTS
            else about_state(topic, record, told_in),
            rng,
        )
        for topic in rng.sample(topics, min(N_QUESTIONS, len(topics)))
    ]
    return "\n".join([story_paragraphs(record)[told_in], *items])


def _item(question: Question, rng: Random) -> str:
    form = rng.choice(("open", "yes or no", "statement"))
    if form == "statement":
        return question.claim(question.true)
    if form == "open":
        return f"Question: {question.open()}\nAnswer: {capitalised(question.true)}."
    answer = rng.choice(("yes", "no"))
    asked = question.yes_no(question.true if answer == "yes" else question.false)
    return f"Question: {asked}\nAnswer: {answer}"
