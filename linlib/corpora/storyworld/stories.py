"""From a record to a story of 100 to 250 words in the register of TinyStories."""

from __future__ import annotations

import re
from random import Random

from linlib.corpora.storyworld import facts
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.record import Character, StoryRecord
from linlib.corpora.storyworld.wordings import PARAGRAPHS

_SENTENCE_START = re.compile(r"""(?:^|[.!?]\s+|\."\s+)"?[a-z]""")

FORMS = {
    "she": {"he": "she", "him": "her", "his": "her"},
    "he": {"he": "he", "him": "him", "his": "his"},
}


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def opening(character: Character) -> str:
    """E.g. "a shy little duck named Anna"."""
    return f"{a(character.trait)} {character.kind} named {character.name}"


def render_story(record: StoryRecord) -> str:
    """Tell the story: wish, obstacle, attempt, help, thanks; paragraphs apart by blank lines."""
    return "\n\n".join(story_paragraphs(record))


def story_paragraphs(record: StoryRecord) -> list[str]:
    """The four paragraphs of a story: who and what, the trouble, the help, the ending."""
    return [" ".join(parts) for parts in story_parts(record)]


def story_parts(record: StoryRecord) -> list[list[str]]:
    """The paragraphs, each as its four parts of a sentence or two."""
    rng = Random(record.style)
    words = _words(record)
    return [
        [capitalised(rng.choice(wordings).format(**words)) for wordings in paragraph]
        for paragraph in PARAGRAPHS
    ]


def _words(record: StoryRecord) -> dict[str, str]:
    hero, helper = record.hero, record.helper
    kind, helper_kind = facts.KINDS[hero.kind], facts.KINDS[helper.kind]
    thing, obstacle = facts.THINGS[record.thing], OBSTACLES[record.obstacle]
    own = {**FORMS[hero.pronoun], "name": hero.name}
    inner = own | {"thing": record.thing, "helper": helper.name, "place": record.place}
    can, _, adjective = facts.SKILLS[obstacle.skill]
    return inner | {
        "hero": opening(hero),
        "friend": opening(helper),
        "kind": hero.kind,
        "helper_kind": helper.kind,
        "she": FORMS[helper.pronoun]["he"],
        "her": FORMS[helper.pronoun]["his"],
        "home": kind.home,
        "helper_home": helper_kind.home,
        "food": kind.food,
        "colour": record.colour,
        "material": thing.material,
        "use": thing.use,
        "origin": record.origin,
        "weather": record.weather,
        "time": record.time,
        "sad": record.sad,
        "glad": record.glad,
        "lesson": record.lesson,
        "can": can,
        "adjective": adjective,
        "a_colour": a(record.colour),
        "a_weather": a(record.weather),
        "happens": obstacle.happens.format(**inner),
        "attempt": obstacle.attempt.format(**inner),
        "fails": obstacle.fails.format(**inner),
        "rescue": obstacle.rescue.format(**inner),
        "thanks": record.thanks.format(**(inner | {"food": helper_kind.food})),
    }


def capitalised(text: str) -> str:
    """Upper-case the first letter of every sentence; speech may go on after "?" and "!"."""
    return _SENTENCE_START.sub(lambda match: match[0].upper(), text)
