"""The hot path from engine to log: what an engine gives becomes events, and no task is woken per token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from inkstream.channels import Channel, ChannelSplitter
from inkstream.drafts import STOPPED, failed, plain_draft, text_drafts
from inkstream.engines import Chunk, Finish, Progress, merged
from inkstream.errors import Fenced, LogError
from inkstream.events import Draft, encode
from inkstream.log import Appended, Claim, Entry, Log
from inkstream.timeline import Timeline

logger = logging.getLogger(__name__)

NOTHING = Chunk("", 0, ())


class Pen:
    """Writes one run for as long as a claim on it holds.

    One append is under way at a time; what the engine gives meanwhile is in the next one, as one event.
    ``on_text`` hears of the first text that was written, ``on_trouble`` why no more of it can be: a stop that
    somebody asked for, or the error.
    """

    __slots__ = (
        "_has_text",
        "_is_over",
        "_is_writing",
        "_log",
        "_on_text",
        "_on_trouble",
        "_outcome",
        "_seq",
        "_splitter",
        "_taken",
        "_timeline",
        "_unseen",
        "_waiter",
        "claim",
    )

    def __init__(
        self,
        log: Log,
        claim: Claim,
        timeline: Timeline,
        on_text: Callable[[], None],
        on_trouble: Callable[[Draft | LogError], None],
    ) -> None:
        self.claim = claim
        self._splitter = ChannelSplitter()
        self._log, self._seq = log, claim.last_seq
        self._timeline, self._on_text, self._on_trouble = timeline, on_text, on_trouble
        self._taken: list[Chunk] = []
        self._unseen: list[Chunk] = []  # they have been paid for, but there was nothing to see
        self._has_text = False
        self._is_over = False
        self._is_writing = False
        self._outcome: Appended | LogError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def note(self, key: str, payload: dict[str, object]) -> None:
        self._log.note(self.claim, key, encode({"key": key, **payload}))

    def begin(self, channel: Channel, emitted: str) -> None:
        """Get ready for text behind ``emitted``, which is all that the model has written."""
        self._splitter = ChannelSplitter(channel, emitted)

    def take(self, item: Chunk | Progress) -> None:
        """What an engine gives. Never waits."""
        if isinstance(item, Progress):
            self.note("prefill", {"share": item.share})
        elif not self._is_over:
            self._taken.append(item)
            if not self._is_writing:
                self._write()

    def last_words(self, finish: Finish) -> list[Draft]:
        """The events of what came with the end, and of what was held back until it."""
        chunks = self._unseen + ([finish.last] if finish.last else [])
        self._timeline.tokens += finish.last.tokens if finish.last else 0
        pieces = self._splitter.feed(finish.last.text if finish.last else "") + self._splitter.flush()
        return text_drafts(pieces, merged(chunks) if chunks else NOTHING)

    async def append(self, drafts: Sequence[Draft]) -> None:
        """Write events behind all that was taken. Raises Fenced, LogUnwritable, LogError.

        A call that is cancelled may have written them or not; the next one knows.
        """
        await self.settled()
        self._submit(drafts, self._written)
        await self.settled()
        outcome = self._outcome
        if not isinstance(outcome, Appended):
            raise self._trouble(outcome)
        if outcome.stop_requested:
            self._on_trouble(STOPPED)

    def put_down(self) -> None:
        """Tell nobody any more: a pen and its drive would keep each other until a garbage collection."""
        self._on_text, self._on_trouble = _nobody_hears, _nobody_minds

    async def settled(self) -> None:
        """Wait until all that was taken is in the log, or cannot be."""
        while self._is_writing:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _write(self) -> None:
        # It is called where an exception would hit everybody: in an engine's step, in the answer of a commit.
        try:
            self._write_taken()
        except Exception:
            run = self.claim.run
            logger.exception("run %s: what the engine gave cannot be written", run, extra={"run": run})
            self._give_up(
                failed("internal", "The engine gave what cannot be written. The console says what.")
            )

    def _write_taken(self) -> None:
        chunk = merged(self._taken)
        self._taken.clear()
        self._timeline.tokens += chunk.tokens
        if chunk.text and self._splitter.is_plain and not self._unseen:
            self._submit([plain_draft(chunk)], self._text_written)
            return
        self._unseen.append(chunk)
        if pieces := self._splitter.feed(chunk.text):
            unseen, self._unseen = self._unseen, []
            self._submit(text_drafts(pieces, merged(unseen)), self._text_written)

    def _submit(self, drafts: Sequence[Draft], done: Callable[[Appended | LogError | None], None]) -> None:
        self._is_writing = True
        self._log.submit(Entry(self.claim, self._seq, drafts), done)

    def _text_written(self, outcome: Appended | LogError | None) -> None:
        self._is_writing = False
        if not isinstance(outcome, Appended):
            self._give_up(self._trouble(outcome))
        else:
            self._seq = outcome.seq
            if not self._has_text:
                self._has_text = True
                self._on_text()
            if outcome.stop_requested:
                self._give_up(STOPPED)
            elif self._taken:
                self._write()
        self._wake()

    def _written(self, outcome: Appended | LogError | None) -> None:
        self._is_writing = False
        self._outcome = outcome
        if isinstance(outcome, Appended):
            self._seq = outcome.seq
        self._wake()

    def _give_up(self, why: Draft | LogError) -> None:
        self._is_over = True
        self._taken.clear()
        self._on_trouble(why)

    def _wake(self) -> None:
        if self._waiter is not None and not self._is_writing:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    def _trouble(self, outcome: LogError | None) -> LogError:
        return outcome or Fenced(f"run {self.claim.run} is held by somebody else.")


def _nobody_hears() -> None: ...


def _nobody_minds(_: Draft | LogError) -> None: ...
