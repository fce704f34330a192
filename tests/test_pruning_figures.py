"""The numbers of Figures 6 to 8, beside plain loops written for them."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_pruning import blocks_become, deep_model, random_windows, skip_blocks
from transformers import LlamaConfig, LlamaForCausalLM

import linlib
from linlib import corpora, pruning, store
from linlib.linearity import LinearMap
from linlib.measure import window_losses
from linlib.measure.losses import document_losses
from linlib.models import load_tokenizer
from linlib.models.decoders import decoder_blocks, residual_stream

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
RIDGE = 1e-4
TEXT = (
    "The {n}th fox jumps over {m} lazy dogs. A map sends sums to sums, and {m} to {n}. "
    "Blocks add their contributions one by one, {n} of them, to a stream of {m} numbers."
)


@torch.no_grad()
def losses_by_transformers(model, windows):
    """The loss of each window, as transformers computes it from labels."""
    return [model(input_ids=row[None], labels=row[None]).loss.item() for row in windows]


@torch.no_grad()
def stream_of(model, windows):
    """States in float64 by NumPy, (L + 1, n_tokens, d)."""
    return torch.stack(residual_stream(model, windows)).flatten(1, 2).double().numpy()


def scores_by_lstsq(model, windows):
    """1 - the share of the output's variance that least squares leaves, for each block."""
    stream = stream_of(model, windows)
    scores = []
    for x, y in zip(stream, stream[1:], strict=False):
        x, y = x - x.mean(0), y - y.mean(0)
        error = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        scores.append(1 - (error**2).sum() / (y**2).sum())
    return scores


def ridge_map(model, windows, run):
    """x + x W + b with W = (X'X + lambda I)^-1 X'D; lambda is a share of X'X's mean diagonal."""
    stream = stream_of(model, windows)
    x, delta = stream[run.start], stream[run.stop] - stream[run.start]
    centred = x - x.mean(0)
    gram = centred.T @ centred
    penalty = RIDGE * gram.diagonal().mean() * np.eye(len(gram))
    weight = np.linalg.solve(gram + penalty, centred.T @ (delta - delta.mean(0)))
    bias = delta.mean(0) - x.mean(0) @ weight
    weight, bias = torch.tensor(weight), torch.tensor(bias)
    return lambda states: states + (states.double() @ weight + bias).to(states.dtype)


def each_window(windows):
    """Documents of one window each."""
    return torch.arange(len(windows))[:, None].expand(windows.shape)


# ---------------------------------------------------------------- the parts


@pytest.fixture
def affine_model():
    """A decoder of five blocks, of which the second to the fourth are exactly affine."""
    model = deep_model("llama").double()
    generator = torch.Generator().manual_seed(3)
    for block in (1, 2, 3):
        weight = 0.1 * torch.randn(32, 32, generator=generator, dtype=torch.float64)
        shift = torch.randn(32, generator=generator, dtype=torch.float64)

        def affine(_block, args, kwargs, _output, weight=weight, shift=shift):
            states = args[0] if args else kwargs["hidden_states"]
            return states + states @ weight + shift

        decoder_blocks(model)[block].register_forward_hook(affine, with_kwargs=True)
    return model


@pytest.mark.parametrize("blocks", [[2], [1, 3], [1, 2, 3]])
def test_exactly_affine_blocks_are_replaced_without_any_loss(affine_model, blocks):
    fitting, heldout = random_windows(20), random_windows(6, seed=2)
    dense = document_losses(affine_model, heldout, each_window(heldout))
    states, added = stream_of(affine_model, heldout)[-1], {}
    for method in ("remove", "replace", "distil"):
        maps = pruning.fit_maps(
            affine_model,
            blocks,
            method,
            fitting,
            ridge=0.0,
            stopping=heldout,
            distillation={"steps": 2, "evaluation_interval": 1, "warmup_steps": 0},
        )
        pruned = pruning.apply_maps(affine_model, maps)
        losses = document_losses(pruned, heldout, each_window(heldout))
        added[method] = pruning.added_loss(losses, dense)
        if method != "remove":
            np.testing.assert_allclose(stream_of(pruned, heldout)[-1], states, atol=1e-8)
    assert abs(added["remove"]["added"]) > 0.01
    for method in ("replace", "distil"):  # a distillation keeps its start, which is perfect
        for name in ("added", "added_low", "added_high"):
            assert added[method][name] == pytest.approx(0, abs=2e-6)  # losses are float32
    assert maps.history["kept"][0]


