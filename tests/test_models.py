"""Every architecture, on a tiny random config: where the blocks are and what the stream is."""

import pytest
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from linlib.models import (
    ARCHITECTURES,
    ENCODERS,
    decoder_blocks,
    final_states,
    load_encoder,
    load_model,
    load_tokenizer,
    residual_stream,
    watch_blocks,
)

LLAMA_SIZE = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)
OPT_SIZE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=48)
NEO_SIZE = dict(hidden_size=32, num_layers=3, num_heads=4, window_size=8)
BERT_SIZE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
MODERNBERT_SIZE = dict(BERT_SIZE, pad_token_id=0, cls_token_id=1, sep_token_id=2)
CONFIGS = {
    "gpt2": ("gpt2", dict(n_embd=32, n_layer=3, n_head=4)),
    "gptj": ("gptj", dict(n_embd=32, n_layer=3, n_head=4, rotary_dim=4)),
    "gpt_neo": ("gpt_neo", dict(**NEO_SIZE, attention_types=[[["global", "local", "global"], 1]])),
    "opt": ("opt", dict(**OPT_SIZE, word_embed_proj_dim=32)),
    "opt_350m": ("opt", dict(**OPT_SIZE, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "bloom": ("bloom", dict(hidden_size=32, n_layer=3, n_head=4)),
    "falcon": ("falcon", dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4)),
    "gpt_neox": ("gpt_neox", dict(LLAMA_SIZE)),
    "phi": ("phi", dict(LLAMA_SIZE)),
    "llama": ("llama", dict(LLAMA_SIZE)),
    "mistral": ("mistral", dict(LLAMA_SIZE, sliding_window=8)),
    "phi3": ("phi3", dict(LLAMA_SIZE, pad_token_id=0)),
    "qwen2": ("qwen2", dict(LLAMA_SIZE)),
    "qwen3": ("qwen3", dict(LLAMA_SIZE)),
    "gemma": ("gemma", dict(LLAMA_SIZE)),
    "gemma2": ("gemma2", dict(LLAMA_SIZE, sliding_window=8)),
    "gemma3_text": ("gemma3_text", dict(LLAMA_SIZE, sliding_window=8)),
    "stablelm": ("stablelm", dict(LLAMA_SIZE)),
    "olmo2": ("olmo2", dict(LLAMA_SIZE)),
    "modernbert-decoder": ("modernbert-decoder", dict(MODERNBERT_SIZE)),
}
# The first block of a ModernBERT decoder has one norm less than the others, so that these are not
# interchangeable.
PRUNABLE = [name for name in CONFIGS if name != "modernbert-decoder"]


def tiny_config(name):
    model_type, size = CONFIGS[name]
    return AutoConfig.for_model(model_type, vocab_size=64, max_position_embeddings=64, **size)


def tiny_model(name, seed=0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(name)).eval()
    for parameter in model.parameters():  # away from the initial norms of 1 and biases of 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def tokens(seed=1, length=12):
    return torch.randint(3, 64, (2, length), generator=torch.Generator().manual_seed(seed))


def tiny_encoder(kind, seed=0):
    size = {"bert": BERT_SIZE, "modernbert": MODERNBERT_SIZE}[kind]
    config = AutoConfig.for_model(kind, vocab_size=64, max_position_embeddings=64, **size)
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(config).eval()
    for parameter in model.parameters():  # as in `tiny_model`
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def logits(model, input_ids):
    with torch.no_grad():
        return model(input_ids=input_ids).logits


def test_every_architecture_of_the_table_is_tested():
    assert {model_type for model_type, _ in CONFIGS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_stream_is_complete_and_ends_before_the_final_norm(name):
    model = tiny_model(name)
    deltas = []
    with torch.no_grad(), watch_blocks(model, lambda layer, x, y: deltas.append(y - x)):
        output = model(input_ids=tokens(), output_hidden_states=True)
    with torch.no_grad():
        stream = residual_stream(model, tokens())
        assert len(stream) == len(decoder_blocks(model)) + 1 == 4
        torch.testing.assert_close(stream[0] + sum(deltas), stream[-1], atol=1e-4, rtol=1e-4)
        last = final_states(model, stream[-1])
        own = model.base_model(input_ids=tokens()).last_hidden_state
    torch.testing.assert_close(last, own, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(stream[1:-1], output.hidden_states[1:-1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    if name != "opt_350m":  # the one without a final norm
        assert not torch.allclose(stream[-1], own, atol=1e-2)


def test_watching_stops_after_an_exception():
    model = tiny_model("llama")
    with pytest.raises(RuntimeError), watch_blocks(model, lambda *_: 1 / 0):
        raise RuntimeError
    logits(model, tokens())  # a hook left behind would divide by zero


def test_a_classification_head_is_no_obstacle():
    torch.manual_seed(0)
    config = tiny_config("opt")
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        stream = residual_stream(model, tokens())
    assert len(stream) == 4


def test_padding_on_the_right_does_not_change_the_stream_before_it():
    model = tiny_model("llama")
    padded = torch.cat([tokens(), torch.zeros(2, 3, dtype=torch.long)], dim=1)
    mask = (torch.arange(15) < 12).long().expand(2, 15)
    with torch.no_grad():
        plain, masked = residual_stream(model, tokens()), residual_stream(model, padded, mask)
    for a, b in zip(plain, masked, strict=True):
        torch.testing.assert_close(a, b[:, :12], atol=1e-5, rtol=1e-5)


def test_load_model_opens_a_saved_folder(tmp_path):
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert not loaded.training and loaded.dtype == torch.float32
    torch.testing.assert_close(logits(loaded, tokens()), logits(model, tokens()))
    assert load_model(str(tmp_path / "model"), dtype=torch.bfloat16).dtype == torch.bfloat16


# ---------------------------------------------------------------- encoders


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_has_a_stream_that_ends_before_its_final_norm(kind):
    model = tiny_encoder(kind)
    with torch.no_grad():
        stream = residual_stream(model, tokens())
        hidden = model(input_ids=tokens(), output_hidden_states=True).hidden_states
        last = final_states(model, stream[-1])
    assert len(stream) == len(hidden) == len(decoder_blocks(model)) + 1 == 4
    for ours, theirs in zip(stream[:-1], hidden[:-1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, hidden[-1], atol=1e-5, rtol=1e-5)
    # BERT's last block ends in its own norm; ModernBERT's is followed by a final one.
    assert torch.allclose(stream[-1], hidden[-1], atol=1e-3) == (kind == "bert")


@pytest.mark.parametrize(
    ("model", "sees_later_tokens"),
    [
        (tiny_encoder("bert"), True),
        (tiny_encoder("modernbert"), True),
        (tiny_model("modernbert-decoder"), False),
        (tiny_model("llama"), False),
    ],
    ids=["bert", "modernbert", "modernbert-decoder", "llama"],
)
def test_a_later_token_changes_earlier_states_of_encoders_alone(model, sees_later_tokens):
    changed = tokens()
    changed[:, -1] = (changed[:, -1] + 1) % 61 + 3
    with torch.no_grad():
        one, other = (residual_stream(model, ids) for ids in (tokens(), changed))
    assert torch.equal(one[0][:, :-1], other[0][:, :-1])  # embeddings are of single tokens
    for before, after in zip(one[1:], other[1:], strict=True):
        moved = not torch.allclose(before[:, :-1], after[:, :-1], atol=1e-5)
        assert moved == sees_later_tokens


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_opens_without_its_head_and_not_as_a_decoder(tmp_path, kind):
    model = tiny_encoder(kind)
    model.save_pretrained(tmp_path)
    loaded = load_encoder(tmp_path)
    assert not loaded.training and loaded.dtype == torch.float32
    with torch.no_grad():
        own, opened = (residual_stream(one, tokens()) for one in (model, loaded))
    torch.testing.assert_close(own, opened)
    message = rf"is an encoder \('{kind}'\), which predicts no next token; open it .*load_encoder"
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_a_decoder_is_not_opened_as_an_encoder(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is a decoder \('llama'\) and no encoder; open it with"):
        load_encoder(tmp_path)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "config", [transformers.T5Config(), transformers.BartConfig(), transformers.MambaConfig()]
)
def test_other_kinds_of_model_are_refused_by_name(tmp_path, config):
    config.save_pretrained(tmp_path)
    kind = config.model_type
    message = rf"'{kind}' is not in the table linlib\.models\.ARCHITECTURES of decoder-only models"
    message += r".*, nor an encoder of \['bert', 'modernbert'\]"
    for function in (load_model, load_encoder):
        with pytest.raises(ValueError, match=rf"{message}.*add a line .*\['{kind}'\] ="):
            function(tmp_path)


def test_a_missing_cuda_device_is_named(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    tiny_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="device 'cuda' was requested, but torch finds no CUDA"):
        load_model(tmp_path, device="cuda")


def test_a_tokenizer_role_must_be_in_the_vocabulary(tokenizer_folder):
    with pytest.raises(ValueError, match="pad_token '<none>' is not in the vocabulary"):
        load_tokenizer(tokenizer_folder, pad_token="<none>")
    assert load_tokenizer(tokenizer_folder, pad_token="<|eos|>").pad_token == "<|eos|>"
