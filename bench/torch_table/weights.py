"""Models of real shapes with random weights: nobody has to download what is only timed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2Config

from inkstream.engines.torch.forward import Weights
from inkstream.engines.torch.model import take_weights
from inkstream.engines.torch.quantized import Quantize


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What sets one Qwen2 configuration apart from others, in its own words."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 151_936
    tie_word_embeddings: bool = True


HALF_BILLION = Dimensions(896, 4864, 24, 14, 2)
SEVEN_BILLION = Dimensions(3584, 18_944, 28, 28, 4, 152_064, tie_word_embeddings=False)
TINY = Dimensions(64, 128, 2, 4, 2)


def pretrained(dimensions: Dimensions, device: torch.device) -> Any:
    """In bfloat16, drawn on the device."""
    config = Qwen2Config(
        **asdict(dimensions),
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        eos_token_id=151_645,
        bos_token_id=151_643,
    )
    torch.manual_seed(0)
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def drawn(
    dimensions: Dimensions, device: torch.device, quantize: Quantize = lambda linear: linear
) -> Weights:
    return take_weights(pretrained(dimensions, device), device, quantize=quantize)


def write_model(folder: Path, dimensions: Dimensions, device: torch.device) -> None:
    """No token ends an answer: each has as many as it is asked for."""
    model = pretrained(dimensions, device)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_k=20, top_p=0.8)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
