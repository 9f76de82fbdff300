"""Tiny random checkpoints of real architectures with the real Qwen2 vocabulary.

Their weights are drawn wide enough that greedy answers wander over many tokens instead of repeating one.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.qwen2_gguf import (
    CHAT_TEMPLATE,
    CONTROL,
    END_OF_TEXT,
    IM_END,
    VOCABULARY,
    _byte_characters,
    load_ranks,
)
from tests.qwen2_gguf import _merges as merges_of

ARCHITECTURES = ("qwen2", "qwen3", "llama")
POSITIONS = 1024


def write_checkpoint(folder: Path, architecture: str) -> None:
    """As transformers saves it: safetensors, configuration, tokenizer, generation defaults."""
    torch.manual_seed(1)
    model = _model_class(architecture)(_config(architecture))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=1.0 if "embed" in name else 2.0 / weight.shape[1] ** 0.5)
            elif name.endswith("bias"):
                weight.normal_(std=0.5)
            else:
                weight.uniform_(0.5, 1.5)
        # Control tokens, and ids that are none, are never likely: answers are as long as asked for.
        model.get_input_embeddings().weight[END_OF_TEXT:] = 0
        model.get_output_embeddings().weight[END_OF_TEXT:] = 0
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_k=20,
        top_p=0.8,
        repetition_penalty=1.05,
        eos_token_id=[IM_END, END_OF_TEXT],
    )
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_dequantised(file: Path, folder: Path) -> None:
    """A GGUF file of a Llama as a checkpoint in bfloat16, as if it had never been quantised."""
    source = {"gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.bfloat16, **source)
    config = LlamaConfig(**read.config.to_dict() | {"quantization_config": None})
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, **source).save_pretrained(folder)


@cache
def tokenizer() -> Any:
    ranks, unicode = load_ranks(), _byte_characters()

    def spelled(piece: bytes) -> str:
        return "".join(unicode[byte] for byte in piece)

    merges = [(spelled(a), spelled(b)) for a, b in merges_of(ranks)]
    fast = Tokenizer(models.BPE({spelled(piece): id for piece, id in ranks.items()}, merges))
    words = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=POSITIONS,
    )


def _config(architecture: str) -> Any:
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS,
        "eos_token_id": IM_END,
        "bos_token_id": END_OF_TEXT,
    }
    match architecture:
        case "qwen2":
            return Qwen2Config(**common, tie_word_embeddings=True)
        case "qwen3":
            return Qwen3Config(**common | {"num_attention_heads": 6}, head_dim=16, tie_word_embeddings=False)
        case _:
            rope = {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256,
            }
            return LlamaConfig(**common, head_dim=16, rope_parameters=rope, tie_word_embeddings=False)


def _model_class(architecture: str) -> Any:
    return {
        "qwen2": Qwen2ForCausalLM,
        "qwen3": Qwen3ForCausalLM,
        "llama": LlamaForCausalLM,
    }[architecture]
