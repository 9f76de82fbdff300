"""What a GGUF file says of itself, read without loading it.

The format is little-endian: magic, version, two counts, then key-value pairs, then tensor descriptions
and data (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Only the pairs are read; llama.cpp
checks the rest when it loads.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkstream.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


@dataclass(frozen=True, slots=True)
class Header:
    """``metadata`` holds scalars and strings; arrays (vocabulary, merges) are left out."""

    metadata: dict[str, Any]
    file_bytes: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    def about(self, name: str, default: int) -> int:
        """A number under the architecture's own prefix, such as ``qwen2.context_length``."""
        value = self.metadata.get(f"{self.architecture}.{name}", default)
        return value if isinstance(value, int) else default

    def cache_bytes(self, tokens: int) -> int:
        """Memory that keys and values of so many tokens take in 16 bits each."""
        heads = self.about("attention.head_count", 1)
        width = self.about("embedding_length", 0) // max(heads, 1)
        per_head = self.about("attention.key_length", width) + self.about("attention.value_length", width)
        return (
            2
            * tokens
            * self.about("block_count", 0)
            * self.about("attention.head_count_kv", heads)
            * per_head
        )


def read_header(path: Path) -> Header:
    """Raises ModelError: ``model_not_found`` or ``model_corrupt``."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return Header(_Reader(data).metadata(), len(data))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path} is no usable GGUF file: {error}.", code="model_corrupt") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def metadata(self) -> dict[str, Any]:
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := self._number("<I")) not in VERSIONS:
            raise ValueError(f"its version is {version}")
        _tensors, pairs = self._number("<Q"), self._number("<Q")
        found = {self._string(): self._value(self._number("<I")) for _ in range(pairs)}
        return {key: value for key, value in found.items() if value is not None}

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._skip_array()
        if kind not in SCALARS:
            raise ValueError(f"a value is of the unknown type {kind}")
        return self._number(SCALARS[kind])

    def _skip_array(self) -> None:
        kind, count = self._number("<I"), self._number("<Q")
        if kind in SCALARS:
            self._take(count * struct.calcsize(SCALARS[kind]))
            return
        if kind == STRING:
            self._skip_strings(count)
            return
        for _ in range(count):
            self._value(kind)

    def _skip_strings(self, count: int) -> None:
        # A vocabulary and its merges are 300,000 strings: one plain loop takes a third of the time.
        data, at, length_at = self._data, self._at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + length_at(data, at)[0]
        self._at = at
        self._take(0)

    def _string(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8", "replace")

    def _number(self, layout: str) -> Any:
        (number,) = struct.unpack(layout, self._take(struct.calcsize(layout)))
        return number

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._data):
            raise ValueError("it is cut off")
        return self._data[start : self._at]
