"""The world as datasets: a corpus of stories, exercises and lessons, and preference pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING

from storyworld.questions import render_exercise
from storyworld.stories import StoryRecord, a, capitalised, fill, render_story, sample_record
from storyworld.world import KINDS, OBSTACLES, SKILLS, THINGS

if TYPE_CHECKING:
    from datasets import Dataset

SIZES = {"train": 30_000, "heldout": 2_000}  # split -> number of stories in the corpus
TASK_SPLITS = {"train": "train", "validation": "heldout"}  # split of a task -> split of the corpus
STORIES_PER_LESSON = 4
HELDOUT_LESSON_DIVISOR = 16  # one lesson in 16 is held out


def records(split: str) -> Iterator[StoryRecord]:
    """The stories of a split, in the order of their seeds; the iterator never ends.

    Args:
        split: "train" or "heldout".

    Raises:
        ValueError: The split is unknown.
    """
    if split not in SIZES:
        raise ValueError(f"unknown split '{split}' of storyworld; choose from {list(SIZES)}")
    drawn = map(sample_record, count())
    return (record for record in drawn if record.is_heldout == (split == "heldout"))


def task_stories(task: str, split: str, n_rows: int) -> Iterator[tuple[int, StoryRecord, Random]]:
    """The number, the story and the random generator of each row of a task.

    Raises:
        ValueError: The split is unknown.
    """
    if split not in TASK_SPLITS:
        raise ValueError(
            f"unknown split '{split}' of task '{task}'; choose from {list(TASK_SPLITS)}"
        )
    for number, record in enumerate(islice(records(TASK_SPLITS[split]), n_rows)):
        yield number, record, Random(f"{task} {record.key}")


def load(split: str) -> Dataset:
    """Generate the corpus: all stories of a split, each with an exercise, and lessons in between.

    Args:
        split: "train" or "heldout".

    Returns:
        A dataset with the columns `text`; `kind`, which is "story", "exercise" or "textbook"; and
        `record`, the facts of the story as JSON (empty for "textbook").

    Raises:
        ValueError: The split is unknown.
    """
    stories = records(split)
    seeds = count()
    lessons = (s for s in seeds if (s % HELDOUT_LESSON_DIVISOR == 0) == (split == "heldout"))
    rows = []
    for number, record in enumerate(islice(stories, SIZES[split])):
        facts = json.dumps(record.as_dict(), sort_keys=True)
        rows.append({"text": render_story(record), "kind": "story", "record": facts})
        rows.append({"text": render_exercise(record), "kind": "exercise", "record": facts})
        if number % STORIES_PER_LESSON == 0:
            rows.append({"text": render_textbook(next(lessons)), "kind": "textbook", "record": ""})
    return to_dataset(rows)


def preference_pairs(split: str, n_pairs: int) -> Dataset:
    """Preference pairs: the columns `chosen` and `rejected`, as in hh-rlhf.

    Args:
        split: "train" or "heldout".
        n_pairs: The number of rows.

    Raises:
        ValueError: The split is unknown.
    """
    return to_dataset([render_preference(record) for record in islice(records(split), n_pairs)])


def to_dataset(rows: list[dict[str, object]]) -> Dataset:
    """The rows as a `datasets.Dataset`."""
    from datasets import Dataset  # here, since importing it takes longer than the rest of the world

    return Dataset.from_list(rows)


def render_preference(record: StoryRecord) -> dict[str, str]:
    """Two dialogues, `chosen` and `rejected`, that differ only in the animal and in its skill.

    The chosen answer names an animal that has the skill that the obstacle calls for; the rejected
    one names an animal that lacks it. Only knowledge of the world distinguishes them.
    """
    rng = Random(f"preference {record.style}")
    obstacle = OBSTACLES[record.obstacle]
    able = [kind for kind in KINDS.values() if kind.skills[0] == obstacle.skill]
    unable = [kind for kind in KINDS.values() if obstacle.skill not in kind.skills]
    question = fill(rng.choice(_QUESTIONS), record, question=obstacle.question)
    answer = rng.choice(_ANSWERS)
    pair = {}
    for column, kinds in (("chosen", able), ("rejected", unable)):
        kind = rng.choice(kinds)
        reply = fill(answer, record, a_kind=a(kind.name), can=SKILLS[kind.skills[0]][0])
        pair[column] = f"\n\nHuman: {question}\n\nAssistant: {reply}"
    return pair


def render_textbook(seed: int) -> str:
    """A short lesson on one animal, its skill, another animal that shares it, and one thing."""
    rng = Random(f"textbook {seed}")
    kind = KINDS[rng.choice(sorted(KINDS))]
    skill = kind.skills[0]
    alike = [k.name for k in KINDS.values() if k.skills[0] == skill and k != kind]
    thing = THINGS[rng.choice(sorted(THINGS))]
    obstacle = rng.choice([o for o in OBSTACLES.values() if o.skill == skill])
    can, gerund, _ = SKILLS[skill]
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
    sentences = [rng.choice(wordings) for wordings in _LESSON]
    return capitalised(" ".join(sentences).format(**words))


def plural(noun: str) -> str:
    """The plural of a noun of this world."""
    irregular = {"mouse": "mice", "fox": "foxes", "bench": "benches"}
    return irregular.get(noun, f"{noun}s")


_QUESTIONS = (
    "I have {a_colour} {thing}, but now {question}. Who can help me?",
    "my {thing} is gone, because {question}. Whom should I ask?",
    "what can I do when {question}? I want my {thing} back.",
)
_ANSWERS = (
    "you should ask {a_kind}. It can {can}, so it will bring your {thing} back.",
    "do not worry. Find {a_kind}, because it can {can}. Then you will have your {thing} again.",
    "ask {a_kind} for help. It can {can}, and that is just what you need for your {thing}.",
)
_LESSON = (
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
