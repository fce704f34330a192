"""Losses by window and by document, against transformers and by hand; and bad input named."""

import numpy as np
import pytest
import torch
from test_models import tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from linlib.measure import document_losses, losses, perplexity, window_losses
from linlib.stats import clustered_mean


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def windows():
    return torch.randint(3, 64, (24, 16), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def documents():
    """Documents of 1 to 40 tokens, which go on in the next window."""
    sizes = torch.randint(1, 41, (60,), generator=torch.Generator().manual_seed(6))
    return torch.arange(60).repeat_interleave(sizes)[: 24 * 16].view(24, 16)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "bloom", "gemma2", "gemma3_text"])
def test_window_losses_are_those_of_transformers(name, windows):
    """Gemma 2 caps its logits after the head."""
    model = tiny_model(name)
    mask = torch.ones_like(windows)
    mask[3, 9:] = 0
    mask[7, 2:] = 0
    result = window_losses(model, windows, mask, batch_size=7)
    labels = windows.masked_fill(mask == 0, -100)
    for window in range(len(windows)):
        kept = slice(0, int(mask[window].sum()))
        one = windows[window : window + 1, kept]
        with torch.no_grad():
            expected = model(input_ids=one, labels=labels[window : window + 1, kept]).loss
        assert result[window].item() == pytest.approx(expected.item(), rel=1e-5)
    assert result.dtype == torch.float64


def logits_of_passes(model, *arguments, **options):
    """The losses of windows, and the number of logits in each forward pass."""
    sizes = []
    hook = model.register_forward_hook(lambda *call: sizes.append(call[-1].logits.numel()))
    try:
        return window_losses(model, *arguments, **options), sizes
    finally:
        hook.remove()


def test_a_large_vocabulary_goes_through_the_model_in_smaller_batches(model, windows, monkeypatch):
    whole, sizes = logits_of_passes(model, windows)
    per_window = 16 * 64
    assert sizes == [24 * per_window]
    monkeypatch.setattr(losses, "MOST_LOGITS", 5 * per_window + 1)
    parts, sizes = logits_of_passes(model, windows)
    assert sizes == [5 * per_window] * 4 + [4 * per_window]
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-6)
    monkeypatch.setattr(losses, "MOST_LOGITS", per_window - 1)
    _, sizes = logits_of_passes(model, windows)
    assert sizes == [per_window] * 24  # one window at least
    monkeypatch.setattr(losses, "MOST_LOGITS", 10**9)
    _, sizes = logits_of_passes(model, windows, batch_size=10)
    assert sizes == [10 * per_window, 10 * per_window, 4 * per_window]


def test_the_logits_of_a_vocabulary_as_large_as_gemmas_stay_below_256_mib():
    size = {"n_embd": 4, "n_layer": 1, "n_head": 1, "vocab_size": 262_144, "n_positions": 64}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **size)).eval()
    windows = torch.arange(10 * 64).view(10, 64)
    result, sizes = logits_of_passes(model, windows)
    assert 4 * max(sizes) == 2**28 and len(sizes) == 3
    assert result.tolist() == pytest.approx([np.log(262_144)] * 10, abs=0.05)


def test_perplexity_is_the_exponential_of_the_mean_loss_and_of_its_interval(model, windows):
    each = window_losses(model, windows).numpy()
    half = 2.0687 * each.std(ddof=1) / np.sqrt(24)  # t, 23 degrees of freedom, 97.5%
    expected = {
        "perplexity": np.exp(each.mean()),
        "low": np.exp(each.mean() - half),
        "high": np.exp(each.mean() + half),
        "loss": each.mean(),
    }
    assert perplexity(model, windows, batch_size=5) == pytest.approx(expected, rel=1e-4)
    single = perplexity(model, windows[:1])
    assert single["loss"] == pytest.approx(each[0], rel=1e-5)
    assert np.isnan(single["low"]) and np.isnan(single["high"])


