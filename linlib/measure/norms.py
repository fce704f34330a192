"""How large a block's contribution is beside the stream that it is added to (paper, Figure 3)."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from linlib.measure.batches import (
    check_windows,
    choose_layers,
    contiguous_batches,
    first_positions,
    run_windows,
)

QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}


def stream_norms(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Norms and cosines of every block, as quartiles over tokens.

    Args:
        model: a decoder.
        input_ids: token ids, (n_windows, length).
        attention_mask: 1 for tokens, 0 for padding.
        batch_size: windows in one forward pass.

    Returns:
        One row a layer, token group and quantity: `stream_norm` ||h_{l-1}||, `delta_norm`
        ||h_l - h_{l-1}||, `ratio` of the two, `cosine` of h_{l-1} and h_l. Columns `layer`,
        `depth`, `tokens`, `quantity`, `q25`, `median`, `q75`, `n_tokens`; norms are in the
        units of the residual stream.
    """
    mask = check_windows(model, input_ids, attention_mask)
    layers = choose_layers(model, None)
    values: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        members = mask[batch].to(x.device)
        x, y = x[members].float(), y[members].float()  # (n_tokens, d_model)
        stream, delta = x.norm(dim=1), (y - x).norm(dim=1)
        cosine = cosine_similarity(x, y, dim=1)
        values[layer].append(torch.stack([stream, delta, delta / stream, cosine]).cpu())

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, keep)
    inside = ~first_positions(mask)[mask]  # (n_tokens,)
    rows = []
    for layer in layers:
        everything = torch.cat(values[layer], dim=1)  # (4, n_tokens)
        for tokens, group in (("all", everything), ("no first position", everything[:, inside])):
            position = {"layer": layer, "depth": layer / len(layers), "tokens": tokens}
            for name, numbers in zip(
                ("stream_norm", "delta_norm", "ratio", "cosine"), group.double(), strict=True
            ):
                quartiles = {k: numbers.quantile(q).item() for k, q in QUARTILES.items()}
                count = {"n_tokens": len(numbers)}
                rows.append(position | {"quantity": name} | quartiles | count)
    return pd.DataFrame(rows)
