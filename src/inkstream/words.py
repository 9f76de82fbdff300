"""What the console says, in English and in Chinese.

The two texts stand side by side where they are used, so that neither is forgotten:
``say("port 80 is taken", "端口 80 已被占用")``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

Language = Literal["en", "zh"]

# A Han character or a word. Closing punctuation stays with what it closes: it never starts a line.
UNBREAKABLE = re.compile(
    "(?:[\u3000-\u9fff\uff00-\uffef]|[^\\s\u3000-\u9fff\uff00-\uffef]+)[\uff0c\u3002\u3001\uff1b\uff1a\uff1f\uff01\uff09\u300b\u201d]*\\s*"
)


def language(environ: Mapping[str, str]) -> Language:
    """INKSTREAM_LANG, else the locale, in the order in which POSIX reads its variables."""
    names = ("INKSTREAM_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    chosen = next((environ[name] for name in names if environ.get(name)), "")
    return "zh" if chosen.lower().startswith("zh") else "en"


class Words:
    """Chooses between two texts."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, en: str, zh: str) -> str:
        return zh if self.language == "zh" else en


def columns(text: str) -> int:
    """How many terminal columns the text takes: a Han character takes two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def pad(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table, two blanks between its columns."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(pad, row, widths)).rstrip() for row in rows)


def wrap(text: str, width: int) -> list[str]:
    """Break into lines of at most ``width`` columns: at spaces, and between Han characters."""
    lines, line = [], ""
    for piece in UNBREAKABLE.findall(text):
        if line and columns((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return [*lines, line.rstrip()]
