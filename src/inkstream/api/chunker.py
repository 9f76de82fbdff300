"""Cuts an answer into words or sentences while it is being written.

Where the borders lie is a function of the text from its beginning, never of the pieces in which it arrived:
a reader that comes back with the number of code points it has gets exactly the rest. The chunks concatenate
to the text, and each is given out as soon as no further text can change it, which takes the first character
behind it. The grain ``token`` is the exception: its chunks are the log's events as they are.

Deliberate rules, each with its reason; those of sentences are in ``sentences``:

- Blanks and blank lines belong to the chunk before them, indentation to the line that it indents. A chunk
  of blanks alone exists only where a text is nothing else.
- In the grain ``word`` a Han character or a kana is a word, with the punctuation that sticks to it, and
  code is cut at blanks like everything else.
- A chunk that reaches ``LONGEST`` of its grain is cut, never inside a grapheme unless one alone is as long.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import regex

from inkstream.api.sentences import (
    CLOSERS,
    EAST_ASIAN,
    GRAPHEME,
    LOOKBACK,
    OPENERS,
    WIDE_STOPS,
    Sentences,
)


class Grain(StrEnum):
    TOKEN = "token"
    WORD = "word"
    SENTENCE = "sentence"


LONGEST = {Grain.WORD: 64, Grain.SENTENCE: 400}
"""The bound on a chunk, in code points."""

SOFT_BREAK = frozenset(",，、;:：")


class Chunker:
    """Feed it the text as it comes; what it returns lies behind the first ``behind`` code points."""

    def __init__(self, grain: Grain, behind: int = 0) -> None:
        self._borders: _Borders | None = None
        if grain is not Grain.TOKEN:
            self._longest = LONGEST[grain]
            self._borders = _Words() if grain is Grain.WORD else Sentences()
        self._behind = behind
        self._text = ""  # from LOOKBACK before the present chunk
        self._start = 0

    def feed(self, text: str) -> list[str]:
        """The chunks that have become certain."""
        if self._borders is None:
            return self._unseen([text])
        self._text += text
        return self._unseen(self._chunks(self._borders))

    def flush(self) -> list[str]:
        """The rest, when the text has ended."""
        if self._borders is None:
            return []
        rest = self._chunks(self._borders, is_end=True)
        rest.append(self._text[self._start :])
        self._start = len(self._text)
        return self._unseen(rest)

    def _chunks(self, borders: _Borders, *, is_end: bool = False) -> list[str]:
        chunks = []
        while (end := self._next_end(borders, is_end)) is not None:
            chunks.append(self._text[self._start : end])
            self._start = end
        drop = max(0, self._start - LOOKBACK)
        self._text = self._text[drop:]
        self._start -= drop
        borders.shift(drop)
        return chunks

    def _next_end(self, borders: _Borders, is_end: bool) -> int | None:
        """Where the present chunk ends, if that is certain."""
        border = borders.next(self._text, self._start, self._longest)
        nearest = border
        if nearest is None:
            nearest = len(self._text) if is_end else borders.nearest(self._text)
        if nearest - self._start <= self._longest:
            return border
        return self._start + _overlong_cut(self._text[self._start : self._start + self._longest])

    def _unseen(self, chunks: list[str]) -> list[str]:
        unseen = []
        for chunk in chunks:
            skipped = min(self._behind, len(chunk))
            self._behind -= skipped
            if skipped < len(chunk):
                unseen.append(chunk[skipped:])
        return unseen


class _Borders(Protocol):
    """Finds where chunks end. Positions are those in the text that is passed in."""

    def next(self, text: str, start: int, longest: int) -> int | None:
        """The end of the chunk that begins at ``start``, as soon as it is certain or beyond ``longest``."""
        ...

    def nearest(self, text: str) -> int:
        """The lowest position that ``next`` may still return, when it has returned None."""
        ...

    def shift(self, count: int) -> None:
        """The first ``count`` characters of the text are gone."""
        ...


def _overlong_cut(window: str) -> int:
    """Where a chunk that begins with ``window`` is cut: behind a blank or a comma of its second half, else
    between graphemes. The last grapheme of the window may go on behind it."""
    ends = [match.end() for match in GRAPHEME.finditer(window)][:-1]
    soft = [
        end
        for end in ends
        if end > len(window) // 2 and (window[end - 1].isspace() or window[end - 1] in SOFT_BREAK)
    ]
    return (soft or ends or [len(window)])[-1]


class _Words:
    """Without a state: a word is recognised from its first character on."""

    _WIDE = rf"{EAST_ASIAN}{OPENERS}{WIDE_STOPS}，、：”’」』）】》〉〕］｝"
    _EXTENDING = r"\p{M}\u200c\u200d\U0001f3fb-\U0001f3ff"
    _WORD = regex.compile(
        rf"\s*+[{OPENERS}(\[{{]*+"
        rf"(?:(?=[{EAST_ASIAN}])\X|(?:[^\s{_WIDE}]|(?<=\w)’(?=\w))++)?+"
        rf"[{CLOSERS}{WIDE_STOPS}，、：,.!?;:\"{_EXTENDING}]*+(?:\s[{_EXTENDING}]*+)*+"
    )

    def next(self, text: str, start: int, longest: int) -> int | None:
        window = text[start : start + longest + 2]
        match = self._WORD.match(window)
        end = match.end() if match else 0
        return start + end if end < len(window) or end > longest else None

    def nearest(self, text: str) -> int:
        return len(text)

    def shift(self, count: int) -> None:
        pass
