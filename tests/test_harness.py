"""The harness: its own numbers, its stock prompts on our rows, and bad definitions named."""

import json
import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from lm_eval.tasks import TaskManager
from lm_eval.utils import env
from test_models import tiny_config
from transformers import AutoModelForCausalLM

from linlib.corpora.storyworld.tasks import TASKS
from linlib.evaluate.harness import evaluate
from linlib.evaluate.tasks import CHANCE, COLUMNS, STOCK, local_tasks
from linlib.models import load_tokenizer
from linlib.store.paths import REPOSITORY
from linlib.tasks.record import choices, context, distinct, exact_match, score, target, token_f1

N_ROWS = 12
LENGTH = 512
DOCUMENTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Every block adds its contribution\n\nto the residual stream.",
    'Größe matters, said the "fox".',
    "A linear map.",
]
BOOLQ = {"question": "is the fox quick", "passage": "The fox is quick.", "label": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("LINLIB_ROOT", str(folder))
        yield folder


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
    told = {task: make("validation", N_ROWS) for task, make in TASKS.items()}
    return told | {"text": Dataset.from_dict({"text": DOCUMENTS})}


@pytest.fixture(scope="module")
def folder(home, rows):
    return local_tasks(rows)


@pytest.fixture(scope="module")
def measured(model, tokenizer, folder, rows):
    return in_memory(model, tokenizer, folder, rows)


def in_memory(model, tokenizer, folder, tasks, **settings):
    settings = {"max_length": LENGTH, "add_bos_token": True, "batch_size": 8} | settings
    return evaluate(model, tokenizer, [f"local_{task}" for task in tasks], folder, **settings)


def value(frame, task, metric):
    (found,) = frame[(frame.task == f"local_{task}") & (frame.metric == metric)].value
    return found


def stock(task, row):
    """Prompt, choices and target of a row, as the harness's stock definition has them."""
    match task:
        case "arc_easy":
            right = "ABCD".index(row["answerKey"])
            return f"Question: {row['question']}\nAnswer:", row["choices"]["text"], right
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
            told = [f" {ending[0].lower()}{ending[1:]}" for ending in endings]
            return f"{row['premise'][:-1]} {connector}", told, told[row["label"]]
        case "multirc":
            asked = f"{row['answer']}\nIs the answer correct?"
            prompt = f"{row['paragraph']}\nQuestion: {row['question']}\nAnswer:"
            return prompt, [f"{asked} yes", f"{asked} no"], row["label"]
        case "record":
            told = ["  - " + row["query"].replace("@placeholder", name) for name in row["entities"]]
            right = row["entities"].index(row["answers"][0])
            return f"{row['passage']}\n\n", told, told[right]
        case "rte":
            prompt = f"{row['premise']}\nQuestion: {row['hypothesis']} True or False?\nAnswer:"
            return prompt, ["True", "False"], row["label"]
        case "storycloze":
            prompt = " ".join(row[f"input_sentence_{number}"] for number in (1, 2, 3, 4))
            told = [row["sentence_quiz1"], row["sentence_quiz2"]]
            return prompt, told, row["answer_right_ending"] - 1
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
        told = model(padded[:, :-1]).logits.log_softmax(-1)
    told = told.gather(2, padded[:, 1:, None])[..., 0]
    return [
        scores[len(ids) - 1 - n : len(ids) - 1].sum().item()
        for scores, ids, n in zip(told, texts, n_choice, strict=True)
    ]


def scores_of(model, tokenizer, task, data, **settings):
    """Log-likelihoods of the choices of every row."""
    told = [stock(task, row)[:2] for row in data]
    pairs = [(prompt, choice) for prompt, options in told for choice in options]
    flat = iter(loglikelihoods(model, tokenizer, pairs, **settings))
    return [[next(flat) for _ in options] for _, options in told]


def accuracy(model, tokenizer, task, data, **settings):
    right = []
    for row, scores in zip(data, scores_of(model, tokenizer, task, data, **settings), strict=True):
        _, told, answer = stock(task, row)
        answer = answer if isinstance(answer, int) else told.index(answer)
        right.append(np.argmax(scores) == answer)
    return float(np.mean(right))


# Numbers


def test_the_numbers_are_those_of_the_harnesss_own_command_line(
    tmp_path, model, tokenizer, folder, rows, measured
):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    told = {"pretrained": tmp_path / "model", "dtype": "float32", "add_bos_token": True}
    told |= {"max_length": LENGTH}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in told.items())),
            *("--tasks", ",".join(f"local_{task}" for task in rows), "--batch_size", "8"),
            *("--include_path", str(folder), "--output_path", str(tmp_path / "results")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "results").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]
    theirs = {}
    for task, numbers in results.items():
        for key, number in numbers.items():
            metric, comma, _ = key.partition(",")
            if comma:
                theirs[task, metric] = np.nan if number == "N/A" else number
    ours = {}
    for row in measured[measured.metric != "token_perplexity"].itertuples():
        ours |= {(row.task, row.metric): row.value, (row.task, f"{row.metric}_stderr"): row.stderr}
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose([ours[key] for key in theirs], list(theirs.values()), rtol=1e-6)


