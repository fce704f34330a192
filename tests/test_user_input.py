"""Models and text as a user brings them: folders, GGUF files, hub ids; files, lists, datasets."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from test_models import logits, tiny_model, tokens

import linlib
from linlib import corpora, models, parallel, store
from linlib.corpora import text_dataset


@pytest.fixture(autouse=True)
def own_root(monkeypatch, tmp_path):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path / "root"))


@pytest.fixture
def model_folder(tmp_path, tokenizer_folder):
    folder = tmp_path / "my-model"
    tiny_model("gpt2").save_pretrained(folder)
    models.load_tokenizer(tokenizer_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def unreachable_hub(monkeypatch):
    """A hub whose port is closed: the default retries would take 23 seconds."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    for room in (models, corpora):
        monkeypatch.setattr(room, "hf_hub_url", lambda *args, **options: "http://127.0.0.1:9/x")


# ---------------------------------------------------------------- model folders


def test_a_folder_opens_with_its_tokenizer_and_records_itself(model_folder):
    with store.recording() as opened:
        model, tokenizer = linlib.load(str(model_folder), dtype="bfloat16", pad_token="<|eos|>")
    assert model.dtype == torch.bfloat16 and not model.training
    assert tokenizer.pad_token == "<|eos|>"
    assert list(opened["models"]) == ["my-model"]  # no path of the machine
    weights = tiny_model("gpt2", seed=1)
    weights.save_pretrained(model_folder)
    with store.recording() as changed:
        linlib.load(model_folder)
    assert changed["models"]["my-model"] != opened["models"]["my-model"]


def test_a_model_in_the_cache_is_named_by_its_key(tokenizer_folder):
    folder = store.cache_folder() / "train" / "0123abcd"
    tiny_model("gpt2").save_pretrained(folder)
    with store.recording() as opened:
        linlib.load_model(folder)
    assert list(opened["models"]) == ["train/0123abcd"]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3_text"])
def test_a_folder_without_tokenizer_files_is_refused(tmp_path, architecture):
    tiny_model(architecture).save_pretrained(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="has no tokenizer that can be read.*load_tokenizer"
    ):
        linlib.load(tmp_path)


def test_pickled_weights_are_refused_with_a_way_to_convert_them(tmp_path):
    model = tiny_model("gpt2")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    message = r"no weights in safetensors format that can be read.*pickled .*\.save_pretrained\("
    with pytest.raises(FileNotFoundError, match=message):
        linlib.load_model(tmp_path)


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        FileNotFoundError, match=r"no config\.json that can be read.*save_pretrained wrote"
    ):
        linlib.load(tmp_path)


def test_damaged_files_of_a_folder_are_named(model_folder):
    weights = model_folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    message = "my-model' has no weights .* can be read .*incomplete.*; copy damaged files again"
    with pytest.raises(FileNotFoundError, match=message):
        linlib.load_model(model_folder)
    (model_folder / "config.json").write_text("{")
    with pytest.raises(FileNotFoundError, match=r"my-model' has no config\.json that can be read"):
        linlib.load_model(model_folder)


@pytest.mark.parametrize("dtype", ["flot32", "int8", torch.long, "nn"])
def test_an_unknown_dtype_is_named(model_folder, dtype):
    with pytest.raises(ValueError, match="dtype .* must be 'float32', 'bfloat16'"):
        linlib.load(model_folder, dtype=dtype)


# ---------------------------------------------------------------- paths and hub ids


@pytest.mark.parametrize(
    "path",
    ["./x", "~/nowhere/x", "models/x.gguf", "x.gguf", "a/b/c", "mine/opt", "/nowhere/opt"],
)
def test_a_mistyped_path_does_not_go_to_the_hub(path, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "get_hf_file_metadata", None)  # may not be called
    for given in (path, Path(path)):
        with pytest.raises(FileNotFoundError, match="there is no model at the path .*'gpt2'"):
            linlib.load(given)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(
        FileNotFoundError, match=r"no model at the path .*model\.bin; give a folder"
    ):
        linlib.load(tmp_path / "model.bin")


def test_a_hub_model_fails_at_once_where_there_is_no_network(unreachable_hub):
    started = time.monotonic()
    with pytest.raises(
        FileNotFoundError, match="no model 'modls/opt' at revision 'step7'.*HF_TOKEN"
    ):
        linlib.load("modls/opt", "step7")
    with pytest.raises(FileNotFoundError, match="corpus 'Salesforce/wikitext' is not available"):
        corpora.load_corpus("wikitext-2", "train")
    assert time.monotonic() - started < 3


def test_a_name_that_is_no_hub_id_is_refused():
    with pytest.raises(FileNotFoundError, match="no model at the path not an id; .* or a hub id"):
        linlib.load_tokenizer("not an id")


