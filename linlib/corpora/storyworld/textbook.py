"""Expository paragraphs about the same world: what animals are like, what things are for."""

from __future__ import annotations

from random import Random

from linlib.corpora.storyworld import facts
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.stories import a, capitalised

HELD_OUT_LESSON = 16  # one lesson in so many is held out


def plural(noun: str) -> str:
    """The plural of a noun of this world."""
    irregular = {"mouse": "mice", "fox": "foxes", "bench": "benches"}
    return irregular.get(noun, f"{noun}s")


def render_textbook(seed: int) -> str:
    """A short lesson: one animal, its skill, another that shares it, and a thing of daily life."""
    rng = Random(f"textbook {seed}")
    kind = facts.KINDS[rng.choice(sorted(facts.KINDS))]
    skill = kind.skills[0]
    alike = [k.name for k in facts.KINDS.values() if k.skills[0] == skill and k != kind]
    thing = facts.THINGS[rng.choice(sorted(facts.THINGS))]
    obstacle = rng.choice([o for o in OBSTACLES.values() if o.skill == skill])
    can, gerund, _ = facts.SKILLS[skill]
    words = {
        "kind": kind.name,
        "a_kind": a(kind.name),
        "kinds": plural(kind.name),
        "a_group": a(kind.group),
        "legs": {2: "two", 4: "four"}[kind.legs],
        "covering": kind.covering,
        "food": kind.food,
        "home": kind.home,
        "can": can,
        "gerund": gerund,
        "others": plural(rng.choice(alike)),
        "question": obstacle.question,
        "a_thing": a(thing.name),
        "material": thing.material,
        "use": thing.use,
    }
    sentences = [rng.choice(choices) for choices in _SENTENCES]
    return capitalised(" ".join(sentences).format(**words))


_SENTENCES = (
    (
        "{a_kind} is {a_group}.",
        "{kinds} belong to the animals that we know well: {a_kind} is {a_group}.",
        "today we learn about the {kind}, which is {a_group}.",
    ),
    (
        "it has {legs} legs, and its body is covered with {covering}.",
        "its body is covered with {covering}, and it walks on {legs} legs.",
        "it has {covering} and {legs} legs.",
    ),
    (
        "{kinds} live {home} and eat {food}.",
        "you can find {kinds} {home}, where they look for {food}.",
        "the food of {kinds} is {food}, and their home is {home}.",
    ),
    (
        "{kinds} can {can}.",
        "what {kinds} do best is {gerund}.",
        "every {kind} can {can}.",
    ),
    (
        "{others} can do this too.",
        "in this they are like {others}.",
        "the same is true of {others}.",
    ),
    (
        "this is why {a_kind} can help when {question}.",
        "when {question}, {a_kind} is the right friend to ask.",
        "ask {a_kind} for help when {question}.",
    ),
    (
        "now look at {a_thing}. It is made of {material}, and you can {use}.",
        "here is a question about things: what is {a_thing} for? You can {use}. Most are made of "
        "{material}.",
        "people make things, too. {a_thing} is made of {material}. With one you can {use}.",
    ),
)
