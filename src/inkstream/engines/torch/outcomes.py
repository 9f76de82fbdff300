"""From what a step leaves on the device to what the scheduler is told, without waiting for it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inkstream.engines.torch import scheduler
from inkstream.engines.torch.batches import Left, State
from inkstream.engines.torch.rules import Kind
from inkstream.engines.torch.sampler import likelihoods
from inkstream.engines.torch.scheduler import Drawn, Likelihood


@dataclass(frozen=True, slots=True)
class Part:
    """A batch that was computed. ``at`` is where each writer's first token is, of up to ``width``."""

    left: Left
    at: Sequence[int]
    writers: Sequence[scheduler.Sequence]
    width: int


Told = Callable[[list[list[int]]], dict[int, list[Likelihood]]]


def fetched(parts: Sequence[Part], state: State) -> Callable[[], Drawn]:
    """Bring the tokens to the host without waiting for them."""
    brought = [(_brought(part), _drafted(part), _likelihoods(part, state)) for part in parts]
    done = _mark(state.device)

    def outcome() -> Drawn:
        done()
        tokens: list[list[int]] = []
        told: dict[int, list[Likelihood]] = {}
        drafted: list[int] = []
        for words, guessed, chances in brought:
            written = words()
            told |= {len(tokens) + at: these for at, these in chances(written).items()}
            tokens += written
            drafted += guessed()
        return Drawn(tokens, told, drafted)

    return outcome


def _brought(part: Part) -> Callable[[], list[list[int]]]:
    tokens, at = _host(part.left.tokens), part.at
    if part.left.counts is None:
        return lambda: _picked(tokens.tolist(), at)
    counts = _host(part.left.counts)

    def words() -> list[list[int]]:
        all_of_them = tokens.tolist()
        return [all_of_them[first : first + count] for first, count in zip(at, counts.tolist(), strict=False)]

    return words


def _drafted(part: Part) -> Callable[[], list[int]]:
    """How many drafts each writer was given. Nobody looks at those of rows that are sorted."""
    if part.left.drafted is None:
        return list
    drafted = _host(part.left.drafted)
    uses = [writer.rules.kind is not Kind.WIDE for writer in part.writers]
    return lambda: [count if used else 0 for count, used in zip(drafted.tolist(), uses, strict=False)]


def _picked(tokens: list[int], at: Sequence[int]) -> list[list[int]]:
    return [[tokens[place]] for place in at]


def _likelihoods(part: Part, state: State) -> Told:
    """Of those who asked. Their logits are computed once more: the graph keeps none."""
    asking = [(at, most) for at, s in enumerate(part.writers) if (most := s.rules.likeliest) is not None]
    if not asking:
        return lambda written: {}
    rows = state.tensor([part.at[at] + more for at, _ in asking for more in range(part.width)])
    left, most = part.left, max(most for _, most in asking)
    told = likelihoods(state.logits(left.states[rows]), left.tokens[rows], most)
    chance, ids, chances = map(_host, told)

    def of(written: list[list[int]]) -> dict[int, list[Likelihood]]:
        own, best, theirs = chance.tolist(), ids.tolist(), chances.tolist()
        return {
            at: [
                (own[row], list(zip(best[row][:most], theirs[row], strict=False)))
                for row in range(nth * part.width, nth * part.width + len(written[at]))
            ]
            for nth, (at, most) in enumerate(asking)
        }

    return of


def _host(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _mark(device: torch.device) -> Callable[[], None]:
    """Waits until the device has done what it was told until now."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    wait: Callable[[], None] = event.synchronize
    return wait