def test_a_hub_model_that_was_downloaded_opens_without_network(
    unreachable_hub, monkeypatch, tmp_path, model_folder
):
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / "models--nobody--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    model_folder.rename(repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    started = time.monotonic()
    with store.recording() as opened:
        model, tokenizer = linlib.load("nobody/tiny")
    assert time.monotonic() - started < 5
    assert opened["models"] == {"nobody/tiny": commit}
    assert len(models.decoder_blocks(model)) == 3 and tokenizer.bos_token == "<|bos|>"
    assert models.commit_of("nobody/tiny") == commit


def test_the_commit_of_main_is_opened_as_main(monkeypatch, model_folder):
    """Only at "main" does transformers find the safetensors that the hub made of a model."""
    commits = {None: "a" * 40, "main": "a" * 40, "v1": "b" * 40}
    monkeypatch.setattr(models, "hf_hub_url", lambda name, file, revision: revision)
    monkeypatch.setattr(
        models,
        "get_hf_file_metadata",
        lambda url: SimpleNamespace(commit_hash=commits.get(url, url)),
    )
    assert models.commit_of("org/name", "v1") == "b" * 40
    assert models.commit_of(model_folder) is None
    opened_at = {
        revision: models._find("org/name", revision)[1]["revision"]
        for revision in (None, "v1", "a" * 40, "b" * 40)
    }
    assert opened_at == {None: "main", "v1": "v1", "a" * 40: "main", "b" * 40: "b" * 40}


# ---------------------------------------------------------------- GGUF files


def write_gguf(path, model, tokenizer, architecture="llama", kind="gpt2", weights="F32"):
    """Write a small Llama with a tokenizer of some kind, as llama.cpp's converter does."""
    config, states = model.config, model.state_dict()
    weights = gguf.GGMLQuantizationType[weights]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = tokenizer.get_vocab()
    names = sorted(vocabulary, key=vocabulary.get)[: config.vocab_size]
    names[-1] = '!"'
    writer.add_tokenizer_model(kind)
    writer.add_token_list(names)
    writer.add_token_types([1] * len(names))
    writer.add_token_merges(['! "'])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)

    def permuted(weight, n_heads):  # rotary halves side by side
        rows, columns = weight.shape
        parts = weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
        return parts.swapaxes(1, 2).reshape(rows, columns)

    parts = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k"}
    parts |= {"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"}
    parts |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    parts |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    writer.add_tensor("token_embd.weight", states["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output.weight", states["lm_head.weight"].numpy())
    writer.add_tensor("output_norm.weight", states["model.norm.weight"].numpy())
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for block in range(config.num_hidden_layers):
        for theirs, ours in parts.items():
            weight = states[f"model.layers.{block}.{theirs}.weight"].numpy()
            weight = np.ascontiguousarray(
                permuted(weight, heads[ours]) if ours in heads else weight
            )
            name, is_quantised = f"blk.{block}.{ours}.weight", weights.name != "F32"
            if is_quantised and weight.ndim == 2 and weight.shape[1] % 32 == 0:
                packed = gguf.quants.quantize(weight, weights)
                writer.add_tensor(name, packed, raw_dtype=weights)
            else:
                writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_file(tmp_path, tokenizer_folder):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model("llama"), models.load_tokenizer(tokenizer_folder))
    return path


def test_a_gguf_file_opens_as_the_model_it_was_written_from(gguf_file):
    with store.recording() as opened:
        model, tokenizer = linlib.load(str(gguf_file))
    assert list(opened["models"]) == ["tiny.gguf"] and "notes" not in opened
    torch.testing.assert_close(logits(model, tokens()), logits(tiny_model("llama"), tokens()))
    assert model.dtype == torch.float32 and tokenizer.bos_token == "<|bos|>"
    made = list((store.cache_folder() / "convert_gguf").glob("*/model.safetensors"))
    linlib.load(gguf_file)
    assert list((store.cache_folder() / "convert_gguf").glob("*/model.safetensors")) == made
    model.save_pretrained(gguf_file.parent / "copy")  # which transformers refuses of a GGUF model
    assert models.commit_of(gguf_file) is None


def test_what_a_gguf_file_was_quantised_to_stays_with_the_model(tmp_path, tokenizer_folder):
    tokenizer = models.load_tokenizer(tokenizer_folder)
    write_gguf(tmp_path / "x.gguf", tiny_model("llama"), tokenizer, weights="Q4_1")
    with store.recording() as opened:
        model = linlib.load_model(tmp_path / "x.gguf")
    weight = tiny_model("llama").model.layers[0].mlp.up_proj.weight.detach().numpy()
    packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q4_1)
    expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
    np.testing.assert_array_equal(model.model.layers[0].mlp.up_proj.weight.detach(), expected)
    # Two of seven matrices per block stay in float32, and so do the embeddings.
    note = "four-bit weights (Q4_1: 67% Q4_1, 33% F32), dequantised to float32"
    assert opened["notes"] == {"x.gguf": note}
    model.save_pretrained(tmp_path / "saved")
    with store.recording() as opened:
        linlib.load_model(tmp_path / "saved")
    assert opened["notes"] == {"saved": note}


