"""Table 3: stories that the pretrained Mistrals tell on, judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pandas as pd

from linlib.corpora import load_corpus
from linlib.corpora.storyworld.dataset import records
from linlib.corpora.storyworld.record import StoryRecord
from linlib.corpora.storyworld.stories import story_paragraphs
from linlib.evaluate.chat_judge import ChatJudge
from linlib.evaluate.generate import Sampling, complete
from linlib.evaluate.rubric import RUBRIC, SCORES, Story
from linlib.evaluate.world_judge import judge_completion
from linlib.experiments.subjects import Measurement
from linlib.experiments.variants import evaluated_variants, measure_each, record_of
from linlib.models import load_model, load_tokenizer
from linlib.profiles import EvaluationSettings, Profile

LABELS = ["model", "size", "variant", "seed"]
REFERENCE = "true ending"  # the held-out story itself, in the place of a model
BEGINNING_SHARE = 3  # of a text from the hub, one part in so many is the beginning


def measure(profile: Profile) -> Measurement:
    """Let every model tell held-out stories on, and judge them beside the true endings.

    Frames: "" has a row a model, story (and sample of a chat judge) with four scores and their
    `mean`, each in [0, 10]; "_examples" has the first story that each model told.

    Raises:
        ValueError: the profile pretrains or evaluates nothing, or the chat judge is not set up;
            its other errors are those of `ChatJudge.judge`.
    """
    settings, variants = evaluated_variants(profile, "Table 3")
    judge = ChatJudge.from_environment() if settings.judge == "chat" else None  # before the work
    held_out = _held_out(profile, settings)
    options = {
        "beginnings": [beginning for beginning, _, _ in held_out],
        "max_new_tokens": settings.max_new_tokens,
        "window": profile.pretraining.length,
        "temperature": settings.temperature,
        "batch_size": settings.batch_size,
        "device": profile.device,
    }
    code = ("evaluate/generate.py", "models", "experiments/stories.py")
    told = measure_each("told", _told, variants, options, settings.workers, code)
    truth = pd.DataFrame({"completion": [ending for _, ending, _ in held_out], "finished": True})
    labels = {"model": REFERENCE, "size": REFERENCE, "variant": REFERENCE, "seed": profile.seed}
    truth = truth.assign(story=range(len(truth)), **labels)[told.columns]
    stories = pd.concat([told, truth], ignore_index=True)
    if judge is None:
        frame, cost = _by_world(stories, held_out), {}
    else:
        frame, cost = _by_chat(stories, held_out, judge, settings.samples)
    frame["mean"] = frame[list(SCORES)].mean(axis=1)
    examples = stories[stories["story"] == 0].assign(beginning=held_out[0][0])
    record = record_of(profile, variants, judge=settings.judge, **cost)
    return Measurement({"": frame, "_examples": examples}, record)


HeldOut = tuple[str, str, StoryRecord | None]  # beginning, true ending, facts


def _held_out(profile: Profile, settings: EvaluationSettings) -> list[HeldOut]:
    if settings.judge == "storyworld":
        chosen = list(islice(records("heldout"), settings.prompts))
        parts = [story_paragraphs(record) for record in chosen]
        return [
            (first, "\n\n".join(rest), record)
            for record, (first, *rest) in zip(chosen, parts, strict=True)
        ]
    texts = load_corpus("tinystories", "heldout")[: settings.prompts]["text"]
    return [(*_divided(text), None) for text in texts]


def _divided(text: str) -> tuple[str, str]:
    """A beginning of about a third of the words, and the rest; blanks stay as they are."""
    words = text.split(" ")
    begun = max(len(words) // BEGINNING_SHARE, 1)
    return " ".join(words[:begun]), " ".join(words[begun:])


def _told(folder: Path, options: Mapping[str, object]) -> pd.DataFrame:
    """What one model tells: `story`, `completion` and whether it `finished`."""
    model, tokenizer = load_model(folder, device=options["device"]), load_tokenizer(folder)
    how = Sampling(
        max_new_tokens=options["max_new_tokens"],
        window=options["window"],
        temperature=options["temperature"],
        seed=0,
        batch_size=options["batch_size"],
    )
    told = complete(model, tokenizer, options["beginnings"], how)
    frame = pd.DataFrame([{"completion": one.text, "finished": one.finished} for one in told])
    frame.insert(0, "story", range(len(frame)))
    return frame


def _by_world(stories: pd.DataFrame, held_out: Sequence[HeldOut]) -> pd.DataFrame:
    rows = []
    for story in stories.fillna({"completion": ""}).to_dict("records"):
        beginning, _, record = held_out[story["story"]]
        scores = judge_completion(story["completion"], record, beginning, story["finished"])
        rows.append({name: story[name] for name in [*LABELS, "story"]} | asdict(scores))
    return pd.DataFrame(rows)


def _by_chat(
    stories: pd.DataFrame, held_out: Sequence[HeldOut], judge: ChatJudge, samples: int
) -> tuple[pd.DataFrame, dict[str, object]]:
    texts = stories["completion"].fillna("")
    asked = [
        Story(held_out[number][0], text)
        for number, text in zip(stories["story"], texts, strict=True)
    ]
    judged = judge.judge(asked, samples)
    frame = judged.scores.rename(columns={"story": "row"})
    labels = stories[[*LABELS, "story"]].iloc[frame["row"]].reset_index(drop=True)
    record = {
        "judge_model": judge.model,
        "judge_endpoint": judge.base_url,
        "judge_temperature": judge.temperature,
        "judge_rubric": RUBRIC,
        "judge_tokens": [judged.prompt_tokens, judged.completion_tokens],
        "judge_dollars": judged.cost,
    }
    return pd.concat([labels, frame.drop(columns="row")], axis=1), record
