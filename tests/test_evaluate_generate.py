"""Completions: what the model sees in each round, where it stops, and its draws."""

import pytest
import torch
from test_models import tiny_config
from transformers import AutoModelForCausalLM

from linlib.evaluate import generate
from linlib.evaluate.generate import split_story
from linlib.models import load_tokenizer

PROMPTS = ["The quick brown fox", "A linear map sends sums", "Every block", "Held-out scores tell"]
WINDOW = 32


@pytest.fixture
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture
def model(tokenizer):
    return random_model(len(tokenizer))


def random_model(n_tokens, seed=0):
    torch.manual_seed(seed)
    config = tiny_config("llama")
    config.vocab_size, config.max_position_embeddings = n_tokens, 256
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def complete(model, tokenizer, prompts, **changes):
    """Completions as pairs of text and whether the model ended it."""
    settings = {"max_new_tokens": 12, "window": WINDOW, "temperature": 0.0, "seed": 0}
    frame = generate.complete(model, tokenizer, prompts, **settings | changes)
    assert list(frame.columns) == ["completion", "finished"]
    return list(frame.itertuples(index=False, name=None))


def ids_of(tokenizer, prompt):
    return [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]


def most_likely(model, view):
    with torch.no_grad():
        return model(torch.tensor([view])).logits[0, -1].argmax().item()


