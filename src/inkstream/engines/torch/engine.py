"""The Engine over the batcher: requests in, text out.

Tokens are computed in a thread of their own (``worker``) and become text on the event loop. A step reaches
the loop in one call, whatever the number of requests in it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import abc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from inkstream.engines import (
    Capabilities,
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
from inkstream.engines.loadable import Loadable
from inkstream.engines.logprobs import entry
from inkstream.engines.torch.cache import Pages
from inkstream.engines.torch.loading import Launch, Loaded, load_all
from inkstream.engines.torch.rules import Rules
from inkstream.engines.torch.scheduler import End, Likelihood, Scheduler, Sequence, Written
from inkstream.engines.torch.speculation import Gate
from inkstream.engines.torch.text import Answer, Texts
from inkstream.engines.torch.worker import News, Worker
from inkstream.errors import EngineFailed, EngineLost

__all__ = ["Launch", "TorchEngine"]

logger = logging.getLogger(__name__)


class TorchEngine(Loadable):
    """Nothing happens before ``load``; ``status`` tells how that goes."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(Status(Phase.LOADING))
        self._launch = launch
        self._core: _Core | None = None

    async def _load(self) -> None:
        """Raises ModelError."""
        self._loop = asyncio.get_running_loop()
        loaded = await asyncio.to_thread(load_all, self._launch, self._tell)
        self._core = _Core(self._launch, loaded, self._lose)
        self._set(Status(Phase.READY))

    def describe(self) -> Capabilities:
        return self._ready().capabilities

    @property
    def cache_usage(self) -> float | None:
        return self._core.batcher.pages.usage if self._core else None

    async def render(self, messages: abc.Sequence[Message]) -> Prompt:
        core = self._ready()
        prompt = core.model.chat.render(messages)
        core.require_room(prompt.tokens)
        return prompt

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        return await self._ready().generate(request, emitted, take)

    async def aclose(self) -> None:
        """Generations that still run raise EngineLost."""
        self._lose(Status(Phase.GIVEN_UP, code="engine_closed", message="The torch engine was closed."))
        if self._core is not None:
            await asyncio.to_thread(self._core.stop)

    @property
    def active(self) -> int:
        """How many requests have not ended."""
        return len(self._core.calls) if self._core else 0

    @property
    def preemptions(self) -> int:
        """How often somebody had to give up its place in the cache."""
        return self._core.batcher.preemptions if self._core else 0

    @property
    def drafted(self) -> tuple[int, int]:
        """Tokens that were guessed ahead, and how many of them were right."""
        return (self._core.batcher.drafted, self._core.batcher.accepted) if self._core else (0, 0)

    def _tell(self, status: Status) -> None:
        """Called in the thread that loads."""
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(self._set, status)

    def _ready(self) -> _Core:
        if self._core is None or self._status.phase is not Phase.READY:
            raise EngineLost(self._status.message or f"The torch engine is {self._status.phase.value}.")
        return self._core

    def _lose(self, status: Status) -> None:
        self._set(status)
        if self._core is not None:
            self._core.lose(EngineLost(status.message or "The torch engine was lost."))


