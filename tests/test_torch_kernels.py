"""The path of a GPU compiles, and says what plain torch says, kernel by kernel and as a whole: on a CPU.

Triton interprets kernels where it is told so before it is imported, so these tests run themselves in a
process of their own. What only a GPU can show (capturing, speed) is in ``test_torch_gpu``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("triton")

ROOT = Path(__file__).parent.parent
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.real,
    # Triton's interpreter takes single numbers out of arrays as NumPy allowed until 2.4.
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),
]
interprets = pytest.mark.skipif(
    tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4),
    reason="Triton's interpreter needs NumPy before 2.4",
)


@pytest.mark.timeout(400)
@pytest.mark.skipif(IS_INTERPRETED, reason="what is interpreted is not compiled")
def test_kernels_compile_for_a_gpu() -> None:
    command = [sys.executable, "-m", "tests.torch_compiling", "90", "bfloat16"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@interprets
@pytest.mark.timeout(400)
@pytest.mark.skipif(IS_INTERPRETED, reason="this is the process that interprets")
def test_kernels_are_interpreted() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


if IS_INTERPRETED:
    from inkstream.engines.torch.drafting import Drafting
    from inkstream.engines.torch.forward import Layer, Linear, Shape, Weights
    from inkstream.engines.torch.graphs import GraphRunner, Options
    from inkstream.engines.torch.plain import PlainOperations
    from inkstream.engines.torch.rules import Kind, Rules
    from inkstream.engines.torch.runner import PlainRunner
    from inkstream.engines.torch.scheduler import Sequence
    from inkstream.engines.torch.speculation import WIDTH, lookup
    from inkstream.engines.torch.speculation_kernels import look_up
    from tests.torch_driving import Answer, answers

    SHAPE = Shape(
        layers=2, width=32, heads=4, key_heads=2, head_width=16, vocabulary=300, positions=256, epsilon=1e-6
    )
    SEATS, PAGES, CONTEXT = 2, 20, 64
    # Rows that rank candidates are left to ``test_torch_gpu``: interpreted, their sort takes seconds a token.
    RULES = [
        Rules(repetition=1.2, presence=0.4, frequency=0.3, likeliest=2),
        Rules(temperature=0.3, seed=9, presence=0.1),
        Rules(temperature=0.9, bias=((99, 5.0),), seed=8, likeliest=0),
    ]

    def weights_of(seed: int, noise: float = 0.0) -> Weights:
        """``noise`` makes a model that says nearly the same."""
        draw, blur = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)

        def matrix(*size: int, std: float) -> Any:
            drawn = torch.randn(*size, generator=draw) * std
            return drawn + torch.randn(*size, generator=blur) * std * noise

        def linear(out: int, inner: int) -> Linear:
            return Linear(matrix(out, inner, std=1.5 / inner**0.5), matrix(out, std=0.3))

        one = torch.ones(SHAPE.width)
        layers = tuple(
            Layer(one, linear(128, 32), None, None, linear(32, 64), one, linear(96, 32), linear(32, 48))
            for _ in range(SHAPE.layers)
        )
        angles = torch.arange(256).unsqueeze(1) * 10000.0 ** -(torch.arange(8) / 8)
        embedding = matrix(300, 32, std=1.0)
        return Weights(SHAPE, embedding, layers, one, Linear(embedding), angles.cos(), angles.sin())

    WEIGHTS = weights_of(1)
    DRAFTINGS = {
        "none": None,
        "ngram": Drafting("ngram"),
        "draft": Drafting("small", weights_of(1, noise=0.1)),
    }

    def runners(drafting: Drafting | None) -> tuple[GraphRunner, PlainRunner]:
        options = Options(captures=False, operations=PlainOperations(), drafting=drafting)
        return (
            GraphRunner(WEIGHTS, (17,), SEATS, PAGES, CONTEXT, options),
            PlainRunner(WEIGHTS, (17,), SEATS, PAGES),
        )

    @pytest.mark.timeout(240)
    @pytest.mark.parametrize("drafts", DRAFTINGS)
    def test_batches_say_what_plain_torch_says(drafts: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # Each program is interpreted by itself: few of them.
        for name, few in (("FILL_SIZES", (16,)), ("MIXED_FILL", 8), ("DRAFTED_SIZES", (2,))):
            monkeypatch.setattr(f"inkstream.engines.torch.graphs.{name}", few)
        for name in ("ROW_PROGRAMS", "FILL_PROGRAMS"):
            monkeypatch.setattr(f"inkstream.engines.torch.attention.{name}", 4)
        graphs, plain = runners(DRAFTINGS[drafts])
        expected = answers(plain, sequences(), PAGES, SEATS)
        got = answers(graphs, sequences(), PAGES, SEATS)
        assert [each.ids for each in got] == [each.ids for each in expected]
        for one, other in zip(got, expected, strict=True):
            assert_alike(one, other)
        drafted, accepted = (sum(getattr(each, key) for each in got) for key in ("drafted", "accepted"))
        assert (drafted > 0) == (drafts != "none")
        assert accepted <= drafted
        assert accepted > 0 or drafts == "none"
        assert all(
            each.drafted == 0 for each, rules in zip(got, RULES, strict=True) if rules.kind is Kind.WIDE
        )

    def sequences() -> list[Sequence]:
        """Texts that go in circles, so that there is something to look up."""
        draw = random.Random(4)
        circles = [[draw.randrange(30, 300) for _ in range(3)] * 4 for _ in RULES]
        rules = zip(circles, RULES, strict=True)
        return [Sequence(ids, 12, 20, replace(each), frozenset({17})) for ids, each in rules]

    def assert_alike(one: Answer, other: Answer) -> None:
        assert len(one.likelihoods) == len(other.likelihoods)
        for (own, best), (their_own, their_best) in zip(one.likelihoods, other.likelihoods, strict=True):
            assert own == pytest.approx(their_own, abs=1e-4)
            assert [id for id, _ in best] == [id for id, _ in their_best]

    def test_the_kernel_looks_up_what_a_list_is_looked_up_for() -> None:
        draw = random.Random(5)
        texts = [[draw.randrange(4) for _ in range(draw.randrange(1, 90))] for _ in range(40)]
        texts += [list(range(30)), [7], [7, 7]]
        history = torch.zeros(len(texts), 128, dtype=torch.int32)
        for row, text in enumerate(texts):
            history[row, : len(text)] = torch.tensor(text)
        found = look_up(history, torch.arange(len(texts)), torch.tensor([len(text) - 1 for text in texts]))
        for text, drafts in zip(texts, found.tolist(), strict=True):
            assert [each for each in drafts if each >= 0] == lookup(text, WIDTH - 1)
