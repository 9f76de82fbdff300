"""The command that fills the table: what it keeps of a row that is cut off, and what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.tiny_models import tokenizer
from torch_table.crew import Crew
from torch_table.report import TARGETS, targets_table
from torch_table.results import Results
from torch_table.rows import ROWS

pytestmark = [pytest.mark.real, pytest.mark.timeout(280)]


def test_a_row_that_takes_too_long_is_lost_and_the_next_is_measured(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    results = Results(tmp_path / "table.json")
    with Crew(tmp_path, None, rehearses=True) as crew:
        assert crew.measure("first-token", 100, results) == "done"
        assert crew.measure("speed", 0.001, results) == "cut off: it took too long"
        results.end("speed", "cut off: it took too long", 0.0)
        assert crew.measure("floor", 100, results) == "done"
    kept = json.loads((tmp_path / "table.json").read_text())
    assert kept["machine"]["device"] is not None
    assert kept["rows"]["first-token"]["figures"]["ms_p50"] > 0
    assert kept["rows"]["floor"]["figures"]["bytes_per_second"] > 0
    assert not Results(tmp_path / "table.json").has("speed")


def test_figures_are_in_the_file_as_they_come(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    results = Results(file)
    results.begin("speed")
    results.add("speed", {"1 greedy": {"tokens_per_second": 1200.0}})
    again = Results(file)
    assert again.rows["speed"]["figures"] == {"1 greedy": {"tokens_per_second": 1200.0}}
    assert not again.has("speed"), "it has not ended"
    results.end("speed", "done", 1.0)
    assert Results(file).has("speed")


def test_targets_are_held_against_what_was_measured() -> None:
    figures = {"1 greedy": {"tokens_per_second": 1447.2}, "32 greedy": {"tokens_per_second": 19_990.0}}
    rows: dict[str, Any] = {"speed": {"figures": figures}}
    lines = targets_table(rows).splitlines()
    assert "| 1 at a time, greedy | ≥ 1,000 tokens/s | 1,447 | holds |" in lines
    assert "| 32 at a time, greedy | ≥ 20,000 tokens/s | 1.999e+04 | missed |" in lines
    assert sum("not measured" in line for line in lines) == len(TARGETS) - 2
    assert {target.row for target in TARGETS} <= set(ROWS)
