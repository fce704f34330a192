"""The measurements of notebooks 05, 11 and 12, as their cells stand, on two small Mistrals."""

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jupytext
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import AutoModelForCausalLM, MistralConfig

import linlib
import storyworld
from linlib import corpora, store, training
from linlib.evaluate import harness
from linlib.evaluate.harness import TABLE_2
from linlib.evaluate.judge import SCORES
from linlib.models import load_tokenizer

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TRUTH = "true ending"


@pytest.fixture(scope="module", autouse=True)
def own_store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINLIB_ROOT", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain and a cosine model of random weights, with checkpoints of other random weights."""
    place = tmp_path_factory.mktemp("runs")
    corpora.train_tokenizer(place / "tokenizer", storyworld.load("heldout"), 512)
    tokenizer = load_tokenizer(place / "tokenizer")
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )
    made = []
    for number, variant in enumerate(("plain", "cosine-0.5")):
        folder = place / variant
        for step, seed in ((None, number), (0, 10 + number)):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
            model.save_pretrained(folder if step is None else folder / f"checkpoints/step{step}")
        tokenizer.save_pretrained(folder)
        made.append(training.Run(f"small {variant} seed 0", "small", variant, 0, folder))
    return made


@pytest.fixture
def measure(runs, monkeypatch):
    """Run the cells of a notebook up to its result, and return the result as the reader gets it."""

    def trained(_, variants=None, sizes=None):
        return [run for run in runs if variants is None or run.variant in variants]

    monkeypatch.setattr(training, "train_variants", trained)

    def run_cells(name, remeasure=False, **evaluation):
        smoke = linlib.load_profile("smoke")
        section = dataclasses.replace(smoke.evaluation, **evaluation)
        settings = dataclasses.replace(
            smoke, name=f"of {name}{len(evaluation)}", evaluation=section, workers=1
        )
        monkeypatch.setattr(linlib, "load_profile", lambda _: settings, raising=False)
        variables = {}
        (file,) = NOTEBOOKS.glob(f"{name}_*.py")
        for cell in jupytext.read(file).cells:
            if cell.cell_type == "code" and "nbval-check-output" not in cell.metadata.get(
                "tags", ()
            ):
                source = cell.source.replace("remeasure = False", f"remeasure = {remeasure}")
                exec(source, variables)
            if "linlib.result(" in cell.source:
                return variables["frame"], settings
        raise AssertionError(f"{file} has no result")

    return run_cells


def test_figure_5_has_each_layer_and_both_controls(measure):
    frame, _ = measure("05")
    assert list(frame.columns[:5]) == ["model", "size", "variant", "seed", "diverged"]
    assert set(frame["control"]) == {"trained", "untrained weights", "shuffled labels"}
    counts = frame.groupby(["variant", "control"])["layer"].apply(list)
    assert counts.map(lambda layers: layers == [0, 1, 2, 3]).all()
    assert len(counts) == 2 + 2  # controls are those of the plain model
    assert frame["pair_accuracy"].between(0, 1).all()
    assert (frame["pair_low"] < frame["pair_high"]).all() and (frame["chance"] == 0.5).all()
    first = frame.query("layer == 0 and control == 'trained'")
    assert (first["pair_accuracy"] == 0.5).all()  # the same full stop in all texts
    wide = frame[frame["variant"] == "plain"].pivot(index="layer", columns="control")
    assert (wide["accuracy"]["trained"] != wide["accuracy"]["untrained weights"]).any()
    assert (wide["accuracy"]["trained"] != wide["accuracy"]["shuffled labels"]).any()


def test_table_2_has_the_papers_columns_and_their_mean(measure):
    frame, settings = measure("11")
    assert list(frame.columns[:5]) == ["model", "size", "variant", "seed", "diverged"]
    assert list(dict.fromkeys(frame["column"])) == list(TABLE_2.values())
    assert len(frame) == 2 * len(TABLE_2) and (frame["n"] == settings.evaluation.rows).all()
    shares = frame[frame["metric"].isin(["acc", "em"])]
    assert (shares["low"] <= shares["value"]).all() and (shares["value"] <= shares["high"]).all()
    assert shares["stderr"].notna().all() and shares["chance"].notna().all()
    assert frame.drop(shares.index)[["low", "high", "chance"]].isna().all(axis=None)
    means = store.load_frame("tab2_superglue_mean", settings.name)
    means = means.set_index(["columns", "variant"])["value"]
    plain = frame.query("variant == 'plain' and column != 'arc_easy'").set_index("column")["value"]
    assert len(plain) == 10 and means["all ten", "plain"] == pytest.approx(plain.mean())
    declared = plain[list(settings.evaluation.mean_columns)]
    assert means["declared", "plain"] == pytest.approx(declared.mean())


