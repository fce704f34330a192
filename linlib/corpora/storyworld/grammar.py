"""The sentences that the world's stories admit, and what each of them tells: stories read back.

A sentence is admitted if it is one of the wordings, filled in with words of the right classes, true
of the story or not. What it tells are pairs of a role and a value, e.g. ("thing", "kite").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from string import Formatter

from linlib.corpora.storyworld import facts, words
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.stories import FORMS, a
from linlib.corpora.storyworld.wordings import PARAGRAPHS

SENTENCE_END = re.compile(r'(?:(?<=[.!?])|(?<=[.!?]"))\s+(?=["A-Z{])')
N_PARTS = sum(len(paragraph) for paragraph in PARAGRAPHS)


@dataclass(frozen=True)
class Sentence:
    """One sentence, read.

    Attributes:
        text: as it stands.
        part: which part of a story it belongs to, 0 .. N_PARTS - 1; None if it is not admitted.
        told: pairs of role and value, in their order.
    """

    text: str
    part: int | None = None
    told: tuple[tuple[str, str], ...] = ()


def sentences(text: str) -> list[str]:
    """Cut a text into sentences; speech is cut too, and keeps its quotation marks."""
    return [found for found in SENTENCE_END.split(text.strip()) if found]


@cache
def read_sentence(text: str) -> Sentence:
    """Find the wording that a sentence is, and what it tells."""
    for pattern in _patterns():
        if match := pattern.regex.fullmatch(text):
            said = [(role.rstrip("0123456789"), value) for role, value in match.groupdict().items()]
            told = [(role, _MEANING.get(role, {}).get(value, value)) for role, value in said]
            return Sentence(text, pattern.part, (*told, *pattern.told))
    return Sentence(text)


@dataclass(frozen=True)
class _Pattern:
    """A sentence of a wording: what it looks like, where it belongs, what it tells by itself."""

    regex: re.Pattern
    part: int
    told: tuple[tuple[str, str], ...]


@cache
def _patterns() -> list[_Pattern]:
    parts = [wordings for paragraph in PARAGRAPHS for wordings in paragraph]
    return [
        _Pattern(_regex(sentence), number, told)
        for number, wordings in enumerate(parts)
        for wording in wordings
        for spelt_out, told in _spelt_out(wording)
        for sentence in SENTENCE_END.split(spelt_out)
    ]


def _spelt_out(wording: str) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """The wording with each obstacle's, and each way of giving thanks, in the place of its slot."""
    slots = {slot for _, slot, _, _ in Formatter().parse(wording) if slot}
    if slots & {"happens", "attempt", "fails", "rescue"}:
        for obstacle in OBSTACLES.values():
            filled = wording
            for slot in ("happens", "attempt", "fails", "rescue"):
                filled = filled.replace(f"{{{slot}}}", getattr(obstacle, slot))
            yield filled, (("obstacle", obstacle.name), ("skill", obstacle.skill))
    elif "thanks" in slots:
        for thanks in words.THANKS:
            told = thanks.replace("{food}", "{helper_food}")
            yield wording.replace("{thanks}", told), (("thanks", thanks),)
    else:
        yield wording, ()


def _regex(template: str) -> re.Pattern:
    """A template as a pattern; slot number n of a role is the group `<role><n>`."""
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
    """What may stand in a slot: (text before it, role, values), one or, of an opening, three."""
    if slot in ("hero", "friend"):
        who = "" if slot == "hero" else "helper_"
        name = "name" if slot == "hero" else "helper"
        return [
            ("", f"{who}trait", [a(trait) for trait in words.TRAITS]),
            (" ", f"{who}kind", _VALUES["kind"]),
            (" named ", name, _VALUES["name"]),
        ]
    if slot in ("a_colour", "a_weather"):
        role = slot[2:]
        return [("", role, [a(value) for value in _VALUES[role]])]
    return [("", _ROLES.get(slot, slot), _VALUES[_CLASSES.get(slot, slot)])]


def _values(name: str) -> list[str]:
    kinds = (getattr(kind, name) for kind in facts.KINDS.values())
    return sorted(set(kinds), key=len, reverse=True)


_THINGS = facts.THINGS.values()
_VALUES: dict[str, list[str]] = {
    "name": [name for names in words.NAMES.values() for name in names],
    "kind": list(facts.KINDS),
    "home": _values("home"),
    "food": _values("food"),
    "thing": list(facts.THINGS),
    "material": sorted({thing.material for thing in _THINGS}),
    "use": sorted({thing.use for thing in _THINGS}),
    "colour": list(words.COLOURS),
    "weather": list(words.WEATHERS),
    "time": list(words.TIMES),
    "origin": list(words.ORIGINS),
    "sad": list(words.SAD),
    "glad": list(words.GLAD),
    "lesson": list(words.LESSONS),
    "place": sorted({place for obstacle in OBSTACLES.values() for place in obstacle.places}),
    "can": [can for can, _, _ in facts.SKILLS.values()],
    "adjective": [adjective for _, _, adjective in facts.SKILLS.values()],
    **{form: sorted({forms[form] for forms in FORMS.values()}) for form in ("he", "him", "his")},
}
# Slots whose values are those of another slot, and slots that tell of another's role.
_CLASSES = {"helper": "name", "helper_kind": "kind", "helper_home": "home", "helper_food": "food"}
_ROLES = {"can": "skill", "adjective": "skill"}
# Values that are said in several ways.
_MEANING: dict[str, dict[str, str]] = {
    "skill": {said: name for name, (can, _, good) in facts.SKILLS.items() for said in (can, good)},
    **{role: {a(value): value for value in _VALUES[role]} for role in ("colour", "weather")},
    **{role: {a(trait): trait for trait in words.TRAITS} for role in ("trait", "helper_trait")},
    **{form: {v.capitalize(): v for v in _VALUES[form]} for form in ("he", "his")},
}
