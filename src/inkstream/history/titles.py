"""The title that a conversation gets from its first question."""

from __future__ import annotations

import regex

TITLE_CHARS = 60
WORD_CHARS = 20


def title_of(text: str) -> str:
    """The first line that says something, cut before a word if one ends near, never inside a character."""
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    if len(line) <= TITLE_CHARS:
        return line
    room = TITLE_CHARS - 1
    ends = [found.end() for found in regex.finditer(r"\X", line[: TITLE_CHARS + WORD_CHARS])]
    cut = max((end for end in ends if end <= room), default=room)
    blank = line.rfind(" ", room - WORD_CHARS, cut + 1)
    return f"{line[: blank if blank > 0 else cut].rstrip()}…"
