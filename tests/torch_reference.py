"""A plain loop: one request, transformers' forward pass and logits processors, our draw written out again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from inkstream.engines import Sampling

WORD = 2**32

Whole = np.ndarray[Any, np.dtype[Any]]


class Reference:
    def __init__(self, checkpoint: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        self._known: dict[tuple[tuple[int, ...], Sampling, int], list[int]] = {}

    def generate(self, prompt: Sequence[int], sampling: Sampling, stop: int = -1) -> list[int]:
        """Up to ``max_tokens`` ids, ``stop`` being the last. Each answer is made once, for several tests."""
        key = (tuple(prompt), sampling, stop)
        if key not in self._known:
            self._known[key] = self._generate(list(prompt), sampling, stop)
        return self._known[key]

    def logprobs(self, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
        """Of all tokens at each place of the answer, in one pass."""
        with torch.no_grad():
            logits = self._model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(dim=-1)

    def _generate(self, prompt: list[int], sampling: Sampling, stop: int) -> list[int]:
        ids, cache = list(prompt), DynamicCache()
        while len(ids) - len(prompt) < (sampling.max_tokens or 0):
            if ids[len(prompt) :][-1:] == [stop] and not sampling.ignore_eos:
                break
            unread = torch.tensor([ids[cache.get_seq_length() :]])
            with torch.no_grad():
                logits = self._model(unread, past_key_values=cache, use_cache=True).logits[:, -1]
            for id, bias in sampling.logit_bias.items():
                logits[0, int(id)] += bias
            if len(ids) - len(prompt) < (sampling.min_tokens or 0) and stop >= 0:
                logits[0, stop] = -torch.inf
            ids.append(_drawn(logits, ids, len(prompt), sampling))
        return ids[len(prompt) :]


def _drawn(logits: torch.Tensor, ids: list[int], prompt: int, sampling: Sampling) -> int:
    context = torch.tensor([ids])
    if sampling.repetition_penalty not in (None, 1.0):
        logits = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(context, logits)
    for id, count in Counter(ids[prompt:]).items():
        logits[0, id] -= count * (sampling.frequency_penalty or 0) + (sampling.presence_penalty or 0)
    if not sampling.temperature:
        return int(logits.argmax())
    kept = _warpers(sampling)(context, logits)[0].double().numpy()
    return int(np.argmax(kept + noise(sampling.seed or 0, len(ids), np.arange(len(kept)))))


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None and sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers


def noise(seed: int, position: int, ids: Whole) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Gumbel noise of (seed, position, token), in double precision."""
    low = _mixed(np.array([(seed % WORD + (position + 1) * 0x9E3779B9) % WORD], np.uint64))
    high = _mixed(np.array([(seed >> 32) % WORD ^ 0x85EBCA6B], np.uint64) ^ low)
    hashed = _mixed(_mixed(ids.astype(np.uint64) * np.uint64(0x9E3779B1) + low) ^ high)
    uniform = np.minimum((hashed.astype(np.float64) + 0.5) / WORD, 1 - 2**-24)
    return -np.log(-np.log1p(-uniform))


def _mixed(x: Whole) -> Whole:
    x = x % np.uint64(WORD)
    x = (x ^ x >> np.uint64(16)) * np.uint64(0x7FEB352D) % np.uint64(WORD)
    x = (x ^ x >> np.uint64(15)) * np.uint64(0x846CA68B) % np.uint64(WORD)
    mixed: Whole = x ^ x >> np.uint64(16)
    return mixed
