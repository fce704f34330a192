"""Obtaining frames, reporting them, and comparing two measurements of one."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from test_models import tiny_config
from transformers import AutoModelForCausalLM

from linlib.experiments import dynamics, obtain
from linlib.experiments.registry import EXPERIMENTS
from linlib.experiments.regularised import compare
from linlib.experiments.subjects import Measurement
from linlib.models import load_tokenizer
from linlib.profiles import HubCheckpoints, HubModel, load_profile
from linlib.report import write_report
from linlib.store import load_frame, load_provenance, results_folder, save_frames
from linlib.verify import compare_frames

REPOSITORY = Path(__file__).parents[1]
PRUNED = ("fig6_pruning_first", "fig7_pruning_second", "fig8_pruning_accuracy", "pruning_shootout")
EVALUATED = ("fig5_probing", "tab2_superglue", "tab3_tinystories")


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """An experiment that counts how often it is measured."""
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    calls = []

    def measure(profile):
        calls.append(profile.name)
        frames = {"": pd.DataFrame({"value": [len(calls)]}), "_more": pd.DataFrame({"x": [1]})}
        corpus = {"name": "none", "split": "heldout", "sha256": "0" * 64}
        return Measurement(frames, {"seeds": [0], "device": "cpu", "corpus": corpus})

    monkeypatch.setitem(EXPERIMENTS, "fig0_counted", measure)
    return calls


def test_a_frame_is_measured_when_missing_or_asked(counted):
    profile = load_profile("smoke")
    assert obtain("fig0_counted", profile)["value"].item() == 1
    assert obtain("fig0_counted", profile)["value"].item() == 1
    assert obtain("fig0_counted", profile, remeasure=True)["value"].item() == 2
    assert load_provenance("fig0_counted_more", "smoke")["wall_seconds"] >= 0


def test_a_stored_frame_without_provenance_is_not_passed_over(counted):
    profile = load_profile("smoke")
    obtain("fig0_counted", profile)
    (results_folder("smoke") / "fig0_counted.json").unlink()
    with pytest.raises(ValueError, match="no provenance"):
        obtain("fig0_counted", profile)
    assert obtain("fig0_counted", profile, remeasure=True)["value"].item() == 2


def test_a_failed_measurement_leaves_nothing(counted, monkeypatch):
    def fail(profile):
        raise ValueError("layer 3: NaN or infinite values")

    monkeypatch.setitem(EXPERIMENTS, "fig0_counted", fail)
    with pytest.raises(ValueError, match="layer 3"):
        obtain("fig0_counted", load_profile("smoke"))
    assert not results_folder("smoke").exists()


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ValueError, match="unknown experiment 'fig99'.*fig1_linearity_profiles"):
        obtain("fig99", load_profile("smoke"))


def test_the_report_tells_where_numbers_come_from(counted):
    with pytest.raises(FileNotFoundError, match="nothing was measured at profile 'smoke'"):
        write_report("smoke")
    obtain("fig0_counted", load_profile("smoke"))
    text = write_report("smoke").read_text()
    assert "## fig0_counted" in text and "seeds [0]" in text and "sha256 000000000000" in text


def followed(folder):
    """One model's pretraining, two folders in the place of two revisions."""
    checkpoints = {1: str(folder / "gpt2"), 1000: str(folder / "llama")}
    tokens = {"bos_token": "<|eos|>", "pad_token": "<|pad|>"}
    return (HubCheckpoints(label="twin", checkpoints=checkpoints, **tokens),)


def test_hub_checkpoints_are_followed_by_revision(monkeypatch):
    monkeypatch.setattr(dynamics, "commit_of", lambda settings: f"commit of {settings.revision}")
    profile = load_profile("paper")
    found = {subject.name: subject for subject, _ in dynamics._hub_checkpoints(profile)}
    pythia = found["Pythia-2.8B, step 512"]
    assert pythia.source == "EleutherAI/pythia-2.8b" and pythia.settings.revision == "step512"
    assert pythia.identity == "EleutherAI/pythia-2.8b@commit of step512"
    bloom = found["BLOOM-560M, step 1000"]
    assert bloom.settings.revision == "global_step1000"
    assert found["TinyLlama-1.1B, step 50000"].settings.revision is None


def along_training(variant, seed, losses, scores):
    return pd.DataFrame(
        {"size": "s", "variant": variant, "seed": seed, "step": [0, 10, 20], "tokens": "all",
         "validation_loss": losses, "linearity_no_residual": scores}
    )  # fmt: skip


def test_runs_are_compared_at_equal_steps_and_at_equal_loss():
    fast = along_training("cosine-0.5", 0, [6.0, 4.0, 2.0], [0.9, 0.7, 0.5])
    slow = along_training("plain", 0, [6.0, 5.0, 3.0], [0.9, 0.8, 0.4])
    worse = along_training("mse-2.0", 0, [7.0, 6.5, 6.0], [0.9, 0.8, 0.4])  # of another pair
    rows = compare(pd.concat([fast, slow, worse]))
    assert set(rows["pair"]) == {"cosine-0.5", "mse-2.0"}
    rows = rows[rows["pair"] == "cosine-0.5"].set_index(["at", "variant"])
    assert rows.loc["equal steps", "linearity_no_residual"].to_dict() == {
        "cosine-0.5": 0.5,
        "plain": 0.4,
    }
    equal = rows.loc["equal loss"]
    assert (equal["validation_loss"] == 3.0).all()
    assert equal.loc["plain", "reached_at"] == 20
    assert equal.loc["cosine-0.5", "reached_at"] == 15  # half-way from loss 4 to loss 2
    assert equal.loc["cosine-0.5", "linearity_no_residual"] == pytest.approx(0.6)


