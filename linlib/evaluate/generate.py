"""Let a decoder tell on: completions of any length, from models of any window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Completion:
    """What a model told.

    Attributes:
        text: without the prompt.
        finished: whether the model ended it, and not the limit of tokens.
    """

    text: str
    finished: bool


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_new_tokens: where a completion is cut off.
        window: the most tokens that the model looks at; older ones are let go.
        temperature: of the softmax; 0 takes the most likely token.
        seed: of the draws.
        batch_size: completions at once.
    """

    max_new_tokens: int
    window: int
    temperature: float
    seed: int
    batch_size: int = 64


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    how: Sampling,
) -> list[Completion]:
    """Continue every prompt until the model begins another document, or the limit is reached.

    A text that fills the window, but for an eighth of it at most, is continued with its newest
    half in view. Documents begin with the bos token, and end with the next one or with eos.

    Args:
        model: a decoder.
        tokenizer: its own, with a pad and a bos or eos token.
        prompts: beginnings of texts.
        how: length, window, temperature and seed.

    Raises:
        ValueError: a prompt is empty, a window is too short, or a token is missing.
    """
    _check(tokenizer, prompts, how)
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = [begin + tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    told: list[Completion] = []
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(how.seed)
        for start in range(0, len(ids), how.batch_size):
            told += _tell(model, tokenizer, ids[start : start + how.batch_size], how)
    return told


def _tell(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    how: Sampling,
) -> list[Completion]:
    texts, ended = [list(prompt) for prompt in prompts], [False] * len(prompts)
    stops = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    left, begin = how.max_new_tokens, [0] * len(prompts)  # where the view of each text begins
    least = max(how.window // 8, 1)  # tokens a round, which begins with all views once more
    while left > 0 and not all(ended):
        open_ones = [number for number, done in enumerate(ended) if not done]
        for number in open_ones:
            if how.window - (len(texts[number]) - begin[number]) < least:
                begin[number] = len(texts[number]) - how.window // 2
        views = [texts[number][begin[number] :] for number in open_ones]
        n_tokens = min(left, how.window - max(map(len, views)))
        for number, new in zip(
            open_ones, _generate(model, tokenizer, views, n_tokens, how, stops), strict=True
        ):
            end = next((place for place, token in enumerate(new) if token in stops), None)
            texts[number] += new[:end]
            ended[number] = end is not None
        left -= n_tokens
    return [
        Completion(tokenizer.decode(text[len(prompt) :], skip_special_tokens=True), done)
        for text, prompt, done in zip(texts, prompts, ended, strict=True)
    ]


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    views: list[list[int]],
    n_tokens: int,
    how: Sampling,
    stops: list[int],
) -> list[list[int]]:
    """The next tokens of every text, given what of it is in view; padded on the left."""
    width = max(map(len, views))
    padded = [[tokenizer.pad_token_id] * (width - len(view)) + view for view in views]
    mask = [[0] * (width - len(view)) + [1] * len(view) for view in views]
    draw = {"do_sample": how.temperature > 0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    if how.temperature > 0:
        draw |= {"temperature": how.temperature, "top_k": 0, "top_p": 1.0}
    out: Tensor = model.generate(
        torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=n_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=stops,
        **draw,
    )
    return out[:, width:].tolist()  # (n_texts, up to n_tokens)


def _check(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], how: Sampling) -> None:
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"tokenizer '{tokenizer.name_or_path}' has no pad token, and prompts of unequal length "
            "are padded; load it with load_tokenizer(..., pad_token='...')"
        )
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ValueError(
            f"tokenizer '{tokenizer.name_or_path}' has neither a bos nor an eos token, so that no "
            "completion could end"
        )
    for number, prompt in enumerate(prompts):
        if not prompt.strip():
            raise ValueError(f"prompt {number} is empty: there is nothing to continue")
    if how.window < 2 or how.max_new_tokens < 1:
        raise ValueError(
            f"window = {how.window} and max_new_tokens = {how.max_new_tokens} leave no room to "
            "tell; choose a window of 2 or more and at least one new token"
        )
