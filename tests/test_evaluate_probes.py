"""Probes on planted signals, against plain scikit-learn; states against one text at a time."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_models import tiny_config
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM

from linlib.evaluate.probes import (
    _shuffled,
    last_token_states,
    probe_endings,
    probe_layers,
    story_endings,
)
from linlib.models import load_tokenizer, residual_stream
from linlib.stats import binomial_interval
from storyworld import TASKS

pytestmark = pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")

N, D = 400, 8  # texts, dimensions
PAIRS = np.repeat(np.arange(N // 2), 2)  # stories of two texts
RIGHT = np.tile([0, 1], N // 2)  # a wrong text, then a right one
FEW_FITS = dict(strengths=(1e-3, 1e-1), folds=2)


def noise(n_layers, n=N, d=D, seed=0):
    return torch.randn(n_layers, n, d, generator=torch.Generator().manual_seed(seed))


def planted(labels, strength=4.0, layer=1, n_layers=3):
    states = noise(n_layers, len(labels))
    states[layer, :, 0] += strength * torch.as_tensor(labels)
    return states


def splits(groups, folds=5, seed=0):
    return list(GroupKFold(folds, shuffle=True, random_state=seed).split(groups, groups=groups))


def pipeline(strength):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=10_000))


# ---------------------------------------------------------------- what is found


def test_a_planted_signal_is_found_in_its_layer_and_in_no_other():
    frame = probe_layers(planted(RIGHT), RIGHT, PAIRS)
    assert list(frame["layer"]) == [0, 1, 2] and list(frame["depth"]) == [0, 0.5, 1]
    assert frame["accuracy"][1] > 0.95 and frame["low"][1] > 0.8
    for layer in (0, 2):
        assert frame["low"][layer] < 0.5 < frame["high"][layer]
    assert set(frame["chance"]) == {0.5}
    assert set(frame["n_texts"]) == {N} and set(frame["n_pairs"]) == {N // 2}
    assert frame["pair_accuracy"][1] > 0.95 and frame["pair_low"][1] > 0.9


def test_the_interval_of_noise_holds_chance_at_least_as_often_as_it_says():
    frame = probe_layers(noise(40), RIGHT, PAIRS, **FEW_FITS)
    assert ((frame["low"] <= 0.5) & (0.5 <= frame["high"])).mean() >= 0.95
    assert frame["accuracy"].mean() == pytest.approx(0.5, abs=0.02)


def test_three_classes_named_by_words_will_do():
    labels = np.array(["bad", "good", "middling"])[np.arange(N) % 3]
    states = noise(1)
    states[0, :, :3] += 6 * torch.eye(3)[torch.arange(N) % 3]
    frame = probe_layers(states, labels, np.arange(N))
    assert frame["accuracy"][0] > 0.95 and frame["chance"][0] < 0.5
    assert frame["n_pairs"][0] == 0 and frame[["pair_accuracy", "pair_low"]].isna().all(axis=None)


def test_a_layer_that_is_the_same_for_all_texts_is_at_chance_and_ties_count_half():
    frame = probe_layers(torch.full((1, N, D), 0.1), RIGHT, PAIRS, strengths=(1.0, 1e-3, 1e-1))
    assert frame["accuracy"][0] == frame["pair_accuracy"][0] == 0.5
    ends = binomial_interval(N // 4, N // 2)
    assert (frame["pair_low"][0], frame["pair_high"][0]) == ends
    assert frame["C"][0] == 1e-3  # the smallest, as all do equally well


# ---------------------------------------------------------------- shuffled labels


def shuffled_probes(*data):
    options = dict(shuffle_labels=True, **FEW_FITS)
    return pd.concat(probe_layers(*data, seed=seed, **options) for seed in range(12))


def test_shuffled_pairs_give_chance_where_the_true_labels_are_found():
    states = planted(RIGHT, strength=8, layer=slice(None), n_layers=1)
    assert probe_layers(states, RIGHT, PAIRS)["accuracy"][0] == 1
    shuffled = shuffled_probes(states, RIGHT, PAIRS)
    assert shuffled["accuracy"].mean() == pytest.approx(0.5, abs=0.03)
    assert shuffled["pair_accuracy"].mean() == pytest.approx(0.5, abs=0.06)
    # A pair keeps a right and a wrong text, so that it stays a pair.
    assert set(shuffled["chance"]) == {0.5} and set(shuffled["n_pairs"]) == {N // 2}


def test_shuffled_groups_of_one_label_keep_one():
    groups = np.repeat(np.arange(N // 4), 4)
    labels = (np.arange(N // 4) % 2).repeat(4)
    states = noise(1, N // 4, N // 4).repeat_interleave(4, dim=1)  # the same for a whole group
    states[0, :, 0] += 20 * torch.as_tensor(labels)
    true, null = (
        probe_layers(states, labels, groups, strengths=[1e3], shuffle_labels=shuffle)
        for shuffle in (False, True)
    )
    assert true["accuracy"][0] > 0.9 and null["low"][0] < 0.5 < null["high"][0]
    # Texts of a group have one state and so one prediction: four of them are right or wrong
    # together, which could not be if a group held two labels.
    n_right = null["accuracy"][0] * N / 4
    assert n_right == pytest.approx(round(n_right))
    turned = _shuffled(labels, groups, seed=0).reshape(-1, 4)
    assert (turned == turned[:, :1]).all() and (turned[:, 0] != labels[::4]).any()


def test_groups_of_unequal_size_and_mixed_labels_are_shuffled_too():
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 60, N))
    labels = rng.integers(0, 2, N)
    states = planted(labels, strength=8, layer=0, n_layers=1)
    assert probe_layers(states, labels, groups)["accuracy"][0] > 0.95
    shuffled = shuffled_probes(states, labels, groups)
    assert shuffled["accuracy"].mean() == pytest.approx(0.5, abs=0.03)


# ---------------------------------------------------------------- nothing leaks


def signed_groups(signal=0.0):
    """States that identify each group of 4; the texts of a group share one label."""
    groups = np.arange(N) % (N // 4)
    labels = np.random.default_rng(0).permutation(RIGHT[: N // 4])[groups]
    states = 2 * noise(1, N // 4, 75)[:, groups] + 0.5 * noise(1, N, 75, seed=1)
    states[0, :, 0] += signal * torch.as_tensor(labels)
    return states, labels, groups


def test_groups_are_never_split():
    states, labels, groups = signed_groups()
    leaking = probe_layers(states, labels, np.arange(N), strengths=[1.0])
    assert leaking["accuracy"][0] > 0.8
    frame = probe_layers(states, labels, groups, strengths=[1.0])
    assert frame["low"][0] < 0.5 < frame["high"][0]


def plain_probe(x, labels, groups, strengths, folds=5):
    """Prediction, logit and C of each text by a loop over folds with scikit-learn's own parts."""
    predicted, logits, chosen = np.empty_like(labels), np.empty(len(labels)), []
    for train, test in splits(groups, folds):
        options = dict(cv=GroupKFold(3), groups=groups[train])
        scores = [
            cross_val_score(pipeline(c), x[train], labels[train], **options).mean()
            for c in strengths
        ]
        chosen.append(strengths[np.argmax(scores)])
        probe = pipeline(chosen[-1]).fit(x[train], labels[train])
        predicted[test], logits[test] = probe.predict(x[test]), probe.decision_function(x[test])
    return predicted, logits, chosen


