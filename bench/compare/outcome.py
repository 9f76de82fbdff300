"""What a scenario found: judged rows, a table, everything measured; kept as JSON and shown as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from inkstream.bench import Figures
from inkstream.bench.machine import Machine

RESULTS = Path(__file__).parents[1] / "results"
VERDICTS = {True: "yes", False: "**no**", None: ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that must hold. ``holds`` None: shown, not judged."""

    what: str
    measured: str
    target: str = ""
    holds: bool | None = None


@dataclass(slots=True)
class Outcome:
    title: str
    command: str
    rows: list[Row] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    figures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine.here)

    def keep(self, name: str, figures: Figures) -> Figures:
        self.figures.setdefault(name, []).append(asdict(figures))
        return figures

    def judge(
        self,
        what: str,
        values: Iterable[float],
        unit: str,
        *,
        most: float | None = None,
        least: float | None = None,
        target: str = "",
    ) -> None:
        """The median over rounds against a bound, if there is one, with its range."""
        found = sorted(values)
        middle = median(found)
        measured = f"{shown(middle)} {unit}"
        if len(found) > 1:
            measured += f" ({shown(found[0])}–{shown(found[-1])})"
        holds, bound = None, ""
        if most is not None:
            holds, bound = middle <= most, f"≤ {shown(most)} {unit}"
        elif least is not None:
            holds, bound = middle >= least, f"≥ {shown(least)} {unit}"
        self.rows.append(Row(what, measured.strip(), (target or bound).strip(), holds))

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", f"`{self.command}`", ""]
        if self.rows:
            judged = [[row.what, row.measured, row.target, VERDICTS[row.holds]] for row in self.rows]
            lines += [*_table([["what", "measured", "target", "holds"], *judged]), ""]
        if self.table:
            lines += [*_table(self.table), ""]
        return "\n".join([*lines, self._circumstances(), ""])

    def _circumstances(self) -> str:
        late = [figures["jitter"]["p99"] * 1e3 for rounds in self.figures.values() for figures in rounds]
        machine = f"{self.machine.cpu}, {self.machine.cores} cores, load {self.machine.load} before"
        return f"{machine}; an idle process's timers were late by p99 {shown(median(late))} ms."

    def write(self, name: str) -> None:
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        (RESULTS / f"{name}.md").write_text(self.markdown(), encoding="utf-8")


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def of(figures: Sequence[Figures], read: Callable[[Figures], float]) -> str:
    """A cell: the median over rounds."""
    return shown(median(map(read, figures)))


def _table(lines: list[list[str]]) -> list[str]:
    head, *body = lines
    return [_line(head), "|---" * len(head) + "|", *map(_line, body)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