def by_hand(model, tokenizer, prompt, n_tokens, window):
    """A greedy loop that keeps the newest half of the window when it is full."""
    prompt = ids_of(tokenizer, prompt)
    view, new = list(prompt), []
    while len(new) < n_tokens:
        if len(view) >= window:
            view = view[-(window // 2) :]
        new.append(most_likely(model, view))
        view.append(new[-1])
    return new


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


def text_of_tokens(tokenizer, n_tokens):
    """A prompt of just so many tokens, the bos token included."""
    ids = tokenizer("The quick brown fox jumps over the lazy dog. " * 20)["input_ids"]
    text = tokenizer.decode(ids[: n_tokens - 1])
    assert len(ids_of(tokenizer, text)) == n_tokens
    return text


# What the model sees


def test_a_prompt_that_fits_is_continued_as_by_plain_generate(model, tokenizer):
    for prompt in PROMPTS:
        ids = torch.tensor([ids_of(tokenizer, prompt)])
        plain = model.generate(ids, do_sample=False, max_new_tokens=12, pad_token_id=0)
        ((text, finished),) = complete(model, tokenizer, [prompt])
        expected = decoded(tokenizer, plain[0, ids.shape[1] :])
        assert (text, finished) == (expected, False) and expected


@pytest.mark.parametrize("n_tokens", [WINDOW // 2 + 1, WINDOW - 12])
def test_a_prompt_of_more_than_half_the_window_is_seen_whole_where_all_fits(
    model, tokenizer, n_tokens
):
    prompt = text_of_tokens(tokenizer, n_tokens)
    ids = torch.tensor([ids_of(tokenizer, prompt)])
    plain = model.generate(ids, do_sample=False, max_new_tokens=12, pad_token_id=0)
    ((text, finished),) = complete(model, tokenizer, [prompt])
    assert text == decoded(tokenizer, plain[0, n_tokens:])


@pytest.mark.parametrize("window", [24, 25])
def test_each_round_sees_only_the_newest_half_of_the_window(model, tokenizer, window):
    ((text, finished),) = complete(model, tokenizer, PROMPTS[2:3], max_new_tokens=70, window=window)
    expected = by_hand(model, tokenizer, PROMPTS[2], 70, window)
    assert (text, finished) == (decoded(tokenizer, expected), False)
    everything = by_hand(model, tokenizer, PROMPTS[2], 70, 256)
    assert text != decoded(tokenizer, everything)


def test_a_prompt_longer_than_the_window_is_seen_from_its_newest_half(model, tokenizer):
    prompt = text_of_tokens(tokenizer, 50)
    ((text, finished),) = complete(model, tokenizer, [prompt])
    assert text == decoded(tokenizer, by_hand(model, tokenizer, prompt, 12, WINDOW))
    assert text != decoded(tokenizer, by_hand(model, tokenizer, prompt, 12, 256))


def test_a_text_near_the_edge_of_the_window_drops_old_tokens_before_it_is_full(model, tokenizer):
    prompt = text_of_tokens(tokenizer, WINDOW - 2)
    ids = ids_of(tokenizer, prompt)
    assert 0 < WINDOW - len(ids) < WINDOW // 8
    ((text, finished),) = complete(model, tokenizer, [prompt], max_new_tokens=1)
    assert text == decoded(tokenizer, [most_likely(model, ids[-(WINDOW // 2) :])])
    assert most_likely(model, ids[-(WINDOW // 2) :]) != most_likely(model, ids)


def test_texts_of_many_lengths_share_their_rounds(model, tokenizer, monkeypatch):
    rounds, generate = [], model.generate

    def counted(*args, **options):
        rounds.append(options["max_new_tokens"])
        return generate(*args, **options)

    monkeypatch.setattr(model, "generate", counted)
    words = " ".join(PROMPTS).split()
    prompts = [" ".join(words[: 1 + n % len(words)]) for n in range(20)]
    complete(model, tokenizer, prompts, max_new_tokens=24)
    assert len(rounds) <= -(-24 // (WINDOW // 8))
    assert min(rounds[:-1], default=WINDOW) >= WINDOW // 8


def test_the_shortest_window_sees_one_token(model, tokenizer):
    ((text, finished),) = complete(model, tokenizer, PROMPTS[:1], window=2, max_new_tokens=5)
    last = ids_of(tokenizer, PROMPTS[0])[-1]
    expected = []
    for _ in range(5):
        last = most_likely(model, [last])
        expected.append(last)
    assert text == decoded(tokenizer, expected)


def test_prompts_of_a_batch_do_not_touch_each_other(model, tokenizer):
    assert len({len(ids_of(tokenizer, prompt)) for prompt in PROMPTS}) > 2
    alone = [complete(model, tokenizer, [prompt])[0] for prompt in PROMPTS]
    assert complete(model, tokenizer, PROMPTS) == alone
    assert complete(model, tokenizer, PROMPTS, batch_size=3) == alone
    assert len(set(alone)) == len(alone)


def test_no_pad_token_is_needed(model, tokenizer):
    expected = complete(model, tokenizer, PROMPTS)
    tokenizer.pad_token = None
    assert complete(model, tokenizer, PROMPTS) == expected


def test_a_long_neighbour_does_not_shorten_what_a_short_text_sees(model, tokenizer):
    prompts = ["Every", text_of_tokens(tokenizer, WINDOW // 2)]
    alone = [complete(model, tokenizer, [prompt], max_new_tokens=28)[0] for prompt in prompts]
    assert complete(model, tokenizer, prompts, max_new_tokens=28) == alone


# Where it stops


@pytest.mark.parametrize("n_tokens", [1, 2, 31, 45])
def test_the_limit_of_tokens_is_kept_exactly(model, tokenizer, n_tokens):
    ((text, finished),) = complete(model, tokenizer, PROMPTS[:1], max_new_tokens=n_tokens)
    expected = by_hand(model, tokenizer, PROMPTS[0], n_tokens + 1, WINDOW)
    assert (text, finished) == (decoded(tokenizer, expected[:n_tokens]), False)
    assert decoded(tokenizer, expected[:n_tokens]) != decoded(tokenizer, expected)


@pytest.mark.parametrize("n_tokens", [12, 60])
def test_the_eos_token_ends_a_completion(model, tokenizer, n_tokens):
    new = by_hand(model, tokenizer, PROMPTS[0], n_tokens, WINDOW)
    end = max(place for place, token in enumerate(new) if new.index(token) == place)
    assert end > n_tokens // 3
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(new[end])
    ((text, finished),) = complete(model, tokenizer, PROMPTS[:1], max_new_tokens=n_tokens)
    assert (text, finished) == (decoded(tokenizer, new[:end]), True)
    batch = complete(model, tokenizer, PROMPTS, max_new_tokens=n_tokens)
    assert batch[0] == (text, finished) and not all(ended for _, ended in batch)
    (short,) = complete(model, tokenizer, PROMPTS[:1], max_new_tokens=end)
    assert short == (text, False)


def test_without_a_bos_token_the_text_begins_with_the_prompt(model, tokenizer):
    body = tokenizer(PROMPTS[0], add_special_tokens=False)["input_ids"]
    tokenizer.bos_token = None
    ((text, finished),) = complete(model, tokenizer, PROMPTS[:1], max_new_tokens=4)
    expected = list(body)
    for _ in range(4):
        expected.append(most_likely(model, expected))
    assert text == decoded(tokenizer, expected[len(body) :])


# Its draws


def test_the_seed_and_nothing_else_decides_what_is_drawn(model, tokenizer):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = complete(model, tokenizer, PROMPTS, temperature=1.0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert complete(model, tokenizer, PROMPTS, temperature=1.0) == first
    assert complete(model, tokenizer, PROMPTS, temperature=1.0, seed=1) != first
    same = complete(model, tokenizer, PROMPTS[:1] * 4, temperature=1.0, batch_size=2)
    assert len(set(same)) == 4  # each prompt has draws of its own


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_are_of_the_whole_softmax_at_the_temperature(model, tokenizer, temperature):
    view = ids_of(tokenizer, PROMPTS[0])
    with torch.no_grad():
        logits = model(torch.tensor([view])).logits[0, -1]
    chances = (logits.double() / temperature).softmax(-1)
    texts = [decoded(tokenizer, [token]) for token in range(len(chances))]
    order = chances.argsort(descending=True).tolist()
    drawn = complete(model, tokenizer, PROMPTS[:1] * 600, temperature=temperature, max_new_tokens=1)
    for ranks in (slice(0, 5), slice(0, 50)):  # the rest beyond 50 are drawn too
        named = {texts[token] for token in order[ranks]}
        chance = sum(c.item() for c, text in zip(chances, texts, strict=True) if text in named)
        share = sum(text in named for text, _ in drawn) / len(drawn)
        assert 0 < chance < 1
        assert abs(share - chance) < 4 * (chance * (1 - chance) / len(drawn)) ** 0.5 + 1e-3


def test_a_models_own_settings_of_generation_have_no_part(model, tokenizer):
    expected = complete(model, tokenizer, PROMPTS)
    drawn = complete(model, tokenizer, PROMPTS, temperature=1.0)
    settings = model.generation_config
    settings.top_k, settings.top_p, settings.temperature, settings.do_sample = 2, 0.2, 0.3, True
    assert complete(model, tokenizer, PROMPTS) == expected
    assert complete(model, tokenizer, PROMPTS, temperature=1.0) == drawn
    settings.repetition_penalty, settings.no_repeat_ngram_size = 5.0, 1
    assert complete(model, tokenizer, PROMPTS) == expected


# What cannot be


def test_no_prompts_no_completions(model, tokenizer):
    assert complete(model, tokenizer, []) == []


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_named(model, tokenizer, prompt):
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        complete(model, tokenizer, ["The", prompt])


def test_a_tokenizer_whose_texts_cannot_end_is_named(model, tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no eos token, so that no completion could end; set"):
        complete(model, tokenizer, PROMPTS)


@pytest.mark.parametrize("changes", [{"window": 1}, {"max_new_tokens": 0}])
def test_no_room_for_a_completion_is_refused(model, tokenizer, changes):
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=rf"{name} = {value}\b.* leave no room"):
        complete(model, tokenizer, PROMPTS, **changes)


def test_a_text_is_split_after_a_third_of_its_words_and_nothing_is_lost():
    text = "One day a  duck\n\nswam out. It was glad."
    beginning, rest = split_story(text)
    assert f"{beginning} {rest}" == text and beginning == "One day a"
    assert split_story("Once") == ("Once", "")


def test_a_folder_gives_the_same_completions(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert complete(tmp_path, tmp_path, PROMPTS) == complete(model, tokenizer, PROMPTS)
