"""llama.cpp over HTTP: its server in this process, or one that runs elsewhere.

Deliberate oddities:

- A prompt goes to the server as token ids (``llama_prompts``).
- A cut answer goes on from its text. The ids in the stream cannot be used: of a character that spans
  several tokens it names only the last one.
- Stop strings are matched here and never sent: the server cannot match across a seam.
- A seeded answer that goes on is drawn with another seed, or it would reuse the draws of its beginning.
- Of a character that spans several tokens the server tells one probability, that of the last token.
- A budget of nothing is never sent: the server would still generate one token.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Any, Self

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
from inkstream.engines.llama_client import LlamaClient, failure
from inkstream.engines.llama_prompts import LlamaPrompts
from inkstream.engines.llama_server import Launch, LlamaServer, read_header, read_through
from inkstream.engines.loadable import Loadable
from inkstream.engines.logprobs import Likelihood, entry
from inkstream.engines.stops import StopMatcher
from inkstream.errors import EngineFailed, EngineLost

__all__ = ["Launch", "LlamaEngine"]

POLL_SECONDS = 0.25
SEEDS = 2**32 - 1
"""The number of seeds; the next one asks llama.cpp for a random seed."""

PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


class LlamaEngine(Loadable):
    """Made by ``local`` or ``remote``. Nothing happens before ``load``; ``status`` tells how that goes."""

    def __init__(self, launch: Launch | None, url: str, key: str, model: str, defaults: Sampling) -> None:
        super().__init__(Status(Phase.LOADING if launch else Phase.CONNECTING))
        self._launch, self._model, self._defaults = launch, model, defaults
        self._server: LlamaServer | None = None
        self._client = LlamaClient(url, key, self._lost) if url else None
        self._prompts: LlamaPrompts | None = None
        self._weights = ""
        self._quantization: str | None = None
        self._capabilities: Capabilities | None = None
        self._slots = asyncio.Semaphore(1)
        self._running: set[_Answer] = set()

    @classmethod
    def local(cls, launch: Launch, model: str = "", defaults: Sampling | None = None) -> Self:
        """A server in this process. ``defaults`` win over what the model file recommends."""
        return cls(launch, "", "", model or launch.path.stem, defaults or Sampling())

    @classmethod
    def remote(cls, url: str, key: str = "", model: str = "", defaults: Sampling | None = None) -> Self:
        """A llama-server that somebody else runs."""
        return cls(None, url, key, model, defaults or Sampling())

    async def _load(self) -> None:
        """Start the server, if it is ours, and wait until it is ready; for a remote one without limit.

        While the native part loads, the event loop of this process stands still. Reading the file
        beforehand, which the status follows, makes that short. Raises ModelError, or EngineFailed where a
        remote server refuses us.
        """
        if self._launch:
            await self._start(self._launch)
        while self._status.phase in (Phase.LOADING, Phase.CONNECTING):
            if not await self._try_connect():
                await asyncio.sleep(POLL_SECONDS)
        self.describe()  # raises where somebody closed us meanwhile

    async def status_after(self, seen: Status) -> Status:
        """While the server does not answer, it is waiting that tries to reach it again."""
        while self._status == seen:
            changed = self._changed
            if seen.phase is not Phase.CONNECTING:
                await changed.wait()
            elif not await self._reconnect():
                await asyncio.sleep(POLL_SECONDS)
        return self._status

    def describe(self) -> Capabilities:
        if self._capabilities is None or self._status.phase is not Phase.READY:
            raise EngineLost(f"llama.cpp is {self._status.phase.value}.")
        return self._capabilities

    @property
    def cache_usage(self) -> float | None:
        """By our own account: what others ask of a remote server is not in it."""
        if self._capabilities is None:
            return None
        room = self._capabilities.slots * self._capabilities.context_length
        return sum(answer.tokens for answer in self._running) / room

    async def render(self, messages: Sequence[Message]) -> Prompt:
        context = self.describe().context_length
        prompt = await self._prompts_at().render(messages)
        if prompt.tokens >= context:
            raise prompt_too_long(prompt.tokens, context)
        return prompt

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        ids, limit = await self._primed(request, emitted)
        answer = _Answer(request, emitted, take)
        if limit > 0:
            body = _completion(request, emitted, ids, limit)
            async with self._slots:
                answer.start()
                self._running.add(answer)
                try:
                    await self._server_at().stream("/completion", body, answer.read)
                finally:
                    self._running.discard(answer)
            if not answer.is_over:
                raise EngineLost("llama.cpp broke off in the middle of an answer.")
        return answer.finish()

    async def busy_slots(self) -> int:
        """How many slots are generating, by the server's own account. Raises EngineLost, EngineFailed."""
        return sum(slot["is_processing"] for slot in await self._server_at().get("/slots"))

    async def aclose(self) -> None:
        """Generations that still run raise EngineLost."""
        self._set(Status(Phase.GIVEN_UP, code="engine_closed", message="llama.cpp was closed."))
        if self._client:
            await self._client.aclose()
        if self._server:
            await asyncio.to_thread(self._server.close)

    async def _start(self, launch: Launch) -> None:
        header = await asyncio.to_thread(read_header, launch.path)
        self._quantization = header.quantization
        loop = asyncio.get_running_loop()

        def on_share(share: float) -> None:
            loop.call_soon_threadsafe(self._set, Status(Phase.LOADING, share=round(share, 2)))

        self._weights = await asyncio.to_thread(read_through, launch.path, on_share, launch.sha256)
        self._server = await asyncio.to_thread(LlamaServer.start, launch, header)
        self._client = LlamaClient(self._server.url, self._server.key, self._lost)

    async def _try_connect(self) -> bool:
        """Raises EngineFailed where trying again is no use."""
        server, seen = self._server_at(), self._capabilities
        try:
            await server.get("/health")
            self._capabilities = self._read(await server.get("/props"), await server.get("/v1/models"))
        except EngineLost:
            return False
        except (KeyError, IndexError, TypeError) as error:
            raise EngineFailed("What answers at llama.cpp's address is no llama-server.") from error
        if seen is None or seen.slots != self._capabilities.slots:
            self._slots = asyncio.Semaphore(self._capabilities.slots)
        self._prompts = LlamaPrompts(server)  # anew: it may be another model's server
        self._set(Status(Phase.READY))
        return True

    async def _reconnect(self) -> bool:
        try:
            return await self._try_connect()
        except EngineFailed as error:
            self._set(Status(Phase.GIVEN_UP, code=error.code, message=error.message))
            return True

    def _read(self, props: dict[str, Any], models: dict[str, Any]) -> Capabilities:
        model = models["data"][0]
        context = props["default_generation_settings"]["n_ctx"]
        build = self._server.build if self._server else props.get("build_info")
        # A remote server tells no checksum: the shape of its weights has to do.
        weights = self._weights or {key: model["meta"].get(key) for key in ("n_vocab", "n_params", "size")}
        identity = orjson.dumps(
            [weights, props["chat_template"], context, build], option=orjson.OPT_SORT_KEYS
        )
        return Capabilities(
            engine="llama",
            model=self._model or model["id"],
            fingerprint=f"llama:{hashlib.sha256(identity).hexdigest()[:32]}",
            context_length=context,
            slots=props["total_slots"],
            continues="text",
            exact_seam=False,
            lacks=("min_tokens",),
            defaults=_defaults(props["default_generation_settings"]["params"], self._defaults),
            quantization=self._quantization,
        )

    async def _primed(self, request: Request, emitted: Emitted) -> tuple[list[int], int]:
        """The ids that the server is to read, and how many it may add to them."""
        context = self.describe().context_length
        ids = request.prompt.payload
        if not isinstance(ids, list) or not all(type(id) is int for id in ids):
            raise EngineFailed("The prompt was rendered by another engine.", code="bad_prompt")
        if len(ids) >= context:
            raise prompt_too_long(len(ids), context)
        if emitted.text:
            (behind,) = await self._prompts_at().tokenize([emitted.text])
            ids = ids + behind
        limit = request.sampling.max_tokens
        room = context - len(ids)
        return ids, room if limit is None else min(room, limit - emitted.tokens)

    def _server_at(self) -> LlamaClient:
        if self._client is None:
            raise EngineLost("llama.cpp is not running yet.")
        return self._client

    def _prompts_at(self) -> LlamaPrompts:
        if self._prompts is None:
            raise EngineLost("llama.cpp is not running yet.")
        return self._prompts

    def _lost(self) -> None:
        self._set(Status(Phase.CONNECTING))


