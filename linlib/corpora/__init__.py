"""Text: named corpora, text of your own, and labelled tasks, as `datasets.Dataset`s.

`text_dataset` takes all of them and `token_windows` turns them into token ids. The progress bars of
`datasets` are switched off when this room is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

import datasets
from datasets import Dataset, interleave_datasets, load_dataset
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError

import storyworld
from linlib import store
from linlib.corpora import continuation, pydocs
from linlib.corpora.tokens import character_windows, token_windows, train_tokenizer

__all__ = [
    "CORPORA",
    "HUB_TASKS",
    "PREFERENCES",
    "character_windows",
    "load_corpus",
    "load_task",
    "text_dataset",
    "token_windows",
    "train_tokenizer",
]

datasets.disable_progress_bars()

SPLITS = ("train", "heldout")
HELD_OUT_PART = 4  # of a file of your own, the last quarter of the documents is held out
PREFERENCES = "reward_modeling"  # the paper's name for training on preference pairs

# Suffix of a file of text -> the format's name in `datasets`.
_FORMATS = {
    ".txt": "text", ".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"
}  # fmt: skip

_HEADING = re.compile(r"\s*= [^=]+ =\s*")  # of an article; " = = History = = " is of a section

# Task -> where the hub has it, and the hub's name for our split "validation".
HUB_TASKS: dict[str, tuple[dict[str, str], str]] = {
    "boolq": ({"path": "aps/super_glue", "name": "boolq"}, "validation"),
    "multirc": ({"path": "aps/super_glue", "name": "multirc"}, "validation"),
    "cb": ({"path": "aps/super_glue", "name": "cb"}, "validation"),
    "storycloze": ({"path": "juletxara/xstory_cloze", "name": "en"}, "eval"),
    PREFERENCES: ({"path": "Anthropic/hh-rlhf", "data_dir": "helpful-base"}, "test"),
}


# ------------------------------------------------------------------------------- named corpora


def _hub(
    path: str, split: str, name: str | None = None, heldout: str = "test", column: str = "text"
) -> Dataset:
    """The texts of a dataset on the hub, which calls our split "heldout" `heldout`."""
    theirs = heldout if split == "heldout" else split
    rows = _load_from_hub(f"corpus '{path}'", path, name=name, split=theirs)
    return _texts(rows, column, f"corpus '{path}'").select_columns("text")


def _wikitext(name: str, split: str) -> Dataset:
    """The articles of a WikiText, whose rows on the hub are lines."""
    theirs = "test" if split == "heldout" else split
    path = "Salesforce/wikitext"
    lines = _load_from_hub(f"corpus '{path}'", path, name=name, split=theirs)
    return Dataset.from_generator(articles, gen_kwargs={"lines": lines})


def articles(lines: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Put the lines of WikiText together to articles, each of which begins with its heading.

    Args:
        lines: rows as on the hub: a line's `text` ends with a line break, a blank line's is empty.
    """
    article: list[str] = []
    for line in lines:
        if _HEADING.fullmatch(line["text"]) and any(map(str.strip, article)):
            yield {"text": "".join(article).strip()}
            article = []
        article.append(line["text"] or "\n")
    if any(map(str.strip, article)):
        yield {"text": "".join(article).strip()}


def _in_turn(*corpora: Dataset) -> Dataset:
    """One text of each corpus in turn, until one of them ends."""
    return interleave_datasets([corpus.select_columns("text") for corpus in corpora])


# Name -> function of the split.
CORPORA: dict[str, Callable[[str], Dataset]] = {
    "pydocs": pydocs.load,
    "storyworld": lambda split: store.cached(storyworld.load, split),
    "pydocs+storyworld": lambda split: _in_turn(pydocs.load(split), CORPORA["storyworld"](split)),
    "wikitext-2": lambda split: _wikitext("wikitext-2-raw-v1", split),
    "wikitext-103": lambda split: _wikitext("wikitext-103-raw-v1", split),
    "tinystories": lambda split: _hub("roneneldan/TinyStories", split, heldout="validation"),
    "tinystories-textbooks": lambda split: _in_turn(
        CORPORA["tinystories"](split),
        _hub("nampdn-ai/tiny-textbooks", split, column="textbook"),
    ),
}


