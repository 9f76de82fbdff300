"""Checkpoints: safetensors with configuration and tokenizer, a folder of files as transformers saves them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkstream import gguf, safetensors

KV_BYTES = 2 * 2
"""A key and a value, 16 bits each."""

WEIGHTS = re.compile(r"model(-\d{5}-of-(\d{5}))?\.safetensors")
BESIDE = re.compile(
    r"(generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template|vocab"
    r"|model\.safetensors\.index)\.json|merges\.txt|chat_template\.jinja"
)
CONFIG = "config.json"
TOKENIZERS = ({"tokenizer.json"}, {"vocab.json", "merges.txt"})


class Broken(ValueError):
    """A file is not whole. The text is the reason, without the path."""


def choose(names: Iterable[str]) -> tuple[str, ...]:
    """Of a repository's files those that make a checkpoint, the largest last; () where one is missing.

    Code that some repositories bring is never among them.
    """
    there = set(names)
    weights = weight_files(there)
    if not weights or CONFIG not in there or not any(files <= there for files in TOKENIZERS):
        return ()
    return (CONFIG, *sorted(name for name in there if BESIDE.fullmatch(name)), *weights)


def weight_files(names: Iterable[str]) -> tuple[str, ...]:
    """The one file, or all parts of a split one in order; () where parts are missing."""
    found = {name: match[2] for name in sorted(names) if (match := WEIGHTS.fullmatch(name))}
    if "model.safetensors" in found:
        return ("model.safetensors",)
    return tuple(found) if all(int(count) == len(found) for count in found.values()) else ()


def require_whole(path: Path, name: str) -> None:
    """Check the file at ``path`` by what its ``name`` says it is. Raises Broken, OSError."""
    try:
        if name.lower().endswith(".gguf"):
            gguf.read(path)
        elif name.endswith(".safetensors"):
            safetensors.read(path)
        elif name.endswith(".json"):
            json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Broken(str(error)) from error


@dataclass(frozen=True, slots=True)
class Shape:
    """``kv_bytes_per_token`` is what keys and values of a token take in 16 bits each; ``context_length`` is 0
    where the configuration does not say."""

    kv_bytes_per_token: int
    context_length: int


def read_shape(folder: Path) -> Shape:
    """Raises Broken, OSError."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        layers, kv_heads = config["num_hidden_layers"], config.get("num_key_value_heads", heads)
        return Shape(int(layers * kv_heads * width * KV_BYTES), int(config.get("max_position_embeddings", 0)))
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise Broken(f"its {CONFIG} does not describe a language model") from error
