"""The models that are on this disk: in our folder, in the hubs' own caches, or where the user says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from inkstream import gguf, machine
from inkstream.errors import ModelError
from inkstream.models import checkpoint, sources
from inkstream.models.catalog import (
    ALIASES,
    Form,
    Sampling,
    Wish,
    all_parts,
    choose,
    complete_models,
    sampling_of,
)
from inkstream.models.part import has_begun
from inkstream.models.store import Store, sha256_of

FILE, CACHE, HUB_CACHE = "file", "cache", "hub-cache"
SHOWN_FILES = 8

Notice = Mapping[str, str]
"""One sentence in ``en`` and ``zh``."""


@dataclass(frozen=True, slots=True)
class Model:
    """A usable local model, in one of the forms that engines read.

    ``path`` is a GGUF file, the first part where it is split over several, which the engine finds beside it;
    or the folder of a checkpoint. Of several ``files``, ``sha256`` is that of their digests, one a line.
    ``source`` is ``file``, ``cache`` (our folder), ``hub-cache``, or where it was fetched from just now:
    ``hub``, ``modelscope``, ``package``.
    ``sampling`` is what the model's family recommends, empty where that is not known. ``notice`` has to be
    said loudly, on the console and in the page.
    """

    name: str
    path: Path
    size_bytes: int
    sha256: str
    source: str
    sampling: Sampling
    files: tuple[Path, ...]
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
        return any(has_begun(path.with_suffix("")) for path in folder.rglob("*.part"))

    def find(self, wish: Wish) -> Model | None:
        """The wished model, if it is here. Raises ModelError ``model_corrupt`` if ours is damaged."""
        folder = self._repo_folder(wish.repo)
        if names := choose(sources.names_in(folder), wish):
            return self._open(wish, [folder / name for name in names], CACHE)
        if paths := sources.cached(wish, self._environ):
            try:
                return self._open(wish, paths, HUB_CACHE)
            except ModelError:
                # Not ours to mend: it is fetched into our folder instead.
                return None
        return None

    def open_path(self, name: str, path: Path, form: Form) -> Model:
        """The model in a file or folder of the user's. Raises ModelError ``model_not_found``,
        ``model_unreadable`` or ``model_corrupt``.
        """
        path = path.absolute()
        with _readable(path, FILE):
            is_file = _is_file(path)
        if form == "checkpoint" and path.is_dir():
            names = checkpoint.choose(sources.names_in(path))
            if not names:
                raise ModelError(_no_checkpoint(path))
            return self._open(Wish(name, path.name, form=form), [path / file for file in names], FILE)
        if not is_file:
            raise ModelError(_no_file(path))
        return self._open(Wish(name, ""), [path.with_name(part) for part in all_parts(path.name)], FILE)

    def taken(self, wish: Wish, paths: Sequence[Path], source: str) -> Model:
        """The model that has just been fetched."""
        return self._open(wish, paths, source)

    def list(self) -> Iterator[Model]:
        """What is here, without hashing: ``sha256`` is empty where it has not been computed yet."""
        for folder in sources.found(self._folder, "*--*"):
            yield from self._list_repo(folder.name.replace("--", "/", 1), folder, CACHE)
        for repo, folder in sources.all_cached(self._environ):
            yield from self._list_repo(repo, folder, HUB_CACHE)

    def _list_repo(self, repo: str, folder: Path, source: str) -> Iterator[Model]:
        names = sources.names_in(folder)
        for wish in _wishes(repo, names):
            paths = [folder / name for name in choose(names, wish)]
            with suppress(ModelError):
                yield self._open(wish, paths, source, hashing=False)

    def _open(self, wish: Wish, paths: Sequence[Path], source: str, *, hashing: bool = True) -> Model:
        """Raises ModelError ``model_corrupt`` where one of the files is not whole."""
        sampling = _checked(wish, paths, source)
        known = [self.store.hash(path) if hashing else self.store.fingerprint(path) for path in paths]
        digests = [fingerprint.sha256 if fingerprint else "" for fingerprint in known]
        return Model(
            name=wish.name,
            path=paths[0] if wish.form == "gguf" else paths[0].parent,
            size_bytes=sum(path.stat().st_size for path in paths),
            sha256=_digest_of(digests) if all(digests) else "",
            source=source,
            sampling=sampling,
            files=tuple(paths),
        )

    def _repo_folder(self, repo: str) -> Path:
        return self._folder / repo.replace("/", "--")


def footprint(model: Model) -> machine.Footprint:
    """Raises ModelError ``model_corrupt``."""
    if model.path.is_dir():
        with _readable(model.path, model.source):
            shape = checkpoint.read_shape(model.path)
        return machine.Footprint(model.size_bytes, shape.kv_bytes_per_token, shape.context_length)
    header = _header(model.path, model.source, None)
    return machine.Footprint(model.size_bytes, header.kv_bytes_per_token, header.about("context_length", 0))


def _wishes(repo: str, names: Sequence[str]) -> Iterator[Wish]:
    """What these files of a repository could have been wished for as, by the shortest name."""
    if checkpoint.choose(names):
        entry = next((entry for entry in ALIASES.values() if entry.checkpoint == repo), None)
        yield Wish(repo, repo, entry=entry, form="checkpoint")
    for files in complete_models(names).values():
        entry = next((e for e in ALIASES.values() if (e.repo, e.files) == (repo, files)), None)
        yield Wish(entry.alias if entry else f"{repo}:{files[0]}", repo, files, entry=entry)


def _checked(wish: Wish, paths: Sequence[Path], source: str) -> Sampling:
    """Look whether the files are whole. Returns the recommended sampling, as far as it is ours to say."""
    recommended = wish.entry.sampling if wish.entry else None
    if wish.form == "checkpoint":
        for path in paths:
            with _readable(path, source):
                checkpoint.require_whole(path, path.name)
        # The rest is in the checkpoint's own generation_config.json.
        return sampling_of("", wish.repo) if recommended is None else recommended
    headers = [_header(path, source, len(paths)) for path in paths]
    name = f"{headers[0].name} {paths[0].name}"
    return sampling_of(headers[0].architecture, name) if recommended is None else recommended


def _header(path: Path, source: str, parts: int | None) -> gguf.Header:
    with _readable(path, source):
        header = gguf.read(path)
        if parts is not None and header.parts > parts:
            raise gguf.Corrupt(f"it is one of {header.parts} parts, and not named like one")
        return header


def _is_file(path: Path) -> bool:
    """Raises OSError where that cannot be told: ``Path.is_file`` says no there, from Python 3.14 on."""
    try:
        return S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _readable(path: Path, source: str) -> Iterator[None]:
    """Translate what goes wrong while the file is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: all parts of the model belong beside it.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", code="model_unreadable") from error
    except (gguf.Corrupt, checkpoint.Broken) as error:
        way_out = (
            "Delete it: the next start fetches it again." if source == CACHE else "Copy or fetch it again."
        )
        raise ModelError(f"{path} is not a usable model: {error}. {way_out}", code="model_corrupt") from error


def checksum(model: Model) -> str:
    """What ``Model.sha256`` would be of its files as they are now: reads every byte. Raises OSError."""
    return _digest_of([sha256_of(file) for file in model.files])


def _digest_of(digests: Sequence[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _no_file(path: Path) -> str:
    if path.is_dir():
        files = ", ".join(sorted(file.name for file in path.glob("*.gguf"))) or "it has none"
        torch = " --engine torch reads the safetensors in it." if any(path.glob("*.safetensors")) else ""
        return f"{path} is a folder. Name a .gguf file in it ({files}).{torch}"
    return f"There is no file {path}. Give the path of a .gguf file, a name on a hub, or an alias."


def _no_checkpoint(path: Path) -> str:
    files = ", ".join(sorted(file.name for file in path.iterdir())[:SHOWN_FILES]) or "nothing"
    return (
        f"{path} is no whole checkpoint: config.json, model.safetensors (or all its parts) and "
        f"tokenizer.json belong in it; there is {files}."
    )
