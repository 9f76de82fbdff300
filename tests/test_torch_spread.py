"""A model over several GPUs: who has which layer, and what is refused. What only two GPUs can show is in
``test_torch_gpu``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM  # noqa: E402 - without torch there is nothing to import

from inkstream.engines.torch import device as devices  # noqa: E402
from inkstream.engines.torch import memory  # noqa: E402
from inkstream.engines.torch.cache import PAGE  # noqa: E402
from inkstream.engines.torch.device import pages_that_fit, spread_over  # noqa: E402
from inkstream.engines.torch.drafting import Drafting  # noqa: E402
from inkstream.engines.torch.forward import Layer, Weights  # noqa: E402
from inkstream.engines.torch.memory import require_room  # noqa: E402
from inkstream.engines.torch.model import spread, take_weights  # noqa: E402
from inkstream.engines.torch.rules import Rules  # noqa: E402
from inkstream.engines.torch.runner import PlainRunner  # noqa: E402
from inkstream.engines.torch.weighing import Demand, Numbers  # noqa: E402
from inkstream.errors import ModelError  # noqa: E402
from tests.torch_driving import answers, sequences_of  # noqa: E402

pytestmark = pytest.mark.real
FIRST, SECOND, THIRD = (torch.device("cuda", index) for index in range(3))
GIB = 1 << 30


@pytest.fixture(scope="module")
def weights(qwen2_checkpoint: Path) -> Weights:
    model = AutoModelForCausalLM.from_pretrained(qwen2_checkpoint, dtype=torch.float32)
    return take_weights(model, torch.device("cpu"))


@pytest.mark.parametrize(
    ("free", "layers", "expected"),
    [
        ((8,), 5, [5]),
        ((8, 8), 24, [12, 12]),
        ((6, 8, 8), 22, [6, 8, 8]),
        ((0, 8), 3, [0, 3]),
        ((1, 1, 1), 4, [1, 2, 1]),
        ((0, 0), 2, [0, 2]),
    ],
)
def test_each_device_has_layers_in_order_and_by_its_free_memory(
    free: tuple[int, ...], layers: int, expected: list[int]
) -> None:
    places = [torch.device("cuda", index) for index in range(len(free))]
    homes = spread(list(zip(places, free, strict=True)), layers)
    assert homes == sorted(homes, key=lambda home: home.index)
    assert [homes.count(place) for place in places] == expected


@pytest.mark.parametrize(
    ("device", "wanted", "needed", "expected"),
    [
        ("cuda", "auto", 8 * GIB, 1),
        ("cuda", "auto", 9 * GIB, 3),
        ("cuda", "cuda", 90 * GIB, 3),
        ("cuda:1", "cuda:1", 90 * GIB, 1),
        ("cpu", "auto", 90 * GIB, 1),
    ],
)
def test_all_gpus_are_taken_where_one_does_not_hold_the_weights_and_none_was_named(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: str, needed: int, expected: int
) -> None:
    monkeypatch.setattr(devices, "free_bytes", lambda _: 10 * GIB)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert len(spread_over(torch.device(device), wanted, needed)) == expected


def test_what_fits_into_none_and_not_into_all_is_refused_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10_000_000_000)
    demand = Demand(Numbers((), 16_000_000_000, 0, False), 2, "", is_on_gpu=True)
    devices = (FIRST, SECOND, THIRD)
    with pytest.raises(ModelError, match=r"needs 32\.0 GB .* cuda:0 and 2 more has 30\.0 GB") as refused:
        require_room("large", demand, devices)
    assert refused.value.code == "model_too_large"
    require_room("small", replace(demand, numbers=Numbers((), 14_000_000_000, 0, False)), devices)


def test_the_cache_is_as_long_as_the_fullest_device_allows(
    monkeypatch: pytest.MonkeyPatch, weights: Weights
) -> None:
    each = weights.shape.cache_bytes(weights.dtype) // weights.shape.layers
    monkeypatch.setattr(Weights, "layers_on", {FIRST: 1, SECOND: 1, weights.device: 0})
    tokens = {FIRST: 4096, SECOND: 640}
    monkeypatch.setattr(devices, "free_bytes", lambda of: tokens[of] * each / devices.CPU_SHARE)
    assert pages_that_fit(weights, 10_000) == 640 // PAGE + 1
    assert pages_that_fit(weights, 320) == 320 // PAGE + 1
    tokens[FIRST] = 100
    with pytest.raises(ModelError, match="256 are the least"):
        pages_that_fit(weights, 10_000)


def test_what_drafts_is_where_the_first_layers_are(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    own = weights.shape.cache_bytes(weights.dtype)
    monkeypatch.setattr(devices, "free_bytes", lambda _: 1000 * own / devices.CPU_SHARE)
    assert pages_that_fit(weights, 10_000) == 1000 // PAGE + 1
    assert pages_that_fit(weights, 10_000, Drafting("itself", weights)) == 500 // PAGE + 1


def test_stage_by_stage_it_says_what_it_says_at_once(
    monkeypatch: pytest.MonkeyPatch, weights: Weights
) -> None:
    def said() -> list[list[int]]:
        rules = [Rules(), Rules(temperature=0.8, seed=4, repetition=1.1)]
        asked = sequences_of(rules, (20, 70), 150_000, new=30)
        return [answer.ids for answer in answers(PlainRunner(weights, (17,), 2, 40), asked, 40, 2)]

    whole = said()
    stages: list[Any] = [(weights.device, [index]) for index in range(len(weights.layers))]
    monkeypatch.setattr(Weights, "stages", lambda _: iter(stages))
    assert said() == whole
    assert len({*whole[0], *whole[1]}) > 30


def test_layers_that_follow_each_other_on_one_device_are_one_stage(
    monkeypatch: pytest.MonkeyPatch, weights: Weights
) -> None:
    layers = tuple(replace(weights.layers[0]) for _ in range(4))
    homes = dict(zip(map(id, layers), (FIRST, FIRST, SECOND, SECOND), strict=True))
    monkeypatch.setattr(Layer, "device", property(lambda layer: homes[id(layer)]))
    spread_out = replace(weights, layers=layers)
    assert list(spread_out.stages()) == [(FIRST, [0, 1]), (SECOND, [2, 3])]
    assert spread_out.layers_on == {weights.device: 0, FIRST: 2, SECOND: 2}