def test_every_task_gives_its_metrics_and_counts_its_rows(measured, rows):
    metrics = {task: ["acc"] for task in TASKS}
    metrics |= {"arc_easy": ["acc", "acc_norm"], "cb": ["acc", "f1"], "record": ["f1", "em"]}
    metrics["text"] = ["word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity"]
    assert list(measured.columns) == ["task", "metric", "value", "stderr", "n"]
    found = [(row.task, row.metric, row.n) for row in measured.itertuples()]
    assert found == [(f"local_{t}", m, len(rows[t])) for t in rows for m in metrics[t]]
    assert measured.set_index("metric").stderr["acc"].gt(0).any()


def test_accuracy_is_that_of_plain_model_calls(model, tokenizer, rows, measured):
    tasks = sorted(TASKS.keys() - {"record"})
    plain = {task: accuracy(model, tokenizer, task, rows[task]) for task in tasks}
    assert {task: value(measured, task, "acc") for task in tasks} == pytest.approx(plain)
    assert len(set(plain.values())) > 2


def test_bos_opens_the_prompt_only_where_it_is_asked_for(model, tokenizer, folder, rows, measured):
    tasks = ["arc_easy", "copa", "storycloze", "wic"]
    without = in_memory(model, tokenizer, folder, tasks, add_bos_token=None)
    plain = {task: accuracy(model, tokenizer, task, rows[task], bos=False) for task in tasks}
    assert {task: value(without, task, "acc") for task in tasks} == pytest.approx(plain)
    assert plain != {task: value(measured, task, "acc") for task in tasks}
    assert tokenizer("fox")["input_ids"][0] != tokenizer.bos_token_id  # and is as it was


def test_the_normed_accuracy_is_by_characters(model, tokenizer, rows, measured):
    right, data = [], rows["arc_easy"]
    for row, scores in zip(data, scores_of(model, tokenizer, "arc_easy", data), strict=True):
        _, told, answer = stock("arc_easy", row)
        right.append(np.argmax(np.divide(scores, [len(choice) for choice in told])) == answer)
    assert value(measured, "arc_easy", "acc_norm") == pytest.approx(np.mean(right))


def test_a_prompt_longer_than_the_window_loses_its_beginning(
    model, tokenizer, folder, rows, measured
):
    tasks = ["boolq", "copa", "storycloze"]
    short = in_memory(model, tokenizer, folder, tasks, max_length=48)
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


