"""The world of `storyworld`: who lives in it, what they can do, and what things are for.

Everything that a story, a textbook paragraph or a question says follows from these tables and
from those of `obstacles`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """An animal kind.

    Attributes:
        name: e.g. "duck".
        group: what it is, e.g. "bird".
        skills: keys of `SKILLS`; the first is what the kind is known for.
        covering: what covers its body.
        food: what it likes to eat.
        home: where it lives, e.g. "near the pond".
        legs: how many it has.
    """

    name: str
    group: str
    skills: tuple[str, ...]
    covering: str
    food: str
    home: str
    legs: int


@dataclass(frozen=True)
class Thing:
    """An object that somebody can wish for.

    Attributes:
        name: e.g. "kite".
        material: what it is made of.
        use: what one does with it, e.g. "play with it in the wind".
        heavy: too heavy for a small animal.
    """

    name: str
    material: str
    use: str
    heavy: bool = False


# What an animal can do: (verb phrase after "can", the same as a gerund, as an adjective).
SKILLS = {
    "fly": ("fly high", "flying", "good at flying"),
    "swim": ("swim well", "swimming", "good at swimming"),
    "dig": ("dig deep holes", "digging", "good at digging"),
    "climb": ("climb tall trees", "climbing", "good at climbing"),
    "carry": ("carry heavy things", "carrying things", "very strong"),
    "smell": ("smell things far away", "smelling", "good at finding things"),
    "squeeze": ("squeeze into small holes", "squeezing into holes", "very small"),
    "see": ("see in the dark", "seeing in the dark", "good at seeing in the dark"),
}

KINDS = {
    kind.name: kind
    for kind in (
        Kind("sparrow", "bird", ("fly", "squeeze"), "feathers", "seeds", "in a nest", 2),
        Kind("eagle", "bird", ("fly",), "feathers", "fish", "on a high rock", 2),
        Kind("pigeon", "bird", ("fly",), "feathers", "bread", "on a roof", 2),
        Kind("duck", "bird", ("swim", "fly"), "feathers", "water plants", "near the pond", 2),
        Kind("frog", "amphibian", ("swim",), "smooth skin", "flies", "in the pond", 4),
        Kind("otter", "mammal", ("swim", "dig"), "thick fur", "fish", "by the river", 4),
        Kind("turtle", "reptile", ("swim",), "a hard shell", "leaves", "by the lake", 4),
        Kind("mole", "mammal", ("dig", "squeeze"), "dark fur", "worms", "under the ground", 4),
        Kind("badger", "mammal", ("dig", "smell"), "grey fur", "roots", "in a burrow", 4),
        Kind("rabbit", "mammal", ("dig",), "soft fur", "carrots", "in a burrow", 4),
        Kind("squirrel", "mammal", ("climb", "squeeze"), "red fur", "nuts", "in a hollow tree", 4),
        Kind("monkey", "mammal", ("climb",), "brown fur", "bananas", "in the trees", 4),
        Kind("cat", "mammal", ("climb", "see"), "soft fur", "fish", "in a house", 4),
        Kind(
            "bear",
            "mammal",
            ("carry", "climb", "smell", "swim"),
            "thick fur",
            "honey",
            "in a cave",
            4,
        ),
        Kind("horse", "mammal", ("carry", "swim"), "short hair", "grass", "in a stable", 4),
        Kind(
            "elephant",
            "mammal",
            ("carry", "swim", "smell"),
            "rough skin",
            "leaves",
            "near the lake",
            4,
        ),
        Kind("dog", "mammal", ("smell", "dig", "swim"), "short fur", "meat", "in a house", 4),
        Kind("fox", "mammal", ("smell", "dig", "see"), "red fur", "berries", "in a den", 4),
        Kind("pig", "mammal", ("smell", "dig", "swim"), "pink skin", "corn", "on the farm", 4),
        Kind("mouse", "mammal", ("squeeze", "dig"), "grey fur", "cheese", "in a tiny hole", 4),
        Kind(
            "lizard", "reptile", ("squeeze", "climb"), "dry scales", "ants", "between the rocks", 4
        ),
        Kind("owl", "bird", ("see", "fly"), "feathers", "mice", "in an old tower", 2),
        Kind("bat", "mammal", ("see", "fly"), "thin fur", "moths", "in a cave", 2),
    )
}

THINGS = {
    thing.name: thing
    for thing in (
        Thing("ball", "rubber", "kick it across the grass"),
        Thing("kite", "paper", "let it dance in the wind"),
        Thing("drum", "wood", "play loud music on it"),
        Thing("hat", "wool", "wear it on cold days"),
        Thing("scarf", "wool", "keep warm with it"),
        Thing("cup", "glass", "drink juice from it"),
        Thing("spoon", "metal", "eat soup with it"),
        Thing("key", "metal", "open the old door with it"),
        Thing("bell", "metal", "ring it in the morning"),
        Thing("book", "paper", "read it before bed"),
        Thing("doll", "cloth", "take it along on walks"),
        Thing("blanket", "wool", "sleep under it"),
        Thing("basket", "wood", "carry apples in it"),
        Thing("boat", "wood", "sail it on the water"),
        Thing("lamp", "glass", "light the room with it"),
        Thing("ring", "metal", "wear it at the party"),
        Thing("flute", "wood", "play soft songs on it"),
        Thing("puzzle", "paper", "put it together at the table"),
        Thing("bucket", "metal", "carry water in it"),
        Thing("coat", "cloth", "wear it in the rain"),
        Thing("chair", "wood", "sit on it by the fire", heavy=True),
        Thing("chest", "wood", "keep toys in it", heavy=True),
        Thing("wagon", "wood", "pull friends along in it", heavy=True),
        Thing("bench", "wood", "sit on it with a friend", heavy=True),
        Thing("barrel", "wood", "catch the rain in it", heavy=True),
        Thing("pot", "metal", "cook a big soup in it", heavy=True),
    )
}
