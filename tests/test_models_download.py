"""What goes wrong on the way: cuts, stalls, refusals, changed and wrong files, full disks."""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from inkstream.errors import ModelError
from inkstream.models import local
from tests.fake_hub import Change, Cut, Fault, Reply, Stall, Swallow, fake_hub
from tests.models_world import HASTE, NAME, REPO, WEIGHTS, offer, world
from tests.tiny_gguf import tiny_gguf


async def test_a_cut_is_resumed_where_it_happened(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000), Cut(50_000)]
        here = world(tmp_path, hub)
        model = await here.fetch()
        ranges = [request.headers.get("range") for request in hub.downloads]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert model.path.read_bytes() == WEIGHTS
    assert any("closed early; trying again" in note for note in here.notes)
    assert any("连接提前断开" in report.note["zh"] for report in here.progress if report.note)


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
        hub.faults = [Stall(len(WEIGHTS) - 1), Swallow()]
        here = world(tmp_path, hub)
        fetching = asyncio.create_task(here.fetch())
        await here.until(lambda: any("trying again" in note for note in here.notes))
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert here.half_file.stat().st_size == len(WEIGHTS) - 1
        assert not here.file.exists()
        assert local(here.folder, here.environ) == []
        assert (await here.refusal(offline=True)).code == "model_offline"
        assert (await here.fetch()).path.read_bytes() == WEIGHTS


FETCH = """
import asyncio, sys
from contextlib import suppress
from collections.abc import Callable
from pathlib import Path
from inkstream.models import Patience, fetch

asyncio.run(fetch(
    sys.argv[1],
    Path(sys.argv[2]),
    on_progress=lambda report: print(report.note, flush=True),
    environ={"HF_ENDPOINT": sys.argv[3], "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9", "HOME": sys.argv[2]},
    patience=Patience(stall_seconds=0.3),
))
"""


async def test_a_killed_process_leaves_a_half_that_the_next_one_continues(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Stall(100_000), Swallow()]
        here = world(tmp_path, hub)
        arguments = (f"{REPO}:{NAME}", str(here.folder), hub.url)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FETCH, *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        while b"trying again" not in await child.stdout.readline():
            assert child.returncode is None
        child.kill()
        await child.wait()
        assert not here.file.exists()
        hub.faults = []
        model = await here.fetch()
        assert int(hub.downloads[-1].headers["range"].removeprefix("bytes=").removesuffix("-")) > 90_000
    assert model.path.read_bytes() == WEIGHTS


async def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Reply(429, {"Retry-After": "1"})]
        here = world(tmp_path, hub)
        started = time.monotonic()
        await here.fetch()
    assert time.monotonic() - started >= 1.0
    assert any("429" in note and "1.0 s" in note for note in here.notes)


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
        here = world(tmp_path, hub)
        refusal = await here.refusal()
        assert not here.file.exists()
    assert "format version 0" in refusal.message


async def test_an_address_that_expired_is_asked_for_again(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Cut(100_000), Reply(403)]
        here = world(tmp_path, hub)
        model = await here.fetch()
        assert hub.downloads[2].headers["range"] == "bytes=100000-"
    assert model.path.read_bytes() == WEIGHTS


@pytest.mark.parametrize("length", ["", str(len(WEIGHTS) + 1)])
async def test_a_file_of_another_length_than_promised_is_refused(tmp_path: Path, length: str) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.faults = [Reply(200, {"Content-Length": length}, WEIGHTS + b"!")]
        refusal = await world(tmp_path, hub).refusal()
    assert "promised" in refusal.message


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
        hub.requests.clear()
        model = await here.fetch()
        assert [request.headers.get("range") for request in hub.downloads] == [None]
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


def random_faults(chance: random.Random) -> list[Fault]:
    kinds: list[Callable[[], Fault]] = [
        lambda: Cut(chance.randrange(len(WEIGHTS))),
        lambda: Cut(chance.randrange(3)),
        lambda: Reply(chance.choice([403, 416, 429, 500, 503])),
        lambda: Reply(200, {"ETag": '"other"'}, WEIGHTS[: chance.randrange(len(WEIGHTS))]),
    ]
    return [chance.choice(kinds)() for _ in range(chance.randrange(8))]


async def test_whatever_fails_in_whatever_order_the_file_is_right_or_absent(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with fake_hub() as hub, fake_hub() as scope:
        for there in (hub, scope):
            offer(there)
        for turn in range(10):
            here = world(tmp_path / str(turn), hub, scope)
            for there in (hub, scope):
                there.faults = random_faults(chance)
                there.tells_hash, there.tells_etag = chance.random() < 0.5, chance.random() < 0.5
                there.honours_range, there.honours_if_range = chance.random() < 0.7, chance.random() < 0.7
            while not here.file.exists():
                with suppress(ModelError):
                    await here.fetch()
            assert here.file.read_bytes() == WEIGHTS


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
