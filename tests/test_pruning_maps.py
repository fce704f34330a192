"""Maps in the place of blocks: known ones exactly, fitted ones against plain least squares."""

from contextlib import nullcontext
from copy import deepcopy

import pandas as pd
import pytest
import torch
from test_models import PRUNABLE, logits
from test_pruning import (
    DEPTH,
    WINDOWS,
    assert_the_cache_changes_nothing,
    assert_untouched,
    blocks_become,
    close,
    deep_config,
    deep_model,
    photograph,
    random_windows,
)
from torch.nn.functional import mse_loss
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from linlib.linearity import BlockMoments, LinearMap, fit_linear_map
from linlib.models.decoders import decoder_blocks, residual_stream
from linlib.pruning import (
    affine_maps,
    can_fold,
    distil,
    fit_maps,
    output_projection,
    prune,
    remove_blocks,
    replace_runs,
    run_moments,
    save_pruned,
)

FOLDABLE = [name for name in PRUNABLE if can_fold(deep_config(name))]


def known_map(seed, bias=True, d=32):
    generator = torch.Generator().manual_seed(seed)
    weight = 0.05 * torch.randn(d, d, generator=generator, dtype=torch.float64)
    return LinearMap(weight, bias * torch.randn(d, generator=generator, dtype=torch.float64))


def whole(delta):
    """The map to x + delta."""
    return LinearMap(torch.eye(len(delta.bias), dtype=torch.float64) + delta.weight, delta.bias)


@torch.no_grad()
def stream_of(model, windows, mask=None):
    return residual_stream(model, windows, mask)


def tokens_of(states):
    return states.flatten(0, 1)


@pytest.fixture(scope="module")
def windows():
    return random_windows(20)


@pytest.fixture(scope="module")
def model():
    return deep_model("llama")


@pytest.fixture(scope="module")
def exact():
    """In float64, where maps can be compared weight by weight."""
    return deep_model("llama").double()


# ---------------------------------------------------------------- replacement

PLACES = {
    "at the start": [range(0, 2)],
    "in the middle and at the end": [range(1, 3), range(4, 5)],
    "about one kept block": [range(0, 1), range(2, 5)],
    "block by block": [range(0, 1), range(1, 2), range(3, 4), range(4, 5)],
}


@pytest.mark.parametrize("name", PRUNABLE)
@pytest.mark.parametrize("place", PLACES)
def test_known_maps_do_what_they_do_inside_the_dense_model(name, place):
    model, runs = deep_model(name), PLACES[place]
    before = photograph(model)
    deltas = {run: known_map(run.start) for run in reversed(runs)}
    small = replace_runs(model, deltas)
    kept = [block for block in range(DEPTH) if not any(block in run for run in runs)]
    assert [affine.run for affine in affine_maps(small)] == runs
    assert small.config.removed_blocks == [block for run in runs for block in run]
    assert small.config.num_hidden_layers == len(decoder_blocks(small)) == len(kept)
    with blocks_become(model, {run: whole(delta) for run, delta in deltas.items()}):
        expected, stream = logits(model, WINDOWS), stream_of(model, WINDOWS)
    close(logits(small, WINDOWS), expected, 1e-4)
    for ours, theirs in zip(
        stream_of(small, WINDOWS), [*(stream[block] for block in kept), stream[-1]], strict=True
    ):
        close(ours, theirs, 1e-4)
    assert_untouched(model, before)


@pytest.mark.parametrize("name", PRUNABLE)
@pytest.mark.parametrize("place", ["at the start", "about one kept block"])
def test_generation_with_maps_needs_no_special_cache(name, place):
    deltas = {run: known_map(run.start) for run in PLACES[place]}
    assert_the_cache_changes_nothing(replace_runs(deep_model(name), deltas))


def test_a_run_must_be_one(model):
    with pytest.raises(ValueError, match="a block is named twice"):
        replace_runs(model, {range(1, 3): known_map(0), range(2, 4): known_map(1)})
    for run in (range(2, 2), range(1, 5, 2)):
        with pytest.raises(ValueError, match="non-empty range of step 1"):
            replace_runs(model, {run: known_map(0)})


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 1.0, 1e6])
@pytest.mark.parametrize("run", [range(0, 1), range(1, 3), range(4, 5)])
def test_a_fitted_map_errs_no_more_than_none(model, windows, run, ridge):
    dense = stream_of(model, windows)[run.stop]

    def error(method):
        small = prune(model, run, method, windows, ridge=ridge)
        return mse_loss(stream_of(small, windows)[run.start], dense).item()

    removed = error("remove")
    assert error("replace") <= removed * (1 + 1e-6)
    if run.start:
        assert error("fold") <= removed * (1 + 1e-6)