def test_perplexities_by_their_definitions(model, tokenizer, folder):
    total, n_tokens = 0.0, 0
    for text in DOCUMENTS:
        body = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([tokenizer.bos_token_id, *body])
        with torch.no_grad():
            told = model(ids[None, :-1]).logits[0].log_softmax(-1)
        total += told.gather(1, ids[1:, None]).sum().item()
        n_tokens += len(body)
    n_words = sum(len(text.split()) for text in DOCUMENTS)
    n_bytes = sum(len(text.encode()) for text in DOCUMENTS)
    found = in_memory(model, tokenizer, folder, ["text"], add_bos_token=None)
    expected = {
        "word_perplexity": np.exp(-total / n_words),
        "byte_perplexity": np.exp(-total / n_bytes),
        "bits_per_byte": -total / n_bytes / np.log(2),
        "token_perplexity": np.exp(-total / n_tokens),
    }
    assert dict(zip(found.metric, found.value, strict=True)) == pytest.approx(expected, rel=1e-5)
    assert found.stderr.isna().all()


def test_a_limit_takes_the_first_rows(model, tokenizer, folder, rows):
    found = in_memory(model, tokenizer, folder, ["boolq", "storycloze", "text"], limit=3)
    assert set(found.n) == {3}
    for task in ("boolq", "storycloze"):
        plain = accuracy(model, tokenizer, task, rows[task].select(range(3)))
        assert value(found, task, "acc") == pytest.approx(plain)


def test_nothing_is_printed_and_the_log_level_comes_back(model, tokenizer, folder, capfd):
    logger = logging.getLogger("lm_eval")
    before = logger.level
    try:
        logger.setLevel(logging.DEBUG)
        in_memory(model, tokenizer, folder, ["boolq", "text"])
        told, errors = capfd.readouterr()
        errors = re.sub(r"fatal: not a git repository.*\n", "", errors)  # git's, in no checkout
        assert (told, errors) == ("", "")
        assert logger.level == logging.DEBUG
        with pytest.raises(ValueError):
            evaluate(model, tokenizer, ["local_boolq"], folder / "nothing")
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


# Prompts


@pytest.mark.parametrize("task", TASKS)
def test_our_rows_stand_under_the_stock_prompts(folder, rows, task):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    loaded = manager.load([f"local_{task}"])["tasks"][f"local_{task}"]
    docs = list(loaded.validation_docs())
    assert docs == list(rows[task])
    found = [
        (loaded.doc_to_text(doc), loaded.doc_to_choice(doc), loaded.doc_to_target(doc))
        for doc in docs
    ]
    assert found == [stock(task, row) for row in rows[task]]
    assert loaded.config.output_type == "multiple_choice"
    assert loaded.config.target_delimiter == " " and loaded.config.num_fewshot is None


def test_three_prompts_in_full(folder, rows):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    tasks = manager.load(["local_wic", "local_copa", "local_storycloze"])["tasks"]
    wic = {"sentence1": "A light lamp.", "sentence2": "It is light.", "start1": 2, "end1": 7}
    assert tasks["local_wic"].doc_to_text(wic) == (
        "Sentence 1: A light lamp.\nSentence 2: It is light.\nQuestion: Is the word 'light' used "
        "in the same way in the two sentences above?\nAnswer:"
    )
    copa = {"premise": "It rained.", "choice1": "The Pond is full.", "choice2": "A fox came."}
    copa |= {"question": "effect", "label": 1}
    assert tasks["local_copa"].doc_to_text(copa) == "It rained therefore"
    assert tasks["local_copa"].doc_to_choice(copa) == [" the Pond is full.", " a fox came."]
    assert tasks["local_copa"].doc_to_target(copa) == " a fox came."
    assert tasks["local_copa"].doc_to_text(copa | {"question": "cause"}) == "It rained because"
    cloze = {f"input_sentence_{n}": f"Sentence {n}." for n in (1, 2, 3, 4)}
    cloze |= {"sentence_quiz1": "An end.", "sentence_quiz2": "No end.", "answer_right_ending": 2}
    story = tasks["local_storycloze"]
    assert story.doc_to_text(cloze) == "Sentence 1. Sentence 2. Sentence 3. Sentence 4."
    assert story.doc_to_choice(cloze) == ["An end.", "No end."]
    assert story.doc_to_target(cloze) == 1


