"""What a claim of the paper comes to in our own measurement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SUPPORTED, CONTRADICTED, MIXED = "supported", "contradicted", "mixed"
NO_DIFFERENCE = "no difference shown"


def verdict_over_sizes(verdicts: Iterable[str], hoped: str) -> str:
    """What the verdicts of `intervals.paired_differences`, one a size, come to.

    Args:
        verdicts: "higher", "lower" or "no difference shown".
        hoped: what supports the claim, "higher" or "lower"; where sizes differ, it is mixed.
    """
    found = set(verdicts)
    if len(found) > 1:
        return MIXED
    verdict = found.pop()
    if verdict == NO_DIFFERENCE:
        return NO_DIFFERENCE
    return SUPPORTED if verdict == hoped else CONTRADICTED


@dataclass(frozen=True)
class Finding:
    """One claim of the paper and what we find.

    Attributes:
        claim: what the paper says.
        ours: what we measure, with its numbers.
        verdict: what follows.
    """

    claim: str
    ours: str
    verdict: str
