"""`make bench`: linlib beside the official code and plain least squares, in one run.

Writes benchmarks/results.md (CPU) or benchmarks/results_cuda.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from scoring import METHODS, adversarial_states, float64_svd
from tasks import model_of, windows_of

from linlib.models import residual_stream
from linlib.store import code_commit

HERE = Path(__file__).parent
THREADS = 2
ADVERSARIAL_SEEDS = (0, 1, 2)


def run_task(task: str, **arguments: object) -> dict:
    """Run one task in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, HERE / "tasks.py", task, json.dumps(arguments)]
        subprocess.run([*command, "--threads", str(THREADS), "--out", out], check=True)
        return json.loads(out.read_text())


def against_target(what: str, value: float, limit: float, at_least: bool = False) -> list[str]:
    """Say in one line whether a target is reached."""
    reached = value >= limit if at_least else value <= limit
    wanted = f"at {'least' if at_least else 'most'} {limit:g}"
    return [f"{what}: {value:.3g}, target {wanted}: **{'reached' if reached else 'missed'}**.", ""]


def heading(device: str) -> list[str]:
    """The head of a page: what was run, and on which machine."""
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    return [
        f"# Benchmarks ({device})",
        "",
        f"`make bench DEVICE={device}`, {datetime.now(UTC):%Y-%m-%d}, {THREADS} CPU threads, "
        f"{machine or platform.machine()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, transformers {version('transformers')}, llm-microscope "
        f"{version('llm-microscope')}, commit {code_commit()}. Ratios are of times taken in one "
        "run, side by side.",
        "",
    ]


