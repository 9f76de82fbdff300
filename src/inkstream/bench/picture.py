"""The figures as a picture: latency percentiles over the loads, as one SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10

from inkstream.bench.report import milliseconds
from inkstream.bench.result import Figures, Result
from inkstream.bench.stats import Percentiles, Spread
from inkstream.words import Words

WIDTH, HEIGHT, LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 980, 420, 60, 60, 370, 280
GAP = 110
LINES = (("p50", "#1b6e53"), ("p90", "#3b6fb6"), ("p99", "#c07a1c"), ("max", "#b3423a"))
LEAST_SECONDS = 1e-5


def svg(result: Result, say: Words) -> str:
    """Two plots side by side: first token and inter-token latency. Bars show the range over the rounds."""
    loads = list(result.loads().values())
    names = [f"{rounds[0].rate:g}/s" if rounds[0].rate else str(rounds[0].streams) for rounds in loads]
    axis = say("streams", "并发流") if not result.plan.rate else say("new answers per second", "每秒新回答")
    machine = f"{result.machine.cpu}, {result.machine.cores} " + say("cores", "核")
    jitter = say("idle timers late by p99 ", "空闲定时器晚到 p99 ") + f"{milliseconds(_jitter(result))} ms"
    panels = (
        _panel(0, say("first token, ms", "首 token，毫秒"), names, axis, _spreads(loads, lambda f: f.first)),
        _panel(1, say("inter-token, ms", "token 间隔，毫秒"), names, axis, _spreads(loads, lambda f: f.gap)),
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{LEFT}" y="24" font-size="15">{escape(result.plan.url)} · {escape(result.api)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 12}" fill="#666">{escape(f"{machine} · {jitter}")}</text>'
        + _legend()
        + "".join(panels)
        + "</svg>\n"
    )


def _jitter(result: Result) -> float:
    return Spread.of([figures.jitter.p99 for figures in result.rounds]).median


def _spreads(loads: list[list[Figures]], part: Callable[[Figures], Percentiles]) -> dict[str, list[Spread]]:
    return {
        name: [Spread.of([getattr(part(figures), name) for figures in rounds]) for rounds in loads]
        for name, _ in LINES
    }


def _panel(at: int, title: str, names: Sequence[str], axis: str, lines: dict[str, list[Spread]]) -> str:
    left = LEFT + at * (PLOT_WIDTH + GAP)
    values = [max(value, LEAST_SECONDS) for line in lines.values() for s in line for value in (s.min, s.max)]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)

    def y(seconds: float) -> float:
        share = (log10(max(seconds, LEAST_SECONDS)) - low) / (high - low)
        return TOP + PLOT_HEIGHT * (1 - share)

    xs = [left + PLOT_WIDTH * (place + 0.5) / len(names) for place in range(len(names))]
    marks = [_grid(left, y(10.0**power), milliseconds(10.0**power)) for power in range(low, high + 1)]
    marks += [_text(x, TOP + PLOT_HEIGHT + 18, name) for x, name in zip(xs, names, strict=True)]
    marks.append(_text(left + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT + 36, axis))
    marks.append(_text(left + PLOT_WIDTH / 2, TOP - 14, title))
    for (_, colour), line in zip(LINES, lines.values(), strict=True):
        marks.append(_curve(xs, line, y, colour))
    return "".join(marks)


def _curve(xs: Sequence[float], line: list[Spread], y: Callable[[float], float], colour: str) -> str:
    points = " ".join(f"{x:.1f},{y(s.median):.1f}" for x, s in zip(xs, line, strict=True))
    bars = "".join(
        f'<path d="M{x:.1f} {y(s.min):.1f}V{y(s.max):.1f}" stroke="{colour}" stroke-width="5" opacity=".25"/>'
        f'<circle cx="{x:.1f}" cy="{y(s.median):.1f}" r="3" fill="{colour}"/>'
        for x, s in zip(xs, line, strict=True)
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>{bars}'


def _legend() -> str:
    words = "".join(f'<tspan dx="14" fill="{colour}">{name}</tspan>' for name, colour in LINES)
    return f'<text x="{WIDTH - 30}" y="24" text-anchor="end">{words}</text>'


def _grid(left: float, y: float, label: str) -> str:
    return (
        f'<path d="M{left:.1f} {y:.1f}h{PLOT_WIDTH}" stroke="#ddd"/>'
        f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{label}</text>'
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="#333">{escape(text)}</text>'