def load_corpus(name: str, split: str) -> Dataset:
    """Load a named corpus as a dataset with a `text` column, one row per document.

    Args:
        name: a key of `CORPORA`.
        split: "train" or "heldout".

    Raises:
        ValueError: an unknown corpus or split.
        FileNotFoundError: a hub corpus that is neither cached nor reachable.
    """
    if name not in CORPORA:
        raise ValueError(
            f"unknown corpus {name[:60]!r}; linlib.corpora.CORPORA has {sorted(CORPORA)}. Text of "
            f"your own is given as a path that ends in {[*_FORMATS]}, or as a list of strings"
        )
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}' of corpus '{name}'; choose from {SPLITS}")
    return _recorded(_load_once(name, split), f"{name} ({split})")


@cache
def _load_once(name: str, split: str) -> Dataset:
    return CORPORA[name](split)


# --------------------------------------------------------------------------- text of your own


def text_dataset(
    text: str | Path | Dataset | list[str], column: str = "text", split: str | None = None
) -> Dataset:
    """Turn text, as you have it, into a dataset with a `text` column, one row per document.

    A column `source` of strings is kept: rows that share it are parts of one document for
    `token_windows`.

    Args:
        text: the name of a corpus; the path of a file, which is .txt (documents are separated by
            blank lines), .jsonl, .json, .csv or .parquet; a dataset; or a list of strings.
        column: where the texts are, in a file or dataset with columns.
        split: "train" or "heldout". None takes the held-out part of a named corpus, and all of a
            file. Of a file, "heldout" takes the last quarter of the documents and "train" the
            others. A dataset or list is always taken whole.

    Raises:
        FileNotFoundError: there is no such file, or a hub corpus is not reachable.
        ValueError: an unknown corpus or split, no text, a missing column, or one without strings.
        TypeError: another type, with a way to turn it into one of these.
    """
    if split not in (None, *SPLITS):
        raise ValueError(f"unknown split '{split}'; choose from {SPLITS}")
    if isinstance(text, str | Path):
        path = Path(text).expanduser()
        if path.suffix not in _FORMATS:
            return load_corpus(str(text), split or "heldout")
        rows, name = _texts(_read_file(path, column), column, str(path)), path.name
        if split is not None:
            rows, name = _part(rows, name, split), f"{name} ({split})"
    elif isinstance(text, Dataset):
        rows, identity = _texts(text, column, "the dataset"), store.identity(text)
        store.record("corpora", _names.get(identity, f"{len(rows)} texts given"), identity)
        return rows
    elif isinstance(text, list | tuple) and all(isinstance(one, str) for one in text):
        features = datasets.Features({"text": datasets.Value("string")})
        given = Dataset.from_dict({"text": list(text)}, features=features)
        return text_dataset(given)
    else:
        items = sorted({type(one).__name__ for one in text}) if isinstance(text, list) else ""
        raise TypeError(
            "text must be the name of a corpus, the path of a file, a list of strings or a "
            "datasets.Dataset (of rows: Dataset.from_list(rows); of a DatasetDict: one of its "
            "splits; of a stream: Dataset.from_list(list(stream.take(1000)))), not a "
            f"{type(text).__name__}{f' of {items}' if items else ''}"
        )
    return _recorded(rows, name)


_names: dict[str, str] = {}  # identity of what was opened by a name -> that name


def _recorded(rows: Dataset, name: str) -> Dataset:
    _names[store.identity(rows)] = name
    store.record("corpora", name, store.identity(rows))
    return rows


def _read_file(path: Path, column: str) -> Dataset:
    if not path.is_file() or path.stat().st_size == 0:
        raise FileNotFoundError(f"the text file {path} does not exist or is empty")
    try:
        if path.suffix == ".txt":
            documents = re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
            return Dataset.from_dict({column: documents})
        return load_dataset(_FORMATS[path.suffix], data_files=str(path), split="train")
    except Exception as error:  # datasets wraps the errors of the libraries that parse
        reason = _first_line(error.__cause__ or error)
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {reason}") from error


def _part(rows: Dataset, name: str, split: str) -> Dataset:
    """The first three quarters of the documents, or the last; what is near is often alike."""
    boundary = len(rows) - len(rows) // HELD_OUT_PART
    if boundary == len(rows):
        raise ValueError(
            f"{name} holds {len(rows)} documents, too few for a train and a heldout part, the last "
            f"1 in {HELD_OUT_PART}; separate documents, in a .txt file by blank lines"
        )
    return rows.select(range(boundary) if split == "train" else range(boundary, len(rows)))


