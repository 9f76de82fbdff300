"""What a GGUF file says of itself, and whether all of it is there, without loading it.

Only the header is read: the metadata and the table of tensors, from which follows how long the file must be.
The format is described in ggml's ``docs/gguf.md``; the block sizes are those of ``gguf-py``'s
``GGML_QUANT_SIZES``. Tensor types that are not in the table count as empty, so that a newer quantisation
is let through to the engine, which knows better.
"""

from __future__ import annotations

import mmap
import struct
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
LAYOUTS = {
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
SCALARS = {kind: struct.Struct(layout) for kind, layout in LAYOUTS.items()}
U32, U64 = SCALARS[4], SCALARS[10]

# Tensor type → elements per block, bytes per block.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

# ``general.file_type`` → its name, as in llama.cpp's ``llama_ftype``.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


class Corrupt(ValueError):
    """The file is no GGUF file, or not all of one. The text is the reason, without the path."""


@dataclass(frozen=True, slots=True)
class Header:
    """``metadata`` holds scalars and strings; arrays (vocabulary, merges) are left out.

    ``shapes`` are those of the tensors, by name; of a matrix outputs come first, and its inputs then.
    """

    metadata: dict[str, Any]
    file_bytes: int
    shapes: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def name(self) -> str:
        return str(self.metadata.get("general.name", ""))

    @property
    def quantization(self) -> str | None:
        """How most of the weights are stored, such as ``Q4_K_M``; None where the file does not say."""
        return FILE_TYPES.get(self._number("general.file_type", -1))

    @property
    def parts(self) -> int:
        """Above 1 where the model is split over several files, of which this is one."""
        return self._number("split.count", 1)

    @property
    def kv_bytes_per_token(self) -> int:
        """Memory that the keys and values of one token take in 16 bits each."""
        heads = self.about("attention.head_count", 1)
        width = self.about("embedding_length", 0) // max(heads, 1)
        per_head = self.about("attention.key_length", width) + self.about("attention.value_length", width)
        kv_heads = self.about("attention.head_count_kv", heads)
        return self.about("block_count", 0) * kv_heads * per_head * F16_BYTES

    def about(self, name: str, default: int) -> int:
        """A number under the architecture's own prefix, such as ``qwen2.context_length``."""
        return self._number(f"{self.architecture}.{name}", default)

    def _number(self, key: str, default: int) -> int:
        value = self.metadata.get(key, default)
        return value if isinstance(value, int) else default


def read(path: Path) -> Header:
    """Read the header and check that the file is as long as its table of tensors says.

    Raises Corrupt, OSError.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Corrupt("it does not start with the four letters GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            try:
                reader = _Reader(view)
                metadata, needed = reader.header()
            except (struct.error, IndexError, OverflowError, RecursionError) as error:
                raise Corrupt("its header is cut off or damaged") from error
            size = len(view)
    if size < needed:
        raise Corrupt(f"it is cut off: {size:,} of {needed:,} bytes are there")
    return Header(metadata, size, reader.shapes)


class _Reader:
    """Walks over the header. Arrays are skipped: only the vocabulary is one, and nobody here needs it.

    Reading beyond the end raises struct.error or IndexError.
    """

    def __init__(self, view: mmap.mmap) -> None:
        self._view = view
        self._at = len(MAGIC)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def header(self) -> tuple[dict[str, Any], int]:
        """The metadata, and how many bytes the file must have."""
        if (version := self._scalar(U32)) not in VERSIONS:
            raise Corrupt(f"its format version {version} is not known")
        tensors, entries = self._scalar(U64), self._scalar(U64)
        if max(tensors, entries) > MOST_ENTRIES:
            raise Corrupt("its header is damaged")
        found = {self._string(): self._value(self._scalar(U32)) for _ in range(entries)}
        metadata = {key: value for key, value in found.items() if value is not None}
        end = max((self._tensor_end() for _ in range(tensors)), default=0)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise Corrupt("its header is damaged")
        return metadata, self._at + -self._at % alignment + end if tensors else self._at

    def _tensor_end(self) -> int:
        """Where the next tensor of the table ends, counted from the start of the data."""
        name = self._string()
        dimensions = self._scalar(U32)
        if dimensions > MOST_DIMENSIONS:
            raise Corrupt("its table of tensors is damaged")
        # They are written innermost first.
        shape = tuple(self._scalar(U64) for _ in range(dimensions))[::-1]
        per_block, block_bytes = BLOCKS.get(self._scalar(U32), (1, 0))
        offset: int = self._scalar(U64)
        self.shapes[name] = shape
        elements: int = prod(shape)
        return offset + elements // per_block * block_bytes

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._skip_array()
        return self._scalar(_known(kind))

    def _scalar(self, kind: struct.Struct) -> Any:
        (value,) = kind.unpack_from(self._view, self._at)
        self._at += kind.size
        return value

    def _string(self) -> str:
        start = self._at + U64.size
        self._skip_strings(1)
        return self._view[start : self._at].decode("utf-8", "replace")

    def _skip_array(self) -> None:
        kind, count = self._scalar(U32), self._scalar(U64)
        if kind == STRING:
            self._skip_strings(count)
        elif kind == ARRAY:
            for _ in range(count):
                self._skip_array()
        else:
            self._go_to(self._at + _known(kind).size * count)

    def _skip_strings(self, count: int) -> None:
        # A vocabulary and its merges are 300,000 strings: one plain loop takes a third of the time.
        view, at, length_at, length_bytes = self._view, self._at, U64.unpack_from, U64.size
        for _ in range(count):
            at += length_bytes + length_at(view, at)[0]
        self._go_to(at)

    def _go_to(self, position: int) -> None:
        if position > len(self._view):
            raise IndexError
        self._at = position


def _known(kind: int) -> struct.Struct:
    if kind not in SCALARS:
        raise Corrupt("its metadata is damaged")
    return SCALARS[kind]