class _Answer:
    """What comes of one request, as far as it lies beyond the seam."""

    def __init__(self, request: Request, emitted: Emitted, take: Take) -> None:
        self._request, self._emitted, self._take = request, emitted, take
        self._stops = StopMatcher(request.sampling.stop, emitted.text)
        self._started = self._first_token = 0.0
        self._predicted = 0
        self._told = 0
        self._cached = 0
        self._stop_type: str | None = None
        self._last = ""
        self._logprobs: list[dict[str, Any]] = []

    @property
    def is_over(self) -> bool:
        return self._stops.matched is not None or self._stop_type is not None

    @property
    def tokens(self) -> int:
        """Of prompt and answer, as far as it is written."""
        return self._request.prompt.tokens + self._emitted.tokens + self._predicted

    def start(self) -> None:
        self._started = time.monotonic()

    def read(self, events: Sequence[dict[str, Any]]) -> bool:
        """Take in the server's events, as one chunk at most. Says whether the answer is over."""
        visible = ""
        for event in events:
            if "error" in event:
                raise failure(event["error"])
            if progress := event.get("prompt_progress"):
                self._cached = progress["cache"]
                self._take(Progress(progress["processed"] / max(progress["total"], 1)))
                continue
            visible += self._add(event)
            if self.is_over:
                self._last = visible
                return True
        if visible:
            self._take(self._chunk(visible))
        return False

    def finish(self) -> Finish:
        last = self._last + self._stops.flush()
        now = time.monotonic()
        first = self._first_token or now
        started = self._started or now
        by_itself = self._stops.matched is not None or self._stop_type in ("eos", "word")
        return Finish(
            reason="stop" if by_itself else "length",
            prompt_tokens=self._request.prompt.tokens,
            completion_tokens=self._emitted.tokens + self._predicted,
            cached_tokens=self._cached,
            timings={"prefill_seconds": first - started, "decode_seconds": now - first},
            last=self._chunk(last) if last else None,
        )

    def _add(self, event: dict[str, Any]) -> str:
        self._first_token = self._first_token or time.monotonic()
        self._predicted = event["tokens_predicted"]
        self._logprobs += map(self._likelihood, event.get("completion_probabilities", ()))
        if event["stop"]:
            self._stop_type = event["stop_type"]
        return self._stops.feed(event["content"])

    def _chunk(self, text: str) -> Chunk:
        tokens, self._told = self._predicted - self._told, self._predicted
        if not self._request.sampling.logprobs:
            return Chunk(text, tokens)
        logprobs, self._logprobs = self._logprobs, []
        return Chunk(text, tokens, logprobs=logprobs)

    def _likelihood(self, told: dict[str, Any]) -> dict[str, Any]:
        rivals = told["top_logprobs"][: self._request.sampling.top_logprobs or 0]
        return entry(_likelihood(told), map(_likelihood, rivals))


