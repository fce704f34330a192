"""The deterministic judge of storyworld: a completion is read sentence by sentence and scored.

It knows the world, and nothing else: a good story of another world scores 0. It is no language
model, and its scores are not those of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import islice

import numpy as np

from linlib.corpora.storyworld import facts, words
from linlib.corpora.storyworld.dataset import SIZES, records
from linlib.corpora.storyworld.grammar import N_PARTS, Sentence, read_sentence, sentences
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.record import StoryRecord
from linlib.corpora.storyworld.stories import FORMS, render_story

BEST = 10.0
RUN = 3  # sentences that make a passage


@dataclass(frozen=True)
class WorldScores:
    """How good a completion is, each in [0, 10].

    Attributes:
        grammar: share of its words that stand in sentences the world's grammar admits.
        creativity: share of its passages of three sentences that are admitted and new: found in no
            story of the training corpus, and not before in the completion.
        consistency: share of what it tells that agrees with the beginning, with what it told
            before, and with the world: who is who, what is where, who can do what. A sentence that
            the grammar does not admit tells one thing, which agrees with nothing.
        plot: share of the parts of a story, those after the beginning, that it tells in order.
    """

    grammar: float
    creativity: float
    consistency: float
    plot: float


def judge_completion(
    completion: str, record: StoryRecord, beginning: str, finished: bool = True
) -> WorldScores:
    """Score the continuation of a story whose beginning is given; an empty one scores 0.

    Args:
        completion: what follows the beginning.
        record: the facts of the story that the beginning was taken from; only those that the
            beginning tells are held against the completion.
        beginning: the given text, whole sentences.
        finished: False drops a last sentence that was cut off.
    """
    texts = sentences(completion)
    if texts and not finished and texts[-1].rstrip('"')[-1:] not in tuple(".!?"):
        texts = texts[:-1]
    given = [read_sentence(text) for text in sentences(beginning)]
    read = [read_sentence(text) for text in texts]
    if not read:
        return WorldScores(0.0, 0.0, 0.0, 0.0)
    return WorldScores(
        BEST * _grammar(read),
        BEST * _creativity(read),
        BEST * _consistency(read, given, record),
        BEST * _plot(read, given),
    )


def _grammar(read: Sequence[Sentence]) -> float:
    lengths = [len(sentence.text.split()) for sentence in read]
    admitted = [n for n, sentence in zip(lengths, read, strict=True) if sentence.part is not None]
    return sum(admitted) / sum(lengths)


def _creativity(read: Sequence[Sentence]) -> float:
    known, seen, new = passages_of_training(), set(), 0
    passages = _passages([sentence.text for sentence in read])
    for number, passage in enumerate(passages):
        admitted = all(sentence.part is not None for sentence in read[number : number + RUN])
        new += admitted and passage not in known and passage not in seen
        seen.add(passage)
    return new / len(passages) if passages else 0.0


def _plot(read: Sequence[Sentence], given: Sequence[Sentence]) -> float:
    begun = max((sentence.part for sentence in given if sentence.part is not None), default=-1)
    parts = [s.part for s in read if s.part is not None and s.part > begun]
    left = N_PARTS - 1 - begun
    return _longest_rise(parts) / left if left else 0.0


def _longest_rise(numbers: Iterable[int]) -> int:
    """Length of the longest strictly increasing subsequence."""
    ends: list[int] = []
    for number in numbers:
        place = int(np.searchsorted(ends, number))
        ends[place : place + 1] = [number]
    return len(ends)


def _consistency(read: Sequence[Sentence], given: Sequence[Sentence], record: StoryRecord) -> float:
    known = {role: value for sentence in given for role, value in sentence.told}
    known |= {"name": record.hero.name, **FORMS[record.hero.pronoun]}
    agrees = list(_agreements(read, known))
    return sum(agrees) / len(agrees) if agrees else 0.0


def _agreements(read: Sequence[Sentence], known: dict[str, str]) -> Iterator[bool]:
    """Whether each thing told agrees with what is known; the first of its role makes it known.

    Without the sentences that are not admitted, one lucky sentence would be a consistent story.
    """
    for sentence in read:
        if sentence.part is None:
            yield False
        for role, value in sentence.told:
            expected = {known[role]} if role in known else _possible(role, known)
            if expected is not None:
                yield value in expected
            known.setdefault(role, value)


def _possible(role: str, known: Mapping[str, str]) -> set[str] | None:
    """What the world lets a role be, given what is known; None where that is anything."""
    sets = [
        of(known[other])
        for (wanted, other), of in _LAWS.items()
        if wanted == role and other in known
    ]
    return set.intersection(*sets) if sets else None


def _kinds_that_can(skill: str) -> set[str]:
    return {kind.name for kind in facts.KINDS.values() if skill in kind.skills}


# (what is told, what is known) -> what the first may be.
_LAWS: dict[tuple[str, str], Callable[[str], set[str]]] = {
    ("skill", "helper_kind"): lambda kind: set(facts.KINDS[kind].skills),
    ("skill", "obstacle"): lambda obstacle: {OBSTACLES[obstacle].skill},
    ("obstacle", "skill"): lambda skill: {o.name for o in OBSTACLES.values() if o.skill == skill},
    ("obstacle", "place"): lambda place: {o.name for o in OBSTACLES.values() if place in o.places},
    ("helper_kind", "skill"): _kinds_that_can,
    ("helper_home", "helper_kind"): lambda kind: {facts.KINDS[kind].home},
    ("helper_food", "helper_kind"): lambda kind: {facts.KINDS[kind].food},
    ("helper", "name"): lambda name: {n for ns in words.NAMES.values() for n in ns} - {name},
}


@cache
def passages_of_training() -> frozenset[int]:
    """Digests of all passages of the training stories."""
    return frozenset(
        passage
        for record in islice(records("train"), SIZES["train"])
        for passage in _passages(sentences(render_story(record)))
    )


def _passages(texts: Sequence[str]) -> list[int]:
    runs = (" ".join(texts[start : start + RUN]) for start in range(len(texts) - RUN + 1))
    return [int.from_bytes(blake2b(run.encode(), digest_size=8).digest()) for run in runs]
