"""What can be asked about a story: single facts, and how things stand in one of its paragraphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from linlib.corpora.storyworld.facts import THINGS
from linlib.corpora.storyworld.record import StoryRecord, sample_record
from linlib.corpora.storyworld.stories import FORMS, capitalised, story_parts

INTRODUCTION, TROUBLE, HELP, ENDING = range(4)  # the paragraphs of a story


@dataclass(frozen=True)
class Fact:
    """One fact of a story, and how it is asked for.

    Attributes:
        of: its value in a record.
        yes_no: the question that names a value.
        open: the question that asks for it.
        claim: the statement that names a value.
        paragraph: the first that tells it.
        once: whether no other one does.
    """

    of: Callable[[StoryRecord], str]
    yes_no: str
    open: str
    claim: str
    paragraph: int
    once: bool = True


@dataclass(frozen=True)
class State:
    """How things stand: one value while there is trouble, the other when it is over.

    Attributes:
        trouble: the value that the paragraph of the trouble tells.
        ending: the value that the last paragraph tells.
        yes_no: as in `Fact`.
        open: as in `Fact`.
        claim: as in `Fact`.
    """

    trouble: str
    ending: str
    yes_no: str
    open: str
    claim: str


FACTS = (
    Fact(lambda r: r.colour, "was the gift {value}?",
         "what colour was the gift that {name} got?", "the gift was {value}.",
         INTRODUCTION, once=False),
    Fact(lambda r: THINGS[r.thing].material, "was the gift made of {value}?",
         "what was the gift made of?", "the gift was made of {value}.", INTRODUCTION),
    Fact(lambda r: r.origin, "did the gift come from {his} {value}?",
         "who gave {name} the gift?", "{name} got the gift from {his} {value}.", INTRODUCTION),
    Fact(lambda r: r.hero.trait, "was {name} {value}?",
         "what was {name} like?", "{name} was {value}.", INTRODUCTION),
    Fact(lambda r: r.hero.kind, "was the animal that got the gift of the kind '{value}'?",
         "what kind of animal was {name}?", "{name} was of the kind '{value}'.",
         INTRODUCTION, once=False),
    Fact(lambda r: r.weather, "was the weather {value}?",
         "what was the weather like?", "the weather was {value}.", TROUBLE),
    Fact(lambda r: r.place, "did {name} go to the {value}?",
         "where did {name} go?", "{name} went to the {value}.", TROUBLE),
    Fact(lambda r: r.time, "did it happen in the {value}?",
         "at what time of the day did it happen?", "it happened in the {value}.",
         TROUBLE, once=False),
    Fact(lambda r: r.helper.name, "did {value} help {name}?",
         "who helped {name}?", "{value} helped {name}.", HELP, once=False),
    Fact(lambda r: r.helper.trait, "was the animal that helped {value}?",
         "what was the animal that helped like?", "the animal that helped was {value}.", HELP),
    Fact(lambda r: r.helper.kind, "was the animal that helped of the kind '{value}'?",
         "what kind of animal helped?", "the animal that helped was of the kind '{value}'.",
         HELP, once=False),
    Fact(lambda r: r.glad, "was {name} {value} at the end?",
         "how did {name} feel at the end?", "{name} was {value} at the end.", ENDING),
    Fact(lambda r: r.lesson, "did {name} learn that {value}?",
         "what did {name} learn?", "{name} learned that {value}.", ENDING),
)  # fmt: skip

STATES = (
    State("sad", "happy", "was {name} {value}?", "how was {name}?", "{name} was {value}."),
    State("gone", "back", "was the {thing} {value}?", "where was the {thing}?",
          "the {thing} was {value}."),
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A fact or a state of one story, ready to be asked.

    Attributes:
        about: the fact or state.
        record: the story.
        told_in: the paragraph that answers it.
        true: the right value.
        false: a wrong one: that of another story, or of the state's other paragraph.
    """

    about: Fact | State
    record: StoryRecord
    told_in: int
    true: str
    false: str

    def yes_no(self, value: str) -> str:
        """The question whether a value is the right one."""
        return worded(self.about.yes_no, self.record, value)

    def open(self) -> str:
        """The question that asks for the value."""
        return worded(self.about.open, self.record)

    def claim(self, value: str) -> str:
        """The statement that a value is the right one."""
        return worded(self.about.claim, self.record, value)


def about_fact(fact: Fact, record: StoryRecord, rng: Random) -> Question:
    """Ask for a fact; the false value is that of another story, as likely as the true one."""
    true = fact.of(record)
    told = {true, record.hero.name, record.helper.name}
    while (false := fact.of(sample_record(rng.getrandbits(32)))) in told:
        pass
    return Question(fact, record, fact.paragraph, true, false)


def about_state(state: State, record: StoryRecord, told_in: int) -> Question:
    """Ask how things stand in the paragraph of the trouble or in the last one."""
    values = (state.trouble, state.ending)
    true, false = values if told_in == TROUBLE else values[::-1]
    return Question(state, record, told_in, true, false)


def telling(question: Question) -> str:
    """The paragraph that tells what is asked, or its beginning, where that tells it already."""
    return _paragraph(question, question.told_in)


def silent(question: Question, rng: Random) -> str:
    """A paragraph that does not tell what is asked; the first tells of no state."""
    if question.about in STATES:
        return _paragraph(question, INTRODUCTION)
    others = [number for number in range(4) if number != question.told_in]
    return _paragraph(question, rng.choice(others))


def _paragraph(question: Question, number: int) -> str:
    parts = story_parts(question.record)[number]
    if question.about in STATES:  # told before the last part
        parts = parts[:-1]
    return " ".join(parts)


def worded(template: str, record: StoryRecord, value: str = "") -> str:
    """A template with the story's names and a value filled in."""
    hero = record.hero
    told = {"name": hero.name, "his": FORMS[hero.pronoun]["his"], "thing": record.thing}
    return capitalised(template.format(**told, value=value))
