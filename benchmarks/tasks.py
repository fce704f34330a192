"""One measurement per process, so that peak memory is its own; writes one JSON object."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from scoring import METHODS, least_squares
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MistralConfig,
    PreTrainedModel,
    TrainingArguments,
)

from linlib.corpora import token_windows
from linlib.linearity import BlockMoments
from linlib.measure import collect_moments, linearity_profile
from linlib.measure.windows import is_massive, token_norms
from linlib.models import (
    PACKAGED,
    decoder_blocks,
    load_model,
    load_tokenizer,
    residual_stream,
    run_backbone,
    watch_blocks,
)
from linlib.pruning import remove_blocks
from linlib.training import RegularisedTrainer, has_fast_bf16, parse_variant

LENGTH = 128  # tokens in a window
BATCH = 32  # windows in a forward pass
SHAPES = {
    "gpt2": ("gpt2", {}),
    "llama-2-7b": ("llama", {"vocab_size": 32000}),
    "opt-1.3b": ("opt", {"hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192,
                         "num_hidden_layers": 24, "num_attention_heads": 32}),
    "small": ("llama", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512}),
}  # fmt: skip


def model_of(shape: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A packaged model, or one of a published shape with random weights; nothing is downloaded."""
    if shape in PACKAGED:
        return load_model(shape, dtype=dtype, device=device)
    model_type, sizes = SHAPES[shape]
    torch.manual_seed(0)
    with torch.device(device):
        config = AutoConfig.for_model(model_type, **sizes)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def windows_of(shape: str, model: PreTrainedModel, n_tokens: int) -> torch.Tensor:
    """Token ids, (n_tokens / LENGTH, LENGTH): text for a packaged model, random ones for others."""
    if shape in PACKAGED:
        options = {"seq_len": LENGTH, "n_windows": n_tokens // LENGTH, "split": "train"}
        return token_windows("pydocs", load_tokenizer(shape), **options)
    generator = torch.Generator().manual_seed(1)
    size = (n_tokens // LENGTH, LENGTH)
    return torch.randint(3, model.config.vocab_size, size, generator=generator)


def timed(call: Callable[[], object], device: str) -> float:
    """Wall seconds of a call, the accelerator's queue included."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - started


def peak_memory(device: str) -> float:
    """Peak memory of this process so far, MiB: of the accelerator, or resident on the CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**10


def _reset_peak() -> None:
    """Reset the peak of resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


@torch.no_grad()
def forward(model: PreTrainedModel, windows: torch.Tensor) -> None:
    """The bare forward pass that a profile is compared with."""
    for batch in windows.split(BATCH):
        run_backbone(model, batch)


def score_states(method: str, states: str) -> dict[str, object]:
    """Score every pair of adjacent states in a file, both ways."""
    score = METHODS[method]()
    with safe_open(states, framework="pt") as file:
        names = sorted(file.keys())
        layers = [file.get_tensor(name).clone() for name in names]  # out of the mapped file
    _reset_peak()
    before = peak_memory("cpu")
    scores, seconds = [], 0.0
    for x, y in zip(layers, layers[1:], strict=False):
        seconds += timed(lambda x=x, y=y: scores.append(score(x, y)), "cpu")
    return {"seconds": seconds, "extra_memory_mib": peak_memory("cpu") - before, "scores": scores}


def profile_against_forward(
    shape: str, n_tokens: int, repeats: int, device: str, dtype: str
) -> dict[str, object]:
    """Seconds of a bare forward pass and of a whole profile, in turn, and the peak memory."""
    model = model_of(shape, getattr(torch, dtype), device)
    windows = windows_of(shape, model, n_tokens)
    forward(model, windows[:BATCH])  # warm up
    linearity_profile(model, windows[: 4 * BATCH], batch_size=BATCH, n_folds=1)
    steps = {
        "forward": lambda: forward(model, windows),
        "moments": lambda: collect_moments(model, windows, batch_size=BATCH),
        "profile": lambda: linearity_profile(model, windows, batch_size=BATCH),
    }
    seconds = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            seconds[name].append(timed(step, device))
    blocks = decoder_blocks(model)
    per_block = 2 * sum(weight.numel() for weight in blocks[0].parameters())  # FLOPs of a token
    products = 3.5 * model.config.hidden_size**2  # of X'[X | D], one block of X'X by symmetry
    return seconds | {"ideal": 1 + products / per_block, "peak_memory_mib": peak_memory(device)}


@torch.no_grad()
def lstsq_error(shape: str, n_tokens: int) -> dict[str, object]:
    """Largest error of all scores of a model, both token groups, against float64 least squares."""
    model = model_of(shape, torch.float32, "cpu")
    windows = windows_of(shape, model, n_tokens)
    moments = collect_moments(model, windows, batch_size=BATCH, n_folds=1)
    batches = [residual_stream(model, batch) for batch in windows.split(BATCH)]
    stream = [torch.cat(states).flatten(0, 1) for states in zip(*batches, strict=True)]
    largest, n_promoted = 0.0, 0
    for layer, (x, y) in enumerate(zip(stream, stream[1:], strict=False), 1):
        massive = is_massive(token_norms(x), token_norms(y), moments.limits[layer])
        for tokens, members in (("all", massive | ~massive), ("no massive", ~massive)):
            group = moments.group(layer, tokens)
            ours = (group.linearity_score(), group.linearity_no_residual())
            truth = least_squares(torch.float64)(x[members], y[members])
            largest = max(largest, *(abs(a - b) for a, b in zip(ours, truth, strict=True)))
        n_promoted += moments.usual[layer].is_precise
    return {"largest_error": largest, "n_promoted": n_promoted, "n_layers": len(stream) - 1}


@torch.no_grad()
def moments_error(shape: str, n_tokens: int, device: str, dtype: str) -> dict[str, object]:
    """Largest error of the scores of the first, middle and last layer against float64 moments."""
    model = model_of(shape, getattr(torch, dtype), device)
    n_layers = model.config.num_hidden_layers
    chosen = {1, (n_layers + 1) // 2, n_layers}
    pairs = {layer: [BlockMoments(model.config.hidden_size) for _ in range(2)] for layer in chosen}

    def add(layer: int, x: torch.Tensor, y: torch.Tensor) -> None:
        if layer in chosen:
            single, double = pairs[layer]
            single.update(x, y.float() - x)
            double.update(x.double(), y.double() - x)

    with watch_blocks(model, add):
        forward(model, windows_of(shape, model, n_tokens))
    errors = [
        abs(getattr(single, name)() - getattr(double, name)())
        for single, double in pairs.values()
        for name in ("linearity_score", "linearity_no_residual")
    ]
    return {"largest_error": max(errors)}


def training_step(
    d_model: int, n_blocks: int, n_heads: int, batch_size: int, repeats: int, variants: list[str]
) -> dict[str, list[float]]:
    """Seconds of whole training steps of a Mistral, the variants in turn, by variant."""
    config = MistralConfig(
        vocab_size=32000 if d_model >= 768 else 1024,
        hidden_size=d_model,
        intermediate_size=4 * d_model,
        num_hidden_layers=n_blocks,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads // 4,
        max_position_embeddings=LENGTH,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    windows = windows_of("mistral", model, batch_size * LENGTH)
    batch = {"input_ids": windows, "labels": windows}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, use_cpu=True, report_to="none", dataloader_pin_memory=False,
        )  # fmt: skip
        trainers = {
            name: RegularisedTrainer(model, arguments, regulariser=parse_variant(name))
            for name in variants
        }
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(trainer: RegularisedTrainer) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16("cpu")):
            loss = trainer.compute_loss(model, dict(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 2):
        for name, trainer in trainers.items():
            taken = timed(lambda trainer=trainer: step(trainer), "cpu")
            if repeat >= 2:  # warm by then
                seconds[name].append(taken)
    return seconds


@torch.no_grad()
def seconds_side_by_side(
    models: Mapping[str, PreTrainedModel], input_ids: torch.Tensor, repeats: int = 7
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


def pruned_forward(
    shape: str, n_tokens: int, n_removed: list[int], repeats: int
) -> dict[str, list[float]]:
    """Seconds of forward passes, the dense model and pruned ones in turn, by blocks removed."""
    model = model_of(shape, torch.float32, "cpu")
    models = {str(n): remove_blocks(model, range(1, 1 + n)) for n in (0, *n_removed)}
    frame = seconds_side_by_side(models, windows_of(shape, model, n_tokens), repeats)
    return frame.groupby("name")["seconds"].apply(list).to_dict()


TASKS = {
    task.__name__: task
    for task in (
        score_states,
        profile_against_forward,
        lstsq_error,
        moments_error,
        training_step,
        pruned_forward,
    )
}


def main() -> None:
    """Run one task with JSON arguments and write its result as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("arguments", type=json.loads)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.write_text(json.dumps(TASKS[options.task](**options.arguments)))


if __name__ == "__main__":
    main()
