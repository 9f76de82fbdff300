"""How likely tokens were, in the shape of OpenAI's API, for ``Chunk.logprobs``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LEAST = -9999.0
"""Stands for no chance at all: JSON has no infinity. vLLM says the same."""

Likelihood = tuple[bytes, float]
"""The bytes of a token, which may end inside a character, and its logarithmic probability."""


def entry(token: Likelihood, top: Iterable[Likelihood]) -> dict[str, Any]:
    """What is told of one token, and of the likeliest in its place."""
    return {**_told(*token), "top_logprobs": [_told(*each) for each in top]}


def _told(token: bytes, logprob: float) -> dict[str, Any]:
    text = token.decode(errors="replace")
    return {"token": text, "logprob": min(max(logprob, LEAST), 0.0), "bytes": list(token)}
