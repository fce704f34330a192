"""The chat judge, against a server that follows a script and counts questions."""

import json
import logging
import re
import socket
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from linlib import store
from linlib.evaluate import judge as judging
from linlib.evaluate.judge import SCORES, TRIES, ChatJudge

KEY, MODEL = "sk-a-very-secret-key", "grader-1"
FINE = dict(zip(SCORES, (7, 6.5, 8, 0), strict=True))
STORY = ("Tom had a red ball.", "He threw it {far} $away. The end.")


@dataclass(frozen=True)
class Reply:
    content: object = json.dumps(FINE)
    status: int = 200
    delay: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None  # in place of a chat completion

    def text(self):
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": f"status {self.status} for key {KEY}"}})
        message = {"role": "assistant", "content": self.content}
        return json.dumps({
            "id": "1", "object": "chat.completion", "created": 0, "model": MODEL,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        })  # fmt: skip


def in_turn(*replies):
    """The script that gives these replies one after another, and then the last for ever."""
    return lambda turn, text: replies[min(turn, len(replies) - 1)]


class Endpoint(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.script, self.models = in_turn(Reply()), {MODEL}
        self.asked, self.lock = [], threading.Lock()

    def reply_to(self, path, key, question):
        with self.lock:
            turn = len(self.asked)
            self.asked.append(question)
        if path != "/v1/chat/completions" or question["model"] not in self.models:
            return Reply(status=404)
        if key != f"Bearer {KEY}":
            quoted = {"error": {"message": f"Incorrect API key provided: {key}"}}
            return Reply(status=401, body=json.dumps(quoted))
        return self.script(turn, question["messages"][0]["content"])


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server.reply_to(self.path, self.headers["Authorization"], question)
        time.sleep(reply.delay)
        data = reply.text().encode()
        headers = {"Content-Type": "application/json", **dict(reply.headers)}
        self.send_response(reply.status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # the client no longer waits
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ChatJudge.model_fields:
        monkeypatch.delenv(f"LINLIB_JUDGE_{name.upper()}", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def endpoint():
    with Endpoint() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def judge(endpoint):
    return ChatJudge(
        base_url=endpoint.url,
        model=MODEL,
        api_key=KEY,
        timeout=10,
        max_retries=1,
        workers=1,
        temperature=0.5,
    )


@pytest.fixture
def recorded(monkeypatch):
    """What goes into the provenance: pairs of the judge's name and its record."""
    records = []
    monkeypatch.setattr(store, "record", lambda kind, *what: records.append((kind, *what)))
    return records


def changed(judge, **changes):
    return ChatJudge(**dict(judge) | changes)


def judged_by(judge, stories, samples=1):
    beginnings, completions = zip(*stories, strict=True)
    return judge.judge(beginnings, completions, samples)


def stories(n):
    return [(f"Beginning {i}.", f"Ending <{i}>.") for i in range(n)]


def cached():
    return sorted((store.cache_folder() / "judge").glob("*"))


def everything_shown(error):
    """What a traceback, a log or a debugger could show of an exception and those behind it."""
    parts = traceback.format_exception(error)
    while error:
        parts += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "".join(parts)


def test_answers_become_a_tidy_frame(endpoint, judge):
    judged = judged_by(judge, [STORY, ("A cat sat.", "It slept.")], samples=2)
    assert list(judged.columns) == ["story", "sample", *SCORES]
    assert judged[["story", "sample"]].values.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert all(judged[score].tolist() == [FINE[score]] * 4 for score in SCORES)
    assert len(endpoint.asked) == 4


def test_the_question_is_the_rubric_with_both_texts_as_they_are(endpoint, judge):
    judged_by(judge, [STORY])
    (question,) = endpoint.asked
    assert set(question) == {"model", "messages", "temperature", "response_format"}
    schema = question["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(SCORES) and schema["additionalProperties"] is False
    assert question["temperature"] == 0.5
    (message,) = question["messages"]
    rubric = judging.RUBRIC.replace("$beginning", STORY[0])
    assert message["content"] == rubric.replace("$continuation", STORY[1])


def test_a_blank_completion_scores_zero_unasked(endpoint, judge):
    blank = [("A cat sat.", ""), ("A cat sat.", " \n\t")]
    judged = judged_by(judge, [*blank, STORY])
    assert judged[list(SCORES)].values.tolist() == [[0] * 4] * 2 + [list(FINE.values())]
    assert len(endpoint.asked) == 1
    assert judged_by(judge, blank, samples=2)[list(SCORES)].values.tolist() == [[0] * 4] * 4


def test_rows_are_in_order_whatever_order_answers_come_in(endpoint, judge):
    together, arrived = threading.Barrier(3), []

    def script(turn, text):
        number = int(re.search(r"<(\d)>", text)[1])
        together.wait(10)  # no one is answered before three are asking
        time.sleep(0.1 * (2 - number % 3))
        arrived.append(number)
        return Reply(json.dumps(dict.fromkeys(SCORES, number)))

    endpoint.script = script
    judged = judged_by(changed(judge, workers=3), stories(6))
    assert sorted(arrived) == list(range(6)) != arrived
    assert judged["story"].tolist() == judged["plot"].tolist() == list(range(6))


# ---------------------------------------------------------------- trouble that passes


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failure_that_passes_is_not_noticed(endpoint, judge, status):
    endpoint.script = in_turn(Reply(status=status), Reply())
    assert judged_by(judge, [STORY])["plot"].tolist() == [FINE["plot"]]
    assert len(endpoint.asked) == 2


def test_the_wait_that_a_rate_limit_asks_for_is_kept(endpoint, judge):
    endpoint.script = in_turn(Reply(status=429, headers=(("Retry-After", "1.2"),)), Reply())
    started = time.monotonic()
    judged_by(judge, [STORY])
    assert time.monotonic() - started >= 1.2  # by itself the client waits half a second
    assert len(endpoint.asked) == 2


def test_an_answer_that_takes_too_long_is_asked_for_again(endpoint, judge):
    endpoint.script = in_turn(Reply(delay=2.5), Reply())
    started = time.monotonic()
    judged_by(changed(judge, timeout=1), [STORY])
    assert time.monotonic() - started < 2.5 and len(endpoint.asked) == 2


MALFORMED = {
    "no JSON": Reply("I give it a seven."),
    "half": Reply('{"grammar": 7, "creativity"'),
    "words around it": Reply(f"Here it is: {json.dumps(FINE)}"),
    "words around a fence": Reply(f"Here it is:\n```json\n{json.dumps(FINE)}\n```"),
    "an open fence": Reply(f"```json\n{json.dumps(FINE)}"),
    "a fence inside": Reply(json.dumps(FINE).replace("6.5", "``` 6.5```")),
    "two objects": Reply(json.dumps(FINE) * 2),
    "a list": Reply(json.dumps([7, 6, 8, 5])),
    "above 10": Reply(json.dumps({**FINE, "plot": 10.5})),
    "below 0": Reply(json.dumps({**FINE, "plot": -1})),
    "not a number": Reply(json.dumps({**FINE, "plot": float("nan")})),
    "text for a number": Reply(json.dumps({**FINE, "plot": "7"})),
    "true for a number": Reply(json.dumps({**FINE, "plot": True})),
    "null for a number": Reply(json.dumps({**FINE, "plot": None})),
    "one missing": Reply(json.dumps({name: FINE[name] for name in SCORES[:3]})),
    "one too many": Reply(json.dumps({**FINE, "overall": 7})),
    "empty": Reply(""),
    "null": Reply(None),
    "parts": Reply([{"type": "text", "text": json.dumps(FINE)}]),
}
NO_COMPLETION = {
    "a web page": Reply(body="<html>Hello</html>", headers=(("Content-Type", "text/html"),)),
    "broken JSON": Reply(body='{"choices": ['),
    "no choices": Reply(body=json.dumps({"choices": []})),
    "an error that claims success": Reply(body=json.dumps({"error": {"message": "overloaded"}})),
    "an empty choice": Reply(body='{"choices": [{}]}'),
    "no message": Reply(body='{"choices": [{"message": null}]}'),
    "a message of text": Reply(body='{"choices": [{"message": "7"}]}'),
    "a legacy completion": Reply(body=json.dumps({"choices": [{"text": json.dumps(FINE)}]})),
    "a choice of text": Reply(body='{"choices": ["x"]}'),
    "choices by name": Reply(body='{"choices": {"a": 1}}'),
    "choices of text": Reply(body='{"choices": "abc"}'),
    "a list": Reply(body='[{"message": null}]'),
    "null": Reply(body="null"),
    "nothing": Reply(body=""),
    "scores alone": Reply(body=json.dumps(FINE)),
    "too deep": Reply(body="[" * 100_000),
    "half a letter": Reply(body=json.dumps({"choices": [{"message": {"content": "\ud800"}}]})),
}


@pytest.mark.parametrize("bad", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_answer_is_asked_for_again_and_its_tokens_are_counted(
    endpoint, judge, recorded, bad
):
    endpoint.script = in_turn(bad, Reply())
    judged = judged_by(judge, [STORY])
    assert judged[list(SCORES)].values.tolist() == [list(FINE.values())]
    assert recorded[0][2]["tokens"] == [200, 40] and len(endpoint.asked) == 2


@pytest.mark.parametrize("bad", NO_COMPLETION.values(), ids=NO_COMPLETION.keys())
def test_what_is_no_chat_completion_is_asked_for_again(endpoint, judge, recorded, bad):
    endpoint.script = in_turn(bad, Reply())
    judged = judged_by(judge, [STORY])
    assert judged["creativity"].tolist() == [FINE["creativity"]]
    assert recorded[0][2]["tokens"] == [100, 20] and len(endpoint.asked) == 2


@pytest.mark.parametrize("bad", NO_COMPLETION.values(), ids=NO_COMPLETION.keys())
def test_what_stays_no_chat_completion_is_shown(endpoint, judge, bad):
    endpoint.script = in_turn(bad)
    with pytest.raises(
        ValueError, match="did not return four scores for story 0 in 3 tries"
    ) as caught:
        judged_by(judge, [STORY])
    assert re.search("begins: ['\"].+", str(caught.value)) and cached() == []


@pytest.mark.parametrize("fenced", ["```json\n{}\n```", "```\n{}\n```\n", "\n ```json {}```"])
def test_a_code_fence_around_the_answer_is_taken_off(endpoint, judge, fenced):
    endpoint.script = in_turn(Reply(fenced.replace("{}", json.dumps(FINE, indent=1))))
    assert judged_by(judge, [STORY])["grammar"].tolist() == [FINE["grammar"]]
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (None, (0, 0)),
        ({}, (0, 0)),
        ("many", (0, 0)),
        ([100, 20], (0, 0)),
        ({"total_tokens": 120}, (0, 0)),
        ({"prompt_tokens": None, "completion_tokens": 20}, (0, 20)),
        ({"prompt_tokens": -100, "completion_tokens": 20.5}, (0, 0)),
        ({"prompt_tokens": "100", "completion_tokens": True}, (0, 0)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, (0, 0)),
        ({"prompt_tokens": 100.0, "completion_tokens": 20}, (0, 20)),
    ],
)
def test_an_answer_is_kept_whatever_its_usage(endpoint, judge, recorded, usage, counted):
    body = {**json.loads(Reply().text()), "usage": usage}
    endpoint.script = in_turn(Reply(body=json.dumps(body)))
    judged = judged_by(judge, [STORY])
    assert judged["grammar"].tolist() == [FINE["grammar"]]
    assert recorded[0][2]["tokens"] == list(counted)
    assert (len(endpoint.asked), len(cached())) == (1, 1)


def test_a_chat_completion_of_another_content_type_is_good_enough(endpoint, judge):
    endpoint.script = in_turn(Reply(headers=(("Content-Type", "text/plain"),)))
    assert judged_by(judge, [STORY])["plot"].item() == FINE["plot"] and len(endpoint.asked) == 1


# ---------------------------------------------------------------- trouble that stays


def test_answers_that_stay_malformed_are_shown_with_their_story(endpoint, judge):
    endpoint.script = in_turn(Reply(f"As a model with key {KEY} I cannot" + " say" * 500))
    with pytest.raises(ValueError, match="story 1 .*begins: 'As a model with key") as caught:
        judged_by(judge, [("A cat sat.", ""), STORY])
    assert len(endpoint.asked) == TRIES
    assert len(str(caught.value)) < 400 and KEY not in everything_shown(caught.value)
    assert MODEL in str(caught.value) and endpoint.url in str(caught.value)
    assert cached() == []


@pytest.mark.parametrize(
    ("reply", "kind", "advice", "requests"),
    [
        (Reply(status=401), PermissionError, "correct LINLIB_JUDGE_API_KEY", 1),
        (Reply(status=403), PermissionError, "correct LINLIB_JUDGE_API_KEY", 1),
        (Reply(status=404), ValueError, "correct LINLIB_JUDGE_MODEL or LINLIB_JUDGE_BASE_URL", 1),
        (Reply(status=400), ValueError, "refuses the question .*status 400", 1),
        (Reply(status=429), ConnectionError, "wait, or lower LINLIB_JUDGE_WORKERS", 2),
        (Reply(status=500), ConnectionError, "out of order; try again later", 2),
        (Reply(delay=1.5), ConnectionError, "too slow; wait, or raise LINLIB_JUDGE_TIMEOUT", 2),
    ],
)  # fmt: skip
def test_what_does_not_pass_is_explained(endpoint, judge, reply, kind, advice, requests):
    endpoint.script = in_turn(reply)
    with pytest.raises(kind, match=advice) as caught:
        judged_by(changed(judge, timeout=0.5 if reply.delay else 10), [STORY])
    assert MODEL in str(caught.value) and endpoint.url in str(caught.value)
    assert KEY not in everything_shown(caught.value)
    assert len(endpoint.asked) == requests


def test_a_wrong_key_is_shown_nowhere_though_the_server_quotes_it(endpoint, judge, caplog):
    wrong = "sk-another-secret-key"
    with caplog.at_level(logging.DEBUG), pytest.raises(PermissionError, match="key") as caught:
        judged_by(changed(judge, api_key=SecretStr(wrong)), [STORY])
    assert "Incorrect API key provided: Bearer [key]" in str(caught.value)
    assert wrong not in everything_shown(caught.value) + caplog.text


def test_an_unknown_model_is_named(judge):
    with pytest.raises(ValueError, match="judge 'grader-2' at .* is not there"):
        judged_by(changed(judge, model="grader-2"), [STORY])


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/v1", "127.0.0.1:{port}/v1"])
def test_an_endpoint_that_does_not_listen_is_named(judge, url):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = url.format(port=free.getsockname()[1])
    with pytest.raises(ConnectionError, match="check LINLIB_JUDGE_BASE_URL") as caught:
        judged_by(changed(judge, base_url=url, max_retries=0), [STORY])
    assert url in str(caught.value) and KEY not in everything_shown(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}é", f"two {KEY}", ""])
def test_a_key_that_cannot_be_sent_is_refused_unshown(judge, key):
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        changed(judge, api_key=SecretStr(key))
    assert KEY not in everything_shown(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pa55word@host/v1",
        "user:pa55word@host/v1",
        "https://user:pa5/5word@host/v1",
        "https://host/v1?key=pa55word",
        "https://host/v1#pa55word",
    ],
)
def test_a_url_that_holds_a_secret_is_refused_unshown(judge, url, monkeypatch):
    with pytest.raises(
        ValueError, match="may hold no user.* belongs in LINLIB_JUDGE_API_KEY"
    ) as caught:
        changed(judge, base_url=url)
    for name, value in (("BASE_URL", url), ("MODEL", MODEL), ("API_KEY", KEY)):
        monkeypatch.setenv(f"LINLIB_JUDGE_{name}", value)
    with pytest.raises(ValueError, match="LINLIB_JUDGE_BASE_URL: .*may hold no user") as again:
        ChatJudge.from_environment()
    shown = everything_shown(caught.value) + everything_shown(again.value)
    assert "pa5" not in shown and "5word" not in shown


@pytest.mark.parametrize(("key", "shown"), [("a", "a bad day"), ("longer-1", "[key]")])
def test_a_short_word_for_a_key_is_not_cut_from_messages(endpoint, judge, key, shown):
    body = json.dumps({"error": {"message": f"a bad day for {key}"}})
    endpoint.reply_to = lambda *_: Reply(status=400, body=body)
    with pytest.raises(ValueError, match="refuses the question") as caught:
        judged_by(changed(judge, api_key=SecretStr(key)), [STORY])
    assert shown in str(caught.value) and ("[key]" in str(caught.value)) == (shown == "[key]")


# ---------------------------------------------------------------- environment


def test_the_environment_makes_a_judge(endpoint, monkeypatch):
    for name, value in (("BASE_URL", endpoint.url), ("MODEL", MODEL), ("API_KEY", f"{KEY}\n")):
        monkeypatch.setenv(f"LINLIB_JUDGE_{name}", value)
    monkeypatch.setenv("OPENAI_API_KEY", "not-this-one")
    monkeypatch.setenv("LINLIB_JUDGE_PRICE_IN", "0.15")
    judge = ChatJudge.from_environment()
    assert (judge.price_in, judge.price_out) == (0.15, None)
    assert judged_by(judge, [STORY])["grammar"].tolist() == [FINE["grammar"]]


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.openai.com:443/v1", True),
        ("https://api.openai.com", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.example.org/v1", False),
        ("https://example.org/api.openai.com/v1", False),
        ("https://api.openai.com:x@example.org/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_the_usual_key_is_taken_for_its_own_host_alone(monkeypatch, url, sent):
    monkeypatch.setenv("LINLIB_JUDGE_BASE_URL", url)
    monkeypatch.setenv("LINLIB_JUDGE_MODEL", MODEL)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if sent:
        assert ChatJudge.from_environment().api_key.get_secret_value() == KEY
    else:
        with pytest.raises(ValueError, match=r"environment: LINLIB_JUDGE_API_KEY \(.*alone\)$"):
            ChatJudge.from_environment()


def test_the_environment_sets_workers_and_timeout(endpoint, monkeypatch):
    for name, value in (("BASE_URL", endpoint.url), ("MODEL", MODEL), ("API_KEY", KEY)):
        monkeypatch.setenv(f"LINLIB_JUDGE_{name}", value)
    plain = ChatJudge.from_environment()
    monkeypatch.setenv("LINLIB_JUDGE_WORKERS", " 2 ")
    monkeypatch.setenv("LINLIB_JUDGE_TIMEOUT", "90.5")
    assert ChatJudge.from_environment() == changed(plain, workers=2, timeout=90.5) != plain


@pytest.mark.parametrize(
    ("name", "values", "what"),
    [
        ("LINLIB_JUDGE_WORKERS", ["0", "-1", "2.5", "many", "inf"], "should be"),
        (
            "LINLIB_JUDGE_TIMEOUT",
            ["0", "-1", "nan", "inf", "1e9", "long"],
            "should be",
        ),
        ("LINLIB_JUDGE_PRICE_IN", ["-1", "nan", "inf", "1,5"], "should be"),
    ],
)
def test_a_wrong_number_in_the_environment_is_named(endpoint, monkeypatch, name, values, what):
    for needed, value in (("BASE_URL", endpoint.url), ("MODEL", MODEL), ("API_KEY", KEY)):
        monkeypatch.setenv(f"LINLIB_JUDGE_{needed}", value)
    for value in values:
        monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=f"{name}: .*({what})"):
            ChatJudge.from_environment()


def test_missing_variables_are_all_named_and_no_others(monkeypatch):
    monkeypatch.setenv("LINLIB_JUDGE_MODEL", "  ")
    names = r"LINLIB_JUDGE_BASE_URL \(.*https.*LINLIB_JUDGE_MODEL \(.*LINLIB_JUDGE_API_KEY \("
    with pytest.raises(ValueError, match=names):
        ChatJudge.from_environment()
    monkeypatch.setenv("LINLIB_JUDGE_MODEL", MODEL)
    monkeypatch.setenv("LINLIB_JUDGE_API_KEY", KEY)
    with pytest.raises(ValueError, match="LINLIB_JUDGE_BASE_URL") as caught:
        ChatJudge.from_environment()
    assert "LINLIB_JUDGE_MODEL" not in str(caught.value)
    monkeypatch.setenv("LINLIB_JUDGE_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LINLIB_JUDGE_PRICE_OUT", "cheap")
    with pytest.raises(ValueError, match="environment: LINLIB_JUDGE_PRICE_OUT: .*valid number"):
        ChatJudge.from_environment()


# ---------------------------------------------------------------- cache, cost and the key


def test_nothing_is_asked_twice(endpoint, judge, recorded):
    endpoint.script = lambda turn, text: Reply(json.dumps(dict.fromkeys(SCORES, turn)))
    first = judged_by(judge, stories(3), samples=2)
    again = judged_by(changed(judge, timeout=1, workers=4), stories(3), samples=2)
    assert len(endpoint.asked) == 6
    assert again.equals(first) and sorted(first["plot"]) == list(range(6))
    assert [record[2]["tokens"] for record in recorded] == [[600, 120]] * 2


def test_equal_stories_are_asked_once(endpoint, judge, recorded):
    judged = judged_by(changed(judge, workers=4), [STORY] * 4)
    assert len(endpoint.asked) == len(cached()) == 1
    assert judged["plot"].tolist() == [FINE["plot"]] * 4
    assert recorded[0][2]["tokens"] == [100, 20]


def test_whatever_makes_an_answer_makes_it_another(endpoint, judge, monkeypatch):
    def asks(by=judge, story=STORY, samples=1):
        before = len(endpoint.asked)
        judged_by(by, [story], samples)
        return len(endpoint.asked) - before

    assert (asks(), asks()) == (1, 0)
    assert asks(samples=3) == 2
    assert asks(changed(judge, temperature=0.0)) == 1
    assert asks(changed(judge, base_url=endpoint.url.replace("127.0.0.1", "localhost"))) == 1
    assert asks(story=("Another.", STORY[1])) == 1
    assert asks(story=(STORY[0], "Another.")) == 1
    assert asks(changed(judge, api_key=SecretStr(KEY), price_in=1.0)) == 0
    monkeypatch.setattr(judging, "RUBRIC", judging.RUBRIC + "\nBe strict.")
    assert (asks(), asks()) == (1, 0)
    endpoint.models.add("grader-2")
    assert asks(changed(judge, model="grader-2")) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"null", b'{"scores": {"plot": 1}}'])
def test_a_damaged_cache_file_is_asked_again(endpoint, judge, damage):
    judged_by(judge, [STORY])
    (file,) = cached()
    file.write_bytes(damage)
    for _ in range(2):
        judged_by(judge, [STORY])
    assert len(endpoint.asked) == 2


def test_what_was_paid_before_a_failure_is_kept(endpoint, judge):
    failed = threading.Event()

    def script(turn, text):
        if "<1>" in text:
            failed.set()
            return Reply(status=400)
        failed.wait(10)  # story 0 is on its way while story 1 fails
        return Reply(delay=1.0 if "<0>" in text else 0.02)

    endpoint.script = script
    with pytest.raises(ValueError, match="refuses the question"):
        judged_by(changed(judge, workers=2), stories(20))
    paid = len(endpoint.asked) - 1
    assert 1 <= paid < 10  # those that had not begun are given up
    assert len(cached()) == paid
    endpoint.script = in_turn(Reply())
    judged_by(judge, stories(20))
    assert len(endpoint.asked) == 20 + 1


def test_model_rubric_tokens_and_cost_go_into_the_provenance(endpoint, judge, recorded):
    judged_by(changed(judge, price_in=0.5, price_out=2.0), stories(3), samples=2)
    ((kind, name, identity),) = recorded
    assert (kind, name, identity["endpoint"]) == ("judge", MODEL, endpoint.url)
    assert identity["rubric"] == judging.RUBRIC and identity["temperature"] == 0.5
    assert identity["tokens"] == [600, 120] and KEY not in json.dumps(identity)
    assert identity["dollars"] == pytest.approx(600 * 0.5e-6 + 120 * 2e-6)
    for prices in ({"price_in": 0.0, "price_out": 0.0}, {"price_in": 0.5}, {"price_out": 0.5}):
        judged_by(changed(judge, **prices), stories(3), samples=2)
    assert [record[2].get("dollars") for record in recorded[1:]] == [0, None, None]
    assert len(endpoint.asked) == 6


def test_the_key_is_in_no_cache_file_repr_or_record(endpoint, judge):
    endpoint.script = in_turn(Reply(f"My key is {KEY}."), Reply())
    judged_by(judge, stories(2))
    files = cached()
    assert len(files) == 2 and len(endpoint.asked) == 3
    assert all(KEY not in file.read_text() + file.name for file in files)
    assert KEY not in repr(judge) + str(dict(judge))
