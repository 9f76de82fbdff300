"""What every route stands on: the parts of the server, who is asking, and how JSON is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from inkstream.api.page import build_of_page
from inkstream.api.sse import OPENING, EventStream, OpenStreams, Rewriting, Source
from inkstream.config import Settings
from inkstream.engines import Engine, Sampling
from inkstream.events import Event, encode
from inkstream.history import History
from inkstream.log.sqlite import SqliteLog
from inkstream.runs import Runs

StopString = Annotated[str, Field(min_length=1, max_length=256)]


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    history: History
    runs: Runs
    streams: OpenStreams
    build: str | None = field(default_factory=build_of_page)

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

    Raises FolderInUse, LogUnwritable, LogError.
    """
    log = await SqliteLog.open(settings.data_dir, durability=settings.durability)
    try:
        history = await History.open(settings.data_dir)
        try:
            async with Runs.open(log, history, engine, settings, on_progress) as runs:
                yield Services(settings, history, runs, streams)
        finally:
            await history.aclose()
    finally:
        await log.aclose()


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
    stop: list[StopString] = Field(default=[], max_length=16)

    def sampling(self) -> Sampling:
        given = self.model_dump(include=set(SamplingIn.model_fields))
        return Sampling(**{**given, "stop": tuple(self.stop)})


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def principal_of(request: Request) -> str:
    """Whose request this is; the guard has written it down."""
    principal: str = request.state.principal
    return principal


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    return Response(encode(body), status, {"cache-control": "no-store"}, media_type="application/json")
