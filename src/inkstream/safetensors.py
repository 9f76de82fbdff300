"""What a safetensors file says of itself, and whether all of it is there, without loading it.

The file begins with the length of its header in eight little-endian bytes; the header is JSON and names for
each tensor its type, its shape and where its bytes lie behind the header (the format's own README).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000
"""What the format allows."""

METADATA = "__metadata__"


class Corrupt(ValueError):
    """The file is no safetensors file, or not all of one. The text is the reason, without the path."""


@dataclass(frozen=True, slots=True)
class Header:
    """``shapes`` are those of the tensors, by name."""

    shapes: dict[str, tuple[int, ...]]
    file_bytes: int


def read(path: Path) -> Header:
    """Raises Corrupt, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(MOST_HEADER_BYTES, size - LENGTH_BYTES):
            raise Corrupt("it does not begin like a safetensors file")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        tensors.pop(METADATA, None)
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        shapes = {name: _shape(tensor) for name, tensor in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Corrupt("its header cannot be read") from error
    if LENGTH_BYTES + length + end != size:
        raise Corrupt(f"it is cut off: {size:,} bytes of {LENGTH_BYTES + length + end:,}")
    return Header(shapes, size)


def _shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, tensor["shape"]))
