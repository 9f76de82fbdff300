"""Decides what each step computes: who is read, who writes, who waits. Pure logic, without torch.

A step reads pieces of prompts (fills) and writes one token for every sequence that has been read (rows).
Steps are planned ahead: a token may be computed before the one before it is known here, because the device
feeds itself. So a sequence may be stored on the device further than its ids are known here. Where steps
speculate, not even how far is known before their tokens come: ``stored`` is the least that it can be, and
``slack`` how much more.

- Who came first is admitted first, as soon as a seat and the pages of its prompt are there.
- Rows write in every step; only steps that read no prompt speculate. Fills share a budget of tokens: half
  for who came first, the rest for who needs least.
- When pages run out, the youngest gives its own up and waits at the front of the queue. It is read again
  later, with what it has written, and goes on where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from inkstream.engines.torch.cache import PAGE, OutOfPages, Pages, extend_names, pages_for
from inkstream.engines.torch.rules import Rules
from inkstream.engines.torch.speculation import Gate

End = Literal["stop", "length"]

Likelihood = tuple[float, list[tuple[int, float]]]
"""The logarithmic probability of a token, and the ids of the likeliest in its place with theirs."""


class Drawn(NamedTuple):
    """What a step wrote: for each writer its tokens, of which those but the last were drafted.

    ``likelihoods`` has those of all of its tokens for each writer that asked, by its place. ``drafted`` is
    how many tokens were guessed for each writer, empty where none were.
    """

    tokens: Items[Items[int]]
    likelihoods: Mapping[int, Items[Likelihood]] = {}
    drafted: Items[int] = ()


class Written(NamedTuple):
    """What a sequence has got: ``end`` says with which of them it was the last token."""

    sequence: Sequence
    tokens: Items[int]
    likelihoods: Items[Likelihood]
    end: End | None


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on its way. ``ids`` are the prompt and what is known of the answer.

    ``prompt`` is how many of them are prompt, ``limit`` with how many ids the answer ends. ``stops`` are the
    tokens that end it. ``goal`` is how far it must be read before it writes, ``stored`` how far it is.
    ``drafted`` tokens have been guessed for it, of which ``accepted`` were right.
    """

    ids: list[int]
    prompt: int
    limit: int
    rules: Rules
    stops: frozenset[int] = frozenset()
    seat: int = -1
    pages: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    named: int = 0
    stored: int = 0
    goal: int = 0
    slack: int = 0
    reused: int = 0
    drafted: int = 0
    accepted: int = 0
    in_flight: int = 0
    is_over: bool = False

    @property
    def is_read(self) -> bool:
        return self.stored >= self.goal

    @property
    def may_write(self) -> bool:
        """The token that the next row computes is within the limit."""
        return self.is_read and self.stored + 2 <= self.limit

    def missing_pages(self, width: int) -> int:
        """For the next ``width`` tokens; the answer's last token is never stored."""
        needed = self.stored + self.slack + width
        if needed <= len(self.pages) * PAGE:
            return 0  # as for nearly every token
        return pages_for(min(needed, self.limit - 1)) - len(self.pages)


@dataclass(frozen=True, slots=True)
class Fill:
    """``count`` ids from ``start`` on are read; with the last of them the first token is written."""

    sequence: Sequence
    start: int
    count: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Step:
    """``seated`` took their seats for this step; ``placed`` are (seat, place among its pages, page).

    A row has its last token and up to ``width`` - 1 drafts in the step.
    """

    seated: list[Sequence]
    placed: list[tuple[int, int, int]]
    fills: list[Fill]
    rows: list[tuple[Sequence, int]]
    width: int = 1

    @property
    def writers(self) -> list[Sequence]:
        """In the order in which the device tells their tokens."""
        return [fill.sequence for fill in self.fills if fill.is_last] + [row for row, _ in self.rows]


@dataclass(frozen=True, slots=True)
class Limits:
    """``budget`` tokens are read in a step beside rows, ``most`` where nobody writes. ``grain`` is to what
    the device rounds up each fill, ``ends`` how many prompts can end in one step. ``width`` is how many
    tokens of a row a step takes that speculates, 1 where none does."""

    seats: int
    budget: int = 256
    most: int = 2048
    grain: int = 1
    ends: int = 32
    width: int = 1


