"""Figure 3: the norm of a block's contribution beside the norm of the stream it is added to."""

from __future__ import annotations

import pandas as pd

from linlib.experiments.subjects import (
    Measurement,
    Subject,
    each,
    heldout_windows,
    provenance,
    subjects,
)
from linlib.measure import stream_norms
from linlib.profiles import Profile


def measure(profile: Profile) -> Measurement:
    """Norms and cosines of every block of every model."""
    everyone = subjects(profile)
    frames = each(profile, everyone, _norms)
    return Measurement({"": pd.concat(frames, ignore_index=True)}, provenance(profile, everyone))


def _norms(profile: Profile, subject: Subject) -> pd.DataFrame:
    model, tokenizer = subject.open(profile)
    windows, _ = heldout_windows(profile, tokenizer)
    frame = stream_norms(model, windows, batch_size=profile.measure.batch_size)
    frame.insert(0, "model", subject.name)
    return frame
