"""Which part of what a model writes is thinking and which is the answer.

Models that think open with ``<think>`` and close with ``</think>``. The tags count only there: a
``<think>`` later in the answer is text that somebody writes about. The page never looks for tags.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal, NamedTuple

OPEN, CLOSE = "<think>", "</think>"
Channel = Literal["text", "thinking"]


class Piece(NamedTuple):
    """Visible ``text`` of one channel, and the ``raw`` text that it took, tags and all."""

    channel: Channel
    text: str
    raw: str


class _State(Enum):
    START = auto()  # blanks, or a beginning of <think>
    THINKING_BEGINS = auto()  # the blanks behind <think>
    THINKING = auto()
    ANSWER_BEGINS = auto()  # the blanks behind </think>
    ANSWER = auto()


class ChannelSplitter:
    """Splits raw text as it arrives; what may be the beginning of a tag is held back until it is decided.

    ``emitted`` is the raw text of all pieces so far: a splitter that gets it goes on behind any of them, also
    behind those of ``flush``, whose text may turn out to be the beginning of a tag after all. Then the tag
    counts, and what has been seen of it stays.
    """

    def __init__(self, channel: Channel = "text", emitted: str = "") -> None:
        self._state = _State.THINKING_BEGINS if channel == "thinking" else _State.START
        self._dropped = ""  # decided, but nothing to see: goes with the next piece
        self._rest = ""  # undecided
        self._emitted = 0  # how many characters of these two are in an earlier piece already
        self.feed(emitted)
        self._emitted = len(self._dropped) + len(self._rest)

    @property
    def is_plain(self) -> bool:
        """Whether all that comes is the answer itself."""
        return self._state is _State.ANSWER

    def feed(self, raw: str) -> list[Piece]:
        if self.is_plain:
            return [Piece("text", raw, raw)] if raw else []
        self._rest += raw
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def flush(self) -> list[Piece]:
        """What is held back and will not become a tag any more, at the end of the answer."""
        pieces: list[Piece] = []
        self._show(pieces, "thinking" if self._state is _State.THINKING else "text", len(self._rest))
        return pieces

    def _step(self, pieces: list[Piece]) -> bool:
        """Decide as much as one state can; say whether the next one may go on."""
        before = self._state
        match before:
            case _State.START:
                self._start()
            case _State.THINKING_BEGINS:
                self._skip_blanks(_State.THINKING)
            case _State.THINKING:
                self._think(pieces)
            case _State.ANSWER_BEGINS:
                self._skip_blanks(_State.ANSWER)
            case _State.ANSWER:
                self._show(pieces, "text", len(self._rest))
        return self._state is not before

    def _start(self) -> None:
        opening = self._rest.lstrip()
        if opening.startswith(OPEN):
            self._drop(len(self._rest) - len(opening) + len(OPEN))
            self._state = _State.THINKING_BEGINS
        elif not OPEN.startswith(opening):
            self._state = _State.ANSWER

    def _skip_blanks(self, then: _State) -> None:
        self._drop(len(self._rest) - len(self._rest.lstrip()))
        if self._rest:
            self._state = then

    def _think(self, pieces: list[Piece]) -> None:
        end = self._rest.find(CLOSE)
        if end < 0:
            self._show(pieces, "thinking", len(self._rest) - _overlap(self._rest, CLOSE))
            return
        self._show(pieces, "thinking", end)
        self._drop(len(CLOSE))
        self._state = _State.ANSWER_BEGINS

    def _drop(self, length: int) -> None:
        self._dropped += self._rest[:length]
        self._rest = self._rest[length:]

    def _show(self, pieces: list[Piece], channel: Channel, length: int) -> None:
        if length <= 0:
            return
        text, self._rest = self._rest[:length], self._rest[length:]
        raw, self._dropped = self._dropped + text, ""
        told, self._emitted = self._emitted, max(0, self._emitted - len(raw))
        if told < len(raw):
            pieces.append(Piece(channel, text[max(0, told - len(raw) + len(text)) :], raw[told:]))


def _overlap(text: str, tag: str) -> int:
    """How much of the end of ``text`` may be the beginning of ``tag``."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)
