"""The harness: its own numbers, its stock prompts on our rows, and bad input named."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import lm_eval.tasks
import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from lm_eval.tasks import TaskManager
from lm_eval.utils import env
from test_models import tiny_config
from transformers import AutoModelForCausalLM

from linlib.evaluate.harness import (
    CHANCE,
    COLUMNS,
    TABLE_2,
    TASKS,
    _definition,
    answers,
    evaluate,
)
from linlib.models import load_tokenizer
from linlib.stats import binomial_interval
from storyworld import TASKS as WORLD

N_ROWS = 12
LENGTH = 512
BOOLQ = {"question": "is the fox quick", "passage": "The fox is quick.", "label": 1}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Random, and far enough from zero that the choices of a prompt differ."""
    torch.manual_seed(0)
    config = tiny_config("llama")
    config.vocab_size, config.max_position_embeddings = len(tokenizer), LENGTH
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def rows():
    return {task: make("validation", N_ROWS) for task, make in WORLD.items()}


@pytest.fixture(scope="module")
def measured(model, tokenizer, rows):
    return in_memory(model, tokenizer, rows)


def in_memory(model, tokenizer, rows, tasks=None, **settings):
    settings = {"max_length": LENGTH, "add_bos_token": True, "batch_size": 8} | settings
    return evaluate(model, tokenizer, list(tasks or rows), rows=rows, **settings)


def value(frame, task, metric):
    (found,) = frame[(frame.task == task) & (frame.metric == metric)].value
    return found


def loaded(task, rows):
    manager = TaskManager(include_defaults=False)
    return manager.load([_definition(task, rows)])["tasks"][task]


def stock(task, row):
    """Prompt, choices and target of a row, as the harness's stock definition has them."""
    match task:
        case "arc_easy":
            right = "ABCD".index(row["answerKey"])
            return f"Question: {row['question']}\nAnswer:", row["choices"]["text"], right
        case "continuation":
            return row["question"], row["choices"]["text"], "ABCD".index(row["answerKey"])
        case "boolq":
            prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
            return prompt, ["no", "yes"], row["label"]
        case "cb":
            question = f"{row['hypothesis']}. True, False, or Neither?"
            prompt = f"{row['premise']}\nQuestion: {question}\nAnswer:"
            return prompt, ["True", "False", "Neither"], row["label"]
        case "copa":
            connector = {"cause": "because", "effect": "therefore"}[row["question"]]
            endings = [row["choice1"], row["choice2"]]
            options = [f" {ending[0].lower()}{ending[1:]}" for ending in endings]
            return f"{row['premise'][:-1]} {connector}", options, options[row["label"]]
        case "multirc":
            asked = f"{row['answer']}\nIs the answer correct?"
            prompt = f"{row['paragraph']}\nQuestion: {row['question']}\nAnswer:"
            return prompt, [f"{asked} yes", f"{asked} no"], row["label"]
        case "record":
            options = [
                "  - " + row["query"].replace("@placeholder", name) for name in row["entities"]
            ]
            right = row["entities"].index(row["answers"][0])
            return f"{row['passage']}\n\n", options, options[right]
        case "rte":
            prompt = f"{row['premise']}\nQuestion: {row['hypothesis']} True or False?\nAnswer:"
            return prompt, ["True", "False"], row["label"]
        case "storycloze":
            prompt = " ".join(row[f"input_sentence_{number}"] for number in (1, 2, 3, 4))
            options = [row["sentence_quiz1"], row["sentence_quiz2"]]
            return prompt, options, row["answer_right_ending"] - 1
        case "wic":
            word = row["sentence1"][row["start1"] : row["end1"]]
            lines = [f"Sentence 1: {row['sentence1']}", f"Sentence 2: {row['sentence2']}"]
            asked = f"Question: Is the word '{word}' used in the same way in the two sentences"
            return "\n".join([*lines, f"{asked} above?", "Answer:"]), ["no", "yes"], row["label"]


def loglikelihoods(model, tokenizer, pairs, *, bos=True, length=LENGTH):
    """Of each choice after its prompt; white space between them is the choice's."""
    begin = [tokenizer.bos_token_id] if bos else []
    texts, n_choice = [], []
    for prompt, choice in pairs:
        ids = begin + tokenizer(f"{prompt} {choice}", add_special_tokens=False)["input_ids"]
        before = begin + tokenizer(prompt.rstrip(), add_special_tokens=False)["input_ids"]
        texts.append(torch.tensor(ids[-(length + 1) :]))
        n_choice.append(len(ids) - len(before))
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)  # on the right: not seen
    with torch.no_grad():
        logprobs = model(padded[:, :-1]).logits.log_softmax(-1)
    logprobs = logprobs.gather(2, padded[:, 1:, None])[..., 0]
    return [
        scores[len(ids) - 1 - n : len(ids) - 1].sum().item()
        for scores, ids, n in zip(logprobs, texts, n_choice, strict=True)
    ]


