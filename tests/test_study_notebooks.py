"""Notebooks 20 and 22, and what they measure many sets of blocks with, beside plain loops."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats as scipy_stats
from test_models import PRUNABLE
from test_pruning import deep_model, random_windows
from test_pruning_figures import (  # noqa: F401
    altered,
    ground,
    losses_by_document,
    ratio_interval,
    run_cells,
    scores_by_lstsq,
    toy,
)

import linlib
from linlib import profiles, pruning, store
from linlib.linearity import BlockMoments
from linlib.measure import document_losses
from linlib.pruning.sets import (
    added_by_set,
    by_model,
    cheapest_sets,
    cost_table,
    fold_moments,
    losses_of_sets,
    random_sets,
    study_text,
)

SETS = [[], [0], [2], [1, 2], [2, 4], [0, 1, 3], [1, 3], [1, 2, 3, 4]]
HELDOUT = random_windows(7, seed=5)
DOCUMENTS = torch.arange(HELDOUT.numel()).reshape(HELDOUT.shape) // 10  # across windows
FITTING = {"windows": random_windows(20), "ridge": 1e-3, "batch_size": 4}


def compare(model, sets, method, **options):
    """Each set of `losses_of_sets` with the model that is pruned for it alone."""
    refit = options.pop("refit", False)
    fitting = FITTING | options
    found = losses_of_sets(model, sets, method, HELDOUT, DOCUMENTS, fitting, refit)
    assert list(found) == ["removed", "document", "loss", "n_tokens"]
    names = [" ".join(map(str, blocks)) for blocks in sets]
    assert found["removed"].unique().tolist() == names
    for name, blocks in zip(names, sets, strict=True):
        pruned = pruning.prune(model, blocks, method, refit=refit, **fitting)
        expected = document_losses(pruned, HELDOUT, DOCUMENTS)
        rows = found[found["removed"] == name]
        assert rows["document"].tolist() == expected["document"].tolist()
        assert rows["n_tokens"].tolist() == expected["n_tokens"].tolist()
        assert rows["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-4)


@pytest.mark.parametrize("name", PRUNABLE)
@pytest.mark.parametrize("method", ["remove", "replace"])
def test_sets_that_share_blocks_cost_what_each_alone_costs(name, method):
    compare(deep_model(name), SETS, method)


def test_sets_are_folded_and_refitted_and_fitted_on_some_tokens():
    model = deep_model("llama")
    compare(model, [[], [2], [2, 4], [3, 4]], "fold")
    compare(model, [[2], [0, 1], [0, 2], [1, 3, 4]], "replace", refit=True)
    compare(model, [[2], [2, 4]], "fold", refit=True)
    compare(model, [[0], [1, 3]], "replace", tokens="no massive")


def test_the_order_of_sets_and_the_dense_model_are_kept():
    model, dense = deep_model("gpt2"), document_losses(deep_model("gpt2"), HELDOUT, DOCUMENTS)
    one, other = (
        losses_of_sets(model, sets, "remove", HELDOUT, DOCUMENTS, FITTING)
        for sets in ([[3], [], [1, 3]], [[1, 3], [3], []])
    )
    assert one["removed"].unique().tolist() == ["3", "", "1 3"]
    pd.testing.assert_frame_equal(
        *(f.sort_values(["removed", "document"]).reset_index(drop=True) for f in (one, other))
    )
    added = added_by_set(one.assign(method="removed")[["method", *one]], dense)
    assert added["removed"].tolist() == ["3", "", "1 3"] and set(added["method"]) == {"removed"}
    assert added["added"][1] == pytest.approx(0, abs=1e-6)
    assert added["added"][0] == pytest.approx(
        pruning.added_loss(one[one["removed"] == "3"], dense)["added"]
    )


def test_sets_that_cannot_be_measured_are_refused():
    model = deep_model("llama")
    given = (HELDOUT, DOCUMENTS, FITTING)
    with pytest.raises(ValueError, match="'distil' trains the maps of each set; use `fit_maps`"):
        losses_of_sets(model, [[1]], "distil", *given)
    with pytest.raises(ValueError, match=r"there are no sets of blocks; give .* such as \[\[\]\]"):
        losses_of_sets(model, [], "remove", *given)
    with pytest.raises(ValueError, match="unknown method 'melt'"):
        losses_of_sets(model, [[1]], "melt", *given)
    with pytest.raises(IndexError, match="block 7 does not exist"):
        losses_of_sets(model, [[7]], "remove", *given)


def test_random_sets_are_all_there_are_or_distinct_ones():
    everything = random_sets(6, 3, 20, seed=0)
    assert len(everything) == len(set(everything)) == 20
    pairs = random_sets(30, 2, 100, seed=0)
    assert len(pairs) == len(set(pairs)) == 100
    assert all(0 <= a < b < 30 for a, b in pairs) and len({a for a, _ in pairs}) > 15
    assert pairs == random_sets(30, 2, 100, seed=0) != random_sets(30, 2, 100, seed=1)


def test_the_cheapest_sets_are_the_first_blocks_of_each_order():
    costs = {"a": [3.0, 1.0, 2.0, 1.5], "last": [0.0, -1.0, -2.0, -3.0]}
    frame, sets = cheapest_sets(costs, [1, 3, 1])
    assert sets == [(1,), (1, 2, 3), (3,), (1, 2, 3)]
    assert frame["order"].tolist() == ["a", "a", "last", "last"]
    assert frame["n_removed"].tolist() == [1, 3, 1, 3]
    assert frame["removed"].tolist() == ["1", "1 2 3", "3", "1 2 3"]
    table = cost_table(costs)
    assert list(table) == ["block", "order", "cost"] and len(table) == 8
    assert table.set_index(["order", "block"])["cost"]["a", 3] == 1.5
    joined = by_model({"x": frame, "y": frame[:1]})
    assert list(joined) == ["model", *frame] and joined["model"].tolist() == ["x"] * 4 + ["y"]


def test_fold_moments_are_those_of_weighted_least_squares():
    generator = torch.Generator().manual_seed(0)
    x, delta = torch.randn(2, 6, 40, 4, generator=generator, dtype=torch.float64)
    delta = delta + x.roll(1, -1)
    weights = torch.rand(6, 40, generator=generator)
    weights[0] = 0
    moments = fold_moments(x, delta, torch.arange(6)[:, None].expand(6, 40) // 2, 3, weights)
    assert isinstance(moments, BlockMoments) and moments.n_folds == 3
    w = weights.double().numpy().ravel()
    states, added = (one.reshape(-1, 4).numpy() for one in (x, delta))
    a, y = (one - np.average(one, 0, w) for one in (states, added))
    root = np.sqrt(w)[:, None]
    error = y - a @ np.linalg.lstsq(root * a, root * y, rcond=None)[0]
    expected = 1 - (w[:, None] * error**2).sum() / (w[:, None] * y**2).sum()
    assert moments.linearity_no_residual() == pytest.approx(expected, abs=1e-9)
    terms = moments.heldout_terms()
    assert len(terms) == 3


# ---------------------------------------------------------------- the notebooks' own cells


@pytest.fixture
def study(ground):  # noqa: F811
    """The toy's model, the text of the studies cut by hand, and the dense losses."""
    path, model, tokenizer, _, _ = ground
    settings = linlib.load_profile(path)

    def spread(split, n):
        options = {"seq_len": 24, "split": split, "n_windows": None, "return_documents": True}
        found = linlib.token_windows(settings.corpus, tokenizer, at_most=16 * n, **options)
        step = max(len(found[0]) // n, 1)
        return [one[torch.arange(n) * step] for one in found]

    (heldout, documents), (windows, _) = spread("heldout", 7), spread("train", 24)
    given, text = study_text(settings, tokenizer)
    assert torch.equal(given["heldout"], heldout) and torch.equal(given["documents"], documents)
    assert torch.equal(given["fitting"]["windows"], windows)
    assert torch.equal(text["input_ids"], windows) and len(documents.unique()) >= 7
    return path, model, windows, lambda one: losses_by_document(one, heldout, documents)


def test_notebook_20_is_what_plain_loops_measure(study):
    path, model, windows, losses = study
    run_cells("20", path, "pruning_shootout")
    frame, subsets, costs, documents = (
        store.load_frame(f"pruning_shootout{suffix}", "toy")
        for suffix in ("", "_subsets", "_costs", "_documents")
    )
    dense, sizes = losses(model)
    scores = np.array(scores_by_lstsq(model, windows))
    found = costs.pivot(index="order", columns="block", values="cost").loc
    assert found["most linear (the paper)"].tolist() == pytest.approx(1 - scores, abs=1e-6)
    alone = {}
    for block in range(4):
        with altered(model, windows, "removed", [block]):
            alone[block] = (losses(model)[0] - dense).sum() / sizes.sum()
    assert found["loss (oracle)"].tolist() == pytest.approx(list(alone.values()), abs=2e-5)
    assert (found["last first"] == [0, -1, -2, -3]).all()
    paper = sorted(range(4), key=lambda block: -scores[block])
    rows = frame[frame["order"] == "most linear (the paper)"].set_index(["method", "n_removed"])
    assert rows.loc["removed"].index.tolist() == [1, 2, 3]
    for method, n in [("removed", 1), ("removed", 2), ("removed", 3), ("replaced", 2)]:
        with altered(model, windows, method, sorted(paper[:n])):
            expected = ratio_interval(losses(model)[0] - dense, sizes)
        row = rows.loc[(method, n)]
        assert str(row["removed"]) == " ".join(map(str, sorted(paper[:n])))
        ends = row[["added", "added_low", "added_high"]].tolist()
        assert ends == pytest.approx(expected, abs=2e-5)
    folded = frame[frame["method"].str.startswith("folded")]
    assert not folded["removed"].str.split().map(lambda blocks: "0" in blocks).any()
    assert subsets["removed"].str.split().str.len().value_counts().to_dict() == {1: 4, 2: 4, 3: 4}
    for blocks, added in zip(subsets["removed"], subsets["added"], strict=True):
        with altered(model, windows, "removed", [int(block) for block in blocks.split()]):
            expected = (losses(model)[0] - dense).sum() / sizes.sum()
        assert added == pytest.approx(expected, abs=2e-5)
    rows = documents[(documents["method"] == "alone") & documents["removed"].isna()]
    assert rows["loss"].tolist() == pytest.approx(dense.tolist(), rel=1e-4)


def test_random_sets_are_measured_once_for_all_notebooks(study):
    path, *_ = study
    folder, found = store.cache_folder() / "losses_of_sets", {}
    for number, name in (("06", "fig6_pruning_first"), ("20", "pruning_shootout")):
        run_cells(number, path, name)
        found[number] = {artefact.name for artefact in folder.glob("*/")}
        shutil.rmtree(folder)
    assert len(found["06"] & found["20"]) >= 3  # of one, two and three blocks


def test_notebook_22_is_what_plain_loops_measure(study):
    path, model, windows, losses = study
    run_cells("22", path, "functional_linearity")
    frame = store.load_frame("functional_linearity", "toy").set_index(["block", "tokens"])
    documents = store.load_frame("functional_linearity_documents", "toy")
    dense, sizes = losses(model)
    defined = 0
    for block in range(4):
        with altered(model, windows, "removed", [block]):
            removed, _ = losses(model)
        with altered(model, windows, "replaced", [block]):
            linear, _ = losses(model)
        row = frame.loc[(block, "all")]
        for name, sums in (("work", removed - dense), ("left", linear - dense)):
            ends = row[[name, f"{name}_low", f"{name}_high"]].tolist()
            assert ends == pytest.approx(ratio_interval(sums, sizes), abs=2e-5)
        if ratio_interval(removed - dense, sizes)[1] <= 0:
            assert math.isnan(row["phi"]) and math.isnan(row["phi_low"])
            continue
        defined += 1
        done, work = removed - linear, removed - dense
        assert row["phi"] == pytest.approx(done.sum() / work.sum(), rel=1e-3, abs=1e-3)
        for end in row[["phi_low", "phi_high"]]:  # Fieller: just not rejected by the t test
            p = scipy_stats.ttest_1samp(done - end * work, 0).pvalue
            assert p == pytest.approx(0.05, abs=0.005)
        rows = documents[documents["block"] == block]
        assert rows["all"].tolist() == pytest.approx(linear.tolist(), rel=1e-4)
        assert rows["dense"].tolist() == pytest.approx(dense.tolist(), rel=1e-4)
    assert defined  # else the loop above compares nothing
    profile = linlib.linearity_profile(model, windows, batch_size=5, n_folds=2)
    assert set(frame.columns) >= {"heldout_score", "heldout_no_residual", "dominated"}
    assert len(profile) == len(frame)


@pytest.mark.parametrize(
    ("number", "name"), [("20", "pruning_shootout"), ("22", "functional_linearity")]
)
def test_a_profile_without_pruning_says_that_the_studies_are_not_measured(
    number, name, tmp_path, monkeypatch
):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    profile = yaml.safe_load((profiles.FOLDER / "smoke.yaml").read_text())
    del profile["pruning"]
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(profile | {"name": "bare"}))
    with pytest.raises(ValueError, match="profile 'bare' has no section 'pruning'"):
        run_cells(number, tmp_path / "bare.yaml", name)
