"""What a claim of the paper comes to in our own measurement."""

from __future__ import annotations

from dataclasses import dataclass

SUPPORTED, CONTRADICTED, MIXED = "supported", "contradicted", "mixed"
NO_DIFFERENCE = "no difference shown"


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
