"""What only the scripted engine promises. The rest is in ``test_engines``."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
import pytest

from inkstream import engines
from inkstream.config import Settings
from inkstream.engines import Chunk, Emitted, Finish, Message, Phase, Progress, Request, Sampling
from inkstream.engines.scripted import CRASHED, THINKING, Script, Scripted
from inkstream.errors import ConfigError, EngineFailed, EngineLost

DRAWN = Sampling(temperature=0.7, seed=7)


async def asked(engine: Scripted, content: str = "hello", sampling: Sampling = DRAWN) -> Request:
    return Request("r", await engine.render([Message("user", content)]), sampling)


async def generated(
    engine: Scripted, request: Request, emitted: Emitted | None = None
) -> tuple[list[Chunk], Finish]:
    chunks: list[Chunk] = []
    async with aclosing(engine.generate(request, emitted or Emitted())) as items:
        async for item in items:
            if isinstance(item, Chunk):
                chunks.append(item)
            if isinstance(item, Finish):
                return chunks, item
    raise AssertionError("no Finish came")


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


# The script


def test_an_empty_script_is_the_default() -> None:
    assert Script.parse("") == Script.parse("{}") == Script()


def test_every_field_can_be_given() -> None:
    fields: dict[str, Any] = {
        "answer": "你好",
        "answer_tokens": 9,
        "think": True,
        "tokens_per_second": 50,
        "prefill_tokens_per_second": 1.5,
        "load_seconds": 2,
        "continues": "text",
        "slots": 3,
        "context": 64,
        "crash_on": "💥",
        "crash_after_tokens": 5,
        "fail_on": "fail",
        "stall_on": "stall",
    }
    assert Script.parse(orjson.dumps(fields).decode()) == Script(**fields)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"anwser": "x"}', "unknown field 'anwser'"),
        ('{"answer": 3}', "'answer' has value 3"),
        ('{"slots": "4"}', "'slots' has value '4'"),
        ('{"slots": true}', "'slots' has value True"),
        ('{"slots": 0}', "at least 1"),
        ('{"think": 1}', "'think' has value 1"),
        ('{"load_seconds": -1}', "must not be negative"),
        ('{"continues": "maybe"}', "Choose ids, text or no"),
    ],
)
def test_a_bad_script_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Script.parse(text)


async def test_the_settings_carry_the_script() -> None:
    settings = Settings(engine="scripted", script='{"answer": "Hello, 世界"}')
    async with engines.create(settings) as engine:
        assert isinstance(engine, Scripted)
        chunks, finish = await generated(engine, await asked(engine))
    assert text_of(chunks) == "Hello, 世界"
    assert finish.reason == "stop"


# What it says


async def test_an_answer_is_a_function_of_prompt_and_seed() -> None:
    async def said(content: str, sampling: Sampling) -> str:
        engine = Scripted()
        return text_of((await generated(engine, await asked(engine, content, sampling)))[0])

    assert await said("a", DRAWN) == await said("a", DRAWN)
    assert await said("a", DRAWN) != await said("b", DRAWN)
    assert await said("a", DRAWN) != await said("a", replace(DRAWN, seed=8))
    greedy = replace(DRAWN, temperature=0.0)
    assert await said("a", greedy) == await said("a", replace(greedy, seed=8))


async def test_another_process_says_the_same() -> None:
    engine = Scripted()
    chunks, _ = await generated(engine, await asked(engine))
    assert run_alone("{}", "hello").stdout.decode() == text_of(chunks)


async def test_an_answer_has_all_that_is_hard_to_stream() -> None:
    engine = Scripted(Script(answer_tokens=2000))
    chunks, finish = await generated(engine, await asked(engine))
    text = text_of(chunks)
    for hard in ("墨水", "👩‍👩‍👧‍👦", "```python\n", "\u2028", "\u0085", "\n\n", "𠮷", "<b>"):
        assert hard in text
    assert any(chunk.text.endswith("\u200d") for chunk in chunks), "no emoji is cut between its parts"
    assert finish.completion_tokens == len(chunks) == 2000
    assert all(1 <= len(chunk.text) <= 4 for chunk in chunks)


async def test_thinking_comes_first() -> None:
    engine = Scripted(Script(answer="Hi", think=True))
    chunks, _ = await generated(engine, await asked(engine))
    assert text_of(chunks) == THINKING + "Hi"


async def test_ids_spell_the_text() -> None:
    engine = Scripted()
    chunks, _ = await generated(engine, await asked(engine))
    for chunk in chunks:
        assert chunk.ids
        assert "".join(map(engine.piece, chunk.ids)) == chunk.text


async def test_held_back_text_is_beyond_the_emitted_ids() -> None:
    """A chunk's last token may be half held back as a possible stop string; its other half comes next."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    answer = "".join(draw.choice("abc") for _ in range(300))
    engine = Scripted(Script(answer=answer))
    stops = tuple("".join(draw.choice("abc") for _ in range(6)) for _ in range(4))
    request = await asked(engine, sampling=replace(DRAWN, stop=stops))
    chunks, finish = await generated(engine, request)
    ends = [answer.find(stop) for stop in stops if stop in answer]
    assert text_of(chunks) == answer[: min(ends, default=len(answer))]
    for cut in range(len(chunks) + 1):
        ids = tuple(id for chunk in chunks[:cut] for id in chunk.ids or ())
        emitted = Emitted(text_of(chunks[:cut]), ids, len(ids))
        rest, again = await generated(engine, request, emitted)
        assert emitted.text + text_of(rest) == text_of(chunks)
        assert again.completion_tokens == finish.completion_tokens