def test_a_run_that_starts_below_the_loss_is_taken_at_its_start():
    early = along_training("plain", 0, [3.0, 2.0, 1.0], [0.9, 0.8, 0.7])
    late = along_training("cosine-0.5", 0, [6.0, 5.0, 4.0], [0.9, 0.8, 0.7])
    rows = compare(pd.concat([early, late])).query("at == 'equal loss'")
    assert rows["reached_at"].tolist() == [0, 20]


@pytest.mark.parametrize("layers_per_pass", [None, 2])
def test_hub_models_go_through_every_experiment(
    tmp_path, monkeypatch, tokenizer_folder, layers_per_pass
):
    """A profile of pretrained models, with folders in the place of hub ids."""
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    tokenizer = load_tokenizer(tokenizer_folder)
    names = ("gpt2", "llama")
    for name in names:
        config = tiny_config(name)
        config.vocab_size = len(tokenizer)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    tiny = load_profile("smoke")
    settings = tiny.measure.model_copy(update={"layers_per_pass": layers_per_pass})
    hub = [
        HubModel(id=str(tmp_path / name), label=name, bos_token="<|eos|>", pad_token="<|pad|>")
        for name in names
    ]
    changes = {"zoo": None, "hub_models": hub, "dtype": "bfloat16", "measure": settings}
    changes |= {"pretraining": None, "finetuning": None, "hub_checkpoints": followed(tmp_path)}
    changes |= {"pruning": tiny.pruning.model_copy(update={"models": names})}
    trained = {"fig4_regularised_linearity", "tab1_finetuning", *EVALUATED, *PRUNED}
    profile = tiny.model_copy(update={"name": "hub", **changes})
    for name in EXPERIMENTS.keys() - trained:
        frame = obtain(name, profile)
        assert set(frame["layer"]) == {1, 2, 3}
        expected = {"twin"} if name.startswith("fig2") else set(names)
        assert set(frame["model"]) == expected == set(load_provenance(name, "hub")["models"])
        if expected == {"twin"}:
            assert sorted(frame["step"].unique()) == [1, 1000]
    for name in PRUNED:
        frame = obtain(name, profile)
        assert set(frame["model"]) <= set(names)
        assert {"removed", "replaced", "replaced + distilled"} <= set(frame["method"])
        with pytest.raises(ValueError, match="profile 'hub' prunes nothing, so this figure cannot"):
            obtain(name, profile.model_copy(update={"pruning": None}), remeasure=True)
    with pytest.raises(ValueError, match="profile 'hub' pretrains no Mistral"):
        obtain("fig4_regularised_linearity", profile)
    with pytest.raises(ValueError, match="profile 'hub' fine-tunes nothing"):
        obtain("tab1_finetuning", profile)
    for name in EVALUATED:
        with pytest.raises(ValueError, match="'hub' does not pretrain and evaluate Mistrals, so"):
            obtain(name, profile)
    with pytest.raises(ValueError, match="profile 'hub' follows no pretraining"):
        bare = profile.model_copy(update={"hub_checkpoints": ()})
        obtain("fig2_pretraining_dynamics", bare, remeasure=True)
    stored = list((tmp_path / "data" / "cache" / "moments").glob("*/*.safetensors"))
    assert bool(stored) == (layers_per_pass is None)


def test_verify_says_what_moved_and_where():
    stored = pd.DataFrame({"model": ["a", "a", "b"], "layer": [1, 2, 1], "score": [0.1, 0.2, 0.3]})
    same = compare_frames(stored, stored.sample(frac=1, random_state=0))
    assert same.set_index("column")["largest"].to_dict() == {"score": 0}
    moved = stored.assign(score=[0.1, 0.25, 0.3])
    row = compare_frames(stored, moved).iloc[0]
    assert row["largest"] == pytest.approx(0.05) and row["where"] == "a, 2"
    lost = compare_frames(stored, stored.assign(score=[0.1, None, 0.3]))
    assert lost.iloc[0].to_dict()["column"] == "score (missing on one side)"
    fewer = compare_frames(stored, stored[:2])
    assert fewer.iloc[0].to_dict() | {"median": 0, "where": 0} == {
        "column": "(rows on one side only)", "largest": 1, "median": 0, "where": 0,
    }  # fmt: skip


def test_verify_tells_tasks_and_trainings_apart_and_refuses_what_it_cannot():
    stored = pd.DataFrame(
        {"model": "m", "task": ["cb", "boolq"] * 2, "training": ["task"] * 2 + ["shuffled"] * 2,
         "seed": 0, "accuracy": [0.5, 0.6, 0.7, 0.8]}
    )  # fmt: skip
    row = compare_frames(stored, stored.assign(accuracy=[0.5, 0.6, 0.9, 0.8])).iloc[0]
    assert row["largest"] == pytest.approx(0.2) and row["where"] == "m, cb, shuffled, 0"
    with pytest.raises(ValueError, match="two rows of the stored frame have the same"):
        compare_frames(stored.rename(columns={"task": "chore"}), stored)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (REPOSITORY / "data" / "results" / "tiny").glob("*.csv"))
)
def test_verify_tells_the_rows_of_every_committed_frame_apart(name):
    frame = load_frame(name, "tiny")
    assert not compare_frames(frame, frame)["largest"].any()


def test_a_saved_frame_can_be_reported_without_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    save_frames(
        {"": pd.DataFrame({"x": [1]})}, "fig0", "tiny",
        {"seeds": [1], "device": "cpu", "wall_seconds": 1,
         "corpus": {"name": "c", "split": "heldout", "sha256": "f" * 64}},
    )  # fmt: skip
    assert "![" not in write_report("tiny").read_text()