def test_without_shrinkage_the_map_is_the_least_squares_one(exact, windows):
    stream = [tokens_of(states) for states in stream_of(exact, windows)]
    for run in (range(0, 2), range(2, 3), range(3, 5)):
        (affine,) = affine_maps(prune(exact, run, "replace", windows, ridge=0.0, batch_size=7))
        expected = fit_linear_map(stream[run.start], stream[run.stop] - stream[run.start])
        close(affine.weight.data, expected.weight, 1e-7)
        close(affine.bias.data, expected.bias, 1e-7)


@pytest.mark.parametrize("place", ["in the middle and at the end", "about one kept block"])
def test_refitted_maps_are_fitted_on_the_states_of_the_edited_model(exact, windows, place):
    first, second = PLACES[place]
    small = prune(exact, [*first, *second], "replace", windows, ridge=0.0, refit=True)
    plain = prune(exact, [*first, *second], "replace", windows, ridge=0.0)
    maps, unfitted = affine_maps(small), affine_maps(plain)
    close(maps[0].weight.data, unfitted[0].weight.data, 0)
    edited = {first: whole(LinearMap(maps[0].weight.data, maps[0].bias.data))}
    with blocks_become(exact, edited):
        stream = [tokens_of(states) for states in stream_of(exact, windows)]
    x, y = stream[second.start], stream[second.stop]
    expected = fit_linear_map(x, y - x)
    close(maps[1].weight.data, expected.weight, 1e-7)
    close(maps[1].bias.data, expected.bias, 1e-7)
    assert not torch.allclose(maps[1].weight, unfitted[1].weight, atol=1e-3)


@pytest.mark.parametrize("method", ["replace", "fold"])
def test_a_single_run_has_nothing_to_refit(model, windows, method):
    plain, refitted = (
        prune(model, [2, 3], method, windows, refit=refit) for refit in (False, True)
    )
    close(logits(refitted, WINDOWS), logits(plain, WINDOWS), 0)


def test_maps_of_more_dimensions_than_tokens_are_refused(model):
    message = "32 tokens .* a 32-dimensional input.* the map fits anything.* at least 33 tokens"
    for method in ("replace", "fold"):
        with pytest.raises(ValueError, match=message):
            prune(model, [1], method, random_windows(4, 8))
    prune(model, [1], "replace", random_windows(3, 11))  # 33


def test_prune_names_what_it_cannot_do(model, windows):
    with pytest.raises(ValueError, match="unknown method 'melt'; choose from.*'fold'"):
        prune(model, [1], "melt", windows)
    for method in ("replace", "fold"):
        with pytest.raises(ValueError, match=f"method '{method}' fits maps, so it needs `windows`"):
            prune(model, [1], method)
        assert affine_maps(prune(model, [], method)) == []
    with pytest.raises(ValueError, match="method 'distil' stops early, so it needs `stopping`"):
        prune(model, [1], "distil", windows)
    with pytest.raises(ValueError, match="negative"):
        prune(model, [1], "replace", windows, ridge=-1.0)
    close(
        logits(prune(model, [1, 3], "remove"), WINDOWS),
        logits(remove_blocks(model, [1, 3]), WINDOWS),
        0,
    )


def test_a_model_with_maps_is_not_pruned_again(model, windows):
    small = prune(model, [1], "replace", windows)
    with pytest.raises(ValueError, match="map"):
        prune(small, [2], "remove")


# ---------------------------------------------------------------- token groups


def massive_by_hand(x, y, first):
    """Whether ||x|| or ||y|| exceeds ten times its median over the first tokens."""
    norms = [states.norm(dim=-1) for states in (x, y)]
    return torch.stack([norm > 10 * norm[:first].median() for norm in norms]).any(0)


