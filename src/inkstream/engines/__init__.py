"""Engines turn a prompt into text. They know nothing of runs, the log or HTTP servers.

One shape, one file per implementation; ``tests/test_engines.py`` runs one suite against each.
``create`` imports the chosen one late, so that what it needs stays optional.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from inkstream import gpus, probe
from inkstream.config import Settings
from inkstream.errors import EngineFailed, ModelError

NGRAM = "ngram"
"""The draft model that is none: what the text has said before is guessed again."""

SLOTS, GPU_SLOTS = 4, 64
"""Answers at a time where the settings do not say: what a CPU computes together without being slow, and what
torch lets in on a GPU."""


class Phase(StrEnum):
    """Where an engine is on its way to being ready."""

    CONNECTING = "connecting"  # nobody answers yet, or not any more: wait
    DOWNLOADING = "downloading"
    LOADING = "loading"
    READY = "ready"
    GIVEN_UP = "given_up"  # it will not come back by itself


@dataclass(frozen=True, slots=True)
class Status:
    """What the engine is doing, for people as well as for us.

    ``share`` is 0…1 of the present phase where known. ``detail`` holds what a page can show beside it:
    for a download ``{file, source, done_bytes, total_bytes, bytes_per_second, seconds_left}``.
    ``code`` and ``message`` say why an engine is given up, or what the user should know.
    """

    phase: Phase
    share: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. None means: the engine's default for this model.

    ``min_tokens`` is how many come before a token may end the answer; a stop string ends it all the same.
    ``ignore_eos`` lets no token end it. ``logit_bias`` is added to the logits of the tokens whose ids it
    names, as text, because JSON has no other names. With ``logprobs`` each token comes with its logarithmic
    probability and those of the ``top_logprobs`` likeliest in its place.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[str, float] = field(default_factory=dict, hash=False)

    def given(self) -> dict[str, Any]:
        """What is said, by name."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in said.items() if value is not None and value not in ((), {})}

    def over(self, unsaid: Sampling) -> Sampling:
        """What is said here; for the rest, what is said there."""
        return replace(unsaid, **self.given())


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What is true of this engine and the model in it.

    ``fingerprint`` changes whenever a continuation could read differently: weights, template, context.
    ``continues`` says from what a cut answer goes on; ``exact_seam`` whether it then ends with the text
    that the undisturbed one would have had. ``slots`` is how many requests are batched together.
    ``lacks`` names the fields of ``Sampling`` that this engine cannot do.
    ``quantization`` is how the weights are stored, in the words of their format, where that is known.
    """

    engine: str
    model: str
    fingerprint: str
    context_length: int
    slots: int
    continues: Literal["ids", "text", "no"]
    exact_seam: bool
    defaults: Sampling
    lacks: tuple[str, ...] = ()
    speculation: str | None = None
    quantization: str | None = None

    def missing(self, sampling: Sampling) -> str | None:
        """What is asked for and cannot be done. Asking for nothing (0, False) can."""
        return next((name for name in self.lacks if getattr(sampling, name)), None)


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt. ``payload`` is JSON and opaque to all but its engine.

    ``channel`` is where the answer starts: some templates open the thinking block themselves.
    """

    tokens: int
    payload: Any
    channel: Literal["text", "thinking"] = "text"


def prompt_too_long(tokens: int, context: int) -> EngineFailed:
    return EngineFailed(
        f"The prompt has {tokens} tokens; the context holds {context}, one of them for the answer.",
        code="prompt_too_long",
    )


@dataclass(frozen=True, slots=True)
class Request:
    """One generation. ``sampling`` is resolved: no field is None but those the engine lacks."""

    id: str
    prompt: Prompt
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Emitted:
    """What an earlier attempt at the same request has already made visible.

    ``ids`` are the tokens up to the one that completed the last visible text, or None if unknown.
    ``tokens`` counts them either way, against ``max_tokens``.
    """

    text: str = ""
    ids: tuple[int, ...] | None = ()
    tokens: int = 0


class Chunk(NamedTuple):
    """Raw text that never ends inside a character, with what it cost.

    ``ids`` is None where the engine cannot tell them exactly. ``logprobs`` has an entry for each token
    where they were asked for, in OpenAI's shape: ``{token, logprob, bytes, top_logprobs: [{token, logprob,
    bytes}…]}``, natural logarithms of what the model itself thinks, before any rule of the sampling.

    A tuple because there is one per token: a frozen dataclass takes four times as long to make.
    """

    text: str
    tokens: int
    ids: tuple[int, ...] | None = None
    logprobs: list[dict[str, Any]] | None = None


