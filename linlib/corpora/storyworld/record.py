"""The facts behind a story, as a typed record that stories, tasks and judges derive from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from random import Random

from linlib.corpora.storyworld import facts, words
from linlib.corpora.storyworld.obstacles import OBSTACLES

HELD_OUT_SHARE = 16  # one story in 16 is held out


@dataclass(frozen=True)
class Character:
    """Who: a name, a pronoun ("she" or "he"), a kind (key of `facts.KINDS`) and a trait."""

    name: str
    pronoun: str
    kind: str
    trait: str


@dataclass(frozen=True)
class StoryRecord:
    """What happens in one story.

    Attributes:
        hero: who wants the thing; cannot overcome the obstacle alone.
        helper: who can, because its kind is known for the obstacle's skill.
        thing: key of `facts.THINGS`; the hero got it from `origin`.
        colour: of the thing.
        origin: who gave the thing to the hero.
        obstacle: key of `OBSTACLES`.
        place: where the thing gets out of reach.
        weather: that day's.
        time: of day.
        sad: how the hero feels without the thing.
        glad: how the hero feels at the end.
        thanks: how the hero thanks the helper, a template of `words.THANKS`.
        lesson: what the hero learns.
        style: seed of the wording, which is no fact.
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
        """All attributes, with characters as dicts too; `dataclasses.asdict` is slow."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return told | {"hero": vars(self.hero), "helper": vars(self.helper)}

    @cached_property
    def key(self) -> str:
        """Digest of all facts; the wording has no part in it."""
        told = {name: value for name, value in self.as_dict().items() if name != "style"}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def is_heldout(self) -> bool:
        """The split is a matter of the facts, so that no story is in both, however worded."""
        return int(self.key[:8], 16) % HELD_OUT_SHARE == 0


def sample_record(seed: int) -> StoryRecord:
    """Draw the facts of one story; the same on every platform.

    The helper's kind is known for the one skill that the obstacle asks for, and the hero's lacks
    it. Only a heavy thing can be too heavy, and nothing else befalls it.
    """
    rng = Random(seed)
    thing = facts.THINGS[rng.choice(sorted(facts.THINGS))]
    fitting = [name for name in sorted(OBSTACLES) if (name == "heavy") == thing.heavy]
    obstacle = OBSTACLES[rng.choice(fitting)]
    kinds = sorted(facts.KINDS)
    able = [name for name in kinds if facts.KINDS[name].skills[0] == obstacle.skill]
    unable = [name for name in kinds if obstacle.skill not in facts.KINDS[name].skills]
    hero = _character(rng, rng.choice(unable), taken="")
    helper = _character(rng, rng.choice(able), taken=hero.name)
    return StoryRecord(
        hero=hero,
        helper=helper,
        thing=thing.name,
        colour=rng.choice(words.COLOURS),
        origin=rng.choice(words.ORIGINS),
        obstacle=obstacle.name,
        place=rng.choice(obstacle.places),
        weather=rng.choice(words.WEATHERS),
        time=rng.choice(words.TIMES),
        sad=rng.choice(words.SAD),
        glad=rng.choice(words.GLAD),
        thanks=rng.choice(words.THANKS),
        lesson=rng.choice(words.LESSONS),
        style=rng.getrandbits(32),
    )


def _character(rng: Random, kind: str, taken: str) -> Character:
    pronoun = rng.choice(sorted(words.NAMES))
    name = rng.choice([name for name in words.NAMES[pronoun] if name != taken])
    return Character(name, pronoun, kind, rng.choice(words.TRAITS))