def test_affine_blocks_are_the_most_linear_ones(affine_model):
    windows = random_windows(20)
    scores = scores_by_lstsq(affine_model, windows)
    assert scores[1:4] == pytest.approx([1, 1, 1], abs=1e-12) and max(scores[0], scores[4]) < 0.999
    order = pruning.removal_order(affine_model, windows)
    assert set(order[:3]) == {1, 2, 3}
    assert order[3] == max((0, 4), key=scores.__getitem__)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_the_order_is_that_of_least_squares(name):
    model, windows = deep_model(name), random_windows(12)
    scores = scores_by_lstsq(model, windows)
    expected = sorted(range(5), key=lambda block: -scores[block])
    assert pruning.removal_order(model, windows, "linearity") == expected[:-1]
    np.testing.assert_allclose(
        pruning.block_costs(model, windows, "linearity"), 1 - np.array(scores), atol=1e-6
    )


def test_added_loss_is_paired_by_document():
    """Beside the ratio estimator of the textbook (Cochran 1977, section 6.4), over documents."""
    model, windows = deep_model("llama"), random_windows(9, seed=4)
    documents = (torch.arange(9 * 12) // 17).view(9, 12)  # (108,) -> (9, 12)
    dense = document_losses(model, windows, documents, batch_size=4)
    pruned = document_losses(pruning.prune(model, [1, 3], "remove"), windows, documents)
    found = pruning.added_loss(pruned, dense)
    names = ["perplexity", "low", "high", "loss", "added", "added_low", "added_high"]
    assert list(found) == names

    @torch.no_grad()
    def sums(skipped):
        """Loss and predicted tokens of each document, token by token."""
        totals = np.zeros((7, 2))
        with skip_blocks(model, skipped):
            for row, numbers in zip(windows, documents, strict=True):
                picked = model(input_ids=row[None]).logits[0].double().log_softmax(-1)
                for place in range(1, 12):
                    totals[numbers[place]] += [-picked[place - 1, row[place]].item(), 1]
        return totals.T

    def ratio(values, sizes):
        mean, n = values.sum() / sizes.sum(), len(values)
        variance = ((values - mean * sizes) ** 2).sum() / (n - 1)
        half = stats.t.ppf(0.975, n - 1) * math.sqrt(variance / n) / sizes.mean()
        return [mean, mean - half, mean + half]

    (before, sizes), (after, _) = sums([]), sums([1, 3])
    loss = ratio(after, sizes)
    expected = [*np.exp(loss), loss[0], *ratio(after - before, sizes)]
    assert list(found.values()) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    apart = found["high"] / found["low"]  # pairing removes what the documents have in common
    assert found["added_high"] - found["added_low"] != pytest.approx(math.log(apart), rel=0.01)


def test_losses_on_different_text_are_not_paired():
    frame = pd.DataFrame({"document": [0, 1], "loss": [3.0, 4.0], "n_tokens": [2, 3]})
    message = r"losses of 2 documents with 5 tokens cannot be paired .* on 1 documents with 2"
    with pytest.raises(ValueError, match=message):
        pruning.added_loss(frame, frame[:1])
    with pytest.raises(ValueError, match="measure both on the same windows"):
        pruning.added_loss(frame, frame.assign(n_tokens=[3, 2]))


# ---------------------------------------------------------------- runs of blocks


@given(st.sets(st.integers(0, 40)))
def test_runs_partition_the_blocks(blocks):
    runs = pruning.adjacent_runs(blocks)
    assert [block for run in runs for block in run] == sorted(blocks)
    assert all(len(run) > 0 for run in runs)
    assert all(before.stop < after.start for before, after in zip(runs, runs[1:], strict=False))


@given(st.lists(st.integers(0, 40), unique=True), st.randoms())
def test_runs_do_not_depend_on_the_order_of_blocks(blocks, random):
    shuffled = random.sample(blocks, len(blocks))
    assert pruning.adjacent_runs(shuffled) == pruning.adjacent_runs(blocks)


SHALLOW = deep_model("gpt2")


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_removing_twice_is_removing_once(data):
    blocks = data.draw(st.sets(st.integers(0, 4), min_size=1, max_size=4))
    first = data.draw(st.sets(st.sampled_from(sorted(blocks))))
    left = [block for block in range(5) if block not in first]
    second = [left.index(block) for block in blocks - first]
    twice = pruning.remove_blocks(pruning.remove_blocks(SHALLOW, first), second)
    once = pruning.remove_blocks(SHALLOW, blocks)
    assert twice.config.removed_blocks == once.config.removed_blocks == sorted(blocks)
    states = stream_of(twice, random_windows(1)), stream_of(once, random_windows(1))
    np.testing.assert_array_equal(*states)


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 4), min_size=1, max_size=4))
def test_maps_of_any_runs_do_what_they_do_inside_the_dense_model(blocks):
    generator = torch.Generator().manual_seed(len(blocks))
    deltas = {
        run: LinearMap(0.1 * torch.randn(32, 32, generator=generator), torch.ones(32) * run.start)
        for run in pruning.adjacent_runs(blocks)
    }
    small = pruning.replace_runs(SHALLOW, deltas)
    inside = {run: (lambda x, delta=delta: x + delta(x)) for run, delta in deltas.items()}
    with blocks_become(SHALLOW, inside):
        expected = stream_of(SHALLOW, random_windows(2))[-1]
    np.testing.assert_allclose(stream_of(small, random_windows(2))[-1], expected, atol=1e-4)


