"""Conversations and their messages, on SQLite.

A message of a run is derived from the log: the log is always ahead, so every write here is an upsert that may
be repeated, and a row of an older state never replaces a newer one. A conversation that is deleted is hidden
at once and kept until it is purged; until then it can be restored, and its runs' last words still reach it.
Behind that, upserts of its messages change nothing.

All statements run in one thread of the history's own, and checkpoints in another. What is searched is kept
with every write, in the same transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from inkstream import database
from inkstream.errors import LogUnwritable
from inkstream.history import pages, purge
from inkstream.history.records import Changed, Chat, Match, Message, Page
from inkstream.history.rows import Rows
from inkstream.history.schema import FILE, connect
from inkstream.writer import Writer

CHATS_AT_ONCE = 100
CHECKPOINT_BYTES = 4 << 20

P = ParamSpec("P")
T = TypeVar("T")


class History:
    """All calls belong to a principal; what is not his does not exist.

    Raises NotFound (``chat_deleted`` for what can still be restored), LogUnwritable.
    """

    def __init__(
        self, db: sqlite3.Connection, path: Path, on_change: Callable[[Changed], None] = lambda _: None
    ) -> None:
        loop = asyncio.get_running_loop()

        def tell(change: Changed) -> None:
            # Not by the caller: one that is cancelled meanwhile would keep the change from everybody.
            loop.call_soon_threadsafe(on_change, change)

        self._rows, self._path = Rows(db, tell), path
        self._wal = path.with_name(f"{path.name}-wal")
        self._writer = Writer("history")
        self._checkpointer = ThreadPoolExecutor(1, "history-checkpoint")
        self._checkpoint: Future[bool] | None = None

    @classmethod
    async def open(cls, folder: Path, on_change: Callable[[Changed], None] = lambda _: None) -> Self:
        """``on_change`` hears of every conversation that is not what it was, before its caller does.

        Raises LogUnwritable, LogError for a file of a newer version.
        """
        path = folder / FILE
        history = cls(await asyncio.to_thread(connect, path), path, on_change)
        history._writer.start()
        return history

    async def aclose(self) -> None:
        await self._writer.stop()
        await asyncio.to_thread(self._checkpointer.shutdown)
        self._rows.db.close()

    # Conversations

    async def create_chat(
        self,
        principal: str,
        title: str = "",
        settings: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        body_hash: bytes = b"",
    ) -> Chat:
        """Create one, or return the one that was created with ``key`` and the same ``body_hash``.

        Raises KeyReused.
        """
        now = time.time()
        chat = Chat(uuid.uuid4().hex, principal, title, now, now, settings or {})
        return await self._run(self._rows.create, chat, key, body_hash)

    async def add(self, chat: Chat, messages: Sequence[Message], key: str) -> tuple[Chat, bool]:
        """Write a whole conversation, parents before children, in one transaction.

        Where one was added with ``key`` before, that is the one returned, restored if it was deleted. Says
        whether it is new.
        """
        return await self._run(self._rows.add, chat, messages, key)

    async def chats(
        self, principal: str, query: str = "", *, limit: int = 50, before: str | None = None
    ) -> Page:
        """A page of conversations, ``before`` the cursor that the page before has given.

        Without a query the newest first. With one, those whose title or text contains it, whatever its case
        and width, each where its newest match is, newest match first; a page may then be shorter than
        ``limit`` although there is a next one. Raises Invalid.
        """
        if query:
            return await self._run(pages.searched, self._rows, principal, query, limit, before)
        return await self._run(pages.listed, self._rows, principal, limit, before)

    async def all_chats(self, principal: str) -> AsyncGenerator[Chat]:
        """Every conversation that is there from beginning to end, oldest first, read page by page."""
        n = 0
        while found := await self._run(self._rows.after, principal, n, CHATS_AT_ONCE):
            for n, chat in found:  # noqa: B007  # it is where the next page begins
                yield chat

    async def chat(self, principal: str, chat: str) -> Chat:
        return await self._run(self._rows.chat, principal, chat)

    async def change(
        self, principal: str, chat: str, *, title: str | None = None, settings: dict[str, Any] | None = None
    ) -> Chat:
        """Give it another title, or change some of its settings; None among these takes one away."""
        return await self._run(self._rows.change, principal, chat, title, settings or {})

    async def delete(self, principal: str, chat: str) -> tuple[str, ...]:
        """Hide it, everywhere and at once. Returns its living runs; may be repeated."""
        return await self._run(self._rows.delete, principal, chat)

    async def restore(self, principal: str, chat: str) -> Chat:
        """Bring back what was deleted and is not purged."""
        return await self._run(self._rows.restore, principal, chat)

    async def purge(self, before: float) -> None:
        """Take what was deleted before that Unix time out of database, search index and write-ahead file.

        Other calls come in between its slices. If it is cut short, the next one goes on.
        """
        while await self._run(purge.doom, self._rows, before):
            pass
        if not await self._run(purge.is_pending, self._rows):
            return
        while await self._run(purge.empty, self._rows):
            pass
        has_more = await self._run(purge.scrub, self._rows, is_first=True)
        while has_more:
            has_more = await self._run(purge.scrub, self._rows, is_first=False)
        whole = partial(database.checkpoint, self._path, is_whole=True)
        if await asyncio.get_running_loop().run_in_executor(self._checkpointer, whole):
            await self._run(purge.finish, self._rows)

    # Messages

    async def messages(self, principal: str, chat: str) -> list[Message]:
        """All branches, parents before children."""
        return (await self.conversation(principal, chat))[1]

    async def conversation(self, principal: str, chat: str) -> tuple[Chat, list[Message]]:
        """A conversation as it is at one moment, and its messages like ``messages``."""
        return await self._run(self._rows.conversation, principal, chat)

    async def message(self, principal: str, message: str) -> Message:
        return await self._run(self._rows.message, principal, "id", message)

    async def message_of_run(self, principal: str, run: str) -> Message:
        return await self._run(self._rows.message, principal, "run", run)

    async def upsert(self, *messages: Message) -> None:
        """A conversation without a title takes it from the first question."""
        await self._run(self._rows.upsert, messages)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writer.ask(partial(self._translated, partial(call, *args, **kwargs)))

    def _translated(self, call: Callable[[], T]) -> T:
        try:
            result = call()
            self._checkpoint_if_due()
            return result
        except sqlite3.OperationalError as error:
            raise LogUnwritable(f"the history {self._path} cannot be written: {error}") from error

    def _checkpoint_if_due(self) -> None:
        is_running = self._checkpoint is not None and not self._checkpoint.done()
        if not is_running and self._wal.stat().st_size > CHECKPOINT_BYTES:
            self._checkpoint = self._checkpointer.submit(database.checkpoint, self._path)


__all__ = ["Changed", "Chat", "History", "Match", "Message", "Page"]