def scores_of(model, tokenizer, task, data, **settings):
    """Log-likelihoods of the choices of every row."""
    prompts = [stock(task, row)[:2] for row in data]
    pairs = [(prompt, choice) for prompt, options in prompts for choice in options]
    flat = iter(loglikelihoods(model, tokenizer, pairs, **settings))
    return [[next(flat) for _ in options] for _, options in prompts]


def accuracy(model, tokenizer, task, data, **settings):
    right = []
    for row, scores in zip(data, scores_of(model, tokenizer, task, data, **settings), strict=True):
        _, options, answer = stock(task, row)
        answer = answer if isinstance(answer, int) else options.index(answer)
        right.append(np.argmax(scores) == answer)
    return float(np.mean(right))


# Numbers


def write_task_files(folder, rows):
    """Task files of the harness's own kind: the stock definition included, its rows replaced."""
    for task, data in rows.items():
        data.to_json(folder / f"{task}.jsonl")
        own = {
            "task": task,
            "include": str(Path(lm_eval.tasks.__file__).parent / TASKS[task][0]),
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"validation": str(folder / f"{task}.jsonl")}},
            "training_split": None,
            "validation_split": "validation",
            "test_split": None,
        }
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(own))


def test_the_numbers_are_those_of_the_command_line_of_the_harness(
    tmp_path, model, tokenizer, rows, measured
):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    stock_ones = {
        task: data for task, data in rows.items() if task != "record"
    }  # which cannot be imported there
    (tmp_path / "tasks").mkdir()
    write_task_files(tmp_path / "tasks", stock_ones)
    options = {"pretrained": tmp_path / "model", "dtype": "float32", "add_bos_token": True}
    options |= {"max_length": LENGTH}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in options.items())),
            *("--tasks", ",".join(stock_ones), "--batch_size", "8"),
            *("--include_path", str(tmp_path / "tasks")),
            *("--output_path", str(tmp_path / "results")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "results").rglob("results_*.json")
    theirs = {}
    for task, numbers in json.loads(file.read_text())["results"].items():
        for key, number in numbers.items():
            metric, comma, _ = key.partition(",")
            if comma:
                theirs[task, metric] = np.nan if number == "N/A" else number
    ours = {}
    for row in measured[measured.task.isin(stock_ones)].itertuples():
        ours |= {(row.task, row.metric): row.value, (row.task, f"{row.metric}_stderr"): row.stderr}
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose([ours[key] for key in theirs], list(theirs.values()), rtol=1e-6)
    again = in_memory(tmp_path / "model", tmp_path / "model", rows, ["boolq", "cb"])
    both = measured[measured.task.isin(["boolq", "cb"])]  # a folder gives the same scores
    assert again.value.tolist() == pytest.approx(both.value.tolist())


def test_every_task_gives_its_metrics_and_counts_its_rows(measured, rows):
    metrics = {task: ["acc"] for task in WORLD}
    metrics |= {"arc_easy": ["acc", "acc_norm"], "cb": ["acc", "f1"], "record": ["f1", "em"]}
    assert list(measured.columns) == COLUMNS
    found = [(row.task, row.metric, row.n) for row in measured.itertuples()]
    assert found == [(t, m, len(rows[t])) for t in rows for m in metrics[t]]
    assert measured.set_index("metric").stderr["acc"].gt(0).any()


def test_shares_have_a_chance_and_an_interval_and_other_metrics_have_none(measured, rows):
    shares = measured[measured.metric.isin(["acc", "acc_norm", "em"])]
    assert len(shares) == 10 and shares.chance.tolist() == shares.task.map(CHANCE).tolist()
    for row in shares.itertuples():
        assert (row.low, row.high) == binomial_interval(round(row.value * row.n), row.n)
        assert row.low <= row.value <= row.high
    others = measured.drop(shares.index)
    assert len(others) == 2 and others[["chance", "low", "high"]].isna().all(axis=None)


def test_guessing_among_any_number_of_entities_has_no_chance(model, tokenizer, rows):
    row = rows["record"][0]
    more = Dataset.from_list([row, row | {"entities": [*row["entities"], "Someone Else"]}])
    found = in_memory(model, tokenizer, {"record": more})
    assert found.chance.isna().all() and found.low.notna().tolist() == [False, True]