def test_the_frame_is_that_of_a_plain_loop_over_the_same_folds():
    states, labels, groups = signed_groups(signal=3.0)
    strengths = [1e-3, 1e-2, 1.0]
    (row,) = probe_layers(states, labels, groups, strengths=strengths[::-1]).to_dict("records")
    predicted, _, chosen = plain_probe(states[0].double().numpy(), labels, groups, strengths)
    assert row["C"] == np.median(chosen)
    assert row["accuracy"] == (predicted == labels).mean()
    n = N // 4  # groups, which are of one size
    assert (row["low"], row["high"]) == binomial_interval(round(row["accuracy"] * n), n)
    assert row["chance"] == max(labels.mean(), 1 - labels.mean()) and row["n_texts"] == N


def test_pairs_are_told_apart_as_by_a_plain_loop():
    states = planted(RIGHT, strength=1, layer=0, n_layers=1)
    (row,) = probe_layers(states, RIGHT, PAIRS).to_dict("records")
    _, logits, _ = plain_probe(states[0].double().numpy(), RIGHT, PAIRS, [1e-3, 1e-2, 1e-1])
    told = [logits[2 * pair + 1] > logits[2 * pair] for pair in range(N // 2)]
    assert 0.6 < row["pair_accuracy"] < 0.95  # neither chance nor certain
    assert row["pair_accuracy"] == np.mean(told) and row["n_pairs"] == len(told)
    ends = binomial_interval(sum(told), len(told))
    assert (row["pair_low"], row["pair_high"]) == ends


def test_what_the_texts_of_a_pair_share_plays_no_part_in_pairs():
    """A component common to a pair, ten times as large as the signal, moves both logits alike."""
    states = 10 * noise(1, N // 2)[:, PAIRS]
    states[0, :, 0] += torch.as_tensor(RIGHT)
    (row,) = probe_layers(states, RIGHT, PAIRS, strengths=[1.0]).to_dict("records")
    assert row["accuracy"] < 0.65 and row["pair_accuracy"] == 1


def test_pairs_in_any_order_are_the_same_pairs():
    states = planted(RIGHT, strength=1, layer=0, n_layers=1)
    order = np.random.default_rng(0).permutation(N)
    names = np.array([f"story {number:03d}" for number in PAIRS])
    options = dict(strengths=[1e-2])
    one = probe_layers(states, RIGHT, names, **options)
    other = probe_layers(states[:, order], RIGHT[order], names[order], **options)
    assert one["n_pairs"][0] == other["n_pairs"][0] == N // 2
    assert other["pair_accuracy"][0] == pytest.approx(one["pair_accuracy"][0], abs=0.05)


def test_two_texts_of_one_label_are_no_pair():
    labels = np.repeat([0, 1], N // 2)
    frame = probe_layers(noise(1), labels, PAIRS, **FEW_FITS)
    assert frame["n_pairs"][0] == 0 and np.isnan(frame["pair_accuracy"][0])


def test_a_fold_has_no_say_in_what_scores_it():
    """With the signal of one fold turned round, all its own texts are wrong: none was fitted."""
    states = planted(RIGHT, strength=6, layer=0, n_layers=1)
    adversarial, (_, test) = states.clone(), splits(PAIRS)[0]
    adversarial[0, test, 0] = 6 - states[0, test, 0]
    fair, foul = (probe_layers(h, RIGHT, PAIRS) for h in (states, adversarial))
    assert fair["pair_accuracy"][0] > 0.99
    # The other folds, of which a fourth is turned in what they are fitted on, stay right.
    assert foul["pair_accuracy"][0] == pytest.approx(0.8, abs=0.02)


def test_one_large_group_makes_the_interval_wide():
    groups = np.maximum(np.arange(N) - 39, 0)  # group 0 has 40 texts, all others have one
    (row,) = probe_layers(noise(1), RIGHT, groups).to_dict("records")
    n = N**2 // (40**2 + N - 40)  # 81 independent texts
    assert (row["low"], row["high"]) == binomial_interval(round(row["accuracy"] * n), n)


# ---------------------------------------------------------------- numbers


def test_scale_shift_and_precision_of_the_states_do_not_matter():
    states = planted(RIGHT, strength=2, n_layers=2).double()
    frame, scaled, half = (
        probe_layers(h, RIGHT, PAIRS, **FEW_FITS)
        for h in (states, 1e4 * states + 1e12, states.bfloat16())
    )
    pd.testing.assert_frame_equal(frame, scaled)
    assert half["accuracy"].to_numpy() == pytest.approx(frame["accuracy"].to_numpy(), abs=0.05)


def test_the_same_seed_gives_the_same_frame_and_another_one_another():
    states = planted(RIGHT, strength=1, n_layers=2)

    def probe(**options):
        return probe_layers(states, RIGHT, PAIRS, **FEW_FITS, **options)

    for shuffle in (False, True):
        first = probe(seed=3, shuffle_labels=shuffle)
        pd.testing.assert_frame_equal(first, probe(seed=3, shuffle_labels=shuffle))
        assert not first.equals(probe(seed=4, shuffle_labels=shuffle))


def test_lists_and_tensors_are_taken_too():
    states = planted(RIGHT)
    frame = probe_layers(states, RIGHT, PAIRS, **FEW_FITS)
    other = probe_layers(states, RIGHT.tolist(), torch.as_tensor(PAIRS), **FEW_FITS)
    pd.testing.assert_frame_equal(frame, other)


def test_every_fit_converges_on_states_of_a_few_large_directions():
    states = noise(1, 200, 256) / torch.arange(1, 257) ** 2 @ noise(1, 256, 256, seed=1) + 10
    labels, groups = RIGHT[:200], PAIRS[:200]
    default = pipeline(1.0).set_params(logisticregression__max_iter=100)
    with pytest.warns(ConvergenceWarning):
        default.fit(states[0].double().numpy(), labels)
    probe_layers(states, labels, groups)  # where a warning is an error, see pytestmark


# ---------------------------------------------------------------- states of real texts


TEXTS = [
    "Every block adds.",
    "A linear map sends sums to sums and multiples to multiples.",
    "Yes",
    "The quick brown fox jumps over the lazy dog, held out.",
    "Number 7.",
]


def model_for(tokenizer, name="llama"):
    torch.manual_seed(0)
    config = tiny_config(name)
    config.vocab_size = len(tokenizer)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder, pad_token="<|eos|>")


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "opt_350m", "bloom"])
def test_states_are_those_of_one_text_at_a_time(name, tokenizer):
    model = model_for(tokenizer, name)
    states = last_token_states(model, tokenizer, TEXTS, batch_size=3)
    assert states.shape == (4, len(TEXTS), 32) and states.dtype == torch.float32
    for number, text in enumerate(TEXTS):
        with torch.no_grad():
            stream = residual_stream(model, torch.tensor([tokenizer(text)["input_ids"]]))
        alone = torch.stack([h[0, -1] for h in stream])  # (n_layers + 1, d_model)
        torch.testing.assert_close(states[:, number], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_the_model_is_left_as_it_was(train, tokenizer):
    model = model_for(tokenizer).train(train)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    states = last_token_states(model, tokenizer, TEXTS)
    assert not states.requires_grad and torch.is_grad_enabled()
    assert all(module.training == train for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_half_precision_and_padding_on_the_left_change_nothing(tokenizer, tokenizer_folder):
    model = model_for(tokenizer)
    states = last_token_states(model, tokenizer, TEXTS)
    left = load_tokenizer(tokenizer_folder, pad_token="<|eos|>")
    left.padding_side = "left"
    assert torch.equal(last_token_states(model, left, tuple(TEXTS)), states)
    half = last_token_states(model.bfloat16(), tokenizer, TEXTS)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, states, atol=0.05, rtol=0.05)


# ---------------------------------------------------------------- bad input


def test_texts_that_cannot_be_read_are_named(tokenizer):
    model = model_for(tokenizer)
    with pytest.raises(ValueError, match="there is no text"):
        last_token_states(model, tokenizer, [])
    with pytest.raises(ValueError, match="text 1 is empty"):
        last_token_states(model, tokenizer, ["Yes", ""])


def test_an_empty_text_is_empty_even_with_a_bos_token(tokenizer, tokenizer_folder):
    opening = load_tokenizer(tokenizer_folder, pad_token="<|eos|>")
    bos = ("<|eos|>", opening.eos_token_id)
    opening.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos[0]} $A", special_tokens=[bos]
    )
    assert opening("")["input_ids"] == [opening.eos_token_id]
    with pytest.raises(ValueError, match="text 0 is empty"):
        last_token_states(model_for(tokenizer), opening, [""])