def test_a_loss_needs_a_window_of_two_tokens(model, windows):
    with pytest.raises(ValueError, match="there are no windows, so there is no loss"):
        window_losses(model, windows[:0])
    mask = torch.ones_like(windows)
    mask[5, 1:] = 0
    with pytest.raises(ValueError, match="window 5 holds one token"):
        window_losses(model, windows, mask)
    with pytest.raises(ValueError, match="window 0 holds one token"):
        perplexity(model, windows[:, :1])


def test_the_perplexity_of_padded_windows_is_that_of_all_their_tokens(model, windows):
    mask = torch.ones_like(windows)
    mask[:, 9:] = 0
    mask[::2, 9:] = 1
    each, sizes = window_losses(model, windows, mask), mask.sum(1) - 1
    expected = clustered_mean(each * sizes, sizes)
    found = perplexity(model, windows, mask)
    assert found["loss"] == pytest.approx((each * sizes).sum() / sizes.sum())
    logs = [found["loss"], np.log(found["low"]), np.log(found["high"])]
    assert logs == pytest.approx(expected)


def test_losses_of_documents_are_the_sums_over_their_own_tokens(model, windows, documents):
    mask = torch.ones_like(windows)
    mask[3, 9:] = 0
    frame = document_losses(model, windows, documents, mask, batch_size=7)
    with torch.no_grad():
        log_probs = model(input_ids=windows).logits[:, :-1].log_softmax(-1)  # padding on the right
    each = -log_probs.gather(2, windows[:, 1:, None])[..., 0]
    predicted = mask[:, 1:].bool()
    for document, loss, n_tokens in frame.itertuples(index=False):
        own = (documents[:, 1:] == document) & predicted
        assert n_tokens == own.sum() > 0
        assert loss == pytest.approx(each[own].sum().item(), rel=1e-5)
    assert frame["document"].is_monotonic_increasing
    assert frame["n_tokens"].sum() == predicted.sum()
    total = (window_losses(model, windows, mask) * predicted.sum(1)).sum().item()
    assert frame["loss"].sum() == pytest.approx(total)


def test_a_document_of_a_first_token_alone_has_no_row(model, windows):
    documents = torch.zeros_like(windows)
    documents[4, 0] = 1
    frame = document_losses(model, windows, documents)
    assert frame["document"].tolist() == [0] and frame["n_tokens"].tolist() == [24 * 15]


def test_the_interval_of_the_perplexity_is_over_documents(model, windows, documents):
    frame = document_losses(model, windows, documents)
    loss, low, high = clustered_mean(frame["loss"], frame["n_tokens"])
    found = perplexity(model, windows, documents=documents, batch_size=5)
    expected = {"perplexity": np.exp(loss), "low": np.exp(low), "high": np.exp(high), "loss": loss}
    assert found == pytest.approx(expected, rel=1e-5)
    assert found["loss"] == pytest.approx(perplexity(model, windows)["loss"])
    by_window = torch.arange(24)[:, None].expand(24, 16)
    assert perplexity(model, windows, documents=by_window) == perplexity(model, windows)


def test_documents_go_through_the_model_once(model, windows, documents):
    passes = []
    hook = model.register_forward_hook(lambda *call: passes.append(len(call[-1].logits)))
    document_losses(model, windows, documents, batch_size=16)
    hook.remove()
    assert passes == [16, 8]


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        (torch.zeros(24, 15, dtype=torch.long), ValueError,
         r"documents \(24, 15\) must have the shape of input_ids \(24, 16\)"),
        (torch.zeros(24, 16), TypeError, "documents must be a tensor of integers"),
        ([0] * 24, TypeError, "documents must be a tensor of integers"),
    ],
)  # fmt: skip
def test_documents_are_checked(model, windows, documents, error, message):
    for function in (document_losses, lambda *given: perplexity(*given[:2], documents=given[2])):
        with pytest.raises(error, match=message):
            function(model, windows, documents)


def test_text_in_the_place_of_windows_has_no_losses_by_document(model, documents):
    with pytest.raises(TypeError, match="must be a tensor of token ids, .* got str"):
        document_losses(model, "Some text.", documents)