def test_accuracy_is_that_of_plain_model_calls(model, tokenizer, rows, measured):
    tasks = sorted(WORLD.keys() - {"record"})
    plain = {task: accuracy(model, tokenizer, task, rows[task]) for task in tasks}
    assert {task: value(measured, task, "acc") for task in tasks} == pytest.approx(plain)
    assert len(set(plain.values())) > 2


def test_bos_opens_the_prompt_only_where_it_is_asked_for(model, tokenizer, rows, measured):
    tasks = ["arc_easy", "copa", "storycloze", "wic"]
    without = in_memory(model, tokenizer, rows, tasks, add_bos_token=None)
    plain = {task: accuracy(model, tokenizer, task, rows[task], bos=False) for task in tasks}
    assert {task: value(without, task, "acc") for task in tasks} == pytest.approx(plain)
    assert plain != {task: value(measured, task, "acc") for task in tasks}
    assert tokenizer("fox")["input_ids"][0] != tokenizer.bos_token_id  # and is as it was


def test_the_normed_accuracy_is_by_characters(model, tokenizer, rows, measured):
    right, data = [], rows["arc_easy"]
    for row, scores in zip(data, scores_of(model, tokenizer, "arc_easy", data), strict=True):
        _, options, answer = stock("arc_easy", row)
        right.append(np.argmax(np.divide(scores, [len(choice) for choice in options])) == answer)
    assert value(measured, "arc_easy", "acc_norm") == pytest.approx(np.mean(right))


def test_a_prompt_longer_than_the_window_loses_its_beginning(model, tokenizer, rows, measured):
    tasks = ["boolq", "copa", "storycloze"]
    short = in_memory(model, tokenizer, rows, tasks, max_length=48)
    plain = {task: accuracy(model, tokenizer, task, rows[task], length=48) for task in tasks}
    assert {task: value(short, task, "acc") for task in tasks} == pytest.approx(plain)
    assert plain != {task: value(measured, task, "acc") for task in tasks}


def test_the_entity_of_record_is_the_likeliest(model, tokenizer, rows, measured):
    data = rows["record"]
    right = [
        row["entities"][np.argmax(scores)] == row["answers"][0]
        for row, scores in zip(data, scores_of(model, tokenizer, "record", data), strict=True)
    ]
    assert 0 < sum(right) < N_ROWS
    assert value(measured, "record", "em") == pytest.approx(np.mean(right))
    assert value(measured, "record", "f1") == pytest.approx(np.mean(right))  # single names


def test_a_limit_takes_the_first_rows(model, tokenizer, rows):
    found = in_memory(model, tokenizer, rows, ["boolq", "storycloze"], limit=3)
    assert set(found.n) == {3}
    for task in ("boolq", "storycloze"):
        plain = accuracy(model, tokenizer, task, rows[task].select(range(3)))
        assert value(found, task, "acc") == pytest.approx(plain)


def test_nothing_is_printed_and_the_log_level_comes_back(
    model, tokenizer, rows, capfd, monkeypatch, tmp_path
):
    logger = logging.getLogger("lm_eval")
    before = logger.level
    monkeypatch.chdir(tmp_path)  # not even that this is no git repository
    try:
        logger.setLevel(logging.DEBUG)
        in_memory(model, tokenizer, rows, ["boolq", "record"])
        assert capfd.readouterr() == ("", "")
        assert logger.level == logging.DEBUG
        with pytest.raises(ValueError):
            evaluate(model, tokenizer, ["no such task"])
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


# Answers, item by item


@pytest.fixture(scope="module")
def sentences():
    """Items in ARC's columns that go on with a text."""
    words = "The fox met a bear. They sat by the pond. It began to rain. Both ran home.".split(". ")
    items = []
    for number in range(10):
        texts = [f"{words[(number + k) % 4].rstrip('.')} {k}." for k in range(4)]
        choices, right = {"text": texts, "label": list("ABCD")}, number % 4
        question = f"This is story {number}. It has {number % 3} friends."
        item = {"id": str(number), "question": question, "choices": choices}
        items.append(item | {"answerKey": "ABCD"[right]})
    return Dataset.from_list(items)


