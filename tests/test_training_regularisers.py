"""The regularisers against their formulas in float64, and the Trainer that adds them."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_models import tiny_model
from transformers import Trainer, TrainingArguments

from linlib.models import residual_stream
from linlib.training import RegularisedTrainer, Regulariser, parse_variant


def outputs(dtype=torch.float32, n_blocks=4):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 5, 8, generator=generator).to(dtype).requires_grad_()
        for _ in range(n_blocks)
    ]


def by_formula(kind, weight, states, mask):
    """Token by token, as the paper writes it."""
    total = 0.0
    for earlier, later in zip(states, states[1:], strict=False):
        terms = []
        for row in range(3):
            for column in range(5):
                if not mask[row, column]:
                    continue
                a, b = later[row, column], earlier[row, column]
                if kind == "mse":
                    terms.append(((a - b) ** 2).sum())
                else:
                    terms.append(1 - (a @ b) / (a.norm() * b.norm()))
        total = total + sum(terms) / len(terms)
    return weight * total


@pytest.mark.parametrize("kind", ["mse", "cosine"])
@pytest.mark.parametrize("padded", [False, True])
def test_value_and_gradients_equal_the_formula_in_float64(kind, padded):
    mask = torch.ones(3, 5, dtype=torch.long)
    if padded:
        mask[1, 3:], mask[2, :2] = 0, 0
    single = outputs()
    double = [state.detach().double().requires_grad_() for state in single]
    ours = Regulariser(kind, 0.5)(single, mask if padded else None)
    expected = by_formula(kind, 0.5, double, mask)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    ours.backward()
    expected.backward()
    for state, reference in zip(single, double, strict=True):
        torch.testing.assert_close(state.grad.double(), reference.grad, atol=1e-6, rtol=1e-6)


def test_padding_has_no_part_in_it():
    mask = torch.ones(3, 5)
    mask[:, 4] = 0
    states = outputs()
    changed = [state.detach().clone() for state in states]
    generator = torch.Generator().manual_seed(1)
    for state in changed:
        state[:, 4] = 1e4 * torch.randn(3, 8, generator=generator)
    term = Regulariser("mse", 1.0)
    assert term(states, mask).item() == term(changed, mask).item()


def test_half_precision_states_are_summed_in_float32():
    term = Regulariser("cosine", 1.0)(outputs(torch.bfloat16))
    assert term.dtype == torch.float32


def test_equal_states_cost_nothing_and_the_sum_grows_with_depth():
    state = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert Regulariser("mse", 2.0)([state] * 5).item() == 0
    assert Regulariser("cosine", 2.0)([state] * 5).item() == pytest.approx(0, abs=1e-6)
    opposite = [state, -state, state, -state]
    assert Regulariser("cosine", 1.0)(opposite).item() == pytest.approx(3 * 2, rel=1e-6)


def test_variants_are_named_after_their_term():
    assert parse_variant("plain") is None
    assert parse_variant("cosine-0.5") == Regulariser("cosine", 0.5)
    assert parse_variant("mse-2.0") == Regulariser("mse", 2.0)
    named = parse_variant("cosine-0.5-from-embeddings")
    assert named == Regulariser("cosine", 0.5, from_embeddings=True) != parse_variant("cosine-0.5")


def test_a_sum_from_the_embeddings_has_one_term_more_in_closed_form():
    """States that turn by known angles, and that move by known distances."""
    steps = [math.pi / 2, math.pi / 3, 0.0]  # from h_0 to h_1, h_2 and h_3
    angles = torch.tensor([0.0, *np.cumsum(steps)], dtype=torch.float64)
    lengths = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
    stream = [
        (length * torch.stack([angle.cos(), angle.sin()])).expand(2, 3, 2)
        for angle, length in zip(angles, lengths, strict=True)
    ]
    cosine = [Regulariser("cosine", 0.5, first) for first in (False, True)]
    assert cosine[0](stream[1:]).item() == pytest.approx(0.5 * (1 - 0.5))
    assert cosine[1](stream).item() == pytest.approx(0.5 * ((1 - 0.0) + (1 - 0.5)))
    mse = [Regulariser("mse", 2.0, first) for first in (False, True)]
    inner = (4 + 9 - 2 * 2 * 3 * 0.5) + (5 - 3) ** 2  # law of cosines
    assert mse[0](stream[1:]).item() == pytest.approx(2 * inner)
    assert mse[1](stream).item() == pytest.approx(2 * (inner + (1 + 4)))


# ------------------------------------------------------------------------------- trainer


def windows(n=32, length=12):
    return torch.randint(3, 64, (n, length), generator=torch.Generator().manual_seed(3))


def trainer(folder, model, regulariser, data=None, **options):
    ids = windows() if data is None else data
    rows = {"input_ids": ids.tolist(), "labels": ids.tolist()}
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_steps=options.pop("max_steps", 4),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        learning_rate=options.pop("learning_rate", 1e-3),
        **options,
    )
    dataset = Dataset.from_dict(rows).with_format("torch")
    return RegularisedTrainer(model, arguments, train_dataset=dataset, regulariser=regulariser)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "mistral", "opt_350m"])
@pytest.mark.parametrize(
    "regulariser",
    [Regulariser("mse", 0.5), Regulariser("cosine", 0.5), Regulariser("cosine", 0.5, True)],
    ids=["mse", "cosine", "from embeddings"],
)
def test_the_gradient_is_that_of_loss_plus_term(tmp_path, name, regulariser):
    model, reference = tiny_model(name).train(), tiny_model(name).train()
    batch = {"input_ids": windows(4), "labels": windows(4)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["attention_mask"][1, 9:] = 0
    run = trainer(tmp_path, model, regulariser)
    torch.manual_seed(0)  # some architectures drop out
    run.compute_loss(model, batch).backward()
    torch.manual_seed(0)
    expected = reference(**batch).loss
    torch.manual_seed(0)
    stream = residual_stream(reference, batch["input_ids"], batch["attention_mask"])
    states = stream if regulariser.from_embeddings else stream[1:]
    (expected + regulariser(states, batch["attention_mask"])).backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None
            continue
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_both_parts_are_logged_and_add_up(tmp_path):
    run = trainer(tmp_path, tiny_model("mistral"), Regulariser("cosine", 0.5))
    run.train()
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(logged) == 4
    for entry in logged:
        parts = entry["language_model_loss"] + entry["regulariser"]
        assert float(entry["loss"]) == pytest.approx(parts, rel=1e-3)
        assert entry["regulariser"] > 0


def test_gradient_accumulation_changes_nothing(tmp_path):
    weights, losses = [], []
    for batch, accumulation in ((8, 1), (4, 2)):
        model = tiny_model("mistral")
        run = trainer(
            tmp_path, model, Regulariser("mse", 0.5), gradient_accumulation_steps=accumulation
        )
        run.args.per_device_train_batch_size = batch
        run._train_batch_size = batch
        run.train()
        weights.append([p.detach().clone() for p in model.parameters()])
        losses.append([e for e in run.state.log_history if "regulariser" in e])
    for whole, parts in zip(*losses, strict=True):
        for part in ("loss", "language_model_loss", "regulariser"):
            assert float(parts[part]) == pytest.approx(float(whole[part]), rel=1e-3)
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_the_cosine_term_pulls_adjacent_states_together(tmp_path):
    cosines = {}
    for weight in (0.0, 5.0):
        model = tiny_model("mistral")
        run = trainer(
            tmp_path, model, Regulariser("cosine", weight), max_steps=40, learning_rate=3e-3
        )
        run.train()
        with torch.no_grad():
            stream = residual_stream(model.eval(), windows())
        cosines[weight] = torch.cosine_similarity(stream[1], stream[2], dim=-1).mean().item()
    assert cosines[5.0] > cosines[0.0] + 0.05


def test_no_regulariser_is_the_plain_trainer(tmp_path):
    states = []
    for kind in (RegularisedTrainer, Trainer):
        model = tiny_model("llama")
        run = trainer(tmp_path, model, None)
        if kind is Trainer:
            run = Trainer(model, run.args, train_dataset=run.train_dataset)
        run.train()
        states.append(model.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


# ----------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match=f"must be a finite number .*, got {weight}"):
        Regulariser("cosine", weight)


def test_an_unknown_regulariser_is_refused():
    with pytest.raises(ValueError, match=r"unknown regulariser 'cos'; choose from \['cosine', 'm"):
        Regulariser("cos", 0.5)


def test_a_model_of_one_block_is_refused():
    with pytest.raises(ValueError, match="a model of 1 block has no adjacent blocks"):
        Regulariser("mse", 0.5)(outputs(n_blocks=1))


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("cosin-0.5", "'cosin-0.5' is neither.*unknown regulariser 'cosin'.*'cosine', 'mse'"),
        ("cosine--1", "'cosine--1' is neither.*not negative, got -1.0"),
        ("mse-nan", "must be a finite number.*got nan"),
        ("mse", "'mse' is neither 'plain' nor '<kind>-<lambda>'"),
        ("cosine-from-embeddings", "with or without '-from-embeddings' at its end"),
        ("cosine-0.5-from-embedding", "'cosine-0.5-from-embedding' is neither"),
        ("plain-from-embeddings", "'plain-from-embeddings' is neither"),
    ],
)
def test_a_variant_that_makes_no_sense_is_refused(variant, message):
    with pytest.raises(ValueError, match=message):
        parse_variant(variant)


def test_a_model_of_one_block_is_refused_before_training(tmp_path):
    model = tiny_model("gpt2")
    model.transformer.h = model.transformer.h[:1]
    with pytest.raises(ValueError, match="a model of 1 block has no adjacent blocks"):
        trainer(tmp_path, model, Regulariser("cosine", 0.5))


def test_several_gpus_in_one_process_are_refused(tmp_path):
    model = tiny_model("gpt2")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    arguments._n_gpu = 2
    with pytest.raises(ValueError, match="2 GPUs in one process.*torchrun.*CUDA_VISIBLE_DEVICES"):
        RegularisedTrainer(model, arguments)


def test_a_loss_that_is_nan_stops_the_run_and_names_the_step(tmp_path):
    model = tiny_model("gpt2")
    run = trainer(tmp_path, model, Regulariser("cosine", 0.5), max_steps=9, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"became (nan|inf) in step \d; the last checkpo"):
        run.train()
