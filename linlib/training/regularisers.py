"""The paper's regularisers, and the `Trainer` that adds one to the language-model loss (section 4).

    L_MSE    = lambda * sum_i mean ||h_i - h_{i-1}||^2
    L_cosine = lambda * sum_i mean (1 - cos(h_i, h_{i-1}))

Sums run over adjacent blocks, means over the tokens that are not padding; h_i is the output of
block i, before the final norm. They begin with the pair (h_1, h_2); whether the paper's begin with
the embeddings, (h_0, h_1), is unsaid, and that reading is a variant of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.loss.loss_utils import ForCausalLMLoss

from linlib.models import decoder_blocks, watch_blocks

SMALLEST_NORM = 1e-8  # product of two norms below which the angle between states means nothing
KINDS = ("cosine", "mse")
LANGUAGE_MODEL_LOSS = "language_model_loss"
REGULARISER = "regulariser"
FROM_EMBEDDINGS = "-from-embeddings"  # ends the name of a variant


@dataclass(frozen=True)
class Regulariser:
    """One of the paper's two terms, with its weight.

    Attributes:
        kind: "mse" or "cosine".
        weight: lambda, not negative.
        from_embeddings: whether the sum begins with h_0, which enters block 1, and not with h_1.

    Raises:
        ValueError: the kind is unknown, or the weight is negative or not finite.
    """

    kind: str
    weight: float
    from_embeddings: bool = False

    def __post_init__(self) -> None:
        """Check both attributes."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown regulariser '{self.kind}'; choose from {list(KINDS)}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(
                f"the weight lambda of a regulariser must be a finite number that is not "
                f"negative, got {self.weight}"
            )

    def __call__(self, outputs: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """The term for one batch, a scalar in float32 or better.

        Args:
            outputs: outputs of blocks 1, 2, ..., L, each (batch, seq_len, d_model); with
                `from_embeddings`, h_0 before them.
            mask: 1 for tokens, 0 for padding, (batch, seq_len); None counts every position.

        Raises:
            ValueError: there are fewer than two blocks, so that none are adjacent.
        """
        require_adjacent(len(outputs))
        at_least = torch.promote_types(outputs[0].dtype, torch.float32)
        states = [output.to(at_least) for output in outputs]
        if self.kind == "mse":
            distances = ((later - earlier).square().sum(-1) for earlier, later in pairwise(states))
        else:
            with_norms = ((one, one.norm(dim=-1)) for one in states)  # once for both neighbours
            distances = (
                1 - (x * y).sum(-1) / (y_norm * x_norm).clamp_min(SMALLEST_NORM)
                for (x, x_norm), (y, y_norm) in pairwise(with_norms)
            )  # L - 1 tensors (batch, seq_len)
        if mask is None:
            return self.weight * sum(distance.mean() for distance in distances)
        mask = mask.to(at_least)
        return self.weight * sum((distance * mask).sum() / mask.sum() for distance in distances)


def parse_variant(variant: str) -> Regulariser | None:
    """The regulariser of a variant's name: "plain", or kind and weight, e.g. "cosine-0.5".

    "cosine-0.5-from-embeddings" begins the sum at the embeddings.

    Raises:
        ValueError: the name has another form, or as `Regulariser`.
    """
    if variant == "plain":
        return None
    kind, _, weight = variant.removesuffix(FROM_EMBEDDINGS).partition("-")
    try:
        return Regulariser(kind, float(weight), variant.endswith(FROM_EMBEDDINGS))
    except ValueError as error:
        raise ValueError(
            f"variant '{variant}' is neither 'plain' nor '<kind>-<lambda>', with or without "
            f"'{FROM_EMBEDDINGS}' at its end: {error}"
        ) from None


def require_adjacent(n_blocks: int) -> None:
    """Raise a ValueError for a model whose blocks have no neighbours."""
    if n_blocks < 2:
        raise ValueError(
            f"a model of {n_blocks} block has no adjacent blocks to regularise; use a model of at "
            "least 2 blocks, or no regulariser"
        )


def divergence(observation: str) -> FloatingPointError:
    """The error that stops a diverged run; `observation` says what is not finite, and the step."""
    return FloatingPointError(
        f"{observation}; the last checkpoint holds the last good weights. Lower the learning rate "
        "or the regulariser's weight"
    )


def name_loss(model: nn.Module) -> None:
    """Give GPT-2, whose loss `transformers` does not find by the class's name, the usual one.

    It would take the same loss, and warn of it.
    """
    if getattr(model, "loss_type", "") is None:
        model.loss_function = ForCausalLMLoss


class RegularisedTrainer(Trainer):
    """Pretrain any supported decoder with `loss + regulariser(block outputs)`.

    Logs `loss` (what is minimised) and its two parts, `language_model_loss` and `regulariser`. A
    loss that is NaN or infinite stops the run before the weights take the step.

    Args:
        *args: as `Trainer`.
        regulariser: the term to add; None trains the plain model with the same code.
        **kwargs: as `Trainer`.

    Raises:
        ValueError: one process has several GPUs, or the model has no adjacent blocks.
        FloatingPointError: a part of the loss is not finite; the message names the step.
    """

    def __init__(self, *args, regulariser: Regulariser | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.regulariser = regulariser
        name_loss(self.model)
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would mix up the states that are "
                "regularised; start one process per GPU with torchrun or accelerate launch, or "
                "restrict this process to one GPU with CUDA_VISIBLE_DEVICES=0"
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
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.regulariser is None:
            loss, result = super().compute_loss(model, inputs, True, num_items_in_batch)
            term = torch.zeros_like(loss)
        else:
            outputs: list[Tensor] = []

            def keep(layer: int, x: Tensor, y: Tensor) -> None:
                if layer == 1 and self.regulariser.from_embeddings:
                    outputs.append(x)
                outputs.append(y)

            backbone = self.accelerator.unwrap_model(model)
            with watch_blocks(backbone, keep):
                loss, result = super().compute_loss(model, inputs, True, num_items_in_batch)
            term = self.regulariser(outputs, inputs.get("attention_mask"))
            if num_items_in_batch is not None:  # the loss is then a share of an accumulated batch
                term = term / self.current_gradient_accumulation_steps
        self._keep_parts(loss, term)
        total = loss + term.to(loss)
        return (total, result) if return_outputs else total

    def _keep_parts(self, loss: Tensor, term: Tensor) -> None:
        """Keep the parts of the loss for the next log, and stop a run that has diverged."""
        for name, value in ((LANGUAGE_MODEL_LOSS, loss), (REGULARISER, term)):
            if not bool(torch.isfinite(value.detach()).all()):
                step = self.state.global_step + 1
                part = name.replace("_", " ")
                raise divergence(f"the {part} became {value.item()} in step {step}")
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
