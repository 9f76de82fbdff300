"""Speculation on the device as Triton kernels: drafts from the text, and which of them were right.

What ``speculation.lookup`` does on a list of ids, and what counts of a pass over drafts. The host is not
asked: it learns how many tokens there were when it gets them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from inkstream.engines.torch.rules import Kind
from inkstream.engines.torch.sampler import RuleTable
from inkstream.engines.torch.sampling_kernels import Places
from inkstream.engines.torch.speculation import WIDTH

BLOCK = 1024
"""Places of a text that are looked at together."""

WIDE = tl.constexpr(Kind.WIDE)
THREE = tl.constexpr(1 << 40)
"""Makes a place that is alike in three tokens better than any that is in two."""


def look_up(history: Tensor, seats: Tensor, positions: Tensor) -> Tensor:
    """Drafts of each row, (rows, WIDTH - 1), -1 where there are none. ``positions`` are the last tokens'."""
    rows = seats.shape[0]
    drafts = torch.empty(rows, WIDTH - 1, dtype=torch.int64, device=seats.device)
    _look_up[(rows,)](history, seats, positions, drafts, history.shape[1], WIDTH - 1, WIDTH, BLOCK)
    return drafts


def settle(
    tokens: Tensor,
    drafts: Tensor,
    table: RuleTable,
    seats: Tensor,
    positions: Tensor,
    places: Places,
    history: Tensor | None,
    nobody: int,
) -> Tensor:
    """How many of each row's tokens count: its own, and those behind drafts that were right.

    Seats move on by as many, but ``nobody``'s and those of WIDE rows, of which one token counts.
    """
    rows = seats.shape[0]
    counts = torch.empty(rows, dtype=torch.int64, device=seats.device)
    _settle[(rows,)](
        tokens,
        drafts,
        table.counts,
        table.wholes,
        seats,
        positions,
        places.tokens,
        places.positions,
        history,
        counts,
        nobody,
        table.counts.shape[1],
        0 if history is None else history.shape[1],
        WIDTH,
        history is not None,
        num_warps=1,
    )
    return counts


@triton.jit
def _look_up(
    history_at,
    seats_at,
    positions_at,
    drafts_at,
    history_width,
    DRAFTS: tl.constexpr,
    DRAFTS_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    history_at += tl.load(seats_at + row) * history_width
    last = tl.load(positions_at + row)
    one = tl.load(history_at + last)
    two = tl.load(history_at + last - 1, mask=last >= 1, other=-2)
    three = tl.load(history_at + last - 2, mask=last >= 2, other=-2)
    best = tl.full([BLOCK], -1, tl.int64)
    for start in range(0, last, BLOCK):
        end = start + tl.arange(0, BLOCK).to(tl.int64)
        is_like = tl.load(history_at + end, mask=end < last, other=-1) == one
        is_like &= tl.load(history_at + end - 1, mask=(end < last) & (end >= 1), other=-1) == two
        is_long = tl.load(history_at + end - 2, mask=(end < last) & (end >= 2), other=-1) == three
        best = tl.maximum(best, tl.where(is_like, end + tl.where(is_long, THREE, 0), -1))
    found = tl.max(best, axis=0)
    end = tl.where(found >= 0, found % THREE, 0)
    period = tl.where(found >= 0, last - end, 1)
    at = tl.arange(0, DRAFTS_PADDED)
    draft = tl.load(history_at + end + 1 + at % period, mask=found >= 0, other=-1)
    tl.store(drafts_at + row * DRAFTS + at, draft.to(tl.int64), mask=at < DRAFTS)


@triton.jit
def _settle(
    tokens_at,
    drafts_at,
    counts_at,
    wholes_at,
    seats_at,
    positions_at,
    seat_tokens_at,
    seat_positions_at,
    history_at,
    written_at,
    nobody,
    table_width,
    history_width,
    WIDTH: tl.constexpr,
    HAS_HISTORY: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    seat, position = tl.load(seats_at + row), tl.load(positions_at + row)
    kind = tl.load(wholes_at + seat * 5)
    at = tl.arange(0, WIDTH)
    token = tl.load(tokens_at + row * WIDTH + at)
    before = tl.load(tokens_at + row * WIDTH + at - 1, mask=at > 0, other=0)
    draft = tl.load(drafts_at + row * (WIDTH - 1) + at - 1, mask=at > 0, other=0)
    wrong = tl.cumsum((draft != before).to(tl.int32), axis=0)
    is_written = (wrong == 0) & ((kind != WIDE) | (at == 0))
    count = tl.sum(is_written.to(tl.int32), axis=0)
    tl.store(written_at + row, count.to(tl.int64))
    if seat != nobody:
        if HAS_HISTORY:
            written = history_at + seat * history_width + position + 1 + at
            tl.store(written, token.to(tl.int32), mask=is_written)
        if kind != WIDE:
            tl.store(seat_tokens_at + seat, tl.sum(tl.where(at == count - 1, token, 0), axis=0))
            tl.store(seat_positions_at + seat, position + count)
            if tl.load(wholes_at + seat * 5 + 4) != 0:
                # Equal tokens store the same sum, so it does not matter which of them is last.
                is_same = (token[:, None] == token[None, :]) & is_written[None, :]
                more = tl.sum(is_same.to(tl.int32), axis=1)
                place = counts_at + seat * table_width + token
                known = tl.load(place, mask=is_written, other=0)
                tl.store(place, (known + more).to(tl.int16), mask=is_written)
