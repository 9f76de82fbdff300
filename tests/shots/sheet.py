"""All pictures on one page, a state after another."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from playwright.sync_api import Browser

SCALE = 0.45
STYLE = """
body { margin: 2rem; background: #888; font: 1rem system-ui; }
section { width: max-content; padding: 1rem 0; }
div { display: flex; gap: 1rem; align-items: start; margin-bottom: 1rem; }
img { display: block; }
"""


@dataclass(frozen=True, slots=True)
class Picture:
    state: str
    language: str
    theme: str
    width: int

    @property
    def file(self) -> str:
        return f"{self.state}.{self.language}.{self.theme}.{self.width}.png"


def sheet(folder: Path, pictures: list[Picture], browser: Browser | None) -> None:
    """Write ``index.html``; with a browser, a picture of each of its sections too."""
    states = dict.fromkeys(picture.state for picture in pictures)
    sections = "".join(_section(state, pictures) for state in states)
    page = f"<!doctype html><meta charset=utf-8><title>inkstream</title><style>{STYLE}</style>{sections}"
    index = folder / "index.html"
    index.write_text(page, encoding="utf-8")
    if browser is not None:
        view = browser.new_page(viewport={"width": 1600, "height": 900})
        view.goto(index.as_uri())
        for state in states:
            view.locator(f"#{state}").screenshot(path=folder / f"sheet.{state}.png")
        view.close()


def _section(state: str, pictures: list[Picture]) -> str:
    rows: dict[tuple[str, str], str] = {}
    for picture in (picture for picture in pictures if picture.state == state):
        row = (picture.language, picture.theme)
        image = f'<a href="{picture.file}"><img src="{picture.file}" width="{picture.width * SCALE:.0f}"></a>'
        rows[row] = rows.get(row, "") + image
    body = "".join(f"<div>{row}</div>" for row in rows.values())
    return f"<section id={state}><h2>{escape(state)}</h2>{body}</section>"
