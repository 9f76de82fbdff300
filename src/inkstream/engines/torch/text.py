"""Token ids to the text that may be shown: whole characters, without what may become a stop string.

A token whose bytes end inside a character is held until that is complete. Bytes that never make a character
are shown as U+FFFD as soon as they cannot be the beginning of one. An answer whose budget ends inside a
character ends before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel, DecodeStream

from inkstream.engines import Chunk, Emitted
from inkstream.engines.stops import StopMatcher
from inkstream.errors import EngineFailed

REPLACEMENT = "\ufffd"
HELD_TOKENS = 8
"""More than this for one character are no character: the longest has four bytes."""


class Texts(dict[int, str]):
    """The text of each token that has one whatever stands beside it, looked up when it is first asked for.

    Empty for what ends or begins inside a character and for control tokens; for all of them where the decoder
    is not one of bytes, since it may then treat a token by its place.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._is_byte_level = isinstance(tokenizer.decoder, ByteLevel)

    def __missing__(self, id: int) -> str:
        text: str = self.tokenizer.decode([id], skip_special_tokens=True) if self._is_byte_level else ""
        self[id] = "" if REPLACEMENT in text else text
        return self[id]


class Pieces:
    """The text of one token after the other. A piece is empty while a character is incomplete.

    Between two characters a token with a text of its own is looked up, a third of the work of decoding it.
    The stream need not hear of it: what it decodes next begins between two characters too.
    """

    def __init__(self, texts: Texts) -> None:
        self._texts, self._tokenizer = texts, texts.tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []

    def feed(self, id: int) -> str:
        if not self._held and (text := self._texts[id]):
            return text
        piece: str | None = self._stream.step(self._tokenizer, id)
        if piece is None:
            self._held.append(id)
            if len(self._held) <= HELD_TOKENS:
                return ""
            piece = self._tokenizer.decode(self._held, skip_special_tokens=True)
            self._stream = DecodeStream(skip_special_tokens=True)
        self._held.clear()
        return piece


class Answer:
    """What becomes visible of one answer beyond its seam, and which tokens that took.

    Each chunk has the ids up to the one that completed its text, so that whoever continues from them makes
    the same text. Raises EngineFailed where the ids of the seam do not spell its text.
    """

    def __init__(self, texts: Texts, stops: Iterable[str], emitted: Emitted) -> None:
        self._pieces = Pieces(texts)
        self._stops = StopMatcher(tuple(stops), emitted.text)
        self._unseen: deque[tuple[int, int, dict[str, Any] | None]] = deque()
        text = "".join(map(self._pieces.feed, emitted.ids or ()))
        if not text.startswith(emitted.text):
            raise EngineFailed("The token ids do not spell the emitted text.", code="bad_seam")
        behind = text[len(emitted.text) :]
        # The last id is the seam's although a part of its text may still be held back: it is paid for.
        self._paid = len(behind)
        self._visible = self._stops.feed(behind)

    @property
    def is_stopped(self) -> bool:
        return self._stops.matched is not None

    def feed(self, id: int, likelihood: dict[str, Any] | None = None) -> None:
        """``likelihood`` is what the chunk is to tell of the token."""
        piece = self._pieces.feed(id)
        self._unseen.append((id, len(piece), likelihood))
        if piece:
            self._visible += self._stops.feed(piece)

    def end(self) -> None:
        """What looked like the beginning of a stop string is text after all."""
        self._visible += self._stops.flush()

    def chunk(self) -> Chunk | None:
        """What has become visible since the last one."""
        if not self._visible:
            return None
        text, self._visible = self._visible, ""
        ids, told = [], []
        self._paid -= len(text)
        while self._paid < 0:
            id, length, likelihood = self._unseen.popleft()
            ids.append(id)
            if likelihood is not None:
                told.append(likelihood)
            self._paid += length
        return Chunk(text, len(ids), tuple(ids), told or None)
