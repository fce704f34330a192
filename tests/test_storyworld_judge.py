"""The grammar reads all stories, and each defect lowers its own score of the judge alone."""

from collections import defaultdict
from dataclasses import astuple, replace
from itertools import islice
from random import Random

import numpy as np
import pytest

from storyworld import (
    WorldScores,
    judge_completion,
    records,
    render_story,
    sentences,
    story_paragraphs,
)
from storyworld.grammar import N_PARTS, read_sentence
from storyworld.stories import FORMS, story_parts
from storyworld.world import KINDS, NAMES, OBSTACLES, THINGS

HELD_OUT = list(islice(records("heldout"), 300))
JUDGED = HELD_OUT[:40]
GRAMMAR, CREATIVITY, CONSISTENCY, PLOT = range(4)
# Completion -> mean of grammar, creativity, consistency and plot over the judged stories.
MEAN_SCORES = {
    "true": [10.0, 9.118, 10.0, 10.0],
    "shuffled": [10.0, 10.0, 10.0, 4.125],
    "swapped": [10.0, 9.3237, 8.2207, 10.0],
    "reversed": [4.7945, 1.1272, 6.2769, 5.3333],
}
ALIEN = (
    "The sun rose over the quiet harbour, and the fishermen mended their nets. Nobody spoke. "
    "An old woman sold bread at the corner. She smiled at every child who passed."
)


def truth(record):
    """The value of each role in a story."""
    hero, helper = KINDS[record.hero.kind], KINDS[record.helper.kind]
    thing, obstacle = THINGS[record.thing], OBSTACLES[record.obstacle]
    plain = "thing colour origin obstacle place weather time sad glad thanks lesson"
    return {
        **{role: getattr(record, role) for role in plain.split()},
        **{"name": record.hero.name, "kind": hero.name, "trait": record.hero.trait},
        **{"helper": record.helper.name, "helper_kind": helper.name},
        **{"helper_trait": record.helper.trait, "home": hero.home, "food": hero.food},
        **{"helper_home": helper.home, "helper_food": helper.food, "skill": obstacle.skill},
        **{"material": thing.material, "use": thing.use, **FORMS[record.hero.pronoun]},
    }


def beginning(record):
    return story_paragraphs(record)[0]


def ending(record):
    return "\n\n".join(story_paragraphs(record)[1:])


def judged(record, completion, **settings):
    return judge_completion(completion, record, beginning(record), **settings)


def scores(complete=lambda record, rng: ending(record), stories=JUDGED):
    """The scores of the stories as `complete` completes them, of shape (n_stories, 4)."""
    completions = [(record, complete(record, Random(n))) for n, record in enumerate(stories)]
    return np.array([astuple(judged(record, text)) for record, text in completions])


@pytest.fixture(scope="module")
def true_scores():
    return scores()


# The grammar


def test_all_sentences_of_a_story_are_admitted_in_order():
    seen = set()
    for record in HELD_OUT:
        parts = [read_sentence(text).part for text in sentences(render_story(record))]
        assert None not in parts, render_story(record)
        assert parts == sorted(parts)
        seen |= set(parts)
        assert set(parts) == set(range(N_PARTS))
    assert seen == set(range(N_PARTS)) and N_PARTS == 16


def test_the_part_of_a_sentence_is_the_one_it_was_rendered_from():
    for record in HELD_OUT[:100]:
        parts = [part for paragraph in story_parts(record) for part in paragraph]
        for number, part in enumerate(parts):
            assert {read_sentence(text).part for text in sentences(part)} == {number}, part


def test_facts_agree_with_the_record():
    found = defaultdict(int)
    for record in HELD_OUT:
        true = truth(record)
        for text in sentences(render_story(record)):
            for role, value in read_sentence(text).facts:
                assert value == true[role], (role, text)
                found[role] += 1
    assert found.keys() == true.keys()  # each role is stated somewhere
    assert min(found[role] for role in ("name", "helper", "thing", "obstacle", "place")) >= 300


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "It was a cold evening when Mia took the red kite to the lake.",
            {"weather": "cold", "time": "evening", "name": "Mia"}
            | {"colour": "red", "thing": "kite", "place": "lake"},
        ),
        ("Just then, she met an eager fox named Leo.", {}),  # "eager" is not a word of this world
        (
            "Just then, she met a young fox named Leo.",
            {"he": "she", "helper_trait": "young", "helper_kind": "fox", "helper": "Leo"},
        ),
        (
            "Leo flew to the narrow rock and picked up the kite.",
            {"helper": "Leo", "thing": "kite", "obstacle": "cliff", "skill": "fly"},
        ),
        (
            "She shared some nuts with Leo to say thank you.",
            {"he": "she", "helper_food": "nuts", "helper": "Leo"}
            | {"thanks": "shared some {food} with {helper}"},
        ),
        (
            "Like every fox, Leo could fly high.",
            {"helper_kind": "fox", "helper": "Leo"} | {"skill": "fly"},
        ),
    ],
)
def test_a_sentence_states_all_facts_that_it_names(text, facts):
    assert dict(read_sentence(text).facts) == facts


