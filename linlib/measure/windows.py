"""Windows of token ids through a model: checks, batches, and the moments of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments, FewTokens
from linlib.models.decoders import (
    decoder_blocks,
    final_states,
    position_limit,
    run_backbone,
    watch_blocks,
)

TOKEN_GROUPS = ("all", "no massive")
MASSIVE = 10  # times the median norm


def check_windows(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Return the attention mask, (n_windows, seq_len), as booleans on the CPU; None means all True.

    Raises:
        TypeError: the windows are text, or anything else but a tensor of integers.
        ValueError: shapes disagree, windows are longer than the model takes, token ids are not in
            its vocabulary, or a window holds no token at all.
    """
    if not isinstance(input_ids, Tensor) or input_ids.is_floating_point():
        got = input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise TypeError(
            f"windows must be a tensor of token ids, (n_windows, seq_len), got {got}; make them of "
            "text with linlib.token_windows(text, tokenizer)"
        )
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be (n_windows, seq_len), got {tuple(input_ids.shape)}")
    limit, vocabulary = position_limit(model), model.config.vocab_size
    if limit is not None and input_ids.shape[1] > limit:
        raise ValueError(
            f"windows of {input_ids.shape[1]} tokens do not fit the model, which takes at most "
            f"{limit}; cut the text into shorter windows"
        )
    if input_ids.numel() and not 0 <= input_ids.min() <= input_ids.max() < vocabulary:
        raise ValueError(
            f"token ids {input_ids.min()} .. {input_ids.max()} are not all in the model's "
            f"vocabulary of {vocabulary}; use the tokenizer that belongs to the model"
        )
    if attention_mask is None:
        return torch.ones(input_ids.shape, dtype=torch.bool)
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask {tuple(attention_mask.shape)} must have the shape of input_ids "
            f"{tuple(input_ids.shape)}"
        )
    mask = attention_mask.bool().cpu()
    if not bool(mask.any(1).all()):
        empty = (~mask.any(1)).nonzero()[0].item()
        raise ValueError(f"window {empty} holds no token: its attention mask is all zero")
    return mask


def norm_limits(x: Tensor, y: Tensor) -> Tensor:
    """The largest norms of input and output that are not massive: 10 times their medians, (2,).

    `x` and `y` are the norms ||x|| and ||y|| of a block's tokens, (n_tokens,).
    """
    return MASSIVE * torch.stack([x.float().median(), y.float().median()])


def is_massive(x: Tensor, y: Tensor, limits: Tensor) -> Tensor:
    """Whether ||x|| or ||y||, (...), exceeds its limit, (2,): a mask, (...)."""
    limit_x, limit_y = limits.to(x.device)
    return (x > limit_x) | (y > limit_y)


def token_norms(states: Tensor) -> Tensor:
    """Norms of states, (..., d_model), in float32 at least: (...)."""
    dtype = torch.promote_types(states.dtype, torch.float32)
    return torch.linalg.vector_norm(states, dim=-1, dtype=dtype)


def document_folds(documents: Tensor, n_folds: int) -> Tensor:
    """Fold of each token, (n_windows, seq_len): whole documents, folds of about equal size.

    Args:
        documents: the document of each token, (n_windows, seq_len); adjacent numbers fall into
            one fold, wherever their tokens are.
        n_folds: number of folds; documents that are longer than a fold can leave some empty.

    Raises:
        ValueError: fewer documents than folds.
    """
    _, number, sizes = documents.unique(return_inverse=True, return_counts=True)
    if len(sizes) < n_folds:
        raise ValueError(
            f"fewer documents or windows ({len(sizes)}) than folds ({n_folds}): give more text, or "
            "n_folds=1 for no held-out score"
        )
    middles = sizes.cumsum(0) - sizes / 2
    return (middles * n_folds / sizes.sum()).long()[number]


def choose_layers(model: PreTrainedModel, layers: Collection[int] | None = None) -> list[int]:
    """Return the requested layers (1..L; None: all) in ascending order.

    Raises:
        IndexError: a layer is not in 1..L.
    """
    n_blocks = len(decoder_blocks(model))
    chosen = sorted(set(range(1, n_blocks + 1) if layers is None else layers))
    for layer in chosen:
        if not 1 <= layer <= n_blocks:
            raise IndexError(f"layer {layer} does not exist: this model has 1 .. {n_blocks}")
    return chosen


def contiguous_batches(n_windows: int, batch_size: int) -> Iterator[slice]:
    """Batches of adjacent windows."""
    for first in range(0, n_windows, batch_size):
        yield slice(first, min(first + batch_size, n_windows))