def _completion(request: Request, emitted: Emitted, ids: list[int], limit: int) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "prompt": ids,
        "n_predict": limit,
        "stream": True,
        "return_progress": True,
        "cache_prompt": True,
    }
    for ours, theirs in PARAMETERS.items():
        if (value := getattr(sampling, ours)) is not None:
            body[theirs] = value
    body["ignore_eos"] = bool(sampling.ignore_eos)
    body["logit_bias"] = [[int(id), bias] for id, bias in sampling.logit_bias.items()]
    if sampling.logprobs:
        # Asked for no rivals, the server tells nothing of the token either.
        body["n_probs"] = max(sampling.top_logprobs or 0, 1)
    if sampling.seed is not None:
        body["seed"] = (sampling.seed + emitted.tokens) % SEEDS
    return body


def _likelihood(told: dict[str, Any]) -> Likelihood:
    return bytes(told["bytes"]), told["logprob"]


def _defaults(params: dict[str, Any], wanted: Sampling) -> Sampling:
    # llama.cpp keeps 32-bit floats: 0.8 comes back as 0.800000011920929.
    told = {ours: round(params[theirs], 6) for ours, theirs in PARAMETERS.items() if theirs in params}
    return wanted.over(Sampling(**told, ignore_eos=False, logprobs=False, top_logprobs=0))
