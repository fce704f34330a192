"""Corpora and what becomes of their text: windows that lose and invent nothing."""

import pytest
import torch
from datasets import Dataset

from linlib import corpora, store
from linlib.corpora import (
    character_windows,
    load_corpus,
    load_task,
    token_windows,
)
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


def test_any_beginning_of_pydocs_samples_all_files(pydocs):
    for rows in pydocs.values():
        n_files = len(set(rows["source"]))
        assert len(set(rows["source"][:n_files])) == n_files  # one text of each, then another
        packages = [source.split("/")[0] for source in rows["source"]]
        assert len(set(packages[:100])) >= len(set(packages)) / 2


def test_pydocs_extracted_again_from_nothing_is_the_same(pydocs, tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    again = extract_pydocs("heldout")
    assert list((tmp_path / "data" / "cache" / "pydocs_text").glob("*/value.parquet"))
    assert store.identity(again) == store.identity(pydocs["heldout"])
    assert store.identity(again) != store.identity(pydocs["train"])


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


def test_docstrings_are_distinguished_from_strings_in_code():
    source = 'def f():\n    """First."""\n    x = """not this"""\n\nclass C:\n    r"""Second."""\n'
    assert list(docstrings(source)) == ["First.", "Second."]


def test_the_tokenizer_round_trips_any_text(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    text = "Größe: 3 µm\n\ttab — and the quick brown fox 🦊"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.pad_token != tokenizer.eos_token != tokenizer.bos_token


def test_token_windows_hold_the_corpus_in_order(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    windows = token_windows(corpus, tokenizer, seq_len=32)
    assert (windows[:, 0] == tokenizer.bos_token_id).all()
    joined = windows[:, 1:].flatten().tolist()
    expected = []
    for text in corpus["text"]:
        expected += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert joined == expected[: len(joined)]
    assert len(expected) - len(joined) < 31
    assert (token_windows(corpus, tokenizer, seq_len=32, n_windows=5) == windows[:5]).all()


def after_bos(tokenizer, texts, **options):
    """The tokens of all windows but their bos tokens, which are checked, in a row."""
    windows = token_windows(texts, tokenizer, seq_len=9, **options)
    assert (windows[:, 0] == tokenizer.bos_token_id).all()
    return windows[:, 1:].flatten().tolist()


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_special_token_named_in_a_text_is_text(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    text = "Chats begin with <|bos|>, and <|eos|> ends them. So much on special tokens."
    joined = after_bos(tokenizer, [text])
    assert not set(joined) & set(tokenizer.all_special_ids)
    assert text.startswith(tokenizer.decode(joined)) and "<|eos|>" in tokenizer.decode(joined)
    assert tokenizer.bos_token_id in ids_of(tokenizer, text)  # and the tokenizer is as it was


@pytest.mark.parametrize("separator", ["\n\n", " -- ", "<|eos|>", "<|pad|><|pad|>", ""])
def test_documents_are_joined_by_the_separator_given(tokenizer_folder, separator):
    tokenizer = load_tokenizer(tokenizer_folder)
    joined = after_bos(tokenizer, ["The quick fox.", "A lazy dog."] * 9, separator=separator)
    documents = [ids_of(tokenizer, text) for text in ("The quick fox.", "A lazy dog.")]
    between = ids_of(tokenizer, separator)
    expected = [*documents[0], *between, *documents[1], *between] * 9
    assert joined == expected[: len(joined)]


def test_the_separator_of_training_is_eos_and_of_a_chat_model_a_blank_line(tokenizer_folder):
    texts = ["The quick fox.", "A lazy dog."] * 9
    tokenizer = load_tokenizer(tokenizer_folder)
    assert tokenizer.eos_token_id in after_bos(tokenizer, texts)
    blank = after_bos(tokenizer, texts, separator="\n\n")
    tokenizer.chat_template = "{{ messages }}"
    assert after_bos(tokenizer, texts) == blank
    tokenizer.chat_template, tokenizer.eos_token = None, None
    assert after_bos(tokenizer, texts) == blank
    # As with GPT-2: one token begins texts and ends them.
    tokenizer.eos_token = tokenizer.bos_token
    assert after_bos(tokenizer, texts).count(tokenizer.bos_token_id) > 5


def test_each_token_has_its_document(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    texts = ["The quick fox.", "A lazy dog.", "Every block of it.", "A map."]
    windows, documents = token_windows(
        texts, tokenizer, seq_len=5, separator=" - ", return_documents=True
    )
    assert torch.equal(windows, token_windows(texts, tokenizer, seq_len=5, separator=" - "))
    assert documents.shape == windows.shape and documents.dtype == torch.long
    assert torch.equal(documents[:, 0], documents[:, 1])  # a bos token is of the next one
    for number, text in enumerate(texts[:-1]):
        tokens = windows[:, 1:][documents[:, 1:] == number]
        assert tokenizer.decode(tokens) == f"{text} - "
    assert documents.flatten().unique().tolist() == [0, 1, 2, 3]


def test_texts_of_one_source_are_one_document_for_folds(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = {"text": ["One two three."] * 6, "source": ["a", "b", "a", None, None, "b"]}
    _, documents = token_windows(
        Dataset.from_dict(rows), tokenizer, seq_len=4, return_documents=True
    )
    runs = torch.unique_consecutive(documents[:, 1:].flatten()).tolist()
    assert runs == [0, 1, 0, 2, 3, 1]
    numbered = {"text": ["One two three."] * 6, "source": [1, 1, 2, 2, 3, 3]}  # no names
    _, documents = token_windows(
        Dataset.from_dict(numbered), tokenizer, seq_len=4, return_documents=True
    )
    assert documents.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_character_windows_are_the_official_ones(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    input_ids, mask = character_windows(corpus, tokenizer, n_windows=4, n_characters=512)
    texts = [tokenizer.decode(row[m.bool()]) for row, m in zip(input_ids, mask, strict=True)]
    assert [len(text) for text in texts] == [512] * 4
    assert "\n\n".join(corpus["text"]).startswith("".join(texts))
    assert (input_ids[mask == 0] == tokenizer.pad_token_id).all()


# ---------------------------------------------------------------- bad input


def test_text_that_is_too_short_is_refused(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    with pytest.raises(
        ValueError, match=r"shorter than requested: \d+ tokens .* 10000 were requested"
    ):
        token_windows(corpus, tokenizer, seq_len=32, n_windows=10_000)
    with pytest.raises(
        ValueError, match=r"shorter than requested: .* of 512, and 1000 were requested"
    ):
        character_windows(corpus, tokenizer, 1000)
    with pytest.raises(ValueError, match="shorter than requested"):
        token_windows(["word"], tokenizer, seq_len=32)


@pytest.mark.parametrize("size", [{"seq_len": 1}, {"n_windows": 0}])
def test_windows_of_no_size_are_refused(corpus, tokenizer_folder, size):
    with pytest.raises(ValueError, match="at least 2 tokens and there is at least 1 of them"):
        token_windows(corpus, load_tokenizer(tokenizer_folder), **size)


@pytest.mark.parametrize("role", ["bos", "pad"])
def test_a_tokenizer_without_the_token_needed_is_refused(corpus, tokenizer_folder, role):
    tokenizer = load_tokenizer(tokenizer_folder)
    setattr(tokenizer, f"{role}_token", None)
    message = rf"has no {role} token.*load_tokenizer\(\.\.\., {role}_token='<\|eos\|>'\)"
    with pytest.raises(ValueError, match=message):
        windows = token_windows if role == "bos" else character_windows
        windows(corpus, tokenizer)


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match="unknown corpus 'pydoc'.*'pydocs'"):
        load_corpus("pydoc", "train")
    with pytest.raises(ValueError, match=r"unknown split 'test'.*'train', 'heldout'"):
        load_corpus("pydocs", "test")
    with pytest.raises(FileNotFoundError, match="'Salesforce/wikitext' is not available"):
        load_corpus("wikitext-2", "heldout")


def test_windows_stop_at_the_number_given(corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    everything = token_windows(corpus, tokenizer, seq_len=16)
    some = token_windows(corpus, tokenizer, seq_len=16, at_most=7)
    assert torch.equal(some, everything[:7])
    assert torch.equal(token_windows(corpus, tokenizer, seq_len=16, at_most=10**6), everything)


def test_a_hub_corpus_may_keep_its_texts_in_another_column(monkeypatch):
    rows = Dataset.from_dict({"textbook": ["One lesson.", " ", "Two."], "source": ["a", "b", "c"]})
    monkeypatch.setattr(corpora, "load_dataset", lambda *args, **options: rows)
    texts = corpora._hub("some/books", "train", column="textbook")
    assert texts[:] == {"text": ["One lesson.", "Two."]}
    with pytest.raises(ValueError, match=r"'some/books' has columns \['textbook', 'source'\]"):
        corpora._hub("some/books", "train")


# Rows as `load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1")` gives them: lines.
WIKITEXT = [
    "", " = Robert Boulter = \n", "", " Robert Boulter is an English actor . \n",
    " He had a role in the 2000s = in the series . \n", "", " = = Career = = \n", "",
    " = = = 2000 – 2005 = = = \n", "", " In 2000 Boulter had a guest role . \n", "", "",
    " = Du Fu ( poet ) = \n", "", " Du Fu was a prominent Chinese poet . \n", "",
]  # fmt: skip


def test_lines_of_wikitext_are_put_together_to_articles(monkeypatch, tmp_path, tokenizer_folder):
    asked = []

    def load(path, **options):
        asked.append((path, options["name"], options["split"]))
        return Dataset.from_dict({"text": WIKITEXT})

    monkeypatch.setattr(corpora, "load_dataset", load)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    corpus = corpora.CORPORA["wikitext-2"]("heldout")
    assert corpora.CORPORA["wikitext-103"]("train")[:] == corpus[:]
    assert asked == [
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "test"),
        ("Salesforce/wikitext", "wikitext-103-raw-v1", "train"),
    ]
    assert corpus.column_names == ["text"]
    boulter, du_fu = corpus["text"]
    assert boulter.startswith("= Robert Boulter = \n\n Robert Boulter is an English actor . \n He")
    assert boulter.endswith("= = = 2000 – 2005 = = = \n\n In 2000 Boulter had a guest role .")
    assert du_fu == "= Du Fu ( poet ) = \n\n Du Fu was a prominent Chinese poet ."
    tokenizer = load_tokenizer(tokenizer_folder)
    windows, documents = token_windows(corpus, tokenizer, seq_len=16, return_documents=True)
    assert (windows == tokenizer.eos_token_id).sum() == 1 and documents.max() == 1


def test_lines_before_the_first_heading_are_an_article():
    lines = [{"text": text} for text in [" A line . \n", "", *WIKITEXT]]
    assert [row["text"][:9] for row in corpora.articles(lines)] == [
        "A line .", "= Robert ", "= Du Fu ("
    ]  # fmt: skip
    assert list(corpora.articles([{"text": ""}] * 3)) == []


def test_corpora_are_read_in_turn_until_one_ends():
    stories = Dataset.from_dict({"text": ["s1", "s2", "s3"]})
    lessons = Dataset.from_dict({"text": ["l1", "l2"]})
    both = corpora._in_turn(stories, lessons)
    assert both["text"][:4] == ["s1", "l1", "s2", "l2"]
    assert set(both["text"]) <= {"s1", "l1", "s2", "l2", "s3"}


def test_a_corpus_records_itself_in_the_provenance(monkeypatch, corpus):
    monkeypatch.setitem(corpora.CORPORA, "fables", lambda split: corpus)
    for _ in range(2):  # the second time it is not read again
        with store.recording() as opened:
            assert load_corpus("fables", "heldout") is corpus
        assert opened == {"corpora": {"fables (heldout)": store.identity(corpus)}}


# ---------------------------------------------------------------- labelled tasks


def test_tasks_come_from_storyworld_or_from_a_folder(tmp_path):
    rows = load_task("storyworld", "boolq", "train", 12)
    (tmp_path / "boolq").mkdir()
    rows.to_parquet(tmp_path / "boolq" / "train.parquet")
    rows.select(range(4)).to_parquet(tmp_path / "boolq" / "validation.parquet")
    assert load_task(str(tmp_path), "boolq", "train")[:] == rows[:]
    some = load_task(str(tmp_path), "boolq", "train", 5)
    assert len(some) == 5 and set(some["idx"]) < set(rows["idx"])
    with store.recording() as opened:
        assert len(load_task(str(tmp_path), "boolq", "validation", 9)) == 4
    assert list(opened["corpora"]) == [f"boolq of {tmp_path.name} (validation, 4 rows)"]


def test_a_folder_supplies_any_task_by_its_name(tmp_path):
    rows = load_task("storyworld", "copa", "validation", 4)
    (tmp_path / "copa").mkdir()
    rows.to_parquet(tmp_path / "copa" / "validation.parquet")
    assert load_task(str(tmp_path), "copa", "validation")[:] == rows[:]


def test_preference_pairs_are_a_task_and_its_splits_differ():
    pairs = {
        split: load_task("storyworld", corpora.PREFERENCES, split, 6)
        for split in ("train", "validation")
    }
    assert all(rows.column_names == ["chosen", "rejected"] for rows in pairs.values())
    assert not set(pairs["train"]["chosen"]) & set(pairs["validation"]["chosen"])


def test_a_folder_must_have_the_split(tmp_path):
    rows = load_task("storyworld", "cb", "train", 4)
    (tmp_path / "cb").mkdir()
    rows.to_parquet(tmp_path / "cb" / "train.parquet")
    with pytest.raises(ValueError, match=r'Unknown split "validation".*\[.train.\]'):
        load_task(str(tmp_path), "cb", "validation")


def test_unknown_tasks_splits_and_sources_are_named():
    with pytest.raises(ValueError, match="unknown task 'squad' of storyworld; choose from"):
        load_task("storyworld", "squad", "train", 4)
    with pytest.raises(ValueError, match="unknown task 'rte' of hub; choose from"):
        load_task("hub", "rte", "train", 4)
    with pytest.raises(ValueError, match="unknown split 'test' of task 'cb'"):
        load_task("storyworld", "cb", "test", 4)
    with pytest.raises(ValueError, match="storyworld has no end: say how many rows of 'cb'"):
        load_task("storyworld", "cb", "train")
    with pytest.raises(
        FileNotFoundError, match="no folder .*boolq with rows of task 'boolq'; a source"
    ):
        load_task("/nowhere", "boolq", "train")
    with pytest.raises(FileNotFoundError, match="task 'boolq' is not available from the Hugging"):
        load_task("hub", "boolq", "train")
