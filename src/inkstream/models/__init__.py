"""Models: from a name to what an engine can load, a GGUF file or a checkpoint. They know nothing of engines.

``fetch`` finds a model on this disk or fetches it, ``local`` lists what is there, ``catalog`` the aliases and
what they cost; ``memory`` and ``footprint`` say what this machine has and what a model takes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inkstream.machine import Footprint, Memory, memory
from inkstream.models.catalog import ALIASES, Form, name_of
from inkstream.models.failures import Patience
from inkstream.models.obtain import fetch
from inkstream.models.progress import Download
from inkstream.models.shelf import Model, Shelf, checksum, footprint


@dataclass(frozen=True, slots=True)
class Alias:
    """A short name, what its download and its memory cost, and whether this machine has that memory."""

    name: str
    repo: str
    size_bytes: int
    memory_bytes: int
    languages: str
    fits: bool


def local(folder: Path, environ: Mapping[str, str] = os.environ) -> list[Model]:
    """The models on this disk: in our folder and in the hubs' caches. ``sha256`` is empty where unknown."""
    return list(Shelf(folder, environ).list())


def catalog(context_tokens: int = 8192) -> list[Alias]:
    """The aliases, small ones first. ``context_tokens`` are those of all slots together."""
    total = memory().total_bytes
    entries = sorted(ALIASES.values(), key=lambda entry: entry.size_bytes)
    takes = [Footprint(entry.size_bytes, entry.kv_bytes_per_token) for entry in entries]
    needs = [each.bytes_for(context_tokens) for each in takes]
    return [
        Alias(entry.alias, entry.repo, entry.size_bytes, need, entry.languages, need <= total)
        for entry, need in zip(entries, needs, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """One model: by its alias, or found on this disk under another name. ``path`` is empty if not here."""

    name: str
    size_bytes: int
    memory_bytes: int
    fits: bool
    languages: str
    path: str


def rows(local: list[Model], catalog: list[Alias], context_tokens: int) -> list[Row]:
    """What is here first, then what could be pulled."""
    total = memory().total_bytes
    languages = {alias.name: alias.languages for alias in catalog}
    here = []
    for model in local:
        needed = footprint(model).bytes_for(context_tokens)
        fits = needed <= total
        where = str(model.path)
        here.append(Row(model.name, model.size_bytes, needed, fits, languages.get(model.name, ""), where))
    names = {row.name for row in here}
    others = [alias for alias in catalog if alias.name not in names]
    return here + [Row(a.name, a.size_bytes, a.memory_bytes, a.fits, a.languages, "") for a in others]


__all__ = [
    "Alias",
    "Download",
    "Footprint",
    "Form",
    "Memory",
    "Model",
    "Patience",
    "Row",
    "catalog",
    "checksum",
    "fetch",
    "footprint",
    "local",
    "memory",
    "name_of",
    "rows",
]
