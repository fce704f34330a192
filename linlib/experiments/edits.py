"""Pruned models: each is built and measured once, and shared between figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from linlib.experiments.plans import LIKE_TEST, Plan, recipe_of
from linlib.linearity import LinearMap
from linlib.parallel import side_by_side
from linlib.prune import (
    Distillation,
    RunMoments,
    adjacent_runs,
    affine_maps,
    delta_of,
    distil,
    fold_runs,
    prune,
    remove_blocks,
    replace_runs,
    window_losses,
)
from linlib.store import artefact_folder, build_once

DENSE, REMOVED, REPLACED, DISTILLED = "dense", "removed", "replaced", "replaced + distilled"
REFITTED, FOLDED, FOLDED_REFITTED = "replaced, refitted", "folded", "folded, refitted"
LOSSES, MAPS, HISTORY = "losses.csv", "maps.safetensors", "distillation.csv"


@dataclass(frozen=True)
class Edit:
    """One pruned model, or, with the method "dense", the model itself.

    Attributes:
        plan: of the dense model.
        method: one of the names above.
        blocks: those left out.
        text: what its maps are fitted and distilled on.
    """

    plan: Plan
    method: str
    blocks: tuple[int, ...] = ()
    text: str = LIKE_TEST

    @property
    def recipe(self) -> dict[str, object]:
        """All that makes it."""
        plan, settings = self.plan, self.plan.profile.pruning
        distillation = None
        if self.method == DISTILLED:
            distillation = settings.distillation.model_dump() | {"seed": plan.profile.seed}
        return recipe_of(plan.subject, plan.profile) | {
            "texts": plan.texts.name,
            "moments": None if self._has_no_maps else plan.moments[self.text].name,
            "method": self._first_of_equals,
            "blocks": list(self.blocks),
            "ridge": None if self._has_no_maps else settings.ridge,
            "distillation": distillation,
        }

    @property
    def _first_of_equals(self) -> str:
        """The method, or a simpler one of the same result: a single run has nothing to refit."""
        if len(adjacent_runs(self.blocks)) == 1:
            return {REFITTED: REPLACED, FOLDED_REFITTED: FOLDED}.get(self.method, self.method)
        return self.method

    @property
    def _has_no_maps(self) -> bool:
        return self.method in (DENSE, REMOVED)

    @property
    def folder(self) -> Path:
        """Where it is measured, built first if need be."""
        return build_once("edited", self.recipe, self._build)

    def losses(self) -> np.ndarray:
        """Held-out loss of every window, in nats per token, (n_windows,)."""
        return pd.read_csv(self.folder / LOSSES)["loss"].to_numpy()

    def history(self) -> pd.DataFrame:
        """The looks at the held-out text while it was distilled."""
        return pd.read_csv(self.folder / HISTORY)

    def open(self, dense: PreTrainedModel | None = None) -> PreTrainedModel:
        """The pruned model, with its maps as they were fitted or trained.

        Args:
            dense: the dense model, if it is open already.

        Raises:
            ValueError: it is a folded one, whose weights are not kept.
        """
        if self.method in (FOLDED, FOLDED_REFITTED):
            raise ValueError(f"a '{self.method}' model is measured and not kept; build it anew")
        dense = dense or self.plan.subject.open(self.plan.profile)[0]
        if self._has_no_maps:
            return remove_blocks(dense, self.blocks)
        saved = load_file(self.folder / MAPS)
        deltas = {
            run: LinearMap(saved[f"{run.start}.weight"], saved[f"{run.start}.bias"])
            for run in adjacent_runs(self.blocks)
        }
        return replace_runs(dense, deltas)

    def _build(self, folder: Path) -> None:
        plan, settings = self.plan, self.plan.profile.pruning
        dense, _ = plan.subject.open(plan.profile)
        texts, batch_size = plan.windows(), settings.batch_size
        if self._has_no_maps:
            model = remove_blocks(dense, self.blocks)
        elif self._first_of_equals in (REFITTED, FOLDED_REFITTED):
            model = prune(
                dense,
                self.blocks,
                "replace" if self.method == REFITTED else "fold",
                texts[f"{self.text} calibration"],
                ridge=settings.ridge,
                refit=True,
                batch_size=batch_size,
            )
        else:
            model = self._with_dense_maps(dense)
        if self.method == DISTILLED:
            how = settings.distillation.model_dump(exclude={"heldout_windows"})
            how = Distillation(**how, seed=plan.profile.seed)
            history = distil(
                model,
                dense,
                *(texts[f"{self.text} {use}"] for use in ("training", "stopping")),
                how,
            )
            history.to_csv(folder / HISTORY, index=False)
        maps = {}
        for affine in affine_maps(model):
            maps[f"{affine.run.start}.weight"] = affine.weight.detach().cpu()
            maps[f"{affine.run.start}.bias"] = affine.bias.detach().cpu()
        save_file(maps, folder / MAPS)
        losses = window_losses(model, texts["heldout"], batch_size=batch_size)
        pd.DataFrame({"loss": losses}).to_csv(folder / LOSSES, index=False)

    def _with_dense_maps(self, dense: PreTrainedModel) -> PreTrainedModel:
        folded = self.method in (FOLDED, FOLDED_REFITTED)
        kind = "projection" if folded else "stream"
        runs, ridge = adjacent_runs(self.blocks), self.plan.profile.pruning.ridge
        moments = RunMoments.load(self.plan.moments[self.text], kind, runs)
        deltas = {run: delta_of(dense, moments, run, kind, ridge) for run in runs}
        return (fold_runs if folded else replace_runs)(dense, deltas)


def measure_edits(edits: Sequence[Edit], workers: int) -> None:
    """Build and measure all that the store lacks, side by side."""
    wanted = {artefact_folder("edited", edit.recipe): edit for edit in edits}
    missing = [edit for folder, edit in wanted.items() if not folder.is_dir()]
    done = side_by_side(_build, missing, workers)
    for _ in tqdm(done, "pruned models", total=len(missing), unit="model", disable=not missing):
        pass


def _build(edit: Edit) -> Path:
    return edit.folder
