"""The examples of README.md run as they stand, and its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from linlib import store
from linlib.corpora import load_corpus

README = (Path(__file__).parents[1] / "README.md").read_text()


def example(section):
    """The first block of Python below a heading."""
    return re.search(rf"^## {section}$.*?^```python\n(.*?)^```$", README, re.M | re.S)[1]


@pytest.fixture
def own_text(tmp_path, monkeypatch):
    """A folder with `my_text.txt`; models are converted in the project's own cache, and once."""
    monkeypatch.delenv("LINLIB_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    documents = load_corpus("pydocs", "heldout")["text"][:400]
    (tmp_path / "my_text.txt").write_text("\n\n".join(documents))


def test_your_own_decoder_is_measured_as_the_readme_says(own_text):
    names = {}
    exec(compile(example("Your own decoder"), "README.md", "exec"), names)
    frame, windows = names["frame"], names["windows"]
    assert windows.numel() > frame["d_model"].max() == 576
    assert len(frame) == 30 * 2 and set(frame["tokens"]) == {"all", "no massive"}
    everything = frame[frame["tokens"] == "all"]
    assert everything["linearity_score"].median() > 0.9 > everything["linearity_no_residual"].min()
    assert everything["dominated"].any()  # the sinks of SmolLM2


def test_the_columns_of_the_readme_are_those_of_the_frame():
    from test_models import tiny_model, tokens

    from linlib import linearity_profile

    ids = torch.cat([tokens(seed) for seed in range(8)])
    frame = linearity_profile(tiny_model("llama"), ids)
    table = README.partition("| column | what it says |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.M)
    named = {column for cell in cells for column in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 8 and named <= set(frame.columns)


def test_a_smaller_model_is_kept_as_the_readme_says(own_text):
    names = {}
    exec(compile(example("A smaller model to keep"), "README.md", "exec"), names)
    kept, saved = names["small"], re.search(r'save_pruned\(small, "(.*?)"', README)[1]
    assert f'from_pretrained("{saved}")' in README
    loaded = AutoModelForCausalLM.from_pretrained(saved)  # without linlib
    blocks = names["blocks"]
    assert loaded.config.removed_blocks == sorted(blocks) and 0 not in blocks
    assert len(loaded.model.layers) == 30 - len(blocks)
    ids = names["windows"][:2]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=ids).logits, kept(input_ids=ids).logits, atol=1e-3, rtol=1e-3
        )
        loss = loaded(input_ids=ids, labels=ids).loss
        dense = names["model"](input_ids=ids, labels=ids).loss
    assert abs(loss - dense) < 0.5  # nats per token, on the text that the maps were fitted on


def test_the_links_of_the_readme_lead_somewhere():
    home = Path(__file__).parents[1]
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", prose)
    assert len(targets) > 20
    assert not [target for target in targets if not (home / target).exists()]


def test_the_price_of_other_text_is_that_of_the_committed_measurement(monkeypatch):
    monkeypatch.delenv("LINLIB_ROOT", raising=False)
    frame = store.load_frame("fig6_pruning_first", "laptop").query("n_removed == 4")
    added = frame.set_index(["method", "text"])["added"]
    like, stories = added["replaced", "like the test's"], added["replaced", "stories"]
    expected = f"add {like:.2f} nats per token and maps from stories {stories:.2f}, where removal"
    text = " ".join(README.split())
    assert expected in text and f"removal adds {added['removed', 'none']:.2f}" in text
