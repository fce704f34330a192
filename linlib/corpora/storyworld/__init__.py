"""`storyworld`: a small world of animals that help each other, told in several ways.

One typed record (`StoryRecord`) holds the facts of a story; stories, exercises, preference pairs
and tasks all derive from the record and never from the text.
"""

from linlib.corpora.storyworld.dataset import load, preference_pairs
from linlib.corpora.storyworld.exercises import render_exercise
from linlib.corpora.storyworld.preferences import render_preference
from linlib.corpora.storyworld.record import Character, StoryRecord, sample_record
from linlib.corpora.storyworld.stories import render_story
from linlib.corpora.storyworld.textbook import render_textbook

__all__ = [
    "Character",
    "StoryRecord",
    "load",
    "preference_pairs",
    "render_exercise",
    "render_preference",
    "render_story",
    "render_textbook",
    "sample_record",
]
