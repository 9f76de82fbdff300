"""The little world in which models are fetched: two fake hubs, a folder, an environment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from inkstream.errors import ModelError
from inkstream.models import Download, Model, Patience, fetch
from inkstream.models.catalog import Entry
from tests.fake_hub import FakeHub
from tests.tiny_gguf import tiny_gguf

REPO = "Owner/Tiny-1.5B-GGUF"
NAME = "tiny-q4_k_m.gguf"
WEIGHTS = tiny_gguf()
TINY = Entry("tiny", REPO, (NAME,), len(WEIGHTS), 1024, {"temperature": 0.5})
HASTE = Patience(
    probe_seconds=5.0,
    stall_seconds=0.5,
    attempts=4,
    backoff_seconds=0.01,
    longest_wait_seconds=2.0,
    package_seconds=20.0,
)

# For hubs that never answer: the tests wait this out.
HASTE_WITH_SILENCE = replace(HASTE, probe_seconds=0.5)


@dataclass
class World:
    """A data folder and an environment in which the two fake hubs are all there is."""

    folder: Path
    environ: dict[str, str]
    patience: Patience = HASTE
    aliases: dict[str, Entry] = field(default_factory=lambda: {"tiny": TINY})
    progress: list[Download] = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(self, name: str = "tiny", *, offline: bool = False, is_default: bool = False) -> Model:
        return await fetch(
            name,
            self.folder,
            on_progress=self.report,
            offline=offline,
            is_default=is_default,
            environ=self.environ,
            patience=self.patience,
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
        return [report.note["en"] for report in self.progress if report.note]


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
