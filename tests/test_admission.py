"""Whose turn it is. A ticket is entered by a task of its own, as a drive does."""

from __future__ import annotations

import asyncio
import random

import pytest

from inkstream.admission import Admission, Ticket
from inkstream.errors import Overloaded


class Queue:
    """An admission with those who have asked to be let in."""

    def __init__(self, slots: int, bound: int = 100) -> None:
        self.admission = Admission(bound)
        self.admission.set_slots(slots)
        self.inside: list[str] = []
        self.places: dict[str, list[int]] = {}
        self._leaving: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, *names: str, is_suspect: bool = False) -> None:
        """``a1`` is the first that a asks for."""
        for name in names:
            self.places[name] = []
            ticket = self.admission.turn(name[0], self.places[name].append, is_suspect=is_suspect)
            self._leaving[name] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._stay(name, ticket)))
        await self.settled()

    async def _stay(self, name: str, ticket: Ticket) -> None:
        async with ticket:
            self.inside.append(name)
            if not ticket.is_suspect:
                self.admission.has_written(ticket)
            await self._leaving[name].wait()
            self.inside.remove(name)

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leaving[name].set()
        await self.settled()

    async def settled(self) -> None:
        """What one thing sets off goes through the loop a few times: a task, a future, a call."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_while_it_is_held_nobody_is_let_in_and_who_is_inside_stays() -> None:
    queue = Queue(slots=2)
    await queue.ask("a1")
    with queue.admission.held():
        await queue.ask("b1")
        assert (queue.inside, queue.places["b1"]) == (["a1"], [1])
        left = asyncio.create_task(queue.admission.somebody_left())
        await queue.settled()
        assert not left.done()
        await queue.leave("a1")
        assert left.done()
        assert queue.inside == []
    await queue.settled()
    assert queue.inside == ["b1"]
    await queue.close()


async def test_one_who_asks_for_much_and_one_who_asks_for_little_take_turns() -> None:
    queue = Queue(slots=1)
    await queue.ask("a1", "a2", "a3", "a4", "b1", "b2")
    went_in = []
    while queue.inside:
        went_in += queue.inside
        await queue.leave(*queue.inside)
    assert went_in == ["a1", "b1", "a2", "b2", "a3", "a4"]


async def test_who_has_most_inside_waits_for_who_has_least() -> None:
    queue = Queue(slots=4)
    await queue.ask("a1", "a2", "a3", "a4", "a5", "a6", "b1", "b2", "b3")
    assert queue.inside == ["a1", "a2", "a3", "a4"]
    await queue.leave("a1", "a2")
    assert queue.inside == ["a3", "a4", "b1", "b2"]
    await queue.leave("b1")
    assert queue.inside == ["a3", "a4", "b2", "b3"]
    await queue.close()


async def test_everybody_hears_the_place_that_he_has() -> None:
    queue = Queue(slots=1)
    await queue.ask("a1", "a2", "a3", "b1", "c1")
    assert {name: places[-1] for name, places in queue.places.items() if places} == {
        "b1": 1, "c1": 2, "a2": 3, "a3": 4,
    }  # fmt: skip
    await queue.leave("a1")
    assert queue.places["b1"] == [1, 0]
    assert (queue.places["c1"][-1], queue.places["a2"][-1], queue.places["a3"][-1]) == (1, 2, 3)
    await queue.close()
    assert queue.admission.waiting == queue.admission.inside == 0


async def test_places_come_true() -> None:
    """Whoever is told place n goes in as the n-th if nobody comes and nobody gives up."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    for _ in range(30):
        queue = Queue(slots=1)
        await queue.ask("z1", *(f"{choose.choice('abcd')}{n}" for n in range(12)))
        told = sorted((places[-1], name) for name, places in queue.places.items() if places)
        went_in = []
        while queue.inside:
            went_in += queue.inside
            await queue.leave(*queue.inside)
        assert [name for _, name in told] == went_in[1:]


async def test_a_suspect_goes_in_alone_and_holds_up_those_behind_it() -> None:
    queue = Queue(slots=4)
    await queue.ask("a1")
    await queue.ask("b1", is_suspect=True)
    await queue.ask("c1", "c2")
    assert queue.inside == ["a1", "b1"]
    await queue.leave("b1")
    assert queue.inside == ["a1", "c1", "c2"]
    await queue.close()


async def test_many_newcomers_do_not_keep_one_who_waits_out() -> None:
    queue = Queue(slots=1)
    await queue.ask("a1", "a2")
    for number in range(5):
        await queue.ask(f"b{number}", f"c{number}")
    await queue.leave("a1")
    await queue.leave(*queue.inside)
    await queue.leave(*queue.inside)
    assert queue.inside == ["a2"]
    await queue.close()


@pytest.mark.parametrize(("bound", "kept_free"), [(0, 0), (7, 0), (8, 1), (64, 8), (1000, 16)])
async def test_the_last_places_are_for_those_who_have_none(bound: int, kept_free: int) -> None:
    admission = Admission(bound)
    admission.set_slots(4)
    most = bound + 4
    for present, own in ((most - 1, 0), (most - 1 - kept_free, 5)):
        admission.require_room(present, own)
        with pytest.raises(Overloaded) as caught:
            admission.require_room(present + 1, own)
        assert caught.value.retry_after_seconds >= 1
