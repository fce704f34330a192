"""The loss of a model without each of many sets of blocks, which share what they can."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from random import Random

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.corpora import token_windows
from linlib.linearity import BlockMoments, LinearMap
from linlib.measure.losses import document_losses
from linlib.measure.windows import contiguous_batches
from linlib.models.decoders import decoder_blocks, run_backbone
from linlib.pruning.fit import Maps, apply_maps, fit_maps, run_moments
from linlib.pruning.losses import added_loss
from linlib.pruning.remove import adjacent_runs, remove_blocks

SPREAD = 16  # of so many windows, the studies take one


def study_text(
    settings: object, tokenizer: PreTrainedTokenizerBase, separator: str | None = None
) -> tuple[dict[str, object], dict[str, object]]:
    """The text on which many sets of blocks are compared, from many documents of a corpus.

    Adjacent windows would come from two or three documents, and no interval over documents could be
    given. So one window in 16 is taken, or as many as the text has.

    Args:
        settings: the profile; its sections `pruning` and `measure` have the numbers.
        tokenizer: of the model.
        separator: see `linlib.token_windows`.

    Returns:
        Keyword arguments of `losses_of_sets`, with held-out text, and of `linearity_profile`, with
        the training text that maps are fitted on.
    """
    scale, joined = settings.pruning, {"separator": separator, "return_documents": True}
    text = []
    for split, n in (("heldout", scale.study_windows), ("train", scale.calibration_windows)):
        options = joined | {"seq_len": settings.measure.seq_len, "at_most": SPREAD * n}
        found = token_windows(settings.corpus, tokenizer, split=split, **options)
        text += [one[:: max(len(one) // n, 1)][:n].contiguous() for one in found]
    heldout, documents, windows, of_windows = text
    batch = {"batch_size": scale.batch_size}
    fitting = {"windows": windows, "ridge": scale.ridge} | batch
    folds = {"documents": of_windows, "n_folds": settings.measure.n_folds}
    given = {"heldout": heldout, "documents": documents, "fitting": fitting}
    return given, {"input_ids": windows} | folds | batch


def random_sets(n_blocks: int, size: int, at_most: int, seed: int) -> list[tuple[int, ...]]:
    """Sets of blocks among which to place those of an order: the null of a comparison.

    Args:
        n_blocks: of the model.
        size: the number of blocks in a set.
        at_most: sets; all there are, where they are not more.
        seed: of the random choice.
    """
    if math.comb(n_blocks, size) <= at_most:
        return list(combinations(range(n_blocks), size))
    generator, found = Random(seed), {}
    while len(found) < at_most:
        found[tuple(sorted(generator.sample(range(n_blocks), size)))] = None
    return list(found)


def random_removals(
    losses: Callable[[Sequence[Sequence[int]], str], pd.DataFrame],
    n_blocks: int,
    order: Sequence[int],
    numbers: Sequence[int],
    at_most: int,
    seed: int,
) -> pd.DataFrame:
    """Loss that is added by removing the first blocks of an order, and as many drawn at random.

    Args:
        losses: `losses_of_sets` of a model on some text; through the store, pages share its values,
            since it is called once for each number of blocks.
        n_blocks: of the model.
        order: blocks in the order of their removal.
        numbers: of blocks that are removed.
        at_most: random sets of one size; all there are, where they are not more.
        seed: of the random sets.

    Returns:
        One row per number of blocks and set: `n_removed`, `drawn` ("in order", the first blocks of
        the order, or "random"), `removed`, and the columns of `added_loss`, in nats per token.
    """
    drawn = [("in order", [tuple(sorted(order[:n])) for n in numbers])]
    drawn += [("random", random_sets(n_blocks, n, at_most, seed)) for n in numbers]
    frames = []
    for name, sets in drawn:
        found = losses([(), *sets], "remove")
        dense = found["removed"] == ""
        added = added_by_set(found[~dense], found[dense])
        place = {"n_removed": added["removed"].str.split().str.len(), "drawn": name}
        frames.append(pd.DataFrame(place | dict(added)))
    keys = ["n_removed", "drawn"]
    return pd.concat(frames).sort_values(keys, kind="stable", ignore_index=True)


def cheapest_sets(
    costs: Mapping[str, Sequence[float]], sizes: Iterable[int]
) -> tuple[pd.DataFrame, list[tuple[int, ...]]]:
    """The cheapest blocks by each of several orders, for each number of blocks.

    Args:
        costs: order -> the cost of each block.
        sizes: numbers of blocks; repeated ones count once.

    Returns:
        One row per order and number of blocks: `order`, `n_removed` and `removed`, the blocks such
        as "3 14"; and the same sets of blocks as sorted tuples.
    """
    pairs, sets = list(product(costs, dict.fromkeys(sizes))), []
    for order, n in pairs:
        ranked = sorted(range(len(costs[order])), key=costs[order].__getitem__)
        sets.append(tuple(sorted(ranked[:n])))
    frame = pd.DataFrame(pairs, columns=["order", "n_removed"])
    return frame.assign(removed=[" ".join(map(str, blocks)) for blocks in sets]), sets


def cost_table(costs: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Costs of blocks in several orders, one row per order and block: `block`, `order`, `cost`."""
    table = pd.DataFrame(costs).rename_axis("block").reset_index()
    return table.melt("block", [*costs], "order", "cost")