def test_a_text_is_scored_whole_and_as_it_stands(folder):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    loaded = manager.load(["local_text"])["tasks"]["local_text"]
    docs = list(loaded.validation_docs())
    assert [loaded.doc_to_target(doc) for doc in docs] == DOCUMENTS
    assert loaded.config.output_type == "loglikelihood_rolling"


def test_the_tables_name_every_task():
    assert COLUMNS.keys() == STOCK.keys() == {*TASKS, "text"}
    assert CHANCE.keys() == TASKS.keys()
    for task, data in ((task, make("train", 24)) for task, make in TASKS.items()):
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
def test_squad_metrics_by_hand(answer, truth, em, f1):
    assert exact_match(answer, truth) == em
    assert token_f1(answer, truth) == pytest.approx(f1)
    assert token_f1(truth, answer) == pytest.approx(f1)


def test_the_likeliest_entity_is_scored_by_its_best_answer():
    row = {"entities": ["Leo", "Mia Fox", "Zoe"], "answers": ["Mia", "the Fox Mia", "Anna"]}
    likeliest = [(-3.0, True), (-1.0, False), (-2.0, False)]
    assert score(row, likeliest) == {"f1": 1.0, "em": 0.0}
    assert score(row | {"answers": ["Mia", "Anna"]}, likeliest)["f1"] == pytest.approx(2 / 3)
    assert score(row | {"answers": ["Leo", "a mia fox"]}, likeliest) == {"f1": 1.0, "em": 1.0}
    assert score(row | {"answers": ["Leo", "Zoe"]}, likeliest) == {"f1": 0.0, "em": 0.0}


def test_summary_lines_are_a_list_and_the_query_is_its_last_line():
    row = {
        "passage": " Leo met Mia.\n@highlight\nThey are friends\n@highlight\nIt rained \n",
        "query": "@placeholder met Leo, said @placeholder.",
        "entities": ["Leo", "Mia"],
        "answers": ["Mia", "Zoe"],
    }
    assert context(row) == "Leo met Mia.\n\n  - They are friends.\n  - It rained.\n"
    assert context({"passage": "Leo met Mia."}) == "Leo met Mia.\n\n"
    assert choices(row) == ["  - Leo met Leo, said Leo.", "  - Mia met Leo, said Mia."]
    assert target(row) == "  - Mia met Leo, said Mia."


def test_entities_and_answers_are_taken_once():
    rows = Dataset.from_list([{"entities": ["b", "a", "b"], "answers": ["c", "c"], "query": "?"}])
    assert list(distinct(rows)) == [{"entities": ["a", "b"], "answers": ["c"], "query": "?"}]


# The folder of task files


def test_the_same_rows_have_one_folder_and_other_rows_another(home, folder, rows):
    data = {"boolq": Dataset.from_list([BOOLQ | {"passage": "Größe."}])}
    assert local_tasks(rows) == folder
    ours = local_tasks(data)
    assert ours == local_tasks(data) != folder and ours.is_relative_to(home)
    assert ours != local_tasks({"boolq": Dataset.from_list([BOOLQ])})
    assert [json.loads(line) for line in (ours / "boolq.jsonl").read_text().splitlines()] == [
        BOOLQ | {"passage": "Größe."}
    ]
    assert sorted(file.name for file in ours.glob("*.yaml")) == ["boolq.yaml", "hub_record.yaml"]
    assert [file.name for file in local_tasks({}).glob("*.yaml")] == ["hub_record.yaml"]