def test_texts_may_be_as_long_as_the_model_takes_and_no_longer(tokenizer):
    model = model_for(tokenizer)
    n_tokens = len(tokenizer(TEXTS[1])["input_ids"])
    model.config.max_position_embeddings = n_tokens
    assert last_token_states(model, tokenizer, TEXTS[:2]).isfinite().all()
    model.config.max_position_embeddings = n_tokens - 1
    message = f"text 1 has {n_tokens} tokens; the model takes up to {n_tokens - 1}"
    with pytest.raises(ValueError, match=message):
        last_token_states(model, tokenizer, TEXTS[:2])
    del model.config.max_position_embeddings  # as in models that nothing limits
    assert last_token_states(model, tokenizer, TEXTS[:2]).isfinite().all()


def test_no_pad_token_is_needed(tokenizer, tokenizer_folder):
    bare, model = load_tokenizer(tokenizer_folder), model_for(tokenizer)
    bare.pad_token = None
    expected = last_token_states(model, tokenizer, TEXTS)
    assert torch.equal(last_token_states(model, bare, TEXTS), expected)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"\(3, 400, 8\), labels \(399,\) and groups \(400,\)"):
        probe_layers(noise(3), RIGHT[1:], PAIRS)
    with pytest.raises(ValueError, match=r"labels \(400,\) and groups \(1,\) must be"):
        probe_layers(noise(3), RIGHT, PAIRS[:1])
    with pytest.raises(ValueError, match=r"states \(400, 8\)"):
        probe_layers(noise(3)[0], RIGHT, PAIRS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_layer_of_a_bad_state_is_named(value):
    states = noise(3)
    states[2, 7, 1] = value
    with pytest.raises(ValueError, match="layer 2 holds states that are NaN or infinite"):
        probe_layers(states, RIGHT, PAIRS)


def test_one_class_is_not_enough():
    with pytest.raises(ValueError, match=r"needs two classes to train on, but finds only \{1\}"):
        probe_layers(noise(1), np.ones(N, dtype=int), PAIRS)
    rare = np.array(["no"] * (N - 1) + ["yes"])
    with pytest.raises(ValueError, match=r"finds only \{'no'\}"):
        probe_layers(noise(1), rare, PAIRS)


def test_too_few_groups_are_counted():
    with pytest.raises(ValueError, match="14 groups cannot fill 5 folds of 3 groups; give more"):
        probe_layers(noise(1, 28), RIGHT[:28], PAIRS[:28])
    assert len(probe_layers(noise(1, 30), RIGHT[:30], PAIRS[:30])) == 1
    assert len(probe_layers(noise(1, 28), RIGHT[:28], PAIRS[:28], folds=4)) == 1


# ---------------------------------------------------------------- endings of stories


def test_each_story_is_probed_with_both_endings():
    rows = TASKS["storycloze"]("validation", 6)
    texts, labels, stories = story_endings(rows)
    assert stories == [number // 2 for number in range(12)]
    for number, row in enumerate(rows):
        pair = dict(zip(labels[2 * number : 2 * number + 2], texts[2 * number :], strict=False))
        assert pair[1].endswith(row[f"sentence_quiz{row['answer_right_ending']}"])
        assert pair[0].endswith(row[f"sentence_quiz{3 - row['answer_right_ending']}"])
        assert pair[0].startswith(row["input_sentence_1"]) and row["input_sentence_4"] in pair[1]


@pytest.mark.parametrize("shuffle", [False, True])
def test_endings_are_probed_behind_the_bos_token_with_a_folders_model(tokenizer, tmp_path, shuffle):
    model, rows = model_for(tokenizer), TASKS["storycloze"]("validation", 16)
    model.config.max_position_embeddings = 512
    model = AutoModelForCausalLM.from_config(model.config).eval()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    places = (tmp_path / "model", tmp_path / "tokenizer")
    frame = probe_endings(*places, rows, shuffle_labels=shuffle, batch_size=5)
    texts, *asked = story_endings(rows)
    states = last_token_states(model, tokenizer, [tokenizer.bos_token + text for text in texts])
    expected = probe_layers(states, *asked, shuffle_labels=shuffle)
    pd.testing.assert_frame_equal(frame, expected)
    assert len(frame) == 4 and frame["n_pairs"].tolist() == [16] * 4
    first = frame.query("layer == 0")  # all texts end with a full stop
    assert first["accuracy"].item() == first["pair_accuracy"].item() == 0.5
