"""Guessing ahead changes only the time: what is written is what a plain loop writes, token for token."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM  # noqa: E402 - without torch there is nothing to import for

from inkstream.engines import Emitted  # noqa: E402
from inkstream.engines.torch.runner import PlainRunner  # noqa: E402
from inkstream.engines.torch.speculation import WIDTH, Gate, lookup  # noqa: E402
from inkstream.errors import ModelError  # noqa: E402
from tests.test_torch import GREEDY, SAMPLINGS, Heard, ask, assert_same, ids_of, opened, request_of  # noqa: E402
from tests.tiny_models import tokenizer, write_checkpoint  # noqa: E402
from tests.torch_reference import Reference  # noqa: E402

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def drafts_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that steps speculate whatever this machine measures."""
    monkeypatch.setattr(PlainRunner, "seconds", lambda self, rows, width: 1.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wanders")
    write_checkpoint(folder, "qwen2")
    return folder


@pytest.fixture(scope="module")
def small(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says what the checkpoint says, most of the time."""
    return changed(checkpoint, tmp_path_factory.mktemp("small"), noise=0.03)


@pytest.fixture(scope="module")
def circling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of few tokens in which one leads to the other: its likeliest answer repeats itself soon."""
    folder = tmp_path_factory.mktemp("circles")
    write_checkpoint(folder, "llama")
    return changed(folder, tmp_path_factory.mktemp("circling"), layers=0.0, tokens=range(1000, 1060))


def changed(
    source: Path, folder: Path, noise: float = 0.0, layers: float = 1.0, tokens: range | None = None
) -> Path:
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.model.layers.named_parameters():
            weight.add_(torch.randn_like(weight) * noise * weight.std())
            if "o_proj" in name or "down_proj" in name:
                weight.mul_(layers)
        if tokens is not None:
            kept = model.lm_head.weight[tokens.start : tokens.stop].clone()
            model.lm_head.weight.zero_()[tokens.start : tokens.stop] = kept
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


SHORT = {name: replace(sampling, max_tokens=36) for name, sampling in SAMPLINGS.items()}


@pytest.mark.parametrize("kind", ["ngram", "draft"])
async def test_alone_and_in_a_mixed_batch_it_says_what_a_plain_loop_says(
    checkpoint: Path, small: Path, reference: Reference, kind: str
) -> None:
    prompts = [ids_of(length, seed=length) * 2 for length in (1, 17, 40, 64, 150, 90)]
    requests = [request_of(p, s) for p, s in zip(prompts, SHORT.values(), strict=True)]
    drafts = {"ngram": True} if kind == "ngram" else {"draft_model": small}
    async with opened(checkpoint, **drafts) as engine:
        alone = [await ask(engine, request) for request in requests[::2]]
        together = await asyncio.gather(*(ask(engine, request) for request in requests))
        drafted, accepted = engine.drafted
    for heard, request in zip(alone + together, requests[::2] + requests, strict=True):
        assert_same(heard, reference.generate(request.prompt.payload, request.sampling))
    assert drafted > accepted
    if kind == "draft":
        assert 0.2 < accepted / drafted < 0.98, "both right and wrong drafts must have been there"


async def test_a_text_that_repeats_itself_is_guessed(circling: Path) -> None:
    request = request_of(ids_of(20, seed=1), replace(GREEDY, max_tokens=150))
    async with opened(circling, ngram=True) as engine:
        heard = await ask(engine, request)
    assert_same(heard, Reference(circling).generate(request.prompt.payload, request.sampling))
    assert heard.finish is not None
    assert heard.finish.timings["accepted_share"] > 0.5
    assert heard.finish.timings["drafted_tokens"] > 60


@pytest.mark.parametrize("name", ["greedy with penalties", "as Qwen2 recommends"])
async def test_cut_anywhere_it_ends_with_the_same_text(
    checkpoint: Path, small: Path, reference: Reference, name: str
) -> None:
    sampling = replace(SHORT[name], logprobs=True, top_logprobs=2)
    request = request_of(ids_of(40, seed=1), sampling)
    async with opened(checkpoint, draft_model=small) as engine:
        whole = await ask(engine, request)
        assert_same(whole, reference.generate(request.prompt.payload, SHORT[name]))
        for cut in range(0, len(whole.all_chunks) + 1, 4):
            before = whole.all_chunks[:cut]
            ids = tuple(id for chunk in before for id in chunk.ids or ())
            emitted = Emitted("".join(chunk.text for chunk in before), ids, len(ids))
            rest = await ask(engine, request, emitted)
            assert emitted.text + rest.text == whole.text
            told = [each for chunk in before for each in chunk.logprobs or ()] + logprobs_of(rest)
            assert [each["token"] for each in told] == [each["token"] for each in logprobs_of(whole)]
            for one, other in zip(told, logprobs_of(whole), strict=True):
                assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)


def logprobs_of(heard: Heard) -> list[dict[str, object]]:
    return [each for chunk in heard.all_chunks for each in chunk.logprobs or ()]


async def test_who_gives_up_its_pages_loses_nothing(
    checkpoint: Path, small: Path, reference: Reference
) -> None:
    prompts = [ids_of(30, seed=seed) for seed in range(4)]
    async with opened(checkpoint, cache_tokens=192, context=160, draft_model=small) as engine:
        requests = [request_of(p, s) for p, s in zip(prompts, SHORT.values(), strict=False)]
        together = await asyncio.gather(*(ask(engine, request) for request in requests))
        assert engine.preemptions > 0
        assert engine.drafted[1] > 0
    for heard, request in zip(together, requests, strict=True):
        assert_same(heard, reference.generate(request.prompt.payload, request.sampling))


async def test_a_stop_string_among_accepted_drafts_ends_the_answer(checkpoint: Path) -> None:
    request = request_of(ids_of(40, seed=1), GREEDY)
    async with opened(checkpoint, draft_model=checkpoint) as engine:
        whole = (await ask(engine, request)).text
        for at in range(3, len(whole) - 3, 29):
            stop = whole[at : at + 3]
            got = await ask(engine, replace(request, sampling=replace(GREEDY, stop=(stop,))))
            assert got.text == whole[: whole.index(stop)]
        drafted, accepted = engine.drafted
    assert accepted == drafted > 60, "the same model guesses right"


async def test_a_budget_ends_the_answer_within_a_draft(checkpoint: Path, reference: Reference) -> None:
    prompt = ids_of(40, seed=1)
    async with opened(checkpoint, draft_model=checkpoint) as engine:
        for limit in range(1, 11):
            heard = await ask(engine, request_of(prompt, replace(GREEDY, max_tokens=limit)))
            assert heard.finish is not None
            assert (heard.finish.completion_tokens, heard.finish.reason) == (limit, "length")
            assert heard.ids == reference.generate(prompt, GREEDY)[: len(heard.ids)]


async def test_a_model_of_another_vocabulary_cannot_draft(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_checkpoint(other, "qwen2")
    described = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(described.replace("<|im_end|>", "<|end_of_it|>"))
    with pytest.raises(ModelError, match="vocabularies differ"):
        async with opened(checkpoint, draft_model=other):
            pass


# Lookup


def test_lookup_goes_on_as_the_text_did_behind_its_latest_like_place() -> None:
    assert lookup([1, 2, 3, 4, 5, 9, 1, 2, 3], 3) == [4, 5, 9]
    assert lookup([1, 2, 3, 4, 7, 2, 3, 5, 7, 2, 3], 2) == [5, 7], "the latest of equally long ones"
    assert lookup([1, 2, 3, 4, 7, 2, 3, 5, 1, 2, 3], 2) == [4, 7], "longer ones first"
    assert lookup([1, 2, 3, 4], 3) == []
    assert lookup([3, 9, 3], 3) == [], "one token alone says too little"
    assert lookup([], 3) == lookup([7], 3) == []


def test_lookup_takes_a_circle_to_go_on() -> None:
    assert lookup([5, 5, 5], 4) == [5, 5, 5, 5]
    assert lookup([1, 8, 9, 8, 9], 5) == [8, 9, 8, 9, 8]


def test_lookup_finds_what_a_search_by_definition_finds() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        ids = [draw.randrange(4) for _ in range(draw.randrange(2, 60))]
        assert lookup(ids, 5) == by_definition(ids, 5), f"seed {seed}"


def by_definition(ids: list[int], most: int) -> list[int]:
    for length in (3, 2):
        places = [end for end in range(length, len(ids)) if ids[end - length : end] == ids[-length:]]
        if places and len(ids) >= length:
            period = len(ids) - places[-1]
            whole = list(ids)
            while len(whole) < len(ids) + most:
                whole.append(whole[-period])
            return whole[len(ids) :]
    return []


# Gate


def costs(rows: int, width: int) -> float:
    """Reading the weights, and then each token: eight of them cost twice as much as one."""
    return 7.0 + rows * width


def opinions(gate: Gate, rows: int, steps: int) -> Iterator[bool]:
    return (gate.width(rows) > 1 for _ in range(steps))


def test_many_rows_shut_the_gate_and_few_open_it_again() -> None:
    gate = Gate(WIDTH, costs)
    for _ in range(50):
        gate.learn(10, 30)
    assert all(opinions(gate, 1, 10))
    assert sum(opinions(gate, 64, 300)) <= 2
    assert all(opinions(gate, 1, 10))


def test_bad_drafts_shut_the_gate_and_a_probe_opens_it_when_they_are_good_again() -> None:
    gate = Gate(WIDTH, costs)
    for _ in range(50):
        gate.learn(10, 11)
    tried = list(opinions(gate, 8, 500))
    assert sum(tried) >= 2, "it looks again now and then"
    assert sum(tried) * (costs(8, WIDTH) / costs(8, 1) - 1) <= 0.05 * 500, "which costs next to nothing"
    for _ in range(50):
        gate.learn(10, 75)
    assert all(opinions(gate, 8, 10))


def test_between_worth_it_and_not_the_gate_stays_as_it_is() -> None:
    gate = Gate(WIDTH, lambda rows, width: float(width) if rows == 1 else width / 2)
    for _ in range(50):
        gate.learn(20, 20 * WIDTH)
    assert gate.gain(1) == pytest.approx(1.0, abs=0.01)
    assert all(opinions(gate, 1, 5))
    for _ in range(50):
        gate.learn(20, 34)
    assert not any(opinions(gate, 1, 5))
    for _ in range(50):
        gate.learn(20, 20 * WIDTH)
    assert not any(opinions(gate, 1, 5))


def test_a_batch_without_room_for_drafts_has_none() -> None:
    gate = Gate(WIDTH, lambda rows, width: math.inf if rows > 128 and width > 1 else 1.0)
    assert all(opinions(gate, 128, 3))
    assert not any(opinions(gate, 129, 1000))
    assert all(opinions(gate, 128, 3))


async def test_the_engine_says_what_it_speculates_with(checkpoint: Path, small: Path) -> None:
    for drafts, name in (({}, None), ({"ngram": True}, "ngram"), ({"draft_model": small}, small.name)):
        async with opened(checkpoint, **drafts) as engine:
            assert engine.describe().speculation == name


async def test_sampling_of_others_is_not_disturbed_by_who_asks_for_logprobs(checkpoint: Path) -> None:
    plain = [request_of(ids_of(20 + at, seed=at), s) for at, s in enumerate(SHORT.values())]
    asking = [
        replace(r, sampling=replace(r.sampling, logprobs=True, top_logprobs=at)) for at, r in enumerate(plain)
    ]
    async with opened(checkpoint, ngram=True) as engine:
        expected = [await ask(engine, request) for request in plain]
        told = await asyncio.gather(*(ask(engine, request) for request in asking))
    for at, (heard, alone) in enumerate(zip(told, expected, strict=True)):
        assert heard.text == alone.text
        assert [len(each["top_logprobs"]) for each in logprobs_of(heard)] == [at] * len(heard.ids)  # type: ignore[arg-type]  # JSON
