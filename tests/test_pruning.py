"""Blocks taken out of all architectures: what is left, what it costs, and how it is saved."""

import json
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_models import CONFIGS, PRUNABLE, logits
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from linlib.linearity import LinearMap
from linlib.measure import linearity_profile
from linlib.models import load_model, load_tokenizer
from linlib.models.decoders import decoder_blocks, residual_stream
from linlib.pruning import (
    CRITERIA,
    Maps,
    adjacent_runs,
    block_costs,
    fit_maps,
    load_pruned,
    prune,
    removal_order,
    remove_blocks,
    replace_runs,
    save_pruned,
)

DEPTH = 5
ALTERNATING = [["sliding_attention", "full_attention"][block % 2] for block in range(DEPTH)]
SLIDING = dict(sliding_window=4, layer_types=ALTERNATING)
SIZES = {  # windows shorter than the text, so that a block in another's place would show
    "gpt_neo": dict(
        num_layers=DEPTH, window_size=4, attention_types=[[["global", "local"], 2], [["local"], 1]]
    ),
    "mistral": dict(sliding_window=4),
    "qwen2": dict(SLIDING, use_sliding_window=True),
    "qwen3": dict(SLIDING, use_sliding_window=True),
    "gemma2": SLIDING,
    "gemma3_text": SLIDING,
}


def deep_config(name, **changes):
    model_type, size = CONFIGS[name]
    depth = {key: DEPTH for key in ("n_layer", "num_hidden_layers") if key in size}
    fixed = dict(vocab_size=64, max_position_embeddings=64, bos_token_id=1, eos_token_id=None)
    return AutoConfig.for_model(
        model_type, **(fixed | size | depth | SIZES.get(name, {}) | {"pad_token_id": 0} | changes)
    )


def deep_model(name, seed=0, **changes):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(deep_config(name, **changes)).eval()
    for parameter in model.parameters():  # away from the initial norms of 1 and biases of 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def random_windows(n, length=12, seed=1, vocabulary=64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary, (n, length), generator=generator)


