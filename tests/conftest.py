import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the hub for anything

import pytest  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402

from linlib.corpora import train_tokenizer  # noqa: E402

torch.set_num_threads(2)

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A linear map sends sums to sums and multiples to multiples.",
    "Every block adds its contribution to the residual stream.",
    "Held-out scores tell what was learnt from what was memorised.",
]


@pytest.fixture(scope="session")
def corpus():
    return Dataset.from_dict({"text": [f"{s} Number {i}." for i in range(50) for s in SENTENCES]})


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, corpus, 320)
    return folder
