"""Figure 5, Tables 2 and 3 from end to end on two tiny Mistrals; and what they are made of."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from linlib.corpora import CORPORA, load_corpus, storyworld
from linlib.corpora.storyworld.tasks import TASKS
from linlib.evaluate.rubric import SCORES
from linlib.experiments import obtain
from linlib.experiments.probing import endings
from linlib.experiments.stories import REFERENCE, _divided
from linlib.experiments.superglue import COLUMNS, column_means
from linlib.experiments.variants import measure_each
from linlib.pretrain import TrainedModel, Variant
from linlib.profiles import load_profile
from linlib.store import load_frame, load_provenance

RUNS = {"mistral-150m-smoke": {"plain": (0,), "cosine-0.5": (0,)}}


@pytest.fixture(scope="module")
def profile():
    smoke = load_profile("smoke")
    pretraining = smoke.pretraining.model_copy(
        update={"runs": RUNS, "length": 128, "steps": 4, "initializer_ranges": (0.06,)}
    )
    return smoke.model_copy(update={"zoo": None, "pretraining": pretraining})


@pytest.fixture(scope="module")
def own_store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINLIB_ROOT", str(tmp_path_factory.mktemp("store")))
        yield


def test_figure_5_has_every_layer_and_both_controls(profile, own_store):
    frame = obtain("fig5_probing", profile)
    assert set(frame["control"]) == {"trained", "untrained weights", "shuffled labels"}
    counts = frame.groupby(["variant", "control"])["layer"].apply(sorted)
    assert counts.map(lambda layers: layers == [0, 1, 2, 3]).all() and len(counts) == 6
    assert frame["accuracy"].between(0, 1).all() and (frame["low"] < frame["high"]).all()
    assert (frame["chance"] == 0.5).all()
    first = frame.query("layer == 0 and control == 'trained'")
    assert (first["accuracy"] == 0.5).all()  # every text ends with the same full stop


def test_table_2_has_the_papers_columns_and_the_harness_errors(profile, own_store):
    frame = obtain("tab2_superglue", profile)
    assert list(dict.fromkeys(frame["column"])) == list(COLUMNS.values())
    assert len(frame) == 2 * len(COLUMNS) and (frame["n"] == profile.evaluation.rows).all()
    shares = frame[frame["metric"].isin(["acc", "em"])]
    assert (shares["low"] <= shares["value"]).all() and (shares["value"] <= shares["high"]).all()
    assert shares["stderr"].notna().all()
    means = load_frame("tab2_superglue_mean", profile.name).set_index("variant")["value"]
    plain = frame.query("variant == 'plain' and column != 'arc_easy'")["value"]
    assert len(plain) == 10 and means["plain"] == pytest.approx(plain.mean())
    record = load_provenance("tab2_superglue", profile.name)
    assert set(record["models"]) == set(frame["model"]) and record["task_source"] == "storyworld"
    assert record["corpus"]["name"] == "storyworld"


def test_table_3_is_judged_by_the_world_beside_true_endings(profile, own_store):
    frame = obtain("tab3_tinystories", profile)
    assert (frame.groupby("model")["story"].nunique() == profile.evaluation.prompts).all()
    assert frame[list(SCORES)].stack().between(0, 10).all()
    assert frame["mean"].tolist() == pytest.approx(frame[list(SCORES)].mean(axis=1).tolist())
    scores = frame.groupby("size")["mean"].mean()
    assert scores[REFERENCE] > 9 > scores["mistral-150m-smoke"]
    examples = load_frame("tab3_tinystories_examples", profile.name)
    assert set(examples["size"]) == {REFERENCE, "mistral-150m-smoke"}


class Endpoint(BaseHTTPRequestHandler):
    """Speaks the protocol of chat completions; every story gets the same scores."""

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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Endpoint.asked.clear()
    monkeypatch.setenv("LINLIB_JUDGE_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("LINLIB_JUDGE_MODEL", "grader")
    monkeypatch.setenv("LINLIB_JUDGE_API_KEY", "secret-key")
    monkeypatch.setenv("LINLIB_JUDGE_PRICE_IN", "1")
    monkeypatch.setenv("LINLIB_JUDGE_PRICE_OUT", "2")
    yield
    server.shutdown()
    server.server_close()


def test_table_3_is_judged_by_a_language_model(profile, own_store, endpoint, monkeypatch):
    monkeypatch.setitem(CORPORA, "tinystories", storyworld.load)
    load_corpus.cache_clear()
    evaluation = profile.evaluation.model_copy(update={"judge": "chat", "samples": 2})
    chat = profile.model_copy(update={"name": "chat", "evaluation": evaluation})
    frame = obtain("tab3_tinystories", chat)
    load_corpus.cache_clear()
    assert len(frame) == 3 * evaluation.prompts * 2 and set(frame["sample"]) == {0, 1}
    judged = frame[frame["grammar"] == 4]  # an empty story is not sent, and gets zeros
    assert (judged["mean"] == 2.5).all() and (frame["size"] == REFERENCE).sum() == 8
    record = load_provenance("tab3_tinystories", "chat")
    n = len(Endpoint.asked)
    assert (
        8 <= n == 2 * len({text for text in Endpoint.asked}) <= 24
        and record["judge_model"] == "grader"
        and record["judge_rubric"]
    )
    assert record["judge_dollars"] == pytest.approx(record["judge_tokens"][0] * 1.2e-6)
    assert "secret-key" not in json.dumps(record)
    assert obtain("tab3_tinystories", chat, remeasure=True).equals(frame)
    assert len(Endpoint.asked) == n  # nothing is asked twice


def test_a_chat_judge_that_is_not_set_up_is_told_of(profile, own_store, monkeypatch):
    monkeypatch.delenv("LINLIB_JUDGE_BASE_URL", raising=False)
    evaluation = profile.evaluation.model_copy(update={"judge": "chat"})
    bare = profile.model_copy(update={"name": "bare", "evaluation": evaluation})
    with pytest.raises(ValueError, match="set in the environment: LINLIB_JUDGE_BASE_URL"):
        obtain("tab3_tinystories", bare)


def test_each_story_is_probed_with_both_endings():
    rows = TASKS["storycloze"]("validation", 6)
    texts, labels, stories = endings(rows)
    assert stories == [number // 2 for number in range(12)]
    for number, row in enumerate(rows):
        pair = dict(zip(labels[2 * number : 2 * number + 2], texts[2 * number :], strict=False))
        assert pair[1].endswith(row[f"sentence_quiz{row['answer_right_ending']}"])
        assert pair[0].endswith(row[f"sentence_quiz{3 - row['answer_right_ending']}"])
        assert pair[0].startswith(row["input_sentence_1"]) and row["input_sentence_4"] in pair[1]


def test_a_text_is_divided_and_nothing_is_lost():
    text = "One day a  duck\n\nswam out. It was glad."
    beginning, rest = _divided(text)
    assert f"{beginning} {rest}" == text and beginning == "One day a"


def test_the_mean_is_over_the_papers_columns():
    rows = {"model": "m", "size": "s", "variant": "plain", "seed": 0}
    frame = pd.DataFrame({**rows, "column": ["copa", "wic", "arc_easy"], "value": [0.5, 0.7, 1.0]})
    assert column_means(frame)["value"].item() == pytest.approx(0.6)


MEASURED = []


def count_words(folder, options):
    MEASURED.append(folder.name)
    return pd.DataFrame({"text": [options["text"], ""], "n": [len(options["text"].split()), 0]})


def test_each_model_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    MEASURED.clear()
    variants = [Variant("s", name, 0, TrainedModel(name, tmp_path / name)) for name in "ab"]
    arguments = (variants, {"text": "NA one\rtwo"}, 1, ("probe.py",))
    frame = measure_each("counted", count_words, *arguments)
    again = measure_each("counted", count_words, *arguments)
    assert MEASURED == ["a", "b"] and frame.equals(again)
    assert frame["text"].dropna().tolist() == ["NA one\rtwo"] * 2
    assert frame["variant"].tolist() == ["a", "a", "b", "b"] and frame["n"].tolist() == [3, 0, 3, 0]
    other = (variants, {"text": "other"}, 1, ("probe.py",))
    assert measure_each("counted", count_words, *other)["n"].max() == 1 and len(MEASURED) == 4
