"""Linear probes: what a logistic regression reads off the stream at each depth (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.intervals import binomial_interval
from linlib.models import decoder_blocks, position_limit, residual_stream


@torch.no_grad()
def last_token_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 64,
) -> Tensor:
    """The residual stream h_0 .. h_L, before the final norm, at the last token of every text.

    Args:
        model: a decoder, in eval mode as `load_model` opens it; it is left as it was.
        tokenizer: the model's own, with a pad token.
        texts: in any order; texts of similar length go through the model together.
        batch_size: texts in one forward pass.

    Returns:
        (L + 1, n_texts, d_model), float32 on the CPU, texts in the order given.

    Raises:
        ValueError: there is no text, one (numbered from 0) is empty or longer than the model
            takes, or the tokenizer has no pad token.
    """
    token_ids = _tokenise(model, tokenizer, texts)
    lengths = torch.tensor([len(ids) for ids in token_ids])
    states = torch.empty(len(decoder_blocks(model)) + 1, len(texts), model.config.hidden_size)
    for batch in lengths.argsort().split(batch_size):
        rows = [token_ids[text] for text in batch]
        padded = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        mask = torch.arange(padded.shape[1]) < lengths[batch, None]
        last = (torch.arange(len(batch)), lengths[batch] - 1)
        for layer, stream in enumerate(residual_stream(model, padded, mask.long())):
            states[layer, batch] = stream[last].float().cpu()  # (batch, d_model)
    return states


def _tokenise(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[Tensor]:
    if len(texts) == 0:
        raise ValueError("there is no text to read states of")
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"tokenizer '{tokenizer.name_or_path}' has no pad token; load it with "
            "load_tokenizer(..., pad_token='...')"
        )
    token_ids, limit = tokenizer(list(texts))["input_ids"], position_limit(model)
    for number, (text, ids) in enumerate(zip(texts, token_ids, strict=True)):
        if not (text and ids):
            raise ValueError(f"text {number} is empty and so has no last token")
        if limit is not None and len(ids) > limit:
            raise ValueError(f"text {number} has {len(ids)} tokens; the model takes up to {limit}")
    return [torch.tensor(ids) for ids in token_ids]


def probe_layers(
    states: Tensor,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    test_share: float = 0.25,
    folds: int = 4,
    strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    seed: int = 0,
    shuffle_labels: bool = False,
) -> pd.DataFrame:
    """Fit a logistic regression on the scaled states of every layer; score it on held-out groups.

    All layers share one split. C is chosen by cross-validation inside the training part (the
    smallest of equals). No group is divided, between training and test or between folds.

    Args:
        states: (L + 1, n_texts, d_model), e.g. of `last_token_states`.
        labels: the class of each text, (n_texts,).
        groups: what each text belongs to, such as a story, (n_texts,).
        test_share: share of the groups that is held out.
        folds: of the cross-validation.
        strengths: values of C to choose from; a small C shrinks more.
        seed: of the split and of the shuffling.
        shuffle_labels: measure the null of the whole procedure. Groups swap their labels, each
            group's in random order: so pairs of a right and a wrong text are flipped at random,
            and groups that have one label each still do, if all groups are of one size.

    Returns:
        One row a layer: `layer` (0..L), `depth` (layer / L), `accuracy` on the test part, its 95%
        interval `low` .. `high`, `chance` (the share of the test part's most frequent label),
        `n_test` and `n_train` (texts), `C`, `train_accuracy`. The interval is that of the worst
        case, a group's texts being right or wrong together: n is (sum m)^2 / sum m^2 for test
        groups of m texts, and so their number where all are of one size.

    Raises:
        ValueError: lengths differ, states are NaN or infinite (the layer is named), there are too
            few groups for the folds, or a part to train on holds one class only.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    _check(states, labels, groups)
    labels = _shuffled(labels, groups, seed) if shuffle_labels else labels
    train, test, cv = _split(labels, groups, test_share, folds, seed)
    counts = np.unique(labels[test], return_counts=True)[1]
    shared = {"chance": counts.max() / len(test), "n_test": len(test), "n_train": len(train)}
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))  # 100: too few
    grid = {"logisticregression__C": sorted(strengths)}
    search = GridSearchCV(probe, grid, cv=cv, error_score="raise")
    rows = []
    for layer, h in enumerate(states):
        x = h.cpu().double().numpy()  # (n_texts, d_model)
        search.fit(x[train], labels[train])
        accuracy, on_train = (search.score(x[part], labels[part]) for part in (test, train))
        low, high = _interval(accuracy, groups[test])
        place = {"layer": layer, "depth": layer / max(len(states) - 1, 1)}
        scores = {"accuracy": accuracy, "low": low, "high": high}
        fit = {"C": search.best_params_["logisticregression__C"], "train_accuracy": on_train}
        rows.append(place | scores | shared | fit)
    return pd.DataFrame(rows)


def _check(states: Tensor, labels: np.ndarray, groups: np.ndarray) -> None:
    if states.ndim != 3 or not labels.shape == groups.shape == states.shape[1:2]:
        raise ValueError(
            f"states {tuple(states.shape)}, labels {labels.shape} and groups {groups.shape} must "
            "be (L + 1, n_texts, d_model), (n_texts,) and (n_texts,)"
        )
    for layer, h in enumerate(states):
        if not h.isfinite().all():
            raise ValueError(f"layer {layer} holds states that are NaN or infinite")


def _shuffled(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    names, group = np.unique(groups, return_inverse=True)
    turn = generator.permutation(len(names))[group]
    dealt = np.lexsort((generator.random(len(labels)), turn))  # by turn, ties in random order
    place = group.argsort(kind="stable").argsort()  # of every text, were they sorted by group
    return labels[dealt][place]


def _split(
    labels: np.ndarray, groups: np.ndarray, test_share: float, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list]:
    """Indices of the training and the test part, and the folds inside the training part."""
    holdout = GroupShuffleSplit(1, test_size=test_share, random_state=seed)
    train, test = next(holdout.split(labels, groups=groups))
    n_groups, n_train = (len(np.unique(part)) for part in (groups, groups[train]))
    if n_train < folds:
        raise ValueError(f"{n_train} of {n_groups} groups to train on cannot fill {folds} folds")
    cv = list(GroupKFold(folds).split(train, groups=groups[train]))
    for fitted, _ in cv:
        classes = set(labels[train[fitted]].tolist())
        if len(classes) < 2:
            raise ValueError(f"a probe needs two classes to train on, but finds only {classes}")
    return train, test, cv


def _interval(accuracy: float, groups: np.ndarray) -> tuple[float, float]:
    sizes = np.unique(groups, return_counts=True)[1]
    n = sizes.sum() ** 2 // (sizes**2).sum()  # Kish's effective sample size
    return binomial_interval(round(accuracy * n), n)
