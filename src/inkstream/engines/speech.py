"""What the scripted engine says, token by token.

A token is a piece of one to four characters and its id an index into the table of all pieces. Pieces
do cut between the code points of one emoji, as real vocabularies do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, islice

from inkstream.engines import Chunk, Request
from inkstream.engines.script import Script
from inkstream.errors import EngineFailed

PHRASES = (
    "The river keeps its own time. ",
    "Nothing is lost, nothing is said twice. ",
    "A token, once seen, stays seen; e.g. 3.14 is not two sentences. ",
    "墨水在纸上慢慢散开。",
    "「流式」是说\uff1a一个字一个字地来\uff0c不丢、不重。",
    "价格为 ¥1,234.50\uff0c比昨天便宜 3%\uff01",
    "Ünïcödé naïveté, ελληνικά, русский. ",
    "👩‍👩‍👧‍👦 and 🏳️‍🌈 are one grapheme each, 👍🏽 too. ",
    "𠮷野家 lies beyond the basic plane. ",
    "\n\n- one\n- two\n",
    "\n```python\nfor token in stream:\n    print(token, end='')\n```\n",
    "**注意：**正文 `<b>&amp;</b>` \t",
    "a line\u2028separator, a next\u0085line. ",
)
THINKING = "<think>Let me see. 想一想……</think>\n\n"


class Speech:
    """``pieces`` is the vocabulary, ``chunks`` each token of it alone, ``tokens`` the length of an answer."""

    def __init__(self, script: Script) -> None:
        phrases = [cut(phrase) for phrase in PHRASES]
        fixed = (cut(THINKING) if script.think else []) + cut(script.answer or "")
        self.pieces = list(dict.fromkeys(piece for phrase in [*phrases, fixed] for piece in phrase))
        self.chunks = [Chunk(piece, 1, (id,)) for id, piece in enumerate(self.pieces)]
        self.tokens = len(fixed) + (script.answer_tokens if script.answer is None else 0)
        ids = {piece: id for id, piece in enumerate(self.pieces)}
        self._fixed = [ids[piece] for piece in fixed]
        self._phrases = [[ids[piece] for piece in phrase] for phrase in phrases]

    def answer_ids(self, request: Request) -> Iterator[int]:
        """The ids of the whole answer from its first token, whatever has been emitted."""
        seed = 0 if request.sampling.temperature == 0 else request.sampling.seed
        drawn = chain.from_iterable(self._drawn_phrases(f"{seed} {prompt_text(request)}"))
        return islice(chain(self._fixed, drawn), self.tokens)

    def piece(self, id: int) -> str:
        """The text of a token. Raises EngineFailed for an id that is not ours."""
        if not 0 <= id < len(self.pieces):
            raise EngineFailed(f"Token id {id} is not in the vocabulary.", code="bad_seam")
        return self.pieces[id]

    def _drawn_phrases(self, key: str) -> Iterator[list[int]]:
        draw = random.Random(key)
        while True:
            yield draw.choice(self._phrases)


def prompt_text(request: Request) -> str:
    """Raises EngineFailed for the prompt of another engine."""
    payload = request.prompt.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("text"), str):
        raise EngineFailed("The prompt was rendered by another engine.", code="bad_prompt")
    text: str = payload["text"]
    return text


def cut(text: str) -> list[str]:
    """Cut a text into pieces of one to four characters, always the same way."""
    draw, pieces, start = random.Random(text), [], 0
    while start < len(text):
        pieces.append(text[start : start + draw.randint(1, 4)])
        start += len(pieces[-1])
    return pieces