def test_a_continuation_is_plain_text_after_plain_text(model, tokenizer, sentences):
    task = loaded("continuation", sentences)
    assert [
        (task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc))
        for doc in task.validation_docs()
    ] == [stock("continuation", row) for row in sentences]
    assert task.config.target_delimiter == " "
    assert task.config.output_type == "multiple_choice"
    found = in_memory(model, tokenizer, {"continuation": sentences})
    plain = accuracy(model, tokenizer, "continuation", sentences)
    assert value(found, "continuation", "acc") == pytest.approx(plain)
    assert found.chance.iloc[0] == 1 / 4 and loaded("arc_easy", sentences).doc_to_text(
        sentences[0]
    ).startswith("Question: ")  # whose definition is as it was


@pytest.mark.parametrize("task", ["continuation", "arc_easy", "boolq"])
def test_answers_are_right_where_the_likeliest_choice_is(model, tokenizer, rows, sentences, task):
    data = sentences if task == "continuation" else rows[task]
    settings = {"max_length": LENGTH, "add_bos_token": True, "batch_size": 8}
    found = answers(model, tokenizer, task, rows={task: data}, **settings)
    scores = scores_of(model, tokenizer, task, data)
    right = [
        int(np.argmax(each) == stock(task, row)[2])
        for row, each in zip(data, scores, strict=True)
    ]  # fmt: skip
    assert list(found.columns) == ["item", "correct"]
    assert found.item.tolist() == list(range(len(data))) and found.correct.tolist() == right
    few = answers(model, tokenizer, task, rows={task: data}, limit=3, **settings)
    assert few.correct.tolist() == right[:3]


def test_answers_to_record_are_right_where_they_are_exact(model, tokenizer, rows, measured):
    settings = {"max_length": LENGTH, "add_bos_token": True, "batch_size": 8}
    found = answers(model, tokenizer, "record", rows=rows, **settings)
    assert found.correct.mean() == pytest.approx(value(measured, "record", "em"))


def test_a_continuation_without_rows_says_where_they_are(model, tokenizer):
    for function in (evaluate, answers):
        task = "continuation" if function is answers else ["continuation"]
        with pytest.raises(ValueError, match=r"needs rows, .*load_task\('pydocs', 'continuation'"):
            function(model, tokenizer, task)


# Prompts


@pytest.mark.parametrize("task", WORLD)
def test_our_rows_stand_under_the_stock_prompts(rows, task):
    found = loaded(task, rows[task])
    docs = list(found.validation_docs())
    assert docs == list(rows[task])
    prompts = [
        (found.doc_to_text(doc), found.doc_to_choice(doc), found.doc_to_target(doc)) for doc in docs
    ]
    assert prompts == [stock(task, row) for row in rows[task]]
    assert found.config.output_type == "multiple_choice"
    assert found.config.target_delimiter == " " and found.config.num_fewshot is None


def test_three_prompts_in_full(rows):
    wic = {"sentence1": "A light lamp.", "sentence2": "It is light.", "start1": 2, "end1": 7}
    assert loaded("wic", rows["wic"]).doc_to_text(wic) == (
        "Sentence 1: A light lamp.\nSentence 2: It is light.\nQuestion: Is the word 'light' used "
        "in the same way in the two sentences above?\nAnswer:"
    )
    copa = {"premise": "It rained.", "choice1": "The Pond is full.", "choice2": "A fox came."}
    copa |= {"question": "effect", "label": 1}
    task = loaded("copa", rows["copa"])
    assert task.doc_to_text(copa) == "It rained therefore"
    assert task.doc_to_choice(copa) == [" the Pond is full.", " a fox came."]
    assert task.doc_to_target(copa) == " a fox came."
    assert task.doc_to_text(copa | {"question": "cause"}) == "It rained because"
    cloze = {f"input_sentence_{n}": f"Sentence {n}." for n in (1, 2, 3, 4)}
    cloze |= {"sentence_quiz1": "An end.", "sentence_quiz2": "No end.", "answer_right_ending": 2}
    story = loaded("storycloze", rows["storycloze"])
    assert story.doc_to_text(cloze) == "Sentence 1. Sentence 2. Sentence 3. Sentence 4."
    assert story.doc_to_choice(cloze) == ["An end.", "No end."]
    assert story.doc_to_target(cloze) == 1


def test_without_rows_a_task_is_the_stock_one_on_the_rows_of_the_hub():
    hub = {task: _definition(task, None) for task in TASKS}
    assert hub["boolq"]["dataset_path"] == hub["record"]["dataset_path"] == "aps/super_glue"
    assert hub["rte"]["dataset_name"] == "rte" and hub["storycloze"]["dataset_name"] == "en"
    assert not any("custom_dataset" in one for one in hub.values())
    assert {name: hub[name]["task"] for name in TASKS} == {name: name for name in TASKS}


