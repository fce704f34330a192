"""`transformers.Trainer` with a regulariser beside the language-model loss, both logged apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import Trainer

from linlib.models import decoder_blocks, watch_blocks
from linlib.pretrain.regularise import Regulariser, require_adjacent

LANGUAGE_MODEL_LOSS = "language_model_loss"
REGULARISER = "regulariser"


class RegularisedTrainer(Trainer):
    """Pretrain any supported decoder with `loss + regulariser(block outputs)`.

    Logs `loss` (what is minimised), and its two parts `language_model_loss` and `regulariser`. A
    loss that is NaN or infinite stops the run before the weights take the step.

    Args:
        *args: as `Trainer`.
        regulariser: the term to add; None trains the plain model, by the same code.
        **kwargs: as `Trainer`.
    """

    def __init__(self, *args, regulariser: Regulariser | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.regulariser = regulariser
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would mix up the states that are "
                "regularised; start one process a GPU with torchrun or accelerate launch, or show "
                "this process one GPU with CUDA_VISIBLE_DEVICES=0"
            )
        self._parts: dict[str, list[Tensor]] = {LANGUAGE_MODEL_LOSS: [], REGULARISER: []}
        if regulariser is not None:
            require_adjacent(len(decoder_blocks(self.model)))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, object]:
        """The language-model loss, and in training the regulariser with it."""
        if self.regulariser is None or not model.training:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss = result[0] if return_outputs else result
            self._keep(model, loss, torch.zeros_like(loss))
            return result
        outputs: list[Tensor] = []
        backbone = self.accelerator.unwrap_model(model)
        with watch_blocks(backbone, lambda _layer, _x, y: outputs.append(y)):
            loss, result = super().compute_loss(model, inputs, True, num_items_in_batch)
        term = self.regulariser(outputs, inputs.get("attention_mask"))
        if num_items_in_batch is not None:  # the loss is then a share of an accumulated batch
            term = term / self.current_gradient_accumulation_steps
        self._keep(model, loss, term)
        total = loss + term.to(loss)
        return (total, result) if return_outputs else total

    def _keep(self, model: nn.Module, loss: Tensor, term: Tensor) -> None:
        """Keep the parts for the next log, and stop a run that has gone astray."""
        if not model.training:
            return
        for name, value in ((LANGUAGE_MODEL_LOSS, loss), (REGULARISER, term)):
            if not bool(torch.isfinite(value.detach()).all()):
                raise FloatingPointError(
                    f"the {name.replace('_', ' ')} became {value.item()} in step "
                    f"{self.state.global_step + 1}; the last checkpoint holds the last good "
                    "weights. Lower the learning rate or the regulariser's weight"
                )
            self._parts[name].append(value.detach())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the two parts of the loss, averaged since the last log and over processes."""
        if "loss" in logs and self._parts[LANGUAGE_MODEL_LOSS]:
            steps = math.ceil(
                len(self._parts[LANGUAGE_MODEL_LOSS]) / self.args.gradient_accumulation_steps
            )
            for name, values in self._parts.items():
                mean = torch.stack(values).sum() / steps
                logs[name] = self.accelerator.reduce(mean, reduction="mean").item()
                values.clear()
        super().log(logs, start_time)