class PassEnded(Exception):
    """Raised by a hook to end a forward pass whose other layers nobody needs."""


@torch.no_grad()
def run_windows(
    model: PreTrainedModel,
    input_ids: Tensor,
    mask: Tensor,
    batches: list[slice],
    callback: Callable[[int, Tensor, Tensor, slice], None],
    last: int | None = None,
) -> None:
    """Send batches of windows through the model and call back after each block.

    Args:
        model: a decoder.
        input_ids: (n_windows, seq_len).
        mask: True for tokens, (n_windows, seq_len).
        batches: the windows that go through the model together.
        callback: gets (layer, x, y, batch) with x and y (batch, seq_len, d_model); the layer is
            named before the ValueErrors that it raises.
        last: the layer after which a forward pass ends; None: at the last one.
    """
    batch = slice(0)

    def named(layer: int, x: Tensor, y: Tensor) -> None:
        try:
            callback(layer, x, y, batch)
        except ValueError as error:
            raise ValueError(f"layer {layer}: {error}") from error
        if layer == last:
            raise PassEnded

    with watch_blocks(model, named):
        for batch in batches:
            with suppress(PassEnded):
                run_backbone(model, input_ids[batch], mask[batch].long())


@dataclass
class StreamMoments:
    """Moments of the blocks of one model.

    A token is massive at a layer where the norm of the block's input or that of its output exceeds
    10 times its median over the tokens of the first batch.

    Attributes:
        n_blocks: L, of the whole model.
        usual: layer (1..L) -> moments of the tokens that are not massive there.
        massive: layer -> the tokens that are; layers without any are left out.
        limits: layer -> the largest norms of input and output that are not massive, (2,).
    """

    n_blocks: int
    usual: dict[int, BlockMoments] = field(default_factory=dict)
    massive: dict[int, FewTokens] = field(default_factory=dict)
    limits: dict[int, Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> list[int]:
        """The layers that were measured, in ascending order."""
        return sorted(self.usual)

    def n_massive(self, layer: int) -> int:
        """Number of massive tokens at a layer."""
        return len(self.massive[layer]) if layer in self.massive else 0

    def group(self, layer: int, tokens: str = "all") -> BlockMoments:
        """Moments of one layer over "all" tokens, or over those that are not massive there.

        Raises:
            ValueError: another group, or all tokens of the layer are massive.
        """
        check_group(tokens)
        usual = self.usual[layer]
        if tokens == "all":
            return self.massive[layer].joined_to(usual) if layer in self.massive else usual
        if usual.n_tokens == 0 and self.n_massive(layer):
            raise ValueError(
                f"layer {layer}: all {self.n_massive(layer)} tokens are massive by the rule (norms "
                f"above {self.limits[layer].tolist()}, {MASSIVE} times the medians of the first "
                "batch), so that none is left; shuffle the windows, or give a larger batch_size"
            )
        return usual

    def save(self, folder: Path) -> None:
        """Write two safetensors files per layer, moments and massive tokens, and the limits."""
        for layer, moments in self.usual.items():
            moments.save(folder / f"usual-{layer:03d}-of-{self.n_blocks:03d}.safetensors")
        for layer, tokens in self.massive.items():
            tensors = {name: one.cpu().contiguous() for name, one in vars(tokens).items()}
            save_file(tensors, folder / f"massive-{layer:03d}.safetensors")
        limits = {str(layer): limit.cpu() for layer, limit in self.limits.items()}
        save_file(limits, folder / "limits.safetensors")

    @classmethod
    def load(cls, folder: Path) -> StreamMoments:
        """Read a folder that `save` wrote, onto the CPU."""
        limits = load_file(folder / "limits.safetensors")
        moments = cls(0, limits={int(layer): limit for layer, limit in limits.items()})
        for path in sorted(folder.glob("usual-*.safetensors")):
            _, layer, _, n_blocks = path.stem.split("-")
            moments.usual[int(layer)] = BlockMoments.load(path)
            moments.n_blocks = int(n_blocks)
        for path in sorted(folder.glob("massive-*.safetensors")):
            moments.massive[int(path.stem.split("-")[1])] = FewTokens(**load_file(path))
        return moments


def check_group(tokens: str) -> None:
    """Refuse a token group that is not in `TOKEN_GROUPS` (ValueError)."""
    if tokens not in TOKEN_GROUPS:
        raise ValueError(f"unknown token group '{tokens}'; choose from {TOKEN_GROUPS}")


def collect_moments(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    documents: Tensor | None = None,
    n_folds: int = 4,
    batch_size: int = 32,
    layers: Collection[int] | None = None,
    weights: str | None = None,
    after_final_norm: bool = False,
) -> StreamMoments:
    """Accumulate the moments of (x, delta) of each block in one pass, on the model's device.

    Arguments are those of `linearity_profile`. Padding never enters a moment. Each layer takes
    memory for n_folds d (2 d) float64 values, and for the states of its massive tokens.

    Raises:
        TypeError, ValueError: the windows are not token ids that fit the model (see
            `check_windows`), states are NaN or infinite (the layer is named), there are fewer
            documents than folds, or unknown weights.
        IndexError: a layer does not exist.
    """
    mask = check_windows(model, input_ids, attention_mask)
    if weights not in (None, "energy"):
        raise ValueError(f"unknown weights {weights!r}; choose from None and 'energy'")
    if documents is None:
        documents = torch.arange(len(input_ids))[:, None].expand(input_ids.shape)
    elif not isinstance(documents, Tensor) or documents.shape != input_ids.shape:
        shape = getattr(documents, "shape", None)
        given = type(documents).__name__ if shape is None else tuple(shape)
        raise ValueError(
            f"documents must be a tensor of the shape of input_ids {tuple(input_ids.shape)}, the "
            f"document of each token, got {given}; linlib.token_windows(..., return_documents=True)"
            " gives it beside the windows"
        )
    folds = document_folds(documents, n_folds)
    n_blocks, d_model = len(decoder_blocks(model)), model.config.hidden_size
    moments = StreamMoments(n_blocks)
    for layer in choose_layers(model, layers):
        moments.usual[layer] = BlockMoments(d_model, n_folds)
    previous: list[Tensor] = []  # the output of the block before, and its norms

    def add(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        if layer not in moments.usual:
            return
        if after_final_norm and layer == n_blocks:
            y = final_states(model, y)
        # A difference of half-precision states needs more digits than they have.
        delta = y.to(torch.promote_types(y.dtype, torch.float32)) - x
        norms_x = previous[1] if previous and previous[0] is x else token_norms(x)
        norms_y = token_norms(y)
        previous[:] = [y, norms_y]
        members, fold_of = mask[batch].to(x.device), folds[batch].to(x.device)
        if layer not in moments.limits:
            moments.limits[layer] = norm_limits(norms_x[members], norms_y[members])
        massive = members & is_massive(norms_x, norms_y, moments.limits[layer])
        weight = None
        if weights == "energy":
            energy = norms_x.square() + token_norms(delta).square()
            weight = 1 / energy.clamp_min(torch.finfo(energy.dtype).tiny)
        usual, unpadded = moments.usual[layer], bool(members.all())
        for fold in folds[batch].unique().tolist():
            chosen = members & ~massive & (fold_of == fold)
            _update(usual, x, delta, fold, chosen, weight, unpadded)
        if bool(massive.any()):
            counts = torch.ones_like(norms_x) if weight is None else weight
            found = FewTokens(*(one[massive] for one in (x, delta, fold_of, counts)))
            before = moments.massive.get(layer)
            moments.massive[layer] = found if before is None else before + found

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, add, last=moments.layers[-1])
    return moments


def _update(
    moments: BlockMoments,
    x: Tensor,
    delta: Tensor,
    fold: int,
    members: Tensor,
    weights: Tensor | None,
    unpadded: bool,
) -> None:
    """Add the tokens of x and delta, (batch, seq_len, d), that are members, (batch, seq_len).

    Where they are nearly all tokens of adjacent windows, as those of a fold are, the others get
    weight 0 instead of being left out, which saves a copy of the states; the states of padding can
    be anything, and are always left out.
    """
    windows = members.any(1).nonzero()[:, 0].tolist()
    if not windows:
        return
    part = slice(windows[0], windows[-1] + 1)
    x, delta, members = x[part], delta[part], members[part]
    weights = None if weights is None else weights[part]
    n_members, n_tokens = int(members.sum()), members.numel()
    if n_members == n_tokens:
        moments.update(x, delta, fold, weights)
    elif unpadded and n_members > 0.9 * n_tokens:
        moments.update(x, delta, fold, members * (1.0 if weights is None else weights))
    else:
        chosen = None if weights is None else weights[members]
        moments.update(x[members], delta[members], fold, chosen)


def layer_passes(
    model: PreTrainedModel,
    layers_per_pass: int | None = None,
    layers: Collection[int] | None = None,
) -> list[list[int]]:
    """Split layers (1..L; None: all) into groups whose moments fit in memory together.

    With `layers_per_pass` None, one group holds all of them.
    """
    chosen = choose_layers(model, layers)
    size = layers_per_pass or len(chosen)
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]
