"""Part of `make bench`: how much faster a forward pass gets with fewer blocks.

Writes benchmarks/results_pruning.md.
"""

from __future__ import annotations

import statistics

from bench import HERE, against_target, heading, run_task

SHAPE, N_BLOCKS, N_REMOVED = "opt-1.3b", 24, (6, 12)
N_TOKENS, REPEATS = 256, 5
ATTEMPTS = 3
NOISE = 1.03  # times L / (L - k): a ratio beyond it is the machine's, and is measured again


def pruning_section() -> list[str]:
    """Dense and pruned models in turn: seconds, and their ratio beside L / (L - k)."""
    arguments = {"n_tokens": N_TOKENS, "n_removed": N_REMOVED, "repeats": REPEATS}
    ideal = {n: N_BLOCKS / (N_BLOCKS - n) for n in (0, *N_REMOVED)}
    for attempt in range(1, ATTEMPTS + 1):
        print(f"pruning: {SHAPE}, attempt {attempt}", flush=True)
        seconds = run_task("pruned_forward", shape=SHAPE, **arguments)
        ratio = {n: _times_faster(seconds["0"], seconds[str(n)]) for n in ideal}
        if quiet := all(ratio[n] <= NOISE * ideal[n] for n in ideal):
            break
    rows = [
        f"| {n} | {statistics.median(seconds[str(n)]):.2f} | {ratio[n]:.2f} | {ideal[n]:.2f} |"
        for n in ideal
    ]
    targets = []
    for n in N_REMOVED:
        name, share = f"Share of L / (L - k), k = {n}", ratio[n] / ideal[n]
        targets += against_target(name, share, 0.9, at_least=True)
    if not quiet:
        targets = [f"A ratio beyond the ideal in all {ATTEMPTS} attempts: the machine is busy.", ""]
    return [
        "## A forward pass with fewer blocks",
        "",
        f"{SHAPE}-shaped random model, float32, {N_TOKENS} tokens, embeddings and head included. "
        f"The models take turns in {REPEATS} rounds; the ratio is the median over rounds. Attempt "
        f"{attempt}: one with a ratio beyond {NOISE} L / (L - k) is noise, and measured again. A "
        "model whose head is large beside its blocks, such as OPT-125M (a third of its "
        "operations), cannot come as near to L / (L - k).",
        "",
        "| blocks removed | seconds | times faster | L / (L - k) |",
        "|---:|---:|---:|---:|",
        *rows,
        "",
        *targets,
    ]


def _times_faster(dense: list[float], pruned: list[float]) -> float:
    """Median over rounds of the ratio of two times that were taken one after the other."""
    return statistics.median(one / other for one, other in zip(dense, pruned, strict=True))


if __name__ == "__main__":
    path = HERE / "results_pruning.md"
    path.write_text("\n".join([*heading("cpu"), *pruning_section()]))
    print(path)
