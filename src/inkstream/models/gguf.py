"""What a GGUF file says of itself, and whether all of it is there.

Only the header is read: the metadata and the table of tensors, from which follows how long the file must be.
The format is described in ggml's ``docs/gguf.md``; the block sizes are those of ``gguf-py``'s
``GGML_QUANT_SIZES``. Tensor types that are not in the table count as empty, so that a newer quantisation
is let through to the engine, which knows better.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MOST_ENTRIES = 1_000_000
MOST_DIMENSIONS = 8
F16_BYTES = 2

STRING, ARRAY = 8, 9
SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
U32, U64 = SCALARS[4], SCALARS[10]

# Tensor type → elements per block, bytes per block.
BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110)},
    **{22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8)},
    **{29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17)},
}


class Corrupt(ValueError):
    """The file is no GGUF file, or not all of one. The text is the reason, without the path."""


@dataclass(frozen=True, slots=True)
class Header:
    """``parts`` is above 1 where the model is split over several files, of which this is one."""

    architecture: str
    name: str
    context_length: int
    kv_bytes_per_token: int
    parts: int


def read(path: Path) -> Header:
    """Read the header and check that the file is as long as its table of tensors says.

    Raises Corrupt, OSError.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < len(MAGIC) or file.seek(0) or file.read(len(MAGIC)) != MAGIC:
            raise Corrupt("it does not start with the four letters GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            try:
                metadata, needed = _parse(_Reader(view))
            except (struct.error, IndexError, OverflowError, RecursionError, UnicodeDecodeError) as error:
                raise Corrupt("its header is cut off or damaged") from error
    if size < needed:
        raise Corrupt(f"it is cut off: {size:,} of {needed:,} bytes are there")
    return _header(metadata)


def _parse(reader: _Reader) -> tuple[dict[str, Any], int]:
    version = reader.scalar(U32)
    if version not in VERSIONS:
        raise Corrupt(f"its format version {version} is not known")
    tensors, entries = reader.scalar(U64), reader.scalar(U64)
    if max(tensors, entries) > MOST_ENTRIES:
        raise Corrupt("its header is damaged")
    metadata = {}
    for _ in range(entries):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar(U32))
    end = max((reader.tensor_end() for _ in range(tensors)), default=0)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise Corrupt("its header is damaged")
    return metadata, reader.position + -reader.position % alignment + end if tensors else reader.position


def _header(metadata: dict[str, Any]) -> Header:
    architecture = str(metadata.get("general.architecture", ""))

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        return value if isinstance(value, int) else default

    heads = number("attention.head_count", 1) or 1
    head_size = number("embedding_length") // heads
    per_head = number("attention.key_length", head_size) + number("attention.value_length", head_size)
    parts = metadata.get("split.count", 1)
    return Header(
        architecture=architecture,
        name=str(metadata.get("general.name", "")),
        context_length=number("context_length"),
        kv_bytes_per_token=number("block_count")
        * number("attention.head_count_kv", heads)
        * per_head
        * F16_BYTES,
        parts=parts if isinstance(parts, int) else 1,
    )


class _Reader:
    """Walks over the header. Arrays are skipped: only the vocabulary is one, and nobody here needs it."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view = view
        self.position = len(MAGIC)

    def scalar(self, kind: struct.Struct) -> Any:
        (value,) = kind.unpack_from(self._view, self.position)
        self.position += kind.size
        return value

    def string(self) -> str:
        return self._view[slice(*self._skip_string())].decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self._skip_array()
        return self.scalar(_scalar(kind))

    def tensor_end(self) -> int:
        """Where the next tensor of the table ends, counted from the start of the data."""
        self._skip_string()
        dimensions = self.scalar(U32)
        if dimensions > MOST_DIMENSIONS:
            raise Corrupt("its table of tensors is damaged")
        elements: int = prod(self.scalar(U64) for _ in range(dimensions))
        per_block, block_bytes = BLOCKS.get(self.scalar(U32), (1, 0))
        offset: int = self.scalar(U64)
        return offset + elements // per_block * block_bytes

    def _skip_string(self) -> tuple[int, int]:
        start = self.position + U64.size
        end = start + self.scalar(U64)
        self._go_to(end)
        return start, end

    def _skip_array(self) -> None:
        kind, count = self.scalar(U32), self.scalar(U64)
        if kind in (STRING, ARRAY):
            skip: Callable[[], object] = self._skip_string if kind == STRING else self._skip_array
            for _ in range(count):
                skip()
        else:
            self._go_to(self.position + _scalar(kind).size * count)

    def _go_to(self, position: int) -> None:
        if position > len(self._view):
            raise IndexError
        self.position = position


def _scalar(kind: int) -> struct.Struct:
    if kind not in SCALARS:
        raise Corrupt("its metadata is damaged")
    return SCALARS[kind]
