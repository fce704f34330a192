"""What an OpenAI-compatible endpoint replied, whatever its form."""

from __future__ import annotations

import json
from typing import NamedTuple


class Reply(NamedTuple):
    """What a chat completion says, and what it took.

    Attributes:
        content: of the first choice's message; None where there is no such text.
        shown: the content, or the whole reply where there is none.
        prompt_tokens: read; 0 where the endpoint does not tell a usable number.
        completion_tokens: written, likewise.
    """

    content: str | None
    shown: str
    prompt_tokens: int
    completion_tokens: int


def read_reply(body: bytes) -> Reply:
    """Read the body of a reply that claims success; it may be a web page, or anything else."""
    text = body.decode("utf-8-sig", errors="replace")
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        reply = None
    choices = _at(reply, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    content = _at(_at(first, "message"), "content")
    if not isinstance(content, str):
        content = None
    usage = _at(reply, "usage")
    counts = (_count(_at(usage, f"{what}_tokens")) for what in ("prompt", "completion"))
    return Reply(content, text if content is None else content, *counts)


def _at(thing: object, key: str) -> object:
    return thing.get(key) if isinstance(thing, dict) else None


def _count(told: object) -> int:
    """A number of tokens; an unusable one is none, for the answer is paid and must be kept."""
    whole = type(told) is int or (isinstance(told, float) and told.is_integer())
    return int(told) if whole and told >= 0 else 0
