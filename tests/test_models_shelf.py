"""What is on this disk already: the hubs' caches, files of the user's, damaged ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inkstream.errors import ModelError
from inkstream.models import fetch, local
from inkstream.models.catalog import ALIASES
from tests.fake_hub import fake_hub
from tests.models_world import NAME, REPO, WEIGHTS, World, offer, world
from tests.tiny_gguf import tiny_gguf


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


async def test_what_the_hubs_own_tools_fetched_is_listed_once(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        put_into_hub_cache(here)
        file = Path(here.environ["HOME"]) / ".cache/modelscope/hub/models/Owner/Other-2___5-GGUF/m.gguf"
        file.parent.mkdir(parents=True)
        file.write_bytes(WEIGHTS)
    names = [(model.name, model.source) for model in local(here.folder, here.environ)]
    assert names == [(f"{REPO}:{NAME}", "hub-cache"), ("Owner/Other-2.5-GGUF:m.gguf", "hub-cache")]


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


async def test_a_home_that_may_not_be_read_holds_no_models(tmp_path: Path) -> None:
    """As of a service whose HOME is another user's. Too long a name is refused to root as well."""
    home = tmp_path / ("x" * 300)
    assert local(tmp_path, {"HOME": str(home)}) == []
    with pytest.raises(ModelError, match="not on this disk"):
        await fetch("smollm2-135m", tmp_path, on_progress=print, offline=True, environ={"HOME": str(home)})


async def test_a_path_that_may_not_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: File name too long") as caught:
        await fetch(str(tmp_path / ("x" * 300) / "x.gguf"), tmp_path, on_progress=print, offline=True)
    assert caught.value.code == "model_unreadable"
