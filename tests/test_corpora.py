"""Corpora and what becomes of their text: windows that lose and invent nothing."""

import pytest
import torch
from datasets import Dataset

from linlib.corpora import corpus_sha256, hub, load_corpus, packed_windows, text_windows
from linlib.corpora.pydocs import docstrings, opening_of, prose_paragraphs
from linlib.corpora.pydocs import load as extract_pydocs
from linlib.models import load_tokenizer


@pytest.fixture(scope="module")
def pydocs():
    return {split: load_corpus("pydocs", split) for split in ("train", "heldout")}


def test_pydocs_is_a_large_corpus_of_english_prose(pydocs):
    text = " ".join(pydocs["train"]["text"])
    assert len(text) > 4_000_000
    words = text.lower().split()
    assert 0.04 < words.count("the") / len(words) < 0.12  # as in running English
    assert sum(map(text.count, (">>>", "Parameters\n", "----"))) < 10


def openings(dataset):
    return [opening_of(p) for text in dataset["text"] for p in text.split("\n\n")]


def test_pydocs_splits_share_no_file_and_no_paragraph_opens_like_another(pydocs):
    train, heldout = pydocs["train"], pydocs["heldout"]
    assert not set(train["source"]) & set(heldout["source"])
    assert len(heldout) > 1000
    assert not set(openings(train)) & set(openings(heldout))
    assert len(set(openings(train))) == len(openings(train))


def test_pydocs_extracted_again_from_nothing_is_the_same(pydocs, tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    again = extract_pydocs("heldout")
    assert list((tmp_path / "data" / "cache" / "pydocs").glob("*/text.parquet"))
    assert corpus_sha256(again) == corpus_sha256(pydocs["heldout"])
    assert corpus_sha256(again) != corpus_sha256(pydocs["train"])


def test_prose_is_kept_and_the_rest_of_a_docstring_is_not():
    docstring = """Compute the sum of all the elements along
    an axis of the given array.

    Parameters
    ----------
    a : array_like
        Elements to sum, given in any form that becomes an array of numbers.

    >>> np.sum([1, 2]) gives you the sum of the elements of the list.

    Sums of floats in low precision lose digits when there are many of them.
    """
    assert prose_paragraphs(docstring) == [
        "Compute the sum of all the elements along an axis of the given array.",
        "Sums of floats in low precision lose digits when there are many of them.",
    ]


def test_docstrings_are_told_from_strings_in_code():
    source = 'def f():\n    """First."""\n    x = """not this"""\n\nclass C:\n    r"""Second."""\n'
    assert list(docstrings(source)) == ["First.", "Second."]


def test_the_tokenizer_round_trips_any_text(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    text = "Größe: 3 µm\n\ttab — and the quick brown fox 🦊"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.pad_token != tokenizer.eos_token != tokenizer.bos_token


def test_packed_windows_hold_the_corpus_in_order(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    windows = packed_windows(corpus, tokenizer, 32)
    assert (windows[:, 0] == tokenizer.bos_token_id).all()
    joined = windows[:, 1:].flatten().tolist()
    expected = []
    for text in corpus["text"]:
        expected += [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
    assert joined == expected[: len(joined)]
    assert len(expected) - len(joined) < 31
    assert (packed_windows(corpus, tokenizer, 32, 5) == windows[:5]).all()


def test_text_windows_are_the_official_ones(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    input_ids, mask = text_windows(corpus, tokenizer, n_windows=4, n_characters=512)
    texts = [tokenizer.decode(row[m.bool()]) for row, m in zip(input_ids, mask, strict=True)]
    assert [len(text) for text in texts] == [512] * 4
    assert "\n\n".join(corpus["text"]).startswith("".join(texts))
    assert (input_ids[mask == 0] == tokenizer.pad_token_id).all()


# ---------------------------------------------------------------- bad input


def test_a_corpus_shorter_than_asked_is_refused(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    with pytest.raises(ValueError, match=r"shorter than asked: \d+ tokens .* 10000 were asked"):
        packed_windows(corpus, tokenizer, 32, 10_000)
    with pytest.raises(ValueError, match=r"shorter than asked: .* of 512, and 1000 were asked"):
        text_windows(corpus, tokenizer, 1000)
    with pytest.raises(ValueError, match="shorter than asked"):
        packed_windows(Dataset.from_dict({"text": ["word"]}), tokenizer, 32)


@pytest.mark.parametrize("role", ["bos", "pad"])
def test_a_tokenizer_without_the_token_needed_is_refused(corpus, tokenizer_folder, role):
    tokenizer = load_tokenizer(tokenizer_folder)
    setattr(tokenizer, f"{role}_token", None)
    message = rf"has no {role} token.*load_tokenizer\(\.\.\., {role}_token='<\|eos\|>'\)"
    with pytest.raises(ValueError, match=message):
        packed_windows(corpus, tokenizer, 8) if role == "bos" else text_windows(corpus, tokenizer)


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match="unknown corpus 'pydoc'.*'pydocs'"):
        load_corpus("pydoc", "train")
    with pytest.raises(ValueError, match=r"unknown split 'test'.*'train', 'heldout'"):
        load_corpus("pydocs", "test")
    with pytest.raises(FileNotFoundError, match="'Salesforce/wikitext' could not be had"):
        load_corpus("wikitext-2", "heldout")


def test_windows_stop_where_they_are_told_to(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    everything = packed_windows(corpus, tokenizer, 16)
    some = packed_windows(corpus, tokenizer, 16, at_most=7)
    assert torch.equal(some, everything[:7])
    assert torch.equal(packed_windows(corpus, tokenizer, 16, at_most=10**6), everything)


def test_a_hub_corpus_may_keep_its_texts_in_another_column(monkeypatch):
    rows = Dataset.from_dict({"textbook": ["One lesson.", " ", "Two."], "source": ["a", "b", "c"]})
    monkeypatch.setattr(hub, "load_dataset", lambda *args, **options: rows)
    load = hub.loader("some/books", None, {"train": "train"}, column="textbook")
    assert load("train")[:] == {"text": ["One lesson.", "Two."]}
    with pytest.raises(ValueError, match=r"'some/books' has columns \['textbook', 'source'\]"):
        hub.loader("some/books", None, {"train": "train"})("train")


def test_corpora_are_read_in_turn_until_one_ends():
    stories = Dataset.from_dict({"text": ["s1", "s2", "s3"]})
    lessons = Dataset.from_dict({"text": ["l1", "l2"]})
    both = hub.in_turn(lambda split: stories, lambda split: lessons)("train")
    assert both["text"][:4] == ["s1", "l1", "s2", "l2"]
    assert set(both["text"]) <= {"s1", "l1", "s2", "l2", "s3"}
