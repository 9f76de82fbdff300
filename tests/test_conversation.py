"""What an engine is told of a conversation, above all of one that is longer than the context."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstream.ask import Pin
from inkstream.conversation import NEWEST, Fitted, Told, Tree, fit, fitted, made_with
from inkstream.engines import Message as Said
from inkstream.engines import Prompt, Sampling
from inkstream.engines.scripted import Script, Scripted
from inkstream.errors import EngineFailed, NotFound
from inkstream.events import RunState
from inkstream.history import Message


def conversation(lengths: Sequence[int], system: int = 0) -> list[Said]:
    """A question and its answer for each length, and a last question."""
    said = [Said("system", "s" * system)] if system else []
    for length in lengths[:-1]:
        said += [Said("user", "q" * length), Said("assistant", "a" * length)]
    return [*said, Said("user", "q" * lengths[-1])]


class Counter:
    """Counts characters as tokens, and how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, messages: Sequence[Said]) -> int:
        self.calls += 1
        return sum(len(message.content) for message in messages)


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 30), st.integers(1, 2000))
async def test_as_few_turns_are_left_out_as_fit_with_few_counts(
    lengths: list[int], system: int, limit: int
) -> None:
    said, count = conversation(lengths, system), Counter()
    found = await fitted(said, limit, count)
    assert count.calls <= 2 + math.ceil(math.log2(max(1, len(lengths))))
    ends = [[*said[: bool(system)], *said[bool(system) + 2 * turns :]] for turns in range(len(lengths))]
    fitting = [end for end in ends if await Counter()(end) <= limit]
    expected = fitting[0] if fitting else ends[-1]
    assert found == Fitted(tuple(expected), await Counter()(expected), len(said) - len(expected))


async def test_an_answer_goes_with_its_question_however_many_there_are() -> None:
    said = [Said("user", "q" * 9), Said("assistant", "a"), Said("assistant", "b"), Said("user", "q")]
    assert (await fitted(said, 3, Counter())).messages == (Said("user", "q"),)


async def test_an_engine_is_told_what_leaves_room_for_an_answer() -> None:
    engine = Scripted(Script(context=400))
    said = conversation([60] * 12, system=10)
    fingerprint = engine.describe().fingerprint
    assert await fit(engine, said[:4], None) == Told(await engine.render(said[:4]), 0, fingerprint)
    found = await fit(engine, said, None)
    kept = [said[0], *said[1 + found.left_out :]]
    assert kept[1].role == "user"
    assert found.prompt == await engine.render(kept)
    assert found.prompt.tokens <= 300
    one_more = (said[0], *said[found.left_out - 1 :])
    assert (await engine.render(one_more)).tokens > 300
    assert (await fit(engine, said, 20)).left_out <= found.left_out


async def test_a_last_question_is_told_while_it_fits_and_refused_where_not() -> None:
    engine = Scripted(Script(context=100))
    tight = [Said("user", "x"), Said("assistant", "y"), Said("user", "word " * 40)]
    found = await fit(engine, tight, None)
    assert (found.prompt, found.left_out) == (await engine.render(tight[-1:]), 2)
    assert 75 < found.prompt.tokens < 100
    with pytest.raises(EngineFailed) as caught:
        await fit(engine, [Said("user", "word " * 400)], None)
    assert caught.value.code == "prompt_too_long"


async def test_other_failures_of_the_engine_are_passed_on() -> None:
    with pytest.raises(EngineFailed) as caught:
        await fit(Scripted(), [Said("user", "\ud800")], None)
    assert caught.value.code == "bad_prompt"


# The tree


def tree() -> Tree:
    part = {"type": "text", "text": "hello"}
    return Tree(
        "c",
        [
            Message("q", "c", None, "user", [part], 1.0),
            Message("a", "c", "q", "assistant", [{"type": "thinking", "text": "hm"}, part], 2.0),
            Message("b", "c", "q", "assistant", [], 3.0, run="r", state=RunState.RUNNING),
        ],
    )


def test_what_would_be_said_is_the_path_and_the_question_without_thinking() -> None:
    asked = (Said("user", "hello"), Said("assistant", "hello"), Said("user", "more"))
    assert tree().said("more", "a", None) == asked
    assert tree().said("more", "a", " s ") == (Said("system", " s "), *asked)
    assert tree().said(None, NEWEST, "") == (Said("user", "hello"), Said("assistant", ""))
    assert tree().said(None, None, None) == ()
    with pytest.raises(NotFound):
        tree().said("more", "nobody", None)


def test_an_answer_tells_what_it_is_made_with() -> None:
    asked = tree().ask("more", "a", "be brief", Sampling(temperature=0, stop=("x",)))
    assert asked.answer is not None
    assert asked.answer.made_with == {
        "model": None,
        "system": "be brief",
        "sampling": {"temperature": 0, "stop": ("x",)},
    }
    pin = Pin(Prompt(1, None), Sampling(temperature=0, top_k=4, seed=7, max_tokens=9), "qwen", "f")
    assert made_with(asked.answer, pin) == {
        "model": "qwen",
        "system": "be brief",
        "sampling": {"temperature": 0, "top_k": 4, "seed": 7, "max_tokens": 9},
    }


async def test_counts_grow_with_the_logarithm_of_the_conversation() -> None:
    lengths = [random.randrange(1, 9) for _ in range(1000)]
    count = Counter()
    await fitted(conversation(lengths), 100, count)
    assert count.calls <= 12
