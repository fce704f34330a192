"""One measurement per process, so that peak memory is its own; writes one JSON object."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from scoring import METHODS
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MistralConfig,
    PreTrainedModel,
    TrainingArguments,
)

from linlib.linearity import BlockMoments
from linlib.measure import linearity_profile
from linlib.models import run_backbone, watch_blocks
from linlib.pruning import remove_blocks, seconds_side_by_side
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


def random_model(shape: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A model of a published shape with random weights; nothing is downloaded."""
    model_type, sizes = SHAPES[shape]
    torch.manual_seed(0)
    with torch.device(device):
        config = AutoConfig.for_model(model_type, **sizes)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def random_windows(model: PreTrainedModel, n_tokens: int) -> torch.Tensor:
    """Token ids, (n_tokens / LENGTH, LENGTH)."""
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
    model = random_model(shape, getattr(torch, dtype), device)
    windows = random_windows(model, n_tokens)
    forward(model, windows[:BATCH])  # warm up
    linearity_profile(model, windows[: 4 * BATCH], batch_size=BATCH, n_folds=1)
    bare, whole = [], []
    for _ in range(repeats):
        bare.append(timed(lambda: forward(model, windows), device))
        whole.append(timed(lambda: linearity_profile(model, windows, batch_size=BATCH), device))
    return {"forward": bare, "profile": whole, "peak_memory_mib": peak_memory(device)}


@torch.no_grad()
def moments_error(shape: str, n_tokens: int, device: str, dtype: str) -> dict[str, object]:
    """Largest error of the scores of the first, middle and last layer against float64 moments."""
    model = random_model(shape, getattr(torch, dtype), device)
    n_layers = model.config.num_hidden_layers
    chosen = {1, (n_layers + 1) // 2, n_layers}
    pairs = {layer: [BlockMoments(model.config.hidden_size) for _ in range(2)] for layer in chosen}

    def add(layer: int, x: torch.Tensor, y: torch.Tensor) -> None:
        if layer in chosen:
            single, double = pairs[layer]
            single.update(x, y.float() - x)
            double.update(x.double(), y.double() - x)

    with watch_blocks(model, add):
        forward(model, random_windows(model, n_tokens))
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
    windows = random_windows(model, batch_size * LENGTH)
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


def pruned_forward(
    shape: str, n_tokens: int, n_removed: list[int], repeats: int
) -> dict[str, list[float]]:
    """Seconds of forward passes, the dense model and pruned ones in turn, by blocks removed."""
    model = random_model(shape, torch.float32, "cpu")
    models = {str(n): remove_blocks(model, range(1, 1 + n)) for n in (0, *n_removed)}
    frame = seconds_side_by_side(models, random_windows(model, n_tokens), repeats)
    return frame.groupby("name")["seconds"].apply(list).to_dict()


TASKS = {
    task.__name__: task
    for task in (
        score_states,
        profile_against_forward,
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
