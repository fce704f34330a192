"""The facts of a story, drawn from the world, and the story as text.

A `StoryRecord` holds all the facts; texts, exercises, preference pairs, tasks and scores derive
from the record, never from the text.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from functools import cached_property
from random import Random

from storyworld import world
from storyworld.world import KINDS, OBSTACLES, SKILLS, THINGS

HELDOUT_DIVISOR = 16  # one story in 16 is held out
OBSTACLE_PHRASES = ("happens", "attempt", "fails", "rescue")  # attributes of `world.Obstacle`
_SENTENCE_START = re.compile(r"""(?:^|[.!?]\s+|\."\s+)"?[a-z]""")

# The pronouns of a character; keyed by `Character.pronoun`, then by the slot of a template.
FORMS = {
    "she": {"he": "she", "him": "her", "his": "her"},
    "he": {"he": "he", "him": "him", "his": "his"},
}


@dataclass(frozen=True)
class Character:
    """A name, a pronoun ("she" or "he"), a kind (a key of `KINDS`) and a trait."""

    name: str
    pronoun: str
    kind: str
    trait: str


@dataclass(frozen=True)
class StoryRecord:
    """What happens in one story.

    Attributes:
        hero: Owns the thing and cannot overcome the obstacle.
        helper: Can overcome it, since its kind is known for the obstacle's skill.
        thing: A key of `THINGS`.
        colour: The colour of the thing.
        origin: The one who gave the thing to the hero.
        obstacle: A key of `OBSTACLES`.
        place: Where the thing gets out of reach.
        weather: The weather of that day.
        time: The time of day.
        sad: How the hero feels without the thing.
        glad: How the hero feels at the end.
        thanks: How the hero thanks the helper, a template of `world.THANKS`.
        lesson: What the hero learns.
        style: Seed of the wording; not a fact.
    """

    hero: Character
    helper: Character
    thing: str
    colour: str
    origin: str
    obstacle: str
    place: str
    weather: str
    time: str
    sad: str
    glad: str
    thanks: str
    lesson: str
    style: int

    def as_dict(self) -> dict[str, object]:
        """All attributes, with the characters as dicts; `dataclasses.asdict` is too slow."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"hero": vars(self.hero), "helper": vars(self.helper)}

    @cached_property
    def key(self) -> str:
        """SHA-256 of the facts, in hexadecimal; the same for every wording of them."""
        facts = {name: value for name, value in self.as_dict().items() if name != "style"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def is_heldout(self) -> bool:
        """Whether the story is held out; depends on its facts alone, so splits share no story."""
        return int(self.key[:8], 16) % HELDOUT_DIVISOR == 0


def sample_record(seed: int) -> StoryRecord:
    """Draw the facts of one story; a seed gives the same facts on every platform.

    The helper's kind is known for the skill that the obstacle calls for, and the hero's kind lacks
    it. A heavy thing meets the obstacle "heavy" and no other, and no light thing meets it.
    """
    rng = Random(seed)
    thing = THINGS[rng.choice(sorted(THINGS))]
    fitting = [name for name in sorted(OBSTACLES) if (name == "heavy") == thing.heavy]
    obstacle = OBSTACLES[rng.choice(fitting)]
    kinds = sorted(KINDS)
    able = [name for name in kinds if KINDS[name].skills[0] == obstacle.skill]
    unable = [name for name in kinds if obstacle.skill not in KINDS[name].skills]
    hero = _character(rng, rng.choice(unable), taken="")
    helper = _character(rng, rng.choice(able), taken=hero.name)
    return StoryRecord(
        hero=hero,
        helper=helper,
        thing=thing.name,
        colour=rng.choice(world.COLOURS),
        origin=rng.choice(world.ORIGINS),
        obstacle=obstacle.name,
        place=rng.choice(obstacle.places),
        weather=rng.choice(world.WEATHERS),
        time=rng.choice(world.TIMES),
        sad=rng.choice(world.SAD),
        glad=rng.choice(world.GLAD),
        thanks=rng.choice(world.THANKS),
        lesson=rng.choice(world.LESSONS),
        style=rng.getrandbits(32),
    )


def _character(rng: Random, kind: str, taken: str) -> Character:
    pronoun = rng.choice(sorted(world.NAMES))
    name = rng.choice([name for name in world.NAMES[pronoun] if name != taken])
    return Character(name, pronoun, kind, rng.choice(world.TRAITS))


def render_story(record: StoryRecord) -> str:
    """The story as text: 100 to 250 words in the register of TinyStories.

    Its four paragraphs are separated by blank lines.
    """
    return "\n\n".join(story_paragraphs(record))


def story_paragraphs(record: StoryRecord) -> list[str]:
    """The four paragraphs of a story: the introduction, the trouble, the help and the ending."""
    return [" ".join(parts) for parts in story_parts(record)]


def story_parts(record: StoryRecord) -> list[list[str]]:
    """The four paragraphs, each as its four parts of one or more sentences."""
    rng = Random(record.style)
    words = _words(record)
    return [
        [capitalised(rng.choice(wordings).format(**words)) for wordings in paragraph]
        for paragraph in PARAGRAPHS
    ]


def fill(template: str, record: StoryRecord, **more: str) -> str:
    """Fill the slots of a template with words of the story, and with `more` words."""
    return capitalised(template.format(**(_words(record) | more)))


def capitalised(text: str) -> str:
    """Upper-case the first letter of all sentences; speech may continue after "?" and "!"."""
    return _SENTENCE_START.sub(lambda match: match[0].upper(), text)


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _words(record: StoryRecord) -> dict[str, object]:
    """The word of the story for each slot of a template; most attributes of a record are slots."""
    hero, helper = record.hero, record.helper
    kind, helper_kind = KINDS[hero.kind], KINDS[helper.kind]
    thing, obstacle = THINGS[record.thing], OBSTACLES[record.obstacle]
    can, _, adjective = SKILLS[obstacle.skill]
    words = vars(record) | FORMS[hero.pronoun] | {"name": hero.name, "helper": helper.name}
    words |= {slot: getattr(obstacle, slot).format(**words) for slot in OBSTACLE_PHRASES}
    words["thanks"] = record.thanks.format(**(words | {"food": helper_kind.food}))
    return words | {
        "hero": _opening(hero),
        "friend": _opening(helper),
        "kind": hero.kind,
        "helper_kind": helper.kind,
        "home": kind.home,
        "helper_home": helper_kind.home,
        "food": kind.food,
        "material": thing.material,
        "use": thing.use,
        "can": can,
        "adjective": adjective,
        "a_colour": a(record.colour),
        "a_weather": a(record.weather),
    }


def _opening(character: Character) -> str:
    return f"{a(character.trait)} {character.kind} named {character.name}"


# The wordings of a story: four paragraphs of four parts each, and the templates of each part.
PARAGRAPHS = (
    (  # the introduction
        (
            "once upon a time, there was {hero}.",
            "once there lived {hero}.",
            "this is the story of {hero}.",
            "there once was {hero}.",
        ),
        (
            "{name} lived {home} and loved to eat {food}.",
            "{he} lived {home}, and {his} favorite food was {food}.",
            "{name} had a nice home {home}, with plenty of {food} to eat.",
        ),
        (
            "one day, {his} {origin} gave {him} {a_colour} {thing} made of {material}.",
            "{his} {origin} had made {a_colour} {thing} out of {material} just for {him}.",
            "for {his} birthday, {name} got {a_colour} {thing} from {his} {origin}. It was made of "
            "{material}.",
        ),
        (
            "{name} wanted to {use}.",
            '"Now I can {use}," said {name}.',
            "{he} could not wait to {use}.",
        ),
    ),
    (  # the trouble
        (
            "on {a_weather} {time}, {name} took the {thing} to the {place}.",
            "it was {a_weather} {time} when {name} took the {colour} {thing} to the {place}.",
            "one {weather} {time}, {he} walked to the {place} and took the {thing} along.",
        ),
        (
            "but then {happens}.",
            "suddenly, {happens}.",
            "but on the way, {happens}.",
        ),
        (
            "{name} was very {sad}.",
            "this made {name} {sad}.",
            '"Oh no, my {thing}!" cried {name}, who was now {sad}.',
        ),
        (
            "{he} {attempt}, but {fails}.",
            "first, {he} {attempt}. But {fails}.",
            "{name} {attempt}, but it was no use, because {fails}.",
        ),
    ),
    (  # the help
        (
            "then {friend} came along.",
            "just then, {he} met {friend}.",
            "nearby, {friend} saw what had happened.",
        ),
        (
            "{helper} lived {helper_home} and was {adjective}.",
            "{helper} was {adjective}.",
            "like every {helper_kind}, {helper} could {can}.",
        ),
        (
            '"Can you help me?" asked {name}. "Of course," said {helper}, "I can {can}."',
            '"Why are you {sad}?" asked {helper}. {name} told {helper} about the {thing}. '
            '"I can help you," said {helper}.',
            '"Do not worry," said {helper}. "I can {can}. Let me help you."',
        ),
        (
            "{helper} {rescue}.",
            "so {helper} {rescue}.",
            "quickly, {helper} {rescue}.",
        ),
    ),
    (  # the ending
        (
            "{name} was so {glad} to have the {colour} {thing} back.",
            "now {name} felt {glad} again.",
            '"Thank you, {helper}!" said {name}, who was very {glad}.',
        ),
        (
            "to say thank you, {he} {thanks}.",
            "that {time}, {name} {thanks}.",
            "{he} {thanks} to say thank you.",
        ),
        (
            "{name} learned that {lesson}.",
            "from that day on, {name} knew that {lesson}.",
            "and {he} never forgot that {lesson}.",
        ),
        (
            "{name} and {helper} became good friends.",
            "after that, the {kind} and the {helper_kind} were always together.",
            "they lived happily ever after.",
        ),
    ),
)
