"""One page in Chromium, asked and watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, CDPSession, Page

from .lags import Sample

PROBE = Path(__file__).with_name("probe.js")
MARK = "inkstream.reveal"
WAIT_MS = 300_000
LAST = "[...document.querySelectorAll('[data-testid=answer]')].at(-1)"
LENGTH = (
    f"[...{LAST}?.querySelectorAll('[data-testid=text]') ?? []].map(text => text.textContent).join('').length"
)


class Visit:
    def __init__(self, page: Page, session: CDPSession) -> None:
        self.page, self.session = page, session

    async def ask(self, question: str = "Tell me something.") -> None:
        await self.page.evaluate("probe.await()")
        await self.page.get_by_test_id("question").fill(question)
        await self.page.get_by_test_id("question").press("Enter")

    async def until(self, condition: str, every_ms: int = 0) -> None:
        """Wait in the page for a condition. What is measured is not to be disturbed by looking too often."""
        look = f"setTimeout(look, {every_ms})" if every_ms else "requestAnimationFrame(look)"
        await self.page.evaluate(
            f"new Promise(done => {{ const look = () => ({condition}) ? done(true) : {look}; look() }})"
        )

    async def until_longer(self, than: int) -> None:
        await self.until(f"{LENGTH} > {than}", every_ms=50)

    async def until_ended(self) -> None:
        await self.until(f"/done|stopped|failed/.test({LAST}?.dataset.state)", every_ms=250)
        # And drawn: what is in view ends a little later.
        await asyncio.sleep(0.6)

    async def samples(self) -> list[Sample]:
        """What the page said of its last answer, under `?trace`."""
        found: list[Sample] = await self.page.evaluate(
            f"performance.getEntriesByName('{MARK}').map(({{ detail }}) => detail)"
        )
        await self.page.evaluate(f"performance.clearMarks('{MARK}')")
        return found

    async def heap_bytes(self) -> int:
        """Of JavaScript, after a collection."""
        await self.session.send("HeapProfiler.collectGarbage")
        metrics = (await self.session.send("Performance.getMetrics"))["metrics"]
        return int(next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize"))

    async def probe(self) -> dict[str, Any]:
        names = "shifts, firstByte, firstSeen"
        found: dict[str, Any] = await self.page.evaluate(f"(({{ {names} }}) => ({{ {names} }}))(probe)")
        return found


@asynccontextmanager
async def visiting(browser: Browser, url: str, throttle: float, *, trace: bool) -> AsyncIterator[Visit]:
    """Open the page on a processor that is ``throttle`` times slower."""
    context = await browser.new_context(viewport={"width": 1000, "height": 720}, locale="en-GB")
    context.set_default_timeout(WAIT_MS)
    try:
        page = await context.new_page()
        await page.add_init_script(path=PROBE)
        await page.goto(url + ("?trace" if trace else ""))
        await page.get_by_test_id("question").wait_for()
        session = await context.new_cdp_session(page)
        await session.send("Performance.enable")
        await session.send("Emulation.setCPUThrottlingRate", {"rate": throttle})
        yield Visit(page, session)
    finally:
        await context.close()
