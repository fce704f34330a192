"""Fit the maps that take the place of blocks, keep them, and put them into a model."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments, LinearMap
from linlib.measure.windows import (
    check_group,
    check_windows,
    contiguous_batches,
    is_massive,
    norm_limits,
    run_windows,
    token_norms,
)
from linlib.pruning.distil import distil
from linlib.pruning.maps import affine_maps, output_projection, replace_runs
from linlib.pruning.remove import adjacent_runs, check_blocks, remove_blocks

METHODS = ("remove", "replace", "fold", "distil")


def check_method(method: str) -> None:
    """Refuse a method that is not in `METHODS` (ValueError)."""
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}'; choose from {METHODS}")


@dataclass(frozen=True)
class Maps:
    """Which blocks are taken out of a model, and the maps that take their place.

    Attributes:
        method: one of `METHODS`.
        blocks: 0-based indices, sorted.
        deltas: run of adjacent blocks -> map to its contribution, in the model's precision and at
            least float32; empty for the method "remove".
        history: the held-out loss along a distillation, as `distil` returns it; else None.
    """

    method: str
    blocks: tuple[int, ...]
    deltas: Mapping[range, LinearMap] = field(default_factory=dict)
    history: pd.DataFrame | None = None

    def save(self, folder: Path) -> None:
        """Write `maps.safetensors` into a folder."""
        tensors = {}
        for run, delta in self.deltas.items():
            for name in ("weight", "bias"):
                tensor = getattr(delta, name).detach().cpu().contiguous()
                tensors[f"{run.start}-{run.stop}-{name}"] = tensor
        history = None if self.history is None else self.history.to_dict("list")
        text = json.dumps({"method": self.method, "blocks": self.blocks, "history": history})
        save_file(tensors, folder / "maps.safetensors", metadata={"maps": text})

    @classmethod
    def load(cls, folder: Path) -> Maps:
        """Read what `save` wrote, onto the CPU."""
        with safe_open(folder / "maps.safetensors", framework="pt") as file:
            saved = json.loads(file.metadata()["maps"])
            names = {tuple(key.split("-")[:2]) for key in file.keys()}  # noqa: SIM118
            deltas = {
                range(start, stop): LinearMap(
                    *(file.get_tensor(f"{start}-{stop}-{name}") for name in ("weight", "bias"))
                )
                for start, stop in sorted((int(start), int(stop)) for start, stop in names)
            }
        history = saved["history"] and pd.DataFrame(saved["history"])
        return cls(saved["method"], tuple(saved["blocks"]), deltas, history)


def fit_maps(
    model: PreTrainedModel,
    blocks: Iterable[int],
    method: str = "fold",
    windows: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    tokens: str = "all",
    ridge: float = 1e-4,
    refit: bool = False,
    moments: Mapping[range, BlockMoments] | None = None,
    batch_size: int = 32,
    training: Tensor | None = None,
    stopping: Tensor | None = None,
    distillation: Mapping[str, float] | None = None,
) -> Maps:
    """Fit the maps that take the place of blocks, one per run of adjacent blocks.

    A pass that takes longer than a few seconds shows how far it is.

    Args:
        model: a decoder.
        blocks: 0-based indices, e.g. the first k of `removal_order`.
        method: "remove" fits nothing; "replace" fits affine maps of the residual stream; "fold"
            fits maps that become part of the output projections before them, so that a plain model
            is left; "distil" fits maps as "replace" does and then trains them.
        windows: calibration text, (n_windows, seq_len), best like the text that the model is for;
            "remove" needs none.
        attention_mask: 1 for tokens, 0 for padding, which no map is fitted on.
        tokens: the tokens that maps are fitted on, one of `linlib.measure.TOKEN_GROUPS`.
        ridge: shrinks maps towards the identity; see `BlockMoments.delta_map`.
        refit: fit the maps one after the other, each on the states of the model that the maps
            before it are already part of; otherwise all of them on the dense model.
        moments: what `run_moments` gave for these runs and perhaps others, for a fold with
            `of_projection`: maps are solved without a pass over windows. Not with `refit`.
        batch_size: windows in one forward pass.
        training: text to distil on, (n_windows, seq_len); None takes `windows`.
        stopping: text for the early stopping of "distil", (n_windows, seq_len).
        distillation: further keyword arguments of `distil`, such as `steps`.

    Raises:
        IndexError, ValueError: the blocks cannot be removed (see `remove_blocks`), an unknown
            method or token group, missing text or moments, too few tokens, or, before any pass, a
            model into which no map can be folded.
    """
    check_method(method)
    chosen, fold = tuple(check_blocks(model, blocks)), method == "fold"
    if method == "remove" or not chosen:
        return Maps(method, chosen)
    if windows is None and moments is None:
        raise ValueError(f"method '{method}' fits maps, so it needs `windows` to fit them on")
    text = windows if training is None else training
    if method == "distil" and text is None:
        raise ValueError("method 'distil' trains maps, so it needs `training` or `windows`")
    if method == "distil" and stopping is None:
        raise ValueError(
            "method 'distil' stops early, so it needs `stopping`, windows that it does not train on"
        )
    runs, precision = adjacent_runs(chosen), torch.promote_types(model.dtype, torch.float32)
    # A projection without a bias has no place for that of a map.
    has_bias = {
        run: not fold or output_projection(model, run.start - 1).bias is not None for run in runs
    }
    if moments is not None and (refit or not moments.keys() >= set(runs)):
        raise ValueError(
            f"`moments` of {list(moments)} cannot serve the runs {runs} with refit={refit}: they "
            "must hold each run, as measured on the dense model; leave them out, and give `windows`"
        )
    options = {"tokens": tokens, "of_projection": fold, "batch_size": batch_size}
    deltas: dict[range, LinearMap] = {}
    for together in [[run] for run in runs] if refit else [runs]:
        pruned, gone = replace_runs(model, deltas, fold), sum(map(len, deltas))
        places = {run: range(run.start - gone, run.stop - gone) for run in together}
        found = moments or run_moments(pruned, places.values(), windows, attention_mask, **options)
        for run, place in places.items():
            delta = found[place].delta_map(ridge, intercept=has_bias[run])
            deltas[run] = LinearMap(delta.weight.to(precision), delta.bias.to(precision))
    if method != "distil":
        return Maps(method, chosen, deltas)
    student = replace_runs(model, deltas)
    history = distil(student, model, text, stopping, **(distillation or {}))
    trained = {affine.run: affine.delta() for affine in affine_maps(student)}
    return Maps(method, chosen, trained, history)


def apply_maps(model: PreTrainedModel, maps: Maps) -> PreTrainedModel:
    """The model without blocks, with fitted maps in their place.

    Args:
        model: the dense decoder that the maps were fitted on; it stays whole, and shares the
            weights of the blocks that are kept: deepcopy the result, or save and reopen it, before
            it is trained or cast. Its `config.removed_blocks` lists the blocks.
        maps: from `fit_maps`.

    Raises:
        IndexError, ValueError: see `remove_blocks`.
    """
    if not maps.deltas:
        return remove_blocks(model, maps.blocks)
    return replace_runs(model, maps.deltas, fold=maps.method == "fold")


def prune(
    model: PreTrainedModel,
    blocks: Iterable[int],
    method: str = "fold",
    windows: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **options: object,
) -> PreTrainedModel:
    """A shorter model: `apply_maps` of `fit_maps`, whose arguments and errors it has."""
    return apply_maps(model, fit_maps(model, blocks, method, windows, attention_mask, **options))


def run_moments(
    model: PreTrainedModel,
    runs: Collection[range],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    tokens: str = "all",
    of_projection: bool = False,
    batch_size: int = 32,
) -> dict[range, BlockMoments]:
    """Accumulate the moments of runs of adjacent blocks in one pass; padding never enters them.

    Args:
        model: a decoder.
        runs: runs of blocks (0-based).
        input_ids: calibration text, (n_windows, seq_len).
        attention_mask: 1 for tokens, 0 for padding.
        tokens: "all", or "no massive": those whose norms at the run's input and output stay within
            the limits that the first batch sets (see `norm_limits`).
        of_projection: take what the MLP of the block before a run adds to the stream, for a map
            that is folded into that MLP; otherwise the state that enters the run.
        batch_size: windows in one forward pass.

    Returns:
        run -> moments of that input and of the contribution of the whole run.

    Raises:
        ValueError: an unknown token group, or one without a token; see `output_projection`; or
            states are not finite (the layer is named).
    """
    check_group(tokens)
    mask, d_model = check_windows(model, input_ids, attention_mask), model.config.hidden_size
    moments = {run: BlockMoments(d_model) for run in runs}
    limits: dict[range, Tensor] = {}
    entered: dict[int, Tensor] = {}  # block -> the state that enters it, in the present batch
    projected: dict[int, Tensor] = {}  # block -> what its MLP adds; Falcon adds to it in place

    def add(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        members = mask[batch].to(x.device)
        entered[layer - 1] = x
        for run in moments:
            if run.stop != layer:
                continue
            state, chosen = entered[run.start], members
            if tokens == "no massive":
                norms = token_norms(state), token_norms(y)  # (batch, seq_len)
                if run not in limits:
                    limits[run] = norm_limits(*(norm[members] for norm in norms))
                chosen = members & ~is_massive(*norms, limits[run])
            state = state[chosen]
            delta = y[chosen].to(torch.promote_types(y.dtype, torch.float32)) - state
            if of_projection:  # OPT's output is (batch x seq_len, d_model)
                state = projected[run.start - 1].reshape(y.shape)[chosen]
            moments[run].update(state, delta)
        if layer == last:
            bar.update(len(x))

    before = {run.start - 1 for run in runs} if of_projection else ()
    watched = {block: output_projection(model, block) for block in before}  # all, or an error
    handles = [
        module.register_forward_hook(
            lambda _module, _args, output, block=block: projected.update({block: output.clone()})
        )
        for block, module in watched.items()
    ]
    last = max(run.stop for run in runs)
    batches = list(contiguous_batches(len(input_ids), batch_size))
    bar = tqdm(total=len(input_ids), desc="fitting", unit="window", leave=False, delay=5)
    try:
        with bar:
            run_windows(model, input_ids, mask, batches, add, last)
    finally:
        for handle in handles:
            handle.remove()
    for run, left in moments.items():
        if left.n_tokens == 0 and len(input_ids):
            raise ValueError(
                f"all {mask.sum()} tokens are massive at the run of blocks {run.start} .. "
                f"{run.stop - 1}, so that none is left to fit on; use tokens='all'"
            )
    return moments
