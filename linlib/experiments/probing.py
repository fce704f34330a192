"""Figure 5: can a linear probe tell the right ending of a story, at each layer?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from datasets import Dataset

from linlib.corpora.benchmarks import load_task
from linlib.experiments.subjects import Measurement
from linlib.experiments.variants import evaluated_variants, measure_each, record_of
from linlib.models import load_model, load_tokenizer
from linlib.pretrain.jobs import TrainedModel
from linlib.probe import last_token_states, probe_layers
from linlib.profiles import Profile

TRAINED, UNTRAINED, SHUFFLED = "trained", "untrained weights", "shuffled labels"


def measure(profile: Profile) -> Measurement:
    """Probe the states at the last token of stories with their right or their wrong ending.

    One row a model, control and layer. Controls: the same probes on the weights that training
    began with, and on labels that say nothing.

    Raises:
        ValueError: the profile pretrains or evaluates nothing.
    """
    settings, variants = evaluated_variants(profile, "Figure 5")
    variants = [one for one in variants if one.variant in settings.probe_variants]
    rows = load_task(settings.source, "storycloze", "validation", settings.probe_stories)
    texts, labels, stories = endings(rows)
    options = {
        "texts": texts,
        "labels": labels,
        "stories": stories,
        "batch_size": settings.batch_size,
        "device": profile.device,
    }
    code = ("probe.py", "models", "experiments/probing.py", "intervals.py")
    frame = measure_each("probed", _probes, variants, options, settings.workers, code)
    record = record_of(profile, variants, probed=f"storycloze, {settings.source}, validation")
    return Measurement({"": frame}, record)


def endings(rows: Dataset) -> tuple[list[str], list[int], list[int]]:
    """Two texts a story, one with each ending; whether it is the right one; and whose it is."""
    texts, labels, stories = [], [], []
    for number, row in enumerate(rows):
        told = " ".join(row[f"input_sentence_{sentence}"] for sentence in range(1, 5))
        for ending in (1, 2):
            texts.append(f"{told} {row[f'sentence_quiz{ending}']}")
            labels.append(int(row["answer_right_ending"] == ending))
            stories.append(number)
    return texts, labels, stories


def _probes(folder: Path, options: Mapping[str, object]) -> pd.DataFrame:
    """Probes of one model and of its controls; the split is the same for all models."""
    tokenizer = load_tokenizer(folder)
    opened = [(tokenizer.bos_token or "") + text for text in options["texts"]]
    asked = (options["labels"], options["stories"])
    frames = []
    for weights, source in (
        (TRAINED, folder),
        (UNTRAINED, TrainedModel(folder.name, folder).checkpoints[0]),
    ):
        model = load_model(source, device=options["device"])
        states = last_token_states(model, tokenizer, opened, options["batch_size"])
        frames.append(probe_layers(states, *asked).assign(control=weights))
        if weights == TRAINED:
            null = probe_layers(states, *asked, shuffle_labels=True)
            frames.append(null.assign(control=SHUFFLED))
    return pd.concat(frames, ignore_index=True)