WINDOWS = random_windows(2)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def generated(model, use_cache, n_tokens=6):
    torch.manual_seed(0)
    output = model.generate(
        WINDOWS,
        max_new_tokens=n_tokens,
        do_sample=False,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return output.sequences, torch.stack(output.logits)


def assert_the_cache_changes_nothing(model):
    tokens, scores = generated(model, use_cache=True)
    plain_tokens, plain_scores = generated(model, use_cache=False)
    assert torch.equal(tokens, plain_tokens) and tokens.shape[1] == WINDOWS.shape[1] + 6
    close(scores, plain_scores, 1e-4)


def _overwrite(function, _block, args, kwargs, output):
    states = function(args[0] if args else kwargs["hidden_states"])
    return (states, *output[1:]) if isinstance(output, tuple) else states


@contextmanager
def blocks_become(model, functions):
    """Overwrite the outputs of blocks, or of runs of them (ranges): an oracle that removes none."""
    handles = []
    for key, function in functions.items():
        run = key if isinstance(key, range) else range(key, key + 1)
        for number, block in enumerate(run):
            hook = partial(_overwrite, function if number == 0 else torch.clone)
            module = decoder_blocks(model)[block]
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def skip_blocks(model, blocks):
    return blocks_become(model, dict.fromkeys(blocks, torch.clone))


def photograph(model):
    """Everything by which a change of the dense model would be noticed."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    numbers = [getattr(module, "layer_idx", None) for module in model.modules()]
    addresses = [weight.data_ptr() for weight in model.parameters()]
    return weights, (model.config.to_dict(), repr(model), numbers, addresses)


def assert_untouched(model, before):
    weights, rest = photograph(model)
    assert rest == before[1]
    for name, weight in before[0].items():
        assert torch.equal(weights[name], weight), name


# ---------------------------------------------------------------- removal


@pytest.mark.parametrize("name", PRUNABLE)
@pytest.mark.parametrize("removed", [[0, 2], [1, 2], [4]])
def test_removing_blocks_is_skipping_them(name, removed):
    model = deep_model(name)
    before = photograph(model)
    small = remove_blocks(model, removed)
    assert len(decoder_blocks(small)) == small.config.num_hidden_layers == DEPTH - len(removed)
    assert small.config.removed_blocks == removed
    own = {weight.data_ptr() for weight in small.parameters()}
    assert own < {weight.data_ptr() for weight in model.parameters()}
    with skip_blocks(model, removed):
        close(logits(small, WINDOWS), logits(model, WINDOWS))
    assert not torch.allclose(logits(small, WINDOWS), logits(model, WINDOWS), atol=1e-2)
    assert_untouched(model, before)


@pytest.mark.parametrize("name", PRUNABLE)
@pytest.mark.parametrize("removed", [[0, 2], [1, 3]])
def test_each_kept_block_has_its_place_in_the_cache(name, removed):
    assert_the_cache_changes_nothing(remove_blocks(deep_model(name), removed))


@pytest.mark.parametrize("name", PRUNABLE)
def test_a_saved_model_is_the_one_in_memory(name, tmp_path):
    model = deep_model(name)
    small = remove_blocks(model, [0, 2])
    assert save_pruned(small, tmp_path / "models" / "small") == tmp_path / "models" / "small"
    loaded, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "models" / "small", output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(logits(loaded, WINDOWS), logits(small, WINDOWS))
    close(generated(loaded, use_cache=True)[1], generated(small, use_cache=True)[1], 1e-4)
    assert loaded.config.removed_blocks == [0, 2]
    again = remove_blocks(loaded, [1])  # of 1, 3, 4
    assert again.config.removed_blocks == [0, 2, 3]
    with skip_blocks(model, [0, 2, 3]):
        close(logits(again, WINDOWS), logits(model, WINDOWS))


def test_what_a_config_lists_by_layer_follows_the_blocks():
    assert remove_blocks(deep_model("gemma2"), [0, 1, 3]).config.layer_types == [
        "sliding_attention",
        "sliding_attention",
    ]
    neo = remove_blocks(deep_model("gpt_neo"), [0, 2]).config
    assert neo.attention_layers == ["local", "local", "local"]
    assert neo.expand_attention_types_params(neo.attention_types) == neo.attention_layers


def test_pruning_again_numbers_blocks_as_the_first_dense_model_does():
    model = deep_model("gpt2")
    small = remove_blocks(remove_blocks(remove_blocks(model, [1]), [3]), [0])
    assert small.config.removed_blocks == [0, 1, 4]
    close(logits(small, WINDOWS), logits(remove_blocks(model, [0, 1, 4]), WINDOWS), 0)
    assert remove_blocks(small, []).config.removed_blocks == [0, 1, 4]


def test_removing_nothing_gives_a_copy():
    model = deep_model("llama")
    copy = remove_blocks(model, [])
    assert copy is not model and copy.config is not model.config
    assert copy.config.removed_blocks == []
    close(logits(copy, WINDOWS), logits(model, WINDOWS), 0)


def test_a_model_with_another_head_or_none_is_pruned_too():
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(deep_config("opt")).eval()
    with skip_blocks(model, [1, 2]):
        expected, states = logits(model, WINDOWS), residual_stream(model, WINDOWS)[-1]
    close(logits(remove_blocks(model, np.array([2, 1])), WINDOWS), expected)
    base = remove_blocks(model.base_model, (block for block in (1, 2)))
    close(residual_stream(base, WINDOWS)[-1], states)


def test_runs_are_groups_of_adjacent_blocks():
    assert adjacent_runs([4, 1, 2]) == [range(1, 3), range(4, 5)]
    assert adjacent_runs([]) == []


# ---------------------------------------------------------------- orders


@pytest.fixture(scope="module")
def model():
    return deep_model("llama")


@pytest.fixture(scope="module")
def windows():
    return random_windows(12)


@pytest.mark.parametrize(
    ("criterion", "column"),
    [
        ("linearity", "linearity_score"),
        ("linearity without residual", "linearity_no_residual"),
        ("identity score", "identity_score"),
    ],
)
def test_the_most_linear_blocks_go_first(model, windows, criterion, column):
    scores = linearity_profile(model, windows).query("tokens == 'all'")[column].to_numpy()
    expected = np.argsort(-scores, stable=True).tolist()
    assert removal_order(model, windows, criterion, batch_size=5) == expected[:-1]
    assert removal_order(model, windows, criterion, 2) == expected[:2]
    costs = block_costs(model, windows, criterion)
    np.testing.assert_allclose(costs, 1 - scores, atol=1e-6)


def test_block_influence_is_one_minus_the_cosine_of_states(model, windows):
    with torch.no_grad():
        stream = [states.double() for states in residual_stream(model, windows)]
    pairs = zip(stream, stream[1:], strict=False)
    expected = [1 - torch.cosine_similarity(x, y, dim=-1).mean().item() for x, y in pairs]
    np.testing.assert_allclose(
        block_costs(model, windows, "block influence", batch_size=5), expected, atol=1e-6
    )
    order = removal_order(model, windows, "block influence")
    assert order == sorted(range(DEPTH), key=expected.__getitem__)[:-1]


@torch.no_grad()
def own_loss(model, windows, skipped=()):
    with skip_blocks(model, skipped):
        each = [model(input_ids=row[None], labels=row[None]).loss.item() for row in windows]
    return sum(each) / len(each)


def test_the_loss_is_that_of_the_model_without_the_block(model, windows):
    expected = [own_loss(model, windows, [block]) for block in range(DEPTH)]
    np.testing.assert_allclose(block_costs(model, windows, "loss"), expected, atol=1e-5)
    order = removal_order(model, windows, "loss", batch_size=7)
    assert order == sorted(range(DEPTH), key=expected.__getitem__)[:-1]


def test_the_loss_measured_again_is_the_exhaustive_greedy_search(model, windows):
    order = []
    for _ in range(DEPTH - 1):
        left = [block for block in range(DEPTH) if block not in order]
        order.append(min(left, key=lambda block: own_loss(model, windows, [*order, block])))
    assert removal_order(model, windows, "loss", remeasure=True) == order


@pytest.mark.parametrize("criterion", ["linearity", "block influence"])
def test_costs_measured_again_are_those_of_the_model_that_is_left(model, windows, criterion):
    left, order, small = list(range(DEPTH)), [], model
    while len(left) > 1:
        cheapest = int(np.argmin(block_costs(small, windows, criterion)))
        order.append(left.pop(cheapest))
        small = remove_blocks(small, [cheapest])
    assert removal_order(model, windows, criterion, remeasure=True) == order


def test_measuring_again_sees_what_a_removal_changes():
    """Blocks add constants: worked out by hand with h_0 = e, a unit vector.

    e -> e + 10p -> e + 10p + 5q -> e + 5q + 3s -> e + 5q + 3s + r. Block 2 takes back what block
    0 adds. Its cosine is 0.39 as long as 5q stands beside it and 0.03 without, where block 0's is
    0.10 throughout.
    """
    small = dict(n_embd=8, n_layer=4, n_head=2, tie_word_embeddings=False)
    model = deep_model("gpt2", **small)
    for block in decoder_blocks(model):
        for weight in (*block.attn.c_proj.parameters(), *block.mlp.c_proj.parameters()):
            weight.data.zero_()
    p, q, r, s, e = torch.eye(8)[:5]
    constants = [10 * p, 5 * q, -10 * p + 3 * s, r]
    for block, constant in zip(decoder_blocks(model), constants, strict=True):
        block.mlp.c_proj.bias.data += constant
    model.transformer.wpe.weight.data.zero_()
    model.transformer.wte.weight.data[:] = e
    assert removal_order(model, WINDOWS, "block influence") == [3, 1, 2]
    assert removal_order(model, WINDOWS, "block influence", remeasure=True) == [3, 1, 0]


def test_orders_that_need_no_text(model):
    assert removal_order(model, WINDOWS, "last") == [4, 3, 2, 1]
    orders = [removal_order(model, WINDOWS, "random", seed=seed) for seed in range(5)]
    assert orders[0] == removal_order(model, WINDOWS, "random", seed=0)
    assert len(set(map(tuple, orders))) > 1
    for order in orders:
        assert len(set(order)) == DEPTH - 1 and set(order) < set(range(DEPTH))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_an_order_holds_as_many_blocks_as_asked_for(model, windows, criterion):
    whole = removal_order(model, windows, criterion)
    for n_remove in range(DEPTH):
        assert removal_order(model, windows, criterion, n_remove) == whole[:n_remove]


@pytest.fixture(scope="module")
def sink():
    """A model with a token that is massive throughout, and windows in which it stands."""
    model = deep_model("llama")
    model.base_model.embed_tokens.weight.data[3] *= 1000
    windows = random_windows(40)
    assert 0 < (windows == 3).sum() < 20
    return model, windows


def test_orders_can_leave_massive_tokens_out(sink):
    model, windows = sink
    frame = linearity_profile(model, windows, batch_size=8)
    for tokens, rows in frame.groupby("tokens"):
        costs = block_costs(model, windows, "linearity", tokens=tokens, batch_size=8)
        np.testing.assert_allclose(costs, 1 - rows["linearity_score"], atol=1e-6)
        order = removal_order(model, windows, "linearity", tokens=tokens, batch_size=8)
        assert order == np.argsort(costs, stable=True).tolist()[:-1]
    with pytest.raises(ValueError, match="unknown token group 'no first position'; choose from"):
        removal_order(model, windows, "loss", tokens="no first position")


@pytest.mark.parametrize("remeasure", [False, True])
@pytest.mark.parametrize("criterion", ["linearity", "last"])
def test_the_order_of_folds_keeps_block_0(model, windows, criterion, remeasure):
    options = dict(remeasure=remeasure)
    order = removal_order(model, windows, criterion, method="fold", **options)
    assert sorted(order) == [1, 2, 3, 4]
    if not remeasure:
        whole = np.argsort(block_costs(model, windows, criterion), stable=True).tolist()
        assert order == [block for block in whole if block != 0]
    for method in ("remove", "replace", "distil"):
        same = removal_order(model, windows, criterion, method=method, **options)
        assert same == removal_order(model, windows, criterion, **options)


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "olmo2", "opt_350m"])
def test_a_method_that_does_not_fit_is_refused_before_anything_is_measured(name, windows):
    model = deep_model(name)
    handle = model.base_model.register_forward_pre_hook(lambda *_: pytest.fail("it was run"))
    message = "cannot be folded into the blocks of this.*use method 'replace'"
    with pytest.raises(ValueError, match=message):
        removal_order(model, windows, method="fold")
    for blocks in ([1], [1, 3]):
        with pytest.raises(ValueError, match=message):
            fit_maps(model, blocks, "fold", windows)
    with pytest.raises(ValueError, match="unknown method 'melt'; choose from.*'fold'"):
        removal_order(model, windows, method="melt")
    handle.remove()
    assert removal_order(model, windows, n_remove=1, method="replace")


# ---------------------------------------------------------------- export

FRESH = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
prompt = tokenizer("The quick brown fox", return_tensors="pt", return_token_type_ids=False)
tokens = model.generate(**prompt, max_new_tokens=8, do_sample=False)
assert "linlib" not in sys.modules
assert model.config.num_hidden_layers == 3
print(tokenizer.decode(tokens[0]), end="")
"""


def test_a_folder_opens_where_there_is_only_transformers(tokenizer_folder, tmp_path):
    tokenizer = load_tokenizer(tokenizer_folder)
    small = remove_blocks(deep_model("gpt2", vocab_size=len(tokenizer)), [0, 2])
    folder = save_pruned(small, str(tmp_path / "small"), tokenizer)
    assert json.loads((folder / "config.json").read_text())["removed_blocks"] == [0, 2]
    command = [sys.executable, "-c", FRESH, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    prompt = tokenizer("The quick brown fox", return_tensors="pt").input_ids
    tokens = small.generate(prompt, max_new_tokens=8, do_sample=False)
    assert done.stdout == tokenizer.decode(tokens[0])
    opened, own = load_pruned(folder)
    assert own.get_vocab() == tokenizer.get_vocab()
    close(logits(opened, prompt), logits(small, prompt))


def test_a_folder_that_exists_is_not_written_to(model, tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(FileExistsError, match="kept exists; give a new folder"):
        save_pruned(remove_blocks(model, [1]), tmp_path / "kept")
    assert [*tmp_path.iterdir()] == [tmp_path / "kept"] and not any((tmp_path / "kept").iterdir())


def random_map(seed):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(*shape, generator=generator) for shape in ((32, 32), (32,)))
    return LinearMap(0.05 * weight, bias)


OPEN_ALL = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from linlib.pruning import load_pruned
for path in sorted(Path(sys.argv[1]).iterdir()):
    model, tokenizer = load_pruned(path / "small")
    assert tokenizer is None and not model.training
    expected = load_file(path / "expected.safetensors")
    with torch.no_grad():
        logits = model(input_ids=expected["windows"]).logits
    torch.testing.assert_close(logits, expected["logits"], atol=1e-5, rtol=1e-5)
    for use_cache in (True, False):
        options = dict(max_new_tokens=6, do_sample=False, use_cache=use_cache, output_logits=True)
        done = model.generate(expected["windows"], return_dict_in_generate=True, **options)
        assert torch.equal(done.sequences, expected["tokens"]), (path.name, use_cache)
        torch.testing.assert_close(torch.stack(done.logits), expected["scores"], atol=1e-4, rtol=0)
    print(path.name, model.config.num_hidden_layers, model.config.removed_blocks)
"""


def test_models_with_maps_open_in_a_fresh_process(tmp_path):
    runs = [range(0, 1), range(1, 2), range(3, 5)]  # at the input, and two maps in a row
    for name in PRUNABLE:
        model = replace_runs(deep_model(name), {run: random_map(run.start) for run in runs})
        save_pruned(model, tmp_path / name / "small")
        tokens, scores = generated(model, use_cache=True)
        expected = {"windows": WINDOWS, "tokens": tokens, "scores": scores}
        expected |= {"logits": logits(model, WINDOWS).contiguous()}
        save_file(expected, tmp_path / name / "expected.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} 1 [0, 1, 3, 4]" for name in sorted(PRUNABLE)]


@pytest.fixture
def with_maps(model, tmp_path):
    small = replace_runs(model, {range(0, 2): random_map(0), range(3, 4): random_map(1)})
    return save_pruned(small, tmp_path / "small")


def test_no_other_library_opens_a_model_without_its_maps(with_maps):
    names = {path.name for path in with_maps.iterdir()}
    assert names == {"config.json", "maps.safetensors", "model"}
    for opening in (AutoModelForCausalLM.from_pretrained, load_model):
        with pytest.raises((ValueError, FileNotFoundError), match="linlib_pruned"):
            opening(with_maps)
    plain = AutoModelForCausalLM.from_pretrained(with_maps / "model")  # by who asks for it
    assert plain.config.removed_blocks == [0, 1, 3]


def test_a_damaged_file_of_maps_is_refused(with_maps, tmp_path):
    maps = with_maps / "maps.safetensors"
    whole = maps.read_bytes()
    for damaged in (whole[:-100], whole[:4], b""):
        maps.write_bytes(damaged)
        with pytest.raises(ValueError, match="holds no maps that can be read.*copy the folder"):
            load_pruned(with_maps)
    save_file({"weight": torch.zeros(2)}, maps)
    with pytest.raises(ValueError, match="holds no maps that can be read"):
        load_pruned(with_maps)
    narrow = LinearMap(torch.zeros(8, 8), torch.zeros(8))
    Maps("replace", (1,), {range(1, 2): narrow}).save(with_maps)
    message = (
        r"are of width \[8\] and stand for blocks \[1\], and the model .* of width 32 and lacks"
    )
    with pytest.raises(ValueError, match=message):
        load_pruned(with_maps)
    other = LinearMap(torch.zeros(32, 32), torch.zeros(32))
    Maps("replace", (1,), {range(1, 2): other}).save(with_maps)
    with pytest.raises(ValueError, match=r"stand for blocks \[1\].*lacks blocks \[0, 1, 3\]"):
        load_pruned(with_maps)
    with pytest.raises(FileNotFoundError, match="there is no model at the path"):
        load_pruned(tmp_path / "elsewhere")


def n_bytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


@pytest.mark.parametrize("method", ["remove", "replace", "fold"])
def test_the_precision_of_the_checkpoint_is_kept(method, windows, tmp_path):
    deep_model("llama").to(torch.bfloat16).save_pretrained(tmp_path / "dense")
    model = load_model(tmp_path / "dense")
    before = photograph(model)
    assert model.dtype == torch.float32
    small = prune(model, [2, 3], method, windows)
    folder = save_pruned(small, tmp_path / "small")
    assert small.dtype == torch.float32 and small.config.dtype == torch.float32
    assert_untouched(model, before)
    plain = folder / "model" if method == "replace" else folder
    assert n_bytes(plain) < n_bytes(tmp_path / "dense")
    assert AutoConfig.from_pretrained(plain).dtype == torch.bfloat16
    opened, _ = load_pruned(folder)
    close(logits(opened, WINDOWS), logits(small, WINDOWS), 0.1 if method == "fold" else 1e-5)
    again = save_pruned(
        prune(opened, [], "remove") if method != "replace" else opened, tmp_path / "b"
    )
    assert n_bytes(again) == n_bytes(folder)
    wide, _ = load_pruned(save_pruned(small, tmp_path / "wide", dtype=torch.float32))
    close(logits(wide, WINDOWS), logits(small, WINDOWS))


def test_a_model_of_no_checkpoint_or_opened_in_less_keeps_its_own_precision(tmp_path):
    model = deep_model("gpt2")
    folder = save_pruned(model.to(torch.float16), tmp_path / "half")
    assert AutoConfig.from_pretrained(folder).dtype == torch.float16
    deep_model("gpt2").save_pretrained(tmp_path / "single")
    less = load_model(tmp_path / "single", dtype="bfloat16")
    folder = save_pruned(less, tmp_path / "less")
    assert AutoConfig.from_pretrained(folder).dtype == torch.bfloat16


def test_a_failure_leaves_nothing_behind(model, tmp_path):
    small = remove_blocks(model, [1])
    with pytest.raises(AttributeError):
        save_pruned(small, tmp_path / "small", "the name of a tokenizer, and not one")
    assert not any(tmp_path.iterdir())
    assert len(decoder_blocks(AutoModelForCausalLM.from_pretrained(
        save_pruned(small, tmp_path / "small")
    ))) == 4  # fmt: skip


# ---------------------------------------------------------------- bad input


def test_block_indices_are_checked(model):
    with pytest.raises(ValueError, match="cannot take 5 blocks out of 5: at least one must be"):
        remove_blocks(model, range(5))
    with pytest.raises(IndexError, match=r"block 5 does not exist: this model has blocks 0 \.\. 4"):
        remove_blocks(model, [5])
    with pytest.raises(IndexError, match="block -1 does not exist"):
        remove_blocks(model, [-1])
    with pytest.raises(ValueError, match=r"a block is named twice in \[1, 1, 3\]"):
        remove_blocks(model, [1, 3, 1])
    with pytest.raises(TypeError):
        remove_blocks(model, [1.0])


def test_blocks_that_know_their_number_are_not_interchangeable():
    model = deep_model("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ValueError, match="gpt2 are not interchangeable.*own number"):
        removal_order(model, WINDOWS)
    with pytest.raises(ValueError, match="gpt2 are not interchangeable.*own number"):
        remove_blocks(model, [1])


def test_blocks_of_different_shapes_are_not_interchangeable():
    model = deep_model("opt")
    wide = decoder_blocks(model)[3]
    wide.fc1, wide.fc2 = torch.nn.Linear(32, 80), torch.nn.Linear(80, 32)
    message = r"block 3 has fc1\.weight of shape \(80, 32\).* describes a block with \(48, 32\)"
    with pytest.raises(ValueError, match=message):
        remove_blocks(model, [1])
    small = remove_blocks(model, [3])  # all that are left are alike
    with skip_blocks(model, [3]):
        close(logits(small, WINDOWS), logits(model, WINDOWS))


def test_orders_name_what_they_cannot_do(model):
    for n_remove in (-1, 5):
        message = rf"cannot remove {n_remove} of 5 blocks: 0 \.\. 4 can go"
        with pytest.raises(ValueError, match=message):
            removal_order(model, WINDOWS, n_remove=n_remove)
    with pytest.raises(ValueError, match="unknown criterion 'luck'; choose from.*'linearity'"):
        removal_order(model, WINDOWS, "luck")


def test_a_first_block_that_differs_cannot_be_left_out():
    model = deep_model("modernbert-decoder")
    with pytest.raises(ValueError, match="not interchangeable: block 1 has attn_norm.weight of"):
        remove_blocks(model, [0])
    assert len(decoder_blocks(remove_blocks(model, [2]))) == DEPTH - 1
