"""What is remembered in ``models.json``: checksums of files, and that a stand-in answers for the default.

Both are facts that must outlive a start: hashing five gigabytes takes longer than a start may, and a stand-in
that was chosen once stays until its model is pulled, whatever the network says later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from inkstream.errors import ModelError

FILE = "models.json"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A file's checksum, true as long as its size and time of change are these."""

    sha256: str
    size_bytes: int
    mtime_ns: int


class Store:
    """Raises ModelError ``folder_unwritable`` where something cannot be written down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / FILE

    def fingerprint(self, file: Path) -> Fingerprint | None:
        """What is known of the file, if it has not changed since. Raises OSError if it is gone."""
        try:
            known = Fingerprint(**self._read()["files"][str(file.absolute())])
        except (KeyError, TypeError):
            return None
        status = file.stat()
        return known if (known.size_bytes, known.mtime_ns) == (status.st_size, status.st_mtime_ns) else None

    def hash(self, file: Path) -> Fingerprint:
        """The file's fingerprint, from memory or by reading all of it. Raises OSError."""
        return self.fingerprint(file) or self.remember(file, sha256_of(file))

    def remember(self, file: Path, sha256: str) -> Fingerprint:
        status = file.stat()
        fingerprint = Fingerprint(sha256, status.st_size, status.st_mtime_ns)
        with self._change() as content:
            content["files"][str(file.absolute())] = asdict(fingerprint)
        return fingerprint

    def stand_in_reason(self, name: str) -> str | None:
        """Why the fallback answers in place of the model ``name``, if it does."""
        reason = self._read()["stand_ins"].get(name)
        return reason if isinstance(reason, str) else None

    def stand_in(self, name: str, reason: str) -> None:
        with self._change() as content:
            content["stand_ins"][name] = reason

    def end_stand_in(self, name: str) -> None:
        if self.stand_in_reason(name) is not None:
            with self._change() as content:
                del content["stand_ins"][name]

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # It can be lost: the files are found and hashed again.
            content = {}
        sections = content if isinstance(content, dict) else {}
        return {
            key: value if isinstance(value := sections.get(key), dict) else {}
            for key in ("files", "stand_ins")
        }

    @contextmanager
    def _change(self) -> Iterator[dict[str, dict[str, Any]]]:
        with writable(self.folder), FileLock(f"{self._path}.lock"):
            content = self._read()
            yield content
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
            temporary.replace(self._path)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder, and say in words what fails when something is written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ModelError(
            f"The model folder {folder} cannot be written ({error.strerror or error}). "
            "Choose another data folder with --data-dir or INKSTREAM_DATA_DIR.",
            code="folder_unwritable",
        ) from error


def sha256_of(file: Path) -> str:
    """Reads all of it. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
