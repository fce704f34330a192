"""A deterministic judge of stories about the world.

It reads a completion sentence by sentence with the grammar of the stories. It knows this world and
nothing else: a good story about another world scores 0, and its scores are not comparable to those
of a language model used as a judge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import islice

from storyworld.corpus import SIZES, records
from storyworld.grammar import N_PARTS, Sentence, read_sentence, sentences
from storyworld.stories import FORMS, StoryRecord, render_story
from storyworld.world import KINDS, NAMES, OBSTACLES

BEST = 10.0
PASSAGE_LENGTH = 3  # sentences


@dataclass(frozen=True)
class WorldScores:
    """The quality of a completion: four shares, each multiplied by 10.

    A sentence is *admitted* if it follows one of the wordings of the stories, whether or not it is
    true; it then belongs to one of the 16 parts of a story and states facts such as "the thing is a
    kite" (see `storyworld.grammar`).

    Attributes:
        grammar: The share of the words that belong to admitted sentences.
        creativity: The share of the passages (three consecutive sentences) that consist of admitted
            sentences, occur in no story of the training corpus, and did not occur earlier in the
            completion. 0 for fewer than three sentences.
        consistency: The share of the checked facts that hold. A fact is checked against the value
            that its role has in the beginning or had first in the completion; if it had none,
            against what the world allows given the facts known so far (for instance, only a kind
            that can swim is good at swimming); if the world allows anything, the fact is not
            checked. A sentence that is not admitted counts as one fact that does not hold. 0 if
            nothing is checked.
        plot: The number of parts of a story in the longest subsequence of the completion that
            tells them in the right order, divided by the number of parts that follow the last part
            of the beginning. Earlier parts do not count. 0 if no part follows.
    """

    grammar: float
    creativity: float
    consistency: float
    plot: float


def judge_completion(
    completion: str, record: StoryRecord, beginning: str, finished: bool = True
) -> WorldScores:
    """Score a completion of the beginning of a story; an empty completion scores 0.

    Args:
        completion: The text that follows the beginning.
        record: The facts of the story from which the beginning was taken. Only the hero's name and
            pronoun are used; all other facts are taken from the beginning.
        beginning: The text that was given, in whole sentences.
        finished: Whether the completion ended by itself; if not, an incomplete last sentence is
            ignored.
    """
    texts = sentences(completion)
    if texts and not finished and texts[-1].rstrip('"')[-1:] not in tuple(".!?"):
        texts = texts[:-1]
    given = [read_sentence(text) for text in sentences(beginning)]
    read = [read_sentence(text) for text in texts]
    if not read:
        return WorldScores(0.0, 0.0, 0.0, 0.0)
    return WorldScores(
        grammar=BEST * _grammar(read),
        creativity=BEST * _creativity(read),
        consistency=BEST * _consistency(read, given, record),
        plot=BEST * _plot(read, given),
    )


def _grammar(read: Sequence[Sentence]) -> float:
    lengths = [len(sentence.text.split()) for sentence in read]
    admitted = [n for n, sentence in zip(lengths, read, strict=True) if sentence.part is not None]
    return sum(admitted) / sum(lengths)


def _creativity(read: Sequence[Sentence]) -> float:
    known, seen, n_new = _training_passages(), set(), 0
    passages = _passages([sentence.text for sentence in read])
    for start, passage in enumerate(passages):
        admitted = all(s.part is not None for s in read[start : start + PASSAGE_LENGTH])
        n_new += admitted and passage not in known and passage not in seen
        seen.add(passage)
    return n_new / len(passages) if passages else 0.0


@cache
def _training_passages() -> frozenset[int]:
    """Digests of all passages of the stories of the training corpus."""
    return frozenset(
        passage
        for record in islice(records("train"), SIZES["train"])
        for passage in _passages(sentences(render_story(record)))
    )


def _passages(texts: Sequence[str]) -> list[int]:
    """A digest of 64 bits for each passage; the full texts would take several times the memory."""
    starts = range(len(texts) - PASSAGE_LENGTH + 1)
    passages = (" ".join(texts[start : start + PASSAGE_LENGTH]) for start in starts)
    return [int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) for text in passages]


def _consistency(read: Sequence[Sentence], given: Sequence[Sentence], record: StoryRecord) -> float:
    known = {role: value for sentence in given for role, value in sentence.facts}
    known |= {"name": record.hero.name, **FORMS[record.hero.pronoun]}
    checks = list(_checks(read, known))
    return sum(checks) / len(checks) if checks else 0.0


def _checks(read: Sequence[Sentence], known: dict[str, str]) -> Iterator[bool]:
    """Whether each fact that can be checked holds; the first fact of a role becomes known.

    A sentence that is not admitted counts as a fact that does not hold, since otherwise a single
    sentence that happens to be admitted would make a perfectly consistent story.
    """
    for sentence in read:
        if sentence.part is None:
            yield False
        for role, value in sentence.facts:
            allowed = {known[role]} if role in known else _allowed(role, known)
            if allowed is not None:
                yield value in allowed
            known.setdefault(role, value)


def _allowed(role: str, known: Mapping[str, str]) -> set[str] | None:
    """The values that the world allows for a role, given what is known; None if any."""
    sets = [
        values(known[other])
        for (checked, other), values in _LAWS.items()
        if checked == role and other in known
    ]
    return set.intersection(*sets) if sets else None


# (checked role, known role) -> the values that the first may take, given the value of the second.
_LAWS: dict[tuple[str, str], Callable[[str], set[str]]] = {
    ("skill", "helper_kind"): lambda kind: set(KINDS[kind].skills),
    ("skill", "obstacle"): lambda obstacle: {OBSTACLES[obstacle].skill},
    ("obstacle", "skill"): lambda skill: {o.name for o in OBSTACLES.values() if o.skill == skill},
    ("obstacle", "place"): lambda place: {o.name for o in OBSTACLES.values() if place in o.places},
    ("helper_kind", "skill"): lambda skill: {k.name for k in KINDS.values() if skill in k.skills},
    ("helper_home", "helper_kind"): lambda kind: {KINDS[kind].home},
    ("helper_food", "helper_kind"): lambda kind: {KINDS[kind].food},
    ("helper", "name"): lambda name: {n for names in NAMES.values() for n in names} - {name},
}


def _plot(read: Sequence[Sentence], given: Sequence[Sentence]) -> float:
    last = max((sentence.part for sentence in given if sentence.part is not None), default=-1)
    parts = [s.part for s in read if s.part is not None and s.part > last]
    n_left = N_PARTS - 1 - last
    return _longest_rise(parts) / n_left if n_left else 0.0


def _longest_rise(numbers: Iterable[int]) -> int:
    """The length of the longest strictly increasing subsequence (patience sorting)."""
    ends: list[int] = []  # ends[n]: the smallest last number of a rise of n + 1 numbers
    for number in numbers:
        place = bisect_left(ends, number)
        ends[place : place + 1] = [number]
    return len(ends)
