"""A generated world of animals that help each other, as text, tasks and preference pairs.

A typed record (`StoryRecord`) holds the facts of one story. Stories, exercises, tasks, preference
pairs and the scores of completions all derive from records and from the tables in
`storyworld.world`. Everything is deterministic: the same text on every platform.
"""

from storyworld.corpus import (
    SIZES,
    TASK_SPLITS,
    load,
    preference_pairs,
    records,
    render_preference,
    render_textbook,
)
from storyworld.grammar import sentences
from storyworld.judge import WorldScores, judge_completion
from storyworld.questions import render_exercise
from storyworld.stories import (
    Character,
    StoryRecord,
    render_story,
    sample_record,
    story_paragraphs,
)
from storyworld.tasks import TASKS

__all__ = [
    "SIZES",
    "TASKS",
    "TASK_SPLITS",
    "Character",
    "StoryRecord",
    "WorldScores",
    "judge_completion",
    "load",
    "preference_pairs",
    "records",
    "render_exercise",
    "render_preference",
    "render_story",
    "render_textbook",
    "sample_record",
    "sentences",
    "story_paragraphs",
]
