"""What names mean, and what fits into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkstream.machine import Memory
from inkstream.models import Model, catalog, footprint, memory
from inkstream.models.catalog import ALIASES, FALLBACK, SAFE_FILE, Wish, choose, name_of, parse, sampling_of
from tests.tiny_gguf import tiny_gguf

LISTING = [
    "README.md",
    "m-q2_k.gguf",
    "m-q4_0.gguf",
    "m-q4_k_m.gguf",
    "m-q8_0-00001-of-00002.gguf",
    "m-q8_0-00002-of-00002.gguf",
    "m-fp16-00001-of-00003.gguf",
    "Q6_K/m-Q6_K.gguf",
    "mmproj-m-f16.gguf",
    "imatrix_q5_k_m.gguf",
]


@pytest.mark.parametrize(
    ("hint", "chosen"),
    [
        ("", ("m-q4_k_m.gguf",)),
        ("Q4_0", ("m-q4_0.gguf",)),
        ("q8_0", ("m-q8_0-00001-of-00002.gguf", "m-q8_0-00002-of-00002.gguf")),
        ("q6_k", ("Q6_K/m-Q6_K.gguf",)),
        ("q4", ()),
        ("fp16", ()),
        ("f16", ()),
        ("q5_k_m", ()),
    ],
)
def test_a_quantisation_chooses_whole_models_of_text(hint: str, chosen: tuple[str, ...]) -> None:
    assert choose(LISTING, Wish("m", "Owner/M", hint=hint)) == chosen


def test_the_only_model_of_a_repository_is_chosen_whatever_it_is_called() -> None:
    assert choose(["weights.gguf", "notes.txt"], Wish("m", "Owner/M")) == ("weights.gguf",)
    assert choose(["one.gguf", "two.gguf"], Wish("m", "Owner/M")) == ()


@pytest.mark.parametrize(
    "name", ["../x.gguf", "/x.gguf", "a/../x.gguf", "c:x.gguf", "a\\x.gguf", ".x.gguf", "a/.b/x.gguf"]
)
def test_names_that_would_leave_the_folder_are_no_files(name: str) -> None:
    assert choose([name], Wish("m", "Owner/M")) == ()


def test_names_are_told_apart() -> None:
    assert parse("Qwen2-0.5B") == parse("qwen2-0.5b")
    assert parse("Owner/Repo") == Wish("Owner/Repo", "Owner/Repo")
    assert parse("Owner/Repo:Q8_0") == Wish("Owner/Repo:Q8_0", "Owner/Repo", hint="Q8_0")
    split = parse("Owner/Repo:m-00002-of-00002.gguf")
    assert isinstance(split, Wish)
    assert split.files == ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    for path in ("m.gguf", "folder/m.gguf", "C:\\models\\m.gguf", "~/m.GGUF"):
        assert isinstance(parse(path), Path)


def test_every_alias_can_be_found_by_the_rules_for_files() -> None:
    for entry in ALIASES.values():
        assert all(SAFE_FILE.fullmatch(file) for file in entry.files)
        assert choose(entry.files, Wish(entry.alias, entry.repo, entry.files)) == entry.files
    assert ALIASES[FALLBACK].package is not None


def test_the_family_gives_its_sampling() -> None:
    assert sampling_of("qwen2", "Anything")["repetition_penalty"] == 1.05
    assert sampling_of("llama", "SmolLM2-135M-Instruct.Q4_1.gguf")["temperature"] == 0.2
    assert sampling_of("llama", "Something") == {}


# Memory


def test_memory_is_what_the_system_or_the_container_allows(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemAvailable: 2000 kB\n")
    total = memory(proc=tmp_path, cgroup=tmp_path).total_bytes
    assert memory(proc=tmp_path, cgroup=tmp_path) == Memory(total, 2000 * 1024)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    assert memory(proc=tmp_path, cgroup=tmp_path) == Memory(3_000_000, 500_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory(proc=tmp_path, cgroup=tmp_path).total_bytes == total


def test_a_model_needs_its_weights_and_room_for_its_context(tmp_path: Path) -> None:
    content, path = tiny_gguf(), tmp_path / "m.gguf"
    path.write_bytes(content)
    model = Model("m", path, len(content), "", "file", {}, (path,))
    takes = footprint(model)
    short, long = takes.bytes_for(1000), takes.bytes_for(2000)
    assert long - short == 1000 * 2 * 2 * 32 * 2
    assert short > len(content)
    assert (takes.tokens_within(short), takes.tokens_within(short - 1)) == (1000, 999)
    assert takes.tokens_within(len(content)) == 0


def test_a_context_is_no_longer_than_the_model_knows(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for length, wanted, had in ((4096, 8192, 4096), (4096, 2048, 2048), (0, 8192, 8192)):
        path.write_bytes(tiny_gguf(metadata={"qwen2.context_length": length}))
        assert footprint(Model("m", path, 1, "", "file", {}, (path,))).context(wanted) == had


def test_the_catalog_says_what_fits_this_machine() -> None:
    rows = {alias.name: alias for alias in catalog(8192)}
    assert set(rows) == set(ALIASES)
    assert rows["qwen2-0.5b"].memory_bytes == 397_805_248 + 12_288 * 8192 + (300 << 20)
    assert [row.size_bytes for row in catalog()] == sorted(row.size_bytes for row in catalog())
    assert not any(alias.fits for alias in catalog(10**12))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("qwen2-0.5b", "qwen2-0.5b"),
        ("~/models/mine.gguf", "~/models/mine.gguf"),
        ("https://hub.test/Qwen/Qwen2-0.5B-Instruct-GGUF", "Qwen/Qwen2-0.5B-Instruct-GGUF"),
        ("https://hub.test/Qwen/Qwen2-0.5B-Instruct-GGUF/tree/main?x=y#z", "Qwen/Qwen2-0.5B-Instruct-GGUF"),
        ("https://hub.test/A/B-GGUF/blob/main/b-q4_0.gguf", "A/B-GGUF:b-q4_0.gguf"),
        (
            "https://hub.test/A/B-GGUF/resolve/main/sub/b%20q4_0.gguf?download=true",
            "A/B-GGUF:sub/b q4_0.gguf",
        ),
        ("https://hub.test/A/B/blob/main/config.json", "A/B"),
        ("http://scope.test/models/A/B-GGUF/files", "A/B-GGUF"),
        ("https://scope.test/models/A/B-GGUF/file/view/master/b-q4_0.gguf", "A/B-GGUF:b-q4_0.gguf"),
    ],
)
def test_the_address_of_a_hubs_page_is_the_name_of_what_it_shows(text: str, name: str) -> None:
    assert name_of(text) == name
