"""What the console shows of downloads and models."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from inkstream import models
from inkstream.display import Progress, clock, table
from inkstream.models import Download, Row, rows
from inkstream.words import Words, aligned, columns


def download(done: int, *, note: dict[str, str] | None = None) -> Download:
    return Download("tiny.gguf", "hub", done, 2_000_000, 500_000.0, 65.0, done / 2_000_000, note)


def note(en: str, zh: str = "") -> dict[str, str]:
    return {"en": en, "zh": zh}


def shown(is_terminal: bool, *reports: Download, lang: str = "en") -> str:
    stream = io.StringIO()
    progress = Progress(stream, Words("zh" if lang == "zh" else "en"), is_terminal)
    for report in reports:
        progress(report)
    progress.end()
    return stream.getvalue()


def test_a_terminal_shows_one_line_that_leaves_nothing_of_a_longer_one() -> None:
    text = shown(
        True, download(0, note=note("asking a hub that has a rather long name, twice")), download(1_000_000)
    )
    first, second = text.removeprefix("\r").removesuffix("\n").split("\r")
    assert columns(second) >= columns(first)
    assert second.rstrip() == "tiny.gguf   50%  1 MB / 2 MB  500 kB/s  1:05 left  from hub"


def test_a_line_never_outgrows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    wide = shown(True, download(0, note=note("waiting " * 40)))
    assert 40 < columns(wide.strip()) < 60


def test_elsewhere_only_what_is_new_gets_a_line() -> None:
    reports = [download(done) for done in range(0, 2_000_000, 1000)]
    text = shown(False, download(0, note=note("asking the hub")), *reports, download(2_000_000))
    assert [line.partition("  ")[0] for line in text.splitlines()] == [
        "tiny.gguf: asking the hub",
        "tiny.gguf",
        "tiny.gguf",
    ]
    assert "100%" in text
    assert "\r" not in text


def test_progress_speaks_chinese() -> None:
    assert "剩余 1:05" in shown(False, download(0), lang="zh")
    assert "tiny.gguf: 正在查询" in shown(False, download(0, note=note("asking", "正在查询")), lang="zh")


def test_a_clock_shows_minutes_and_seconds() -> None:
    assert [clock(0.4), clock(59.6), clock(3600)] == ["0:00", "1:00", "60:00"]


def test_cells_with_han_characters_are_aligned() -> None:
    lines = aligned([("名称", "大小"), ("a", "1 MB"), ("模型b", "22")]).splitlines()
    assert lines == ["名称   大小", "a      1 MB", "模型b  22"]


def test_what_is_here_comes_before_what_could_be_pulled_and_is_not_listed_twice() -> None:
    catalog = models.catalog()
    listed = rows([], catalog, 8192)
    assert [row.name for row in listed] == [alias.name for alias in catalog]
    assert {row.path for row in listed} == {""}


def test_a_model_that_does_not_fit_says_so() -> None:
    big = Row("big", 10**12, 2 * 10**12, False, "en", str(Path("/models/big.gguf")))
    head, line = table([big], Words("en")).splitlines()
    assert line.split() == ["big", "1000.0", "GB", "2000.0", "GB", "no", "yes", "en"]
    assert head.split() == ["NAME", "SIZE", "MEMORY", "FITS", "HERE", "LANGUAGES"]