class Scheduler:
    """``plan`` a step, have it computed, ``receive`` its tokens; a few steps may lie between the two."""

    def __init__(self, pages: Pages, limits: Limits, gate: Gate | None = None) -> None:
        """Without a ``gate`` every step speculates that can."""
        self.pages, self.limits, self.gate = pages, limits, gate
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = self.drafted = self.accepted = 0
        self._seats = list(range(limits.seats - 1, -1, -1))
        self._placed: list[tuple[int, int, int]] = []

    def add(self, sequence: Sequence) -> None:
        """How many may wait is for the caller to bound, who can tell them so."""
        self.waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """It is in no later step. Tokens of it that are still computed are thrown away."""
        if sequence.is_over:
            return
        sequence.is_over = True
        if sequence.seat >= 0:
            self._unseat(sequence)
        else:
            self.waiting.remove(sequence)

    def plan(self) -> Step | None:
        """The next step, or None where nothing can be done before tokens are received or requests come."""
        width = self._width()
        rows = self._rows(width)
        seated = self._admit()
        fills = self._fills(len(rows))
        placed, self._placed = self._placed, []
        if not rows and not fills:
            return None
        return Step(seated, placed, fills, rows, width)

    def receive(self, step: Step, drawn: Drawn) -> list[Written]:
        """What the step wrote, of those that still go on."""
        if drawn.drafted:
            self._learn(step, drawn)
        written = []
        for at, (sequence, tokens) in enumerate(zip(step.writers, drawn.tokens, strict=True)):
            sequence.in_flight -= 1
            if sequence.is_over:
                continue
            if step.width > 1 and sequence.seat >= 0:
                sequence.stored += len(tokens) - 1
                sequence.slack -= step.width - 1
            taken, end = self._take(sequence, tokens)
            written.append(Written(sequence, taken, drawn.likelihoods.get(at, ()), end))
            if end is not None:
                sequence.is_over = True
                self._forget(sequence)
            elif sequence.seat >= 0:
                self._name_pages(sequence)
        return written

    def retract(self, step: Step) -> None:
        """The step just planned was not computed. Everybody is read again, from pages filled before."""
        for fill in step.fills:
            for page in fill.sequence.pages[fill.start // PAGE : fill.sequence.named]:
                self.pages.forget(page)
        for sequence in step.writers:
            sequence.in_flight -= 1
        for sequence in self.running[::-1]:
            self._preempt(sequence)

    def _learn(self, step: Step, drawn: Drawn) -> None:
        for sequence, written, drafted in zip(step.writers, drawn.tokens, drawn.drafted, strict=True):
            sequence.drafted += drafted
            sequence.accepted += len(written) - 1
        rows, tokens = len(drawn.tokens), sum(map(len, drawn.tokens))
        self.drafted += sum(drawn.drafted)
        self.accepted += tokens - rows
        if self.gate is not None:
            self.gate.learn(rows, tokens)

    def _take(self, sequence: Sequence, tokens: Items[int]) -> tuple[Items[int], End | None]:
        """Append the tokens up to one that ends the answer."""
        for at, token in enumerate(tokens, 1):
            sequence.ids.append(token)
            if token in sequence.stops:
                return tokens[:at], "stop"
            if len(sequence.ids) >= sequence.limit:
                return tokens[:at], "length"
        return tokens, None

    def _width(self) -> int:
        """No drafts beside prompts, nor where room for them would be somebody's who goes on without."""
        rows = len(self.running)
        if self.limits.width == 1 or not rows or self.pages.free < 2 * rows:
            return 1
        if self._has_seat or not all(sequence.is_read for sequence in self.running):
            return 1
        return self.limits.width if self.gate is None else self.gate.width(rows)

    def _rows(self, width: int) -> list[tuple[Sequence, int]]:
        """Oldest first, so that pages run out for the youngest."""
        for sequence in [s for s in self.running if s.may_write and s.missing_pages(width) > 0]:
            self._make_room(sequence, width)
        rows = [(sequence, sequence.stored) for sequence in self.running if sequence.may_write]
        for sequence, _ in rows:
            sequence.stored += 1
            sequence.slack += width - 1
            sequence.in_flight += 1
        return rows

    def _make_room(self, sequence: Sequence, width: int) -> None:
        """Pages for the next tokens. Whoever is youngest pays, if need be the asking one."""
        while sequence.seat >= 0:
            try:
                return self._place(sequence, self.pages.take(sequence.missing_pages(width)))
            except OutOfPages:
                self._preempt(self.running[-1])
        return None

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self._unseat(sequence)
        self.waiting.appendleft(sequence)

    def _admit(self) -> list[Sequence]:
        """Those in the queue's order who find a seat and room, with a page to spare for each who writes."""
        seated = []
        while self._has_seat and self._seat(self.waiting[0]):
            seated.append(self.waiting.popleft())
        return seated

    @property
    def _has_seat(self) -> bool:
        """For somebody who waits. The limits may be narrower than the seats are many."""
        return bool(self.waiting and self._seats) and len(self.running) < self.limits.seats

    def _seat(self, sequence: Sequence) -> bool:
        if sequence.in_flight:
            return False  # it was preempted, and a token of it is still on the way
        known = self.pages.known(_names(sequence))
        missing = pages_for(len(sequence.ids)) - len(known)
        spare = len(self.running)
        if missing + spare + self.pages.idle_among(known) > self.pages.free:
            return False
        self.pages.hold(known)
        sequence.seat = self._seats.pop()
        self._place(sequence, known)
        self._place(sequence, self.pages.take(missing))
        sequence.goal = len(sequence.ids)
        sequence.stored = sequence.reused = len(known) * PAGE
        sequence.named = len(known)
        self.running.append(sequence)
        return True

    def _place(self, sequence: Sequence, pages: list[int]) -> None:
        first = len(sequence.pages)
        sequence.pages += pages
        self._placed += [(sequence.seat, first + at, page) for at, page in enumerate(pages)]

    def _fills(self, writers: int) -> list[Fill]:
        unread = [sequence for sequence in self.running if not sequence.is_read]
        if not unread:
            return []
        budget, ends = self._budget(len(unread), writers), self.limits.ends
        fills = []
        for sequence, part in self._parts(unread, budget):
            count = min(sequence.goal - sequence.stored, part, budget)
            if count <= 0 or not ends:
                break
            fills.append(self._fill(sequence, count))
            budget -= self._rounded_up(count)
            ends -= fills[-1].is_last
        return fills

    def _parts(self, unread: list[Sequence], budget: int) -> list[tuple[Sequence, int]]:
        """Whom to read, and how much. Half is the oldest's, so that it gets there whoever else comes; the
        rest is for those who need least, so that a long prompt holds up no short one.
        """
        oldest, *others = unread
        others.sort(key=lambda sequence: sequence.goal - sequence.stored)
        wanted = sum(self._rounded_up(sequence.goal - sequence.stored) for sequence in others)
        half = self._rounded(budget // 2)
        return [(oldest, max(half, budget - wanted)), *((sequence, budget) for sequence in others)]

    def _budget(self, unread: int, writers: int) -> int:
        """A few readers do not slow down many writers; many readers are not held up by a few writers."""
        if not writers:
            return self.limits.most
        share = unread / (unread + writers)
        return max(self.limits.budget, self._rounded(int(self.limits.most * share)))

    def _rounded(self, tokens: int) -> int:
        return max(tokens // self.limits.grain, 1) * self.limits.grain

    def _rounded_up(self, tokens: int) -> int:
        return -(-tokens // self.limits.grain) * self.limits.grain

    def _fill(self, sequence: Sequence, count: int) -> Fill:
        start = sequence.stored
        sequence.stored += count
        if sequence.is_read:
            sequence.in_flight += 1
        self._name_pages(sequence)
        return Fill(sequence, start, count, sequence.is_read)

    def _name_pages(self, sequence: Sequence) -> None:
        """Pages are offered to others when the step that fills them is planned: steps keep their order."""
        full = min(sequence.stored, len(sequence.ids)) // PAGE
        if full <= sequence.named:
            return
        extend_names(sequence.names, sequence.ids, full)
        for at in range(sequence.named, full):
            self.pages.name(sequence.pages[at], sequence.names[at])
        sequence.named = full

    def _unseat(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._placed = [place for place in self._placed if place[0] != sequence.seat]
        self._seats.append(sequence.seat)
        self.pages.give_back(sequence.pages)
        sequence.seat, sequence.stored, sequence.slack, sequence.goal = -1, 0, 0, 0
        sequence.pages = []

    def _forget(self, sequence: Sequence) -> None:
        if sequence.seat >= 0:
            self._unseat(sequence)
        else:
            self.waiting.remove(sequence)


def _names(sequence: Sequence) -> Iterator[bytes]:
    """Of the pages that may be known, each made when it is asked for: most prompts are new early on.

    Not of the last token's page, even if that is full: at least that token is read, for the next one.
    """
    for at in range((len(sequence.ids) - 1) // PAGE):
        extend_names(sequence.names, sequence.ids, at + 1)
        yield sequence.names[at]
