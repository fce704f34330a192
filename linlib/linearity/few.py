"""A few tokens apart from all others: kept one by one, and added to a solution that is known.

Where m tokens join n others, with m far below d, the moments of the union differ from those of the
others by m directions. Its scores then follow from the solution for the others at the price of m
equations (recursive least squares), and not from a solution of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from linlib.linearity.maps import GramFactor, require_tokens
from linlib.linearity.moments import BlockMoments
from linlib.linearity.sums import Centred, error_terms, folds_apart


@dataclass
class FewTokens:
    """Tokens of one block, in the order in which they came.

    Attributes:
        x: block inputs, (m, d).
        delta: contributions, (m, d).
        folds: the fold of each token, (m,).
        weights: by how much each token counts, (m,).
    """

    x: Tensor
    delta: Tensor
    folds: Tensor
    weights: Tensor

    def __len__(self) -> int:
        """Their number m."""
        return len(self.x)

    def __add__(self, other: FewTokens) -> FewTokens:
        """These tokens and then the others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return FewTokens(*(torch.cat(pair) for pair in pairs))

    def joined_to(self, moments: BlockMoments) -> BlockMoments:
        """Moments of the union of these tokens and of those in `moments`."""
        few = moments.empty_like()
        for fold in self.folds.unique().tolist():
            here = self.folds == fold
            few.update(self.x[here], self.delta[here], fold, self.weights[here])
        return moments + few

    def solved_with(self, moments: BlockMoments) -> BlockMoments:
        """The same union, solved from the solution for `moments`, which is kept there.

        Where that is not possible, the union is solved when it is asked for a score.

        Raises:
            ValueError: as the scores of `moments` do.
        """
        union, sums = self.joined_to(moments), moments._sums
        require_tokens(moments.n_tokens, moments.d_model)
        apart = (sums.count == 0) & (self.folds.bincount(minlength=moments.n_folds) > 0)
        if len(self) > moments.d_model // 4 or bool(apart.any()):  # not few, or a fold of their own
            return union
        c = moments._centred
        factor = c.factor()
        if factor.triangle is None:  # x does not span the space, which the others may leave
            return union
        moments._solved["_unexplained"] = c.unexplained(factor)
        _, misses, weighted = self._update(c, factor, self.folds >= 0)
        added = (misses * weighted).sum().item()
        union._solved["_unexplained"] = moments._solved["_unexplained"] + added
        if moments.n_folds == 1:
            return union
        terms, of_union = [], []
        for fold, train in folds_apart(sums):
            factor, test = train.factor(), sums.of_fold(fold)
            weight = factor.solve(train.xd)
            terms.append(error_terms(weight, train.mean - sums.shift, *test))
            if factor.triangle is None:
                return union
            others = self.folds != fold
            if bool(others.any()):
                directions, _, weighted = self._update(train, factor, others)
                weight = weight + directions @ weighted
            mean = self._mean_with(train, others)
            usual = error_terms(weight, mean - sums.shift, *test)
            pairs = zip(usual, self._errors(weight, mean, ~others), strict=True)
            of_union.append(tuple(a + b for a, b in pairs))
        moments._solved["_heldout_terms"] = terms
        union._solved["_heldout_terms"] = of_union
        return union

    def _update(
        self, c: Centred, factor: GramFactor, members: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Recursive least squares: what some of these tokens change in a solution A.

        Returns:
            K, (d, m), R, (m, d), and B, (m, d): the map becomes A + K B, and the variance that it
            leaves unexplained grows by <R, B>. R is what A misses of the tokens.
        """
        x, delta, root = self._about(c.mean, members)
        # About the mean of the union, the tokens' moments are V'(I - r r' / n)V with r the roots of
        # their weights, and I - r r' / n is the square of I - s r r'.
        share = root.square().sum()
        shrink = (1 - (1 - share / (c.mass + share)).sqrt()) / share
        x, delta = (z - shrink * torch.outer(root, root @ z) for z in (x, delta))
        directions = factor.solve(x.T)
        misses = delta - directions.T @ c.xd
        system = torch.eye(len(x), dtype=x.dtype, device=x.device) + x @ directions
        return directions, misses, torch.linalg.solve(system, misses)

    def _about(self, mean: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Some tokens, x and delta about a mean, (2 d,), times the roots of their weights."""
        root = self.weights[members].double().sqrt()  # (m,)
        states = (one[members].double() for one in (self.x, self.delta))
        pairs = zip(states, mean.chunk(2), strict=True)
        return (*(root[:, None] * (one - about) for one, about in pairs), root)

    def _mean_with(self, c: Centred, members: Tensor) -> Tensor:
        """The mean of the tokens of `c` and of some of these, (2 d,)."""
        x, delta, root = self._about(c.mean, members)
        return c.mean + torch.cat([root @ x, root @ delta]) / (c.mass + root.square().sum())

    def _errors(self, weight: Tensor, mean: Tensor, members: Tensor) -> tuple[float, float, float]:
        """What `sums.error_terms` gives, for some of these tokens."""
        x, delta, _ = self._about(mean, members)
        terms = (delta - x @ weight, x + delta, delta)
        return tuple(one.square().sum().item() for one in terms)