def by_model(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames of several models, one below the other, with the column `model` in front."""
    return pd.concat(frames, names=["model"]).reset_index("model")


def fold_moments(
    x: Tensor, delta: Tensor, folds: Tensor, n_folds: int, weights: Tensor
) -> BlockMoments:
    """Moments of a block's states with tokens weighted, by fold, for held-out scores.

    Args:
        x: inputs of the block, (n_windows, seq_len, d_model).
        delta: its contributions, of the same shape.
        folds: the fold of each token, (n_windows, seq_len).
        n_folds: their number.
        weights: of each token, (n_windows, seq_len); 0 leaves it out.
    """
    moments = BlockMoments(x.shape[-1], n_folds)
    for fold in range(n_folds):
        here = folds == fold
        moments.update(x[here], delta[here], fold, weights[here])
    return moments


def losses_of_sets(
    model: PreTrainedModel,
    sets: Sequence[Sequence[int]],
    method: str,
    heldout: Tensor,
    documents: Tensor,
    fitting: Mapping[str, object],
    refit: bool = False,
) -> pd.DataFrame:
    """Loss of a model without each of several sets of blocks, on each held-out document.

    Maps are fitted on the dense model in one pass for all sets. Models that agree in their first
    blocks run these once; not with "fold", which changes the block before a run.

    Args:
        model: the dense decoder.
        sets: 0-based indices; no blocks give the dense model.
        method: "remove", "replace" or "fold"; see `fit_maps`.
        heldout: (n_windows, seq_len).
        documents: the document of each token, (n_windows, seq_len).
        fitting: of `fit_maps`: `windows`, `ridge`, `batch_size`, and perhaps `tokens`.
        refit: see `fit_maps`; it takes a pass for each run of each set of several runs.

    Returns:
        One row per set and document: `removed` (the blocks, such as "3 14"), `document`, `loss`
        (the sum over its predicted tokens, in nats) and `n_tokens` (their number).

    Raises:
        IndexError, ValueError: see `fit_maps`; no sets; or the method "distil", which trains each
            set apart.
    """
    if method == "distil":
        raise ValueError("method 'distil' trains the maps of each set; use `fit_maps`")
    if len(sets) == 0:
        raise ValueError("there are no sets of blocks; give at least one, such as [[]]")
    options = {**fitting}
    windows, ridge = options.pop("windows"), options.pop("ridge")
    runs, moments, maps = [adjacent_runs(blocks) for blocks in sets], {}, []
    at_once = {run: None for some in runs if not refit or len(some) == 1 for run in some}
    if method != "remove" and at_once:
        projection = {"of_projection": method == "fold"}
        moments = run_moments(model, at_once, windows, **options, **projection)
    for blocks, some in zip(sets, runs, strict=True):
        source = {"refit": True} if refit and len(some) > 1 else {"moments": moments}
        maps.append(fit_maps(model, blocks, method, windows, ridge=ridge, **options, **source))
    measure, frames = _losses_apart if method == "fold" else _losses_sharing, []
    for batch in contiguous_batches(len(heldout), fitting["batch_size"]):
        frames += measure(model, maps, heldout[batch], documents[batch])
    keys = ["set", "removed", "document"]  # a document may lie in two batches
    sums = pd.concat(frames).groupby(keys)[["loss", "n_tokens"]].sum()
    return sums.reset_index().drop(columns="set")


def added_by_set(losses: pd.DataFrame, dense: pd.DataFrame) -> pd.DataFrame:
    """Columns of `added_loss` for each set of `losses_of_sets`, in the order of the sets.

    Args:
        losses: of distinct sets; columns before `removed`, such as a method, tell sets apart too.
        dense: of the dense model on the same documents.
    """
    labels = [*losses.columns[: losses.columns.get_loc("document")]]
    groups = losses.groupby(labels, sort=False)
    rows = [dict(zip(labels, key, strict=True)) | added_loss(one, dense) for key, one in groups]
    return pd.DataFrame(rows)


def _losses_apart(
    model: PreTrainedModel, maps: Sequence[Maps], ids: Tensor, documents: Tensor
) -> Iterator[pd.DataFrame]:
    for number, one in enumerate(maps):
        yield _named(document_losses(apply_maps(model, one), ids, documents), number, one)


@torch.no_grad()
def _losses_sharing(
    model: PreTrainedModel, maps: Sequence[Maps], ids: Tensor, documents: Tensor
) -> Iterator[pd.DataFrame]:
    """Take the sets in an order in which neighbours share many blocks, and run what differs.

    Blocks are called as the dense model calls them, but on other states. The head is that of a
    model of one block, whose output is put in by a hook.
    """
    blocks, calls, pending = decoder_blocks(model), {}, []

    def keep(block: nn.Module, args: tuple, kwargs: dict) -> None:
        calls[block] = (args, dict(kwargs))

    def put_in(_block: nn.Module, _args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        n_windows = len(output[0] if isinstance(output, tuple) else output)
        states, pending[:] = torch.stack(pending[:n_windows]), pending[n_windows:]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    try:
        run_backbone(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    head = remove_blocks(model, range(1, len(blocks)))
    decoder_blocks(head)[0].register_forward_hook(put_in)
    stream = [args[0] if args else kwargs.pop("hidden_states") for args, kwargs in calls.values()]
    path, paths = [*blocks], [_path(one, blocks) for one in maps]
    changed = [[one is not block for one, block in zip(p, blocks, strict=True)] for p in paths]
    for number in sorted(range(len(maps)), key=changed.__getitem__):
        same = [before is now for before, now in zip(path, paths[number], strict=True)]
        path = paths[number]
        del stream[[*same, False].index(False) + 1 :]  # what enters the first block that differs
        for block in range(len(stream) - 1, len(blocks)):
            stream.append(_output(path[block], stream[-1], calls.get(path[block])))
        pending[:] = stream[-1]
        yield _named(document_losses(head, ids, documents), number, maps[number])


def _path(maps: Maps, blocks: nn.ModuleList) -> list[nn.Module | LinearMap | None]:
    """What stands in the place of each block: itself, the map of a run that it begins, or None."""
    starts = {run.start: delta for run, delta in maps.deltas.items()}
    kept = (None if number in maps.blocks else block for number, block in enumerate(blocks))
    return [starts.get(number, one) for number, one in enumerate(kept)]


def _output(
    place: nn.Module | LinearMap | None, states: Tensor, call: tuple[tuple, Mapping] | None
) -> Tensor:
    if place is None:
        return states
    if isinstance(place, LinearMap):
        return states + place(states)
    args, kwargs = call
    output = place(states, *args[1:], **kwargs)
    return output[0] if isinstance(output, tuple) else output


def _named(losses: pd.DataFrame, number: int, maps: Maps) -> pd.DataFrame:
    return losses.assign(set=number, removed=" ".join(map(str, maps.blocks)))
