"""A language model judges short stories, through any OpenAI-compatible endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import openai
import pandas as pd
from pydantic import SecretStr, ValidationError
from tqdm.auto import tqdm

from linlib.evaluate.judge_settings import BASE_URL, KEY, MODEL, TIMEOUT, WORKERS, settings
from linlib.evaluate.reply import Reply, read_reply
from linlib.evaluate.rubric import BLANK, RUBRIC, SCORES, Answer, Scores, Story
from linlib.store import cache_folder, recipe_key
from linlib.store.frames import write_atomically

TRIES = 3  # for an answer of the right form
FENCE = re.compile(r"\A\s*```(?:json)?\s(.*)```\s*\Z", re.DOTALL)
FAILURES = (  # the first that fits is told
    (openai.AuthenticationError, PermissionError, f"does not accept the key; correct {KEY}"),
    (openai.PermissionDeniedError, PermissionError, f"is closed to the key; correct {KEY}"),
    (openai.NotFoundError, ValueError, f"is not there; correct {MODEL} or {BASE_URL}"),
    (openai.RateLimitError, ConnectionError, f"is at its limit; wait, or lower {WORKERS}"),
    (openai.APITimeoutError, ConnectionError, f"is too slow; wait, or raise {TIMEOUT}"),
    (openai.APIConnectionError, ConnectionError, f"is out of reach; check {BASE_URL}"),
    (openai.InternalServerError, ConnectionError, "is out of order; try again later"),
    (openai.APIError, ValueError, "refuses the question"),
)


@dataclass(frozen=True)
class Judged:
    """What a judge says of some stories.

    Attributes:
        scores: a row for each sample of each story, in order: `story`, `sample` and `SCORES`.
        prompt_tokens: read for these answers, cached ones too, as far as the endpoint tells.
        completion_tokens: written for them, likewise.
        cost: of those tokens, in US dollars; None without prices.
        asked: questions that were sent; equal stories are one question a sample.
        found: questions whose answer was cached.
    """

    scores: pd.DataFrame
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    asked: int
    found: int


@dataclass(frozen=True)
class ChatJudge:
    """A model behind an OpenAI-compatible endpoint that gives a story four scores in [0, 10].

    Attributes:
        base_url: the endpoint.
        model: its name there.
        key: of the endpoint; no cache or provenance shows it, and no message if it has 8
            characters or more.
        price_in: US dollars a million tokens read, if known.
        price_out: US dollars a million tokens written, if known.
        timeout: seconds to wait for an answer.
        max_retries: after timeouts, lost connections, rate limits and failures of the server.
        workers: questions at once.
        temperature: of the answers.
    """

    base_url: str
    model: str
    key: SecretStr = field(repr=False)
    price_in: float | None = None
    price_out: float | None = None
    timeout: float = 60.0
    max_retries: int = 5
    workers: int = 8
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a secret in the endpoint, and a key that cannot be sent: errors would show it."""
        if re.search("[@?#]", self.base_url):
            raise ValueError(
                f"{BASE_URL} may hold no user, password, query or fragment, thus no '@', '?' or "
                f"'#'; a key belongs in {KEY}"
            )
        if not re.fullmatch("[!-~]+", self.key.get_secret_value()):
            raise ValueError(f"{KEY} may hold only visible ASCII characters; copy it anew")

    @classmethod
    def from_environment(cls) -> ChatJudge:
        """Make the judge that the variables `LINLIB_JUDGE_*` describe.

        Without `LINLIB_JUDGE_API_KEY`, `OPENAI_API_KEY` is taken for https://api.openai.com, and
        sent to no other host.

        Raises:
            ValueError: a variable is missing or wrong.
        """
        return cls(**settings())

    def judge(self, stories: Sequence[Story], samples: int) -> Judged:
        """Score stories; each answer is cached as it comes, and a blank completion gets zeros.

        Args:
            stories: what to judge.
            samples: answers a story.

        Raises:
            ValueError: the endpoint lacks the model, refuses a question or answers in a wrong form.
            PermissionError: it refuses the key.
            ConnectionError: it is out of reach, or too slow, too busy or broken for too long.
        """
        rows = [(number, sample) for number in range(len(stories)) for sample in range(samples)]
        files = {(n, sample): self._file(stories[n], sample) for n, sample in rows}
        wanted = {file: n for (n, _), file in files.items() if stories[n].completion.strip()}
        cached = {file: answer for file in wanted if (answer := _read(file))}
        missing = {file: (n, stories[n]) for file, n in wanted.items() if file not in cached}
        answers = cached | (self._ask_all(missing) if missing else {})
        scores = [(*row, *dict(answers.get(files[row], BLANK).scores).values()) for row in rows]
        frame = pd.DataFrame(scores, columns=["story", "sample", *SCORES])
        n_in = sum(answer.prompt_tokens for answer in answers.values())
        n_out = sum(answer.completion_tokens for answer in answers.values())
        priced = self.price_in is not None and self.price_out is not None
        cost = (n_in * self.price_in + n_out * self.price_out) / 1e6 if priced else None
        return Judged(frame, n_in, n_out, cost, len(missing), len(cached))

    def _file(self, story: Story, sample: int) -> Path:
        asked = [self.base_url, self.model, self.temperature, RUBRIC]
        recipe = {"asked": asked, "story": [story.prompt, story.completion], "sample": sample}
        return cache_folder() / "judge" / f"{recipe_key(recipe)}.json"

    def _ask_all(self, missing: Mapping[Path, tuple[int, Story]]) -> dict[Path, Answer]:
        with (
            openai.OpenAI(
                api_key=self.key.get_secret_value(),
                base_url=self.base_url,
                timeout=self.timeout,
                max_retries=self.max_retries,
            ) as client,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            asked = {f: pool.submit(self._ask, client, f, *story) for f, story in missing.items()}
            try:
                for one in tqdm(as_completed(asked.values()), "judging", len(asked), unit="answer"):
                    one.result()
            finally:
                pool.shutdown(cancel_futures=True)  # those on their way are paid, and waited for
            return {file: one.result() for file, one in asked.items()}

    def _ask(self, client: openai.OpenAI, file: Path, number: int, story: Story) -> Answer:
        text = Template(RUBRIC).substitute(beginning=story.prompt, continuation=story.completion)
        n_in = n_out = 0
        for _ in range(TRIES):
            reply = self._reply(client, text)
            n_in += reply.prompt_tokens
            n_out += reply.completion_tokens
            try:
                scores = Scores.model_validate_json(FENCE.sub(r"\1", reply.content or ""))
            except ValueError:
                continue
            answer = Answer(scores=scores, prompt_tokens=n_in, completion_tokens=n_out)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, answer.model_dump_json())
            return answer
        raise ValueError(
            f"judge '{self.model}' at {self.base_url} gave no four scores for story {number} in "
            f"{TRIES} tries; its last answer begins: {self._without_key(reply.shown)[:200]!r}"
        )

    def _reply(self, client: openai.OpenAI, text: str) -> Reply:
        try:
            raw = client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[{"role": "user", "content": text}],
                temperature=self.temperature,
            )
        except openai.APIError as error:
            raise self._failure(error) from error
        return read_reply(raw.content)

    def _failure(self, error: openai.APIError) -> Exception:
        kind, told = next((kind, told) for what, kind, told in FAILURES if isinstance(error, what))
        error.message, error.body = self._without_key(str(error.__cause__ or error)), None
        # Some servers quote the key, which the chain must not show.
        error.args, error.__cause__, error.__context__ = (error.message,), None, None
        return kind(f"judge '{self.model}' at {self.base_url} {told} ({error})")

    def _without_key(self, text: str) -> str:
        key = self.key.get_secret_value()
        return text.replace(key, "[key]") if len(key) >= 8 else text  # "none" is no secret


def _read(file: Path) -> Answer | None:
    try:
        return Answer.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):  # never asked, or damaged
        return None