@torch.no_grad()
def scoring_section(n_tokens: int) -> list[str]:
    """Seconds, memory and error of every method on the same hidden states."""
    model = model_of("gpt2", torch.float32, "cpu")
    stream = residual_stream(model, windows_of("gpt2", model, n_tokens))
    layers = [states.flatten(0, 1).contiguous() for states in stream]
    print("scoring: float64 reference", flush=True)
    truth = [float64_svd(x, y) for x, y in zip(layers, layers[1:], strict=False)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        states = str(Path(folder) / "states.safetensors")
        save_file({f"h{layer:02d}": tensor for layer, tensor in enumerate(layers)}, states)
        for method in METHODS:
            print(f"scoring: {method}", flush=True)
            rows.append((method, run_task("score_states", method=method, states=states)))
    ours, official = (rows[number][1]["seconds"] for number in (0, 1))
    table = [
        "## Scoring the same states",
        "",
        f"GPT-2-sized random model, d = 768, {len(truth)} blocks, {n_tokens} tokens, both scores "
        "of every block, hidden states already in memory. Memory is what the method takes on top "
        "of them; the error is the largest over blocks and both scores, against a float64 SVD.",
        "",
        "| method | seconds | times linlib | extra memory, MiB | largest error |",
        "|---|---:|---:|---:|---:|",
    ]
    for method, result in rows:
        error = _largest_error(result["scores"], truth)
        table.append(
            f"| {method} | {result['seconds']:.2f} | {result['seconds'] / ours:.1f} | "
            f"{result['extra_memory_mib']:.0f} | {error:.1e} |"
        )
    return [*table, "", *against_target("Times faster than official", official / ours, 20, True)]


def adversarial_section() -> list[str]:
    """Errors where float32 is hard: bad conditioning and massive activations."""
    table = [
        "## Error on adversarial activations",
        "",
        "16384 tokens, d = 256, condition 1e4 in a rotated basis, a column with a mean of 50, one "
        f"dimension at 3000x on every 256th token; largest error over both scores and "
        f"{len(ADVERSARIAL_SEEDS)} seeds.",
        "",
        "| method | largest error |",
        "|---|---:|",
    ]
    clouds = [adversarial_states(seed) for seed in ADVERSARIAL_SEEDS]
    truth = [float64_svd(x, y) for x, y in clouds]
    errors = {
        name: _largest_error([score(x, y) for x, y in clouds], truth)
        for name, score in ((name, make()) for name, make in METHODS.items())
    }
    table += [f"| {name} | {error:.1e} |" for name, error in errors.items()]
    return [*table, "", *against_target("Error of linlib", next(iter(errors.values())), 1e-5)]


def _largest_error(scores: list, truth: list) -> float:
    pairs = zip(scores, truth, strict=True)
    return max(abs(a - b) for mine, true in pairs for a, b in zip(mine, true, strict=True))


def profile_section(
    shape: str, sizes: dict[int, int], most: dict[int, float], device: str, dtype: str
) -> list[str]:
    """A whole profile beside the bare forward pass, and its peak memory, by number of tokens.

    Args:
        shape: a packaged model, or a shape of `tasks.SHAPES`.
        sizes: number of tokens -> number of rounds.
        most: number of tokens -> the largest ratio that is wanted.
        device: of the model.
        dtype: of its weights.
    """
    rows, peaks, targets = [], {}, []
    for n_tokens, repeats in sizes.items():
        print(f"profile of {shape}: {n_tokens} tokens", flush=True)
        common = {"shape": shape, "n_tokens": n_tokens, "device": device, "dtype": dtype}
        times = run_task("profile_against_forward", repeats=repeats, **common)
        peaks[n_tokens] = times["peak_memory_mib"]
        bare = statistics.median(times["forward"])
        moments, whole = (
            statistics.median(a / b for a, b in zip(times[name], times["forward"], strict=True))
            for name in ("moments", "profile")
        )
        if n_tokens in most:
            what = f"Ratio of {shape} at {n_tokens} tokens"
            targets += against_target(what, whole, most[n_tokens])
        rows.append(
            f"| {n_tokens} | {bare:.1f} | {times['ideal']:.3f} | {moments:.3f} | {whole:.3f} | "
            f"{n_tokens / (bare * whole):.0f} | {peaks[n_tokens]:.0f} |"
        )
    if {16384, 131072} <= peaks.keys():
        what = f"Peak memory of {shape}, 131072 tokens over 16384"
        targets += against_target(what, peaks[131072] / peaks[16384], 1.05)
    return [
        f"## A whole profile of {shape} beside the bare forward pass",
        "",
        f"{dtype}. The profile is `linearity_profile` with its defaults: forward pass without the "
        "head, moments of all blocks with massive tokens apart, 4 folds, and every score solved; "
        "the moments alone stand beside it, and the ideal, which counts nothing but the arithmetic "
        "of their products. Ratios are medians over "
        f"{', '.join(map(str, sizes.values()))} rounds, each step in turn with the bare forward "
        "pass; peak memory is that of the process which ran all three.",
        "",
        "| tokens | forward, s | ideal | moments, ratio | profile, ratio | tokens/s | peak, MiB |",
        "|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
        "",
        *targets,
    ]


def lstsq_section(shape: str, n_tokens: int) -> list[str]:
    """Error of all scores of a real decoder against float64 least squares on its states."""
    print(f"error of {shape}", flush=True)
    found = run_task("lstsq_error", shape=shape, n_tokens=n_tokens)
    return [
        f"## Error on the states of {shape}",
        "",
        f"{n_tokens} tokens, all {found['n_layers']} blocks, both scores, with and without massive "
        "tokens, against `torch.linalg.lstsq` in float64 on the states themselves.",
        "",
        *against_target("Largest error", found["largest_error"], 1e-6),
        *against_target("Blocks multiplied in float64", found["n_promoted"], 0),
    ]


def error_section(shape: str, n_tokens: int, device: str, dtype: str) -> list[str]:
    """Error of the moments of a half-precision model against float64 moments."""
    common = {"shape": shape, "n_tokens": n_tokens, "device": device, "dtype": dtype}
    error = run_task("moments_error", **common)["largest_error"]
    return [
        "## Error of the moments",
        "",
        f"First, middle and last block, {n_tokens} tokens, both scores, against float64 moments of "
        f"the same states: at most {error:.1e}.",
        "",
    ]


def regulariser_section() -> list[str]:
    """The time that a regulariser adds to a training step."""
    shapes = [
        {"d_model": 128, "n_blocks": 8, "n_heads": 4, "batch_size": 16, "repeats": 40},
        {"d_model": 768, "n_blocks": 12, "n_heads": 12, "batch_size": 8, "repeats": 8},
    ]
    variants = ["plain", "cosine-0.5", "mse-0.5"]
    rows, targets = [], []
    for shape, most in zip(shapes, (8, 5), strict=True):
        print(f"regularised training: d = {shape['d_model']}", flush=True)
        seconds = run_task("training_step", variants=variants, **shape)
        plain = seconds["plain"]
        for variant in variants:
            pairs = zip(seconds[variant], plain, strict=True)
            added = 100 * (statistics.median(mine / theirs for mine, theirs in pairs) - 1)
            if variant != "plain":
                name = f"Added by {variant} at d = {shape['d_model']}, percent"
                targets += against_target(name, added, most)
            rows.append(
                f"| {shape['d_model']} | {shape['n_blocks']} | {variant} | "
                f"{1e3 * statistics.median(seconds[variant]):.0f} | {added:+.1f}% |"
            )
    return [
        "## What a regulariser adds to a training step",
        "",
        "Whole steps of a Mistral (forward, backward, clipping, AdamW) in mixed precision where "
        "bfloat16 is native, windows of 128 tokens, 16 in a step at d = 128 and 8 at d = 768. The "
        "variants take turns; the last column is the median ratio to the plain step beside it.",
        "",
        "| d | blocks | variant | step, ms | added |",
        "|---:|---:|---|---:|---:|",
        *rows,
        "",
        *targets,
    ]


def main() -> None:
    """Run the benchmarks of a device and write their page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "error: DEVICE=cuda needs a CUDA device, and torch finds none here\n")
    torch.set_num_threads(THREADS)
    page = heading(device)
    if device == "cuda":
        setting = {"shape": "llama-2-7b", "device": device, "dtype": "bfloat16"}
        page += profile_section(sizes={16384: 3, 131072: 1}, most={}, **setting)
        page += error_section(n_tokens=16384, **setting)
        path = HERE / "results_cuda.md"
    else:
        page += scoring_section(16384) + adversarial_section()
        real, most = "smollm2-135m", {8192: 1.35, 32768: 1.22}
        page += lstsq_section(real, 8192)
        page += profile_section(real, {8192: 5, 32768: 3}, most, device, "float32")
        page += profile_section("gpt2", {16384: 3, 131072: 1}, {16384: 1.25}, device, "float32")
        page += regulariser_section()
        path = HERE / "results.md"
    path.write_text("\n".join(page))
    print(path)


if __name__ == "__main__":
    main()
