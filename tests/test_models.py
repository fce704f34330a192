"""Every architecture, on a tiny random config: where the blocks are and what the stream is."""

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from linlib.models import (
    ARCHITECTURES,
    decoder_blocks,
    final_states,
    load_model,
    load_tokenizer,
    replace_blocks,
    residual_stream,
    skip_blocks,
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
}


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


@pytest.mark.parametrize("name", CONFIGS)
def test_edits_change_just_the_blocks_named_and_are_undone(name):
    model = tiny_model(name)
    before = logits(model, tokens())
    attributes = [dict(vars(block)) for block in decoder_blocks(model)]
    with torch.no_grad(), skip_blocks(model, [1]):
        stream = residual_stream(model, tokens())
        torch.testing.assert_close(stream[1], stream[2], atol=0, rtol=0)
        assert not torch.equal(stream[2], stream[3])
    with torch.no_grad(), replace_blocks(model, {range(0, 2): lambda states: 2 * states}):
        stream = residual_stream(model, tokens())
        torch.testing.assert_close(2 * stream[0], stream[2], atol=0, rtol=0)
        assert logits(model, tokens()).shape == before.shape
    assert torch.equal(logits(model, tokens()), before)
    assert [dict(vars(block)) for block in decoder_blocks(model)] == attributes


@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama", "gemma3_text"])
def test_generation_works_with_blocks_skipped(name):
    model = tiny_model(name)
    limits = dict(max_new_tokens=4, do_sample=False, pad_token_id=0)
    use_cache = model.generation_config.use_cache
    with skip_blocks(model, [0]):
        generated = model.generate(tokens(), **limits)
        expected = tokens()
        for _ in range(4):
            chosen = logits(model, expected)[:, -1].argmax(-1, keepdim=True)
            expected = torch.cat([expected, chosen], dim=1)
    assert torch.equal(generated[:, :16], expected[:, : generated.shape[1]])
    assert model.generation_config.use_cache == use_cache


def test_an_edit_is_undone_after_an_exception():
    model = tiny_model("llama")
    before, use_cache = logits(model, tokens()), model.config.use_cache
    with pytest.raises(RuntimeError, match="inside"), skip_blocks(model, [0, 2]):
        assert not torch.equal(logits(model, tokens()), before)
        raise RuntimeError("inside")
    assert torch.equal(logits(model, tokens()), before)
    assert model.config.use_cache == use_cache


def test_an_edit_keeps_a_forward_that_someone_else_patched():
    model = tiny_model("gpt2")
    block = decoder_blocks(model)[0]
    block.forward = patched = lambda states, *_args, **_kwargs: states + 1
    with skip_blocks(model, [0]), torch.no_grad():
        stream = residual_stream(model, tokens())
        assert torch.equal(stream[0], stream[1])
    assert block.forward is patched


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


# ---------------------------------------------------------------- bad input


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model folder at .*nowhere.*save_pretrained"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no model folder at"):
        load_tokenizer("./nowhere")


def test_a_hub_id_that_cannot_be_had_says_so(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="no model 'nobody/nothing' at revision 'step7'"):
        load_model("nobody/nothing", revision="step7")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (transformers.T5Config(), "'t5' is an encoder-decoder"),
        (transformers.BertConfig(), "'bert' is an encoder; linlib measures decoder-only"),
        (transformers.MambaConfig(), r"'mamba' is not in the table linlib\.models\.ARCHITECTURES"),
    ],
)
def test_other_kinds_of_model_are_refused_by_name(tmp_path, config, message):
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_block_indices_are_checked():
    model = tiny_model("llama")
    with pytest.raises(IndexError, match=r"block 3 does not exist: .* blocks 0 \.\. 2"):
        skip_blocks(model, [3]).__enter__()
    with pytest.raises(ValueError, match="block 1 is named twice"):
        replace_blocks(model, {1: torch.tanh, range(0, 2): torch.tanh}).__enter__()
    with pytest.raises(ValueError, match="non-empty range of step 1"):
        replace_blocks(model, {range(2, 2): torch.tanh}).__enter__()


def test_a_missing_cuda_device_is_named(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    tiny_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="device 'cuda' was asked for, but torch finds no CUDA"):
        load_model(tmp_path, device="cuda")


def test_block_indices_of_numpy_are_indices():
    model = tiny_model("llama")
    with torch.no_grad(), skip_blocks(model, np.array([1])):
        stream = residual_stream(model, tokens())
    assert torch.equal(stream[1], stream[2])


def test_a_tokenizer_role_must_be_in_the_vocabulary(tokenizer_folder):
    with pytest.raises(ValueError, match="pad_token '<none>' is not in the vocabulary"):
        load_tokenizer(tokenizer_folder, pad_token="<none>")
    assert load_tokenizer(tokenizer_folder, pad_token="<|eos|>").pad_token == "<|eos|>"
