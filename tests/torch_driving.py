"""Drives a runner as the engine's worker does, without text."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

from inkstream.engines.torch.cache import Pages
from inkstream.engines.torch.rules import Rules
from inkstream.engines.torch.runner import Runner
from inkstream.engines.torch.scheduler import Likelihood, Scheduler, Sequence


@dataclass
class Answer:
    ids: list[int]
    drafted: int
    accepted: int
    likelihoods: list[Likelihood] = field(default_factory=list)


def sequences_of(rules: Items[Rules], lengths: Items[int], vocabulary: int, new: int) -> list[Sequence]:
    """Every other one begins like the others of its kind."""
    draw = random.Random(5)
    lowest = min(1000, vocabulary // 10)
    shared = [draw.randrange(lowest, vocabulary) for _ in range(50)]
    sequences = []
    for at, (each, length) in enumerate(zip(rules, lengths, strict=True)):
        ids = (shared if at % 2 else []) + [draw.randrange(lowest, vocabulary) for _ in range(length)]
        sequences.append(Sequence(ids, len(ids), len(ids) + new, each, frozenset({17})))
    return sequences


def answers(runner: Runner, sequences: Items[Sequence], pages: int, seats: int) -> list[Answer]:
    """What all of them write. Every step speculates that can."""
    scheduler = Scheduler(Pages(pages), runner.limits(seats))
    told: dict[int, list[Likelihood]] = {id(sequence): [] for sequence in sequences}
    for sequence in sequences:
        scheduler.add(sequence)
    in_flight: deque[tuple[Any, Any]] = deque()
    while True:
        step = scheduler.plan()
        if step is not None:
            in_flight.append((step, runner.launch(step)))
        if in_flight and (step is None or len(in_flight) > runner.ahead):
            done, outcome = in_flight.popleft()
            for written in scheduler.receive(done, outcome()):
                told[id(written.sequence)] += written.likelihoods[: len(written.tokens)]
        elif step is None:
            return [Answer(s.ids[s.prompt :], s.drafted, s.accepted, told[id(s)]) for s in sequences]
