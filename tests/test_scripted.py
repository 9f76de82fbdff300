"""What only the scripted engine promises. The rest is in ``test_engines``."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from inkstream import engines
from inkstream.config import Settings
from inkstream.engines import Chunk, Emitted, Message, Phase, Progress, Request, Sampling
from inkstream.engines.scripted import CRASHED, Script, Scripted
from inkstream.engines.speech import THINKING
from inkstream.errors import ConfigError, EngineFailed, EngineLost
from tests.calls import Call, answered, text_of

DRAWN = Sampling(temperature=0.7, seed=7)


async def asked(engine: Scripted, content: str = "hello", sampling: Sampling = DRAWN) -> Request:
    return Request("r", await engine.render([Message("user", content)]), sampling)


# The script


def test_an_empty_script_is_the_default() -> None:
    assert Script.parse("") == Script.parse("{}") == Script()


def test_every_field_can_be_given() -> None:
    fields: dict[str, Any] = {
        "answer": "你好",
        "answer_tokens": 9,
        "think": True,
        "tokens_per_second": 50,
        "in_step": False,
        "tokens_per_chunk": 7,
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
        ('{"tokens_per_chunk": 0}', "at least 1"),
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
        chunks, finish = await answered(engine, await asked(engine))
    assert text_of(chunks) == "Hello, 世界"
    assert finish.reason == "stop"


# What it says


async def test_an_answer_is_a_function_of_prompt_and_seed() -> None:
    async def said(content: str, sampling: Sampling) -> str:
        engine = Scripted()
        return text_of((await answered(engine, await asked(engine, content, sampling)))[0])

    assert await said("a", DRAWN) == await said("a", DRAWN)
    assert await said("a", DRAWN) != await said("b", DRAWN)
    assert await said("a", DRAWN) != await said("a", replace(DRAWN, seed=8))
    greedy = replace(DRAWN, temperature=0.0)
    assert await said("a", greedy) == await said("a", replace(greedy, seed=8))


async def test_another_process_says_the_same() -> None:
    engine = Scripted()
    chunks, _ = await answered(engine, await asked(engine))
    assert run_alone("{}", "hello").stdout.decode() == text_of(chunks)


async def test_an_answer_has_all_that_is_hard_to_stream() -> None:
    engine = Scripted(Script(answer_tokens=2000, tokens_per_chunk=1))
    chunks, finish = await answered(engine, await asked(engine))
    text = text_of(chunks)
    for hard in ("墨水", "👩‍👩‍👧‍👦", "```python\n", "\u2028", "\u0085", "\n\n", "𠮷", "<b>"):
        assert hard in text
    assert any(chunk.text.endswith("\u200d") for chunk in chunks), "no emoji is cut between its parts"
    assert finish.completion_tokens == len(chunks) == 2000
    assert all(1 <= len(chunk.text) <= 4 for chunk in chunks)


async def test_thinking_comes_first() -> None:
    engine = Scripted(Script(answer="Hi", think=True))
    chunks, _ = await answered(engine, await asked(engine))
    assert text_of(chunks) == THINKING + "Hi"


async def test_ids_spell_the_text() -> None:
    engine = Scripted()
    chunks, _ = await answered(engine, await asked(engine))
    for chunk in chunks:
        assert chunk.ids
        assert "".join(map(engine.speech.piece, chunk.ids)) == chunk.text


async def test_held_back_text_is_beyond_the_emitted_ids() -> None:
    """A chunk's last token may be half held back as a possible stop string; its other half comes next."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    answer = "".join(draw.choice("abc") for _ in range(300))
    engine = Scripted(Script(answer=answer, tokens_per_chunk=1))
    stops = tuple("".join(draw.choice("abc") for _ in range(6)) for _ in range(4))
    request = await asked(engine, sampling=replace(DRAWN, stop=stops))
    chunks, finish = await answered(engine, request)
    ends = [answer.find(stop) for stop in stops if stop in answer]
    assert text_of(chunks) == answer[: min(ends, default=len(answer))]
    for cut in range(len(chunks) + 1):
        ids = tuple(id for chunk in chunks[:cut] for id in chunk.ids or ())
        emitted = Emitted(text_of(chunks[:cut]), ids, len(ids))
        rest, again = await answered(engine, request, emitted)
        assert emitted.text + text_of(rest) == text_of(chunks)
        assert again.completion_tokens == finish.completion_tokens


async def test_ids_that_do_not_spell_the_text_are_refused() -> None:
    engine = Scripted()
    request = await asked(engine)
    for ids in ((1, 2, 3), (10**9,), (-1,)):
        with pytest.raises(EngineFailed) as refused:
            await answered(engine, request, Emitted("other text", ids, len(ids)))
        assert refused.value.code == "bad_seam"


async def test_it_can_be_told_not_to_go_on() -> None:
    engine = Scripted(Script(continues="no"))
    request = await asked(engine)
    assert not engine.describe().exact_seam
    with pytest.raises(EngineFailed) as refused:
        await answered(engine, request, Emitted("x", None, 1))
    assert refused.value.code == "cannot_continue"


# Its pace


async def test_it_keeps_the_pace() -> None:
    engine = Scripted(Script(answer_tokens=20, tokens_per_second=200))
    request = await asked(engine)
    started = time.monotonic()
    await answered(engine, request)
    assert time.monotonic() - started >= 20 / 200


