"""An engine without a model: it says what its script tells it to, at the pace it tells it to.

It is what a newcomer runs first, what the tests fail on purpose, and the reference of continuation: an
answer is a pure function of the prompt, the seed and the position, so one that was cut at any token ends
with the text that the undisturbed one would have had. Greedy answers do not depend on the seed.

A token is a piece of one to four characters and its id an index into the table of all pieces. Pieces
do cut between the code points of one emoji, as real vocabularies do.

A generation is one coroutine that sleeps between tokens: no thread, no task, no queue.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from itertools import chain, islice
from typing import Any, Literal, get_type_hints

import orjson

from inkstream.engines import (
    Capabilities,
    Chunk,
    Emitted,
    Finish,
    Message,
    Phase,
    Progress,
    Prompt,
    Request,
    Sampling,
    Status,
)
from inkstream.engines.stops import StopMatcher
from inkstream.errors import ConfigError, EngineFailed, EngineLost

CRASHED = 139  # what a shell reports for a segmentation fault, the commonest end of a native engine
PREFILL_STEPS = 8
STATUS_STEP_SECONDS = 0.02

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the engine does. ``crash_on``, ``fail_on`` and ``stall_on`` are looked for in the whole prompt.

    ``answer`` None stands for ``answer_tokens`` tokens drawn from prompt and seed. Rates of 0 mean as fast
    as possible. A prompt with ``crash_on`` in it kills the process behind ``crash_after_tokens`` new tokens;
    with ``crash_after_tokens`` alone every prompt does.
    """

    answer: str | None = None
    answer_tokens: int = 200
    think: bool = False
    tokens_per_second: float = 0
    prefill_tokens_per_second: float = 0
    load_seconds: float = 0
    continues: Literal["ids", "text", "no"] = "ids"
    slots: int = 256
    context: int = 32768
    crash_on: str = ""
    crash_after_tokens: int = 0
    fail_on: str = ""
    stall_on: str = ""

    def __post_init__(self) -> None:
        if self.continues not in ("ids", "text", "no"):
            raise ConfigError(f"script: 'continues' has value {self.continues!r}. Choose ids, text or no.")
        for name, lowest in (("slots", 1), ("context", 16)):
            if getattr(self, name) < lowest:
                raise ConfigError(
                    f"script: '{name}' has value {getattr(self, name)}. It must be at least {lowest}."
                )
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, int | float) and value < 0:
                raise ConfigError(f"script: '{setting.name}' has value {value}. It must not be negative.")

    @classmethod
    def parse(cls, text: str) -> Script:
        """Read a JSON object whose fields are those above; empty text is the default. Raises ConfigError."""
        try:
            given = orjson.loads(text) if text.strip() else {}
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"script is not valid JSON: {error}") from None
        if not isinstance(given, dict):
            raise ConfigError('script must be a JSON object, such as {"answer": "Hello"}.')
        types = get_type_hints(cls)
        for name, value in given.items():
            if name not in types:
                raise ConfigError(f"script has an unknown field '{name}'. It knows: {', '.join(types)}.")
            _check_type(name, value, types[name])
        return cls(**given)


