"""Makes small but true GGUF files, so that what is fetched in tests passes the checks of real weights."""

from __future__ import annotations

import random
import struct


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


Value = str | int | list[str] | bytes
"""Bytes are a value of any type as the file has it, its type in front."""


def entry(key: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        return string(key) + value
    if isinstance(value, str):
        return string(key) + struct.pack("<I", 8) + string(value)
    if isinstance(value, int):
        return string(key) + struct.pack("<II", 4, value)
    return string(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(string, value))


def tiny_gguf(
    *,
    size: int = 300_000,
    seed: int = 0,
    architecture: str = "qwen2",
    version: int = 3,
    tensor_type: int = 0,
    metadata: dict[str, Value] | None = None,
) -> bytes:
    """A model of one F32 tensor (or another type) with about ``size`` bytes of random weights."""
    entries: dict[str, Value] = {
        "general.architecture": architecture,
        "general.name": "Tiny",
        f"{architecture}.context_length": 4096,
        f"{architecture}.block_count": 2,
        f"{architecture}.embedding_length": 64,
        f"{architecture}.attention.head_count": 4,
        f"{architecture}.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["<|im_start|>", "流", "式"],
        **(metadata or {}),
    }
    elements = size // 4 // 256 * 256
    head = b"GGUF" + struct.pack("<IQQ", version, 1, len(entries))
    head += b"".join(entry(key, value) for key, value in entries.items())
    head += string("token_embd.weight") + struct.pack("<IQIQ", 1, elements, tensor_type, 0)
    head += bytes(-len(head) % 32)
    block = random.Random(seed).randbytes(1 << 20)
    return head + (block * (elements * 4 // len(block) + 1))[: elements * 4]
