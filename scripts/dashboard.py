"""Prints deploy/grafana-dashboard.json as a picture: what its queries answer, drawn without Grafana.

python scripts/dashboard.py http://127.0.0.1:9090 300 > dashboard.svg     its last 300 seconds
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

DASHBOARD = Path(__file__).parent.parent / "deploy" / "grafana-dashboard.json"
COLUMNS, WIDTH, HEIGHT, PLOT_WIDTH, PLOT_HEIGHT, LEFT, TOP = 3, 400, 190, 320, 100, 60, 50
POINTS = 120
LEGEND_CHARS = 76
COLOURS = ("#1b6e53", "#3b6fb6", "#c07a1c", "#b3423a", "#7a4fa3", "#4d4d4d")
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
UNITS = {"s": "s", "bytes": "B", "ops": "/s", "celsius": "°C", "short": "", "percentunit": "%"}


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


def picture(prometheus: httpx.Client, seconds: float) -> str:
    """One SVG that needs nothing else."""
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    end = time.time()
    drawn = []
    for at, panel in enumerate(panels):
        place = f"translate({at % COLUMNS * WIDTH} {at // COLUMNS * HEIGHT})"
        lines = [line for target in panel["targets"] for line in _lines(prometheus, target, end, seconds)]
        drawn.append(f'<g transform="{place}">{_panel(panel, lines, end - seconds, end)}</g>')
    width, height = COLUMNS * WIDTH, math.ceil(len(panels) / COLUMNS) * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="11"><rect width="{width}" height="{height}" fill="#fff"/>{"".join(drawn)}</svg>\n'
    )


def _lines(prometheus: httpx.Client, target: dict[str, Any], end: float, seconds: float) -> list[Line]:
    step = seconds / POINTS
    window = f"{max(20, round(4 * step))}s"
    query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", window)
    asked = {"query": query, "start": end - seconds, "end": end, "step": step}
    reply = prometheus.get("/api/v1/query_range", params=asked).raise_for_status().json()
    return [
        Line(_named(target["legendFormat"], series["metric"]), [(t, float(v)) for t, v in series["values"]])
        for series in reply["data"]["result"]
    ]


def _named(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), form)


def _panel(panel: dict[str, Any], lines: Sequence[Line], start: float, end: float) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    finite = [value for line in lines for _, value in line.points if math.isfinite(value)]
    top = max(finite, default=0) or 1
    marks = [_text(LEFT, 18, panel["title"], "#111", 13), _legend(lines)]
    for share in (0.0, 0.5, 1.0):
        marks.append(f'<path d="M{LEFT} {_height(share):.1f}h{PLOT_WIDTH}" stroke="#ddd"/>')
        marks.append(_text(LEFT - 6, _height(share) + 4, _shown(top * share, unit), "#666", 10, "end"))
    for line, colour in zip(lines, cycle(COLOURS), strict=False):
        places = [
            f"{LEFT + PLOT_WIDTH * (at - start) / (end - start):.0f},{_height(value / top):.1f}"
            for at, value in line.points
            if math.isfinite(value)
        ]
        marks.append(
            f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    if not finite:
        marks.append(
            _text(LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT / 2, "nothing to show", "#999", 11, "middle")
        )
    return "".join(marks)


def _height(share: float) -> float:
    return TOP + PLOT_HEIGHT * (1 - share)


def _legend(lines: Sequence[Line]) -> str:
    """Where there is no room for all names beside each other they are cut, and the last ones left out."""
    told = [
        (line.name, colour)
        for line, colour in zip(lines, cycle(COLOURS), strict=False)
        if any(value > 0 for _, value in line.points) or len(lines) < 4
    ]
    is_crowded = sum(len(name) + 2 for name, _ in told) > LEGEND_CHARS
    longest = max(6, LEGEND_CHARS // len(told) - 2) if is_crowded else LEGEND_CHARS
    words = "".join(
        f'<tspan dx="8" fill="{colour}">{escape(name[:longest])}</tspan>'
        for name, colour in told[: LEGEND_CHARS // 8]
    )
    return f'<text x="{LEFT - 8}" y="36" font-size="10">{words}</text>'


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="{size}">{escape(text)}</text>'


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    size, prefix = next((each for each in PREFIXES if abs(value) >= each[0]), (1.0, ""))
    return f"{value / size:.3g} {prefix}{UNITS[unit]}".strip()


if __name__ == "__main__":
    with httpx.Client(base_url=sys.argv[1], trust_env=False, timeout=30) as client:
        print(picture(client, float(sys.argv[2])), end="")
