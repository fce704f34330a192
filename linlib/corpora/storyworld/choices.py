"""Tasks that let a model choose: copa, storycloze and arc_easy, in the columns of their originals.

The wrong choice is right for another story or another animal, so that no choice gives itself away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import TypeVar

from datasets import Dataset

from linlib.corpora.storyworld.dataset import stories_for
from linlib.corpora.storyworld.facts import KINDS, SKILLS, THINGS, Kind, Thing
from linlib.corpora.storyworld.obstacles import OBSTACLES, Obstacle
from linlib.corpora.storyworld.record import StoryRecord
from linlib.corpora.storyworld.stories import FORMS, a, capitalised, opening
from linlib.corpora.storyworld.textbook import plural

LETTERS = ("A", "B", "C", "D")


def copa(split: str, n_rows: int) -> Dataset:
    """Which is the cause, or the effect? The columns of `super_glue/copa`.

    `premise`, `choice1`, `choice2`, `question` ("cause" or "effect"), `idx`, `label` (0 is the
    first choice). What befalls a thing makes its owner try something in vain; the wrong choice is
    that of another trouble.

    Args:
        split: "train" or "validation".
        n_rows: how many; half of each label.
    """
    rows = []
    for index, (record, rng) in enumerate(_light_stories("copa", split, n_rows)):
        obstacle, other = _two_obstacles(record, rng)
        happens = [_told(f"{one.happens}.", record) for one in (obstacle, other)]
        attempts = [_told(f"{{name}} {one.attempt}.", record) for one in (obstacle, other)]
        question, label = rng.choice(("cause", "effect")), index % 2
        premise, choices = (
            (happens[0], attempts) if question == "effect" else (attempts[0], happens)
        )
        first, second = choices if label == 0 else choices[::-1]
        row = {"premise": premise, "choice1": first, "choice2": second, "question": question}
        rows.append(row | {"idx": index, "label": label})
    return Dataset.from_list(rows)


def storycloze(split: str, n_rows: int) -> Dataset:
    """Four sentences and two endings: the columns of `juletxara/xstory_cloze`.

    `story_id`, `input_sentence_1` .. `input_sentence_4`, `sentence_quiz1`, `sentence_quiz2`,
    `answer_right_ending` (1 or 2). Only one ending overcomes the story's trouble.

    Args:
        split: "train" or "validation".
        n_rows: how many; half of each answer.
    """
    rows = []
    for index, (record, rng) in enumerate(_light_stories("cloze", split, n_rows)):
        obstacle, other = _two_obstacles(record, rng)
        sentences = (
            f"once upon a time, there was {opening(record.hero)}.",
            "one {weather} {time}, {name} took the {thing} to the {place}.",
            f"but then {obstacle.happens}.",
            f"just then, {{he}} met {opening(record.helper)}.",
        )
        told = {f"input_sentence_{n}": _told(s, record) for n, s in enumerate(sentences, start=1)}
        endings = [_told(f"{{helper}} {one.rescue}.", record) for one in (obstacle, other)]
        answer = 1 + index % 2
        first, second = endings if answer == 1 else endings[::-1]
        quiz = {"sentence_quiz1": first, "sentence_quiz2": second, "answer_right_ending": answer}
        rows.append({"story_id": record.key[:16]} | told | quiz)
    return Dataset.from_list(rows)


def arc_easy(split: str, n_rows: int) -> Dataset:
    """What textbook and stories teach, four choices: columns of `allenai/ai2_arc`, `ARC-Easy`.

    `id`, `question`, `choices` (`text` and `label`), `answerKey` ("A" .. "D"). A wrong choice is
    true of another animal, thing or trouble, and not of the one in question.

    Args:
        split: "train" or "validation".
        n_rows: how many; a quarter of each letter.
    """
    rows = []
    for index, _, rng in stories_for("arc", split, n_rows):
        question, right, wrong = rng.choice(_LESSONS)(rng)
        place, texts = index % len(LETTERS), []
        while len(texts) < len(LETTERS) - 1:
            if (text := rng.choice(wrong)) not in texts:  # a common answer is often a wrong one
                texts.append(text)
        texts.insert(place, right)
        choices = {"text": texts, "label": list(LETTERS)}
        row = {"id": f"{split}_{index}", "question": question, "choices": choices}
        rows.append(row | {"answerKey": LETTERS[place]})
    return Dataset.from_list(rows)


def _light_stories(task: str, split: str, n_rows: int) -> Iterator[tuple[StoryRecord, Random]]:
    """Stories of things that are not heavy: only a heavy one is too heavy, so it would show."""
    found = stories_for(task, split, 10 * n_rows)
    light = ((record, rng) for _, record, rng in found if not THINGS[record.thing].heavy)
    return islice(light, n_rows)


def _two_obstacles(record: StoryRecord, rng: Random) -> tuple[Obstacle, Obstacle]:
    """The story's own obstacle, and one that another skill overcomes."""
    own = OBSTACLES[record.obstacle]
    others = [o for o in OBSTACLES.values() if o.skill not in (own.skill, "carry")]
    return own, rng.choice(others)


