"""What is asked, how it is read and when it is stopped: all drawn from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Literal

from tests.torture.reader import Manner

Sequel = Literal["regenerate", "continue"]
SEQUELS: tuple[Sequel | None, ...] = (None, "regenerate", "continue")

SPICE = ("流式", "naïve", "👩‍👩‍👧‍👦", "<|im_end|>", "𠮷野家", "\u2028", "\n\n", "<think>", "`code`", "null")
STOP_STRINGS = ("twice. ", "一个字", "print(token", "never said")
ENGLISH = (
    "Why is the sky blue?",
    "Name three rivers of Europe.",
    "Write two sentences about a lighthouse.",
    "What is the capital of France?",
    "Explain what a prime number is.",
    "Tell a short story about a fox.",
    "How does bread rise?",
    "What do bees do in winter?",
    "Describe a thunderstorm.",
    "Give advice to somebody who learns to swim.",
)


@dataclass(frozen=True, slots=True)
class Question:
    """``stop_after`` is how many events are seen before the stop is asked for, ``stops`` how often at once.

    ``hurry_seconds`` is when the first attempt to ask is given up unheard; ``asks_again`` repeats a
    successful start, which must lead to the same run. ``sequel`` is what is asked of its answer in the end:
    another one beside it, or more of it where it was cut.
    """

    text: str
    sampling: dict[str, Any]
    readers: tuple[Manner, ...]
    stop_after: int | None
    stops: int
    hurry_seconds: float | None
    asks_again: bool
    sequel: Sequel | None = None


def drawn(draw: random.Random, text: str, sampling: dict[str, Any]) -> Question:
    others: list[Manner] = draw.choices(("cutting", "slow", "steady"), (6, 2, 1), k=draw.choice((0, 1, 1, 2)))
    return Question(
        text=text,
        sampling=sampling,
        readers=("steady", *others),
        stop_after=draw.randint(0, 60) if draw.random() < 0.2 else None,
        stops=draw.randint(1, 3),
        hurry_seconds=draw.uniform(0, 0.05) if draw.random() < 0.2 else None,
        asks_again=draw.random() < 0.2,
    )


def for_scripted(draw: random.Random, number: int) -> Question:
    sampling: dict[str, Any] = {"temperature": draw.choice((0, 0, 0.8)), "max_tokens": draw.randint(1, 250)}
    if sampling["temperature"]:
        sampling["seed"] = draw.randrange(1 << 31)
    if draw.random() < 0.2:
        sampling["stop"] = [draw.choice(STOP_STRINGS)]
    question = drawn(draw, f"Question {number} {draw.choice(SPICE)}?", sampling)
    return replace(question, sequel=draw.choices(SEQUELS, (5, 1, 3))[0])


def for_llama(draw: random.Random, _number: int) -> Question:
    text = draw.choice(ENGLISH)
    return drawn(draw, text, llama_sampling(text))


def llama_sampling(text: str) -> dict[str, Any]:
    return {"temperature": 0, "max_tokens": 40 + 7 * ENGLISH.index(text)}
