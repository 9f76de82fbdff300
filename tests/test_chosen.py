"""Which model counts: the chosen, the configured, or the one on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkstream import chosen
from inkstream.chosen import Chosen
from inkstream.config import Settings
from inkstream.errors import LogUnwritable


def configured(folder: Path, model: str = "a") -> Settings:
    return Settings(data_dir=folder, model=model)


def test_without_a_choice_the_configured_model_counts(tmp_path: Path) -> None:
    assert chosen.begin(configured(tmp_path), is_named=False).model == "a"
    assert chosen.in_effect(configured(tmp_path)).model == "a"


def test_a_choice_counts_as_long_as_the_configuration_is_the_same(tmp_path: Path) -> None:
    chosen.write(tmp_path, Chosen("b", instead_of="a"))
    assert chosen.in_effect(configured(tmp_path)).model == "b"
    assert chosen.begin(configured(tmp_path), is_named=False).model == "b"
    assert chosen.begin(configured(tmp_path, "c"), is_named=False).model == "c"
    # The later word ended it.
    assert chosen.begin(configured(tmp_path), is_named=False).model == "a"


def test_the_command_line_comes_first_and_ends_a_choice(tmp_path: Path) -> None:
    chosen.write(tmp_path, Chosen("b", instead_of="a"))
    assert chosen.begin(configured(tmp_path), is_named=True).model == "a"
    assert chosen.read(tmp_path) is None


def test_what_was_only_tried_is_not_what_counts(tmp_path: Path) -> None:
    chosen.write(tmp_path, Chosen("b", instead_of="a", trying="c"))
    assert chosen.begin(configured(tmp_path), is_named=False).model == "b"
    assert chosen.read(tmp_path) == Chosen("b", instead_of="a")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": "b"}', "\xff"])
def test_a_file_that_cannot_be_read_is_no_choice(tmp_path: Path, content: str) -> None:
    (tmp_path / chosen.FILE).write_bytes(content.encode("latin-1"))
    assert chosen.read(tmp_path) is None
    assert chosen.begin(configured(tmp_path), is_named=False).model == "a"


def test_a_choice_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / chosen.FILE).mkdir()
    with pytest.raises(LogUnwritable, match=chosen.FILE):
        chosen.write(tmp_path, Chosen("b", instead_of="a"))