async def test_ids_that_do_not_spell_the_text_are_refused() -> None:
    engine = Scripted()
    request = await asked(engine)
    for ids in ((1, 2, 3), (10**9,), (-1,)):
        with pytest.raises(EngineFailed) as refused:
            await generated(engine, request, Emitted("other text", ids, len(ids)))
        assert refused.value.code == "bad_seam"


async def test_it_can_be_told_not_to_go_on() -> None:
    engine = Scripted(Script(continues="no"))
    request = await asked(engine)
    assert not engine.describe().exact_seam
    with pytest.raises(EngineFailed) as refused:
        await generated(engine, request, Emitted("x", None, 1))
    assert refused.value.code == "cannot_continue"


# Its pace


async def test_it_keeps_the_pace() -> None:
    engine = Scripted(Script(answer_tokens=20, tokens_per_second=200))
    request = await asked(engine)
    started = time.monotonic()
    await generated(engine, request)
    assert time.monotonic() - started >= 20 / 200


async def test_a_late_consumer_gets_larger_chunks() -> None:
    engine = Scripted(Script(answer_tokens=200, tokens_per_second=2000))
    request = await asked(engine)
    whole, _ = await generated(Scripted(Script(answer_tokens=200)), request)
    items = engine.generate(request, Emitted())
    first = await anext(items)
    time.sleep(0.05)  # noqa: ASYNC251 - the consumer itself is what is slow here
    second = await anext(items)
    assert isinstance(first, Chunk)
    assert isinstance(second, Chunk)
    assert second.tokens >= 90
    rest = [item async for item in items]
    chunks = [item for item in (first, second, *rest) if isinstance(item, Chunk)]
    assert text_of(chunks) == text_of(whole)


async def test_reading_the_prompt_is_shown() -> None:
    engine = Scripted(Script(answer="x", prefill_tokens_per_second=10_000))
    request = await asked(engine, "word " * 100)
    shares = [item.share async for item in engine.generate(request, Emitted()) if isinstance(item, Progress)]
    assert shares == sorted(shares)
    assert shares[-1] == 1


async def test_loading_is_shown_and_waited_for() -> None:
    engine = Scripted(Script(load_seconds=0.2))
    with pytest.raises(EngineLost):
        engine.describe()
    seen = [engine.status]
    while seen[-1].phase is not Phase.READY:
        seen.append(await engine.status_after(seen[-1]))
    shares = [status.share for status in seen if status.share is not None]
    assert len(shares) > 2
    assert shares == sorted(shares)
    assert engine.describe().slots == 256


