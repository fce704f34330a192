"""Questions about a story: single facts, the state of affairs in a paragraph, and exercises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from storyworld.stories import (
    StoryRecord,
    capitalised,
    fill,
    sample_record,
    story_paragraphs,
    story_parts,
)
from storyworld.world import THINGS

INTRODUCTION, TROUBLE, HELP, ENDING = range(4)  # the paragraphs of a story
N_ITEMS = 3  # of an exercise, at most


@dataclass(frozen=True)
class Fact:
    """One fact of a story, with the templates of questions about it.

    Attributes:
        value: The fact's value in a record.
        yes_no: A question that names a value.
        open: A question that asks for the value.
        claim: A statement that names a value.
        paragraph: The first paragraph that states the fact.
        once: Whether no other paragraph states it.
    """

    value: Callable[[StoryRecord], str]
    yes_no: str
    open: str
    claim: str
    paragraph: int
    once: bool = True


@dataclass(frozen=True)
class State:
    """A state of affairs that changes: one value during the trouble, another one at the end.

    Attributes:
        trouble: The value in the paragraph of the trouble.
        ending: The value in the last paragraph.
        yes_no: As in `Fact`.
        open: As in `Fact`.
        claim: As in `Fact`.
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
    """A fact or a state of one story, ready to be asked about.

    Attributes:
        about: The fact or state.
        record: The story.
        paragraph: The number of the paragraph that answers it.
        true: The right value.
        false: A wrong value: that of another story or, of a state, of the other paragraph.
    """

    about: Fact | State
    record: StoryRecord
    paragraph: int
    true: str
    false: str

    def yes_no(self, value: str) -> str:
        """The question whether a value is the right one."""
        return fill(self.about.yes_no, self.record, value=value)

    def open(self) -> str:
        """The question that asks for the value."""
        return fill(self.about.open, self.record)

    def claim(self, value: str) -> str:
        """The statement that a value is the right one."""
        return fill(self.about.claim, self.record, value=value)

    def supporting_passage(self) -> str:
        """The paragraph that answers the question; for a state, without its last part.

        The parts before the last suffice to know the state.
        """
        return self._passage(self.paragraph)

    def unrelated_passage(self, rng: Random) -> str:
        """A paragraph that does not answer the question; for a state, always the introduction."""
        if isinstance(self.about, State):
            return self._passage(INTRODUCTION)
        return self._passage(rng.choice([n for n in range(4) if n != self.paragraph]))

    def _passage(self, number: int) -> str:
        parts = story_parts(self.record)[number]
        return " ".join(parts[:-1] if isinstance(self.about, State) else parts)


def about_fact(fact: Fact, record: StoryRecord, rng: Random) -> Question:
    """Ask about a fact; the false value is drawn as true ones are, from another story."""
    true = fact.value(record)
    excluded = {true, record.hero.name, record.helper.name}
    while (false := fact.value(sample_record(rng.getrandbits(32)))) in excluded:
        pass
    return Question(fact, record, fact.paragraph, true, false)


def about_state(state: State, record: StoryRecord, paragraph: int) -> Question:
    """Ask about the state of affairs in the paragraph of the trouble or in the last one."""
    values = (state.trouble, state.ending)
    true, false = values if paragraph == TROUBLE else values[::-1]
    return Question(state, record, paragraph, true, false)


def render_exercise(record: StoryRecord) -> str:
    """A reading exercise: one paragraph of the story, then up to three items about it.

    An item about a fact is an open question, a question for yes or no (each equally often), or a
    true statement. After the trouble and after the ending, two of the items ask whether there is
    trouble, for yes or no or for true or false.
    """
    rng = Random(f"exercise {record.style}")
    paragraph = rng.randrange(4)
    states = rng.sample(STATES, 2) if paragraph in (TROUBLE, ENDING) else []
    facts = [fact for fact in FACTS if fact.paragraph == paragraph]
    facts = rng.sample(facts, min(N_ITEMS - len(states), len(facts)))
    items = [_state_item(about_state(state, record, paragraph), state, rng) for state in states]
    items += [_fact_item(about_fact(fact, record, rng), rng) for fact in facts]
    return "\n".join([story_paragraphs(record)[paragraph], *items])


def _state_item(question: Question, state: State, rng: Random) -> str:
    in_trouble = question.true == state.trouble
    if rng.random() < 0.5:
        return _item(question.yes_no(state.trouble), "yes" if in_trouble else "no")
    return _item(f"{question.claim(state.trouble)} True or False?", str(in_trouble))


def _fact_item(question: Question, rng: Random) -> str:
    form = rng.choice(("open", "yes or no", "statement"))
    if form == "statement":
        return question.claim(question.true)
    if form == "open":
        return _item(question.open(), f"{capitalised(question.true)}.")
    answer = rng.choice(("yes", "no"))
    return _item(question.yes_no(question.true if answer == "yes" else question.false), answer)


def _item(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}"
