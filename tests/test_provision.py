"""What an engine needs is looked at before anything is given up for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkstream import models, provision
from inkstream.config import Settings
from inkstream.errors import ConfigError, ModelError
from inkstream.models import Memory
from inkstream.provision import Provision, provide, require_loadable
from inkstream.words import Words
from tests.tiny_gguf import tiny_gguf


async def provided(folder: Path, name: str) -> tuple[Settings, Provision]:
    settings = Settings(data_dir=folder, engine="llama", model=str(folder / name))
    return settings, await provide(settings, Words("en"), lambda _: None)


@pytest.mark.parametrize(("has_gpu", "is_refused"), [(False, True), (True, False)])
async def test_a_model_beyond_this_machine_is_refused_unless_a_gpu_may_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, is_refused: bool
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf())
    settings, found = await provided(tmp_path, "tiny.gguf")
    await require_loadable(settings, found)
    monkeypatch.setattr(models, "memory", lambda: Memory(100 << 20, 100 << 20))
    monkeypatch.setattr(provision, "_has_gpu", lambda: has_gpu)
    if not is_refused:
        await require_loadable(settings, found)
        return
    with pytest.raises(
        ModelError, match=r"takes about \d+ MB of memory, and this machine has 105 MB"
    ) as refusal:
        await require_loadable(settings, found)
    assert refusal.value.code == "not_enough_memory"


async def test_a_model_that_somebody_wishes_for_gets_no_stand_in(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, engine="llama", offline=True)
    assert settings.is_default_model
    with pytest.raises(ModelError, match=r"qwen2-0\.5b") as refusal:
        await provide(settings, Words("en"), lambda _: None, is_wished=True)
    assert refusal.value.code == "model_offline"


@pytest.mark.parametrize(
    ("content", "error"), [(None, ModelError), ("{", ConfigError), ('{"x": 1}', ConfigError)]
)
async def test_a_script_is_read_beforehand(
    tmp_path: Path, content: str | None, error: type[Exception]
) -> None:
    path = tmp_path / "b.json"
    if content is not None:
        path.write_text(content)
    settings = Settings(data_dir=tmp_path, engine="scripted", model=str(path))
    with pytest.raises(error):
        await require_loadable(settings, await provide(settings, Words("en"), lambda _: None))
    path.write_text('{"name": "b"}')
    await require_loadable(settings, await provide(settings, Words("en"), lambda _: None))
