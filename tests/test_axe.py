"""Every state of the page, looked at by axe-core: wide in the light, narrow in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.shots.stage import Stage
from tests.shots.states import STATES
from tests.shots.texts import ENGLISH

pytestmark = pytest.mark.real

AXE = Path(__file__).parent.parent / "web" / "node_modules" / "axe-core" / "axe.min.js"
VIEWS: tuple[tuple[Literal["light", "dark"], int], ...] = (("light", 1280), ("dark", 360))
# What fades in is judged as it will be: a half-transparent text has no contrast.
SETTLE = """() => {
    for (const animation of document.getAnimations()) {
        if (animation.effect.getComputedTiming().iterations === Infinity) animation.cancel()
        else animation.finish()
    }
}"""
# Of a formula, screen readers see the MathML; what is painted beside it is hidden from them. Which headings
# follow each other in an answer is up to its author.
CHECK = """async () => {
    const { violations } = await axe.run({ exclude: ['.katex-html', '.markdown > * > :is(h3, h4, h5, h6)'] })
    return violations.flatMap(({ id, nodes }) =>
        nodes.map(({ target, failureSummary }) => `${id}: ${target.join(' ')}: ${failureSummary}`))
}"""


@pytest.fixture(scope="module")
def stage(browser: Browser) -> Iterator[Stage]:
    with Stage(browser, ENGLISH) as stage:
        yield stage


# A long conversation has the same elements as a short one, over and over.
@pytest.mark.parametrize("state", [name for name in STATES if name != "long"])
def test_axe_finds_nothing_wrong(stage: Stage, state: str) -> None:
    with stage.enter(STATES[state]) as page:
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = [
            f"{theme}, {width} px: {fault}" for theme, width in VIEWS for fault in faults(page, theme, width)
        ]
    assert not found, "\n".join(found)


def faults(page: Page, theme: Literal["light", "dark"], width: int) -> list[str]:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate(SETTLE)
    return list(page.evaluate(CHECK))
