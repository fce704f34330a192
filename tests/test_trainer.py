"""Regularised training with the real Trainer, on tiny models."""

import pytest
import torch
from datasets import Dataset
from test_models import tiny_model
from transformers import TrainingArguments

from linlib.models import residual_stream
from linlib.pretrain.regularise import Regulariser
from linlib.pretrain.trainer import RegularisedTrainer


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
@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_the_gradient_is_that_of_loss_plus_term(tmp_path, name, kind):
    regulariser = Regulariser(kind, 0.5)
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
    (expected + regulariser(stream[1:], batch["attention_mask"])).backward()
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
    from transformers import Trainer

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


# ---------------------------------------------------------------- bad input


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