def test_false_sentences_are_admitted_and_those_of_no_wording_are_not():
    assert read_sentence("Mia lived in the pond and loved to eat cheese.").part == 1
    for text in (
        "Mia lived in the pond and loved to eat stones.",
        "mia lived in the pond and loved to eat cheese.",
        "Mia lived in the pond and loved to eat cheese",
        "And Mia lived in the pond and loved to eat cheese.",
        "Mia lived in the pond and loved to eat cheese. Then.",
        "",
    ):
        assert read_sentence(text).part is None and read_sentence(text).facts == ()


def test_shuffled_words_are_not_admitted():
    rng, n_shuffled = Random(0), 0
    for record in HELD_OUT[:100]:
        for text in sentences(render_story(record)):
            shuffled = text.split()
            rng.shuffle(shuffled)
            if shuffled != text.split():
                n_shuffled += 1
                assert read_sentence(" ".join(shuffled)).part is None
    assert n_shuffled > 1500


def test_sentences_join_back_to_the_text():
    for record in HELD_OUT:
        story = render_story(record)
        assert " ".join(sentences(story)) == " ".join(story.split())
    speech = '"Why?" asked Mia. "I know!" Leo said. "It is. So."  The end.\n\nNo'
    cut = ['"Why?" asked Mia.', '"I know!"', "Leo said.", '"It is.', 'So."', "The end.", "No"]
    assert sentences(speech) == cut
    assert sentences(" \n") == []


# True stories, and stories with one defect


def test_true_stories_score_high(true_scores):
    assert (true_scores[:, [GRAMMAR, CONSISTENCY, PLOT]] == 10).all()
    assert true_scores[:, CREATIVITY].mean() > 7


def lowered(true_scores, defective, by=0.1):
    """The scores whose mean over the stories a defect lowers."""
    return set(np.flatnonzero(true_scores.mean(0) - defective.mean(0) > by))


def shuffled_sentences(record, rng):
    texts = sentences(ending(record))
    rng.shuffle(texts)
    return " ".join(texts)


def test_shuffled_sentences_lower_plot_alone(true_scores):
    marks = scores(shuffled_sentences)
    assert lowered(true_scores, marks) == {PLOT}
    assert marks[:, PLOT].mean() < 6
    assert (marks[:, [GRAMMAR, CONSISTENCY]] == 10).all()


