"""What a page that does nothing else pays for a text that grows: the floor below which no page comes.

    python -m bench.page.floor [--seconds 10] [--hertz 30]

Milliseconds of processor time of the main thread, per second: for frames in which nothing is drawn, and for
the corpus at 200 tokens a second, appended to bare paragraphs in a part that scrolls.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil

from playwright.async_api import Browser, async_playwright

from . import corpus
from .browser import FLAGS
from .tasks import traced

PAGE = """<!doctype html><style>
html, body, main { height: 100%; margin: 0 }
main { overflow-y: auto }
div { max-width: 43rem; margin: auto }
p { font: 17px/1.7 serif; white-space: pre-line; overflow-wrap: anywhere }
</style><main><div></div></main>"""

PLAY = """([text, seconds, hertz]) => new Promise((done) => {
  const [main, column] = [document.querySelector('main'), document.querySelector('div')]
  const began = performance.now()
  let [node, at] = [null, 0]
  const begin = () => {
    node = document.createTextNode('')
    column.appendChild(document.createElement('p')).append(node)
  }
  const grow = (to) => {
    const [first, ...others] = text.slice(at, to).split('\\n\\n')
    node.appendData(first)
    for (const other of others) {
      begin()
      node.appendData(other)
    }
    at = to
    main.scrollTop = main.scrollHeight
  }
  const draw = () => {
    const passed = performance.now() - began
    if (passed > seconds * 1000) return done()
    if (text !== '') grow(Math.floor((text.length * passed) / seconds / 1000))
    setTimeout(() => requestAnimationFrame(draw), 1000 / hertz - 12)
  }
  begin()
  draw()
})"""


async def cost(browser: Browser, text: str, seconds: float, hertz: float) -> str:
    """One way of drawing: what it costs a second, and how many frames it had."""
    page = await browser.new_page(viewport={"width": 1000, "height": 720})
    await page.set_content(PAGE)
    session = await browser.new_browser_cdp_session()
    async with traced(session, ["devtools.timeline"]) as trace:
        await page.evaluate(PLAY, [text, seconds, hertz])
    await page.close()
    frames = sum(event["name"] == "Commit" for event in trace.events)
    return f"{trace.cpu_ms / seconds:.1f} | {frames / seconds:.1f}"


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.page.floor", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--hertz", type=float, default=30, help="drawings a second, about")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    given = parser.parse_args()
    text = corpus.mixed(int(200 * given.seconds))
    print("| | ms/s | frames a second |\n|---|---|---|")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=given.chromium, args=FLAGS)
        for what, said in (("nothing", ""), ("text", text)):
            print(f"| {what} | {await cost(browser, said, given.seconds, given.hertz)} |", flush=True)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
