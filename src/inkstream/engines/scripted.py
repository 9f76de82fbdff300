"""An engine without a model: it says what its script tells it to, at the pace it tells it to.

It is what a newcomer runs first, what the tests fail on purpose, and the reference of continuation: an
answer is a pure function of the prompt, the seed and the position, so one that was cut at any token ends
with the text that the undisturbed one would have had. Greedy answers do not depend on the seed.

A generation awaits its end and nothing else: one timer advances all of them (``pace``).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

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
    Take,
    prompt_too_long,
)
from inkstream.engines.logprobs import entry
from inkstream.engines.pace import Paced, Steps, Turns
from inkstream.engines.script import Script
from inkstream.engines.speech import Speech, cut, prompt_text
from inkstream.engines.stops import StopMatcher
from inkstream.errors import EngineFailed, EngineLost

__all__ = ["Script", "Scripted"]

CRASHED = 139  # what a shell reports for a segmentation fault, the commonest end of a native engine
PREFILL_STEPS = 8
STATUS_STEP_SECONDS = 0.02


class Scripted:
    """The Engine that follows a Script. ``active`` is how many generations hold a slot right now."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.active = 0
        self._slots = asyncio.Semaphore(self.script.slots)
        self._closed = asyncio.Event()
        self._born = time.monotonic()
        self.speech = Speech(self.script)
        self._running: set[_Answer] = set()
        self._turns = Turns(self.script.tokens_per_chunk)
        self._steps = Steps(self.script.tokens_per_second) if self.script.tokens_per_second else None

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
        said = orjson.dumps([self.script.answer, self.script.think, self.script.context, self.speech.pieces])
        return Capabilities(
            engine="scripted",
            model=self.script.name,
            fingerprint=f"{self.script.name}:{hashlib.sha256(said).hexdigest()[:16]}",
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
                logprobs=False,
                top_logprobs=0,
            ),
            lacks=("min_tokens", "ignore_eos", "logit_bias"),
        )

    @property
    def cache_usage(self) -> float:
        """As if each slot had a cache for the whole context."""
        held = sum(answer.tokens for answer in self._running)
        return held / (self.script.slots * self.script.context)

    async def render(self, messages: Sequence[Message]) -> Prompt:
        self._require_ready()
        try:
            text = orjson.dumps([[message.role, message.content] for message in messages]).decode()
        except orjson.JSONEncodeError as error:
            raise EngineFailed(f"The text is no Unicode: {error}.", code="bad_prompt") from error
        tokens = len(cut(text))
        if tokens >= self.script.context:
            raise prompt_too_long(tokens, self.script.context)
        return Prompt(tokens=tokens, payload={"text": text})

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        prompt = self._admit(request, emitted)
        async with self._slot():
            started = time.monotonic()
            await self._read(request.prompt, take)
            self._require_ready()
            begun = time.monotonic()
            answer = _Answer(self.script, self.speech, request, emitted, take)
            await self._say(answer, prompt)
            seconds = {"prefill_seconds": begun - started, "decode_seconds": time.monotonic() - begun}
            return answer.finish(seconds)

    async def aclose(self) -> None:
        """Generations that still run raise EngineLost."""
        self._closed.set()
        for answer in self._running:
            answer.lose(EngineLost("The scripted engine was closed."))

    def _require_ready(self) -> None:
        if self.status.phase is not Phase.READY:
            raise EngineLost(f"The scripted engine is {self.status.phase.value}.")

    def _admit(self, request: Request, emitted: Emitted) -> str:
        self._require_ready()
        prompt = prompt_text(request)
        if request.prompt.tokens >= self.script.context:
            raise prompt_too_long(request.prompt.tokens, self.script.context)
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

    async def _read(self, prompt: Prompt, take: Take) -> None:
        if self.script.prefill_tokens_per_second:
            pause = prompt.tokens / self.script.prefill_tokens_per_second / PREFILL_STEPS
            for step in range(1, PREFILL_STEPS + 1):
                await asyncio.sleep(pause)
                take(Progress(step / PREFILL_STEPS))

    async def _say(self, answer: _Answer, prompt: str) -> None:
        script = self.script
        self._running.add(answer)
        try:
            if not (answer.is_over or (script.stall_on and script.stall_on in prompt)):
                self._join(self._crashing(answer, prompt))
            await answer.ended
        finally:
            self._running.discard(answer)

    def _crashing(self, answer: _Answer, prompt: str) -> Paced:
        script = self.script
        if (script.crash_on or script.crash_after_tokens) and script.crash_on in prompt:
            return _Crashing(answer, script.crash_after_tokens)
        return answer

    def _join(self, answer: Paced) -> None:
        if self._steps is None:
            self._turns.join(answer)
        elif self.script.in_step:
            self._steps.join(answer)
        else:
            Steps(self.script.tokens_per_second).join(answer)


