"""Words with two senses, for wic: the columns of `super_glue/wic`."""

from __future__ import annotations

import re

from datasets import Dataset

from linlib.corpora.storyworld.dataset import stories_for
from linlib.corpora.storyworld.record import StoryRecord
from linlib.corpora.storyworld.stories import FORMS, capitalised

# A word -> templates of each of its two senses.
SENSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kind": (
        ("{name} was very kind to {friend}.", "it was kind of {friend} to help {name}.",
         "be kind, said {name}, and share the {thing}."),
        ("{name} had never seen this kind of {thing}.", "what kind of animal is {friend}?",
         "there is more than one kind of {thing}."),
    ),
    "back": (
        ("{friend} brought the {thing} back.", "{name} went back to the {place}.",
         "at last {name} had the {thing} back."),
        ("{name} carried the {thing} on {his} back.", "{friend} has a spot on the back.",
         "{name} lay on {his} back and looked at the sky."),
    ),
    "light": (
        ("there was no light in the cave.", "{friend} saw a light near the {place}.",
         "{name} waited for the light of the {time}."),
        ("the {thing} was light and easy to carry.", "{friend} was as light as a feather.",
         "{name} took the {thing}, because it was light."),
    ),
    "well": (
        ("{friend} can swim well.", "{name} slept well that {time}.", "all went well for {name}."),
        ("there was water in the well.", "the {thing} fell into a deep well.",
         "{name} sat down beside the well near the {place}."),
    ),
    "watch": (
        ("{name} likes to watch the rain.", "{friend} came to watch {name}.",
         "they will watch the sun go down over the {place}."),
        ("{name} had a watch made of gold.", "{friend} looked at the watch: it was {time}.",
         "a watch lay beside the {thing}."),
    ),
    "close": (
        ("{name} stood close to {friend}.", "the {place} is close to the river.",
         "{friend} stayed close to the {thing}."),
        ("{name} had to close the door.", "close your eyes, said {friend}.",
         "{friend} will close the box with the {thing}."),
    ),
}  # fmt: skip


def wic(split: str, n_rows: int) -> Dataset:
    """Does a word mean the same in two sentences?

    `word`, `sentence1`, `sentence2`, `start1`, `start2`, `end1`, `end2` (where the word stands),
    `idx`, `label` (1 is yes).

    Args:
        split: "train" or "validation".
        n_rows: how many; half of each label.
    """
    rows = []
    for index, record, rng in stories_for("wic", split, n_rows):
        label, word = index % 2, rng.choice(sorted(SENSES))
        sense = rng.randrange(2)
        if label:
            templates = rng.sample(SENSES[word][sense], 2)
        else:
            templates = [rng.choice(SENSES[word][number]) for number in (sense, 1 - sense)]
        row: dict[str, object] = {"word": word}
        for number, template in enumerate(templates, start=1):
            sentence = _told(template, record)
            found = re.search(rf"\b{word}\b", sentence, re.IGNORECASE)
            row |= {f"sentence{number}": sentence}
            row |= {f"start{number}": found.start(), f"end{number}": found.end()}
        rows.append(row | {"idx": index, "label": label})
    return Dataset.from_list(rows)


def _told(template: str, record: StoryRecord) -> str:
    words = {"friend": record.helper.name, "place": record.place, "time": record.time}
    hero = FORMS[record.hero.pronoun] | {"name": record.hero.name}
    return capitalised(template.format(**words, **hero, thing=record.thing))