def _told(template: str, record: StoryRecord) -> str:
    words = {"weather": record.weather, "time": record.time, "helper": record.helper.name}
    hero = FORMS[record.hero.pronoun] | {"name": record.hero.name}
    return capitalised(template.format(**words, **hero, thing=record.thing, place=record.place))


Answered = tuple[str, str, list[str]]  # question, right answer, wrong ones
Lesson = Callable[[Random], Answered]
Entry = TypeVar("Entry", Kind, Thing)


def _skill(rng: Random) -> Answered:
    kind = _any(KINDS, rng)
    skill = kind.skills[0]
    unable = [other for other in KINDS.values() if skill not in other.skills]
    return f"Which animal can {SKILLS[skill][0]}?", a(kind.name), [a(one.name) for one in unable]


def _about_trouble(attribute: str, question: str) -> Lesson:
    def lesson(rng: Random) -> Answered:
        thing = rng.choice([thing.name for thing in THINGS.values() if not thing.heavy])
        light = [obstacle for obstacle in OBSTACLES.values() if obstacle.skill != "carry"]
        own = rng.choice(light)
        told = [
            getattr(one, attribute).format(thing=thing, his="its", he="it")
            for one in (own, *(other for other in light if other.skill != own.skill))
        ]
        happened = own.happens.format(thing=thing, name="the owner")
        return question.format(happened=happened), told[0], told[1:]

    return lesson


def _about_kind(attribute: str, question: str) -> Lesson:
    def lesson(rng: Random) -> Answered:
        kind = _any(KINDS, rng)
        words = {"kinds": plural(kind.name), "a_kind": a(kind.name)}
        return question.format(**words), *_values(KINDS, attribute, kind)

    return lesson


def _about_thing(attribute: str, question: str) -> Lesson:
    def lesson(rng: Random) -> Answered:
        thing = _any(THINGS, rng)
        return question.format(a_thing=a(thing.name)), *_values(THINGS, attribute, thing)

    return lesson


def _any(table: dict[str, Entry], rng: Random) -> Entry:
    return table[rng.choice(sorted(table))]


def _values(table: dict[str, Entry], attribute: str, of: Entry) -> tuple[str, list[str]]:
    """An attribute of one entry, and those of the others that differ from it."""
    right = getattr(of, attribute)
    return right, [v for one in table.values() if (v := getattr(one, attribute)) != right]


_LESSONS = (
    _skill,
    _about_kind("food", "What do {kinds} eat?"),
    _about_kind("home", "Where do {kinds} live?"),
    _about_kind("covering", "What covers the body of {a_kind}?"),
    _about_thing("material", "What is {a_thing} made of?"),
    _about_thing("use", "What can you do with {a_thing}?"),
    _about_trouble("attempt", "If {happened}, what may its owner have tried in vain?"),
    _about_trouble("rescue", "If {happened}, what may a friend have done to help?"),
)
