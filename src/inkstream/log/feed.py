"""What the followers of a live run share: how far it has come, its notes, and who is to be told.

Everything here happens on the event loop, and what a feed gives out is committed. A follower is in the feed
only while it has all that was given out so far; whoever is behind reads the log until it has caught up.
"""

from __future__ import annotations

import asyncio
import logging

from inkstream.events import Batch, Note
from inkstream.log import Reader

logger = logging.getLogger(__name__)


class Follower:
    """One reader of one run: how far it has come, and whether it takes more."""

    __slots__ = ("cursor", "error", "has_ended", "is_ready", "reader", "released", "version")

    def __init__(self, reader: Reader, after: int) -> None:
        self.reader, self.cursor = reader, after
        self.version = 0  # of the notes
        self.is_ready, self.has_ended = True, False
        self.error: Exception | None = None
        self.released: asyncio.Future[None] | None = None  # there is one while it is in a feed

    def take(self, batch: Batch) -> None:
        self.cursor, self.has_ended = batch.last_seq, batch.is_last
        self.is_ready = self.reader.take(batch)


class Feed:
    """A run that has not ended. ``last_seq`` is the last number that was given out."""

    __slots__ = ("_followers", "_notes", "_waiting", "epoch", "last_seq", "version")

    def __init__(self, epoch: int, last_seq: int) -> None:
        self.epoch, self.last_seq = epoch, last_seq
        self.version = 0
        self._notes: dict[str, tuple[int, Note]] = {}
        # Tuples, replaced and not changed: a reader may leave or join while they are gone through.
        self._followers: tuple[Follower, ...] = ()
        self._waiting: tuple[asyncio.Future[None], ...] = ()

    # Following

    async def serve(self, follower: Follower) -> None:
        """Give a follower that has everything what it has not seen of the notes, then all that comes.

        Returns when the follower is not ready, or behind, or there is no more. Raises what its reader raised.
        """
        if notes := self.notes_for(follower):
            follower.take(Batch(b"", follower.cursor, notes=notes))
        elif follower.cursor > self.last_seq:
            await self._change()
        else:
            follower.released = released = asyncio.get_running_loop().create_future()
            self._followers = (*self._followers, follower)
            try:
                await released
            finally:
                follower.released = None
                self._forget(follower)
            if follower.error is not None:
                raise follower.error

    async def _change(self) -> None:
        """Return when the run has come further."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = (*self._waiting, waiter)
        await waiter

    def has_notes_for(self, follower: Follower) -> bool:
        return follower.version != self.version and bool(self._notes)

    def notes_for(self, follower: Follower) -> tuple[Note, ...]:
        """The notes that the follower does not have yet; from now on it has them."""
        if follower.version == self.version:
            return ()
        version, follower.version = follower.version, self.version
        return tuple(note for at, note in self._notes.values() if at > version)

    def release_all(self) -> None:
        """Send all followers back to the log."""
        followers, self._followers = self._followers, ()
        for follower in followers:
            self._release(follower)
        self._wake()

    # Giving out

    def publish(self, after: int, last_seq: int, frames: bytes, *, is_last: bool) -> None:
        """Give out what was committed behind ``after``."""
        is_gapless, self.last_seq = after == self.last_seq, last_seq
        if not is_gapless:  # a commit whose answer was lost, or somebody else's, came between
            self.release_all()
        elif self._followers:
            self._give(Batch(frames, last_seq, is_last=is_last))
        if is_last:
            self.release_all()
        elif self._waiting:
            self._wake()

    def note(self, note: Note) -> None:
        self.version += 1
        self._notes[note.key] = self.version, note
        if self._followers:
            self._give(Batch(b"", self.last_seq, notes=(note,)))

    def pass_on(self, epoch: int, last_seq: int) -> None:
        """Somebody has claimed the run."""
        self.epoch, self._notes = epoch, {}
        if last_seq != self.last_seq:
            self.last_seq = last_seq
            self.release_all()

    def _give(self, batch: Batch) -> None:
        for follower in self._followers:
            if follower.released is None:
                continue
            try:
                follower.take(batch)
            except Exception as error:
                logger.exception("a reader failed")
                follower.error, follower.is_ready = error, False
            if not follower.is_ready:
                self._release(follower)

    def _release(self, follower: Follower) -> None:
        follower.version = self.version
        released, follower.released = follower.released, None
        if released is not None and not released.done():
            released.set_result(None)
        self._forget(follower)

    def _forget(self, follower: Follower) -> None:
        if follower in self._followers:
            self._followers = tuple(other for other in self._followers if other is not follower)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
