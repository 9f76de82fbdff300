"""On a GPU: the kernels and graphs say, in float32, what plain torch says. Skipped where there is no GPU."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

from transformers import AutoModelForCausalLM  # noqa: E402 - without torch there is nothing to import

from inkstream.engines.torch import device as devices  # noqa: E402
from inkstream.engines.torch.drafting import Drafting  # noqa: E402
from inkstream.engines.torch.forward import Linear  # noqa: E402
from inkstream.engines.torch.graphs import GraphRunner, Options  # noqa: E402
from inkstream.engines.torch.kernels import FusedOperations  # noqa: E402
from inkstream.engines.torch.model import take_weights  # noqa: E402
from inkstream.engines.torch.quantized import quantizer  # noqa: E402
from inkstream.engines.torch.rules import Kind, Rules  # noqa: E402
from inkstream.engines.torch.runner import PlainRunner  # noqa: E402
from inkstream.engines.torch.scheduler import Sequence  # noqa: E402
from tests.test_torch import GREEDY, ask, ids_of, opened, request_of  # noqa: E402
from tests.tiny_models import ARCHITECTURES, POSITIONS, write_checkpoint  # noqa: E402
from tests.torch_driving import Answer, answers, sequences_of  # noqa: E402

SEATS, STOPS = 6, (17,)
RULES = [
    Rules(),
    Rules(repetition=1.2, presence=0.4, frequency=0.3, likeliest=3),
    Rules(temperature=1.0, seed=11),
    Rules(temperature=0.7, top_k=20, top_p=0.8, repetition=1.05, seed=2**63 + 5),
    Rules(temperature=1.5, top_k=64, min_p=0.05, seed=-7),
    Rules(temperature=1.1, top_p=0.9, presence=0.5, seed=3, likeliest=0),
    Rules(temperature=0.9, bias=((99, 5.0),), seed=8),
    Rules(min_length=400),
    Rules(presence=-30.0),  # goes in circles, so that there is something to look up
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder, request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return take_weights(model, torch.device("cuda"))


LENGTHS = (1, 15, 16, 17, 70, 300, 130, 40, 25)


def sequences() -> list[Sequence]:
    return sequences_of([replace(rules) for rules in RULES], LENGTHS, 150_000, new=60)


@pytest.mark.parametrize("pages", [80, 45], ids=["room for all", "pages run out"])
@pytest.mark.parametrize("few_rows", [0, 8], ids=["cuBLAS", "products"])
def test_graphs_say_what_plain_torch_says(weights: Any, few_rows: int, pages: int) -> None:
    options = Options(operations=FusedOperations(few_rows))
    captured = answers(
        GraphRunner(weights, STOPS, SEATS, pages, POSITIONS, options), sequences(), pages, SEATS
    )
    plain = answers(PlainRunner(weights, STOPS, SEATS, pages), sequences(), pages, SEATS)
    assert_alike(captured, plain)
    for answer, rules in zip(plain, RULES, strict=True):
        assert len(set(answer.ids)) >= 20 or rules.presence < 0


@pytest.mark.parametrize("pages", [120, 60], ids=["room for all", "pages run out"])
@pytest.mark.parametrize("kind", ["ngram", "draft", "another draft"])
def test_graphs_that_speculate_say_what_plain_torch_says(weights: Any, kind: str, pages: int) -> None:
    small = {"ngram": None, "draft": weights, "another draft": blurred(weights)}[kind]
    options = Options(drafting=Drafting(kind, small))
    captured = answers(
        GraphRunner(weights, STOPS, SEATS, pages, POSITIONS, options), sequences(), pages, SEATS
    )
    assert_alike(captured, answers(PlainRunner(weights, STOPS, SEATS, pages), sequences(), pages, SEATS))
    drafted, accepted = (sum(getattr(each, name) for each in captured) for name in ("drafted", "accepted"))
    assert drafted > 0
    if kind == "draft":
        assert accepted / drafted > 0.8, "the same model guesses right"
    sorted_rows = [
        each.drafted for each, rules in zip(captured, RULES, strict=True) if rules.kind is Kind.WIDE
    ]
    assert sorted_rows == [0] * len(sorted_rows) != []


def blurred(weights: Any) -> Any:
    """A model that says nearly the same."""
    torch.manual_seed(3)
    head = weights.head.weight
    return replace(weights, head=Linear(head + 0.1 * head.std() * torch.randn_like(head)))


def assert_alike(some: list[Answer], others: list[Answer]) -> None:
    assert [each.ids for each in some] == [each.ids for each in others]
    for one, other in zip(some, others, strict=True):
        assert len(one.likelihoods) == len(other.likelihoods)
        for (own, best), (their_own, their_best) in zip(one.likelihoods, other.likelihoods, strict=True):
            assert own == pytest.approx(their_own, abs=1e-3)
            assert len(best) == len(their_best)


two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="here is one GPU")


@two_gpus
@pytest.mark.parametrize("kind", ["", "ngram", "draft"])
def test_layers_on_two_gpus_say_what_one_says(weights: Any, kind: str) -> None:
    apart = spread_out(weights)
    assert list(apart.layers_on.values()) == [1, 1]
    small = {"": None, "ngram": Drafting("ngram"), "draft": Drafting("itself", weights)}[kind]
    options = Options(drafting=small)
    captured = answers(GraphRunner(apart, STOPS, SEATS, 120, POSITIONS, options), sequences(), 120, SEATS)
    assert_alike(captured, answers(PlainRunner(weights, STOPS, SEATS, 120), sequences(), 120, SEATS))


def spread_out(weights: Any) -> Any:
    """The second half of the layers on the second GPU."""
    second, half = torch.device("cuda:1"), len(weights.layers) // 2

    def moved(part: Any) -> Any:
        if isinstance(part, Linear):
            return Linear(part.weight.to(second), None if part.bias is None else part.bias.to(second))
        return None if part is None else part.to(second)

    away = [
        replace(layer, **{field.name: moved(getattr(layer, field.name)) for field in fields(layer)})
        for layer in weights.layers[half:]
    ]
    return replace(weights, layers=(*weights.layers[:half], *away))


@two_gpus
@pytest.mark.parametrize("device", ["cuda:1", "auto"])
def test_an_engine_computes_on_the_gpu_it_is_told_and_spreads_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    async def said(device: str) -> tuple[list[int], list[int]]:
        async with opened(tmp_path, device=device, dtype="float32") as engine:
            heard = await ask(engine, request_of(ids_of(40, seed=1), GREEDY))
            return heard.ids, list(engine._ready().model.weights.layers_on.values())

    write_checkpoint(tmp_path, "qwen2")
    whole, _ = asyncio.run(said("cuda:0"))
    monkeypatch.setattr(devices, "FULL_SHARE", 0.0)  # nothing fits into one
    assert asyncio.run(said(device)) == (whole, [1, 1] if device == "auto" else [2])


# The tiny model's matrices are too narrow for the kernel that real ones get.
@pytest.mark.filterwarnings("ignore:inner dimension:UserWarning")
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_products_are_captured(tmp_path: Path, quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    write_checkpoint(tmp_path, "qwen2")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    gpu = torch.device("cuda")
    small = take_weights(model, gpu, quantize=quantizer(quantization, gpu))
    captured = GraphRunner(small, STOPS, SEATS, 80, POSITIONS)
    eager = GraphRunner(small, STOPS, SEATS, 80, POSITIONS, Options(captures=False))
    assert answers(captured, sequences(), 80, SEATS) == answers(eager, sequences(), 80, SEATS)
