"""Questions about stories, in the columns of SuperGLUE: boolq, multirc and cb.

Every answer follows from the story's record. A false value is the same fact of another story, so
it is as likely as a true one, and a question asks for one fact whose value no other word of it
gives away: without its passage it says nothing about its label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from datasets import Dataset

from linlib.corpora.storyworld.dataset import records
from linlib.corpora.storyworld.facts import THINGS
from linlib.corpora.storyworld.record import StoryRecord, sample_record
from linlib.corpora.storyworld.stories import FORMS, capitalised, render_story

SPLITS = {"train": "train", "validation": "heldout"}  # the benchmark's name -> ours
ENTAILMENT, CONTRADICTION, NEUTRAL = range(3)  # labels of cb, as in SuperGLUE


@dataclass(frozen=True)
class Fact:
    """One fact of a story, and how it is asked for.

    Attributes:
        of: its value in a record.
        yes_no: the question that names a value.
        open: the question that asks for it.
        claim: the statement that names a value.
        paragraph: the only one of the story's four that tells it; None if several may.
    """

    of: Callable[[StoryRecord], str]
    yes_no: str
    open: str
    claim: str
    paragraph: int | None = None


FACTS = (
    Fact(lambda r: r.colour, "was the gift {value}?",
         "what colour was the gift that {name} got?", "the gift was {value}."),
    Fact(lambda r: THINGS[r.thing].material, "was the gift made of {value}?",
         "what was the gift made of?", "the gift was made of {value}.", 0),
    Fact(lambda r: r.origin, "did the gift come from {his} {value}?",
         "who gave {name} the gift?", "{name} got the gift from {his} {value}.", 0),
    Fact(lambda r: r.hero.trait, "was {name} {value}?",
         "what was {name} like?", "{name} was {value}.", 0),
    Fact(lambda r: r.hero.kind, "was the animal that got the gift of the kind '{value}'?",
         "what kind of animal was {name}?", "{name} was of the kind '{value}'."),
    Fact(lambda r: r.weather, "was the weather {value}?",
         "what was the weather like?", "the weather was {value}.", 1),
    Fact(lambda r: r.place, "did {name} go to the {value}?",
         "where did {name} go?", "{name} went to the {value}.", 1),
    Fact(lambda r: r.time, "did it happen in the {value}?",
         "at what time of the day did it happen?", "it happened in the {value}."),
    Fact(lambda r: r.helper.name, "did {value} help {name}?",
         "who helped {name}?", "{value} helped {name}."),
    Fact(lambda r: r.helper.trait, "was the animal that helped {value}?",
         "what was the animal that helped like?", "the animal that helped was {value}.", 2),
    Fact(lambda r: r.helper.kind, "was the animal that helped of the kind '{value}'?",
         "what kind of animal helped?", "the animal that helped was of the kind '{value}'."),
    Fact(lambda r: r.glad, "was {name} {value} at the end?",
         "how did {name} feel at the end?", "{name} was {value} at the end.", 3),
    Fact(lambda r: r.lesson, "did {name} learn that {value}?",
         "what did {name} learn?", "{name} learned that {value}.", 3),
)  # fmt: skip


def boolq(split: str, n_rows: int) -> Dataset:
    """Yes-or-no questions: `question`, `passage`, `idx`, `label` (1 is yes), as `super_glue/boolq`.

    Args:
        split: "train" or "validation".
        n_rows: how many; half of them are true.
    """
    rows = []
    for index, (record, rng) in enumerate(_stories("boolq", split, n_rows)):
        fact, label = rng.choice(FACTS), index % 2
        question = _worded(fact.yes_no, record, _value(fact, record, rng, true=bool(label)))
        row = {"question": question, "passage": render_story(record)}
        rows.append(row | {"idx": index, "label": label})
    return Dataset.from_list(rows)


def multirc(split: str, n_rows: int) -> Dataset:
    """Candidate answers, two to a question: the columns of `super_glue/multirc`.

    `paragraph`, `question`, `answer`, `idx` (numbers of paragraph, question and answer), `label`
    (1 is right).

    Args:
        split: "train" or "validation".
        n_rows: how many answers; of the two to a question, one is right.
    """
    rows = []
    for number, (record, rng) in enumerate(_stories("multirc", split, -(-n_rows // 2))):
        fact, labels = rng.choice(FACTS), [0, 1]
        rng.shuffle(labels)
        for label in labels:
            idx = {"paragraph": number, "question": number, "answer": len(rows)}
            rows.append(
                {
                    "paragraph": render_story(record),
                    "question": _worded(fact.open, record),
                    "answer": capitalised(f"{_value(fact, record, rng, true=bool(label))}."),
                    "idx": idx,
                    "label": label,
                }
            )
    return Dataset.from_list(rows[:n_rows])


def cb(split: str, n_rows: int) -> Dataset:
    """Does the premise entail the hypothesis? The columns of `super_glue/cb`.

    `premise`, `hypothesis`, `idx`, `label` (0 entailment, 1 contradiction, 2 neutral). A premise
    is a story less one paragraph; it is neutral where just that one tells the fact.

    Args:
        split: "train" or "validation".
        n_rows: how many; a third of each label.
    """
    told_once = [fact for fact in FACTS if fact.paragraph is not None]
    rows = []
    for index, (record, rng) in enumerate(_stories("cb", split, n_rows)):
        fact, label = rng.choice(told_once), index % 3
        true = rng.random() < 0.5 if label == NEUTRAL else label == ENTAILMENT
        others = [number for number in range(4) if number != fact.paragraph]
        left_out = fact.paragraph if label == NEUTRAL else rng.choice(others)
        paragraphs = render_story(record).split("\n\n")
        del paragraphs[left_out]
        hypothesis = _worded(fact.claim, record, _value(fact, record, rng, true))
        row = {"premise": "\n\n".join(paragraphs), "hypothesis": hypothesis}
        rows.append(row | {"idx": index, "label": label})
    return Dataset.from_list(rows)


TASKS: dict[str, Callable[[str, int], Dataset]] = {"boolq": boolq, "multirc": multirc, "cb": cb}


def _stories(task: str, split: str, count: int) -> Iterator[tuple[StoryRecord, Random]]:
    """Stories of a split, each with the source of chance for its question."""
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}' of task '{task}'; choose from {list(SPLITS)}")
    for record in islice(records(SPLITS[split]), count):
        yield record, Random(f"{task} {record.key}")


def _value(fact: Fact, record: StoryRecord, rng: Random, true: bool) -> str:
    """The fact's value in this story, or, if it is to be false, in another one."""
    value = fact.of(record)
    if true:
        return value
    told = {value, record.hero.name, record.helper.name}
    while (other := fact.of(sample_record(rng.getrandbits(32)))) in told:
        pass
    return other


def _worded(template: str, record: StoryRecord, value: str = "") -> str:
    hero = record.hero
    own = {"name": hero.name, "his": FORMS[hero.pronoun]["his"], "value": value}
    return capitalised(template.format(**own))
