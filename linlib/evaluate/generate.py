"""Let a decoder continue texts: completions of any length, whatever the window of the model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import storyworld
from linlib import corpora
from linlib.models import load_model, load_tokenizer


def complete(
    model: PreTrainedModel | Path,
    tokenizer: PreTrainedTokenizerBase | Path,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    window: int,
    temperature: float,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "cpu",
) -> pd.DataFrame:
    """Continue each prompt until the model ends the document or the limit is reached.

    When less than an eighth of the window is free, a text is continued from its newest half
    window. A document begins with the bos token, if there is one, and ends with the eos token.

    Args:
        model: a decoder, or the folder of one.
        tokenizer: its tokenizer, or the folder of it, with an eos token.
        prompts: beginnings of texts.
        max_new_tokens: length at which a completion is cut off.
        window: tokens that the model sees at most; older ones are dropped.
        temperature: of the softmax; 0 takes the most likely token.
        seed: of the draws.
        batch_size: completions generated together.
        device: where a model that is given as a folder runs.

    Returns:
        One row per prompt: `completion`, without the prompt, and `finished`: whether the model
        ended it, as opposed to the limit of tokens.

    Raises:
        ValueError: an empty prompt, too short a window, no new tokens, or no eos token.
    """
    if isinstance(model, Path):
        model = load_model(model, device=device)
    if isinstance(tokenizer, Path):
        tokenizer = load_tokenizer(tokenizer)
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            f"tokenizer '{tokenizer.name_or_path}' has no eos token, so that no completion could "
            "end; set tokenizer.eos_token to what separated documents in training"
        )
    for number, prompt in enumerate(prompts):
        if not prompt.strip():
            raise ValueError(f"prompt {number} is empty: there is nothing to continue")
    if window < 2 or max_new_tokens < 1:
        raise ValueError(
            f"window = {window} and max_new_tokens = {max_new_tokens} leave no room for a "
            "completion; choose a window of at least 2 and at least one new token"
        )
    options = {"eos_token_id": end, "pad_token_id": end, "do_sample": temperature > 0}
    options |= {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    if temperature > 0:
        options |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    ids = [begin + tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    completed: list[tuple[list[int], bool]] = []
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(ids), batch_size):
            batch = ids[start : start + batch_size]
            completed += _complete(model, batch, max_new_tokens, window, options)
    rows = [(tokenizer.decode(new, skip_special_tokens=True), ended) for new, ended in completed]
    return pd.DataFrame(rows, columns=["completion", "finished"])


def _complete(
    model: PreTrainedModel,
    prompts: list[list[int]],
    max_new_tokens: int,
    window: int,
    options: dict[str, object],
) -> list[tuple[list[int], bool]]:
    """The new tokens of each prompt, and whether the model ended them with the eos token."""
    texts, ended = [list(prompt) for prompt in prompts], [False] * len(prompts)
    left, begin = max_new_tokens, [0] * len(prompts)  # where the view of each text begins
    least = max(window // 8, 1)  # new tokens in a round, whose first step reads all views again
    while left > 0 and not all(ended):
        open_ones = [number for number, done in enumerate(ended) if not done]
        for number in open_ones:
            if window - (len(texts[number]) - begin[number]) < least:
                begin[number] = len(texts[number]) - window // 2
        views = [torch.tensor(texts[number][begin[number] :]) for number in open_ones]
        padded, mask = (
            pad_sequence(rows, batch_first=True, padding_side="left").to(model.device)
            for rows in (views, [torch.ones_like(view) for view in views])
        )  # (n_texts, width) each
        width = padded.shape[1]
        n_tokens = min(left, window - width)
        out = model.generate(padded, attention_mask=mask, max_new_tokens=n_tokens, **options)
        for number, new in zip(open_ones, out[:, width:].tolist(), strict=True):
            end = new.index(options["eos_token_id"]) if options["eos_token_id"] in new else None
            texts[number] += new[:end]
            ended[number] = end is not None
        left -= n_tokens
    new_ids = [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
    return list(zip(new_ids, ended, strict=True))


def beginnings(source: str, n_stories: int) -> pd.DataFrame:
    """Held-out stories, cut in two, for models to continue.

    Args:
        source: "storyworld", whose stories are cut after their first paragraph, or a corpus, whose
            texts are cut by `split_story`.
        n_stories: how many, the first of the held-out part.

    Returns:
        One row per story: `story`, its number from 0; its `beginning` and true `ending`; and the
        `record` that it was rendered from, None of a corpus.
    """
    if source == "storyworld":
        records = list(islice(storyworld.records("heldout"), n_stories))
        halves = [storyworld.render_story(record).split("\n\n", 1) for record in records]
    else:
        texts = corpora.load_corpus(source, "heldout")[:n_stories]["text"]
        records, halves = [None] * len(texts), [split_story(text) for text in texts]
    frame = pd.DataFrame(halves, columns=["beginning", "ending"])
    frame.insert(0, "story", range(len(frame)))
    return frame.assign(record=records)


def split_story(text: str) -> tuple[str, str]:
    """Split a text after a third of its words: (beginning, rest); one space lies between them."""
    words = text.split(" ")
    n_begin = max(len(words) // 3, 1)
    return " ".join(words[:n_begin]), " ".join(words[n_begin:])
