"""The generated world is deterministic, varied, split by facts, and true to its own rules."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from storyworld import (
    SIZES,
    load,
    preference_pairs,
    records,
    render_exercise,
    render_preference,
    render_story,
    render_textbook,
    sample_record,
    story_paragraphs,
)
from storyworld.corpus import plural
from storyworld.world import KINDS, NAMES, OBSTACLES, SKILLS, THINGS

SAMPLE_SHA256 = "2741782e73a92326c5bf73d7697fd7ebf667dec698751e24a2ba1c8774f8bab5"


@pytest.fixture(scope="module")
def stories():
    sample = [sample_record(seed) for seed in range(2000)]
    return [(record, render_story(record)) for record in sample]


def test_a_sample_is_the_same_on_every_platform():
    texts = [render_story(sample_record(seed)) for seed in range(50)]
    texts += [render_textbook(seed) for seed in range(50)]
    texts += [json.dumps(render_preference(sample_record(seed))) for seed in range(50)]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    assert digest == SAMPLE_SHA256


def test_stories_are_as_long_as_tinystories(stories):
    lengths = [len(story.split()) for _, story in stories]
    assert 100 <= min(lengths) and max(lengths) <= 250


def test_the_vocabulary_has_several_hundred_words(stories):
    words = Counter(word for _, story in stories for word in re.findall(r"[a-z]+", story.lower()))
    assert 400 < len(words) < 900


def test_there_are_fifty_thousand_distinct_stories():
    keys = {sample_record(seed).key for seed in range(51_000)}
    assert len(keys) >= 50_000


def test_no_story_occurs_twice_in_the_corpus():
    keys = [record.key for split, n in SIZES.items() for record in islice(records(split), n)]
    assert len(set(keys)) == len(keys) == 32_000


def test_one_story_in_16_is_held_out(stories):
    n_heldout = sum(record.is_heldout for record, _ in stories)
    assert n_heldout / len(stories) == pytest.approx(1 / 16, abs=0.01)


def test_the_split_and_the_key_do_not_depend_on_the_wording(stories):
    for record, _ in stories[:100]:
        reworded = replace(record, style=record.style + 1)
        assert reworded.key == record.key and reworded.is_heldout == record.is_heldout
        assert render_story(reworded) != render_story(record)


def test_a_story_states_all_facts_of_its_record(stories):
    for record, story in stories:
        facts = (
            record.hero.name, record.hero.kind, record.hero.trait, record.helper.name,
            record.helper.kind, record.helper.trait, record.thing, record.colour, record.origin,
            record.place, record.weather, record.time, record.sad, record.glad, record.lesson,
            KINDS[record.hero.kind].food, KINDS[record.hero.kind].home,
            THINGS[record.thing].material, THINGS[record.thing].use,
        )  # fmt: skip
        for fact in facts:
            assert fact in story, (fact, story)


def test_only_the_helper_can_overcome_the_obstacle(stories):
    for record, _ in stories:
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


def test_sentences_begin_with_a_capital_and_no_template_is_left_open(stories):
    for _, story in stories:
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


@pytest.fixture(scope="module")
def heldout():
    return load("heldout")


def test_the_corpus_has_stories_exercises_and_lessons(heldout):
    assert heldout.column_names == ["text", "kind", "record"]
    kinds = Counter(heldout["kind"])
    assert kinds == {"story": SIZES["heldout"], "exercise": SIZES["heldout"], "textbook": 500}


def test_the_texts_of_the_corpus_belong_to_their_records(heldout):
    rows = list(heldout)[:225]
    of_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in set(heldout["kind"])}
    expected = list(islice(records("heldout"), 100))
    for kind, render in (("story", render_story), ("exercise", render_exercise)):
        assert [row["text"] for row in of_kind[kind]] == [render(record) for record in expected]
        facts = [json.loads(row["record"]) for row in of_kind[kind]]
        assert facts == [record.as_dict() for record in expected]
    lessons = [render_textbook(seed) for seed in range(0, 16 * 25, 16)]
    assert [row["text"] for row in of_kind["textbook"]] == lessons
    assert {row["record"] for row in of_kind["textbook"]} == {""}


def test_no_lesson_is_in_both_splits(heldout):
    lessons = {row["text"] for row in heldout if row["kind"] == "textbook"}
    train = {render_textbook(seed) for seed in range(2000) if seed % 16}
    assert len(lessons) == 500 and not lessons & train


def test_a_lesson_states_what_the_world_knows():
    for seed in range(300):
        lesson = render_textbook(seed).lower()
        kind = next(k for k in KINDS.values() if re.search(rf"\ban? {k.name}\b", lesson))
        skill = kind.skills[0]
        assert all(fact in lesson for fact in (kind.group, kind.covering, kind.food, kind.home))
        assert any(phrase in lesson for phrase in SKILLS[skill])
        alike = [k.name for k in KINDS.values() if k.skills[0] == skill and k != kind]
        assert any(re.search(rf"\b{plural(name)}\b", lesson) for name in alike)
        assert any(o.question in lesson and o.skill == skill for o in OBSTACLES.values())
        assert any(thing.use in lesson and thing.material in lesson for thing in THINGS.values())


def test_preference_pairs_are_those_of_their_split():
    for split in SIZES:
        pairs = preference_pairs(split, 20)
        expected = [render_preference(record) for record in islice(records(split), 20)]
        assert pairs.column_names == ["chosen", "rejected"] and pairs.to_list() == expected


def test_exercises_use_all_paragraphs():
    used = Counter()
    for record in islice(records("train"), 200):
        paragraph = render_exercise(record).split("\n")[0]
        used[story_paragraphs(record).index(paragraph)] += 1
    assert set(used) == {0, 1, 2, 3} and min(used.values()) > 25


@pytest.mark.parametrize("make", [records, load, lambda split: preference_pairs(split, 4)])
def test_an_unknown_split_is_refused(make):
    with pytest.raises(ValueError, match="unknown split 'test' of storyworld.*'heldout'"):
        make("test")


def test_the_package_stands_alone():
    """Importing it loads neither linlib nor, since that takes a second, datasets."""
    code = (
        "import sys, storyworld; "
        "print({'linlib', 'datasets', 'torch'} & {name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