def n_blocks(path):
    return len(models.decoder_blocks(linlib.load_model(path)))


def test_notes_of_models_in_other_processes_reach_the_result(tmp_path, tokenizer_folder):
    tokenizer = models.load_tokenizer(tokenizer_folder)
    write_gguf(tmp_path / "x.gguf", tiny_model("llama"), tokenizer, weights="Q4_1")
    write_gguf(tmp_path / "y.gguf", tiny_model("llama"), tokenizer, weights="Q8_0")
    items = [{"path": tmp_path / "x.gguf"}, {"path": tmp_path / "y.gguf"}]

    def measure():
        return pd.DataFrame({"n": [0, 1], "blocks": parallel.side_by_side(n_blocks, items, 2)})

    for _ in range(2):  # the second time all comes from the cache
        store.result("fig0", measure, linlib.load_profile("smoke"), remeasure=True)
        notes = store.load_provenance("fig0", "smoke")["notes"]
        assert [note[:16] for note in notes.values()] == ["four-bit weights", "eight-bit weight"]


def test_a_chat_template_is_noted_as_not_applied(tmp_path, tokenizer_folder):
    tokenizer = models.load_tokenizer(tokenizer_folder)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "chat")
    with store.recording() as opened:
        models.load_tokenizer(tmp_path / "chat")
        models.load_tokenizer(tokenizer_folder)
    (name, note), *others = opened["notes"].items()
    assert name == "tokenizer of chat" and "which is not applied" in note and not others


def test_a_gguf_file_with_an_unknown_kind_of_tokenizer_opens_without(tmp_path, tokenizer_folder):
    tokenizer = models.load_tokenizer(tokenizer_folder)
    write_gguf(tmp_path / "x.gguf", tiny_model("llama"), tokenizer, kind="unheard-of")
    assert len(models.decoder_blocks(linlib.load_model(tmp_path / "x.gguf"))) == 3
    with pytest.raises(FileNotFoundError, match=r"x\.gguf' has no tokenizer that can be read"):
        linlib.load(tmp_path / "x.gguf")


def test_a_file_that_only_bears_the_suffix_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ValueError, match=r"x\.gguf cannot be read as GGUF \(.*not a GGUF file"):
        linlib.load(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.gguf cannot be read as GGUF"):
        linlib.load_tokenizer(tmp_path / "x.gguf")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_a_gguf_file_that_is_cut_off_is_refused(gguf_file, share):
    whole = gguf_file.read_bytes()
    gguf_file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"tiny\.gguf cannot be read as GGUF .*copy it again"):
        linlib.load(gguf_file)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("retnet", r"x\.gguf cannot be read as GGUF \(.*retnet.*use the model's safetensors"),
        ("mamba", r"'mamba' is not in the table linlib\.models\.ARCHITECTURES"),
    ],
)
def test_a_gguf_file_of_another_architecture_is_refused(
    tmp_path, tokenizer_folder, architecture, message
):
    tokenizer = models.load_tokenizer(tokenizer_folder)
    write_gguf(tmp_path / "x.gguf", tiny_model("llama"), tokenizer, architecture)
    with pytest.raises(ValueError, match=message):
        linlib.load(tmp_path / "x.gguf")


# ---------------------------------------------------------------- text

TEXTS = ["The first document.", "The second.", "A third, longer document.", "And the last one."]


def write_text(folder, kind):
    path = folder / f"mine.{kind}"
    rows = [{"text": text, "id": number} for number, text in enumerate(TEXTS)]
    if kind == "txt":
        path.write_text("\n\n".join(TEXTS) + "\n \n\n")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        getattr(Dataset.from_list(rows), f"to_{kind}")(path)
    return path


@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "csv", "parquet"])
def test_text_comes_from_files(tmp_path, kind):
    path = write_text(tmp_path, kind)
    with store.recording() as opened:
        rows = text_dataset(str(path))
    assert rows[:] == {"text": TEXTS}
    assert opened == {"corpora": {f"mine.{kind}": store.identity(rows)}}
    assert text_dataset(path, split="train")["text"] == TEXTS[:3]
    assert text_dataset(path, split="heldout")["text"] == TEXTS[3:]


