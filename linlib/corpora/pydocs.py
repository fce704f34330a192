"""`pydocs`: real English without a download, from the docstrings of the pinned packages.

The packages below are in every environment that runs linlib, at versions that the lock file pins,
so one lock file gives one corpus. Only prose paragraphs are kept: no code, no parameter lists.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import Dataset
from tqdm.auto import tqdm

from linlib import store

PACKAGES = (
    "IPython", "accelerate", "datasets", "filelock", "fsspec", "huggingface_hub", "joblib",
    "jupyter_client", "jupytext", "matplotlib", "nbclient", "networkx", "numpy", "pandas",
    "papermill", "pyarrow", "scipy", "seaborn", "sklearn", "sympy", "torch", "tornado", "tqdm",
    "transformers",
)  # fmt: skip
HELD_OUT_SHARE = 16  # one source file in 16 is held out
MIN_WORDS = 8
OPENING_WORDS = 8  # paragraphs that open alike are near-copies, of which the first is kept

_SENTENCE = re.compile(r"[A-Z].*[.!?]", re.DOTALL)
_MARKUP = re.compile(r"^\s*(>>>|\.\.\s|\.\.\.\s|\||:\w+|@|#|[-=~^*+]{3})", re.MULTILINE)
_TESTS = re.compile(r"/(tests?|testing)/|/test_[^/]*$")
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


def load(split: str) -> Dataset:
    """Return one split, columns `text` and `source`; extracted once, in a few seconds."""
    listing = "\n".join(f"{name} {path.stat().st_size}" for name, path in source_files())
    sources = hashlib.sha256(listing.encode()).hexdigest()
    return store.cached(pydocs_text, split, sources)


def pydocs_text(split: str, sources: str) -> Dataset:
    """Extract one split; no held-out paragraph opens like one of training.

    Texts of all files come in turn (`_in_rounds`): the beginning of a split, of any length, samples
    all packages.

    Args:
        split: "train" or "heldout".
        sources: digest of the names and sizes of all files, which makes other versions of the
            packages another corpus.
    """
    parts = {"heldout": [], "train": []}
    for name, path in source_files():
        held_out = _digest(name)[0] % HELD_OUT_SHARE == 0
        parts["heldout" if held_out else "train"].append((name, path))
    seen: set[str] = set()
    documents = {part: list(_documents(files, seen)) for part, files in parts.items()}
    return Dataset.from_list(_in_rounds(documents[split]))


def _in_rounds(documents: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """One text of each file, then another of each, in an order without meaning (that of digests).

    Some files hold a thousand times the text of others: one after the other, the largest would be
    most of the text that is read.
    """
    of_file: dict[str, list[dict[str, str]]] = defaultdict(list)
    for document in documents:
        of_file[document["source"]].append(document)
    rounds = []
    for source, texts in of_file.items():
        texts.sort(key=lambda document: _digest(document["text"]))
        rounds += [(place, _digest(source), text) for place, text in enumerate(texts)]
    return [text for *_, text in sorted(rounds, key=lambda one: one[:2])]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def source_files() -> list[tuple[str, Path]]:
    """Return all files of the packages but their tests: (package/name, path), sorted by name."""
    files = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(
                f"the pydocs corpus needs package '{package}', which is not installed; install "
                "the pinned environment with `make env`"
            )
        root = Path(spec.submodule_search_locations[0])
        named = (
            (f"{package}/{path.relative_to(root).as_posix()}", path) for path in root.rglob("*.py")
        )
        files += [(name, path) for name, path in named if not _TESTS.search(name)]
    return sorted(files)


def _documents(files: list[tuple[str, Path]], seen: set[str]) -> Iterator[dict[str, str]]:
    """One document per docstring, without paragraphs whose opening was seen before."""
    for name, path in tqdm(files, "pydocs: reading", unit="file"):
        for docstring in docstrings(path.read_text(encoding="utf-8", errors="replace")):
            new = []
            for paragraph in prose_paragraphs(docstring):
                if (opening := opening_of(paragraph)) not in seen:
                    seen.add(opening)
                    new.append(paragraph)
            if new:
                yield {"text": "\n\n".join(new), "source": name}


def opening_of(paragraph: str) -> str:
    """The first words of a paragraph; near-copies share them."""
    return " ".join(_WORD.findall(paragraph.lower())[:OPENING_WORDS])


def docstrings(source: str) -> Iterator[str]:
    """Triple-quoted strings that begin a line of a Python file.

    Splitting at the quotes is far faster than parsing the syntax tree and finds nearly the same
    prose; the code that it may catch as well is not prose, and is filtered out later.
    """
    parts = source.split('"""')
    for before, string in zip(parts[0::2], parts[1::2], strict=False):
        if before.rpartition("\n")[2].strip() in ("", "r", "R"):
            yield string


def prose_paragraphs(docstring: str) -> list[str]:
    """Paragraphs of running English text, each on one line."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if block.startswith((" ", "\t")) or _MARKUP.search(block):
            continue
        lines = block.split("\n")
        if any(line.startswith(("    ", "- ", "* ")) for line in lines):
            continue  # a parameter's description, or a list
        text = " ".join(line.strip() for line in lines)
        words = _WORD.findall(text)
        letters = sum(map(len, words)) + text.count(" ")
        if len(words) >= MIN_WORDS and letters > 0.85 * len(text) and _SENTENCE.fullmatch(text):
            paragraphs.append(text)
    return paragraphs
