"""Checkpoints, folders of safetensors: from hubs, from their caches, from the user's own folders."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from inkstream import safetensors
from inkstream.errors import ModelError
from inkstream.models import Model, fetch, footprint, local
from inkstream.models.catalog import ALIASES, Wish, choose, parse
from tests.fake_hub import Cut, FakeHub, Reply, fake_hub
from tests.models_world import HASTE, World, files_below, world
from tests.tiny_checkpoint import KV_BYTES_PER_TOKEN, tiny_checkpoint, tiny_safetensors, write_tiny_checkpoint
from tests.tiny_gguf import tiny_gguf

REPO = "Owner/Tiny-Instruct"
WANTED = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
]


def offer(hub: FakeHub, parts: int = 1) -> None:
    for name, content in tiny_checkpoint(parts).items():
        hub.add(REPO, name, content)


async def fetch_checkpoint(here: World, name: str = REPO, *, offline: bool = False) -> Model:
    return await fetch(
        name,
        here.folder,
        on_progress=here.report,
        form="checkpoint",
        offline=offline,
        environ=here.environ,
        patience=HASTE,
    )


def test_names_mean_what_the_engine_reads_best() -> None:
    assert parse(REPO, form="checkpoint") == Wish(REPO, REPO, form="checkpoint")
    assert parse(REPO) == Wish(REPO, REPO)
    qwen2 = ALIASES["qwen2-0.5b"]
    alias = Wish("qwen2-0.5b", "Qwen/Qwen2-0.5B-Instruct", entry=qwen2, form="checkpoint")
    assert parse("qwen2-0.5b", form="checkpoint") == alias
    assert parse("qwen2-0.5b") == Wish("qwen2-0.5b", qwen2.repo, qwen2.files, entry=qwen2)


@pytest.mark.parametrize("name", ["Owner/M-GGUF", "Owner/M:q8_0", "Owner/M:m-q8_0.gguf", "m.gguf"])
def test_who_asks_for_a_gguf_file_gets_one_from_every_engine(name: str) -> None:
    assert parse(name, form="checkpoint") == parse(name)


def test_every_alias_has_a_checkpoint() -> None:
    assert all(entry.checkpoint and "GGUF" not in entry.checkpoint for entry in ALIASES.values())


def test_of_a_repository_only_what_makes_a_checkpoint_is_chosen_and_never_code() -> None:
    wish = Wish(REPO, REPO, form="checkpoint")
    assert list(choose(tiny_checkpoint(), wish)) == WANTED
    split = choose(tiny_checkpoint(parts=3), wish)
    assert split[-3:] == tuple(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
    assert "model.safetensors.index.json" in split


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model-00002-of-00003.safetensors"])
def test_a_repository_that_lacks_something_has_no_checkpoint(missing: str) -> None:
    names = set(tiny_checkpoint(parts=3)) - {missing}
    assert choose(names, Wish(REPO, REPO, form="checkpoint")) == ()


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_checkpoint_is_fetched_whole_and_found_again_without_a_network(
    tmp_path: Path, parts: int
) -> None:
    files = tiny_checkpoint(parts)
    async with fake_hub() as hub:
        offer(hub, parts)
        here = world(tmp_path, hub)
        model = await fetch_checkpoint(here)
    folder = here.folder / "Owner--Tiny-Instruct"
    assert (model.path, model.source, model.name) == (folder, "hub", REPO)
    assert all(path.read_bytes() == files[path.name] for path in model.files)
    assert files_below(folder, "*.py") == files_below(folder, "*.bin") == []
    assert here.progress[-1].share == 1
    assert here.progress[-1].total_bytes == sum(path.stat().st_size for path in model.files)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in model.files]
    assert model.sha256 == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    again = await fetch_checkpoint(here, offline=True)
    assert (again.path, again.sha256, again.source) == (folder, model.sha256, "cache")
    assert [(found.name, found.path) for found in local(here.folder, here.environ)] == [(REPO, folder)]


async def test_a_download_that_breaks_off_goes_on_and_is_no_model_before_its_end(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        # config, generation_config, the tokenizer's two, then the weights
        hub.faults = [*[Cut(after=5)] * 2, Reply(503, {"Retry-After": "0"})]
        model = await fetch_checkpoint(here)
    assert [path.name for path in model.files] == WANTED
    assert files_below(here.folder, "*.part") == []


async def test_modelscope_gives_checkpoints_too(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        offer(scope)
        model = await fetch_checkpoint(world(tmp_path, hub, scope))
    assert model.source == "modelscope"
    assert [path.name for path in model.files] == WANTED


async def test_the_hubs_own_cache_is_used_in_place(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        repo = Path(here.environ["HOME"]) / ".cache/huggingface/hub/models--Owner--Tiny-Instruct"
        snapshot = write_tiny_checkpoint(repo / "snapshots" / "abc")
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("abc")
        model = await fetch_checkpoint(here)
        assert hub.requests == []
    assert (model.path, model.source) == (snapshot, "hub-cache")


async def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "mine", parts=2)
    async with fake_hub() as hub:
        model = await fetch_checkpoint(world(tmp_path, hub), str(folder))
    assert (model.path, model.source) == (folder, "file")
    takes = footprint(model)
    assert takes.bytes_for(2000) - takes.bytes_for(1000) == 1000 * KV_BYTES_PER_TOKEN


async def test_a_folder_that_is_no_checkpoint_says_what_belongs_in_it(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "mine")
    (folder / "tokenizer.json").unlink()
    async with fake_hub() as hub:
        here = world(tmp_path, hub)
        with pytest.raises(
            ModelError, match=r"tokenizer\.json belong in it; there is .*config\.json"
        ) as refused:
            await fetch_checkpoint(here, str(folder))
        assert refused.value.code == "model_not_found"
        told = await here.refusal(str(folder))
    assert "--engine torch" in told.message


async def test_a_repository_without_a_checkpoint_is_named_with_what_one_is(tmp_path: Path) -> None:
    async with fake_hub() as hub, fake_hub() as scope:
        hub.add(REPO, "m-q8_0.gguf", tiny_gguf())
        scope.add(REPO, "README.md", b"soon")
        with pytest.raises(ModelError, match=r"no whole checkpoint in Owner/Tiny-Instruct") as refused:
            await fetch_checkpoint(world(tmp_path, hub, scope))
    assert refused.value.code == "model_not_found"
    assert "folder" in refused.value.message


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.safetensors", tiny_safetensors()[:-1], "cut off"),
        ("model.safetensors", b"<html>sign in</html>", "does not begin like"),
        ("model.safetensors", (5).to_bytes(8, "little") + b"[1,2]", "header"),
        ("config.json", b"<html>", "Expecting value"),
    ],
)
async def test_a_damaged_file_is_refused_with_its_path(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "mine")
    (folder / name).write_bytes(content)
    async with fake_hub() as hub:
        with pytest.raises(ModelError, match=reason) as refused:
            await fetch_checkpoint(world(tmp_path, hub), str(folder))
    assert refused.value.code == "model_corrupt"
    assert str(folder / name) in str(refused.value)


async def test_a_damaged_download_is_thrown_away(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        hub.tells_hash = False
        hub.add(REPO, "model.safetensors", tiny_safetensors()[:-1])
        here = world(tmp_path, hub)
        with pytest.raises(ModelError, match="came whole but wrong"):
            await fetch_checkpoint(here)
    assert files_below(here.folder, "*.safetensors*") in ([], ["model.safetensors.lock"])


def test_a_safetensors_file_tells_how_many_numbers_it_has(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(tiny_safetensors(rows=7))
    assert safetensors.read(path) == safetensors.Header(
        {"model.embed_tokens.weight": (7, 8)}, path.stat().st_size
    )
    shutil.copyfile(path, tmp_path / "copy.safetensors")
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(safetensors.Corrupt):
        safetensors.read(path)
