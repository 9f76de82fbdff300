from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkstream.engines.gguf import read_header
from inkstream.errors import ModelError


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def array(kind: int, *items: bytes) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


PAIRS = (
    pair("general.architecture", 8, string("qwen2")),
    pair("tokenizer.ggml.tokens", 9, array(8, string("你好"), string(""), string("x" * 300))),
    pair("tokenizer.ggml.scores", 9, array(6, *[struct.pack("<f", 0.5)] * 3)),
    pair("nested", 9, array(9, array(8, string("a")), array(4))),
    pair("qwen2.context_length", 4, struct.pack("<I", 4096)),
    pair("qwen2.block_count", 4, struct.pack("<I", 24)),
    pair("qwen2.embedding_length", 4, struct.pack("<I", 896)),
    pair("qwen2.attention.head_count", 4, struct.pack("<I", 14)),
    pair("qwen2.attention.head_count_kv", 4, struct.pack("<I", 2)),
    pair("general.sampling.temp", 6, struct.pack("<f", 0.5)),
    pair("flag", 7, b"\1"),
    pair("name", 8, string("小模型")),
)
WHOLE = b"GGUF" + struct.pack("<IQQ", 3, 0, len(PAIRS)) + b"".join(PAIRS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.gguf"


def test_scalars_and_strings_are_read_and_arrays_passed_over(path: Path) -> None:
    path.write_bytes(WHOLE)
    header = read_header(path)
    assert header.architecture == "qwen2"
    assert header.metadata["name"] == "小模型"
    assert header.metadata["general.sampling.temp"] == 0.5
    assert header.metadata["flag"] is True
    assert header.about("context_length", 0) == 4096
    assert header.about("rope.dimension_count", 7) == 7
    assert "tokenizer.ggml.tokens" not in header.metadata
    assert header.file_bytes == len(WHOLE)


def test_the_cache_of_qwen2_takes_12_kib_a_token(path: Path) -> None:
    path.write_bytes(WHOLE)
    assert read_header(path).cache_bytes(1) == 12 * 1024


def test_a_header_cut_anywhere_is_corrupt(path: Path) -> None:
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(ModelError) as error:
            read_header(path)
        assert error.value.code == "model_corrupt"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_is_either_harmless_or_named(path: Path, damage: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, byte in damage:
        data[at] = byte
    path.write_bytes(data)
    assert verdict(path) in ("usable", "model_corrupt")


def test_a_length_beyond_every_file_is_named(path: Path) -> None:
    path.write_bytes(WHOLE.replace(struct.pack("<Q", 300), struct.pack("<Q", 2**63)))
    assert verdict(path) == "model_corrupt"


def verdict(path: Path) -> str:
    try:
        read_header(path)
    except ModelError as error:
        return error.code
    return "usable"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.gguf"):
        with pytest.raises(ModelError, match="cannot be read") as error:
            read_header(path)
        assert error.value.code == "model_not_found"
