"""Probes on planted signals, against plain scikit-learn; states against one text at a time."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_models import tiny_config
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM

from linlib.evaluate.probes import (
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


def split(groups, seed=0):
    holdout = GroupShuffleSplit(1, test_size=0.25, random_state=seed)
    return next(holdout.split(groups, groups=groups))


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
    assert set(frame["n_test"]) == {100} and set(frame["n_train"]) == {300}


def test_the_interval_of_noise_holds_chance_as_often_as_it_says():
    frame = probe_layers(noise(40), RIGHT, PAIRS, **FEW_FITS)
    assert ((frame["low"] <= 0.5) & (0.5 <= frame["high"])).mean() >= 0.95
    assert frame["accuracy"].mean() == pytest.approx(0.5, abs=0.02)


def test_three_classes_named_by_words_will_do():
    labels = np.array(["bad", "good", "middling"])[np.arange(N) % 3]
    states = noise(1)
    states[0, :, :3] += 6 * torch.eye(3)[torch.arange(N) % 3]
    frame = probe_layers(states, labels, np.arange(N))
    assert frame["accuracy"][0] > 0.95 and frame["chance"][0] < 0.5


def test_a_layer_that_is_the_same_for_all_texts_is_at_chance():
    frame = probe_layers(torch.full((1, N, D), 0.1), RIGHT, PAIRS, strengths=(1.0, 1e-3, 1e-1))
    assert frame["accuracy"][0] == frame["train_accuracy"][0] == 0.5
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
    assert set(shuffled["chance"]) == {0.5}  # a pair keeps a right and a wrong text


def test_shuffled_groups_of_one_label_keep_one():
    groups = np.repeat(np.arange(N // 4), 4)
    labels = (np.arange(N // 4) % 2).repeat(4)
    states = noise(1, N // 4, N // 4).repeat_interleave(4, dim=1)  # the same for a whole group
    states[0, :, 0] += 20 * torch.as_tensor(labels)
    true, null = (
        probe_layers(states, labels, groups, strengths=[1e3], shuffle_labels=shuffle)
        for shuffle in (False, True)
    )
    assert null["train_accuracy"][0] == 1  # impossible if a group held two labels
    assert true["accuracy"][0] > 0.9 and null["low"][0] < 0.5 < null["high"][0]


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
    assert frame["train_accuracy"][0] > 0.9 and frame["low"][0] < 0.5 < frame["high"][0]


def test_the_frame_is_that_of_a_plain_pipeline_with_the_same_split():
    states, labels, groups = signed_groups(signal=3.0)
    strengths = [1e-3, 1e-2, 1.0]
    (row,) = probe_layers(states, labels, groups, strengths=strengths[::-1]).to_dict("records")
    train, test = split(groups)
    x = states[0].double().numpy()

    def choice(groups):
        options = dict(cv=GroupKFold(4), groups=groups)
        scores = [
            cross_val_score(pipeline(c), x[train], labels[train], **options) for c in strengths
        ]
        return strengths[np.argmax(np.mean(scores, axis=1))]

    assert row["C"] == choice(groups[train])
    assert row["C"] != choice(np.arange(len(train)))  # folds that split groups, for comparison
    probe = pipeline(row["C"]).fit(x[train], labels[train])
    assert row["accuracy"] == probe.score(x[test], labels[test])
    assert row["train_accuracy"] == probe.score(x[train], labels[train])
    assert (row["low"], row["high"]) == binomial_interval(round(row["accuracy"] * 25), 25)
    assert row["chance"] == max(labels[test].mean(), 1 - labels[test].mean())


def test_the_test_part_has_no_say_in_what_is_fitted():
    states = planted(RIGHT, strength=2, layer=0, n_layers=1)
    adversarial = states.clone()
    test = torch.as_tensor(split(PAIRS)[1])
    adversarial[0, test, 0] = 1e6 * (1 - 2 * torch.as_tensor(RIGHT)[test])
    fair, foul = (probe_layers(h, RIGHT, PAIRS) for h in (states, adversarial))
    pd.testing.assert_frame_equal(fair[["C", "train_accuracy"]], foul[["C", "train_accuracy"]])
    assert fair["accuracy"][0] > 0.75 and foul["accuracy"][0] == 0


def test_one_large_group_makes_the_interval_wide():
    groups = np.maximum(np.arange(N) - 39, 0)  # group 0 has 40 texts, all others have one
    seed = next(s for s in range(99) if 0 in groups[split(groups, s)[1]])
    (row,) = probe_layers(noise(1), RIGHT, groups, seed=seed).to_dict("records")
    assert row["n_test"] == 130
    n = 130**2 // (40**2 + 90)  # as much as 10 independent texts
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
    with pytest.raises(ValueError, match="3 of 5 groups to train on cannot fill 4 folds"):
        probe_layers(noise(1, 10), RIGHT[:10], PAIRS[:10])
    assert len(probe_layers(noise(1, 12), RIGHT[:12], PAIRS[:12])) == 1


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
    assert len(frame) == 4 and frame["n_test"].tolist() == [8] * 4
    assert frame.query("layer == 0")["accuracy"].item() == 0.5  # all texts end with a full stop
