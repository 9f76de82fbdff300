"""The models that are on this disk: in our folder, in the hubs' own caches, or where the user says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inkstream import gguf
from inkstream.errors import ModelError
from inkstream.models import machine, sources
from inkstream.models.catalog import ALIASES, Sampling, Wish, all_parts, choose, complete_models, sampling_of
from inkstream.models.part import has_begun
from inkstream.models.store import Store

FILE, CACHE, HUB_CACHE = "file", "cache", "hub-cache"

Notice = Mapping[str, str]
"""One sentence in ``en`` and ``zh``."""


@dataclass(frozen=True, slots=True)
class Model:
    """A usable local file.

    ``path`` is the first part where a model is split over several files, which the engine finds beside it;
    ``sha256`` is then that of the parts' digests, one a line. ``source`` is ``file``, ``cache`` (our
    folder), ``hub-cache``, or where it was fetched from just now: ``hub``, ``modelscope``, ``package``.
    ``sampling`` is what the model's family recommends, empty where that is not known. ``notice`` has to be
    said loudly, on the console and in the page.
    """

    name: str
    path: Path
    size_bytes: int
    sha256: str
    source: str
    sampling: Sampling
    notice: Notice | None = None


class Shelf:
    """Looks, reads and hashes: keep it off the event loop. What it has hashed once it remembers."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.store = Store(folder)
        self._folder = folder
        self._environ = environ

    def place(self, repo: str, name: str) -> Path:
        """Where a file of a repository belongs in our folder."""
        return self._repo_folder(repo).joinpath(*name.split("/"))

    def has_begun(self, wish: Wish) -> bool:
        """Some of the wished files has come, by an earlier fetch that was cut off."""
        folder = self._repo_folder(wish.repo)
        if wish.files:
            return any(has_begun(self.place(wish.repo, name)) for name in wish.files)
        return any(has_begun(path.with_suffix("")) for path in folder.rglob("*.gguf.part"))

    def find(self, wish: Wish) -> Model | None:
        """The wished model, if it is here. Raises ModelError ``model_corrupt`` if ours is damaged."""
        folder = self._repo_folder(wish.repo)
        if names := choose(sources.names_in(folder), wish):
            return self._open(wish.name, [folder / name for name in names], CACHE, wish)
        if paths := sources.cached(wish, self._environ):
            try:
                return self._open(wish.name, paths, HUB_CACHE, wish)
            except ModelError:
                # Not ours to mend: it is fetched into our folder instead.
                return None
        return None

    def open_file(self, name: str, path: Path) -> Model:
        """The model in a file of the user's. Raises ModelError ``model_not_found`` or ``model_corrupt``."""
        if not path.is_file():
            raise ModelError(_no_file(path))
        path = path.absolute()
        return self._open(name, [path.with_name(part) for part in all_parts(path.name)], FILE)

    def taken(self, wish: Wish, paths: Sequence[Path], source: str) -> Model:
        """The model that has just been fetched."""
        return self._open(wish.name, paths, source, wish)

    def list(self) -> Iterator[Model]:
        """What is here, without hashing: ``sha256`` is empty where it has not been computed yet."""
        for folder in sorted(self._folder.glob("*--*")):
            yield from self._list_repo(folder.name.replace("--", "/", 1), folder, CACHE)
        for repo, folder in sources.all_cached(self._environ):
            yield from self._list_repo(repo, folder, HUB_CACHE)

    def _list_repo(self, repo: str, folder: Path, source: str) -> Iterator[Model]:
        for names in complete_models(sources.names_in(folder)).values():
            entry = next(
                (entry for entry in ALIASES.values() if (entry.repo, entry.files) == (repo, names)), None
            )
            wish = Wish(entry.alias if entry else f"{repo}:{names[0]}", repo, names, entry=entry)
            paths = [folder / name for name in names]
            with suppress(ModelError):
                yield self._open(wish.name, paths, source, wish, hashing=False)

    def _open(
        self,
        name: str,
        paths: Sequence[Path],
        source: str,
        wish: Wish | None = None,
        *,
        hashing: bool = True,
    ) -> Model:
        headers = [_header(path, source, len(paths)) for path in paths]
        known = [self.store.hash(path) if hashing else self.store.fingerprint(path) for path in paths]
        digests = [fingerprint.sha256 if fingerprint else "" for fingerprint in known]
        return Model(
            name=name,
            path=paths[0],
            size_bytes=sum(path.stat().st_size for path in paths),
            sha256=digests[0] if len(digests) == 1 else _digest_of(digests),
            source=source,
            sampling=_sampling(wish, headers[0], paths[0]),
        )

    def _repo_folder(self, repo: str) -> Path:
        return self._folder / repo.replace("/", "--")


def memory_needed(model: Model, context_tokens: int) -> int:
    """Bytes of memory that the model takes, for ``context_tokens`` of all slots together. An estimate.

    Raises ModelError ``model_corrupt``.
    """
    header = _header(model.path, model.source, None)
    return machine.bytes_needed(model.size_bytes, header.kv_bytes_per_token, context_tokens)


def _sampling(wish: Wish | None, header: gguf.Header, path: Path) -> Sampling:
    if wish and wish.entry:
        return wish.entry.sampling
    return sampling_of(header.architecture, f"{header.name} {path.name}")


def _header(path: Path, source: str, parts: int | None) -> gguf.Header:
    try:
        header = gguf.read(path)
        if parts is not None and header.parts > parts:
            raise gguf.Corrupt(f"it is one of {header.parts} parts, and not named like one")
        return header
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: all parts of the model belong beside it.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", code="model_unreadable") from error
    except gguf.Corrupt as error:
        way_out = (
            "Delete it: the next start fetches it again." if source == CACHE else "Copy or fetch it again."
        )
        raise ModelError(f"{path} is not a usable model: {error}. {way_out}", code="model_corrupt") from error


def _digest_of(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if all(digests) else ""


def _no_file(path: Path) -> str:
    if path.is_dir():
        files = ", ".join(sorted(file.name for file in path.glob("*.gguf"))) or "it has none"
        return f"{path} is a folder. Name a .gguf file in it ({files})."
    return f"There is no file {path}. Give the path of a .gguf file, a name on a hub, or an alias."
