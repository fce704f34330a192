"""The environment variables that describe a chat judge."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt, SecretStr, TypeAdapter, ValidationError

BASE_URL, MODEL, KEY = "LINLIB_JUDGE_BASE_URL", "LINLIB_JUDGE_MODEL", "LINLIB_JUDGE_API_KEY"
TIMEOUT, WORKERS = "LINLIB_JUDGE_TIMEOUT", "LINLIB_JUDGE_WORKERS"
USUAL_KEY = "OPENAI_API_KEY"
USUAL_URL = re.compile(r"https://api\.openai\.com(:\d+)?(/|\Z)", re.IGNORECASE)
NEEDED = {
    BASE_URL: "an OpenAI-compatible endpoint, such as https://api.openai.com/v1",
    MODEL: "the name of a model there",
    KEY: f"its key, or any word if it needs none; {USUAL_KEY} is sent to api.openai.com alone",
}
_Price = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]
_Seconds = Annotated[float, Field(gt=0, le=86_400)]
OPTIONAL = {  # by the setting of a judge: its variable, its type and what it holds
    "price_in": ("LINLIB_JUDGE_PRICE_IN", _Price, "US dollars a million tokens"),
    "price_out": ("LINLIB_JUDGE_PRICE_OUT", _Price, "US dollars a million tokens"),
    "timeout": (TIMEOUT, _Seconds, "seconds, above 0 and at most a day"),
    "workers": (WORKERS, PositiveInt, "a whole number above 0"),
}


def settings() -> dict[str, object]:
    """What the variables say, by the name of the setting.

    Without `LINLIB_JUDGE_API_KEY`, `OPENAI_API_KEY` is taken for https://api.openai.com, and sent
    to no other host.

    Raises:
        ValueError: a variable is missing or wrong.
    """
    values = {name: _read(name) for name in NEEDED}
    if not values[KEY] and USUAL_URL.match(values[BASE_URL]):
        values[KEY] = _read(USUAL_KEY)
    missing = [f"{name} ({what})" for name, what in NEEDED.items() if not values[name]]
    if missing:
        raise ValueError(f"to judge stories, set in the environment: {'; '.join(missing)}")
    told = {"base_url": values[BASE_URL], "model": values[MODEL], "key": SecretStr(values[KEY])}
    for setting, (name, kind, what) in OPTIONAL.items():
        if text := _read(name):
            try:
                told[setting] = TypeAdapter(kind).validate_python(text)
            except ValidationError:
                raise ValueError(f"{name} is '{text}', not {what}") from None
    return told


def _read(name: str) -> str:
    return os.environ.get(name, "").strip()
