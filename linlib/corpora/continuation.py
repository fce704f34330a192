"""`continuation`: which sentence goes on with a paragraph of `pydocs`? In ARC's columns.

A question is the beginning of a paragraph, in whole sentences. Its four candidates are the next
sentence and those of three other paragraphs of the same package, so that all candidates are the
next sentence somewhere: what they look like by themselves says nothing about which is right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from random import Random

from datasets import Dataset

from linlib.corpora import pydocs

QUESTION_WORDS = range(12, 41)
SENTENCE_WORDS = range(5, 26)  # of a candidate
LABELS = "ABCD"
SPLITS = {"train": "train", "validation": "heldout"}  # the task's name -> that of pydocs

_BOUNDARY = re.compile(r"""(?<=[.!?])[)\]"']*\s+(?=["'(\[]*[A-Z0-9`])""")
# What a full stop can follow in mid-sentence: abbreviations, initials, numbers of lists.
_GOES_ON = re.compile(
    r"(?:^|[\s(\[])(?:e\.g|i\.e|etc|vs|cf|resp|approx|incl|al|ca|eqs?|figs?|secs?|refs?|no|nos|"
    r"vol|pp?|chap|ed|eds|dr|mr|mrs|prof|st|[a-z]|\d+|w\.r\.t|a\.k\.a)\.$",
    re.IGNORECASE,
)


def load(split: str, n_rows: int | None = None) -> Dataset:
    """Return items of one split of `pydocs`: the same ones in the same order each time.

    Args:
        split: "train" or "validation", which is made of held-out text.
        n_rows: how many, or all where there are fewer; fewer rows are the first rows.

    Returns:
        Columns `id`, `question` (12 to 40 words), `choices` (`text`, four sentences of 5 to 25
        words, and `label`, A to D) and `answerKey`, the label of the true next sentence; labels
        take turns, so that any number of first rows is balanced.
    """
    rows = continuation_items(pydocs.load(SPLITS[split]))
    return rows if n_rows is None else rows.select(range(min(n_rows, len(rows))))


def continuation_items(documents: Dataset) -> Dataset:
    """Make one item of each paragraph of `documents` (`text`, `source`) that allows it.

    The true sentence of each item stands among its four candidates at a random place by length,
    the other three being the neighbours by length in its package: neither the longest nor the
    shortest candidate is right more often than by chance.

    Raises:
        ValueError: no package has four paragraphs of two sentences.
    """
    packages: dict[str, dict[str, str]] = defaultdict(dict)  # next sentence -> question
    for text, source in zip(documents["text"], documents["source"], strict=True):
        for paragraph in text.split("\n\n"):
            if parts := _beginning_and_next(paragraph):
                packages[source.partition("/")[0]].setdefault(parts[1], parts[0])
    generator, rows = Random(0), []
    for package in sorted(packages):
        pairs = packages[package]
        ends = sorted(pairs, key=lambda sentence: (len(sentence), sentence))
        if len(ends) < len(LABELS):
            continue
        for place, true in enumerate(ends):
            first = place - generator.randrange(len(LABELS))
            first = min(max(first, 0), len(ends) - len(LABELS))
            others = [end for end in ends[first : first + len(LABELS)] if end != true]
            generator.shuffle(others)
            rows.append((f"{package}-{place}", pairs[true], true, others))
    if not rows:
        raise ValueError(
            f"{len(documents)} documents have no package with four paragraphs of two sentences; "
            "give more text"
        )
    generator.shuffle(rows)
    items = []
    for number, (name, question, true, others) in enumerate(rows):
        right = number % len(LABELS)
        texts = [*others[:right], true, *others[right:]]
        choices = {"text": texts, "label": list(LABELS)}
        item = {"id": name, "question": question, "choices": choices, "answerKey": LABELS[right]}
        items.append(item)
    return Dataset.from_list(items)


def _beginning_and_next(paragraph: str) -> tuple[str, str] | None:
    """The longest beginning that is short enough and has a next sentence that may be asked for."""
    parts, n_words, found = sentences(" ".join(paragraph.split())), 0, None
    for number, sentence in enumerate(parts[:-1], start=1):
        n_words += len(sentence.split())
        if n_words in QUESTION_WORDS and len(parts[number].split()) in SENTENCE_WORDS:
            found = " ".join(parts[:number]), parts[number]
    return found


def sentences(text: str) -> list[str]:
    """Split text after each full stop, question or exclamation mark that ends a sentence.

    One does where a capital letter, a digit or code follows, in quotes or brackets or not, unless
    what stands before it is an abbreviation ("e.g."), an initial or a number.
    """
    parts: list[str] = []
    start = 0
    for boundary in _BOUNDARY.finditer(text):
        part = text[start : boundary.end()].rstrip()
        if not _GOES_ON.search(part):
            parts.append(part)
            start = boundary.end()
    return [*parts, text[start:].strip()] if text[start:].strip() else parts
