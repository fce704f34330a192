"""The paper's regularisers: terms that pull the outputs of adjacent blocks together (section 5).

    L_MSE    = lambda * sum_i mean ||h_i - h_{i-1}||^2
    L_cosine = lambda * sum_i mean (1 - cos(h_i, h_{i-1}))

Sums run over adjacent blocks, means over the tokens that are no padding; h_i is what leaves block
i, before the final norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_NORM = 1e-8  # of two states together, below which their angle means nothing


def squared_distances(outputs: Sequence[Tensor]) -> Iterator[Tensor]:
    """||h_i - h_{i-1}||^2 of every token: L states (..., d_model) -> L - 1 times (...)."""
    for earlier, later in zip(outputs, outputs[1:], strict=False):
        yield (later - earlier).square().sum(-1)


def angular_distances(outputs: Sequence[Tensor]) -> Iterator[Tensor]:
    """1 - cos(h_i, h_{i-1}) of every token; a state's norm is taken once for both neighbours."""
    norms = [states.norm(dim=-1) for states in outputs]
    for i in range(1, len(outputs)):
        product = (norms[i] * norms[i - 1]).clamp_min(SMALLEST_NORM)
        yield 1 - (outputs[i] * outputs[i - 1]).sum(-1) / product


DISTANCES: dict[str, Callable[[Sequence[Tensor]], Iterator[Tensor]]] = {
    "mse": squared_distances,
    "cosine": angular_distances,
}


@dataclass(frozen=True)
class Regulariser:
    """One of the paper's two terms, with its weight.

    Attributes:
        kind: "mse" or "cosine".
        weight: lambda, not negative.

    Raises:
        ValueError: an unknown kind, or a weight that is negative or no number.
    """

    kind: str
    weight: float

    def __post_init__(self) -> None:
        """Refuse what cannot be a regulariser."""
        if self.kind not in DISTANCES:
            raise ValueError(f"unknown regulariser '{self.kind}'; choose from {sorted(DISTANCES)}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(
                f"the weight lambda of a regulariser must be a finite number that is not "
                f"negative, got {self.weight}"
            )

    def __call__(self, outputs: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """The term for one batch, a scalar in float32 or better.

        Args:
            outputs: what leaves block 1, 2, ..., L, each (batch, length, d_model).
            mask: 1 for tokens, 0 for padding, (batch, length); None counts every position.

        Raises:
            ValueError: fewer than two blocks, so that nothing is adjacent.
        """
        require_adjacent(len(outputs))
        precise = [
            states.to(torch.promote_types(states.dtype, torch.float32)) for states in outputs
        ]
        return self.weight * sum(_token_mean(d, mask) for d in DISTANCES[self.kind](precise))


def parse_variant(variant: str) -> Regulariser | None:
    """The regulariser of a variant's name: "plain", or kind and weight, e.g. "cosine-0.5".

    Raises:
        ValueError: the name is of another form, or as `Regulariser`.
    """
    if variant == "plain":
        return None
    kind, _, weight = variant.partition("-")
    try:
        return Regulariser(kind, float(weight))
    except ValueError as error:
        raise ValueError(
            f"variant '{variant}' is neither 'plain' nor '<kind>-<lambda>': {error}"
        ) from None


def require_adjacent(n_blocks: int) -> None:
    """Refuse a model whose blocks have no neighbours.

    Raises:
        ValueError: fewer than two blocks.
    """
    if n_blocks < 2:
        raise ValueError(
            f"a model of {n_blocks} block has no adjacent blocks to regularise; use a model of at "
            "least 2 blocks, or no regulariser"
        )


def _token_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    mask = mask.to(values)
    return (values * mask).sum() / mask.sum()
