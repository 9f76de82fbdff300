"""Draws tokens, each row by its own rules: the formula, in plain torch. ``kernels`` has it fused for a GPU.

In this order, as transformers does it where both know a rule: bias; no end before ``min_length``; repetition
penalty (over prompt and answer), frequency and presence penalty (over the answer); temperature; top_k; top_p;
min_p. Tokens rank by logit, equal ones by id, so that what is kept does not depend on how it was sorted.

The draw adds Gumbel noise to what is kept and takes the largest, which draws from the softmax (Gumbel 1954).
The noise is a hash of (seed, position, token): it depends neither on the rest of the batch nor on earlier
draws, so an answer that was cut goes on with the draws that it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inkstream.engines.torch.rules import NARROW, Kind, Rules
from inkstream.engines.torch.scheduler import Likelihood

IN_PROMPT = 1 << 14
"""Flag in a token's count: it is in the prompt."""

WORD = 0xFFFFFFFF
TEMPERATURE, TOP_P, LOG_MIN_P, REPETITION, PRESENCE, FREQUENCY = range(6)
KIND, TOP_K, SEED, MIN_LENGTH, NEEDS_COUNTS = range(5)


class RuleTable:
    """The rules of all seats on the device, and how often each token was in their texts."""

    def __init__(self, seats: int, vocabulary: int, stops: Sequence[int], device: torch.device) -> None:
        self.reals = torch.zeros(seats, 6, dtype=torch.float32, device=device)
        self.wholes = torch.zeros(seats, 5, dtype=torch.int64, device=device)
        self.counts = torch.zeros(seats, vocabulary, dtype=torch.int16, device=device)
        self.stops = torch.tensor(sorted(stops), dtype=torch.int64, device=device)
        self._biases: dict[int, tuple[Tensor, Tensor]] = {}

    def set(self, entries: Sequence[tuple[int, Rules, Sequence[int], Sequence[int]]]) -> None:
        """(seat, rules, prompt, what was written of the answer) for each seat that is newly taken."""
        if not entries:
            return
        seats = self._upload([seat for seat, *_ in entries])
        reals = torch.tensor([rules.reals for _, rules, *_ in entries], dtype=torch.float32)
        self.reals.index_copy_(0, seats, to_device(reals, self.reals.device))
        self.wholes.index_copy_(0, seats, self._upload([rules.wholes for _, rules, *_ in entries]))
        for seat, rules, _, _ in entries:
            self._set_bias(seat, rules.bias)
        counted = [entry for entry in entries if entry[1].needs_counts]
        if counted:
            self._count(counted)

    def bias(self, seat: int) -> tuple[Tensor, Tensor] | None:
        """Ids, and what is added to their logits."""
        return self._biases.get(seat)

    def _set_bias(self, seat: int, bias: Sequence[tuple[int, float]]) -> None:
        self._biases.pop(seat, None)
        if bias:
            values = torch.tensor([value for _, value in bias], dtype=torch.float32)
            ids = self._upload([id for id, _ in bias])
            self._biases[seat] = ids, to_device(values, self.reals.device)

    def _count(self, entries: Sequence[tuple[int, Rules, Sequence[int], Sequence[int]]]) -> None:
        width = self.counts.shape[1]
        self.counts.index_fill_(0, self._upload([seat for seat, *_ in entries]), 0)
        flat = self.counts.view(-1)
        prompts = [seat * width + id for seat, _, prompt, _ in entries for id in set(prompt)]
        flat.index_fill_(0, self._upload(prompts), IN_PROMPT)
        if written := [seat * width + id for seat, _, _, answer in entries for id in answer]:
            places = self._upload(written)
            flat.index_add_(0, places, torch.ones_like(places, dtype=torch.int16))

    def _upload(self, values: Sequence[int] | Sequence[tuple[int, ...]]) -> Tensor:
        return to_device(torch.tensor(values, dtype=torch.int64), self.wholes.device)


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Without waiting for what the device is doing."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def draw(
    logits: Tensor, table: RuleTable, seats: Sequence[int], positions: Tensor, *, is_draft: bool = False
) -> Tensor:
    """One token a row. ``positions`` are those of the tokens that the logits come from.

    A draft is not counted: it is not written yet. Float32 logits are changed.
    """
    index = to_device(torch.tensor(seats, dtype=torch.int64), logits.device)
    reals, wholes = table.reals[index], table.wholes[index]
    scores = _adjusted(logits.float(), table, seats, index, positions)
    tokens = scores.argmax(dim=-1)
    kinds = wholes[:, KIND]
    scores /= torch.where(reals[:, TEMPERATURE] > 0, reals[:, TEMPERATURE], 1.0).unsqueeze(1)
    for kind, width in ((Kind.OPEN, 0), (Kind.NARROW, NARROW), (Kind.WIDE, logits.shape[-1])):
        rows = (kinds == kind) & (reals[:, TEMPERATURE] > 0)
        if rows.any():
            drawn = _draw_open if kind is Kind.OPEN else _draw_best
            tokens[rows] = drawn(scores[rows], reals[rows], wholes[rows], positions[rows] + 1, width)
    if not is_draft:
        _remember(table, index, wholes, tokens)
    return tokens


