"""What is measured, the most important first, and how long each may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch_table import core, engine, gateway, levers, memory, speculation, transformers_rows
from torch_table.core import Figures
from torch_table.place import Place


@dataclass(frozen=True, slots=True)
class Row:
    """``measure`` yields figures as they are known: what is cut off loses those that were not."""

    seconds: int
    measure: Callable[[Place], Iterator[Figures]]


ROWS: dict[str, Row] = {
    "speed": Row(120, core.speed),
    "first-token": Row(20, core.first_token),
    "long-prompt": Row(30, core.long_prompt),
    "floor": Row(20, core.floor),
    "gateway": Row(150, gateway.gateway),
    "capped": Row(100, memory.capped),
    "quantised": Row(80, memory.quantised),
    "seams": Row(120, engine.seams),
    "real-guesses": Row(80, speculation.real_guesses),
    "article": Row(60, transformers_rows.article),
    "batching": Row(80, transformers_rows.continuous_batching),
    "guesses": Row(80, speculation.guesses),
    "levers": Row(120, levers.levers),
    "attention": Row(50, levers.attention),
    "sampler": Row(50, levers.sampler),
    "engine": Row(80, engine.engine_speed),
    "equality": Row(40, core.equality),
    "compiled": Row(120, levers.compiled),
}