def merged(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk that says what these say, in order. What one of them does not know, the whole does not."""
    if len(chunks) == 1:
        return chunks[0]
    texts, tokens, ids, logprobs = zip(*chunks, strict=True)
    return Chunk(
        "".join(texts),
        sum(tokens),
        None if None in ids else tuple(chain.from_iterable(ids)),
        None if None in logprobs else list(chain.from_iterable(logprobs)),
    )


class Progress(NamedTuple):
    """``share`` of the prompt that has been read, 0…1. Volatile."""

    share: float


Take = Callable[[Chunk | Progress], None]
"""Is given what becomes visible of one generation, synchronously and in order. It must not block or raise."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The generation ended by itself. Tokens include what had been emitted before a seam.

    ``last`` is text that came together with the end, and is to be kept together with it.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    last: Chunk | None = None


class Engine(Protocol):
    @property
    def status(self) -> Status: ...

    async def status_after(self, seen: Status) -> Status:
        """Wait until the status is another than ``seen``."""
        ...

    def describe(self) -> Capabilities:
        """Raises EngineLost while the engine is not ready."""
        ...

    @property
    def cache_usage(self) -> float | None:
        """The share of the key-value cache that living answers hold, 0…1; None while nobody can say."""
        ...

    async def render(self, messages: Sequence[Message]) -> Prompt:
        """Apply the model's chat template. What users typed is text, never a control token.

        Raises EngineLost, EngineFailed.
        """
        ...

    async def generate(self, request: Request, emitted: Emitted, take: Take) -> Finish:
        """Generate to the end. ``take`` is given, on the event loop, only what lies beyond ``emitted``.

        It is called where the step of all runs arrives: no task is woken for a token. Who is slow merges
        what was taken; nothing waits in the engine. What comes with the end is not taken, it is
        ``Finish.last``. Stop strings are matched across ``emitted``'s end and never become visible.

        Cancelling the call cancels the generation within one step and frees the slot. From the moment the
        awaiting task is cancelled nothing more is taken. Raises EngineLost (ask again), EngineFailed (this
        request alone).
        """
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Weights:
    """A model file, or the folder of a checkpoint, that is completely there.

    ``sha256`` in hexadecimal spares an engine computing it.

    ``defaults`` is what the model's makers recommend where the file itself does not say.
    """

    path: Path
    name: str = ""
    sha256: str = ""
    defaults: Sampling = field(default_factory=Sampling)


@asynccontextmanager
async def create(
    settings: Settings, weights: Weights | None = None, draft: Weights | None = None
) -> AsyncGenerator[Engine]:
    """The engine that the settings name, closed at the end of the block. ``draft`` is a model that
    guesses for ``torch`` what the other will say.

    It loads while the block runs, and its status tells how that goes, a failure included. All but
    ``scripted`` need ``weights``: its model is a script, where it is a JSON file. Raises ConfigError for a
    bad script, ModelError.
    """
    if settings.engine == "scripted":
        from inkstream.engines.scripted import Script, Scripted  # noqa: PLC0415 - the chosen one alone

        is_file = settings.model.endswith(".json")
        script = Script.read(Path(settings.model)) if is_file else Script.parse(settings.script)
        scripted = Scripted(script)
        try:
            yield scripted
        finally:
            await scripted.aclose()
        return
    if weights is None:
        raise ModelError(f"The engine '{settings.engine}' needs a model file.")
    opened = _torch(settings, weights, draft) if settings.engine == "torch" else _llama(settings, weights)
    async with opened as engine:
        yield engine


@asynccontextmanager
async def _llama(settings: Settings, weights: Weights) -> AsyncGenerator[Engine]:
    from inkstream.engines.llama import Launch, LlamaEngine  # noqa: PLC0415 - the chosen one alone

    launch = Launch(
        path=weights.path,
        context=settings.context,
        slots=settings.slots or SLOTS,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        is_verbose=settings.log_level == "debug",
        sha256=weights.sha256,
    )
    async with LlamaEngine.local(launch, weights.name, weights.defaults).loading() as engine:
        yield engine


@asynccontextmanager
async def _torch(settings: Settings, weights: Weights, draft: Weights | None) -> AsyncGenerator[Engine]:
    # Importing torch takes seconds, in which gateways want to connect.
    module = await asyncio.to_thread(_imported, "inkstream.engines.torch.engine")
    launch = module.Launch(
        path=weights.path,
        context=settings.context,
        slots=settings.slots,
        queue=settings.queue,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        name=weights.name,
        sha256=weights.sha256,
        defaults=weights.defaults,
        ngram=settings.draft_model == NGRAM,
        draft_model=draft.path if draft else None,
        quantize="" if settings.quantize == "none" else settings.quantize,
    )
    async with module.TorchEngine(launch).loading() as engine:
        yield engine


def _imported(name: str) -> Any:
    """A module of ours that needs optional packages. Raises ModelError where one is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("inkstream"):
            raise
        line = gpus.install_line(gpus.fitting_build(probe.nvidia_gpus()))
        raise ModelError(
            f"The torch engine needs the package '{error.name}', which is not installed. Install torch and "
            f"the extra inkstream[torch]: {line}",
            code="engine_missing",
        ) from error