def test_text_comes_from_lists_and_datasets_with_any_column(tokenizer_folder):
    tokenizer = models.load_tokenizer(tokenizer_folder)
    rows = Dataset.from_dict({"body": [*TEXTS, None, " "], "text": [1] * 6})
    windows = linlib.token_windows(TEXTS, tokenizer, seq_len=8)
    assert torch.equal(linlib.token_windows(rows, tokenizer, seq_len=8, column="body"), windows)
    assert torch.equal(linlib.token_windows(tuple(TEXTS), tokenizer, seq_len=8), windows)
    assert text_dataset(rows, "body", "train")[:] == {"text": TEXTS}  # a dataset is taken whole


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_empty_files_are_refused(tmp_path, kind):
    (tmp_path / f"x.{kind}").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=f"x.{kind} does not exist or is empty"):
        text_dataset(tmp_path / f"x.{kind}")


def test_text_without_a_word_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("\n\n  \n")
    with pytest.raises(ValueError, match=r"x\.txt holds no text"):
        text_dataset(tmp_path / "x.txt")
    with pytest.raises(ValueError, match="the dataset holds no text"):
        text_dataset([])
    with pytest.raises(ValueError, match="the dataset holds no text"):
        text_dataset(Dataset.from_dict({"text": ["", " "]}))


def test_a_missing_column_is_named_with_those_that_exist(tmp_path):
    path = write_text(tmp_path, "jsonl")
    with pytest.raises(
        ValueError, match=r"mine\.jsonl has columns \['text', 'id'\], and no 'body'"
    ):
        text_dataset(path, "body")
    with pytest.raises(ValueError, match=r"the dataset has columns \['body'\], and no 'text'"):
        text_dataset(Dataset.from_dict({"body": TEXTS}))
    with pytest.raises(ValueError, match=r"column 'id' of .*mine\.jsonl does not hold strings"):
        text_dataset(path, "id")


@pytest.mark.parametrize("given", ["nowhere/x.txt", "x.parquet", Path("my texts/x.csv")])
def test_a_text_file_that_does_not_exist_is_named(given):
    with pytest.raises(FileNotFoundError, match=f"the text file {given} does not exist"):
        text_dataset(given)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "x.docx").write_bytes(b"PK")
    for given in (tmp_path, tmp_path / "x.docx", str(tmp_path / "x.docx")):
        with pytest.raises(ValueError, match=r"unknown corpus '/.* path that ends in .*'\.jsonl'"):
            text_dataset(given)
    (tmp_path / "x.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.txt cannot be read as txt: 'utf-8' codec"):
        text_dataset(tmp_path / "x.txt")
    for kind, content in (("jsonl", "{'text': 1}\n"), ("parquet", "no parquet")):
        (tmp_path / f"x.{kind}").write_text(content)
        with pytest.raises(ValueError, match=rf"x\.{kind} cannot be read as {kind}: \w+"):
            text_dataset(tmp_path / f"x.{kind}")


def test_a_file_of_one_document_has_no_two_parts(tmp_path):
    (tmp_path / "x.txt").write_text("One document.")
    assert len(text_dataset(tmp_path / "x.txt")) == 1
    with pytest.raises(ValueError, match=r"x\.txt holds 1 documents, too few .*blank lines"):
        text_dataset(tmp_path / "x.txt", split="train")
    with pytest.raises(ValueError, match="unknown split 'test'; choose from"):
        text_dataset(tmp_path / "x.txt", split="test")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("pydoc", ValueError, r"unknown corpus 'pydoc'.*'pydocs'.*a list of strings"),
        ("Some words/letters.\n" * 500, ValueError, r"unknown corpus 'Some words.{60,90} has \["),
        ({"text": TEXTS}, TypeError, r"or a datasets\.Dataset .*, not a dict$"),
        (
            DatasetDict(train=Dataset.from_dict({"text": TEXTS})),
            TypeError,
            "of a DatasetDict: one of its splits.*not a DatasetDict",
        ),
        (
            IterableDataset.from_generator(lambda: iter([])),
            TypeError,
            r"of a stream: .*take\(1000\).*not a IterableDataset",
        ),
        (["text", 3], TypeError, r"a list of strings .*not a list of \['int', 'str'\]"),
        ([{"text": "x"}], TypeError, r"Dataset\.from_list\(rows\).*not a list of \['dict'\]"),
        (None, TypeError, "not a NoneType"),
    ],
)
def test_what_is_no_text_is_refused(text, error, message, tokenizer_folder):
    with pytest.raises(error, match=message):
        linlib.token_windows(text, models.load_tokenizer(tokenizer_folder))


def test_text_where_token_ids_are_expected_is_refused():
    with pytest.raises(TypeError, match=r"not a list; linlib\.token_windows\(text, tokenizer\)"):
        linlib.residual_stream(tiny_model("gpt2"), TEXTS)