def swapped_names(record, rng):
    hero, helper = record.hero.name, record.helper.name
    texts = sentences(ending(record))
    for number in rng.sample(range(len(texts)), len(texts) // 2):
        marked = texts[number].replace(hero, "@")
        texts[number] = marked.replace(helper, hero).replace("@", helper)
    return " ".join(texts)


def test_swapped_names_lower_consistency_and_neither_grammar_nor_plot(true_scores):
    marks = scores(swapped_names)
    assert lowered(true_scores, marks) - {CREATIVITY} == {CONSISTENCY}
    assert marks[:, CONSISTENCY].mean() < 9
    assert (marks[:, [GRAMMAR, PLOT]] == 10).all()


def with_reversed_words(share):
    """Completes a story by its ending; in a share of its sentences, inner words are reversed."""

    def complete(record, rng):
        texts = sentences(ending(record))
        for number, text in enumerate(texts):
            if rng.random() < share:
                first, *inner, last = text.split()
                texts[number] = " ".join([first, *inner[::-1], last])
        return " ".join(texts)

    return complete


def test_reversed_words_lower_grammar(true_scores):
    none, half, all_ = (scores(with_reversed_words(share)) for share in (0, 0.5, 1))
    assert (none == true_scores).all() and (all_ == 0).all()
    assert 4 < half[:, GRAMMAR].mean() < 6
    assert (half[:, CONSISTENCY] < 10).all() and (half[:, CONSISTENCY] > 0).all()


def test_grammar_is_the_share_of_words(true_scores):
    record = JUDGED[0]
    texts = sentences(ending(record))
    texts[2] = "Snow fell."
    n_words = sum(len(text.split()) for text in texts)
    expected = 10 * (n_words - 2) / n_words
    assert judged(record, " ".join(texts)).grammar == pytest.approx(expected)


def test_copies_of_training_stories_lower_creativity_alone(true_scores):
    marks = scores(stories=list(islice(records("train"), 9_980, 10_020)))
    assert lowered(true_scores, marks) == {CREATIVITY}
    assert (marks[:, CREATIVITY] == 0).all()


def test_creativity_is_the_share_of_new_passages(true_scores):
    record = next(record for record, marks in zip(JUDGED, true_scores, strict=True)
                  if marks[CREATIVITY] == 10)  # fmt: skip
    texts = sentences(ending(record))
    n_passages = len(texts) - 2
    assert n_passages > 6
    twice = judged(record, " ".join([*texts, *texts])).creativity
    assert twice == pytest.approx(10 * (n_passages + 2) / (2 * len(texts) - 2))
    texts[4] = "Snow fell."  # part of three passages
    not_admitted = judged(record, " ".join(texts)).creativity
    assert not_admitted == pytest.approx(10 * (n_passages - 3) / n_passages)
    assert judged(record, " ".join(texts[:2])).creativity == 0  # no passage


def test_a_repeated_sentence_lowers_creativity_and_plot(true_scores):
    marks = scores(lambda record, rng: " ".join([sentences(ending(record))[0]] * 12))
    assert lowered(true_scores, marks) == {CREATIVITY, PLOT}
    assert marks[:, CREATIVITY].max() <= 1.0
    assert marks[:, PLOT] == pytest.approx(10 / 12)


# Single contradictions


def of_another(change):
    """Completes a story by the ending of a changed record, in the same wording."""
    return lambda record, rng: ending(replace(record, **change(record, rng)))


def another_thing(record, rng):
    return {"thing": rng.choice(sorted(set(THINGS) - {record.thing}))}


def another_hero(record, rng):
    names = [name for name in NAMES[record.hero.pronoun] if name != record.hero.name]
    return {"hero": replace(record.hero, name=rng.choice(sorted({*names} - {record.helper.name})))}


def another_pronoun(record, rng):
    other = {"she": "he", "he": "she"}[record.hero.pronoun]
    return {"hero": replace(record.hero, pronoun=other)}


def unable_helper(record, rng):
    skill = OBSTACLES[record.obstacle].skill
    unable = sorted(name for name, kind in KINDS.items() if skill not in kind.skills)
    return {"helper": replace(record.helper, kind=rng.choice(unable))}


def obstacle_of_another_place(record, rng):
    others = [name for name, o in OBSTACLES.items() if record.place not in o.places]
    return {"obstacle": rng.choice(sorted(others))}


def helper_of_the_heros_name(record, rng):
    return {"helper": replace(record.helper, name=record.hero.name)}


CHANGES = {
    change.__name__: change
    for change in (
        another_thing, another_hero, another_pronoun, unable_helper, obstacle_of_another_place,
        helper_of_the_heros_name,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_contradiction_lowers_consistency(name):
    marks = scores(of_another(CHANGES[name]))
    assert (marks[:, CONSISTENCY] < 10).all()
    assert (marks[:, [GRAMMAR, PLOT]] == 10).all()


MEETING = "Then a shy duck named Leo came along."  # introduces a helper of whom nothing was known


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (f"{MEETING} Leo was good at swimming.", 3 / 3),
        (f"{MEETING} Leo was good at digging.", 2 / 3),
        (f"{MEETING} Leo lived near the pond and was good at flying.", 4 / 4),
        (f"{MEETING} Leo lived in a den and was good at flying.", 3 / 4),
        (f"{MEETING} Then a shy duck named Ben came along.", 3 / 4),
        (f"{MEETING} To say thank you, she shared some meat with Leo.", 3 / 4),
        ("Then a shy duck named Mia came along.", 0 / 1),
        ("Like every fox, Leo could fly high.", 1 / 2),
        ("Leo was good at digging. Leo was good at flying. Leo was good at digging.", 4 / 5),
        ("Suddenly, the kite rolled into the deep water.", 2 / 2),
        ("Suddenly, the drum rolled into the deep water.", 1 / 2),
        ("Suddenly, the kite rolled into the deep water. It was no use.", 2 / 3),
        (
            "On a sunny morning, Mia took the kite to the lake. Leo was good at flying. "
            "Suddenly, the kite rolled into the deep water.",  # fits the lake, but not the skill
            4 / 6,
        ),
        ("Mia was very sad. This made Mia worried.", 2 / 3),
        ("Mia was very sad. This made Mia sad.", 3 / 3),
        ("He could not wait to let it dance in the wind.", 1 / 2),
        ("From that day on, Anna knew that kind words make good friends.", 0 / 1),
        ("The end.", 0),
    ],
)
def test_consistency_is_the_share_of_facts_that_hold(text, share):
    record = replace(JUDGED[0], hero=replace(JUDGED[0].hero, name="Mia", pronoun="she"))
    given = (
        "Once there lived a shy mouse named Mia. Her aunt had made a red kite out of paper just "
        "for her. She could not wait to let it dance in the wind."
    )
    assert all(read_sentence(sentence).part is not None for sentence in sentences(given))
    assert judge_completion(text, record, given).consistency == pytest.approx(10 * share)


def test_only_facts_of_the_beginning_count_against_the_completion():
    for record, other in zip(JUDGED, HELD_OUT[100:], strict=False):
        changed = replace(other, hero=record.hero)
        completion, given = ending(record), beginning(record)
        assert judge_completion(completion, changed, given) == judged(record, completion)


# Plot


def test_plot_counts_the_parts_after_the_beginning_that_are_in_order():
    record = JUDGED[0]
    parts = [part for paragraph in story_parts(record) for part in paragraph]
    for numbers, n_in_order in [
        (range(4, 16), 12),
        (range(4, 15, 2), 6),
        (range(15, 3, -1), 1),
        ((4, 4, 5, 5, 6), 3),
        ((0, 1, 2, 3), 0),
        ((4, 0, 5, 1, 6), 3),
        ((10, 11, 4, 5, 6), 3),
    ]:
        text = " ".join(parts[number] for number in numbers)
        assert judged(record, text).plot == pytest.approx(10 * n_in_order / 12)
    later = judge_completion(" ".join(parts[8:12]), record, " ".join(parts[:8]))
    assert later.plot == pytest.approx(10 * 4 / 8)
    of_nothing = judge_completion(" ".join(parts), record, "Snow fell.")
    assert of_nothing.plot == 10


def test_after_the_last_part_no_plot_is_left():
    record = JUDGED[0]
    story = render_story(record)
    assert judge_completion(story, record, story).plot == 0


# Odd completions


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_an_empty_completion_scores_0(text):
    assert judged(JUDGED[0], text) == WorldScores(0, 0, 0, 0)
    assert judged(JUDGED[0], text, finished=False) == WorldScores(0, 0, 0, 0)


def test_an_incomplete_last_sentence_counts_only_in_a_finished_text():
    for record in JUDGED:
        *whole, last = sentences(ending(record))
        cut = " ".join([*whole, *last.split()[:-1]])
        expected = judged(record, " ".join(whole))
        assert judged(record, cut, finished=False) == expected
        assert judged(record, cut).grammar < 10 == expected.grammar
    assert judged(JUDGED[0], "Then a", finished=False) == WorldScores(0, 0, 0, 0)


def test_a_complete_last_sentence_counts_in_an_unfinished_text():
    for record in JUDGED:
        texts = sentences(ending(record))
        for n_texts in range(1, len(texts)):
            text = " ".join(texts[:n_texts])
            assert judged(record, text, finished=False) == judged(record, text)
    speech = '"Do not worry," said Leo. "I can fly high. Let me help you."'
    assert judged(JUDGED[0], speech, finished=False) == judged(JUDGED[0], speech)
    assert judged(JUDGED[0], speech).grammar == 10


def test_good_english_of_another_world_scores_0():
    assert judged(JUDGED[0], ALIEN) == WorldScores(0, 0, 0, 0)


def test_all_scores_lie_between_0_and_10():
    pool = [text for record in HELD_OUT for text in sentences(render_story(record))]
    pool += [*sentences(ALIEN), "!", '"', "...", "{name}", "\\", "Then a"] * 100
    for seed in range(200):
        rng = Random(seed)
        text = " ".join(rng.choices(pool, k=rng.randrange(1, 30)))
        given = " ".join(rng.choices(pool, k=rng.randrange(6)))
        marks = judge_completion(text, rng.choice(HELD_OUT), given, finished=rng.random() < 0.5)
        assert all(0 <= score <= 10 for score in astuple(marks))


def test_scores_are_the_same_on_every_platform():
    completions = {
        "true": lambda record, rng: ending(record),
        "shuffled": shuffled_sentences,
        "swapped": swapped_names,
        "reversed": with_reversed_words(0.5),
    }
    means = {
        name: scores(complete).mean(0).round(4).tolist() for name, complete in completions.items()
    }
    assert means == MEAN_SCORES
