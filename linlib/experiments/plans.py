"""What pruning a model takes: its text, the order in which its blocks go, the moments of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from linlib.corpora import corpus_sha256, load_corpus, packed_windows
from linlib.experiments.subjects import Subject
from linlib.measure import collect_moments
from linlib.models import decoder_blocks
from linlib.profiles import Profile, PruningSettings
from linlib.prune import adjacent_runs, can_fold, collect_runs, removal_order
from linlib.store import build_once, code_digest

LIKE_TEST, STORIES = "like the test's", "stories"  # texts that maps are fitted and distilled on
WINDOWS, ORDERS = "windows.safetensors", "orders.json"
CODE = ("prune", "linearity", "measure", "models", "experiments/plans.py", "experiments/edits.py")


@dataclass(frozen=True)
class Order:
    """A way to choose blocks.

    Attributes:
        name: in figures.
        criterion: see `linlib.prune.block_costs`.
        remeasure: after each removal.
        seed: of the criterion "random".
    """

    name: str
    criterion: str
    remeasure: bool = False
    seed: int = 0


LINEAR = Order("most linear", "linearity")


def orders(settings: PruningSettings) -> list[Order]:
    """The paper's order, and its rivals."""
    return [
        LINEAR,
        Order("most linear, re-measured", "linearity", remeasure=True),
        Order("most linear w/o residual", "linearity without residual"),
        Order("highest identity score", "identity score"),
        Order("least block influence", "block influence"),
        Order("greedy by loss", "loss", remeasure=True),
        Order("last first", "last"),
        *(Order("random", "random", seed=seed) for seed in settings.random_seeds),
    ]


@dataclass(frozen=True)
class Plan:
    """What pruning one model takes: text, the orders of its blocks, and the moments of runs.

    Attributes:
        subject: the model.
        profile: the scale.
        n_blocks: L of the dense model.
        texts: folder of the token windows.
        foldable: whether maps can be folded into its blocks.
        chosen: order -> blocks in the order of their removal.
        moments: text -> folder of the moments of every run that an order leaves out.
    """

    subject: Subject
    profile: Profile
    n_blocks: int
    texts: Path
    foldable: bool
    chosen: dict[Order, list[int]]
    moments: dict[str, Path]

    def sets(self, order: Order) -> list[tuple[int, ...]]:
        """The blocks left out, sorted, for 1, 2, ... of them."""
        blocks = self.chosen[order]
        return [tuple(sorted(blocks[:n])) for n in range(1, len(blocks) + 1)]

    def windows(self) -> dict[str, Tensor]:
        """Windows: `heldout`, and of either text `<text> calibration`, `training`, `stopping`.

        The last two are those of a distillation. Orders come from the text that is like the test's.
        """
        return load_file(self.texts / WINDOWS)


def plan_of(profile: Profile, subject: Subject, every: Sequence[Order]) -> Plan:
    """Text, orders and moments of one model; what the store has is not made again.

    Args:
        profile: prunes something.
        subject: the model.
        every: the orders; without any, single blocks can be left out.
    """
    model, _ = subject.open(profile)
    settings, texts = profile.pruning, _texts(profile, subject)
    windows = load_file(texts / WINDOWS)
    like_test = windows[f"{LIKE_TEST} calibration"]
    most = min(settings.most_removed, len(decoder_blocks(model)) - 1)
    recipe = recipe_of(subject, profile) | {"texts": texts.name, "most": most}

    def choose(folder: Path) -> None:
        moments = collect_moments(model, like_test, n_folds=1, batch_size=settings.batch_size)
        options = {"moments": moments, "batch_size": settings.batch_size}
        found = [
            removal_order(
                model,
                like_test,
                one.criterion,
                most,
                remeasure=one.remeasure,
                seed=one.seed,
                **options,
            )
            for one in every
        ]
        (folder / ORDERS).write_text(json.dumps(found))

    asked = {"orders": [asdict(order) for order in every]}
    found = json.loads((build_once("ordered", recipe | asked, choose) / ORDERS).read_text())
    chosen = dict(zip(every, found, strict=True))
    n_blocks = len(decoder_blocks(model))
    runs = _runs_of([*chosen.values(), *([block] for block in range(n_blocks))])
    foldable = can_fold(model.config)
    inside = [run for run in runs if run.start > 0 and foldable]

    moments = {}
    for text in (LIKE_TEST, STORIES):
        fitting = windows[f"{text} calibration"]
        wanted = {"runs": [[run.start, run.stop] for run in runs], "text": text}
        moments[text] = build_once(
            "runs",
            recipe | wanted,
            lambda folder, fitting=fitting: collect_runs(
                model, fitting, runs, inside, batch_size=settings.batch_size
            ).save(folder),
        )
    return Plan(subject, profile, n_blocks, texts, foldable, chosen, moments)


def _runs_of(orders_of_blocks: Iterable[Sequence[int]]) -> list[range]:
    """Every run of adjacent blocks that some beginning of an order leaves out, sorted."""
    runs = {
        run
        for blocks in orders_of_blocks
        for n in range(1, len(blocks) + 1)
        for run in adjacent_runs(blocks[:n])
    }
    return sorted(runs, key=lambda run: (run.start, run.stop))


def recipe_of(subject: Subject, profile: Profile) -> dict[str, object]:
    """What every artefact of a pruned model depends on."""
    return {
        "model": subject.identity,
        "device": profile.device,
        "dtype": profile.dtype,
        "code": code_digest(*CODE),
    }


def _texts(profile: Profile, subject: Subject) -> Path:
    """Windows of the text that maps are fitted on, tested on, and distilled on."""
    settings, length = profile.pruning, profile.measure.length
    distillation = settings.distillation
    n_training = distillation.steps * distillation.batch_size
    n_test, n_stop = settings.heldout_windows, distillation.heldout_windows
    wanted = {"heldout": (profile.corpus, "heldout", slice(n_test))}
    # Training stops by windows that no test sees.
    stopping = {LIKE_TEST: slice(n_test, n_test + n_stop), STORIES: slice(n_stop)}
    for text, corpus in ((LIKE_TEST, profile.corpus), (STORIES, settings.stories)):
        wanted[f"{text} calibration"] = (corpus, "train", slice(settings.calibration_windows))
        wanted[f"{text} training"] = (corpus, "train", slice(n_training))
        wanted[f"{text} stopping"] = (corpus, "heldout", stopping[text])
    sha256 = {name: corpus_sha256(load_corpus(*text[:2])) for name, text in wanted.items()}
    recipe = {
        "model": subject.identity,
        "length": length,
        "windows": {name: [part.start or 0, part.stop] for name, (*_, part) in wanted.items()},
        "sha256": sha256,
        "code": code_digest("corpora/tokens.py"),
    }

    def build(folder: Path) -> None:
        tokenizer = subject.open_tokenizer()
        windows = {}
        for name, (corpus, split, part) in wanted.items():
            rows = load_corpus(corpus, split)
            windows[name] = packed_windows(rows, tokenizer, length, part.stop)[part].clone()
        save_file(windows, folder / WINDOWS)

    return build_once("texts", recipe, build)
