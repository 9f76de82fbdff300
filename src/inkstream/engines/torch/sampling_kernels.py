"""The formula of ``sampler`` as two Triton kernels, for all rows but WIDE ones.

The first looks at all logits once and keeps the best score of each group of tokens. The 64 best tokens lie in
the 64 best groups: of any other group's tokens each of those has a better one. The second kernel takes these
groups alone, ranks their tokens, draws, and moves the row on. The host is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from inkstream.engines.torch.rules import NARROW, Kind
from inkstream.engines.torch.sampler import IN_PROMPT, RuleTable

GROUP = 64
"""Tokens in a group."""

BLOCK = 4096
"""Tokens that one program of the first kernel looks at."""

OPEN, NARROW_KIND, WIDE = tl.constexpr(Kind.OPEN), tl.constexpr(Kind.NARROW), tl.constexpr(Kind.WIDE)
WRITTEN = tl.constexpr(IN_PROMPT - 1)


@dataclass(frozen=True, slots=True)
class Places:
    """For each seat its last token, at which position the next one is computed, and from which on none is."""

    tokens: Tensor
    positions: Tensor
    ends: Tensor


def draw_and_move(
    logits: Tensor, table: RuleTable, seats: Tensor, positions: Tensor, places: Places, nobody: int
) -> Tensor:
    """A token for each row; its seat moves on, but ``nobody``'s and those of WIDE rows."""
    return _draw(logits, table, seats, positions, None, places, nobody)


def draw_ahead(
    logits: Tensor, table: RuleTable, seats: Tensor, positions: Tensor, drafts: Tensor | None = None
) -> Tensor:
    """A token for each row, and nobody moves.

    With ``drafts``, (texts, d), there are d + 1 rows of each text, and those before its own count as written.
    """
    return _draw(logits, table, seats, positions, drafts, None, -1)


