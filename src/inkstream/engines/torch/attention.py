"""Attention over pages as Triton kernels: a row reads what it has, not a window.

Rows that write have one query each. Key heads and, where the batch is small, parts of the text are looked at
by different programs, whose results are then combined (flash-decoding; Dao et al. 2023). Fills have blocks of
queries of one row each (FlashAttention-2; Dao 2023). The softmax is computed online in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from inkstream.engines.torch.cache import PAGE
from inkstream.engines.torch.forward import Layer, Weights
from inkstream.engines.torch.plain import KeyValues

GRAIN = 8
"""Tokens of a fill that look back together. All of them are one row's, so fills are padded to it."""

TILE = 64
"""Keys that are looked at together."""

LEAST_DOT = 16
"""Rows that a matrix product on tensor cores has at least."""

MOST_SPLITS = 32
ROW_PROGRAMS, FILL_PROGRAMS = 1024, 512
"""As many keep the multiprocessors of a large GPU busy (bench/torch.md)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the tokens of a batch belong. ``tables`` has the pages of each seat. All on the device."""

    seats: Tensor
    positions: Tensor
    tables: Tensor


class _Splits:
    """Into how many parts a text is cut that few programs look at, and what each part has seen."""

    def __init__(self, weights: Weights, tokens: int, parts: int) -> None:
        shape, device = weights.shape, weights.device
        self.count = min(1 << (max(parts, 1).bit_length() - 1), MOST_SPLITS)
        size = (tokens, shape.heads, self.count) if self.count > 1 else (0, 0, 0)
        self.seen = torch.empty(*size, shape.head_width, dtype=torch.float32, device=device)
        self.sums = torch.empty(*size, dtype=torch.float32, device=device)

    def combine(self, out: Tensor) -> Tensor:
        if self.count > 1:
            tokens, heads, splits, width = self.seen.shape
            _combine[(tokens, heads)](self.seen, self.sums, out, heads, width, splits, num_warps=2)
        return out


