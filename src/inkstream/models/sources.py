"""The hubs, and the caches that their own tools keep on this disk.

Both protocols are public: the Hugging Face hub answers ``/OWNER/REPO/resolve/REVISION/FILE`` with the size
and SHA-256 of a large file in ``X-Linked-Size`` and ``X-Linked-Etag``, on the redirect to its CDN;
ModelScope lists files with ``Size`` and ``Sha256`` under ``/api/v1/models/OWNER/REPO/repo/files``.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from inkstream.errors import ModelError
from inkstream.models.catalog import Wish, choose
from inkstream.models.download import Remote
from inkstream.models.failures import SourceFailed, check_status

HUGGING_FACE = "https://huggingface.co"
MODELSCOPE = "https://www.modelscope.cn"
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_REDIRECTS = 5


class Source(Protocol):
    @property
    def host(self) -> str:
        """What people know it by: the host, with the port where that is not the usual one."""
        ...

    async def offer(self, client: httpx.AsyncClient, wish: Wish) -> tuple[Remote, ...]:
        """The files that the wish means, all parts. Raises SourceFailed, Interrupted, httpx.HTTPError."""
        ...


@dataclass(frozen=True, slots=True)
class HuggingFace:
    endpoint: str
    token: str | None

    @property
    def host(self) -> str:
        return httpx.URL(self.endpoint).netloc.decode()

    async def offer(self, client: httpx.AsyncClient, wish: Wish) -> tuple[Remote, ...]:
        try:
            return await self._offer(client, wish)
        except SourceFailed as error:
            if error.code != "model_gated" or self.token is None:
                raise
        # A revoked token is refused even for what is open to all, and may lie forgotten in a file.
        return await replace(self, token=None)._offer(client, wish)

    async def _offer(self, client: httpx.AsyncClient, wish: Wish) -> tuple[Remote, ...]:
        names = wish.files or await self._list(client, wish)
        return tuple(await asyncio.gather(*(self._look_up(client, wish.repo, name) for name in names)))

    async def _list(self, client: httpx.AsyncClient, wish: Wish) -> tuple[str, ...]:
        url = f"{self.endpoint}/api/models/{wish.repo}/tree/main"
        response = await client.get(
            url, params={"recursive": "true"}, headers=self._headers(), follow_redirects=True
        )
        check_status(response)
        return _chosen(
            _read(response, lambda answer: {file["path"]: file for file in answer}), wish, self.host
        )

    async def _look_up(self, client: httpx.AsyncClient, repo: str, name: str) -> Remote:
        """Ask for size and checksum. They come with the redirect, so it is followed step by step."""
        url = f"{self.endpoint}/{repo}/resolve/main/{quote(name)}"
        request = client.build_request(
            "HEAD", url, headers={**self._headers(), "Accept-Encoding": "identity"}
        )
        for _ in range(MOST_REDIRECTS):
            response = await client.send(request)
            check_status(response)
            size = _size(response)
            if size is not None:
                break
            if response.next_request is None:
                raise SourceFailed(f"{response.url.host} does not say how long {name} is")
            request = response.next_request
        else:
            raise SourceFailed(f"{self.host} redirects in circles")
        return Remote("hub", self.host, name, url, size, _checksum(response.headers), self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@dataclass(frozen=True, slots=True)
class ModelScope:
    endpoint: str

    @property
    def host(self) -> str:
        return httpx.URL(self.endpoint).netloc.decode()

    async def offer(self, client: httpx.AsyncClient, wish: Wish) -> tuple[Remote, ...]:
        url = f"{self.endpoint}/api/v1/models/{wish.repo}/repo/files"
        response = await client.get(
            url, params={"Revision": "master", "Recursive": "true"}, follow_redirects=True
        )
        check_status(response)
        files = _read(response, lambda answer: {file["Path"]: file for file in answer["Data"]["Files"]})
        return tuple(self._remote(wish.repo, files[name]) for name in _chosen(files, wish, self.host))

    def _remote(self, repo: str, file: Mapping[str, Any]) -> Remote:
        name, size, sha256 = file["Path"], file.get("Size"), str(file.get("Sha256", "")).lower()
        if not isinstance(size, int):
            raise SourceFailed(f"{self.host} does not say how long {name} is")
        url = f"{self.endpoint}/api/v1/models/{repo}/repo?Revision=master&FilePath={quote(name, safe='')}"
        return Remote("modelscope", self.host, name, url, size, sha256 if SHA256.fullmatch(sha256) else None)


def hubs(environ: Mapping[str, str]) -> tuple[Source, ...]:
    """The hubs to ask, the preferred one first. Raises ModelError."""
    hub = HuggingFace(_endpoint(environ, "HF_ENDPOINT", HUGGING_FACE), _token(environ))
    domain = environ.get("MODELSCOPE_DOMAIN")
    default = f"https://{domain}" if domain else MODELSCOPE
    return hub, ModelScope(_endpoint(environ, "MODELSCOPE_ENDPOINT", default))


def cached(wish: Wish, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The wished files in a cache that a hub's own tools filled, or nothing."""
    for folder in _cache_folders(wish.repo, environ):
        if names := choose(names_in(folder), wish):
            return tuple(folder / name for name in names)
    return ()


