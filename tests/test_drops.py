"""What the reader sees through drops, reloads and deaths; ``python -m tests.drops`` is the long version."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browsing import Serve, ask, expect_as_stored, paced, until_longer
from tests.drops import HAS_ENDED, HAS_GROWN, tormented, within

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

BLOWS = 16
TABS = 20
# Headless tabs are all in view. A browser's are not: this one can be told whether anybody looks.
HIDEABLE = """
let isShown = false
Object.defineProperty(document, 'hidden', { get: () => !isShown })
Object.defineProperty(document, 'visibilityState', { get: () => isShown ? 'visible' : 'hidden' })
window.beShown = shown => {
    isShown = shown
    document.dispatchEvent(new Event('visibilitychange'))
}
"""


def test_two_tabs_read_every_character_through_random_blows(browser: Browser, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}")
    with tormented(browser, tmp_path, seed) as torment:
        torment.rage(BLOWS)


def test_twenty_tabs_read_one_answer_and_none_stalls(browser: Browser, serve: Serve) -> None:
    seed = random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}")
    draw = random.Random(seed)
    server = serve(paced(1000))
    with closing(browser.new_context()) as context:
        context.add_init_script(HIDEABLE)
        first = context.new_page()
        first.goto(server.url)
        show(first, True)
        ask(first)
        until_longer(first)
        tabs = [first, *(open_another(first) for _ in range(TABS - 1))]
        show(first, False)
        seen = 0
        for tab in draw.sample(tabs, TABS):
            show(tab, True)
            within(tab, HAS_GROWN, seen + 20)
            seen = until_longer(tab, 0)
            show(tab, False)
        for tab in tabs:
            show(tab, True)
            within(tab, f"() => {HAS_ENDED}")
            expect_as_stored(server, tab)
            show(tab, False)


def open_another(first: Page) -> Page:
    tab = first.context.new_page()
    tab.goto(first.url)
    return tab


def show(tab: Page, shown: bool) -> None:
    tab.evaluate("shown => window.beShown(shown)", shown)
