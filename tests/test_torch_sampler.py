"""The draw follows the rules, and its noise is noise. ``test_torch`` compares with transformers."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from inkstream.engines.torch.rules import Kind, Rules  # noqa: E402 - without torch there is nothing to import
from inkstream.engines.torch.sampler import RuleTable, draw, noise  # noqa: E402

VOCABULARY = 500
CPU = torch.device("cpu")


def draw_one(logits: Any, rules: Rules, position: int = 9) -> int:
    table = RuleTable(1, logits.shape[-1], [3], CPU)
    table.set([(0, rules, [], [])])
    return int(draw(logits.clone().view(1, -1), table, [0], torch.tensor([position])))


def logits_of(seed: int = 0) -> Any:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def test_noise_has_the_moments_and_the_tail_of_a_gumbel_distribution() -> None:
    seeds, positions = torch.arange(64), torch.arange(64) * 3 + 5
    values = noise(seeds, positions, torch.arange(20_000).unsqueeze(0)).double()
    assert values.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert values.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)
    for threshold in (2.0, 6.0, 9.0):
        share = (values > threshold).double().mean().item()
        assert share == pytest.approx(1 - math.exp(-math.exp(-threshold)), rel=0.1)


@pytest.mark.parametrize("change", ["seed", "position", "token"])
def test_noise_of_neighbours_is_unrelated(change: str) -> None:
    base = torch.arange(100_000)
    here = {"seed": base * 0 + 7, "position": base * 0 + 20, "token": base * 0 + 5}
    there = here | {change: here[change] + 1}
    varied = next(name for name in here if name != change)
    columns = [
        noise(each["seed"], each["position"], each["token"].unsqueeze(1)).squeeze(1)
        for each in (here | {varied: base}, there | {varied: base})
    ]
    assert abs(torch.corrcoef(torch.stack(columns))[0, 1].item()) < 0.02


@pytest.mark.parametrize(
    "rules", [Rules(temperature=1.0), Rules(temperature=0.6, top_k=8), Rules(temperature=1.3, top_p=0.9)]
)
def test_tokens_come_as_often_as_the_softmax_says(rules: Rules) -> None:
    logits, draws = logits_of(), 4000
    table = RuleTable(draws, VOCABULARY, [3], CPU)
    table.set([(seat, replace(rules, seed=seat), [], []) for seat in range(draws)])
    rows = logits.repeat(draws, 1)
    tokens = draw(rows, table, range(draws), torch.full((draws,), 40))
    chances = (logits / rules.temperature).softmax(0)
    order = chances.argsort(descending=True)
    kept = order[: rules.top_k] if rules.top_k else order
    before = chances[kept].cumsum(0) - chances[kept]
    kept = kept[before < rules.top_p * chances[kept].sum()]
    assert set(tokens.tolist()) <= set(kept.tolist())
    expected = chances[kept[:5]] / chances[kept].sum()
    for token, chance in zip(kept[:5].tolist(), expected.tolist(), strict=True):
        seen = (tokens == token).double().mean().item()
        assert seen == pytest.approx(chance, abs=4 * math.sqrt(chance / draws))


def test_a_row_draws_the_same_whoever_is_beside_it() -> None:
    draws = random.Random(3)
    rules = [
        Rules(),
        Rules(temperature=1.0, seed=4),
        Rules(temperature=0.8, top_k=30, top_p=0.9, seed=-5, repetition=1.3),
        Rules(temperature=1.2, top_p=0.8, seed=2**70, frequency=0.5, presence=0.2),
        Rules(bias=((7, 4.0), (9, -100.0)), temperature=1.0, seed=1),
    ]
    logits = torch.stack([logits_of(at) for at in range(len(rules))])
    positions = torch.tensor([draws.randrange(10, 999) for _ in rules])
    table = RuleTable(len(rules), VOCABULARY, [3], CPU)
    entries = [(seat, each, [1, 2, 2], [5, 5, 8]) for seat, each in enumerate(rules)]
    table.set(entries)
    together = draw(logits.clone(), table, range(len(rules)), positions).tolist()
    table.set(entries)
    alone = [
        int(draw(logits[seat : seat + 1].clone(), table, [seat], positions[seat : seat + 1]))
        for seat in range(len(rules))
    ]
    assert together == alone
    assert [each.kind for each in rules] == [Kind.GREEDY, Kind.OPEN, Kind.NARROW, Kind.WIDE, Kind.WIDE]


def test_what_was_drawn_is_counted_for_the_next_draw() -> None:
    logits = torch.zeros(VOCABULARY)
    logits[7], logits[8] = 5.0, 4.5
    table = RuleTable(1, VOCABULARY, [3], CPU)
    table.set([(0, Rules(frequency=0.3), [7], [])])
    drawn = [int(draw(logits.clone().view(1, -1), table, [0], torch.tensor([at]))) for at in range(4)]
    assert drawn == [7, 7, 8, 7], "the prompt does not count, what was written does"


def test_before_its_least_length_an_answer_does_not_end() -> None:
    logits = logits_of()
    logits[3] = 50.0
    assert draw_one(logits, Rules(min_length=11), position=9) != 3
    assert draw_one(logits, Rules(min_length=11), position=10) == 3


def test_equal_logits_rank_by_id() -> None:
    logits = torch.zeros(VOCABULARY)
    for seed in range(20):
        assert draw_one(logits, Rules(temperature=1.0, top_k=5, seed=seed)) < 5
    assert draw_one(logits, Rules()) == 0


def test_bias_forbids_and_forces() -> None:
    logits = logits_of()
    best = int(logits.argmax())
    assert draw_one(logits, Rules(bias=((best, -100.0),))) != best
    assert draw_one(logits, Rules(bias=((123, 100.0),), temperature=1.0, seed=1)) == 123
