"""Tables: means with their spread, and three files that say the same."""

import numpy as np
import pandas as pd
import pytest

from linlib.tables import best_of_column, mean_and_sd, save_table, spread_table


def runs():
    rows = [
        {"model": model, "task": task, "seed": seed, "change": base + seed / 100}
        for model, base in (("Llama (tiny)", 0.1), ("GPT-2 (tiny)", -0.2))
        for task in ("multirc", "boolq")
        for seed in range(3)
        if (model, task) != ("GPT-2 (tiny)", "boolq")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.1, 0.11, 0.12], "+0.110 ± 0.010"),
        ([-0.2], "-0.200"),
        ([np.nan, 0.5, 0.7], "+0.600 ± 0.141"),
        ([np.nan], ""),
    ],
)
def test_mean_and_standard_deviation(values, text):
    assert mean_and_sd(values) == text


def test_the_sign_of_positive_means_can_be_left_out():
    assert mean_and_sd([0.1, 0.12], 2, sign="") == "0.11 ± 0.01"
    assert mean_and_sd([-0.5], 1, sign="") == "-0.5"


def test_the_best_of_a_column_is_bold_in_text_and_plain_in_numbers(tmp_path):
    table = pd.DataFrame(
        {"a": ["9.5 ± 0.1", "10.2 ± 3.0", ""], "b": [1.5, 0.5, 1.5]}, index=["x", "y", "z"]
    ).rename_axis("model")
    bold = best_of_column(table)
    assert bold["a"].tolist() == ["9.5 ± 0.1", "**10.2 ± 3.0**", ""]
    assert bold["b"].tolist() == ["**1.5**", "0.5", "**1.5**"]
    save_table(bold, tmp_path / "t")
    assert "**10.2 ± 3.0**" in (tmp_path / "t.md").read_text()
    assert r"\textbf{10.2 $\pm$ 3.0}" in (tmp_path / "t.tex").read_text()
    assert "*" not in (tmp_path / "t.csv").read_text()


def test_cells_keep_the_order_of_the_frame_and_gaps_stay_empty():
    table = spread_table(runs(), ["model"], "task", "change")
    assert list(table.index) == ["Llama (tiny)", "GPT-2 (tiny)"]
    assert list(table.columns) == ["multirc", "boolq"]
    assert table.loc["Llama (tiny)", "boolq"] == "+0.110 ± 0.010"
    assert table.loc["GPT-2 (tiny)", "boolq"] == ""


def test_three_files_say_the_same(tmp_path):
    table = spread_table(runs().replace({"task": {"boolq": "bool_q"}}), ["model"], "task", "change")
    save_table(table, tmp_path / "tables" / "tab1")
    csv, markdown, latex = (
        (tmp_path / "tables" / f"tab1.{ending}").read_text() for ending in ("csv", "md", "tex")
    )
    read = pd.read_csv(tmp_path / "tables" / "tab1.csv", keep_default_na=False)
    assert read.set_index("model").equals(table.rename_axis(columns=None))
    assert [cell.strip() for cell in markdown.splitlines()[2].strip("|").split("|")] == [
        "Llama (tiny)", "+0.110 ± 0.010", "+0.110 ± 0.010"
    ]  # fmt: skip
    assert r"Llama (tiny) & +0.110 $\pm$ 0.010 & +0.110 $\pm$ 0.010 \\" in latex
    assert r"bool\_q" in latex and "multirc" in csv