class RowAttend:
    """One token of each row; its key and value are stored by the program that looks at them."""

    def __init__(self, weights: Weights, cache: KeyValues, rows: Rows) -> None:
        self._weights, self._cache, self._rows = weights, cache, rows
        count = rows.seats.shape[0]
        self._splits = _Splits(weights, count, ROW_PROGRAMS // max(count * weights.shape.key_heads, 1))

    def __call__(self, layer: int, weights: Layer, qkv: Tensor) -> Tensor:
        shape, rows = self._weights.shape, self._rows
        count = rows.seats.shape[0]
        out = torch.empty(count, shape.heads * shape.head_width, dtype=qkv.dtype, device=qkv.device)
        _look_rows[(count, shape.key_heads, self._splits.count)](
            qkv,
            self._cache.keys[layer],
            self._cache.values[layer],
            rows.tables,
            rows.seats,
            rows.positions,
            self._weights.cos,
            self._weights.sin,
            weights.query_norm,
            weights.key_norm,
            out,
            self._splits.seen,
            self._splits.sums,
            rows.tables.shape[1],
            shape.epsilon,
            shape.head_width**-0.5,
            shape.heads,
            shape.key_heads,
            shape.head_width,
            max(LEAST_DOT, triton.next_power_of_2(shape.group)),
            PAGE,
            TILE,
            self._splits.count,
            weights.query_norm is not None,
            num_warps=4 if self._splits.count == 1 else 2,
        )
        return self._splits.combine(out)


class FillAttend:
    """Stretches of rows. Positions below 0 are padding; they store nothing and see nothing."""

    def __init__(self, weights: Weights, cache: KeyValues, rows: Rows) -> None:
        self._weights, self._cache, self._rows = weights, cache, rows
        count = rows.seats.shape[0]
        blocks = count // GRAIN * weights.shape.key_heads
        self._splits = _Splits(weights, count, FILL_PROGRAMS // max(blocks, 1))

    def __call__(self, layer: int, weights: Layer, qkv: Tensor) -> Tensor:
        shape, rows, cache = self._weights.shape, self._rows, self._cache
        count = qkv.shape[0]
        query = torch.empty(count, shape.heads * shape.head_width, dtype=qkv.dtype, device=qkv.device)
        out = torch.empty_like(query)
        _store[(count,)](
            qkv,
            query,
            cache.keys[layer],
            cache.values[layer],
            rows.tables,
            rows.seats,
            rows.positions,
            self._weights.cos,
            self._weights.sin,
            weights.query_norm,
            weights.key_norm,
            rows.tables.shape[1],
            shape.epsilon,
            shape.heads,
            shape.key_heads,
            shape.head_width,
            triton.next_power_of_2(shape.heads + 2 * shape.key_heads),
            PAGE,
            weights.query_norm is not None,
        )
        _look_fills[(count // GRAIN, shape.key_heads, self._splits.count)](
            query,
            cache.keys[layer],
            cache.values[layer],
            rows.tables,
            rows.seats,
            rows.positions,
            out,
            self._splits.seen,
            self._splits.sums,
            rows.tables.shape[1],
            shape.head_width**-0.5,
            shape.heads,
            shape.key_heads,
            shape.head_width,
            max(triton.next_power_of_2(shape.group), LEAST_DOT // GRAIN),
            GRAIN,
            PAGE,
            TILE,
            self._splits.count,
            num_warps=4 if shape.head_width <= 64 else 8,
        )
        return self._splits.combine(out)


@triton.jit
def _rotated(at, head, d, cos, sin, norm_at, EPSILON, inside, D: tl.constexpr, HAS_NORM: tl.constexpr):
    """Rows ``head`` of width D, normalised if need be, turned by an angle for each pair (d, d + D/2)."""
    partner = (d + D // 2) % D
    x = tl.load(at + head * D + d, mask=inside, other=0.0)
    y = tl.load(at + head * D + partner, mask=inside, other=0.0)
    if HAS_NORM:
        wide = x.to(tl.float32)
        scale = tl.rsqrt(tl.sum(wide * wide, axis=1) / D + EPSILON)[:, None]
        x = (wide * scale).to(at.dtype.element_ty) * tl.load(norm_at + d)
        y = (y.to(tl.float32) * scale).to(at.dtype.element_ty) * tl.load(norm_at + partner)
    sign = tl.where(d < D // 2, -1.0, 1.0)
    return x.to(tl.float32) * cos + y.to(tl.float32) * sign * sin


@triton.jit
def _look_rows(
    qkv_at,
    keys_at,
    values_at,
    tables_at,
    seats_at,
    positions_at,
    cos_at,
    sin_at,
    query_norm_at,
    key_norm_at,
    out_at,
    parts_at,
    sums_at,
    table_width,
    EPSILON: tl.constexpr,
    SCALE: tl.constexpr,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    D: tl.constexpr,
    QUERIES: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    SPLITS: tl.constexpr,
    HAS_NORM: tl.constexpr,
):
    row, key_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    group: tl.constexpr = HEADS // KEY_HEADS
    dtype = keys_at.dtype.element_ty
    seat = tl.load(seats_at + row)
    position = tl.load(positions_at + row)
    table_at = tables_at + seat * table_width
    qkv_at += row * (HEADS + 2 * KEY_HEADS) * D
    d = tl.arange(0, D)
    query_in_group = tl.arange(0, QUERIES)
    is_query = query_in_group < group
    head = key_head * group + query_in_group
    cos = tl.load(cos_at + position * (D // 2) + d % (D // 2))[None, :]
    sin = tl.load(sin_at + position * (D // 2) + d % (D // 2))[None, :]
    query = _rotated(
        qkv_at, head[:, None], d[None, :], cos, sin, query_norm_at, EPSILON, is_query[:, None], D, HAS_NORM
    ).to(dtype)

    best = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    seen = tl.zeros([QUERIES, D], tl.float32)
    if split == 0:
        one = tl.arange(0, 1)[:, None]
        key = _rotated(
            qkv_at, HEADS + key_head + one, d[None, :], cos, sin, key_norm_at, EPSILON, one == 0, D, HAS_NORM
        ).to(dtype)
        value = tl.load(qkv_at + (HEADS + KEY_HEADS + key_head) * D + d)
        page = tl.load(table_at + position // PAGE).to(tl.int64)
        place = ((page * KEY_HEADS + key_head) * PAGE + position % PAGE) * D
        tl.store(keys_at + place + d[None, :], key)
        tl.store(values_at + place + d, value)
        best = tl.sum(query.to(tl.float32) * key.to(tl.float32), axis=1) * SCALE
        total += 1.0
        seen += value.to(tl.float32)[None, :]

    tiles = tl.cdiv(position, TILE)
    part = tl.cdiv(tiles, SPLITS)
    for tile in range(split * part, tl.minimum((split + 1) * part, tiles)):
        at = tile * TILE + tl.arange(0, TILE)
        page = tl.load(table_at + at // PAGE, mask=at < position, other=0).to(tl.int64)
        place = ((page * KEY_HEADS + key_head) * PAGE + at % PAGE)[:, None] * D + d[None, :]
        key = tl.load(keys_at + place)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
        score = tl.where((at < position)[None, :], score, float("-inf"))
        new_best = tl.maximum(best, tl.max(score, axis=1))
        weight = tl.exp(score - new_best[:, None])
        shrink = tl.exp(best - new_best)
        total = total * shrink + tl.sum(weight, axis=1)
        value = tl.load(values_at + place)
        seen = seen * shrink[:, None] + tl.dot(weight.to(dtype), value, input_precision="ieee")
        best = new_best

    _keep(out_at, parts_at, sums_at, row * HEADS + head, split, best, total, seen, is_query, D, SPLITS)


@triton.jit
def _keep(
    out_at, parts_at, sums_at, slot, split, best, total, seen, is_query, D: tl.constexpr, SPLITS: tl.constexpr
):
    """The outcome for queries in ``slot``, or this part's and the logarithm of its sum."""
    d = tl.arange(0, D)[None, :]
    seen = seen / tl.where(total > 0, total, 1.0)[:, None]
    if SPLITS == 1:
        tl.store(out_at + slot[:, None] * D + d, seen.to(out_at.dtype.element_ty), mask=is_query[:, None])
    else:
        slot = slot * SPLITS + split
        # A part behind the end of the text has seen nothing: its sum says so, and nobody reads the rest.
        tl.store(parts_at + slot[:, None] * D + d, seen, mask=(is_query & (total > 0))[:, None])
        summed = tl.where(total > 0, best + tl.log(tl.where(total > 0, total, 1.0)), float("-inf"))
        tl.store(sums_at + slot, summed, mask=is_query)


@triton.jit
def _combine(parts_at, sums_at, out_at, HEADS: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr):
    slot = tl.program_id(0) * HEADS + tl.program_id(1)
    split, d = tl.arange(0, SPLITS), tl.arange(0, D)
    summed = tl.load(sums_at + slot * SPLITS + split)
    highest = tl.max(summed, axis=0)
    weight = tl.exp(summed - tl.where(highest == float("-inf"), 0.0, highest))
    place = (slot * SPLITS + split)[:, None] * D + d[None, :]
    parts = tl.load(parts_at + place, mask=(weight > 0)[:, None], other=0.0)
    total = tl.sum(weight, axis=0)
    result = tl.sum(parts * weight[:, None], axis=0) / tl.where(total > 0, total, 1.0)
    tl.store(out_at + slot * D + d, result.to(out_at.dtype.element_ty))


@triton.jit
def _store(
    qkv_at,
    query_at,
    keys_at,
    values_at,
    tables_at,
    seats_at,
    positions_at,
    cos_at,
    sin_at,
    query_norm_at,
    key_norm_at,
    table_width,
    EPSILON: tl.constexpr,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    D: tl.constexpr,
    ALL_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    HAS_NORM: tl.constexpr,
):
    token = tl.program_id(0)
    position = tl.load(positions_at + token)
    if position >= 0:
        dtype = keys_at.dtype.element_ty
        seat = tl.load(seats_at + token)
        qkv_at += token * (HEADS + 2 * KEY_HEADS) * D
        head, d = tl.arange(0, ALL_HEADS)[:, None], tl.arange(0, D)[None, :]
        cos = tl.load(cos_at + position * (D // 2) + d % (D // 2))
        sin = tl.load(sin_at + position * (D // 2) + d % (D // 2))
        is_query = head < HEADS
        query = _rotated(qkv_at, head, d, cos, sin, query_norm_at, EPSILON, is_query, D, HAS_NORM)
        tl.store(query_at + token * HEADS * D + head * D + d, query.to(dtype), mask=is_query)
        is_key = (head >= HEADS) & (head < HEADS + KEY_HEADS)
        key = _rotated(qkv_at, head, d, cos, sin, key_norm_at, EPSILON, is_key, D, HAS_NORM)
        page = tl.load(tables_at + seat * table_width + position // PAGE).to(tl.int64)
        place = ((page * KEY_HEADS + head - HEADS) * PAGE + position % PAGE) * D + d
        tl.store(keys_at + place, key.to(dtype), mask=is_key)
        is_value = (head >= HEADS + KEY_HEADS) & (head < HEADS + 2 * KEY_HEADS)
        value = tl.load(qkv_at + head * D + d, mask=is_value, other=0.0)
        tl.store(values_at + place - KEY_HEADS * PAGE * D, value, mask=is_value)


@triton.jit
def _look_fills(
    query_at,
    keys_at,
    values_at,
    tables_at,
    seats_at,
    positions_at,
    out_at,
    parts_at,
    sums_at,
    table_width,
    SCALE: tl.constexpr,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    D: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    GRAIN: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    SPLITS: tl.constexpr,
):
    block, key_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    group: tl.constexpr = HEADS // KEY_HEADS
    dtype = keys_at.dtype.element_ty
    m = tl.arange(0, GRAIN * GROUP_PADDED)
    token = block * GRAIN + m // GROUP_PADDED
    position = tl.load(positions_at + token)
    is_query = (m % GROUP_PADDED < group) & (position >= 0)
    head = key_head * group + m % GROUP_PADDED
    d = tl.arange(0, D)
    place = (token * HEADS + head)[:, None] * D + d[None, :]
    query = tl.load(query_at + place, mask=is_query[:, None], other=0.0)
    seat = tl.load(seats_at + block * GRAIN)
    table_at = tables_at + seat * table_width
    end = tl.max(position, axis=0) + 1

    best = tl.full([GRAIN * GROUP_PADDED], float("-inf"), tl.float32)
    total = tl.zeros([GRAIN * GROUP_PADDED], tl.float32)
    seen = tl.zeros([GRAIN * GROUP_PADDED, D], tl.float32)
    tiles = tl.cdiv(end, TILE)
    part = tl.cdiv(tiles, SPLITS)
    for tile in range(split * part, tl.minimum((split + 1) * part, tiles)):
        at = tile * TILE + tl.arange(0, TILE)
        page = tl.load(table_at + at // PAGE, mask=at < end, other=0).to(tl.int64)
        key_place = ((page * KEY_HEADS + key_head) * PAGE + at % PAGE)[:, None] * D + d[None, :]
        key = tl.load(keys_at + key_place)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
        score = tl.where(at[None, :] <= position[:, None], score, float("-inf"))
        new_best = tl.maximum(best, tl.max(score, axis=1))
        # A query that has seen nothing yet, because its part lies behind it, has nothing to shrink.
        base = tl.where(new_best == float("-inf"), 0.0, new_best)
        weight = tl.exp(score - base[:, None])
        shrink = tl.exp(best - base)
        total = total * shrink + tl.sum(weight, axis=1)
        value = tl.load(values_at + key_place)
        seen = seen * shrink[:, None] + tl.dot(weight.to(dtype), value, input_precision="ieee")
        best = new_best
    # Padding has seen nothing and leaves zeros, not what was there: its rows are computed with, too.
    is_head = m % GROUP_PADDED < group
    _keep(out_at, parts_at, sums_at, token * HEADS + head, split, best, total, seen, is_head, D, SPLITS)
