"""The world: its animals, what they can do, its things, what can go wrong, and its words.

Whatever a story, a lesson or a question says about the world follows from these tables. The
sentences themselves are in `stories`, `questions`, `corpus` and `choices`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of animal.

    Attributes:
        name: Such as "duck".
        group: The class it belongs to, such as "bird".
        skills: Keys of `SKILLS`; the first is the one that the kind is known for.
        covering: What covers its body.
        food: What it likes to eat.
        home: Where it lives, such as "near the pond".
        legs: The number of its legs.
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
    """An object that an animal can be given.

    Attributes:
        name: Such as "kite".
        material: What it is made of.
        use: What one can do with it, such as "let it dance in the wind".
        heavy: Whether it is too heavy for a small animal.
    """

    name: str
    material: str
    use: str
    heavy: bool = False


@dataclass(frozen=True)
class Obstacle:
    """What keeps the hero from the thing, and the one skill that overcomes it.

    The phrases may have slots that a story fills in: {thing}, {name}, {he}, {his}.

    Attributes:
        name: A short key.
        skill: A key of `SKILLS`.
        happens: What puts the thing out of reach.
        attempt: What the hero tries in vain.
        fails: Why the attempt fails.
        rescue: What the helper does; follows the helper's name.
        places: Where it can happen.
        question: The trouble in general terms; follows "Who can help when".
    """

    name: str
    skill: str
    happens: str
    attempt: str
    fails: str
    rescue: str
    places: tuple[str, ...]
    question: str


# Skill: (verb phrase after "can", gerund, adjective).
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
        Kind("bear", "mammal", ("carry", "climb", "smell", "swim"), "thick fur",
             "honey", "in a cave", 4),
        Kind("horse", "mammal", ("carry", "swim"), "short hair", "grass", "in a stable", 4),
        Kind("elephant", "mammal", ("carry", "swim", "smell"), "rough skin",
             "leaves", "near the lake", 4),
        Kind("dog", "mammal", ("smell", "dig", "swim"), "short fur", "meat", "in a house", 4),
        Kind("fox", "mammal", ("smell", "dig", "see"), "red fur", "berries", "in a den", 4),
        Kind("pig", "mammal", ("smell", "dig", "swim"), "pink skin", "corn", "on the farm", 4),
        Kind("mouse", "mammal", ("squeeze", "dig"), "grey fur", "cheese", "in a tiny hole", 4),
        Kind("lizard", "reptile", ("squeeze", "climb"), "dry scales", "ants",
             "between the rocks", 4),
        Kind("owl", "bird", ("see", "fly"), "feathers", "mice", "in an old tower", 2),
        Kind("bat", "mammal", ("see", "fly"), "thin fur", "moths", "in a cave", 2),
    )
}  # fmt: skip

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

OBSTACLES = {
    obstacle.name: obstacle
    for obstacle in (
        Obstacle(
            "roof", "fly", "the wind blew the {thing} onto a very high roof",
            "jumped as high as {he} could", "the roof was much too high",
            "flew up to the roof and brought the {thing} down",
            ("town", "farm", "school", "market"), "something lies on a high roof",
        ),
        Obstacle(
            "cliff", "fly", "the {thing} fell onto a narrow rock on the cliff",
            "tried to walk along the cliff", "the path was much too narrow",
            "flew to the narrow rock and picked up the {thing}",
            ("beach", "mountain", "valley"), "something lies on a narrow rock",
        ),
        Obstacle(
            "water", "swim", "the {thing} rolled into the deep water",
            "reached out with a long stick", "the water was much too deep",
            "swam out and pulled the {thing} to the shore",
            ("lake", "river", "beach", "pond"), "something floats in deep water",
        ),
        Obstacle(
            "island", "swim", "the waves took the {thing} to a small island",
            "looked for a bridge", "there was no bridge at all",
            "swam to the island and came back with the {thing}",
            ("lake", "river", "beach"), "something lies on an island",
        ),
        Obstacle(
            "buried", "dig", "the {thing} sank deep into the soft sand",
            "pushed the sand away again and again", "more sand fell back each time",
            "dug a deep hole and pulled out the {thing}",
            ("beach", "garden", "field", "valley"), "something is buried in the sand",
        ),
        Obstacle(
            "wall", "dig", "a thick wall stood between {name} and the {thing}",
            "walked all the way around", "the wall had no door",
            "dug a tunnel under the wall and came back with the {thing}",
            ("garden", "town", "farm", "castle"), "a thick wall is in the way",
        ),
        Obstacle(
            "tree", "climb", "the {thing} got stuck at the top of a tall tree",
            "shook the tree with all {his} might", "the {thing} did not fall",
            "climbed the tall tree and threw the {thing} down",
            ("forest", "park", "garden", "school"), "something is stuck in a tall tree",
        ),
        Obstacle(
            "heavy", "carry", "the {thing} was so heavy that it did not move",
            "pushed and pulled for a long time", "the {thing} stayed where it was",
            "lifted the {thing} and carried it all the way home",
            ("market", "farm", "forest", "town", "castle"), "something is too heavy",
        ),
        Obstacle(
            "lost", "smell", "the {thing} got lost somewhere in the tall grass",
            "looked behind every stone", "the grass was much too tall",
            "followed the smell through the grass and found the {thing}",
            ("field", "park", "valley", "farm"), "something is lost in tall grass",
        ),
        Obstacle(
            "hole", "squeeze", "the {thing} slipped into a tiny hole in the ground",
            "reached into the hole", "the hole was much too small",
            "squeezed into the tiny hole and pushed the {thing} out",
            ("forest", "garden", "mountain", "school"), "something fell into a tiny hole",
        ),
        Obstacle(
            "dark", "see", "the {thing} rolled far into a dark cave",
            "took three steps into the cave", "it was much too dark to see",
            "looked around in the dark and found the {thing}",
            ("mountain", "forest", "valley", "castle"), "something lies in a dark cave",
        ),
    )
}  # fmt: skip

# Words that vary from story to story and do not affect how the world works.
NAMES = {
    "she": ("Anna", "Bella", "Clara", "Daisy", "Ella", "Fiona", "Grace", "Hanna", "Ivy", "Julia",
            "Kira", "Lily", "Mia", "Nora", "Olivia", "Penny", "Rosa", "Sara", "Tina", "Zoe"),
    "he": ("Adam", "Ben", "Carl", "Danny", "Eddie", "Finn", "George", "Henry", "Ivan", "Jack",
           "Karl", "Leo", "Max", "Noah", "Oscar", "Paul", "Robin", "Sam", "Tom", "Victor"),
}  # fmt: skip

COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "orange", "purple", "pink")
TRAITS = ("little", "kind", "brave", "shy", "curious", "cheerful", "quiet", "clever", "gentle",
          "young")  # fmt: skip
WEATHERS = ("sunny", "windy", "cloudy", "rainy", "cold", "warm", "foggy", "snowy")
TIMES = ("morning", "afternoon", "evening")
ORIGINS = ("mother", "father", "grandmother", "grandfather", "aunt", "uncle", "teacher", "sister",
           "brother", "neighbour")  # fmt: skip
SAD = ("sad", "worried", "upset", "afraid")
GLAD = ("happy", "proud", "glad", "thankful")
LESSONS = (
    "it is good to ask for help",
    "friends can do what we cannot do alone",
    "everybody is good at something",
    "kind words make good friends",
    "sharing makes every day better",
    "being patient is a kind of being strong",
)
# How the hero thanks the helper, with slots for the helper and for food that the helper likes.
THANKS = ("shared some {food} with {helper}", "made a card for {helper}",
          "sang a song for {helper}", "invited {helper} to dinner",
          "gave {helper} a big hug", "promised to help {helper} one day")  # fmt: skip
