"""A file on its way into the folder: ``NAME.part`` grows, is checked, and becomes ``NAME`` in one step.

Beside it ``NAME.part.json`` says which file it is half of, so that a later start, or another hub that has the
same file, can go on. Nothing is ever visible under its own name that is not whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from inkstream.disk import sync_folder
from inkstream.models import checkpoint

T = TypeVar("T")

SUFFIX = ".part"
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells whether two halves are of one file. ``etag`` is a server's own name of the content."""

    size_bytes: int
    sha256: str | None = None
    etag: str | None = None


class WrongContent(Exception):
    """All bytes are there and they are not the file that was promised. The text is the reason."""


class Part:
    """One writer at a time: the caller holds a lock. All disk work is done in a thread of its own, in order,
    so that neither a slow disk stops the event loop nor a cancelled download writes behind its end.
    """

    def __init__(self, target: Path, identity: Identity) -> None:
        self.size = 0
        self.identity = identity
        self._target = target
        self._path = target.with_name(target.name + SUFFIX)
        self._sidecar = target.with_name(target.name + SUFFIX + ".json")
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._disk = ThreadPoolExecutor(1, "inkstream-download")

    async def __aenter__(self) -> Self:
        try:
            await self._do(self._open)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def write(self, block: bytes) -> None:
        await self._do(self._write, block)

    async def restart(self, etag: str | None = None) -> None:
        """Forget what is there; what follows is the content that the server calls ``etag``."""
        self.identity = Identity(self.identity.size_bytes, self.identity.sha256, etag)
        await self._do(self._restart)

    async def settle(self) -> str:
        """Check the whole and give it its name. Returns its SHA-256. Raises WrongContent, OSError."""
        return await self._do(self._settle)

    async def _do(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *args)

    async def _close(self) -> None:
        await self._do(self._close_file)
        self._disk.shutdown(wait=False)

    def _open(self) -> None:
        known = self._known()
        keep = known is not None and _is_same(known, self.identity)
        self._file = self._path.open("r+b" if keep and self._path.exists() else "w+b")
        if keep and known:
            self.identity = Identity(self.identity.size_bytes, self.identity.sha256, known.etag)
            while block := self._file.read(BLOCK_BYTES):
                self._digest.update(block)
            self.size = self._file.tell()
        if self.size > self.identity.size_bytes:
            self._restart()
        self._note_down()

    def _known(self) -> Identity | None:
        try:
            return Identity(**json.loads(self._sidecar.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _note_down(self) -> None:
        self._sidecar.write_text(json.dumps(asdict(self.identity)), encoding="utf-8")

    def _write(self, block: bytes) -> None:
        assert self._file is not None
        self._file.write(block)
        self._digest.update(block)
        self.size += len(block)

    def _restart(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0
        self._note_down()

    def _settle(self) -> str:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._close_file()
        digest = self._digest.hexdigest()
        try:
            self._check(digest)
        except (WrongContent, checkpoint.Broken) as error:
            self._discard()
            raise WrongContent(str(error)) from error
        self._path.replace(self._target)
        self._sidecar.unlink(missing_ok=True)
        sync_folder(self._target.parent)
        return digest

    def _check(self, digest: str) -> None:
        if self.identity.sha256 not in (None, digest):
            raise WrongContent(f"its SHA-256 is {digest}, {self.identity.sha256} was promised")
        checkpoint.require_whole(self._path, self._target.name)

    def _discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()


def has_begun(target: Path) -> bool:
    """Some of the file has come already."""
    return size_so_far(target) > 0


def size_so_far(target: Path) -> int:
    """In bytes."""
    try:
        return target.with_name(target.name + SUFFIX).stat().st_size
    except OSError:
        return 0


def _is_same(known: Identity, promised: Identity) -> bool:
    """A checksum decides; without one an entity tag may, and the server is asked with ``If-Range``."""
    if known.size_bytes != promised.size_bytes or known.sha256 != promised.sha256:
        return False
    return known.sha256 is not None or known.etag is not None
