"""Who is read, who writes, who waits, and who has which pages. No torch is needed."""

from __future__ import annotations

import random
from collections import deque

import pytest

from inkstream.engines.torch.cache import PAGE, SCRATCH, OutOfPages, Pages, extend_names, pages_for
from inkstream.engines.torch.rules import Rules
from inkstream.engines.torch.scheduler import Drawn, Limits, Scheduler, Sequence, Step
from inkstream.engines.torch.speculation import WIDTH, Gate


def sequence_of(length: int, new: int, seed: int = 0) -> Sequence:
    draw = random.Random(seed)
    ids = [draw.randrange(1, 1_000_000) for _ in range(length)]
    return Sequence(ids, length, length + new, Rules(), frozenset())


def next_token(ids: list[int]) -> int:
    """What the device says after these ids: any function of all of them shows a wrong or missing one."""
    return hash(tuple(ids)) % 100_000


class Device:
    """Stores what the steps tell it to, and looks up what it wrote, through the pages it was told of.

    ``luck`` is how often a draft is right. What was wrong has been stored all the same.
    """

    def __init__(self, seats: int, pages: int, luck: float = 0.7, seed: int = 0) -> None:
        self.luck, self.draw = luck, random.Random(seed)
        self.at = [0] * seats
        self.ends = [0] * seats
        self.table: list[dict[int, int]] = [{} for _ in range(seats)]
        self.memory: list[int | None] = [None for _ in range(pages * PAGE)]
        self.last = [0] * seats

    def run(self, step: Step) -> Drawn:
        for seated in step.seated:
            self.ends[seated.seat] = seated.limit - 1
        for seat, at, page in step.placed:
            assert page != SCRATCH
            self.table[seat][at] = page
        for fill in step.fills:
            ids = fill.sequence.ids[fill.start : fill.start + fill.count]
            for at, id in enumerate(ids, fill.start):
                self._write(fill.sequence.seat, at, id)
        tokens = [[self._token(f.sequence.seat, f.start + f.count)] for f in step.fills if f.is_last]
        assert step.width == 1 or not step.fills
        rows = [self._row(sequence.seat, step.width) for sequence, _ in step.rows]
        drafted = [step.width - 1 for _ in rows] if step.width > 1 else []
        return Drawn(tokens + rows, drafted=drafted)

    def _row(self, seat: int, width: int) -> list[int]:
        """Its own position counts: the host's may lag behind where drafts were right."""
        tokens = [self.last[seat]]
        start = self.at[seat]
        while len(tokens) == 1 or (len(tokens) <= width and self.draw.random() < self.luck):
            at = start + len(tokens) - 1
            if at >= self.ends[seat]:
                break  # the host will learn that it is over
            self._write(seat, at, tokens[-1])
            tokens.append(self._token(seat, at + 1))
        for at in range(start + len(tokens) - 1, min(start + width, self.ends[seat])):
            self._write(seat, at, -1)
        return tokens[1:] or [-1]

    def _write(self, seat: int, at: int, id: int) -> None:
        self.memory[self.table[seat][at // PAGE] * PAGE + at % PAGE] = id

    def _token(self, seat: int, length: int) -> int:
        read = [self.memory[self.table[seat][at // PAGE] * PAGE + at % PAGE] for at in range(length)]
        known = [id for id in read if id is not None]
        assert len(known) == length
        self.last[seat], self.at[seat] = next_token(known), length
        return self.last[seat]


def expected_ids(ids: list[int], limit: int, stops: frozenset[int]) -> list[int]:
    ids = list(ids)
    while len(ids) < limit:
        ids.append(next_token(ids))
        if ids[-1] in stops:
            break
    return ids


def scheduler_of(pages: int, grain: int = 1, width: int = 1) -> Scheduler:
    return Scheduler(Pages(pages), Limits(4, budget=32, most=64, grain=grain, ends=4, width=width))


def drive(scheduler: Scheduler, device: Device, ahead: int = 1) -> None:
    """Until nothing is left to do, with ``ahead`` steps planned before one is looked at."""
    in_flight: deque[tuple[Step, Drawn]] = deque()
    for _ in range(10_000):
        step = scheduler.plan()
        if step is not None:
            in_flight.append((step, device.run(step)))
        if in_flight and (step is None or len(in_flight) > ahead):
            scheduler.receive(*in_flight.popleft())
        elif step is None:
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_everybody_gets_the_tokens_of_their_own_text(
    seed: int, ahead: int, width: int
) -> None:
    draw = random.Random(seed)
    pages = draw.randrange(14, 40)
    scheduler = scheduler_of(pages, grain=draw.choice([1, 8]), width=width)
    device = Device(4, pages, luck=draw.random(), seed=seed)
    shared = sequence_of(draw.randrange(1, 70), 0, seed=999).ids
    wanted = []
    for at in range(12):
        ids = (shared if draw.random() < 0.5 else []) + sequence_of(draw.randrange(1, 60), 0, seed=at).ids
        limit = len(ids) + draw.randrange(1, 60)
        whole = expected_ids(ids, limit, frozenset())
        stops = frozenset({draw.choice(whole[len(ids) :])}) if draw.random() < 0.5 else frozenset[int]()
        sequence = Sequence(list(ids), len(ids), limit, Rules(), stops)
        wanted.append((sequence, expected_ids(ids, limit, stops)))
        scheduler.add(sequence)
    drive(scheduler, device, ahead)
    for sequence, expected in wanted:
        assert sequence.ids == expected, f"seed {seed}"
        assert sequence.is_over
    assert scheduler.pages.free == pages - 1
    assert not scheduler.running


def test_pages_that_run_out_are_the_youngest_s() -> None:
    scheduler, device = scheduler_of(pages=9), Device(4, 9)
    old, young = sequence_of(48, 60, seed=1), sequence_of(48, 60, seed=2)
    expected = [expected_ids(s.ids, s.limit, frozenset()) for s in (old, young)]
    scheduler.add(old)
    scheduler.add(young)
    order = []
    while (step := scheduler.plan()) is not None:
        order += [each.sequence for each in scheduler.receive(step, device.run(step)) if each.end]
    assert scheduler.preemptions > 0
    assert order == [old, young]
    assert [old.ids, young.ids] == expected


def test_a_cancelled_one_is_in_no_later_step_and_leaves_no_page() -> None:
    scheduler, device = scheduler_of(pages=30), Device(4, 30)
    sequences = [sequence_of(20, 50, seed=at) for at in range(6)]
    for sequence in sequences:
        scheduler.add(sequence)
    step = scheduler.plan()
    assert step is not None
    tokens = device.run(step)
    for sequence in sequences * 2:
        scheduler.cancel(sequence)
    assert scheduler.receive(step, tokens) == []
    assert scheduler.plan() is None
    assert scheduler.pages.free == 29


def test_a_long_prompt_holds_up_neither_writers_nor_short_prompts() -> None:
    scheduler, device = scheduler_of(pages=200), Device(4, 200)
    writer, long, short = sequence_of(4, 100), sequence_of(1000, 5, seed=1), sequence_of(10, 5, seed=2)
    scheduler.add(writer)
    first = scheduler.plan()
    assert first is not None
    scheduler.receive(first, device.run(first))
    scheduler.add(long)
    scheduler.add(short)
    short_read = 0
    for at in range(1, 1000):
        step = scheduler.plan()
        assert step is not None
        assert sum(fill.count for fill in step.fills) <= 64
        if not writer.is_over and at < 90:
            assert (writer, 3 + at) in step.rows
        scheduler.receive(step, device.run(step))
        short_read = short_read or (at if short.is_read else 0)
        if long.is_read:
            break
    assert short_read == 1
    assert long.is_read


def test_short_prompts_that_keep_coming_do_not_starve_a_long_one() -> None:
    scheduler, device = scheduler_of(pages=400), Device(4, 400)
    long = sequence_of(1000, 1)
    scheduler.add(long)
    for at in range(60):
        scheduler.add(sequence_of(60, 1, seed=at))
        step = scheduler.plan()
        assert step is not None
        scheduler.receive(step, device.run(step))
    assert long.is_read


def test_equal_beginnings_share_pages_even_in_one_step() -> None:
    scheduler, device = scheduler_of(pages=60), Device(4, 60)
    beginning = sequence_of(40, 0).ids
    twins = [Sequence([*beginning, at], 41, 45, Rules()) for at in (1, 2)]
    for twin in twins:
        scheduler.add(twin)
    drive(scheduler, device)
    again = Sequence([*beginning, 3], 41, 45, Rules())
    scheduler.add(again)
    drive(scheduler, device)
    assert again.reused == 32
    assert again.ids == expected_ids([*beginning, 3], 45, frozenset())


def test_a_prompt_that_is_all_known_still_reads_its_last_token() -> None:
    scheduler, device = scheduler_of(pages=60), Device(4, 60)
    ids = sequence_of(64, 0).ids
    first, again = (Sequence(list(ids), 64, 70, Rules()) for _ in range(2))
    for sequence in (first, again):
        scheduler.add(sequence)
        drive(scheduler, device)
        assert sequence.ids == expected_ids(ids, 70, frozenset())
    assert again.reused == 48


def test_pages_go_to_whoever_used_them_longest_ago() -> None:
    pages = Pages(4)
    names: list[bytes] = []
    extend_names(names, range(3 * PAGE), 3)
    held = pages.take(3)
    for page, name in zip(held, names, strict=True):
        pages.name(page, name)
    with pytest.raises(OutOfPages):
        pages.take(1)
    pages.give_back(held)
    assert pages.known(names) == held
    pages.take(1)
    assert pages.known(names) == held[:2], "an end is given up before its beginning"
    assert pages.free == 2


def test_names_differ_with_anything_before_them() -> None:
    one: list[bytes] = []
    other: list[bytes] = []
    extend_names(one, [0, *range(1, 2 * PAGE)], 2)
    extend_names(other, [9, *range(1, 2 * PAGE)], 2)
    assert len(one) == len(other) == 2
    assert not set(one) & set(other)
    assert pages_for(0) == 0
    assert pages_for(PAGE) == 1
    assert pages_for(PAGE + 1) == 2


def test_steps_that_had_no_drafts_to_give_end_the_speculation() -> None:
    """They take as long as those that had some."""
    gate = Gate(WIDTH, lambda rows, width: 1.0 if width == 1 else 1.5)
    scheduler = Scheduler(Pages(100), Limits(1, width=WIDTH), gate)
    scheduler.add(sequence_of(5, 400))
    widths = []
    while (step := scheduler.plan()) is not None:
        scheduler.receive(step, Drawn([[1]], drafted=[0] if step.width > 1 else []))
        widths.append(step.width)
    assert len(widths) == 400
    assert 1 <= widths[100:].count(WIDTH) <= 30, "now and then it looks again"
