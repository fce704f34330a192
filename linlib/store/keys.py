"""Keys: what makes two calls the same, namely the content of their arguments and their code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

import pandas as pd

from linlib.store.provenance import REPOSITORY, cache_folder

# Rooms that move data and decide no number; they are left out of the digest of code.
PLUMBING = (["store"], ["parallel"], ["profiles"])
_NAMES_ONLY = ("transformers_version", "_name_or_path")  # of a config: they decide no number
_digests: WeakKeyDictionary = WeakKeyDictionary()  # of datasets, which do not change


def identity(value: object) -> object:
    """A JSON value that is the same for the same content, and for no other.

    Folders are known by their content: those in the cache by the digest that was taken when they
    were completed, so that what is made again the same makes nothing else anew. Settings stay
    readable, so that provenance can show them.

    Raises:
        TypeError: nothing is known about how to identify such a value.
        FileNotFoundError: a path to nothing.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return _identity_of_path(value)
    if isinstance(value, Mapping):
        return {str(name): identity(one) for name, one in value.items()}
    if isinstance(value, set | frozenset):
        return identity(sorted(value))
    if isinstance(value, list | tuple | range):
        return [identity(one) for one in value]
    if is_dataclass(value):
        return {field.name: identity(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, pd.DataFrame):
        return sha256(value.to_json(orient="split", double_precision=15).encode())
    if hasattr(value, "data_ptr"):
        return _identity_of_tensor(value)
    if hasattr(value, "column_names"):  # a Dataset
        if value not in _digests:
            digest = hashlib.sha256()
            for batch in value.with_format(None).iter(batch_size=10_000):
                digest.update(json.dumps(batch, sort_keys=True, default=str).encode())
            _digests[value] = digest.hexdigest()
        return _digests[value]
    if hasattr(value, "state_dict"):
        return _identity_of_model(value)
    if hasattr(value, "backend_tokenizer"):
        special = {name: str(token) for name, token in value.special_tokens_map.items()}
        content = json.loads(value.backend_tokenizer.to_str())
        content |= {"padding": None, "truncation": None}  # left over from the last call
        return [sha256(json.dumps(content, sort_keys=True).encode()), special]
    if hasattr(value, "to_diff_dict"):  # a model's config
        return {k: v for k, v in value.to_diff_dict().items() if k not in _NAMES_ONLY}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # of NumPy or pandas
        return identity(value.tolist())
    if str(value).startswith("torch."):  # a dtype
        return str(value)
    raise TypeError(
        f"a {type(value).__name__} cannot be part of a key in the store; pass its content as JSON "
        "values, tensors, frames, datasets, models or folders"
    )


def _identity_of_path(path: Path) -> str:
    place, home = path.resolve(), cache_folder().resolve()
    if not place.is_relative_to(home):
        return digest_of_files(path)
    function, *inside = place.relative_to(home).parts
    description = home / function / "/".join(inside[:1]) / "artefact.json"
    if not description.exists():  # put there by somebody else
        return digest_of_files(path)
    return "/".join([function, json.loads(description.read_text())["content"], *inside[1:]])


def digest_of_files(path: Path) -> str:
    """Digest of a file, or of the files of a folder with their names; logs do not count.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    digest, home = hashlib.sha256(), path if path.is_dir() else path.parent
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        # Logs of TensorBoard and the description of an artefact are not its content.
        if file.is_file() and not file.name.startswith(("events.out.", "artefact.json")):
            digest.update(file.relative_to(home).as_posix().encode())
            state = file.stat()
            digest.update(_digest_of_file(file, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()[:16]


@cache
def _digest_of_file(file: Path, size: int, changed_at: int) -> bytes:
    """Digest of a file, read once as long as its size and time of change stay the same."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _identity_of_tensor(tensor: object) -> list[object]:
    import torch

    data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return [str(tensor.dtype), list(tensor.shape), sha256(data)]


def _identity_of_model(model: object) -> dict[str, object]:
    seen: dict[int, list[object]] = {}  # tied weights are read once
    weights = []
    for name, tensor in model.state_dict().items():
        place = tensor.data_ptr()
        if place not in seen or seen[place][1] != list(tensor.shape):
            seen[place] = _identity_of_tensor(tensor)
        weights.append([name, seen[place]])
    return {
        "class": type(model).__name__,
        "config": identity(getattr(model, "config", None)),
        "attention": getattr(getattr(model, "config", None), "_attn_implementation", None),
        "device": next((tensor.device.type for tensor in model.parameters()), "cpu"),
        "training": model.training,
        "weights": sha256(json.dumps(weights).encode()),
    }


def code_digest(function: Callable) -> str:
    """Digest of the code that a function runs: its definition, and those of this project it names.

    Definitions are followed through imports, from function to function, class and constant.
    Docstrings, comments and layout do not count, and neither does the plumbing that moves data. Of
    a function that was defined in a notebook, its own source counts, with the values and functions
    that it finds in the notebook. The code is that of the moment when this module was imported.

    Raises:
        ValueError: the function is not defined at the top level of its module.
    """
    module, name = function.__module__, function.__qualname__.partition(".")[0]
    if not _is_ours(module):
        source = ast.dump(_tree(textwrap.dedent(inspect.getsource(function))))
        found = inspect.getclosurevars(function)
        used = {**found.nonlocals, **found.globals}
        parts = {name: _identity_of_global(one) for name, one in sorted(used.items())}
        return sha256(json.dumps([source, parts]).encode())[:16]
    if not (reached := _reached(module, name)):
        raise ValueError(f"{name_of(function)} is not defined at the top level of its module")
    return sha256("".join(sorted(reached.values())).encode())[:16]


def _identity_of_global(value: object) -> object:
    """Identity of what a notebook's function finds outside itself: code by its digest."""
    if inspect.ismodule(value):
        return value.__name__
    if callable(value) and hasattr(value, "__module__"):
        ours = _is_ours(value.__module__ or "") or value.__module__ == "__main__"
        return code_digest(value) if ours else name_of(value)
    return identity(value)


@cache
def _reached(module: str, name: str) -> dict[tuple[str, str], str]:
    """Every definition that one needs, directly or not: (module, name) -> its syntax tree."""
    found: dict[tuple[str, str], str] = {}
    left = [(module, name)]
    while left:
        for place in _resolved(*left.pop()):
            if place not in found:
                definition, used = _module(place[0])[0][place[1]]
                found[place] = f"{place} {definition}"
                left += [(place[0], one) for one in used]
    return found


def _resolved(module: str, name: str) -> list[tuple[str, str]]:
    """The definitions behind a name that is used in a module, such as "f" or "measure.profile"."""
    if not _is_ours(module) or module.split(".")[1:2] in PLUMBING or not _source_of(module):
        return []
    definitions, imports = _module(module)
    first, _, rest = name.partition(".")
    if first in definitions:
        return [(module, first)]
    if first in imports:
        origin, original = imports[first]
        inside = f"{origin}.{original}" if original else origin
        if _source_of(inside):  # a module: what follows the dot is a name in it
            return _resolved(inside, rest.partition(".")[0]) if rest else []
        return _resolved(origin, original) if original else []
    if _source_of(module).name == "__init__.py":  # a package that imports its names lazily
        files = sorted(_source_of(module).parent.glob("[!_]*.py"))
        inside = [f"{module}.{file.stem}" for file in files]
        return [(one, first) for one in inside if first in _module(one)[0]]
    return []


Definitions = dict[str, tuple[str, set[str]]]


@cache
def _module(module: str) -> tuple[Definitions, dict[str, tuple[str, str | None]]]:
    """What a module defines (name -> syntax tree, names used), and what it imports.

    Imports are name -> (module, name in it, or None for the module itself).
    """
    tree = _tree(_sources()[_source_of(module)])
    imports: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imports |= {one.asname or one.name: (node.module or "", one.name) for one in node.names}
        elif isinstance(node, ast.Import):
            imports |= {one.asname or one.name: (one.name, None) for one in node.names}
    definitions: Definitions = {}
    for node in _statements(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in _names_in(target)]
        else:
            continue
        definitions |= {name: (ast.dump(node), _names_in(node)) for name in names}
    return definitions, imports


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements at the top level, those below an `if`, `try` or `with` among them."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            inner = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            inner += [handler.body for handler in getattr(node, "handlers", [])]
            yield from _statements([one for part in inner for one in part])


def _names_in(node: ast.AST) -> set[str]:
    """Names used below a node, and attributes of names as "name.attribute"."""
    names = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            names.add(one.id)
        elif isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name):
            names.add(f"{one.value.id}.{one.attr}")
    return names


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("linlib", "storyworld")


def _source_of(module: str) -> Path | None:
    """The file of a module of the project; None for a name that a module exports."""
    base = REPOSITORY.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path in _sources()), None)


@cache
def _sources() -> dict[Path, str]:
    """All code of the project, read once: what is edited later is not what runs."""
    folders = (REPOSITORY / "linlib", REPOSITORY / "storyworld")
    return {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}


_sources()


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


def _tree(source: str) -> ast.Module:
    """The syntax tree of some code without its docstrings."""
    return _WithoutDocstrings().visit(ast.parse(source))


def name_of(thing: Callable) -> str:
    """Module and name of a function or class."""
    return f"{thing.__module__}.{thing.__qualname__}"


def sha256(data: bytes) -> str:
    """Hexadecimal digest of some bytes."""
    return hashlib.sha256(data).hexdigest()
