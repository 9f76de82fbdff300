from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkstream import gguf
from tests.tiny_gguf import string, tiny_gguf


def array(kind: int, *items: bytes) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def of_type(kind: int, value: bytes) -> bytes:
    return struct.pack("<I", kind) + value


WHOLE = tiny_gguf(
    size=1024,
    metadata={
        "long": ["你好", "", "x" * 300],
        "scores": of_type(9, array(6, *[struct.pack("<f", 0.5)] * 3)),
        "nested": of_type(9, array(9, array(8, string("a")), array(4))),
        "general.sampling.temp": of_type(6, struct.pack("<f", 0.5)),
        "flag": of_type(7, b"\1"),
        "latin": of_type(8, struct.pack("<Q", 4) + b"caf\xe9"),
        "general.name": "小模型",
    },
)
HEADER_BYTES = len(WHOLE) - 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.gguf"


def read(path: Path, content: bytes) -> gguf.Header:
    path.write_bytes(content)
    return gguf.read(path)


def test_scalars_and_strings_are_read_and_arrays_passed_over(path: Path) -> None:
    header = read(path, WHOLE)
    assert (header.architecture, header.name, header.parts) == ("qwen2", "小模型", 1)
    assert header.metadata["general.sampling.temp"] == 0.5
    assert header.metadata["flag"] is True
    assert header.metadata["latin"] == "caf\ufffd"
    assert header.about("context_length", 0) == 4096
    assert header.about("rope.dimension_count", 7) == 7
    assert not {"tokenizer.ggml.tokens", "scores", "nested"} & set(header.metadata)
    assert header.file_bytes == len(WHOLE)
    assert header.quantization is None


def test_the_quantization_is_told_by_its_name(path: Path) -> None:
    for number, name in ((15, "Q4_K_M"), (32, "BF16"), (9_999, None)):
        file_type: str | int | list[str] | bytes = of_type(4, struct.pack("<I", number))
        metadata = {"general.file_type": file_type}
        assert read(path, tiny_gguf(size=8, metadata=metadata)).quantization == name


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_that_are_in_use_are_read(path: Path, version: int) -> None:
    assert read(path, tiny_gguf(version=version)).name == "Tiny"


def test_a_model_in_several_files_says_so(path: Path) -> None:
    assert read(path, tiny_gguf(metadata={"split.count": 3})).parts == 3


def test_a_number_of_another_type_counts_as_absent(path: Path) -> None:
    header = read(path, tiny_gguf(metadata={"split.count": "three", "qwen2.context_length": "long"}))
    assert (header.parts, header.about("context_length", 7)) == (1, 7)


def test_the_cache_of_qwen2_takes_12_kib_a_token(path: Path) -> None:
    sizes = {"block_count": 24, "embedding_length": 896, "attention.head_count": 14}
    header = read(path, tiny_gguf(metadata={f"qwen2.{name}": size for name, size in sizes.items()}))
    assert header.kv_bytes_per_token == 12 * 1024


def test_heads_of_a_size_of_their_own_count_for_the_cache(path: Path) -> None:
    sizes = {"qwen2.attention.key_length": 128, "qwen2.attention.value_length": 64}
    assert read(path, tiny_gguf(metadata={**sizes})).kv_bytes_per_token == 2 * 2 * (128 + 64) * 2


def test_a_newer_tensor_type_is_left_to_the_engine(path: Path) -> None:
    assert read(path, tiny_gguf(tensor_type=9999)).name == "Tiny"


def test_an_alignment_of_its_own_counts(path: Path) -> None:
    content = tiny_gguf(metadata={"general.alignment": 1024})
    with pytest.raises(gguf.Corrupt, match="cut off"):
        read(path, content)
    read(path, content + bytes(1024))


@pytest.mark.parametrize("alignment", [0, "32"])
def test_an_alignment_that_is_none_is_corrupt(path: Path, alignment: int | str) -> None:
    with pytest.raises(gguf.Corrupt, match="damaged"):
        read(path, tiny_gguf(metadata={"general.alignment": alignment}))


def test_a_file_cut_anywhere_is_never_taken_for_whole(path: Path) -> None:
    path.write_bytes(WHOLE)
    for length in reversed(range(len(WHOLE))):
        os.truncate(path, length)
        with pytest.raises(gguf.Corrupt):
            gguf.read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(st.integers(0, HEADER_BYTES), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_is_either_harmless_or_named(path: Path, damage: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, byte in damage:
        data[at] = byte
    with suppress(gguf.Corrupt):
        read(path, bytes(data))


@pytest.mark.parametrize("length", [2**31, 2**63, 2**64 - 1])
def test_a_length_beyond_every_file_is_named(path: Path, length: int) -> None:
    with pytest.raises(gguf.Corrupt):
        read(path, WHOLE.replace(struct.pack("<Q", 300), struct.pack("<Q", length)))


def test_arrays_nested_beyond_measure_are_named(path: Path) -> None:
    deep = of_type(9, struct.pack("<IQ", 9, 1) * 100_000)
    with pytest.raises(gguf.Corrupt):
        read(path, tiny_gguf(metadata={"deep": deep}))


@pytest.mark.parametrize("content", [b"", b"GG", b"<!doctype html><title>404</title>"])
def test_what_is_no_gguf_file_is_named(path: Path, content: bytes) -> None:
    with pytest.raises(gguf.Corrupt, match="four letters"):
        read(path, content)


def test_a_version_to_come_is_named(path: Path) -> None:
    with pytest.raises(gguf.Corrupt, match="version 9"):
        read(path, tiny_gguf(version=9))
