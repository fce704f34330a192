"""ReCoRD: which entity belongs in the place of "@placeholder"? Scored by the entity chosen.

An entity's score is the best over the right answers, by SQuAD's definitions: exact match (`em`)
and F1 of the tokens, both without case, punctuation and articles.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from datasets import Dataset

HIGHLIGHT = "\n@highlight\n"  # stands before each summary line of a passage
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")

Row = Mapping[str, object]


def distinct(rows: Dataset) -> Dataset:
    """Every entity and every answer once, sorted."""
    return rows.map(lambda row: {name: sorted(set(row[name])) for name in ("entities", "answers")})


def context(row: Row) -> str:
    """The passage, and its summary lines as a list below."""
    passage, *highlights = row["passage"].strip().split(HIGHLIGHT)
    return "\n".join([passage, "", *(f"  - {line}." for line in highlights), ""])


def choices(row: Row) -> list[str]:
    """The query as one more line of that list, once with each entity."""
    return [_filled(row["query"], entity) for entity in row["entities"]]


def target(row: Row) -> str:
    """The line with a right answer."""
    return _filled(row["query"], row["answers"][0])


def score(row: Row, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Exact match and F1 of the likeliest entity.

    Args:
        row: a task's row.
        results: log-likelihood of every choice, and whether it is the greedy one.
    """
    likeliest = max(range(len(results)), key=lambda choice: results[choice][0])
    chosen = row["entities"][likeliest]
    return {
        name: max(metric(chosen, answer) for answer in row["answers"])
        for name, metric in METRICS.items()
    }


def exact_match(answer: str, truth: str) -> float:
    """1 where both have the same words in the same order."""
    return float(_words(answer) == _words(truth))


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall of words, as multisets; two empty texts agree."""
    ours, theirs = _words(answer), _words(truth)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


METRICS: dict[str, Callable[[str, str], float]] = {"f1": token_f1, "em": exact_match}


def _words(text: str) -> list[str]:
    return ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split()


def _filled(query: str, entity: str) -> str:
    return f"  - {query}".replace("@placeholder", entity)
