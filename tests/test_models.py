"""Names become files: from the hubs, in the order of preference, and then without any network."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from inkstream.models import Patience
from tests.fake_hub import Cut, Reply, Swallow, Wait, fake_hub
from tests.models_world import (
    HASTE,
    HASTE_WITH_SILENCE,
    NAME,
    REPO,
    WEIGHTS,
    files_below,
    offer,
    world,
)
from tests.tiny_gguf import tiny_gguf


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
        here = world(tmp_path, hub, scope)
        here.patience = HASTE_WITH_SILENCE
        model = await here.fetch()
    assert model.source == "modelscope"
    assert model.sha256 == hashlib.sha256(WEIGHTS).hexdigest()


async def test_the_hub_is_preferred_though_modelscope_is_faster(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        offer(hub)
        offer(scope)
        late = asyncio.Event()
        hub.probe_faults = [Wait(late)]
        asyncio.get_running_loop().call_later(0.3, late.set)
        model = await world(tmp_path, hub, scope).fetch()
        assert scope.requests
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


async def test_a_revoked_token_does_not_close_what_is_open_to_all(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.revoked_token = "hf_old"
        here = world(tmp_path, hub)
        token = Path(here.environ["HOME"]) / ".cache/huggingface/token"
        token.parent.mkdir(parents=True)
        token.write_text("hf_old\n")
        model = await here.fetch()
        assert hub.requests[0].headers["authorization"] == "Bearer hf_old"
    assert model.source == "hub"


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
        here = world(tmp_path, hub, scope)
        here.patience = HASTE_WITH_SILENCE
        started = time.monotonic()
        refusal = await here.refusal()
    assert time.monotonic() - started < 4 * HASTE_WITH_SILENCE.probe_seconds
    assert refusal.code == "model_unreachable"
    assert Patience().probe_seconds <= 4


async def test_a_hub_that_answers_nonsense_is_a_failed_source(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        hub.probe_faults = [Reply(200, {"Content-Type": "application/json"}, b'{"error": "maintenance"}')]
        scope.probe_faults = [Reply(200, {"Content-Type": "text/html"}, b"<html>sign in</html>")]
        refusal = await world(tmp_path, hub, scope).refusal(REPO)
    assert "did not answer like a model hub" in refusal.message
