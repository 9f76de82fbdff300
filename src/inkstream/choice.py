"""Which engine answers where the settings leave it open, and in which form it reads models."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inkstream import gpus, probe
from inkstream.config import Settings
from inkstream.models import Form
from inkstream.words import Words

TORCH_PACKAGES = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class Choice:
    """``warning`` says what stands between the user and a faster engine; mostly nothing does."""

    engine: str
    warning: str = ""

    @property
    def form(self) -> Form:
        return "checkpoint" if self.engine == "torch" else "gguf"


def choose(settings: Settings, say: Words) -> Choice:
    """``auto`` is torch for a checkpoint, and where torch can use a GPU; otherwise llama.

    It may start another Python to ask torch, which takes seconds.
    """
    if settings.engine != "auto":
        return Choice(settings.engine)
    if _is_checkpoint(Path(settings.model).expanduser()):
        return Choice("torch")
    found = probe.nvidia_gpus() if has_torch() and not _is_gguf(settings.model) else ()
    if not found:
        return Choice("llama")
    problem = _problem(found, say)
    return Choice("llama", f"{problem.text} {problem.fix}") if problem else Choice("torch")


def has_torch() -> bool:
    """All that the torch engine needs can be imported, as far as that can be told without doing it."""
    return all(map(importlib.util.find_spec, TORCH_PACKAGES))


def _problem(found: Sequence[probe.Gpu], say: Words) -> gpus.Problem | None:
    try:
        return gpus.problem(found, probe.torch_build(), say)
    except probe.ProbeError as error:
        text = say(f"torch does not load: {error}.", f"torch 无法加载：{error}。")
        return gpus.Problem(text, gpus.fix(found, say))


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.safetensors"))


def _is_gguf(name: str) -> bool:
    """A GGUF file is meant: by its path, its name on a hub or its quantisation."""
    repo, _, file = name.lower().partition(":")
    return repo.endswith((".gguf", "-gguf")) or bool(file)