def _texts(rows: Dataset, column: str, name: str) -> Dataset:
    """The column of strings, named `text`, and any `source`, without rows that are blank."""
    if column not in rows.column_names:
        raise ValueError(
            f"{name} has columns {rows.column_names}, and no '{column}'; say which one holds the "
            f"text with column=..."
        )
    if not _holds_strings(rows, column):
        kind = rows.features[column]
        raise ValueError(f"column '{column}' of {name} does not hold strings, but {kind}")
    kept = [column]
    if column != "source" and "source" in rows.column_names and _holds_strings(rows, "source"):
        kept.append("source")
    rows = rows.filter(_have_words, batched=True, input_columns=column).select_columns(kept)
    if len(rows) == 0:
        raise ValueError(f"{name} holds no text")
    return rows if column == "text" else rows.rename_column(column, "text")


def _holds_strings(rows: Dataset, column: str) -> bool:
    return getattr(rows.features[column], "dtype", None) in ("string", "large_string")


def _have_words(texts: list[str | None]) -> list[bool]:
    return [bool(text and text.strip()) for text in texts]


# ---------------------------------------------------------------------------------- labelled tasks


def load_task(source: str, task: str, split: str, n_rows: int | None = None) -> Dataset:
    """Load rows of a labelled task; the columns are the same for all sources.

    Args:
        source: "storyworld", "pydocs", "hub", or a folder that holds one dataset folder per task,
            in any format that `datasets.load_dataset` reads.
        task: of storyworld a key of its `TASKS` or "reward_modeling", of pydocs "continuation", of
            the hub a key of `HUB_TASKS`, of a folder any name; who uses the rows checks their
            columns.
        split: "train" or "validation".
        n_rows: how many; of the hub and of a folder, a fixed random choice. None is all, which
            storyworld, having no end, cannot give.

    Raises:
        ValueError: an unknown task or split, one that a folder lacks, or all of storyworld.
        FileNotFoundError: the hub cannot be reached, or the folder lacks the task.
    """
    rows = _load_task_once(source, task, split, n_rows)
    name = f"{task} of {Path(source).name} ({split}, {len(rows)} rows)"
    store.record("corpora", name, store.identity(rows))
    return rows


@cache
def _load_task_once(source: str, task: str, split: str, n_rows: int | None) -> Dataset:
    if split not in ("train", "validation"):
        raise ValueError(
            f"unknown split '{split}' of task '{task}'; choose from ['train', 'validation']"
        )
    if source == "storyworld":
        if n_rows is None:
            raise ValueError(f"storyworld has no end: say how many rows of '{task}' to make")
        if task == PREFERENCES:
            return storyworld.preference_pairs("train" if split == "train" else "heldout", n_rows)
        _require_known(task, source, storyworld.TASKS)
        return storyworld.TASKS[task](split, n_rows)
    if source == "pydocs":
        _require_known(task, source, ("continuation",))
        return continuation.load(split, n_rows)
    if source == "hub":
        _require_known(task, source, HUB_TASKS)
        where, validation = HUB_TASKS[task]
        name = validation if split == "validation" else split
        rows = _load_from_hub(f"task '{task}'", **where, split=name)
    else:
        path = Path(source).expanduser() / task
        if not path.is_dir():
            raise FileNotFoundError(
                f"there is no folder {path} with rows of task '{task}'; a source of tasks is "
                "'storyworld', 'pydocs', 'hub', or a folder of such folders"
            )
        rows = load_dataset(str(path), split=split)
    if n_rows is None or n_rows >= len(rows):
        return rows
    return rows.shuffle(seed=0).select(range(n_rows))


def _require_known(task: str, source: str, tasks: Collection[str]) -> None:
    if task not in tasks:
        raise ValueError(f"unknown task '{task}' of {source}; choose from {sorted(tasks)}")


# --------------------------------------------------------------------------------------- the hub


def _load_from_hub(what: str, path: str, **options: str | None) -> Dataset:
    before = datasets.config.HF_HUB_OFFLINE
    try:
        # Left to itself, `datasets` tries an unreachable hub for 23 seconds before its own cache.
        try:
            get_hf_file_metadata(hf_hub_url(path, "README.md", repo_type="dataset"))
        except HfHubHTTPError:
            pass  # the hub answers
        except Exception:  # of whichever HTTP client the hub's library uses
            datasets.config.HF_HUB_OFFLINE = True
        return load_dataset(path, **options)
    except (OSError, RuntimeError, ValueError) as error:  # offline, not found, gated
        raise FileNotFoundError(
            f"{what} is not available from the Hugging Face hub ({_first_line(error)}); check the "
            "network, or use pydocs or storyworld, which need none"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