def test_rows_that_a_definition_cannot_read_are_named(home):
    with pytest.raises(ValueError, match=r"unknown task 'bolq'; choose from .*'boolq'"):
        local_tasks({"bolq": Dataset.from_list([BOOLQ])})
    with pytest.raises(ValueError, match="task 'boolq' has no rows"):
        local_tasks({"boolq": Dataset.from_list([BOOLQ]).select([])})
    lacking = Dataset.from_list([BOOLQ]).rename_column("passage", "text")
    with pytest.raises(ValueError, match=r"'boolq' lack the columns \['passage'\]; found .*'text'"):
        local_tasks({"boolq": lacking})


# Definitions that cannot be used


def test_an_unknown_task_is_named_with_the_nearest(model, tokenizer, folder):
    message = rf"no task 'local_bolq' in the harness or in {folder}; .*\['local_boolq'"
    with pytest.raises(ValueError, match=message):
        evaluate(model, tokenizer, ["local_cb", "local_bolq"], folder)


def test_a_tag_is_no_task(model, tokenizer, folder):
    with pytest.raises(ValueError, match="no task 'super-glue-lm-eval-v1'"):
        evaluate(model, tokenizer, ["super-glue-lm-eval-v1"], folder, limit=2)


def test_the_stock_record_is_refused_with_what_to_take_instead(model, tokenizer):
    with pytest.raises(ValueError, match="does not import on transformers 5; take 'hub_record'"):
        evaluate(model, tokenizer, ["record"])


def definition(**changes):
    told = {"task": "mine", "dataset_path": "json", "output_type": "multiple_choice"}
    told |= {"metric_list": [{"metric": "acc"}]} | changes
    return yaml.safe_dump({key: entry for key, entry in told.items() if entry is not None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"there is no task file \(\*\.yaml\) in FOLDER"),
        ("task: [mine", "task file FOLDER/mine.yaml is not YAML"),
        ("just words", "task file FOLDER/mine.yaml names no task; it needs the key 'task'"),
        ("", "task file FOLDER/mine.yaml names no task"),
        (definition(task=None), "task file FOLDER/mine.yaml names no task"),
        (definition(metric_list=None), r"FOLDER/mine.yaml lacks the keys \['metric_list'\], and"),
        ("task: mine", r"lacks the keys \['dataset_path', 'output_type', 'metric_list'\]"),
    ],
)
def test_a_definition_that_is_not_valid_is_named(tmp_path, model, tokenizer, text, message):
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message.replace("FOLDER", re.escape(str(tmp_path)))):
        evaluate(model, tokenizer, ["mine"], tmp_path)


LOCAL = {  # rows of one column and a label, two of them
    "dataset_kwargs": {"data_files": {"validation": "FOLDER/rows.jsonl"}},
    "validation_split": "validation",
    "doc_to_text": "{{text}}",
    "doc_to_choice": ["no", "yes"],
    "doc_to_target": "label",
}