def test_maps_without_massive_tokens_are_least_squares_on_the_others(exact, windows):
    model = deepcopy(exact)
    model.base_model.embed_tokens.weight.data[3] *= 1000
    run, options = range(2, 4), dict(ridge=0.0, batch_size=8)
    stream = [tokens_of(states) for states in stream_of(model, windows)]
    x, y = stream[run.start], stream[run.stop]
    massive = massive_by_hand(x, y, 8 * windows.shape[1])
    assert 0 < massive.sum() < 30
    (delta,) = fit_maps(
        model, run, "replace", windows, tokens="no massive", **options
    ).deltas.values()
    expected = fit_linear_map(x[~massive], (y - x)[~massive])
    close(delta.weight, expected.weight, 1e-7)
    close(delta.bias, expected.bias, 1e-7)
    (raw,) = fit_maps(model, run, "replace", windows, **options).deltas.values()
    assert not torch.allclose(raw.weight, delta.weight, atol=1e-3)
    kept = []
    output_projection(model, 1).register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    stream_of(model, windows)
    m = tokens_of(kept.pop())
    (folded,) = fit_maps(
        model, run, "fold", windows, tokens="no massive", **options
    ).deltas.values()
    expected = torch.linalg.lstsq(m[~massive], (y - x)[~massive]).solution
    close(folded.weight, expected, 1e-6)


def test_a_group_without_tokens_is_refused(model):
    loud = torch.tensor([100.0, 1.0] * 6)[:, None]  # half of the tokens come in loud,
    swapped = {0: lambda x: loud.expand_as(x), 1: lambda x: loud.flip(0).expand_as(x)}
    message = r"all 96 tokens are massive at the run of blocks 1 \.\. 1, .*use tokens='all'"
    with blocks_become(model, swapped), pytest.raises(ValueError, match=message):  # half go out so
        run_moments(model, [range(1, 2)], random_windows(8), tokens="no massive")
    with pytest.raises(ValueError, match="unknown token group 'few'; choose from"):
        fit_maps(model, [1], "replace", random_windows(8), tokens="few")


# ---------------------------------------------------------------- moments of runs


def assert_same_moments(actual, expected):
    assert actual.n_tokens == expected.n_tokens
    close(actual.delta_map().weight, expected.delta_map().weight, 1e-4)
    close(actual.delta_map().bias, expected.delta_map().bias, 1e-4)


def moments_by_hand(model, rows, run, block=None):
    """Of windows that go through the model one by one, so that nothing is padded."""
    moments, kept = BlockMoments(32), []
    if block is not None:
        output_projection(model, block).register_forward_hook(
            lambda _module, _args, output: kept.append(output.clone())
        )
    for row in rows:
        stream = stream_of(model, row[None])
        x, delta = stream[run.start], stream[run.stop] - stream[run.start]
        if block is not None:
            x = kept.pop().reshape(delta.shape)
        moments.update(x, delta)
    return moments


