"""How much of everything: the whole thing, or the two minutes of every day."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from compare.outcome import Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """``rounds`` None: each scenario's own number."""

    is_quick: bool
    rounds: int | None
    flags: str

    def pick(self, whole: T, quick: T) -> T:
        return quick if self.is_quick else whole

    def outcome(self, name: str, title: str) -> Outcome:
        return Outcome(title, f'make bench BENCHFLAGS="--only {name}{self.flags}"')

    async def turns(self, whole: int, contestants: Sequence[T]) -> AsyncIterator[tuple[int, T]]:
        """Round by round, each contestant once."""
        for number in range(self.rounds or self.pick(whole, 1)):
            for contestant in contestants:
                yield number, contestant


def tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