def names_in(folder: Path) -> list[str]:
    """The files below a folder as a hub would list them. A link whose target is gone is none."""
    return [path.relative_to(folder).as_posix() for path in found(folder, "**/*") if os.path.isfile(path)]


def found(folder: Path, pattern: str) -> list[Path]:
    """What matches below a folder, in order; nothing where the folder is not ours to read.

    Path's own questions raise then, and another user's home is no reason to fail: HOME may well be one.
    """
    return sorted(folder.glob(pattern)) if os.path.isdir(folder) else []


def all_cached(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Every repository in the hubs' caches, with one folder of it."""
    for folder in found(_hugging_face_cache(environ), "models--*--*"):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        yield from ((repo, snapshot) for snapshot in list(_snapshots(folder))[:1])
    for base in _modelscope_caches(environ):
        for folder in found(base, "*/*"):
            # The caches lie inside each other.
            if folder.parent.name not in ("hub", "models"):
                yield f"{folder.parent.name}/{folder.name.replace('___', '.')}", folder


def _cache_folders(repo: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where the files of a repository may lie. ModelScope writes a dot in a name as three underscores."""
    yield from _snapshots(_hugging_face_cache(environ) / f"models--{repo.replace('/', '--')}")
    owner, _, name = repo.partition("/")
    for base in _modelscope_caches(environ):
        for spelling in (name.replace(".", "___"), name):
            yield from (base / who / spelling for who in (owner, owner.lower()))


def _modelscope_caches(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where ModelScope's tools keep ``OWNER/NAME`` folders: they have moved them over the years."""
    named = environ.get("MODELSCOPE_CACHE")
    root = Path(named).expanduser() if named else _home(environ) / ".cache" / "modelscope"
    return root, root / "models", root / "hub", root / "hub" / "models"


def _snapshots(repo_folder: Path) -> Iterator[Path]:
    """The snapshot that ``main`` points to, then the others, newest first."""
    snapshots = repo_folder / "snapshots"
    try:
        main = snapshots / (repo_folder / "refs" / "main").read_text(encoding="utf-8").strip()
        others = sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return
    yield main
    yield from (folder for folder in others if folder != main)


def _hugging_face_cache(environ: Mapping[str, str]) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(environ[name]).expanduser()
    return _hugging_face_home(environ) / "hub"


def _hugging_face_home(environ: Mapping[str, str]) -> Path:
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser()
    cache = environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else _home(environ) / ".cache") / "huggingface"


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME") or environ.get("USERPROFILE")
    return Path(home) if home else Path.home()


def _token(environ: Mapping[str, str]) -> str | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environ.get(name, "").strip():
            return environ[name].strip()
    path = environ.get("HF_TOKEN_PATH")
    try:
        file = Path(path) if path else _hugging_face_home(environ) / "token"
        return file.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _endpoint(environ: Mapping[str, str], name: str, default: str) -> str:
    endpoint = environ.get(name, "").strip().rstrip("/") or default
    if not re.match(r"https?://[^/]", endpoint):
        raise ModelError(f"{name} has value '{endpoint}'. Write it as https://HOST.", code="bad_endpoint")
    return endpoint


def _read(response: httpx.Response, take: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """What ``take`` finds in the JSON answer. Raises SourceFailed where it is not of the expected form."""
    try:
        return take(response.json())
    except (ValueError, KeyError, TypeError) as error:
        raise SourceFailed(f"{response.url.host} did not answer like a model hub") from error


def _chosen(names: Iterable[str], wish: Wish, host: str) -> tuple[str, ...]:
    chosen = choose(names, wish)
    if not chosen and wish.form == "checkpoint":
        raise SourceFailed(
            f"{host} has no whole checkpoint in {wish.repo} (config.json, model.safetensors and a tokenizer)",
            code="model_not_found",
        )
    if not chosen:
        there = ", ".join(sorted(name for name in names if name.lower().endswith(".gguf"))) or "none"
        raise SourceFailed(
            f"{host} has no fitting GGUF file in {wish.repo} (there: {there}); choose by {wish.repo}:FILE",
            code="model_not_found",
        )
    return chosen


def _size(response: httpx.Response) -> int | None:
    linked = response.headers.get("X-Linked-Size", "")
    if linked.isdigit():
        return int(linked)
    length = response.headers.get("Content-Length", "")
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    return int(length) if response.status_code == 200 and length.isdigit() and not is_page else None


def _checksum(headers: httpx.Headers) -> str | None:
    """Large files carry their SHA-256 as entity tag; a mirror that is no hub may send it as a checksum."""
    for name in ("X-Linked-Etag", "X-Checksum-Sha256", "ETag"):
        value: str = headers.get(name, "").removeprefix("W/").strip('"').lower()
        if SHA256.fullmatch(value):
            return value
    return None