def likelihoods(logits: Tensor, tokens: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the model itself thinks, before any rule: for each row the logarithmic probability of its token,
    then the ids of the ``most`` likeliest and theirs, all float32. Equal ones rank by id.
    """
    scores = logits.float()
    chances = scores - scores.logsumexp(dim=-1, keepdim=True)
    _, ids = _ranked(scores, most)
    return chances.gather(1, tokens.unsqueeze(1)).squeeze(1), ids, chances.gather(1, ids)


def told_of(logits: Tensor, tokens: Tensor, wanted: Sequence[int | None]) -> dict[int, Likelihood]:
    """Of the rows that want it, the likelihood of their token and of so many of the likeliest."""
    rows = [row for row, most in enumerate(wanted) if most is not None]
    if not rows:
        return {}
    chance, ids, chances = likelihoods(logits[rows], tokens[rows], max(wanted[row] or 0 for row in rows))
    told = zip(rows, chance.tolist(), ids.tolist(), chances.tolist(), strict=True)
    return {
        row: (own, list(zip(best[: wanted[row]], theirs, strict=False))) for row, own, best, theirs in told
    }


def noise(seeds: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
    """Standard Gumbel noise, float32, of shape (rows, tokens).

    The hash is Chris Wellons' lowbias32, keyed with seed and position. A uniform number near 0 is what makes
    a token win, and there floats are densest: hence the series for small ones.
    """
    low = _mixed((seeds & WORD) + (positions + 1) * 0x9E3779B9)
    high = _mixed((seeds >> 32 & WORD) ^ low ^ 0x85EBCA6B)
    hashed = _mixed(_mixed(ids * 0x9E3779B1 + low.unsqueeze(1)) ^ high.unsqueeze(1))
    uniform = ((hashed.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24)
    series = uniform * (1 + uniform * (1 / 2 + uniform * (1 / 3 + uniform / 4)))
    return -torch.where(uniform < 2.0**-6, series, -torch.log(1 - uniform)).log()


def _mixed(x: Tensor) -> Tensor:
    x = x & WORD
    x = (x ^ x >> 16) * 0x7FEB352D & WORD
    x = (x ^ x >> 15) * 0x846CA68B & WORD
    return x ^ x >> 16


def _adjusted(
    scores: Tensor, table: RuleTable, seats: Sequence[int], index: Tensor, positions: Tensor
) -> Tensor:
    for row, seat in enumerate(seats):
        if bias := table.bias(seat):
            scores[row].index_add_(0, *bias)
    wholes = table.wholes[index]
    early = positions + 1 < wholes[:, MIN_LENGTH]
    if early.any():
        forbidden = early.nonzero() * scores.shape[1] + table.stops
        scores.view(-1)[forbidden.view(-1)] = -torch.inf
    counted = wholes[:, NEEDS_COUNTS] > 0
    if counted.any():
        scores[counted] = _penalised(
            scores[counted], table.counts[index[counted]], table.reals[index[counted]]
        )
    return scores


def _penalised(scores: Tensor, counts: Tensor, reals: Tensor) -> Tensor:
    repetition = reals[:, REPETITION].unsqueeze(1)
    repeated = torch.where(scores > 0, scores / repetition, scores * repetition)
    scores = torch.where(counts > 0, repeated, scores)
    written = (counts & (IN_PROMPT - 1)).float()
    scores -= written * reals[:, FREQUENCY].unsqueeze(1)
    return scores - (written > 0) * reals[:, PRESENCE].unsqueeze(1)


def _draw_open(scores: Tensor, reals: Tensor, wholes: Tensor, positions: Tensor, width: int) -> Tensor:
    ids = torch.arange(scores.shape[1], device=scores.device).unsqueeze(0)
    return (scores + noise(wholes[:, SEED], positions, ids)).argmax(dim=-1)


def _draw_best(scores: Tensor, reals: Tensor, wholes: Tensor, positions: Tensor, width: int) -> Tensor:
    """From the ``width`` best, of which the rules keep some."""
    values, ids = _ranked(scores, min(width, scores.shape[1]))
    top_k = wholes[:, TOP_K].unsqueeze(1)
    ranks = torch.arange(values.shape[1], device=values.device)
    values = values.masked_fill((top_k > 0) & (ranks >= top_k), -torch.inf)
    chances = values.softmax(dim=-1)
    is_kept = chances.cumsum(dim=-1) - chances < reals[:, TOP_P].unsqueeze(1)
    is_kept &= values >= values[:, :1] + reals[:, LOG_MIN_P].unsqueeze(1)
    is_kept[:, 0] = True
    noisy = values.masked_fill(~is_kept, -torch.inf) + noise(wholes[:, SEED], positions, ids)
    return ids.gather(1, noisy.argmax(dim=-1, keepdim=True)).squeeze(1)


def _ranked(scores: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The best by score, equal scores by smaller id first: both are in one whole number, which is sorted."""
    bits = scores.view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    ids = torch.arange(scores.shape[1], device=scores.device)
    ranking = (ordered << 32) | (WORD - ids)
    # Selecting all of them takes many times as long as sorting.
    is_all = width == scores.shape[1]
    best = ranking.sort(descending=True).values if is_all else ranking.topk(width).values
    chosen = WORD - (best & WORD)
    return scores.gather(1, chosen), chosen


def _remember(table: RuleTable, index: Tensor, wholes: Tensor, tokens: Tensor) -> None:
    counted = (wholes[:, NEEDS_COUNTS] > 0).to(torch.int16)
    table.counts.index_put_((index, tokens), counted, accumulate=True)
