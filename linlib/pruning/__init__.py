"""Make a decoder shorter: choose blocks, remove or replace them, distil, measure, save the result.

    blocks = removal_order(model, windows)[:2]
    maps = fit_maps(model, blocks, "replace", windows)
    smaller = apply_maps(model, maps)

`prune` does the last two at once. Fitting is apart from applying so that fitted or distilled maps
can be kept (`store.cached(fit_maps, model, ...)`) and put into the model again in no time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib import store
from linlib.corpora import token_windows
from linlib.linearity import LinearMap
from linlib.measure.losses import window_losses
from linlib.pruning.distil import distil
from linlib.pruning.maps import (
    affine_maps,
    can_fold,
    output_projection,
    replace_runs,
    run_moments,
)
from linlib.pruning.order import CRITERIA, block_costs, opened, removal_order
from linlib.pruning.remove import adjacent_runs, check_blocks, remove_blocks
from linlib.stats import mean_interval

__all__ = [
    "CRITERIA",
    "METHODS",
    "Maps",
    "added_loss",
    "adjacent_runs",
    "apply_maps",
    "block_costs",
    "can_fold",
    "distil",
    "fit_maps",
    "fitting_arguments",
    "flops_per_token",
    "losses_without",
    "model_costs",
    "prune",
    "removal_order",
    "remove_blocks",
    "save_pruned",
    "seconds_side_by_side",
]

METHODS = ("remove", "replace", "fold", "distil")


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
            deltas = {
                run: LinearMap(
                    *(file.get_tensor(f"{run.start}-{run.stop}-{n}") for n in ("weight", "bias"))
                )
                for run in adjacent_runs(saved["blocks"] if saved["method"] != "remove" else [])
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
    ridge: float = 1e-4,
    refit: bool = False,
    batch_size: int = 32,
    training: Tensor | None = None,
    stopping: Tensor | None = None,
    distillation: Mapping[str, float] | None = None,
) -> Maps:
    """Fit the maps that take the place of blocks, one per run of adjacent blocks.

    Args:
        model: a decoder.
        blocks: 0-based indices, e.g. the first k of `removal_order`.
        method: "remove" fits nothing; "replace" fits affine maps of the residual stream; "fold"
            fits maps that become part of the output projections before them, so that a plain model
            is left; "distil" fits maps as "replace" does and then trains them.
        windows: calibration text, (n_windows, seq_len); "remove" needs none.
        attention_mask: 1 for tokens, 0 for padding, which no map is fitted on.
        ridge: shrinks maps towards the identity; see `BlockMoments.delta_map`.
        refit: fit the maps one after the other, each on the states of the model that the maps
            before it are already part of; otherwise all of them on the dense model.
        batch_size: windows in one forward pass.
        training: text to distil on, (n_windows, seq_len); None takes `windows`.
        stopping: text for the early stopping of "distil", (n_windows, seq_len).
        distillation: further keyword arguments of `distil`, such as `steps`.

    Raises:
        IndexError, ValueError: the blocks cannot be removed (see `remove_blocks`), an unknown
            method, missing text, too few tokens of it, or a model into which no map can be folded.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}'; choose from {METHODS}")
    chosen, fold = tuple(check_blocks(model, blocks)), method == "fold"
    if method == "remove" or not chosen:
        return Maps(method, chosen)
    if windows is None:
        raise ValueError(f"method '{method}' fits maps, so it needs `windows` to fit them on")
    if method == "distil" and stopping is None:
        raise ValueError(
            "method 'distil' stops early, so it needs `stopping`, windows that it does not train on"
        )
    runs, precision = adjacent_runs(chosen), torch.promote_types(model.dtype, torch.float32)
    options = {"of_projection": fold, "batch_size": batch_size}
    deltas: dict[range, LinearMap] = {}
    for together in [[run] for run in runs] if refit else [runs]:
        pruned, gone = replace_runs(model, deltas, fold), sum(map(len, deltas))
        places = {run: range(run.start - gone, run.stop - gone) for run in together}
        moments = run_moments(pruned, places.values(), windows, attention_mask, **options)
        for run, place in places.items():
            # A projection without a bias has no place for that of a map.
            has_bias = not fold or output_projection(pruned, place.start - 1).bias is not None
            delta = moments[place].delta_map(ridge, intercept=has_bias)
            deltas[run] = LinearMap(delta.weight.to(precision), delta.bias.to(precision))
    if method != "distil":
        return Maps(method, chosen, deltas)
    student, text = replace_runs(model, deltas), windows if training is None else training
    history = distil(student, model, text, stopping, **(distillation or {}))
    trained = {
        affine.run: LinearMap(affine.weight.detach(), affine.bias.detach())
        for affine in affine_maps(student)
    }
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


