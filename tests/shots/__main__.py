"""``python -m tests.shots``: pictures of every state in both languages, both themes and four widths."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, expect, sync_playwright

from tests.browsing import CHROMIUM, FLAGS
from tests.shots.sheet import Picture, sheet
from tests.shots.stage import Stage
from tests.shots.states import STATES
from tests.shots.texts import TEXTS, Language

ROOT = Path(__file__).parents[2]
HEIGHTS = {1280: 800, 768: 1024, 360: 740, 320: 568}
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
IN_THE_DOCS = {
    "page": Picture("top", "en", "light", 1280),
    "page.zh": Picture("top", "zh", "light", 1280),
    "live.dark": Picture("live", "en", "dark", 1280),
    "phone.zh": Picture("top", "zh", "dark", 360),
}
WEBP_QUALITY = 82
PATIENCE_MS = 30_000  # a picture is no test: a busy machine may take its time
# Twice: a change of the viewport is laid out in one frame and answered by the page in the next.
SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    pictures: list[Picture] = []
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for language in options.language:
            with Stage(browser, TEXTS[language]) as stage:
                for name in options.only:
                    with stage.enter(STATES[name]) as page:
                        pictures += _take(page, name, language, options)
                    print(language, name, flush=True)
        sheet(options.out, pictures, browser if options.sheets else None)
        browser.close()
    print(f"{len(pictures)} pictures, see {options.out / 'index.html'}")


def _take(page: Page, name: str, language: Language, options: argparse.Namespace) -> Iterator[Picture]:
    for theme, width in product(THEMES, HEIGHTS):
        picture = Picture(name, language, theme, width)
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
        page.evaluate(SETTLED)
        page.screenshot(path=options.out / picture.file, animations="disabled")
        if options.docs:
            _keep(page, picture)
        yield picture


def _keep(page: Page, picture: Picture) -> None:
    """Into the docs, where it is one of theirs."""
    for name in (name for name, chosen in IN_THE_DOCS.items() if chosen == picture):
        told = {"format": "webp", "quality": WEBP_QUALITY}
        shot = page.context.new_cdp_session(page).send("Page.captureScreenshot", told)
        (ROOT / "docs" / "images" / f"{name}.webp").write_bytes(base64.b64decode(shot["data"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.shots", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=STATES, default=list(STATES), metavar="STATE")
    parser.add_argument("--language", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--out", type=Path, default=ROOT / ".build" / "shots", help="%(default)s")
    parser.add_argument("--sheets", action="store_true", help="also a picture of all pictures of a state")
    parser.add_argument("--docs", action="store_true", help="renew the pictures in docs/images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