@pytest.mark.parametrize("name", ["gpt2", "opt", "falcon", "llama"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_never_enters_the_moments(name, side):
    lengths = [12, 5, 9, 1, 12, 7, 12, 12]
    rows = [random_windows(1, n, seed=i)[0] for i, n in enumerate(lengths)]
    pad = torch.nn.utils.rnn.pad_sequence
    windows = pad(rows, batch_first=True, padding_side=side)
    mask = pad([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    model, runs = deep_model(name), [range(0, 1), range(1, 2), range(1, 3)]
    found = run_moments(model, runs, windows, mask, batch_size=3)
    for run in runs:
        assert_same_moments(found[run], moments_by_hand(deep_model(name), rows, run))
    found = run_moments(model, runs[1:], windows, mask, of_projection=True, batch_size=3)
    for run in runs[1:]:
        expected = moments_by_hand(deep_model(name), rows, run, block=run.start - 1)
        assert_same_moments(found[run], expected)


@pytest.mark.parametrize("name", FOLDABLE)
def test_the_projection_is_what_the_mlp_adds_to_the_stream(name, windows):
    runs = [range(1, 2), range(2, 5)]
    found = run_moments(deep_model(name), runs, windows, of_projection=True, batch_size=8)
    for run in runs:
        expected = moments_by_hand(deep_model(name), windows, run, block=run.start - 1)
        assert_same_moments(found[run], expected)


def test_a_run_that_is_named_twice_is_counted_once(model, windows):
    for of_projection in (False, True):
        found = run_moments(model, [range(1, 3)] * 2, windows, of_projection=of_projection)
        assert found[range(1, 3)].n_tokens == windows.numel()


@pytest.mark.parametrize("method", ["replace", "fold"])
def test_moments_of_more_runs_serve_for_several_sets_of_blocks(model, windows, method):
    runs = [range(1, 2), range(1, 3), range(2, 3), range(4, 5)]
    moments = run_moments(model, runs, windows, of_projection=method == "fold")
    for blocks in ([1], [1, 2, 4], [2, 4]):
        found = fit_maps(model, blocks, method, moments=moments)
        expected = fit_maps(model, blocks, method, windows)
        assert list(found.deltas) == list(expected.deltas)
        for run, delta in expected.deltas.items():
            close(found.deltas[run].weight, delta.weight, 1e-6)
    message = "cannot serve the runs .* with refit={}: they must hold each run"
    with pytest.raises(ValueError, match=message.format("False")):
        fit_maps(model, [3], method, moments=moments)
    with pytest.raises(ValueError, match=message.format("True")):
        fit_maps(model, [1, 4], method, moments=moments, refit=True)
    with pytest.raises(ValueError, match="method 'distil' trains maps, so it needs `training`"):
        fit_maps(model, [1], "distil", moments=moments, stopping=windows)


def test_a_short_fit_is_quiet_and_a_long_one_counts_windows(model, windows, capfd, monkeypatch):
    fit_maps(model, [1], "replace", windows)
    assert capfd.readouterr() == ("", "")
    bars = []

    def impatient(*args, **options):
        bars.append(tqdm(*args, **options | {"delay": 0, "mininterval": 0}))
        return bars[-1]

    monkeypatch.setattr("linlib.pruning.fit.tqdm", impatient)
    fit_maps(model, [1, 3], "replace", windows, refit=True, batch_size=8)
    assert [(bar.n, bar.total, bar.leave) for bar in bars] == [(20, 20, False)] * 2
    assert "8/20" in (shown := capfd.readouterr().err) and "window" in shown


# ---------------------------------------------------------------- folds


def outputs_of(module, model):
    kept = []
    handle = module.register_forward_hook(lambda _module, _args, out: kept.append(out.clone()))
    logits(model, WINDOWS)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("name", FOLDABLE)
def test_a_fold_of_a_known_map_is_exact(name):
    model = deep_model(name).double()
    before = photograph(model)
    with_bias = output_projection(model, 0).bias is not None
    deltas = {range(1, 3): known_map(1, with_bias), range(4, 5): known_map(2, with_bias)}
    small = replace_runs(model, deltas, fold=True)
    m, folded = (outputs_of(output_projection(one, 0), one) for one in (model, small))
    delta = deltas[range(1, 3)]
    close(folded, m + m @ delta.weight + delta.bias, 1e-9)

    def by_hook(block, delta):
        return output_projection(unfolded, block).register_forward_hook(
            lambda _module, _args, m: m + m @ delta.weight + delta.bias
        )

    unfolded = remove_blocks(model, [1, 2, 4])
    handles = [by_hook(block, delta) for block, delta in enumerate(deltas.values())]
    close(logits(small, WINDOWS), logits(unfolded, WINDOWS), 1e-9)
    for handle in handles:
        handle.remove()
    assert_untouched(model, before)
    shared = {weight.data_ptr() for weight in model.parameters()}
    changed = [name for name, w in small.named_parameters() if w.data_ptr() not in shared]
    assert len(changed) == 2 * (1 + with_bias)


def test_projections_of_both_kinds_with_and_without_a_bias_are_folded():
    kinds = set()
    for name in FOLDABLE:
        projection = output_projection(deep_model(name), 0)
        kinds.add((isinstance(projection, Conv1D), projection.bias is not None))
    assert kinds == {(True, True), (False, True), (False, False)}


@pytest.mark.parametrize("name", FOLDABLE)
def test_a_folded_model_that_is_saved_is_the_one_in_memory(name, windows, tmp_path):
    model = deep_model(name)
    before = photograph(model)
    small = prune(model, [1, 2, 4], "fold", windows)
    assert_untouched(model, before)
    assert affine_maps(small) == [] and small.config.removed_blocks == [1, 2, 4]
    loaded, report = AutoModelForCausalLM.from_pretrained(
        save_pruned(small, tmp_path / "small"), output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(logits(loaded, WINDOWS), logits(small, WINDOWS))
    removed = logits(remove_blocks(model, [1, 2, 4]), WINDOWS)
    assert not torch.allclose(logits(small, WINDOWS), removed, atol=1e-2)


@pytest.mark.parametrize("name", ["gpt2", "falcon", "llama"])
def test_a_fitted_fold_is_the_least_squares_map_of_the_mlp(name, windows):
    model, run = deep_model(name).double(), range(2, 4)
    small = prune(model, run, "fold", windows, ridge=0.0)
    kept = []
    projection = output_projection(model, 1)
    handle = projection.register_forward_hook(lambda _module, _args, m: kept.append(m.clone()))
    stream = stream_of(model, windows)
    handle.remove()
    m, added = tokens_of(kept[0]), tokens_of(stream[4] - stream[2])
    if projection.bias is None:
        delta = LinearMap(torch.linalg.lstsq(m, added).solution, torch.zeros(32).double())
    else:
        delta = fit_linear_map(m, added)
    expected = replace_runs(model, {run: delta}, fold=True)
    close(logits(small, WINDOWS), logits(expected, WINDOWS), 1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_refitted_folds_are_fitted_on_the_edited_model(name, windows):
    model = deep_model(name).double()
    first = prune(model, [1], "fold", windows)
    expected = prune(first, [2], "fold", windows)  # block 3 of the dense model
    small = prune(model, [1, 3], "fold", windows, refit=True)
    assert expected.config.removed_blocks == small.config.removed_blocks == [1, 3]
    close(logits(small, WINDOWS), logits(expected, WINDOWS), 1e-9)
    plain = prune(model, [1, 3], "fold", windows)
    assert not torch.allclose(logits(small, WINDOWS), logits(plain, WINDOWS), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in PRUNABLE if name not in FOLDABLE])
def test_a_norm_after_the_mlp_leaves_no_place_for_a_fold(name, windows):
    model = deep_model(name)
    message = rf"cannot be folded into the blocks of this {model.config.model_type}: a norm"
    with pytest.raises(ValueError, match=message):
        prune(model, [1], "fold", windows)
    with pytest.raises(ValueError, match=message):
        replace_runs(model, {range(1, 2): known_map(0, bias=False)}, fold=True)
    assert affine_maps(prune(model, [1], "replace", windows))


@pytest.mark.parametrize("blocks", [[], [2], [1, 3], [0], [0, 3]])
def test_what_can_be_folded_is_folded(model, windows, blocks):
    assert can_fold(model.config, blocks) == (0 not in blocks)
    with nullcontext() if 0 not in blocks else pytest.raises(ValueError, match="block 0"):
        prune(model, blocks, "fold", windows)


def test_which_architectures_take_a_fold():
    assert set(PRUNABLE) - set(FOLDABLE) == {"opt_350m", "gemma2", "gemma3_text", "olmo2"}


def test_a_fold_needs_a_block_before_it(model, windows):
    message = "begins with block 0 has no block before it.*'replace'"
    with pytest.raises(ValueError, match=message):
        prune(model, [0, 1], "fold", windows)
    with pytest.raises(ValueError, match=message):
        replace_runs(model, {range(0, 1): known_map(0, bias=False)}, fold=True)


def test_a_bias_is_not_folded_into_a_projection_without_one(model):
    with pytest.raises(ValueError, match="the map has a bias, and the projection .* has none"):
        replace_runs(model, {range(1, 2): known_map(0)}, fold=True)


# ---------------------------------------------------------------- distillation

SHORT = dict(steps=24, batch_size=4, warmup_steps=2, evaluation_interval=6)


@pytest.fixture
def student(model, windows):
    return prune(model, [1, 3], "replace", windows, ridge=1e3)  # maps with all still to learn


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def test_distilled_maps_are_closer_to_the_dense_model_and_nothing_else_moves(
    model, student, windows
):
    student.lm_head.weight.requires_grad_(False)  # shared with the dense model
    flags = [weight.requires_grad for weight in student.parameters()]
    before, dense, heldout = weights_of(student), photograph(model), random_windows(6, seed=2)
    history = distil(student, model, windows, heldout, **SHORT)
    assert history.columns.tolist() == ["learning_rate", "step", "heldout_loss", "kept"]
    assert (history["learning_rate"] == 1e-3).all()
    assert history["step"].tolist() == [0, 6, 12, 18, 24]
    assert history["kept"].sum() == 1
    kept = history["heldout_loss"][history["kept"]].item()
    assert kept == history["heldout_loss"].min() < history["heldout_loss"][0]
    targets = stream_of(model, heldout)
    ours = stream_of(student, heldout)  # blocks 0, 2 and 4 are left
    losses = [mse_loss(ours[1], targets[2]), mse_loss(ours[2], targets[4])]
    assert sum(losses).item() == pytest.approx(kept, rel=1e-5)
    after = weights_of(student)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(moved) == 4 and all("maps_" in name for name in moved)
    assert [weight.requires_grad for weight in student.parameters()] == flags
    assert all(weight.grad is None for weight in student.parameters())
    assert_untouched(model, dense)
    model.lm_head.weight.requires_grad_(True)


@pytest.mark.parametrize("blocks", [[0], [2], [1, 2, 3]])
def test_a_single_run_is_distilled_as_if_the_whole_student_ran(model, windows, blocks):
    heldout = random_windows(6, seed=2)
    student, reference = (prune(model, blocks, "replace", windows, ridge=1e3) for _ in range(2))

    def loss(text):
        ours, theirs = residual_stream(reference, text)[blocks[0]], stream_of(model, text)
        return mse_loss(ours, theirs[blocks[-1] + 1])

    (place,) = affine_maps(reference)
    optimizer = torch.optim.AdamW([place.weight, place.bias], lr=1e-3, weight_decay=0.0)
    order, losses = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0)), []
    for chosen, rate in zip(order[:8].view(2, 4), (1e-3, 5e-4), strict=True):  # a cosine of 2 steps
        losses += [] if losses else [loss(heldout).item()]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss(windows[chosen]).backward()
        optimizer.step()
    losses.append(loss(heldout).item())
    short = dict(steps=2, batch_size=4, warmup_steps=0, evaluation_interval=2)
    history = distil(student, model, windows, heldout, **short)
    assert history["heldout_loss"].tolist() == pytest.approx(losses)


def test_a_bad_learning_rate_changes_nothing(model, student, windows):
    before = weights_of(student)
    changes = dict(learning_rate=1e6, warmup_steps=0, evaluation_interval=1, patience=2)
    history = distil(student, model, windows, random_windows(6, seed=2), **SHORT | changes)
    assert history["step"].tolist() == [0, 1, 2]  # and then patience is at an end
    assert history["kept"].tolist() == [True, False, False]
    assert history["learning_rate"].unique() == pytest.approx([1e4])  # after 1e6 and 1e5
    after = weights_of(student)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_rate_that_only_leads_away_is_followed_by_a_tenth_of_it(model, windows):
    def run(learning_rate):
        student = prune(model, [1, 3], "replace", windows, ridge=1e3)
        heldout, changes = random_windows(6, seed=2), dict(learning_rate=learning_rate)
        history = distil(student, model, windows, heldout, **SHORT | changes)
        return history, affine_maps(student)[0].weight.data

    history, weight = run(0.1)
    rate = history["learning_rate"].iloc[0]
    assert rate < 0.1
    expected, same = run(rate)
    pd.testing.assert_frame_equal(history, expected)  # the two attempts before left no trace
    assert torch.equal(weight, same) and not history["kept"].iloc[0]


def test_distillation_repeats_and_depends_on_its_seed(model, windows):
    def run(seed):
        student = prune(model, [0, 1], "replace", windows, ridge=1e3)
        history = distil(student, model, windows, windows, **SHORT | dict(seed=seed))
        return history, affine_maps(student)[0].weight.data

    first, again, other = run(0), run(0), run(1)
    pd.testing.assert_frame_equal(first[0], again[0])
    assert torch.equal(first[1], again[1]) and not torch.equal(first[1], other[1])


def test_few_windows_are_gone_through_again(model, student, windows):
    history = distil(student, model, windows[:3], windows[3:], **SHORT)
    assert history["step"].iloc[-1] <= 24 and history["heldout_loss"].is_monotonic_decreasing


def test_distillation_happens_without_dropout(windows):
    model = deep_model("gpt2")  # which has dropout
    student = prune(model, [1], "replace", windows, ridge=1e3)
    expected = distil(
        prune(model, [1], "replace", windows, ridge=1e3), model, windows, windows, **SHORT
    )
    history = distil(student.train(), model, windows, windows, **SHORT)
    pd.testing.assert_frame_equal(history, expected)


def test_a_student_needs_maps_and_both_need_text(model, student, windows):
    with pytest.raises(ValueError, match="the student has no maps to train; make it with prune"):
        distil(prune(model, [1], "remove"), model, windows, windows, **SHORT)
    with pytest.raises(ValueError, match="do not fit the model"):
        distil(student, model, random_windows(4, 65), windows, **SHORT)
    for text in ((windows, windows[:0]), (windows[:0], windows)):
        with pytest.raises(ValueError, match="window"):
            distil(student, model, *text, **SHORT)