class Scripted:
    """The Engine that follows a Script. ``active`` is how many generations hold a slot right now."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.active = 0
        self._slots = asyncio.Semaphore(self.script.slots)
        self._closed = asyncio.Event()
        self._born = time.monotonic()
        self._phrases = [_cut(phrase) for phrase in PHRASES]
        opening = _cut(THINKING) if self.script.think else []
        self._fixed = opening + _cut(self.script.answer or "")
        self._pieces = list(dict.fromkeys(p for phrase in [*self._phrases, self._fixed] for p in phrase))
        self._ids = {piece: id for id, piece in enumerate(self._pieces)}

    @property
    def status(self) -> Status:
        if self._closed.is_set():
            return Status(Phase.GIVEN_UP, code="engine_closed", message="The scripted engine was closed.")
        elapsed = time.monotonic() - self._born
        if elapsed < self.script.load_seconds:
            return Status(Phase.LOADING, share=round(elapsed / self.script.load_seconds, 2))
        return Status(Phase.READY)

    async def status_after(self, seen: Status) -> Status:
        while (status := self.status) == seen:
            if status.phase is Phase.READY:
                await self._closed.wait()
            else:
                await asyncio.sleep(STATUS_STEP_SECONDS)
        return status

    def describe(self) -> Capabilities:
        self._require_ready()
        said = orjson.dumps([self.script.answer, self.script.think, self.script.context, self._pieces])
        return Capabilities(
            engine="scripted",
            model="scripted",
            fingerprint=f"scripted:{hashlib.sha256(said).hexdigest()[:16]}",
            context_length=self.script.context,
            slots=self.script.slots,
            continues=self.script.continues,
            exact_seam=self.script.continues != "no",
            defaults=Sampling(
                temperature=0.7,
                top_p=1.0,
                top_k=0,
                min_p=0.0,
                repetition_penalty=1.0,
                presence_penalty=0.0,
                frequency_penalty=0.0,
            ),
        )

    async def render(self, messages: Sequence[Message]) -> Prompt:
        self._require_ready()
        try:
            text = orjson.dumps([[message.role, message.content] for message in messages]).decode()
        except orjson.JSONEncodeError as error:
            raise EngineFailed(f"The text is no Unicode: {error}.", code="bad_prompt") from error
        tokens = len(_cut(text))
        if tokens >= self.script.context:
            raise _too_long(tokens, self.script.context)
        return Prompt(tokens=tokens, payload={"text": text})

    async def generate(self, request: Request, emitted: Emitted) -> AsyncGenerator[Chunk | Progress | Finish]:
        prompt = self._admit(request, emitted)
        async with self._slot():
            started = time.monotonic()
            if self.script.prefill_tokens_per_second:
                pause = request.prompt.tokens / self.script.prefill_tokens_per_second / PREFILL_STEPS
                for step in range(1, PREFILL_STEPS + 1):
                    await asyncio.sleep(pause)
                    yield Progress(step / PREFILL_STEPS)
            pace, answer = _Pace(self.script.tokens_per_second), _Answer(self, request, emitted)
            while not answer.is_over:
                await self._misbehave(prompt, pace.given)
                due = await pace.due()
                self._require_ready()
                if chunk := answer.step(due):
                    yield chunk
            if chunk := answer.flush():
                yield chunk
            seconds = {"prefill_seconds": pace.started - started}
            yield answer.finish(seconds | {"decode_seconds": time.monotonic() - pace.started})

    async def aclose(self) -> None:
        """Generations that still run raise EngineLost at their next step."""
        self._closed.set()

    def answer_ids(self, request: Request) -> Iterator[int]:
        """The ids of the whole answer from its first token, whatever has been emitted."""
        fixed = map(self._ids.__getitem__, self._fixed)
        if self.script.answer is not None:
            return fixed
        seed = 0 if request.sampling.temperature == 0 else request.sampling.seed
        return chain(fixed, islice(self._drawn_ids(f"{seed} {_text(request)}"), self.script.answer_tokens))

    def piece(self, id: int) -> str:
        """The text of a token. Raises EngineFailed for an id that is not ours."""
        if not 0 <= id < len(self._pieces):
            raise EngineFailed(f"Token id {id} is not in the vocabulary.", code="bad_seam")
        return self._pieces[id]

    def _drawn_ids(self, key: str) -> Iterator[int]:
        draw = random.Random(key)
        while True:
            yield from map(self._ids.__getitem__, draw.choice(self._phrases))

    def _require_ready(self) -> None:
        if self.status.phase is not Phase.READY:
            raise EngineLost(f"The scripted engine is {self.status.phase.value}.")

    def _admit(self, request: Request, emitted: Emitted) -> str:
        self._require_ready()
        prompt = _text(request)
        if request.prompt.tokens >= self.script.context:
            raise _too_long(request.prompt.tokens, self.script.context)
        if emitted.text and self.script.continues == "no":
            raise EngineFailed("This engine cannot go on with a cut answer.", code="cannot_continue")
        if self.script.fail_on and self.script.fail_on in prompt:
            raise EngineFailed("The script fails this prompt.", code="scripted_failure")
        return prompt

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None]:
        async with self._slots:
            self.active += 1
            try:
                yield
            finally:
                self.active -= 1

    async def _misbehave(self, prompt: str, given: int) -> None:
        script = self.script
        crashes = (script.crash_on or script.crash_after_tokens) and script.crash_on in prompt
        if crashes and given >= script.crash_after_tokens:
            os._exit(CRASHED)
        if script.stall_on and script.stall_on in prompt:
            await self._closed.wait()


class _Pace:
    """Says how many tokens are due: one, or more for a consumer that comes late."""

    def __init__(self, tokens_per_second: float) -> None:
        self._rate = tokens_per_second
        self.started = time.monotonic()
        self.given = 0

    async def due(self) -> int:
        if self._rate:
            await asyncio.sleep(self.started + (self.given + 1) / self._rate - time.monotonic())
            due = max(1, int((time.monotonic() - self.started) * self._rate) - self.given)
        else:
            await asyncio.sleep(0)
            due = 1
        self.given += due
        return due


class _Answer:
    """The part of one answer that lies beyond its seam."""

    def __init__(self, engine: Scripted, request: Request, emitted: Emitted) -> None:
        self._request, self._emitted, self._piece = request, emitted, engine.piece
        self._ids = engine.answer_ids(request)
        by_ids = engine.script.continues == "ids" and emitted.ids is not None
        behind = self._skip_ids() if by_ids else self._skip_text()
        room = engine.script.context - request.prompt.tokens
        limit = request.sampling.max_tokens
        self._left = (room if limit is None else min(room, limit)) - emitted.tokens
        self._drawn = 0
        self._is_exhausted = False
        self._stops = StopMatcher(request.sampling.stop, emitted.text)
        self._visible = self._stops.feed(behind)
        self._paid = len(behind)
        self._unseen: deque[tuple[int, int]] = deque()

    @property
    def is_over(self) -> bool:
        return self._stops.matched is not None or self._is_exhausted or self._left <= 0

    def step(self, count: int) -> Chunk | None:
        """Draw up to ``count`` tokens."""
        for _ in range(count):
            if self.is_over:
                break
            self._draw()
        return self._chunk()

    def flush(self) -> Chunk | None:
        """What was held back as a possible stop string and is none."""
        self._visible += self._stops.flush()
        return self._chunk()

    def finish(self, timings: dict[str, float]) -> Finish:
        by_itself = self._stops.matched is not None or self._is_exhausted
        return Finish(
            reason="stop" if by_itself else "length",
            prompt_tokens=self._request.prompt.tokens,
            completion_tokens=self._emitted.tokens + self._drawn,
            timings=timings,
        )

    def _draw(self) -> None:
        id = next(self._ids, None)
        if id is None:
            self._is_exhausted = True
            return
        piece = self._piece(id)
        self._left -= 1
        self._drawn += 1
        self._unseen.append((id, len(piece)))
        self._visible += self._stops.feed(piece)

    def _chunk(self) -> Chunk | None:
        """The visible text, with the tokens up to the one that completed it."""
        if not self._visible:
            return None
        text, self._visible = self._visible, ""
        ids = []
        self._paid -= len(text)
        while self._paid < 0:
            id, length = self._unseen.popleft()
            ids.append(id)
            self._paid += length
        return Chunk(text, tokens=len(ids), ids=tuple(ids))

    def _skip_ids(self) -> str:
        """Go behind the emitted ids; return their text beyond what is visible. Raises EngineFailed."""
        ids = self._emitted.ids or ()
        text = "".join(map(self._piece, ids))
        if not text.startswith(self._emitted.text):
            raise EngineFailed("The token ids do not spell the emitted text.", code="bad_seam")
        next(islice(self._ids, len(ids), len(ids)), None)
        return text[len(self._emitted.text) :]

    def _skip_text(self) -> str:
        """Go behind the emitted text; return what its last token has beyond it."""
        missing = len(self._emitted.text)
        piece = ""
        while missing > 0 and (id := next(self._ids, None)) is not None:
            piece = self._piece(id)
            missing -= len(piece)
        return piece[missing:] if missing < 0 else ""


def _text(request: Request) -> str:
    payload = request.prompt.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("text"), str):
        raise EngineFailed("The prompt was rendered by another engine.", code="bad_prompt")
    text: str = payload["text"]
    return text


def _too_long(tokens: int, context: int) -> EngineFailed:
    return EngineFailed(
        f"The prompt has {tokens} tokens; the context holds {context}, one of them for the answer.",
        code="prompt_too_long",
    )


def _cut(text: str) -> list[str]:
    """Cut a text into pieces of one to four characters, always the same way."""
    draw, pieces, start = random.Random(text), [], 0
    while start < len(text):
        pieces.append(text[start : start + draw.randint(1, 4)])
        start += len(pieces[-1])
    return pieces


def _check_type(name: str, value: Any, expected: Any) -> None:
    if name == "continues":
        return  # its values are checked with the others, by name
    allowed: dict[Any, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}
    types = allowed.get(expected, (str, type(None)))
    if not isinstance(value, types) or (isinstance(value, bool) and expected is not bool):
        raise ConfigError(
            f"script: '{name}' has value {value!r}. Not a valid {_TYPE_NAMES.get(expected, 'text')}."
        )


_TYPE_NAMES = {float: "number", int: "whole number", bool: "true or false"}
