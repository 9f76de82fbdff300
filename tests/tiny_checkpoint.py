"""A checkpoint of a few hundred bytes: enough for whoever looks at files and never computes."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
}
KV_BYTES_PER_TOKEN = 3 * 2 * 16 * 2 * 2


def tiny_safetensors(rows: int = 10) -> bytes:
    """One tensor of ``rows`` × 8 numbers in bfloat16."""
    content = bytes(rows * 8 * 2)
    tensor = {"dtype": "BF16", "shape": [rows, 8], "data_offsets": [0, len(content)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "model.embed_tokens.weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + content


def tiny_checkpoint(parts: int = 1) -> dict[str, bytes]:
    """The files of a repository, with what belongs to a checkpoint and what does not."""
    names = ["model.safetensors"]
    beside: dict[str, bytes] = {}
    if parts > 1:
        names = [f"model-{number:05}-of-{parts:05}.safetensors" for number in range(1, parts + 1)]
        beside["model.safetensors.index.json"] = b'{"weight_map": {}}'
    weights = {name: tiny_safetensors(rows=10 + at) for at, name in enumerate(names)}
    return {
        "README.md": b"# A model",
        "config.json": json.dumps(CONFIG).encode(),
        "generation_config.json": b'{"do_sample": true, "temperature": 0.7}',
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "modeling_own.py": b"raise SystemExit",
        "onnx/model.safetensors": b"other",
        "pytorch_model.bin": b"pickled",
        **beside,
        **weights,
    }


def write_tiny_checkpoint(folder: Path, parts: int = 1) -> Path:
    folder.mkdir(parents=True)
    for name, content in tiny_checkpoint(parts).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
