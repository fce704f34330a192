"""The grammar of the stories: recognises the sentences of a story and the facts that they state.

A sentence is admitted if it is one of the wordings of `stories`, filled with words of the right
classes, whether or not it is true. The facts that it states are pairs of a role and a value, such
as ("thing", "kite").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from string import Formatter

from storyworld import world
from storyworld.stories import FORMS, OBSTACLE_PHRASES, PARAGRAPHS, a
from storyworld.world import KINDS, OBSTACLES, SKILLS, THINGS

N_PARTS = sum(len(paragraph) for paragraph in PARAGRAPHS)
_SENTENCE_END = re.compile(r'(?:(?<=[.!?])|(?<=[.!?]"))\s+(?=["A-Z{])')
Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sentence:
    """A sentence and what the grammar finds in it.

    Attributes:
        text: The sentence itself.
        part: The part of a story that it belongs to, 0 to N_PARTS - 1; None if not admitted.
        facts: Pairs of role and value, in the order in which the sentence states them.
    """

    text: str
    part: int | None = None
    facts: Facts = ()


def sentences(text: str) -> list[str]:
    """Split a text into sentences; quoted ones are split too and keep their quotation marks."""
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


@cache
def read_sentence(text: str) -> Sentence:
    """Find the wording that a sentence follows, and the facts that it states."""
    for pattern, part, always in _patterns():
        if match := pattern.fullmatch(text):
            groups = ((group.rstrip("0123456789"), v) for group, v in match.groupdict().items())
            facts = ((role, _MEANINGS.get(role, {}).get(value, value)) for role, value in groups)
            return Sentence(text, part, (*facts, *always))
    return Sentence(text)


@cache
def _patterns() -> list[tuple[re.Pattern, int, Facts]]:
    """For each sentence of each wording: its pattern, its part, and the facts it always states."""
    parts = [wordings for paragraph in PARAGRAPHS for wordings in paragraph]
    return [
        (_regex(sentence), part, facts)
        for part, wordings in enumerate(parts)
        for wording in wordings
        for expanded, facts in _expanded(wording)
        for sentence in sentences(expanded)
    ]


def _expanded(wording: str) -> Iterator[tuple[str, Facts]]:
    """The wording with the phrases of each obstacle, or each way of thanking, in their slots."""
    slots = {slot for _, slot, _, _ in Formatter().parse(wording) if slot}
    if phrases := slots.intersection(OBSTACLE_PHRASES):
        for obstacle in OBSTACLES.values():
            filled = wording
            for slot in phrases:
                filled = filled.replace(f"{{{slot}}}", getattr(obstacle, slot))
            yield filled, (("obstacle", obstacle.name), ("skill", obstacle.skill))
    elif "thanks" in slots:
        for thanks in world.THANKS:
            phrase = thanks.replace("{food}", "{helper_food}")
            yield wording.replace("{thanks}", phrase), (("thanks", thanks),)
    else:
        yield wording, ()


def _regex(template: str) -> re.Pattern:
    """The pattern of a template; slot number n, of some role, becomes the group `<role><n>`."""
    pattern, number = "", count()
    for literal, slot, _, _ in Formatter().parse(template):
        text = literal if pattern else _with_capital(literal)
        pattern += re.escape(text)
        for before, role, values in _slot(slot) if slot else ():
            if not pattern:
                values = [_with_capital(value) for value in values]
            pattern += f"{before}(?P<{role}{next(number)}>{'|'.join(map(re.escape, values))})"
    return re.compile(pattern)


def _with_capital(text: str) -> str:
    start = 1 if text[:1] == '"' else 0
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def _slot(slot: str) -> list[tuple[str, str, list[str]]]:
    """What a slot admits: (text before it, role, values), once or, for an opening, three times."""
    if slot in ("hero", "friend"):
        prefix, name = ("", "name") if slot == "hero" else ("helper_", "helper")
        return [
            ("", f"{prefix}trait", [a(trait) for trait in world.TRAITS]),
            (" ", f"{prefix}kind", _VALUES["kind"]),
            (" named ", name, _VALUES["name"]),
        ]
    if slot in ("a_colour", "a_weather"):
        role = slot[2:]
        return [("", role, [a(value) for value in _VALUES[role]])]
    return [("", _ROLES.get(slot, slot), _VALUES[_CLASSES.get(slot, slot)])]


# Slot -> the values that it admits.
_VALUES: dict[str, list[str]] = {
    "name": [name for names in world.NAMES.values() for name in names],
    "kind": list(KINDS),
    "home": sorted({kind.home for kind in KINDS.values()}),
    "food": sorted({kind.food for kind in KINDS.values()}),
    "thing": list(THINGS),
    "material": sorted({thing.material for thing in THINGS.values()}),
    "use": sorted({thing.use for thing in THINGS.values()}),
    "colour": list(world.COLOURS),
    "weather": list(world.WEATHERS),
    "time": list(world.TIMES),
    "origin": list(world.ORIGINS),
    "sad": list(world.SAD),
    "glad": list(world.GLAD),
    "lesson": list(world.LESSONS),
    "place": sorted({place for obstacle in OBSTACLES.values() for place in obstacle.places}),
    "can": [can for can, _, _ in SKILLS.values()],
    "adjective": [adjective for _, _, adjective in SKILLS.values()],
    **{form: sorted({forms[form] for forms in FORMS.values()}) for form in ("he", "him", "his")},
}
# Slots that take the values of another slot, and slots that state another role.
_CLASSES = {"helper": "name", "helper_kind": "kind", "helper_home": "home", "helper_food": "food"}
_ROLES = {"can": "skill", "adjective": "skill"}
# Role -> the value that a phrase stands for, where they differ.
_MEANINGS: dict[str, dict[str, str]] = {
    "skill": {phrase: name for name, (can, _, good) in SKILLS.items() for phrase in (can, good)},
    **{role: {a(value): value for value in _VALUES[role]} for role in ("colour", "weather")},
    **{role: {a(trait): trait for trait in world.TRAITS} for role in ("trait", "helper_trait")},
    **{form: {v.capitalize(): v for v in _VALUES[form]} for form in ("he", "his")},
}