class _Crashing:
    """An answer that takes the process with it behind so many tokens.

    It is given one token at a time: those before the last are on their way when the process dies.
    """

    def __init__(self, answer: _Answer, after_tokens: int) -> None:
        self._answer, self._left = answer, after_tokens

    @property
    def is_over(self) -> bool:
        return self._answer.is_over

    def advance(self, tokens: int) -> None:
        if not self._left:
            os._exit(CRASHED)
        self._left -= 1
        self._answer.advance(1)


class _Answer:
    """The part of one answer that lies beyond its seam. ``ended`` is done when all of it is out."""

    def __init__(
        self, script: Script, speech: Speech, request: Request, emitted: Emitted, take: Take
    ) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._emitted, self._take = request, emitted, take
        self._speech, self._piece = speech, speech.pieces.__getitem__
        self._ids = speech.answer_ids(request)
        self._chunks = map(speech.chunks.__getitem__, self._ids)
        by_ids = script.continues == "ids" and emitted.ids is not None
        skipped, behind = self._skip_ids() if by_ids else self._skip_text()
        room = script.context - request.prompt.tokens
        limit = request.sampling.max_tokens
        self._budget = max(0, (room if limit is None else min(room, limit)) - emitted.tokens)
        self._limit = self._left = min(speech.tokens - skipped, self._budget)
        self._stops = StopMatcher(request.sampling.stop, emitted.text)
        self._visible = self._stops.feed(behind)
        self._paid = len(behind)
        self._unseen: deque[tuple[int, int]] = deque()
        self._last: Chunk | None = None
        if self._is_complete:
            self._end(self._watched(0))

    @property
    def is_over(self) -> bool:
        """Also when nobody waits for it any more."""
        return self.ended.done()

    @property
    def tokens(self) -> int:
        """Of prompt and answer, as far as it is written."""
        return self._request.prompt.tokens + self._emitted.tokens + self._drawn

    def advance(self, tokens: int) -> None:
        chunk = self._watched(tokens) if self._request.sampling.stop else self._plain(tokens)
        if self._is_complete:
            self._end(chunk)
        elif chunk is not None:
            self._take(chunk)

    def lose(self, error: EngineLost) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def finish(self, timings: dict[str, float]) -> Finish:
        by_itself = self._stops.matched is not None or self._drawn < self._budget
        return Finish(
            reason="stop" if by_itself else "length",
            prompt_tokens=self._request.prompt.tokens,
            completion_tokens=self._emitted.tokens + self._drawn,
            timings=timings,
            last=self._last,
        )

    @property
    def _drawn(self) -> int:
        return self._limit - self._left

    @property
    def _is_complete(self) -> bool:
        return self._left <= 0 or self._stops.matched is not None

    def _end(self, last: Chunk | None) -> None:
        self._last = last
        self.ended.set_result(None)

    def _plain(self, tokens: int) -> Chunk:
        """Without stop strings every token is visible at once."""
        if tokens == 1 and not self._visible and not self._request.sampling.logprobs:
            self._left -= 1
            return next(self._chunks)
        ids = tuple(islice(self._ids, min(tokens, self._left)))
        self._left -= len(ids)
        text, self._visible = self._visible + "".join(map(self._piece, ids)), ""
        return Chunk(text, len(ids), ids, self._logprobs(ids))

    def _watched(self, tokens: int) -> Chunk | None:
        """What may still become a stop string stays back until the end."""
        for id in islice(self._ids, min(tokens, self._left)):
            piece = self._piece(id)
            self._left -= 1
            self._unseen.append((id, len(piece)))
            self._visible += self._stops.feed(piece)
            if self._stops.matched is not None:
                break
        if self._is_complete:
            self._visible += self._stops.flush()
        return self._chunk()

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
        return Chunk(text, len(ids), tuple(ids), self._logprobs(ids))

    def _logprobs(self, ids: Sequence[int]) -> list[dict[str, Any]] | None:
        """A script leaves nothing to chance."""
        sampling = self._request.sampling
        if not sampling.logprobs:
            return None
        certain = [(self._piece(id).encode(), 0.0) for id in ids]
        return [entry(each, [each] if sampling.top_logprobs else []) for each in certain]

    def _skip_ids(self) -> tuple[int, str]:
        """Go behind the emitted ids; return their number and their text beyond what is visible."""
        ids = self._emitted.ids or ()
        text = "".join(map(self._speech.piece, ids))
        if not text.startswith(self._emitted.text):
            raise EngineFailed("The token ids do not spell the emitted text.", code="bad_seam")
        next(islice(self._ids, len(ids), len(ids)), None)
        return len(ids), text[len(self._emitted.text) :]

    def _skip_text(self) -> tuple[int, str]:
        """Go behind the emitted text; return its number of tokens and what the last has beyond it."""
        missing, skipped, piece = len(self._emitted.text), 0, ""
        while missing > 0 and (id := next(self._ids, None)) is not None:
            piece = self._piece(id)
            skipped += 1
            missing -= len(piece)
        return skipped, piece[missing:] if missing < 0 else ""
