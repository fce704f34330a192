"""Linear probes: what a logistic regression finds in the stream at each depth (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.models import load_model, load_tokenizer, position_limit, residual_stream
from linlib.stats import binomial_interval

INNER_FOLDS = 3  # of the cross-validation that chooses the strength of a probe


@torch.no_grad()
def last_token_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 64,
) -> Tensor:
    """The residual stream h_0 .. h_L, before the final norm, at the last token of each text.

    Args:
        model: a decoder in eval mode, as `load_model` opens it; it is left unchanged.
        tokenizer: the model's tokenizer.
        texts: in any order; texts of similar length go through the model together.
        batch_size: texts in one forward pass.

    Returns:
        (L + 1, n_texts, d_model), float32 on the CPU, texts in the order given.

    Raises:
        ValueError: there is no text, or one (numbered from 0) is empty or too long for the model.
    """
    if len(texts) == 0:
        raise ValueError("there is no text to read states of")
    token_ids, limit = tokenizer(list(texts))["input_ids"], position_limit(model)
    for number, (text, ids) in enumerate(zip(texts, token_ids, strict=True)):
        if not (text and ids):
            raise ValueError(f"text {number} is empty and so has no last token")
        if limit is not None and len(ids) > limit:
            raise ValueError(f"text {number} has {len(ids)} tokens; the model takes up to {limit}")
    lengths = torch.tensor([len(ids) for ids in token_ids])
    order, states = lengths.argsort(), []
    for batch in order.split(batch_size):
        padded = pad_sequence([torch.tensor(token_ids[i]) for i in batch], batch_first=True)
        mask = torch.arange(padded.shape[1]) < lengths[batch, None]  # (batch, seq_len)
        last = (torch.arange(len(batch)), lengths[batch] - 1)
        stream = residual_stream(model, padded, mask.long())
        states.append(torch.stack([h[last].float().cpu() for h in stream]))
    return torch.cat(states, dim=1)[:, order.argsort()]  # (L + 1, n_texts, d_model)


def story_endings(rows: Dataset) -> tuple[list[str], list[int], list[int]]:
    """Each story with its first and with its second ending; `rows` are those of StoryCloze.

    Returns:
        Two entries per row: texts, labels (1 for the right ending, 0 for the wrong one) and the
        numbers of the stories from 0.
    """
    texts, labels, stories = [], [], []
    for number, row in enumerate(rows):
        story = " ".join(row[f"input_sentence_{sentence}"] for sentence in range(1, 5))
        for ending in (1, 2):
            texts.append(f"{story} {row[f'sentence_quiz{ending}']}")
            labels.append(int(row["answer_right_ending"] == ending))
            stories.append(number)
    return texts, labels, stories


def probe_endings(
    model: Path,
    tokenizer: Path,
    rows: Dataset,
    *,
    shuffle_labels: bool = False,
    batch_size: int = 64,
    device: str = "cpu",
) -> pd.DataFrame:
    """Open a model and probe each of its layers for the right ending of stories.

    Texts begin with the bos token, as windows do in pretraining. Model and tokenizer are folders,
    since checkpoints of a training run have no tokenizer of their own; `rows` are in the columns of
    StoryCloze. The frame is that of `probe_layers`.
    """
    opened = load_tokenizer(tokenizer)
    texts, labels, stories = story_endings(rows)
    texts = [(opened.bos_token or "") + text for text in texts]
    states = last_token_states(load_model(model, device=device), opened, texts, batch_size)
    return probe_layers(states, labels, stories, shuffle_labels=shuffle_labels)


def probe_layers(
    states: Tensor,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    folds: int = 5,
    strengths: Sequence[float] = (1e-3, 1e-2, 1e-1),
    seed: int = 0,
    shuffle_labels: bool = False,
) -> pd.DataFrame:
    """Fit a logistic regression on the scaled states of every layer, and score it held out.

    Each text is scored once, by a probe fitted on the other folds. Groups are never divided: not
    between folds, and not between those of the cross-validation inside the training folds, which
    chooses C (the smallest of equally good ones). All layers share the folds.

    Where each group is a pair of one right (1) and one wrong (0) text, such as the two endings of a
    story, the pair is right if its right text has the higher logit: what the texts of a pair share
    then plays no part.

    Args:
        states: (L + 1, n_texts, d_model), e.g. of `last_token_states`.
        labels: the class of each text, (n_texts,).
        groups: what each text belongs to, such as a story, (n_texts,).
        folds: of the groups.
        strengths: values of C to choose from; a smaller C shrinks more.
        seed: of the folds and of the shuffling.
        shuffle_labels: measure the null of the whole procedure. Groups exchange their labels, each
            group's in random order: thus pairs of a right and a wrong text are flipped at random,
            and groups with a single label keep a single one if all groups are of one size.

    Returns:
        One row per layer: `layer` (0..L), `depth` (layer / L), `accuracy` over texts, its 95%
        interval `low` .. `high`, `chance` (the share of the most frequent label), `n_texts`;
        `pair_accuracy` with `pair_low` .. `pair_high` and `n_pairs`, whose chance is a half (NaN
        and 0 where groups are no pairs); and `C`, the median over folds. The interval over texts is
        that of the worst case, in which the texts of a group are right or wrong together: n is
        (sum m)^2 / sum m^2 for groups of m texts, which is their number where all have one size.

    Raises:
        ValueError: lengths differ, states are NaN or infinite (the layer is named), there are too
            few groups for the folds, or a training part has a single class.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if states.ndim != 3 or not labels.shape == groups.shape == states.shape[1:2]:
        raise ValueError(
            f"states {tuple(states.shape)}, labels {labels.shape} and groups {groups.shape} must "
            "be (L + 1, n_texts, d_model), (n_texts,) and (n_texts,)"
        )
    labels = _shuffled(labels, groups, seed) if shuffle_labels else labels
    names, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < folds * INNER_FOLDS:
        raise ValueError(
            f"{len(names)} groups cannot fill {folds} folds of {INNER_FOLDS} groups; give more "
            "groups, or fewer folds"
        )
    splits = []
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(
        labels, None, groups
    ):
        inner = list(GroupKFold(INNER_FOLDS).split(train, None, groups[train]))
        for fitted, _ in inner:
            classes = set(labels[train[fitted]].tolist())
            if len(classes) < 2:
                raise ValueError(f"a probe needs two classes to train on, but finds only {classes}")
        splits.append((train, test, inner))
    chance = np.unique(labels, return_counts=True)[1].max() / len(labels)
    n = sizes.sum() ** 2 // (sizes**2).sum()  # Kish's effective sample size
    are_pairs = bool((sizes == 2).all() and (np.bincount(number, labels == 1) == 1).all())
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))  # 100: too few
    grid = {"logisticregression__C": sorted(strengths)}
    rows = []
    for layer, h in enumerate(states):
        if not h.isfinite().all():
            raise ValueError(f"layer {layer} holds states that are NaN or infinite")
        x, chosen = h.cpu().double().numpy(), []  # (n_texts, d_model)
        right, logits = np.empty(len(labels), bool), np.empty(len(labels))
        for train, test, inner in splits:
            search = GridSearchCV(probe, grid, cv=inner, error_score="raise")
            search.fit(x[train], labels[train])
            chosen.append(search.best_params_["logisticregression__C"])
            right[test] = search.predict(x[test]) == labels[test]
            if are_pairs:
                logits[test] = search.decision_function(x[test])
        low, high = binomial_interval(round(right.mean() * n), n)
        row = {"layer": layer, "depth": layer / max(len(states) - 1, 1)}
        row |= {"accuracy": right.mean(), "low": low, "high": high, "chance": chance}
        row |= {"n_texts": len(labels), "pair_accuracy": np.nan, "pair_low": np.nan}
        row |= {"pair_high": np.nan, "n_pairs": 0, "C": float(np.median(chosen))}
        if are_pairs:
            margin = np.bincount(number, np.where(labels == 1, logits, -logits))  # (n_groups,)
            share = ((margin > 0) + (margin == 0) / 2).mean()  # a tie is guessed
            low, high = binomial_interval(round(share * len(margin)), len(margin))
            row |= {"pair_accuracy": share, "pair_low": low, "pair_high": high}
            row["n_pairs"] = len(margin)
        rows.append(row)
    return pd.DataFrame(rows)


def _shuffled(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    names, group = np.unique(groups, return_inverse=True)
    turn = generator.permutation(len(names))[group]
    dealt = np.lexsort((generator.random(len(labels)), turn))  # by turn, ties in random order
    place = group.argsort(kind="stable").argsort()  # of every text, were they sorted by group
    return labels[dealt][place]
