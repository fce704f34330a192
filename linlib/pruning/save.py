"""Keep pruned models in folders, and open them again."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from linlib.models import load_model, load_tokenizer
from linlib.models.decoders import decoder_blocks
from linlib.pruning.fit import Maps
from linlib.pruning.maps import affine_maps, put_maps
from linlib.pruning.remove import MAPS


def save_pruned(
    model: PreTrainedModel,
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Save a pruned model, in the precision of the checkpoint that it was made from.

    Without maps (methods "remove" and "fold") the folder is one that
    `AutoModelForCausalLM.from_pretrained(path)` opens, without linlib. Maps that stand in for
    blocks ("replace", "distil") have no place in a plain model: there the kept blocks are a plain
    model in `path/model`, the maps lie beside it in `path/maps.safetensors`, in float32, and other
    libraries refuse to open `path`. `load_pruned` opens both.

    The folder is written elsewhere beside its place, and renamed when it is complete.

    Args:
        model: from `prune`; its config.json lists the `removed_blocks`.
        path: a folder that does not exist yet.
        tokenizer: saved with it, if given.
        dtype: of the weights. None: the one that config.json of the model's checkpoint names, if
            the model was opened in a wider one to be measured; else that of the model.

    Returns:
        The folder.

    Raises:
        FileExistsError: the path exists.
    """
    path = Path(path).expanduser()
    if path.exists():
        raise FileExistsError(f"{path} exists; give a new folder, or delete that one first")
    dtype = dtype or min(_checkpoint_dtype(model), model.dtype, key=lambda one: one.itemsize)
    weights = {id(w): nn.Parameter(w.detach().to(dtype), False) for w in model.parameters()}
    plain = deepcopy(model, weights)  # the weights may be shared with the dense model
    for block in decoder_blocks(plain):
        for name in MAPS:
            if hasattr(block, name):
                delattr(block, name)
    deltas = {affine.run: affine.delta() for affine in affine_maps(model)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name
        place = partial / "model" if deltas else partial
        plain.save_pretrained(place)
        if tokenizer is not None:
            tokenizer.save_pretrained(place)
        if deltas:
            Maps("replace", tuple(block for run in deltas for block in run), deltas).save(partial)
            # Who opens the folder with transformers reads this name in the error.
            refusal = {"model_type": "linlib_pruned", "open_with": "linlib.load_pruned"}
            (partial / "config.json").write_text(json.dumps(refusal))
        partial.rename(path)
    return path


def load_pruned(
    path: str | Path, dtype: torch.dtype | str = torch.float32, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Open a model that `save_pruned` wrote, with its maps if it has any.

    Args:
        path: the folder.
        dtype: of the weights; maps are float32 at least.
        device: where they go.

    Returns:
        The model in eval mode, and its tokenizer, or None where none was saved with it.

    Raises:
        FileNotFoundError, ValueError: see `linlib.load_model`; or the maps are damaged, or of
            another model.
    """
    path = Path(path).expanduser()
    has_maps = (path / "maps.safetensors").exists()
    place = path / "model" if has_maps else path
    model = load_model(place, dtype=dtype, device=device)
    if has_maps:
        try:
            maps = Maps.load(path)
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path / 'maps.safetensors'} holds no maps that can be read ({error}); copy the "
                "folder again, or prune the model again"
            ) from error
        widths = {len(delta.bias) for delta in maps.deltas.values()}
        removed = getattr(model.config, "removed_blocks", [])
        if widths != {model.config.hidden_size} or list(maps.blocks) != list(removed):
            raise ValueError(
                f"the maps in {path} are of width {sorted(widths)} and stand for blocks "
                f"{list(maps.blocks)}, and the model beside them is of width "
                f"{model.config.hidden_size} and lacks blocks {list(removed)}; put back the files "
                "that were saved together"
            )
        put_maps(model, maps.deltas)
    has_tokenizer = (place / "tokenizer_config.json").exists()
    return model, load_tokenizer(place) if has_tokenizer else None


def _checkpoint_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype in the config.json that a model was opened from, else that of the model."""
    config, found = model.config, {}
    with suppress(OSError, ValueError):  # made from a config alone, or deleted since
        found, _ = PreTrainedConfig.get_config_dict(
            config._name_or_path,
            local_files_only=True,
            revision=getattr(config, "_commit_hash", None),
        )
    name = str(found.get("dtype", found.get("torch_dtype"))).removeprefix("torch.")
    known = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    return known.get(name, model.dtype)