# ---------------------------------------------------------------- kept maps


@pytest.mark.parametrize("method", pruning.METHODS)
def test_maps_survive_a_folder(method, tmp_path):
    model, windows = deep_model("llama"), random_windows(20)
    maps = pruning.fit_maps(
        model, [1, 2, 4], method, windows, stopping=windows[:4], distillation={"steps": 2}
    )
    maps.save(tmp_path)
    loaded = pruning.Maps.load(tmp_path)
    assert (loaded.method, loaded.blocks) == (method, (1, 2, 4))
    assert list(loaded.deltas) == ([] if method == "remove" else [range(1, 3), range(4, 5)])
    assert (loaded.history is None) == (method != "distil")
    if method == "distil":
        pd.testing.assert_frame_equal(loaded.history, maps.history)
    ours, theirs = (
        window_losses(pruning.apply_maps(model, one), windows[:3]) for one in (maps, loaded)
    )
    assert torch.equal(ours, theirs)


def test_the_maps_of_no_blocks_survive_a_folder(tmp_path):
    maps = pruning.fit_maps(deep_model("llama"), [], "replace")
    maps.save(tmp_path)
    assert pruning.Maps.load(tmp_path) == maps == pruning.Maps("replace", ())


# ---------------------------------------------------------------- the notebooks' own cells


