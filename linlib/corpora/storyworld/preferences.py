"""Preference pairs: a child's question, a helpful answer, and one that does not help."""

from __future__ import annotations

from random import Random

from linlib.corpora.storyworld import facts
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.record import StoryRecord
from linlib.corpora.storyworld.stories import a, capitalised


def render_preference(record: StoryRecord) -> dict[str, str]:
    """Two dialogues that share their question: columns `chosen` and `rejected`.

    The answers share their wording too. The chosen one names an animal that has the skill which
    the trouble asks for; the rejected one names an animal that has another skill. Nothing but
    the world tells which is which.
    """
    rng = Random(f"preference {record.style}")
    obstacle = OBSTACLES[record.obstacle]
    able = [k for k in facts.KINDS.values() if k.skills[0] == obstacle.skill]
    unable = [k for k in facts.KINDS.values() if obstacle.skill not in k.skills]
    question = rng.choice(_QUESTIONS).format(
        a_colour=a(record.colour), thing=record.thing, question=obstacle.question
    )
    answer = rng.choice(_ANSWERS)
    pair = {}
    for column, kinds in (("chosen", able), ("rejected", unable)):
        kind = rng.choice(kinds)
        can = facts.SKILLS[kind.skills[0]][0]
        reply = answer.format(a_kind=a(kind.name), can=can, thing=record.thing)
        pair[column] = f"\n\nHuman: {capitalised(question)}\n\nAssistant: {capitalised(reply)}"
    return pair


_QUESTIONS = (
    "I have {a_colour} {thing}, but now {question}. Who can help me?",
    "my {thing} is gone, because {question}. Whom should I ask?",
    "what can I do when {question}? I want my {thing} back.",
)
_ANSWERS = (
    "you should ask {a_kind}. It can {can}, so it will bring your {thing} back.",
    "do not worry. Find {a_kind}, because it can {can}. Then you will have your {thing} again.",
    "ask {a_kind} for help. It can {can}, and that is just what you need for your {thing}.",
)