async def test_who_comes_late_gets_larger_chunks() -> None:
    engine = Scripted(Script(answer_tokens=200, tokens_per_second=2000))
    request = await asked(engine)
    whole, _ = await answered(Scripted(Script(answer_tokens=200)), request)
    call = Call(engine, request)
    await call.until(1)
    time.sleep(0.05)  # noqa: ASYNC251 - the event loop itself is what is slow here
    await call.finish()
    assert max(chunk.tokens for chunk in call.chunks) >= 90
    assert call.text == text_of(whole)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("in_step", [True, False])
def test_answers_of_a_pace_get_their_tokens_together_unless_told_otherwise(loop: str, in_step: bool) -> None:
    """Together is: within one turn of the event loop."""

    async def turns() -> list[set[int]]:
        """Which of the answers were given something, in each turn in which any was."""
        seen: list[set[int]] = []
        engine = Scripted(Script(answer_tokens=60, tokens_per_second=100, in_step=in_step))
        request = await asked(engine)

        def give(number: int) -> None:
            if not seen or not is_same_turn:
                next_turn()
            seen[-1].add(number)

        is_same_turn: list[None] = []

        def next_turn() -> None:
            seen.append(set())
            is_same_turn.append(None)
            asyncio.get_running_loop().call_soon(is_same_turn.clear)

        async def late(number: int) -> None:
            await asyncio.sleep(number * 0.003)
            await engine.generate(request, Emitted(), lambda _: give(number))

        await asyncio.gather(*map(late, range(5)))
        return seen

    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        seen = runner.run(turns())
    partial = [turn for turn in seen if len(turn) < 5]  # in step: while they begin, and while they end
    assert len(partial) <= 10 if in_step else len(partial) > 10


async def test_an_unpaced_answer_leaves_the_event_loop_to_others() -> None:
    engine = Scripted(Script(answer_tokens=10_000_000, context=20_000_000))
    request = await asked(engine)
    endless, other = Call(engine, request), Call(engine, request)
    for _ in range(20):
        await endless.more()
    await endless.cancel()
    taken = len(other.items)
    short = replace(request, sampling=replace(DRAWN, max_tokens=100))
    chunks, _ = await answered(engine, short)
    assert sum(chunk.tokens for chunk in chunks) == 100
    assert len(other.items) > taken
    await other.cancel()
    assert engine.active == 0
    assert sum(chunk.tokens for chunk in other.chunks) < 1_000_000


async def test_an_unpaced_chunk_has_as_many_tokens_as_told() -> None:
    engine = Scripted(Script(answer_tokens=100, tokens_per_chunk=30))
    chunks, finish = await answered(engine, await asked(engine))
    assert [chunk.tokens for chunk in chunks] == [30, 30, 30, 10]
    assert finish.last == chunks[-1]


async def test_the_last_token_comes_with_the_end() -> None:
    engine = Scripted(Script(answer_tokens=5, tokens_per_second=500))
    call = Call(engine, await asked(engine))
    finish = await call.finish()
    assert finish.last is not None
    assert len(call.items) == len(call.chunks) - 1


async def test_reading_the_prompt_is_shown() -> None:
    engine = Scripted(Script(answer="x", prefill_tokens_per_second=10_000))
    call = Call(engine, await asked(engine, "word " * 100))
    await call.finish()
    shares = [item.share for item in call.items if isinstance(item, Progress)]
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
    engine = Scripted(Script(answer_tokens=120, tokens_per_second=60, slots=1000))
    request = await asked(engine)
    threads = threading.active_count()
    calls = [Call(engine, request) for _ in range(1000)]
    await calls[-1].until_chunk()
    assert engine.active == 1000
    seconds = [(await call.finish()).timings["decode_seconds"] for call in calls]
    assert threading.active_count() == threads
    assert engine.active == 0
    assert max(seconds) < 10 * min(seconds)


# Its failures


async def test_only_the_named_prompt_fails() -> None:
    engine = Scripted(Script(fail_on="bad"))
    with pytest.raises(EngineFailed) as failed:
        await answered(engine, await asked(engine, "a bad one"))
    assert failed.value.code == "scripted_failure"
    assert engine.active == 0
    chunks, _ = await answered(engine, await asked(engine, "a good one"))
    assert chunks


async def test_a_stalled_answer_holds_its_slot_until_it_is_closed() -> None:
    engine = Scripted(Script(stall_on="stall", slots=1))
    call = Call(engine, await asked(engine, "stall"))
    await becomes_active(engine)
    await call.cancel()
    assert engine.active == 0
    call = Call(engine, await asked(engine, "stall"))
    await becomes_active(engine)
    await engine.aclose()
    with pytest.raises(EngineLost):
        await call.finish()


async def becomes_active(engine: Scripted) -> None:
    while not engine.active:  # noqa: ASYNC110
        await asyncio.sleep(0)


ALONE = """
import asyncio, sys
from inkstream.engines import Emitted, Message, Request, Sampling
from inkstream.engines.scripted import Script, Scripted

def show(chunk):
    sys.stdout.buffer.write(chunk.text.encode())
    sys.stdout.buffer.flush()

async def main():
    engine = Scripted(Script.parse(sys.argv[1]))
    prompt = await engine.render([Message("user", sys.argv[2])])
    sampling = Sampling(temperature=0.7, seed=7)
    finish = await engine.generate(Request("r", prompt, sampling), Emitted(), show)
    if finish.last:
        show(finish.last)

asyncio.run(main())
"""


def run_alone(script: str, content: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", ALONE, script, content], stdout=subprocess.PIPE, check=False)


@pytest.fixture
async def undisturbed(anyio_backend: str) -> list[Chunk]:
    engine = Scripted(Script(answer_tokens=50, tokens_per_chunk=1))
    return (await answered(engine, await asked(engine, "a 💥 prompt")))[0]


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