def write_definition(folder, text):
    (folder / "rows.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    (folder / "a_file.yaml").write_text(text.replace("FOLDER", str(folder)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (definition(metric_list=[{"metric": "acx"}]), r"metrics \['acx'\]; .* \['acc'"),
        (
            definition(metric_list=[{"metric": "acx", "aggregation": "mean"}], **LOCAL),
            r"nobody knows its metrics \['acx'\]",
        ),
        (
            definition(metric_list=[{"metrik": "acc"}]),
            "has no metrics: its metric_list is .*metrik",
        ),
        (definition(metric_list=[]), r"has no metrics: its metric_list is \[\]"),
        (
            definition(metric_list=None) + "metric_list:\n",
            "has no metrics: its metric_list is None",
        ),
        (definition(frobs=3), "unexpected keyword argument 'frobs'"),
        (definition(output_type="multiple"), "invalid output_type 'multiple'"),
        (definition(include="gone.yaml"), "includes FOLDER/gone.yaml, which is no file"),
        (
            definition() + "doc_to_text: !function nomodule.fn",
            "module 'nomodule' for function 'fn'",
        ),
        (definition() + "doc_to_text: !function json.gone", "Module 'json' has no function 'gone'"),
        (
            definition(metric_list=None) + "metric_list:\n- metric: !function json.dumps\n",
            "a metric has no aggregation of its own; name one",
        ),
        (definition(**LOCAL | {"validation_split": "dev"}), "KeyError: 'dev'"),
        (definition(**LOCAL | {"doc_to_text": "{{text"}), "TemplateSyntaxError: unexpected end"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_with_its_name_and_file(
    tmp_path, model, tokenizer, text, message
):
    write_definition(tmp_path, text)
    with pytest.raises(
        ValueError, match=message.replace("FOLDER", re.escape(str(tmp_path)))
    ) as got:
        evaluate(model, tokenizer, ["mine"], tmp_path)
    assert f"task 'mine' of {tmp_path / 'a_file.yaml'} " in str(got.value)
    assert "record" not in str(got.value)


def test_a_task_without_rows_is_no_wrong_definition(tmp_path, model, tokenizer):
    write_definition(tmp_path, definition(**LOCAL))
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="rows.jsonl"):
        evaluate(model, tokenizer, ["mine"], tmp_path)


def test_a_group_and_metrics_of_ones_own_are_valid(tmp_path, model, tokenizer):
    own = [{"metric": "mine"}, {"metric": "acc"}]
    told = definition(metric_list=own, **LOCAL) + "process_results: !function own.results\n"
    write_definition(tmp_path, told.replace("metric: mine", "metric: mine\n  aggregation: mean"))
    (tmp_path / "own.py").write_text("def results(doc, found):\n    return {'mine': 3, 'acc': 1}\n")
    (tmp_path / "both.yaml").write_text("group: both\ntask: [mine]\n")
    found = evaluate(model, tokenizer, ["mine"], tmp_path, max_length=LENGTH)
    assert dict(zip(found.metric, found.value, strict=True)) == {"mine": 3, "acc": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [mine, yours]", "names no task; .* or 'group' beside a list of tasks"),
        ("task: mine\ninclude: a_file.yaml", "includes .*a_file.yaml more than once"),
        ("task: mine\ninclude: rows.jsonl", "rows.jsonl, which holds no keys"),
    ],
)
def test_a_list_without_a_group_and_a_strange_include_are_named(
    tmp_path, model, tokenizer, text, message
):
    write_definition(tmp_path, text)
    (tmp_path / "rows.jsonl").write_text("[1, 2]\n")
    with pytest.raises(ValueError, match=message) as got:
        evaluate(model, tokenizer, ["mine"], tmp_path)
    assert f"task file {tmp_path / 'a_file.yaml'} " in str(got.value)


def test_a_definition_may_include_its_keys_from_another(tmp_path, model, tokenizer, folder):
    (tmp_path / "mine.yaml").write_text(f"include: {folder / 'boolq.yaml'}\ntask: mine\n")
    found = evaluate(model, tokenizer, ["mine"], tmp_path, max_length=LENGTH, limit=4)
    assert [*found.task, *found.metric, *found.n] == ["mine", "acc", 4]


def test_checking_a_definition_runs_nothing_of_it(tmp_path, model, tokenizer):
    ran = tmp_path / "ran"
    (tmp_path / "bad.py").write_text(f"open({str(ran)!r}, 'w')\n\ndef text(row):\n    return ''\n")
    (tmp_path / "a.yaml").write_text(definition() + "doc_to_text: !function bad.text\n")
    (tmp_path / "b.yaml").write_text("task: b")
    with pytest.raises(ValueError, match=r"b.yaml lacks the keys"):
        evaluate(model, tokenizer, ["mine"], tmp_path)
    assert not ran.exists()


def test_the_harness_has_its_own_templates_back(model, tokenizer, folder):
    before = env.from_string
    evaluate(model, tokenizer, ["local_copa"], folder, limit=2)
    assert env.from_string == before
    with pytest.raises(ValueError, match="there is no task 'nothing'"):
        evaluate(model, tokenizer, ["nothing"], folder)
    assert env.from_string == before