def _draw(
    logits: Tensor,
    table: RuleTable,
    seats: Tensor,
    positions: Tensor,
    drafts: Tensor | None,
    places: Places | None,
    nobody: int,
) -> Tensor:
    rows, vocabulary = logits.shape
    groups = triton.cdiv(vocabulary, GROUP)
    best = torch.empty(rows, groups, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    common = (logits, table.counts, table.reals, table.wholes, table.stops, drafts, seats, positions)
    sizes = (vocabulary, table.counts.shape[1], groups)
    known = (table.stops.shape[0], 0 if drafts is None else drafts.shape[1])
    _score_groups[(rows, triton.cdiv(vocabulary, BLOCK))](*common, best, *sizes, *known, GROUP, BLOCK)
    _choose[(rows,)](
        *common,
        best,
        tokens,
        None if places is None else places.tokens,
        None if places is None else places.positions,
        nobody,
        *sizes,
        *known,
        places is not None,
        GROUP,
        NARROW,
        max(triton.next_power_of_2(groups), NARROW),
        num_warps=8,
    )
    return tokens


@triton.jit
def _mixed(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _noise(seed, position, ids):
    at = (position + 1).to(tl.uint32)
    low = _mixed((seed & 0xFFFFFFFF).to(tl.uint32) + at * 0x9E3779B9)
    high = _mixed(((seed >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ low ^ 0x85EBCA6B)
    hashed = _mixed(_mixed(ids.to(tl.uint32) * 0x9E3779B1 + low) ^ high)
    uniform = tl.minimum((hashed.to(tl.float32) + 0.5) * (1 / 4294967296), 1 - 1 / 16777216)
    series = uniform * (1 + uniform * (1 / 2 + uniform * (1 / 3 + uniform / 4)))
    return -tl.log(tl.where(uniform < 1 / 64, series, -tl.log(1 - uniform)))


@triton.jit
def _scores(
    ids,
    logits_at,
    counts_at,
    reals_at,
    wholes_at,
    stops_at,
    drafts_at,
    row,
    seat,
    position,
    vocabulary,
    table_width,
    STOPS: tl.constexpr,
    DRAFTS: tl.constexpr,
):
    """As the formula has them before any token is dropped; of an OPEN row with its noise."""
    inside = ids < vocabulary
    reals_at += seat * 6
    wholes_at += seat * 5
    scores = tl.load(logits_at + row * vocabulary + ids, mask=inside, other=float("-inf")).to(tl.float32)
    if position + 1 < tl.load(wholes_at + 3):
        for at in tl.static_range(STOPS):
            scores = tl.where(ids == tl.load(stops_at + at), float("-inf"), scores)
    if tl.load(wholes_at + 4) != 0:
        repetition, presence, frequency = tl.load(reals_at + 3), tl.load(reals_at + 4), tl.load(reals_at + 5)
        counts = tl.load(counts_at + seat * table_width + ids, mask=inside, other=0).to(tl.int32)
        for at in tl.static_range(DRAFTS):
            draft = tl.load(drafts_at + (row // (DRAFTS + 1)) * DRAFTS + at)
            counts += ((ids == draft) & (at < row % (DRAFTS + 1))).to(tl.int32)
        repeated = tl.where(scores > 0, scores / repetition, scores * repetition)
        scores = tl.where(counts > 0, repeated, scores)
        written = (counts & WRITTEN).to(tl.float32)
        scores = scores - written * frequency - tl.where(written > 0, presence, 0.0)
    temperature = tl.load(reals_at)
    scores = scores / tl.where(temperature > 0, temperature, 1.0)
    if tl.load(wholes_at) == OPEN:
        scores += _noise(tl.load(wholes_at + 2), position + 1, ids)
    return scores


@triton.jit
def _ranking(scores, ids):
    """One number that sorts by score, equal scores by smaller id first."""
    bits = scores.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0xFFFFFFFF - ids.to(tl.int64))


@triton.jit
def _id_of(ranking):
    return 0xFFFFFFFF - (ranking & 0xFFFFFFFF)


@triton.jit
def _score_of(ranking):
    ordered = (ranking >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _draw_narrow(ranked, reals_at, wholes_at, position, WIDTH: tl.constexpr):
    """One of the candidates, best first, that the rules keep."""
    values, candidates, rank = _score_of(ranked), _id_of(ranked), tl.arange(0, WIDTH)
    values = tl.where(rank < tl.load(wholes_at + 1), values, float("-inf"))
    highest = tl.max(values, axis=0)
    chances = tl.exp(values - highest)
    chances = chances / tl.sum(chances, axis=0)
    before = tl.cumsum(chances, axis=0) - chances
    is_kept = (before < tl.load(reals_at + 1)) | (rank == 0)
    is_kept &= values >= highest + tl.load(reals_at + 2)
    noisy = values + _noise(tl.load(wholes_at + 2), position, candidates)
    winner = tl.argmax(tl.where(is_kept, noisy, float("-inf")), axis=0)
    return tl.sum(tl.where(rank == winner, candidates, 0), axis=0)


@triton.jit
def _score_groups(
    logits_at,
    counts_at,
    reals_at,
    wholes_at,
    stops_at,
    drafts_at,
    seats_at,
    positions_at,
    best_at,
    vocabulary,
    table_width,
    groups,
    STOPS: tl.constexpr,
    DRAFTS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    seat, position = tl.load(seats_at + row), tl.load(positions_at + row)
    group = tl.program_id(1) * (BLOCK // GROUP) + tl.arange(0, BLOCK // GROUP)
    ids = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    scores = _scores(
        ids,
        logits_at,
        counts_at,
        reals_at,
        wholes_at,
        stops_at,
        drafts_at,
        row,
        seat,
        position,
        vocabulary,
        table_width,
        STOPS,
        DRAFTS,
    )
    tl.store(best_at + row * groups + group, tl.max(scores, axis=1), mask=group < groups)


@triton.jit
def _choose(
    logits_at,
    counts_at,
    reals_at,
    wholes_at,
    stops_at,
    drafts_at,
    seats_at,
    positions_at,
    best_at,
    tokens_at,
    seat_tokens_at,
    seat_positions_at,
    nobody,
    vocabulary,
    table_width,
    groups,
    STOPS: tl.constexpr,
    DRAFTS: tl.constexpr,
    MOVES: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS_PADDED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    seat, position = tl.load(seats_at + row), tl.load(positions_at + row)
    kind = tl.load(wholes_at + seat * 5)
    group = tl.arange(0, GROUPS_PADDED)
    best = tl.load(best_at + row * groups + group, mask=group < groups, other=float("-inf"))
    if kind == NARROW_KIND:
        chosen = _id_of(tl.topk(_ranking(best, group), WIDTH))
        ids = tl.reshape(chosen[:, None] * GROUP + tl.arange(0, GROUP)[None, :], [WIDTH * GROUP])
        scores = _scores(
            ids,
            logits_at,
            counts_at,
            reals_at,
            wholes_at,
            stops_at,
            drafts_at,
            row,
            seat,
            position,
            vocabulary,
            table_width,
            STOPS,
            DRAFTS,
        )
        ranked = tl.topk(_ranking(scores, ids), WIDTH)
        token = _draw_narrow(ranked, reals_at + seat * 6, wholes_at + seat * 5, position + 1, WIDTH)
    else:
        token = tl.argmax(best, axis=0).to(tl.int64) * GROUP
        only = token + tl.arange(0, GROUP)
        scores_of_group = _scores(
            only,
            logits_at,
            counts_at,
            reals_at,
            wholes_at,
            stops_at,
            drafts_at,
            row,
            seat,
            position,
            vocabulary,
            table_width,
            STOPS,
            DRAFTS,
        )
        token += tl.argmax(scores_of_group, axis=0)
    tl.store(tokens_at + row, token)
    if MOVES:  # noqa: SIM102 - decided when it is compiled, the other when it runs
        if (seat != nobody) & (kind != WIDE):
            tl.store(seat_tokens_at + seat, token)
            tl.store(seat_positions_at + seat, position + 1)
            if tl.load(wholes_at + seat * 5 + 4) != 0:
                count_at = counts_at + seat * table_width + token
                tl.store(count_at, tl.load(count_at) + 1)
