"""From a record to a story of 100 to 250 words in the register of TinyStories."""

from __future__ import annotations

import re
from random import Random

from linlib.corpora.storyworld import facts
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.record import Character, StoryRecord

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
    templates = (_introduction(rng), _trouble(rng), _help(rng), _ending(rng))
    return [[capitalised(part.format(**words)) for part in parts] for parts in templates]


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


def _introduction(rng: Random) -> list[str]:
    return [
        rng.choice(
            (
                "once upon a time, there was {hero}.",
                "once there lived {hero}.",
                "this is the story of {hero}.",
                "there once was {hero}.",
            )
        ),
        rng.choice(
            (
                "{name} lived {home} and loved to eat {food}.",
                "{he} lived {home}, and {his} favorite food was {food}.",
                "{name} had a nice home {home}, with plenty of {food} to eat.",
            )
        ),
        rng.choice(
            (
                "one day, {his} {origin} gave {him} {a_colour} {thing} made of {material}.",
                "{his} {origin} had made {a_colour} {thing} out of {material} just for {him}.",
                "for {his} birthday, {name} got {a_colour} {thing} from {his} {origin}. It was "
                "made of {material}.",
            )
        ),
        rng.choice(
            (
                "{name} wanted to {use}.",
                '"Now I can {use}," said {name}.',
                "{he} could not wait to {use}.",
            )
        ),
    ]


def _trouble(rng: Random) -> list[str]:
    return [
        rng.choice(
            (
                "on {a_weather} {time}, {name} took the {thing} to the {place}.",
                "it was {a_weather} {time} when {name} took the {colour} {thing} to the {place}.",
                "one {weather} {time}, {he} walked to the {place} and took the {thing} along.",
            )
        ),
        rng.choice(("but then {happens}.", "suddenly, {happens}.", "but on the way, {happens}.")),
        rng.choice(
            (
                "{name} was very {sad}.",
                "this made {name} {sad}.",
                '"Oh no, my {thing}!" cried {name}, who was now {sad}.',
            )
        ),
        rng.choice(
            (
                "{he} {attempt}, but {fails}.",
                "first, {he} {attempt}. But {fails}.",
                "{name} {attempt}, but it was no use, because {fails}.",
            )
        ),
    ]


def _help(rng: Random) -> list[str]:
    return [
        rng.choice(
            (
                "then {friend} came along.",
                "just then, {he} met {friend}.",
                "nearby, {friend} saw what had happened.",
            )
        ),
        rng.choice(
            (
                "{helper} lived {helper_home} and was {adjective}.",
                "{helper} was {adjective}.",
                "like every {helper_kind}, {helper} could {can}.",
            )
        ),
        rng.choice(
            (
                '"Can you help me?" asked {name}. "Of course," said {helper}, "I can {can}."',
                '"Why are you {sad}?" asked {helper}. {name} told {helper} about the {thing}. '
                '"I can help you," said {helper}.',
                '"Do not worry," said {helper}. "I can {can}. Let me help you."',
            )
        ),
        rng.choice(("{helper} {rescue}.", "so {helper} {rescue}.", "quickly, {helper} {rescue}.")),
    ]


def _ending(rng: Random) -> list[str]:
    return [
        rng.choice(
            (
                "{name} was so {glad} to have the {colour} {thing} back.",
                "now {name} felt {glad} again.",
                '"Thank you, {helper}!" said {name}, who was very {glad}.',
            )
        ),
        rng.choice(
            (
                "to say thank you, {he} {thanks}.",
                "that {time}, {name} {thanks}.",
                "{he} {thanks} to say thank you.",
            )
        ),
        rng.choice(
            (
                "{name} learned that {lesson}.",
                "from that day on, {name} knew that {lesson}.",
                "and {he} never forgot that {lesson}.",
            )
        ),
        rng.choice(
            (
                "{name} and {helper} became good friends.",
                "after that, the {kind} and the {helper_kind} were always together.",
                "they lived happily ever after.",
            )
        ),
    ]


def capitalised(text: str) -> str:
    """Upper-case the first letter of every sentence; speech may go on after "?" and "!"."""
    return _SENTENCE_START.sub(lambda match: match[0].upper(), text)