def test_the_best_constant_answers_are_what_their_names_say():
    rows = {
        name: storyworld.TASKS[name]("validation", 60)
        for name in ("boolq", "cb", "record", "storycloze", "arc_easy")
    }
    found = {name: harness.best_constant(name, one) for name, one in rows.items()}
    for name, label in (("boolq", "label"), ("storycloze", "answer_right_ending")):
        counts = pd.Series(rows[name][label]).value_counts()
        assert found[name] == {"acc": pytest.approx(counts.max() / 60)}
    labels = np.array(rows["cb"]["label"])
    scores = [f1_score(labels, np.full(60, one), average="macro") for one in (0, 1, 2)]
    assert found["cb"]["f1"] == pytest.approx(max(scores))
    shared = min(map(len, rows["record"]["entities"]))
    right = [[row["entities"][place] in row["answers"] for row in rows["record"]]
             for place in range(shared)]  # fmt: skip
    assert found["record"]["em"] == pytest.approx(np.mean(right, axis=1).max())
    assert found["record"]["em"] <= found["record"]["f1"] <= 1  # part of a name is worth something
    assert 0.25 <= found["arc_easy"]["acc"] < 0.5


def test_table_3_is_judged_by_the_world_beside_the_true_endings(measure):
    frame, settings = measure("12")
    assert list(frame.columns[3:6]) == ["seed", "diverged", "story"]
    assert (frame.groupby("model")["story"].nunique() == settings.evaluation.prompts).all()
    assert frame[list(SCORES)].stack().between(0, 10).all()
    assert frame["mean"].tolist() == pytest.approx(frame[list(SCORES)].mean(axis=1).tolist())
    means = frame.groupby("size")["mean"].mean()
    assert means[TRUTH] > 9 > means["small"]
    examples = store.load_frame("tab3_tinystories_examples", settings.name)
    assert set(examples["size"]) == {TRUTH, "small"} and len(examples) == 3
    assert examples["beginning"].nunique() == 1


class Endpoint(BaseHTTPRequestHandler):
    """Speaks the protocol of chat completions; all stories get the same scores."""

    asked: list[str] = []

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(question["messages"][0]["content"])
        scores = {"grammar": 4, "creativity": 3, "consistency": 2, "plot": 1}
        reply = {
            "id": "1", "object": "chat.completion", "created": 0, "model": question["model"],
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": json.dumps(scores)}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }  # fmt: skip
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    Endpoint.asked.clear()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("LINLIB_JUDGE_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("LINLIB_JUDGE_MODEL", "grader")
    monkeypatch.setenv("LINLIB_JUDGE_API_KEY", "secret-key")
    monkeypatch.setenv("LINLIB_JUDGE_PRICE_IN", "1")
    monkeypatch.setenv("LINLIB_JUDGE_PRICE_OUT", "2")
    yield
    server.shutdown()
    server.server_close()
    serving.join()


def test_table_3_is_judged_by_a_language_model(measure, endpoint, monkeypatch):
    monkeypatch.setattr(corpora, "load_corpus", lambda _, split: storyworld.load(split))
    frame, settings = measure("12", judge="chat", samples=2)
    n_stories = settings.evaluation.prompts
    assert list(frame.columns[5:7]) == ["story", "sample"]
    assert len(frame) == 3 * n_stories * 2 and set(frame["sample"]) == {0, 1}
    judged = frame[frame["grammar"] == 4]  # an empty story is not sent, and gets zeros
    assert (judged["mean"] == 2.5).all() and (frame["size"] == TRUTH).sum() == 2 * n_stories
    n_asked = len(Endpoint.asked)
    assert 2 * n_stories <= n_asked == 2 * len(set(Endpoint.asked)) <= 6 * n_stories
    provenance = store.load_provenance("tab3_tinystories", settings.name)
    judge = provenance["judge"]["grader"]
    assert judge["rubric"] and judge["tokens"] == [100 * n_asked, 10 * n_asked]
    assert judge["dollars"] == pytest.approx(n_asked * 120e-6)
    assert "secret-key" not in json.dumps(provenance)
    again, _ = measure("12", remeasure=True, judge="chat", samples=2)
    pd.testing.assert_frame_equal(again, frame)
    assert len(Endpoint.asked) == n_asked  # nothing is asked twice


def test_a_chat_judge_that_is_not_set_up_is_named_before_the_work(measure, monkeypatch):
    monkeypatch.delenv("LINLIB_JUDGE_BASE_URL", raising=False)
    monkeypatch.setattr(training, "train_variants", lambda *_: pytest.fail("has begun"))
    with pytest.raises(ValueError, match="set in the environment: LINLIB_JUDGE_BASE_URL"):
        measure("12", judge="chat", prompts=3, samples=1)


@pytest.mark.parametrize("name", ["05", "11", "12"])
def test_a_profile_without_an_evaluation_is_not_measured(measure, name, monkeypatch):
    bare = dataclasses.replace(linlib.load_profile("smoke"), evaluation=None)
    monkeypatch.setattr(dataclasses, "replace", lambda *_, **__: bare)
    with pytest.raises(ValueError, match="no section 'evaluation', so (Figure 5|Table [23])"):
        measure(name)
