"""What can go wrong in `storyworld`, and the one skill that helps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Obstacle:
    """What keeps the hero from the thing, and the one skill that overcomes it.

    Attributes:
        name: a short key.
        skill: a key of `facts.SKILLS`.
        happens: how the thing gets out of reach; {thing} and {place} are filled in.
        attempt: what the hero tries in vain.
        fails: why it does not work.
        rescue: what the helper does, after "{helper} ".
        places: where it can happen.
        question: how it is put as a question, after "Who can help when ".
    """

    name: str
    skill: str
    happens: str
    attempt: str
    fails: str
    rescue: str
    places: tuple[str, ...]
    question: str


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
