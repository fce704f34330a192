"""storyworld: deterministic, varied, split by facts, and true to its own world."""

import hashlib
import json
import re
from collections import Counter
from itertools import islice

import pytest

from linlib.corpora import load_corpus
from linlib.corpora.storyworld import (
    preference_pairs,
    render_preference,
    render_story,
    render_textbook,
    sample_record,
)
from linlib.corpora.storyworld.dataset import records
from linlib.corpora.storyworld.facts import KINDS, SKILLS, THINGS
from linlib.corpora.storyworld.obstacles import OBSTACLES
from linlib.corpora.storyworld.words import NAMES

SAMPLE_SHA256 = "2741782e73a92326c5bf73d7697fd7ebf667dec698751e24a2ba1c8774f8bab5"


@pytest.fixture(scope="module")
def told():
    sample = [sample_record(seed) for seed in range(2000)]
    return [(record, render_story(record)) for record in sample]


def test_a_sample_is_the_same_on_every_platform():
    texts = [render_story(sample_record(seed)) for seed in range(50)]
    texts += [render_textbook(seed) for seed in range(50)]
    texts += [json.dumps(render_preference(sample_record(seed))) for seed in range(50)]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    assert digest == SAMPLE_SHA256


def test_stories_are_as_long_as_tinystories(told):
    lengths = [len(story.split()) for _, story in told]
    assert 100 <= min(lengths) and max(lengths) <= 250


def test_the_vocabulary_has_several_hundred_words(told):
    words = Counter(word for _, story in told for word in re.findall(r"[a-z]+", story.lower()))
    assert 400 < len(words) < 900


def test_there_are_fifty_thousand_distinct_stories():
    keys = {sample_record(seed).key for seed in range(51_000)}
    assert len(keys) >= 50_000


def test_no_story_is_in_both_splits():
    train = {record.key for record in islice(records("train"), 4000)}
    heldout = {record.key for record in islice(records("heldout"), 400)}
    assert len(train) == 4000 and len(heldout) == 400 and not train & heldout


def test_a_story_tells_every_fact_of_its_record(told):
    for record, story in told:
        facts = (
            record.hero.name, record.hero.kind, record.hero.trait, record.helper.name,
            record.helper.kind, record.helper.trait, record.thing, record.colour, record.origin,
            record.place, record.weather, record.time, record.sad, record.glad, record.lesson,
            KINDS[record.hero.kind].food, KINDS[record.hero.kind].home,
            THINGS[record.thing].material, THINGS[record.thing].use,
        )  # fmt: skip
        for fact in facts:
            assert fact in story, (fact, story)


def test_only_the_helper_can_overcome_the_obstacle(told):
    for record, _ in told:
        skill = OBSTACLES[record.obstacle].skill
        assert KINDS[record.helper.kind].skills[0] == skill
        assert skill not in KINDS[record.hero.kind].skills
        assert (record.obstacle == "heavy") == THINGS[record.thing].heavy
        assert record.hero.name != record.helper.name


def test_the_world_is_complete():
    assert {kind.skills[0] for kind in KINDS.values()} == set(SKILLS)
    assert {obstacle.skill for obstacle in OBSTACLES.values()} == set(SKILLS)
    assert all(set(kind.skills) <= set(SKILLS) for kind in KINDS.values())
    everyone = [name for names in NAMES.values() for name in names]
    assert len(set(everyone)) == len(everyone)


def test_sentences_begin_with_a_capital_and_no_template_is_left_open(told):
    for _, story in told:
        assert "{" not in story and "}" not in story
        assert not re.search(r"[.]\"? \"?[a-z]", story), story
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", story), story


def test_the_facts_vary_evenly():
    sample = [sample_record(seed) for seed in range(5000)]
    for field in ("colour", "weather", "time", "sad", "glad", "lesson", "origin"):
        counts = Counter(getattr(record, field) for record in sample)
        assert max(counts.values()) < 1.6 * min(counts.values()), (field, counts)


def test_chosen_answers_help_and_rejected_ones_do_not():
    for seed in range(500):
        record = sample_record(seed)
        pair = render_preference(record)
        skill = OBSTACLES[record.obstacle].skill
        answers = {k: text.split("Assistant:")[1] for k, text in pair.items()}
        named = {
            column: next(k for k in KINDS.values() if re.search(rf"\ban? {k.name}\b", answer))
            for column, answer in answers.items()
        }
        assert named["chosen"].skills[0] == skill and skill not in named["rejected"].skills
        questions = {text.split("Assistant:")[0] for text in pair.values()}
        assert len(questions) == 1


def test_the_corpus_looks_like_any_other():
    corpus = load_corpus("storyworld", "heldout")
    assert {"text", "kind", "record"} == set(corpus.column_names)
    kinds = Counter(corpus["kind"])
    assert kinds["story"] == kinds["exercise"] == 2000 and kinds["textbook"] == 500
    assert all(json.loads(row["record"]) for row in corpus if row["kind"] == "story")
    pairs = preference_pairs("train", 20)
    assert pairs.column_names == ["chosen", "rejected"] and len(pairs) == 20