def test_the_tables_name_every_task():
    assert TASKS.keys() == CHANCE.keys() == WORLD.keys() | {"continuation"}
    assert {task for task, _ in TABLE_2} == WORLD.keys() and len(set(TABLE_2.values())) == 11
    for task, data in ((task, make("train", 24)) for task, make in WORLD.items()):
        assert CHANCE[task] == pytest.approx(1 / len(stock(task, data[0])[1]))


# Record


@pytest.mark.parametrize(
    ("answer", "truth", "em", "f1"),
    [
        ("The Cat.", "cat", 1, 1),
        ("an owl", "A  owl!", 1, 1),
        ("theatre", "atre", 0, 0),  # an article is a word of its own
        ("U.S.", "us", 1, 1),
        ("well-known", "well known", 0, 0),
        ("New York City", "York City of New", 0, 6 / 7),
        ("York New", "New York", 0, 1),
        ("cat cat dog", "cat", 0, 1 / 2),  # the second cat is not shared
        ("cat cat", "cat cat cat", 0, 4 / 5),
        ("the", "A", 1, 1),
        ("", "", 1, 1),
        ("the", "cat", 0, 0),
        ("cat", "", 0, 0),
    ],
)
def test_squad_metrics_by_hand(rows, answer, truth, em, f1):
    task = loaded("record", rows["record"])
    for chosen, right in ((answer, truth), (truth, answer)):
        found = task.process_results({"entities": [chosen], "answers": [right]}, [(-1.0, True)])
        assert found == {"em": em, "f1": pytest.approx(f1)}


def test_the_likeliest_entity_is_scored_by_its_best_answer(rows):
    task = loaded("record", rows["record"])
    row = {"entities": ["Leo", "Mia Fox", "Zoe"], "answers": ["Mia", "the Fox Mia", "Anna"]}

    def score(row):
        return task.process_results(row, [(-3.0, True), (-1.0, False), (-2.0, False)])

    assert score(row) == {"f1": 1.0, "em": 0.0}
    assert score(row | {"answers": ["Mia", "Anna"]})["f1"] == pytest.approx(2 / 3)
    assert score(row | {"answers": ["Leo", "a mia fox"]}) == {"f1": 1.0, "em": 1.0}
    assert score(row | {"answers": ["Leo", "Zoe"]}) == {"f1": 0.0, "em": 0.0}


def test_entities_are_choices_once_after_the_summary_lines():
    row = {
        "passage": " Leo met Mia.\n@highlight\nThey are friends\n@highlight\nIt rained \n",
        "query": "@placeholder met Leo, said @placeholder.",
        "entities": ["Mia", "Leo", "Mia"],
        "answers": ["Mia", "Zoe", "Mia"],
    }
    task = loaded("record", Dataset.from_list([row]))
    (doc,) = task.validation_docs()
    assert task.doc_to_text(doc) == "Leo met Mia.\n\n  - They are friends.\n  - It rained.\n"
    assert task.doc_to_choice(doc) == ["  - Leo met Leo, said Leo.", "  - Mia met Leo, said Mia."]
    assert task.doc_to_target(doc) == "  - Mia met Leo, said Mia."


# What cannot be evaluated


def test_rows_that_a_definition_cannot_read_are_named(model, tokenizer):
    def refused(rows, message):
        with pytest.raises(ValueError, match=message):
            evaluate(model, tokenizer, ["boolq"], rows=rows)

    data = Dataset.from_list([BOOLQ])
    refused({"bolq": data}, r"rows for unknown task 'bolq'; choose from .*'boolq'")
    refused({"boolq": data.select([])}, "task 'boolq' has no rows")
    lacking = data.rename_column("passage", "text")
    refused({"boolq": lacking}, r"'boolq' lack the columns \['passage'\]; found .*'text'")


def test_an_unknown_task_is_named_with_the_nearest(model, tokenizer, rows):
    with pytest.raises(ValueError, match=r"there is no task 'bolq'; .*\['boolq'"):
        evaluate(model, tokenizer, ["cb", "bolq"], rows=rows)


def test_a_tag_is_no_task(model, tokenizer):
    with pytest.raises(ValueError, match="no task 'super-glue-lm-eval-v1'"):
        evaluate(model, tokenizer, ["super-glue-lm-eval-v1"], limit=2)


def test_the_harness_has_its_own_templates_back(model, tokenizer, rows):
    before = env.from_string
    in_memory(model, tokenizer, rows, ["copa"], limit=2)
    assert env.from_string == before
    with pytest.raises(ValueError, match="there is no task 'nothing'"):
        evaluate(model, tokenizer, ["nothing"])
    assert env.from_string == before