class _Core:
    """A loaded model and those who are being answered by it."""

    def __init__(self, launch: Launch, loaded: Loaded, lost: Callable[[Status], None]) -> None:
        self.model, self._lost = loaded.model, lost
        self._texts = Texts(loaded.model.chat.tokenizer)
        self.calls: dict[Sequence, _Call] = {}
        self.capabilities = loaded.capabilities
        self._places = self.capabilities.slots + launch.queue
        self._loop = asyncio.get_running_loop()
        limits = loaded.runner.limits(self.capabilities.slots)
        gate = Gate(limits.width, loaded.runner.seconds) if limits.width > 1 else None
        self.batcher = Scheduler(Pages(loaded.pages), limits, gate)
        self._worker = Worker(self.batcher, loaded.runner, self._tell)
        self._worker.start()

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        call = self._call(request, emitted, take)
        if call.sequence.limit <= len(call.sequence.ids):
            return call.finish("length")
        self.calls[call.sequence] = call
        self._worker.add(call.sequence)
        try:
            return await call.done
        finally:
            del self.calls[call.sequence]
            self._worker.cancel(call.sequence)

    def stop(self) -> None:
        self._worker.stop()

    def lose(self, error: EngineLost) -> None:
        for call in self.calls.values():
            call.fail(error)

    def require_room(self, tokens: int) -> None:
        """Raises EngineFailed where the prompt leaves no room for an answer."""
        if tokens >= self.capabilities.context_length:
            raise prompt_too_long(tokens, self.capabilities.context_length)

    def _call(self, request: Request, emitted: Emitted, take: Take) -> _Call:
        prompt = self._checked(
            request.prompt.payload, "bad_prompt", "The prompt was rendered by another engine."
        )
        self.require_room(len(prompt))
        if len(self.calls) >= self._places:
            raise EngineFailed(f"{len(self.calls)} answers wait already.", code="queue_full", retryable=True)
        ids = self.model.chat.encode(emitted.text) if emitted.ids is None else list(emitted.ids)
        self._checked(ids, "bad_seam", "The ids of the seam are not of this model.")
        answer = Answer(self._texts, request.sampling.stop, Emitted(emitted.text, tuple(ids)))
        wanted = request.sampling.over(self.capabilities.defaults)
        room = self.capabilities.context_length - len(prompt)
        # What was emitted before may be more tokens than its ids where those come from its text.
        left = min(room - len(ids), room if wanted.max_tokens is None else wanted.max_tokens - emitted.tokens)
        sequence = Sequence(
            ids=prompt + ids,
            prompt=len(prompt),
            limit=len(prompt) + len(ids) + left,
            rules=_rules(wanted, len(prompt) + len(ids) - emitted.tokens, self._bias(wanted)),
            stops=frozenset() if wanted.ignore_eos else self.model.stops,
        )
        return _Call(sequence, answer, self.model.chat.spelling, take, emitted.tokens)

    def _bias(self, wanted: Sampling) -> tuple[tuple[int, float], ...]:
        """Raises EngineFailed for ids that the vocabulary does not have."""
        bias = tuple(sorted((int(id), value) for id, value in wanted.logit_bias.items()))
        vocabulary = self.model.weights.shape.vocabulary
        if unknown := [id for id, _ in bias if id not in range(vocabulary)]:
            raise EngineFailed(
                f"'logit_bias' names the token {unknown[0]}; the vocabulary has {vocabulary}.",
                code="unknown_token",
            )
        return bias

    def _checked(self, ids: object, code: str, message: str) -> list[int]:
        """Raises EngineFailed for what are no ids of the vocabulary."""
        known = range(self.model.weights.shape.vocabulary)
        if not isinstance(ids, list) or not all(type(id) is int and id in known for id in ids):
            raise EngineFailed(message, code=code)
        return ids

    def _tell(self, news: News | BaseException) -> None:
        """Called in the worker's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(self._hear, news)

    def _hear(self, news: News | BaseException) -> None:
        if isinstance(news, BaseException):
            logger.error("the torch engine failed", exc_info=news)
            message = f"The torch engine failed: {news}"
            return self._lost(Status(Phase.GIVEN_UP, code="engine_failed", message=message))
        for written in news.written:
            if (call := self.calls.get(written.sequence)) and not call.done.done():
                call.write(written)
        for sequence, share in news.read:
            if (call := self.calls.get(sequence)) and not call.done.done():
                call.take(Progress(share))
        return None


class _Call:
    """One request that is being answered. ``earlier`` is how many tokens it had before."""

    def __init__(
        self, sequence: Sequence, answer: Answer, spelling: Callable[[int], bytes], take: Take, earlier: int
    ) -> None:
        self.sequence, self.take, self._spelling = sequence, take, spelling
        self.done: asyncio.Future[Finish] = asyncio.get_running_loop().create_future()
        self._answer, self._tokens = answer, earlier
        self._started = time.monotonic()
        self._first_token = 0.0

    def write(self, written: Written) -> None:
        self._first_token = self._first_token or time.monotonic()
        end = written.end
        shown = len(written.tokens) - (end == "stop")
        for at, token in enumerate(written.tokens):
            self._tokens += 1
            if at < shown:
                self._answer.feed(
                    token, self._told(token, written.likelihoods[at]) if written.likelihoods else None
                )
            if self._answer.is_stopped:
                end = "stop"
                break
        if end is not None:
            self.done.set_result(self.finish(end))
        elif chunk := self._answer.chunk():
            self.take(chunk)

    def finish(self, reason: End) -> Finish:
        self._answer.end()
        now = time.monotonic()
        first = self._first_token or now
        return Finish(
            reason=reason,
            prompt_tokens=self.sequence.prompt,
            completion_tokens=self._tokens,
            cached_tokens=self.sequence.reused,
            timings={
                "prefill_seconds": first - self._started,
                "decode_seconds": now - first,
                **self._drafts(),
            },
            last=self._answer.chunk(),
        )

    def _drafts(self) -> dict[str, float]:
        """How well was guessed, where anything was."""
        sequence = self.sequence
        if not sequence.drafted:
            return {}
        return {"drafted_tokens": sequence.drafted, "accepted_share": sequence.accepted / sequence.drafted}

    def _told(self, token: int, likelihood: Likelihood) -> dict[str, Any]:
        chance, likeliest = likelihood
        rivals = [(self._spelling(id), theirs) for id, theirs in likeliest]
        return entry((self._spelling(token), chance), rivals)

    def fail(self, error: EngineLost) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _rules(sampling: Sampling, start: int, bias: tuple[tuple[int, float], ...]) -> Rules:
    """``start`` is the number of ids with which the answer begins."""
    return Rules(
        temperature=sampling.temperature or 0.0,
        top_k=sampling.top_k or 0,
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        min_p=sampling.min_p or 0.0,
        repetition=sampling.repetition_penalty or 1.0,
        presence=sampling.presence_penalty or 0.0,
        frequency=sampling.frequency_penalty or 0.0,
        seed=sampling.seed or 0,
        min_length=start + sampling.min_tokens if sampling.min_tokens and not sampling.ignore_eos else 0,
        bias=bias,
        likeliest=(sampling.top_logprobs or 0) if sampling.logprobs else None,
    )
