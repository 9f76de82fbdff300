"""What every route stands on: the parts of the server, who is asking, and how JSON is answered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from inkstream.accounts import Accounts, Identity, Role
from inkstream.api.door import Door, watch
from inkstream.api.page import build_of_page
from inkstream.api.sse import OPENING, EventStream, OpenStreams, Rewriting, Source
from inkstream.config import Settings
from inkstream.engines import Engine, Sampling
from inkstream.errors import Forbidden, Overloaded
from inkstream.events import Event, encode
from inkstream.history import History
from inkstream.log.sqlite import SqliteLog
from inkstream.log.tally import LogTally
from inkstream.news import News
from inkstream.nvml import Nvml
from inkstream.runs import Runs
from inkstream.tallies import RunTally
from inkstream.tasks import Tasks
from inkstream.tracing import tracing

logger = logging.getLogger(__name__)

READER_RETRY_SECONDS = 10  # nobody knows when a reader leaves

StopString = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
NAMES = {field.name for field in fields(Sampling)}


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    accounts: Accounts
    door: Door
    history: History
    runs: Runs
    streams: OpenStreams
    tally: RunTally
    log_tally: LogTally
    errors: Counter[str] = field(default_factory=Counter)
    nvml: Nvml = field(default_factory=Nvml)
    build: str | None = field(default_factory=build_of_page)
    echoes: set[EventStream] = field(default_factory=set)

    def require_reader(self) -> None:
        """To be asked before anything is begun for a reader. Raises Overloaded."""
        if len(self.streams) >= self.settings.readers:
            raise Overloaded(
                f"{len(self.streams)} streams are open already. Try again later.",
                code="too_many_readers",
                retry_after_seconds=READER_RETRY_SECONDS,
            )

    def stream(self, source: Source, opening: bytes = OPENING) -> EventStream:
        """A server-sent event reply. It ends with this server."""
        return EventStream(source, self.streams, opening)

    def follow(
        self,
        principal: str,
        run: str,
        after: int = 0,
        write: Callable[[Event], bytes] | None = None,
        opening: bytes = OPENING,
        *,
        waits: bool = True,
    ) -> EventStream:
        """A run's events as a reply: as the log has them, or as ``write`` puts them.

        One that does not wait ends behind what there is.
        """

        def source(stream: EventStream) -> Awaitable[None]:
            reader = Rewriting(stream, write) if write else stream
            return self.runs.follow(principal, run, after, reader, waits=waits)

        return self.stream(source, opening)


@asynccontextmanager
async def open_services(
    settings: Settings, engine: Engine, streams: OpenStreams, on_progress: Callable[[], None]
) -> AsyncIterator[Services]:
    """Open the data folder and go on with what a dead process left there.

    Raises FolderInUse, LogUnwritable, LogError, and ConfigError where traces cannot be sent.
    """
    log = await SqliteLog.open(settings.data_dir, durability=settings.durability)
    try:
        news = News()
        history = await History.open(settings.data_dir, news.tell)
        try:
            async with (
                tracing(settings.traces) as trace,
                Accounts.open(settings.data_dir, settings.key) as accounts,
                _watched(watch(accounts, streams), (tally := RunTally(trace)).watch()),
                Runs.open(log, history, engine, settings, news, on_progress, tally) as runs,
            ):
                door = Door(settings, accounts)
                yield Services(settings, accounts, door, history, runs, streams, tally, log.tally)
        finally:
            await history.aclose()
    finally:
        await log.aclose()


@asynccontextmanager
async def _watched(*watches: Coroutine[None, None, None]) -> AsyncIterator[None]:
    tasks = Tasks(logger)
    for watching in watches:
        tasks.spawn(watching)
    try:
        yield
    finally:
        await tasks.cancel_all()


class SamplingIn(BaseModel):
    """Sampling parameters as a client gives them; what is left out is the model's default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    min_tokens: int | None = Field(default=None, ge=0, le=10_000_000)
    ignore_eos: bool | None = None
    stop: list[StopString] = Field(default=[], max_length=16)

    def sampling(self) -> Sampling:
        return read_sampling(self.model_dump(include=NAMES))


class TokenSamplingIn(SamplingIn):
    """With what is about single tokens, for clients that know them."""

    logit_bias: dict[TokenId, Bias] | None = Field(default=None, max_length=1024)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


def read_sampling(given: Mapping[str, Any]) -> Sampling:
    """From JSON, where nothing may be null."""
    lists = {"stop": tuple(given.get("stop") or ()), "logit_bias": given.get("logit_bias") or {}}
    return Sampling(**{**given, **lists})


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def identity_of(request: Request) -> Identity:
    """Whose request this is; the guard has written it down."""
    identity: Identity = request.state.identity
    return identity


def principal_of(request: Request) -> str:
    return identity_of(request).principal


def require_admin(request: Request) -> None:
    """Raises Forbidden."""
    if identity_of(request).role is not Role.ADMIN:
        raise Forbidden("that is for admins.", code="admins_only")


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    return Response(encode(body), status, {"cache-control": "no-store"}, media_type="application/json")
