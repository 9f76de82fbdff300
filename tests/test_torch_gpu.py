"""On a GPU: the kernels and graphs say, in float32, what plain torch says. Skipped where there is no GPU."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

from transformers import AutoModelForCausalLM  # noqa: E402 - without torch there is nothing to import

from inkstream.engines.torch.cache import Pages  # noqa: E402
from inkstream.engines.torch.graphs import GraphRunner, Options  # noqa: E402
from inkstream.engines.torch.kernels import FusedOperations  # noqa: E402
from inkstream.engines.torch.model import take_weights  # noqa: E402
from inkstream.engines.torch.rules import Rules  # noqa: E402
from inkstream.engines.torch.runner import PlainRunner, Runner  # noqa: E402
from inkstream.engines.torch.scheduler import Scheduler, Sequence  # noqa: E402
from tests.tiny_models import ARCHITECTURES, POSITIONS, write_checkpoint  # noqa: E402

SEATS, STOPS = 6, (17,)
RULES = [
    Rules(),
    Rules(repetition=1.2, presence=0.4, frequency=0.3),
    Rules(temperature=1.0, seed=11),
    Rules(temperature=0.7, top_k=20, top_p=0.8, repetition=1.05, seed=2**63 + 5),
    Rules(temperature=1.5, top_k=64, min_p=0.05, seed=-7),
    Rules(temperature=1.1, top_p=0.9, presence=0.5, seed=3),
    Rules(temperature=0.9, bias=((99, 5.0),), seed=8),
    Rules(min_length=400),
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder, request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return take_weights(model, torch.device("cuda"))


def answers(runner: Runner, pages: int) -> list[list[int]]:
    scheduler = Scheduler(Pages(pages), runner.limits(SEATS))
    draw = random.Random(5)
    shared = [draw.randrange(1000, 150_000) for _ in range(50)]
    sequences = []
    for at, length in enumerate((1, 15, 16, 17, 70, 300, 130, 40)):
        ids = (shared if at % 2 else []) + [draw.randrange(1000, 150_000) for _ in range(length)]
        sequences.append(Sequence(ids, len(ids), len(ids) + 60, replace(RULES[at]), frozenset(STOPS)))
        scheduler.add(sequences[-1])
    in_flight: deque[Any] = deque()
    while True:
        step = scheduler.plan()
        if step is not None:
            in_flight.append((step, runner.launch(step)))
        if in_flight and (step is None or len(in_flight) > runner.ahead):
            done, outcome = in_flight.popleft()
            scheduler.receive(done, outcome())
        elif step is None:
            return [sequence.ids[sequence.prompt :] for sequence in sequences]


@pytest.mark.parametrize("pages", [80, 45], ids=["room for all", "pages run out"])
@pytest.mark.parametrize("few_rows", [0, 8], ids=["cuBLAS", "products"])
def test_graphs_say_what_plain_torch_says(weights: Any, few_rows: int, pages: int) -> None:
    options = Options(operations=FusedOperations(few_rows))
    captured = answers(GraphRunner(weights, STOPS, SEATS, pages, POSITIONS, options), pages)
    plain = answers(PlainRunner(weights, STOPS, SEATS, pages), pages)
    assert captured == plain
    assert all(len(set(answer)) >= 20 for answer in plain)
