"""Tasks with a choice between texts or senses: copa, storycloze, arc_easy and wic.

They have the columns of the benchmarks they are named after. A wrong text is right for another
story or another animal, so that no text reveals by itself whether it is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from storyworld.corpus import plural, task_stories, to_dataset
from storyworld.stories import StoryRecord, a, fill
from storyworld.world import KINDS, OBSTACLES, SKILLS, THINGS, Kind, Obstacle, Thing

if TYPE_CHECKING:
    from datasets import Dataset

LETTERS = ("A", "B", "C", "D")


def copa(split: str, n_rows: int) -> Dataset:
    """What is the cause, or the effect? The columns of `super_glue/copa`.

    `premise`, `choice1`, `choice2`, `question` ("cause" or "effect"), `idx`, `label` (0 stands for
    the first choice). What happens to the thing makes its owner try something in vain; the wrong
    choice belongs to another obstacle.

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, half of them with each label.
    """
    rows = []
    for index, (record, obstacles, rng) in enumerate(_light_stories("copa", split, n_rows)):
        happens = [fill(f"{obstacle.happens}.", record) for obstacle in obstacles]
        attempts = [fill(f"{{name}} {obstacle.attempt}.", record) for obstacle in obstacles]
        question, label = rng.choice(("cause", "effect")), index % 2
        premise, choices = (
            (happens[0], attempts) if question == "effect" else (attempts[0], happens)
        )
        first, second = choices if label == 0 else choices[::-1]
        row = {"premise": premise, "choice1": first, "choice2": second, "question": question}
        rows.append(row | {"idx": index, "label": label})
    return to_dataset(rows)


def storycloze(split: str, n_rows: int) -> Dataset:
    """Which of two endings fits four sentences? The columns of `juletxara/xstory_cloze`.

    `story_id`, `input_sentence_1` .. `input_sentence_4`, `sentence_quiz1`, `sentence_quiz2`,
    `answer_right_ending` (1 or 2). Only the right ending overcomes the obstacle of the story.

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, half of them with each answer.
    """
    rows = []
    for index, (record, obstacles, _) in enumerate(_light_stories("cloze", split, n_rows)):
        sentences = (
            "once upon a time, there was {hero}.",
            "one {weather} {time}, {name} took the {thing} to the {place}.",
            "but then {happens}.",
            "just then, {he} met {friend}.",
        )
        inputs = {f"input_sentence_{n}": fill(s, record) for n, s in enumerate(sentences, start=1)}
        endings = [fill(f"{{helper}} {obstacle.rescue}.", record) for obstacle in obstacles]
        answer = 1 + index % 2
        first, second = endings if answer == 1 else endings[::-1]
        quiz = {"sentence_quiz1": first, "sentence_quiz2": second, "answer_right_ending": answer}
        rows.append({"story_id": record.key[:16]} | inputs | quiz)
    return to_dataset(rows)


def arc_easy(split: str, n_rows: int) -> Dataset:
    """What do lessons and stories teach? The columns of `allenai/ai2_arc`, `ARC-Easy`.

    `id`, `question`, `choices` (`text` and `label`), `answerKey` ("A" .. "D"). A wrong choice is
    true of another animal, thing or obstacle, but not of the one in question.

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, a quarter of them with each letter.
    """
    rows = []
    for index, _, rng in task_stories("arc", split, n_rows):
        question, right, wrong = rng.choice(_LESSONS)(rng)
        place, texts = index % len(LETTERS), []
        while len(texts) < len(LETTERS) - 1:
            if (text := rng.choice(wrong)) not in texts:  # frequent answers are often wrong ones
                texts.append(text)
        texts.insert(place, right)
        choices = {"text": texts, "label": list(LETTERS)}
        row = {"id": f"{split}_{index}", "question": question, "choices": choices}
        rows.append(row | {"answerKey": LETTERS[place]})
    return to_dataset(rows)


def wic(split: str, n_rows: int) -> Dataset:
    """Does a word mean the same in two sentences? The columns of `super_glue/wic`.

    `word`, `sentence1`, `sentence2`, `start1`, `start2`, `end1`, `end2` (the position of the word
    in characters), `idx`, `label` (1 stands for yes).

    Args:
        split: "train" or "validation".
        n_rows: The number of rows, half of them with each label.
    """
    rows = []
    for index, record, rng in task_stories("wic", split, n_rows):
        label, word = index % 2, rng.choice(sorted(SENSES))
        sense = rng.randrange(2)
        if label:
            templates = rng.sample(SENSES[word][sense], 2)
        else:
            templates = [rng.choice(SENSES[word][number]) for number in (sense, 1 - sense)]
        row: dict[str, object] = {"word": word}
        for number, template in enumerate(templates, start=1):
            sentence = fill(template, record)
            found = re.search(rf"\b{word}\b", sentence, re.IGNORECASE)
            row |= {f"sentence{number}": sentence}
            row |= {f"start{number}": found.start(), f"end{number}": found.end()}
        rows.append(row | {"idx": index, "label": label})
    return to_dataset(rows)


def _light_stories(
    task: str, split: str, n_rows: int
) -> Iterator[tuple[StoryRecord, tuple[Obstacle, Obstacle], Random]]:
    """Stories of light things, each with its obstacle and one that calls for another skill.

    The obstacle of a heavy thing is always the same, so that the thing would reveal the answer.
    """
    stories = task_stories(task, split, 10 * n_rows)
    light = ((record, rng) for _, record, rng in stories if not THINGS[record.thing].heavy)
    for record, rng in islice(light, n_rows):
        own = OBSTACLES[record.obstacle]
        others = [o for o in OBSTACLES.values() if o.skill not in (own.skill, "carry")]
        yield record, (own, rng.choice(others)), rng


Answered = tuple[str, str, list[str]]  # a question, its right answer, wrong answers
Lesson = Callable[[Random], Answered]


def _skill(rng: Random) -> Answered:
    kind = KINDS[rng.choice(sorted(KINDS))]
    skill = kind.skills[0]
    unable = [other for other in KINDS.values() if skill not in other.skills]
    return f"Which animal can {SKILLS[skill][0]}?", a(kind.name), [a(one.name) for one in unable]


def _about_obstacle(attribute: str, question: str) -> Lesson:
    def lesson(rng: Random) -> Answered:
        thing = rng.choice([thing.name for thing in THINGS.values() if not thing.heavy])
        light = [obstacle for obstacle in OBSTACLES.values() if obstacle.skill != "carry"]
        own = rng.choice(light)
        right, *wrong = [
            getattr(one, attribute).format(thing=thing, his="its", he="it")
            for one in (own, *(other for other in light if other.skill != own.skill))
        ]
        happened = own.happens.format(thing=thing, name="the owner")
        return question.format(happened=happened), right, wrong

    return lesson


def _about_entry(table: dict[str, Kind] | dict[str, Thing], attribute: str, text: str) -> Lesson:
    """Ask for an attribute of an entry; wrong answers are the other values in the table."""

    def lesson(rng: Random) -> Answered:
        entry = table[rng.choice(sorted(table))]
        right = getattr(entry, attribute)
        wrong = [v for other in table.values() if (v := getattr(other, attribute)) != right]
        return text.format(one=a(entry.name), many=plural(entry.name)), right, wrong

    return lesson


_LESSONS = (
    _skill,
    _about_entry(KINDS, "food", "What do {many} eat?"),
    _about_entry(KINDS, "home", "Where do {many} live?"),
    _about_entry(KINDS, "covering", "What covers the body of {one}?"),
    _about_entry(THINGS, "material", "What is {one} made of?"),
    _about_entry(THINGS, "use", "What can you do with {one}?"),
    _about_obstacle("attempt", "If {happened}, what may its owner have tried in vain?"),
    _about_obstacle("rescue", "If {happened}, what may a friend have done to help?"),
)

# Word -> templates of sentences for each of its two senses.
SENSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kind": (
        ("{name} was very kind to {helper}.", "it was kind of {helper} to help {name}.",
         "be kind, said {name}, and share the {thing}."),
        ("{name} had never seen this kind of {thing}.", "what kind of animal is {helper}?",
         "there is more than one kind of {thing}."),
    ),
    "back": (
        ("{helper} brought the {thing} back.", "{name} went back to the {place}.",
         "at last {name} had the {thing} back."),
        ("{name} carried the {thing} on {his} back.", "{helper} has a spot on the back.",
         "{name} lay on {his} back and looked at the sky."),
    ),
    "light": (
        ("there was no light in the cave.", "{helper} saw a light near the {place}.",
         "{name} waited for the light of the {time}."),
        ("the {thing} was light and easy to carry.", "{helper} was as light as a feather.",
         "{name} took the {thing}, because it was light."),
    ),
    "well": (
        ("{helper} can swim well.", "{name} slept well that {time}.", "all went well for {name}."),
        ("there was water in the well.", "the {thing} fell into a deep well.",
         "{name} sat down beside the well near the {place}."),
    ),
    "watch": (
        ("{name} likes to watch the rain.", "{helper} came to watch {name}.",
         "they will watch the sun go down over the {place}."),
        ("{name} had a watch made of gold.", "{helper} looked at the watch: it was {time}.",
         "a watch lay beside the {thing}."),
    ),
    "close": (
        ("{name} stood close to {helper}.", "the {place} is close to the river.",
         "{helper} stayed close to the {thing}."),
        ("{name} had to close the door.", "close your eyes, said {helper}.",
         "{helper} will close the box with the {thing}."),
    ),
}  # fmt: skip