async def test_the_end_of_the_engine_is_a_status() -> None:
    engine = Scripted()
    waiting = asyncio.create_task(engine.status_after(engine.status))
    await asyncio.sleep(0)
    await engine.aclose()
    assert (await waiting).phase is Phase.GIVEN_UP


async def test_a_thousand_answers_at_once_cost_no_thread_and_starve_nobody() -> None:
    engine = Scripted(Script(answer_tokens=30, tokens_per_second=60, slots=1000))
    request = await asked(engine)
    most, threads = 0, threading.active_count()

    async def one() -> float:
        nonlocal most
        async for item in engine.generate(request, Emitted()):
            most = max(most, engine.active)
            if isinstance(item, Finish):
                return item.timings["decode_seconds"]
        raise AssertionError("no Finish came")

    seconds = await asyncio.gather(*(one() for _ in range(1000)))
    assert most == 1000
    assert threading.active_count() == threads
    assert engine.active == 0
    assert max(seconds) < 10 * min(seconds)


# Its failures


async def test_only_the_named_prompt_fails() -> None:
    engine = Scripted(Script(fail_on="bad"))
    with pytest.raises(EngineFailed) as failed:
        await generated(engine, await asked(engine, "a bad one"))
    assert failed.value.code == "scripted_failure"
    assert engine.active == 0
    chunks, _ = await generated(engine, await asked(engine, "a good one"))
    assert chunks


async def test_a_stalled_answer_holds_its_slot_until_it_is_closed() -> None:
    engine = Scripted(Script(stall_on="stall", slots=1))
    task = asyncio.create_task(generated(engine, await asked(engine, "stall")))
    await becomes_active(engine)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.active == 0
    task = asyncio.create_task(generated(engine, await asked(engine, "stall")))
    await becomes_active(engine)
    await engine.aclose()
    with pytest.raises(EngineLost):
        await task


async def becomes_active(engine: Scripted) -> None:
    while not engine.active:  # noqa: ASYNC110
        await asyncio.sleep(0)


ALONE = """
import asyncio, sys
from inkstream.engines import Chunk, Emitted, Message, Request, Sampling
from inkstream.engines.scripted import Script, Scripted

async def main():
    engine = Scripted(Script.parse(sys.argv[1]))
    prompt = await engine.render([Message("user", sys.argv[2])])
    async for item in engine.generate(Request("r", prompt, Sampling(temperature=0.7, seed=7)), Emitted()):
        if isinstance(item, Chunk):
            sys.stdout.buffer.write(item.text.encode())
            sys.stdout.buffer.flush()

asyncio.run(main())
"""


def run_alone(script: str, content: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", ALONE, script, content], stdout=subprocess.PIPE, check=False)


@pytest.fixture
async def undisturbed(anyio_backend: str) -> list[Chunk]:
    engine = Scripted(Script(answer_tokens=50))
    return (await generated(engine, await asked(engine, "a 💥 prompt")))[0]


def test_a_crash_takes_the_process_before_the_first_token() -> None:
    crashed = run_alone('{"crash_on": "💥"}', "a 💥 prompt")
    assert crashed.returncode == CRASHED
    assert crashed.stdout == b""


async def test_a_crash_comes_behind_the_token_it_is_told(undisturbed: list[Chunk]) -> None:
    crashed = run_alone('{"crash_on": "💥", "crash_after_tokens": 7, "answer_tokens": 50}', "a 💥 prompt")
    assert crashed.returncode == CRASHED
    assert crashed.stdout.decode() == text_of(undisturbed[:7])


def test_other_prompts_do_not_crash() -> None:
    assert run_alone('{"crash_on": "💥"}', "a calm prompt").returncode == 0
    assert run_alone('{"crash_after_tokens": 7}', "any prompt").returncode == CRASHED