def toy_decoder(vocabulary):
    """A decoder whose blocks differ, and whose losses depend on each of them."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=160, **sizes)
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def toy(tokenizer_folder, tmp_path_factory):
    """A profile of one's own: the folder of a small decoder, and two text files."""
    folder = tmp_path_factory.mktemp("toy")
    tokenizer = load_tokenizer(tokenizer_folder)
    toy_decoder(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for number, name in enumerate(("corpus", "stories")):
        documents = [TEXT.format(n=n, m=n * (7 + number) % 61) for n in range(200)]
        lines = [f'{{"text": "{document}"}}' for document in documents]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    profile = {
        "name": "toy",
        "description": "a random decoder",
        "corpus": str(folder / "corpus.jsonl"),
        "seed": 0,
        "device": "cpu",
        "dtype": "float32",
        "models": [{"id": str(folder / "model"), "label": "toy"}],
        "measure": {
            "n_windows": 8,
            "seq_len": 24,
            "batch_size": 4,
            "n_folds": 2,
            "checkpoint_windows": 2,
            "official_windows": 2,
        },
        "pruning": {
            "first_model": "toy",
            "second_model": "toy",
            "numbers": [1, 2, 3],
            "stories": str(folder / "stories.jsonl"),
            "calibration_windows": 24,
            "heldout_windows": 7,
            "ridge": RIDGE,
            "task": "arc_easy",
            "study_windows": 7,
            "random_subsets": 4,
            "batch_size": 5,
            "distillation": {
                "steps": 6,
                "batch_size": 4,
                "learning_rate": 1.0e-3,
                "warmup_steps": 1,
                "evaluation_interval": 2,
                "patience": 2,
                "heldout_windows": 3,
            },
        },
        "evaluation": {
            "source": "storyworld",
            "tasks": ["arc_easy"],
            "mean_columns": ["arc_easy"],
            "rows": 12,
            "probe_stories": 2,
            "probe_variants": ["plain"],
            "judge": "storyworld",
            "prompts": 1,
            "max_new_tokens": 8,
            "temperature": 0.7,
            "batch_size": 8,
        },
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(profile))
    return folder / "toy.yaml", profile


def run_cells(number, profile, until):
    """Run a notebook's code cells up to the one that stores the result `until`."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.py")
    names = {}
    for cell in re.split(r"^# %%", path.read_text(), flags=re.MULTILINE)[1:]:
        header, _, source = cell.partition("\n")
        if "[markdown]" in header:
            continue
        exec(compile(source, path.name, "exec"), names)
        if 'tags=["parameters"]' in header:
            names |= {"profile": str(profile), "remeasure": True}
        if "linlib.result(" in source and f'"{until}"' in source:
            return names
    raise AssertionError(f"{path.name} has no cell that stores {until}")


@pytest.fixture
def ground(toy, tmp_path, monkeypatch):
    """The toy's model and windows, opened by hand."""
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    path, profile = toy
    model, tokenizer = linlib.load(profile["models"][0]["id"])

    def windows(text, split, n):
        return linlib.token_windows(text, tokenizer, seq_len=24, split=split, n_windows=n)

    texts = {
        "heldout": windows(profile["corpus"], "heldout", 7),
        "calibration": windows(profile["corpus"], "train", 24),
        "stories": windows(profile["pruning"]["stories"], "train", 24),
        "stopping": windows(profile["pruning"]["stories"], "heldout", 3),
    }
    scores = scores_by_lstsq(model, texts["calibration"])
    order = sorted(range(4), key=lambda block: -scores[block])[:3]
    return path, model, tokenizer, texts, order


def altered(model, text, method, blocks):
    """The dense model with its blocks overwritten, as a context."""
    if method != "replaced":
        return skip_blocks(model, blocks if method == "removed" else [])
    return blocks_become(
        model, {run: ridge_map(model, text, run) for run in pruning.adjacent_runs(blocks)}
    )


@torch.no_grad()
def losses_by_document(model, windows, documents):
    """Loss, summed over the predicted tokens of each document, and their number, token by token."""
    totals = {}
    for row, numbers in zip(windows, documents.tolist(), strict=True):
        picked = model(input_ids=row[None]).logits[0].double().log_softmax(-1)
        for place in range(1, len(row)):
            loss, n_tokens = totals.get(numbers[place], (0.0, 0))
            totals[numbers[place]] = loss - picked[place - 1, row[place]].item(), n_tokens + 1
    return np.array([totals[number] for number in sorted(totals)]).T


def ratio_interval(sums, sizes):
    """Mean per token and its 95% interval over documents, by the textbook's ratio estimator."""
    mean, n = sums.sum() / sizes.sum(), len(sums)
    variance = ((sums - mean * sizes) ** 2).sum() / (n - 1)
    half = stats.t.ppf(0.975, n - 1) * math.sqrt(variance / n) / sizes.mean()
    return mean, mean - half, mean + half


@pytest.mark.parametrize(
    ("number", "name", "distilled_on"),
    [
        ("06", "fig6_pruning_first", ["stories"]),
        ("07", "fig7_pruning_second", ["like the test's", "stories"]),
    ],
)
def test_figures_6_and_7_are_what_plain_loops_measure(number, name, distilled_on, ground, toy):
    path, model, tokenizer, texts, order = ground
    run_cells(number, path, name)
    frame = store.load_frame(name, "toy").set_index(["method", "text", "n_removed"])
    each = store.load_frame(f"{name}_documents", "toy")
    assert each.columns.tolist()[:4] == ["model", "method", "n_removed", "text"]
    assert len(frame) == 10 + 3 * len(distilled_on) and (frame["model"] == "toy").all()
    split = {"seq_len": 24, "split": "heldout", "return_documents": True}
    heldout, documents = linlib.token_windows(toy[1]["corpus"], tokenizer, n_windows=7, **split)
    assert torch.equal(heldout, texts["heldout"])
    dense, sizes = losses_by_document(model, heldout, documents)
    assert 1 < len(sizes) < len(heldout)  # documents are not windows
    fitted_on = {"none": None, "like the test's": texts["calibration"], "stories": texts["stories"]}
    cells = [("removed", "none"), ("replaced", "like the test's"), ("replaced", "stories")]
    cells = [("dense", "none", 0), *((*cell, n) for cell in cells for n in (1, 2, 3))]
    for method, text, n in cells:
        blocks = sorted(order[:n])
        with altered(model, fitted_on[text], method, blocks):
            losses, _ = losses_by_document(model, heldout, documents)
        row = frame.loc[(method, text, n)]
        assert n == 0 or str(row["removed"]) == " ".join(map(str, blocks))
        expected = ratio_interval(losses - dense, sizes)
        assert row[["added", "added_low", "added_high"]].tolist() == pytest.approx(
            expected, abs=2e-5
        )
        assert row["perplexity"] == pytest.approx(math.exp(losses.sum() / sizes.sum()), rel=1e-4)
        found = each[(each["method"] == method) & (each["n_removed"] == n) & (each["text"] == text)]
        assert found["n_tokens"].tolist() == sizes.tolist()
        assert found["loss"].tolist() == pytest.approx(losses, abs=1e-3)
    assert frame.loc[("removed", "none", 3), "added"] > 0.01
    sets = store.load_frame(f"{name}_random", "toy")
    settings = linlib.load_profile(path)
    study, _ = pruning.study_text(settings, tokenizer)
    dense, sizes = losses_by_document(model, study["heldout"], study["documents"])
    assert sets.groupby(["n_removed", "drawn"]).size().to_dict() == {
        (n, drawn): number for n in (1, 2, 3) for drawn, number in (("in order", 1), ("random", 4))
    }
    for row in sets.itertuples():
        blocks = [int(block) for block in row.removed.split()]
        assert row.drawn == "random" or blocks == sorted(order[: row.n_removed])
        assert len(blocks) == row.n_removed
        with altered(model, None, "removed", blocks):
            losses, _ = losses_by_document(model, study["heldout"], study["documents"])
        ends = [row.added, row.added_low, row.added_high]
        assert ends == pytest.approx(ratio_interval(losses - dense, sizes), abs=2e-5)
    assert frame.loc["replaced + distilled"].index.unique("text").tolist() == distilled_on


def test_figure_7_keeps_the_error_along_each_distillation(ground, toy):
    path, model, tokenizer, texts, order = ground
    run_cells("07", path, "fig7_pruning_second")
    history = store.load_frame("fig7_pruning_second_distillation", "toy")
    assert set(history["step"]) <= {0, 2, 4, 6}
    beyond = linlib.token_windows(
        toy[1]["corpus"], tokenizer, seq_len=24, split="heldout", n_windows=10
    )
    windows = {
        "like the test's": (texts["calibration"], beyond[7:]),
        "stories": (texts["stories"], texts["stopping"]),
    }
    assert len(history.groupby(["text", "n_removed"])) == 6
    for (text, n), rows in history.groupby(["text", "n_removed"]):
        runs = pruning.adjacent_runs(order[:n])
        fitted_on, stopping = windows[text]
        target = stream_of(model, stopping)
        maps = {run: ridge_map(model, fitted_on, run) for run in runs}
        with blocks_become(model, maps):
            ours = stream_of(model, stopping)
        expected = sum(((ours[run.stop] - target[run.stop]) ** 2).mean() for run in runs)
        assert rows["heldout_loss"].iloc[0] == pytest.approx(expected, rel=1e-3)
        assert rows["heldout_loss"][rows["kept"]].item() == rows["heldout_loss"].min()


@torch.no_grad()
def right_answers(model, tokenizer, rows, prompt):
    """Of each question, whether the right candidate has the highest log-likelihood."""
    right = []
    for row in rows:
        context = prompt.format(**row)
        scores = []
        for choice in row["choices"]["text"]:
            start = 1 + len(tokenizer(context, add_special_tokens=False).input_ids)
            ids = tokenizer(f"{context} {choice}", add_special_tokens=False).input_ids
            ids = torch.tensor([[tokenizer.bos_token_id, *ids]])
            if ids.shape[1] > 161:  # the model reads 160, and the last one is only predicted
                start, ids = start - (ids.shape[1] - 161), ids[:, -161:]
            log_probabilities = model(input_ids=ids[:, :-1]).logits.double().log_softmax(-1)
            picked = log_probabilities[0].gather(1, ids[0, 1:, None])[:, 0]
            scores.append(picked[start - 1 :].sum().item())
        right.append(row["choices"]["label"][int(np.argmax(scores))] == row["answerKey"])
    return np.array(right)


@pytest.mark.parametrize(
    ("task", "source", "prompt"),
    [
        ("arc_easy", "storyworld", "Question: {question}\nAnswer:"),
        ("continuation", "pydocs", "{question}"),
    ],
)
def test_figure_8_is_what_a_plain_loop_measures(task, source, prompt, ground, toy, tmp_path):
    _, model, tokenizer, texts, order = ground
    asked = {"task": task, "task_rows": 12}
    (tmp_path / "toy.yaml").write_text(
        yaml.safe_dump(toy[1] | {"pruning": toy[1]["pruning"] | asked})
    )
    run_cells("08", tmp_path / "toy.yaml", "fig8_pruning_accuracy")
    frame = store.load_frame("fig8_pruning_accuracy", "toy")
    assert set(frame["text"]) == {"none", "stories", "like the test's"}
    frame = frame[frame["text"] != "like the test's"].set_index(["method", "n_removed"])
    answers = store.load_frame("fig8_pruning_accuracy_answers", "toy")
    rows = corpora.load_task(source, task, "validation", 12)
    dense, all_answers = right_answers(model, tokenizer, rows, prompt), set()
    for method, n in [("dense", 0), *((m, n) for m in ("removed", "replaced") for n in (2, 3))]:
        with altered(model, texts["stories"], method, sorted(order[:n])):
            right = right_answers(model, tokenizer, rows, prompt)
        row, each = frame.loc[(method, n)], answers.query("method == @method and n_removed == @n")
        each = each[each["text"] == ("stories" if method == "replaced" else "none")]
        assert each["item"].tolist() == list(range(12))
        assert each["correct"].tolist() == right.tolist(), (method, n)
        assert row["accuracy"] == pytest.approx(right.mean())
        interval = stats.binomtest(int(right.sum()), 12).proportion_ci(0.95, "wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        assert (row["n"], row["chance"]) == (12, 0.25)
        all_answers.add(tuple(right))
        if n == 0:
            assert row[["difference", "difference_low", "difference_high", "p"]].isna().all()
            continue
        ours, theirs = (right & ~dense).sum(), (dense & ~right).sum()
        assert row["difference"] == pytest.approx((ours - theirs) / 12)
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        p = stats.binomtest(int(ours), int(ours + theirs)).pvalue if ours + theirs else 1
        assert row["p"] == pytest.approx(p)
    assert len(all_answers) > 1  # pruning changes answers, so that the comparison says something
    assert frame.index.unique("n_removed").tolist() == [0, 2, 3]  # of a sample, the last two


def test_figure_8_measures_all_numbers_of_blocks_where_all_questions_are_asked(
    ground, toy, tmp_path
):
    folder = tmp_path / "tasks" / "arc_easy"
    folder.mkdir(parents=True)
    corpora.load_task("storyworld", "arc_easy", "validation", 5).to_json(folder / "validation.json")
    profile = toy[1] | {"evaluation": toy[1]["evaluation"] | {"source": str(tmp_path / "tasks")}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(profile))
    run_cells("08", tmp_path / "toy.yaml", "fig8_pruning_accuracy")
    frame = store.load_frame("fig8_pruning_accuracy", "toy")
    assert frame["n_removed"].unique().tolist() == [0, 1, 2, 3] and (frame["n"] == 5).all()


def test_a_profile_without_a_second_model_does_not_measure_figure_7(ground, toy, tmp_path):
    profile = toy[1] | {"pruning": toy[1]["pruning"] | {"second_model": None}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(profile))
    with pytest.raises(ValueError, match="profile 'toy' names no second model to prune"):
        run_cells("07", tmp_path / "toy.yaml", "fig7_pruning_second")
    profile.pop("pruning")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(profile))
    for number, name in (("06", "fig6_pruning_first"), ("08", "fig8_pruning_accuracy")):
        with pytest.raises(ValueError, match="profile 'toy' has no section 'pruning'"):
            run_cells(number, tmp_path / "toy.yaml", name)


def test_fitting_takes_the_windows_that_the_profile_names(ground):
    path, _, tokenizer, texts, _ = ground
    profile = linlib.load_profile(path)
    fitting, heldout, documents = pruning.pruning_texts(profile, tokenizer)
    found, apart = (fitting[text] for text in (pruning.STORIES, pruning.LIKE_TEST))
    assert torch.equal(found["windows"], texts["stories"])
    assert torch.equal(found["training"], texts["stories"])  # 6 steps of 4 windows
    assert torch.equal(found["stopping"], texts["stopping"])
    options = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1}
    options |= {"evaluation_interval": 2, "patience": 2, "seed": 0}
    assert found["distillation"] == options
    assert (found["ridge"], found["batch_size"]) == (RIDGE, 5)
    assert torch.equal(heldout, texts["heldout"]) and documents.shape == heldout.shape
    rest = linlib.token_windows(
        profile.corpus, tokenizer, seq_len=24, split="heldout", n_windows=10
    )
    assert torch.equal(apart["stopping"], rest[7:]) and torch.equal(rest[:7], texts["heldout"])