def save_pruned(
    model: PreTrainedModel, path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> Path:
    """Save a model that `AutoModelForCausalLM.from_pretrained(path)` opens, without linlib.

    The folder is written elsewhere beside its place, and renamed when it is complete.

    Args:
        model: from `prune` with method "remove" or "fold"; config.json lists the `removed_blocks`.
        path: a folder that does not exist yet.
        tokenizer: saved with it, if given.

    Returns:
        The folder.

    Raises:
        FileExistsError: the path exists.
        ValueError: maps stand in for blocks, which no plain model has.
    """
    path = Path(path).expanduser()
    if path.exists():
        raise FileExistsError(f"{path} exists; give a new folder, or delete that one first")
    if maps := affine_maps(model):
        runs = [f"{affine.run.start}..{affine.run.stop - 1}" for affine in maps]
        raise ValueError(
            f"linear maps stand in for blocks {', '.join(runs)}, and a plain "
            f"{model.config.model_type} has none; prune with method 'fold', whose maps become part "
            "of the blocks before them, or 'remove'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name
        model.save_pretrained(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        partial.rename(path)
    return path


def fitting_arguments(
    corpus: str, tokenizer: PreTrainedTokenizerBase, settings: object
) -> dict[str, object]:
    """Keyword arguments of `fit_maps` for a profile: windows of a corpus, and the options.

    Args:
        corpus: the text, as `linlib.token_windows` takes it. Maps are fitted and distilled on its
            training part; distillation stops early by its held-out part, where this is the corpus
            of the profile without the first windows, on which the loss is measured.
        tokenizer: of the model.
        settings: the profile; its sections `pruning` and `measure` have the numbers.
    """
    scale = settings.pruning
    windows = partial(token_windows, corpus, tokenizer, seq_len=settings.measure.seq_len)
    distillation = {**vars(scale.distillation), "seed": settings.seed}
    n_stopping = distillation.pop("heldout_windows")
    n_training = distillation["steps"] * distillation["batch_size"]
    skip = scale.heldout_windows if corpus == settings.corpus else 0
    return {
        "windows": windows(split="train", n_windows=scale.calibration_windows),
        "training": windows(split="train", n_windows=n_training),
        "stopping": windows(split="heldout", n_windows=skip + n_stopping)[skip:],
        "distillation": distillation,
        "ridge": scale.ridge,
        "batch_size": scale.batch_size,
    }


def losses_without(
    model: PreTrainedModel | Mapping[str, object],
    blocks: Sequence[int],
    method: str,
    heldout: Tensor,
    fitting: Mapping[str, object],
    refit: bool = False,
) -> list[float]:
    """Loss of a pruned model on each held-out window, in nats per token; the store keeps its maps.

    Args:
        model: the dense decoder, or the keyword arguments of `linlib.load` that open it, as worker
            processes need them.
        blocks: 0-based indices; no blocks give the losses of the dense model.
        method: one of `METHODS`.
        heldout: (n_windows, seq_len).
        fitting: keyword arguments of `fit_maps`, `windows` and `batch_size` among them.
        refit: see `fit_maps`; a single run of adjacent blocks has nothing to refit.
    """
    model, refit = opened(model), refit and len(adjacent_runs(blocks)) > 1
    maps = store.cached(fit_maps, model, blocks, method, refit=refit, **fitting)
    pruned = apply_maps(model, maps)
    return window_losses(pruned, heldout, batch_size=fitting["batch_size"]).tolist()


def added_loss(losses: Sequence[float], dense: Sequence[float]) -> dict[str, float]:
    """Perplexity of a pruned model, and the loss that pruning added, paired window by window.

    Args:
        losses: of the pruned model on each window, in nats per token.
        dense: of the dense model on the same windows.

    Returns:
        `perplexity` with the 95% t interval `low` .. `high` over windows, `loss` in nats per
        token, and `added`, the mean difference of the two, with `added_low` .. `added_high`.
    """
    losses, dense = np.asarray(losses), np.asarray(dense)
    perplexity = np.exp(mean_interval(losses)).tolist()
    added = mean_interval(losses - dense)
    names = ("perplexity", "low", "high", "loss", "added", "added_low", "added_high")
    return dict(zip(names, [*perplexity, float(losses.mean()), *added], strict=True))


@torch.no_grad()
def flops_per_token(model: PreTrainedModel, input_ids: Tensor) -> float:
    """Floating-point operations of a forward pass per token, as torch counts them."""
    # The plain attention is the one whose products torch counts on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(input_ids=input_ids.to(model.device), use_cache=False)
    return counter.get_total_flops() / input_ids.numel()


@torch.no_grad()
def seconds_side_by_side(
    models: Mapping[str | int, PreTrainedModel], input_ids: Tensor, repeats: int = 7
) -> pd.DataFrame:
    """Time forward passes of several models in turn, so that all meet the same machine.

    Args:
        models: by name.
        input_ids: one batch, (batch, seq_len).
        repeats: rounds, after one that warms up.

    Returns:
        One row per round and model: `name`, `round`, `seconds`.
    """
    rows = []
    for number in range(-1, repeats):
        for name, model in models.items():
            ids = input_ids.to(model.device)
            started = time.perf_counter()
            model(input_ids=ids, use_cache=False)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            if number >= 0:
                rows.append((name, number, time.perf_counter() - started))
    return pd.DataFrame(rows, columns=["name", "round", "seconds"])


def model_costs(
    model: PreTrainedModel, sets: Iterable[Iterable[int]], input_ids: Tensor, repeats: int = 7
) -> pd.DataFrame:
    """Parameters, operations and speed of a model with blocks removed, or replaced by maps.

    They depend on the number of blocks, and with maps on the number of runs, but not on which
    blocks these are: one set of blocks per number of blocks and of runs is measured.

    Args:
        model: the dense decoder.
        sets: sets of blocks (0-based indices).
        input_ids: one batch, (batch, seq_len).
        repeats: rounds of timing.

    Returns:
        One row per `method` ("dense", "removed", "replaced"), `n_removed` and `n_runs`:
        `parameters` (tied weights once), `flops_per_token`, `tokens_per_second` (median over
        rounds) and `speedup` (median over rounds of the dense model's time over its own).
    """
    width = model.config.hidden_size
    zero = LinearMap(torch.zeros(width, width), torch.zeros(width))
    by_size = {(len(set(blocks)), len(adjacent_runs(blocks))): blocks for blocks in map(list, sets)}
    models = {("dense", 0, 0): model}
    for size, blocks in sorted(by_size.items()):
        models["removed", *size] = remove_blocks(model, blocks)
        models["replaced", *size] = replace_runs(model, dict.fromkeys(adjacent_runs(blocks), zero))
    seconds = seconds_side_by_side(dict(enumerate(models.values())), input_ids, repeats)
    times = seconds.pivot(index="round", columns="name", values="seconds")
    rows = [
        {
            "method": method,
            "n_removed": n_removed,
            "n_runs": n_runs,
            "parameters": one.num_parameters(),
            "flops_per_token": flops_per_token(one, input_ids),
            "tokens_per_second": input_ids.numel() / times[number].median(),
            "speedup": (times[0] / times[number]).median(),
        }
        for number, ((method, n_removed, n_runs), one) in enumerate(models.items())
    ]
    return pd.DataFrame(rows)
