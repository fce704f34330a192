"""Part of `make bench`: how much faster a forward pass gets with fewer blocks.

Writes benchmarks/results_pruning.md.
"""

from __future__ import annotations

import statistics

from bench import HERE, against_target, heading, run_task

SHAPE, N_BLOCKS, N_REMOVED = "opt-1.3b", 24, (6, 12)
N_TOKENS, REPEATS = 256, 5


def pruning_section() -> list[str]:
    """Dense and pruned models in turn: seconds, and their ratio beside L / (L - k)."""
    print(f"pruning: {SHAPE}", flush=True)
    arguments = {"n_tokens": N_TOKENS, "n_removed": N_REMOVED, "repeats": REPEATS}
    seconds = run_task("pruned_forward", shape=SHAPE, **arguments)
    rows, targets = [], []
    for n in (0, *N_REMOVED):
        pairs = zip(seconds["0"], seconds[str(n)], strict=True)
        ratio = statistics.median(dense / pruned for dense, pruned in pairs)
        ideal = N_BLOCKS / (N_BLOCKS - n)
        middle = statistics.median(seconds[str(n)])
        rows.append(f"| {n} | {middle:.2f} | {ratio:.2f} | {ideal:.2f} |")
        if n:
            share = ratio / ideal
            targets += against_target(f"Share of L / (L - k), k = {n}", share, 0.9, at_least=True)
    return [
        "## A forward pass with fewer blocks",
        "",
        f"{SHAPE}-shaped random model, float32, {N_TOKENS} tokens, embeddings and head included. "
        f"The models take turns in {REPEATS} rounds; the ratio is the median over rounds. A model "
        "whose head is large beside its blocks, such as OPT-125M (a third of its operations), "
        "cannot come as near to L / (L - k).",
        "",
        "| blocks removed | seconds | times faster | L / (L - k) |",
        "|---:|---:|---:|---:|",
        *rows,
        "",
        *targets,
    ]


if __name__ == "__main__":
    path = HERE / "results_pruning.md"
    path.write_text("\n".join([*heading("cpu"), *pruning_section()]))
    print(path)
