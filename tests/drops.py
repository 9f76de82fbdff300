"""The page under blows: ``python -m tests.drops`` strikes two tabs two hundred times while they read.

Connections are reset at any byte, tabs reloaded, closed and opened again, the network goes away, gateway
and engine are killed, during answers and while a question is on its way. Then every text on every tab is,
character by character, what the log holds and what the script says. What happens is drawn from the seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from tests.browsing import CHROMIUM, FLAGS, LAST, SHOWN, Server, ask, plain, shown, text_of
from tests.live import Proxy

ANSWER = plain(500)
SCRIPT = {"answer": ANSWER, "tokens_per_second": 90}
STALL_SECONDS = 45.0  # nobody waits longer than this for the next word, whatever has died
IN_FLIGHT = 150  # characters that may still come into view when the one who wrote them is dead
CUT_BYTES = 3000
WEIGHTS = {"drop": 6, "cut": 6, "reload": 5, "reopen": 2, "offline": 2, "gateway": 3, "engine": 3}
# A tab that is closed takes an unsent question with it.
WHILE_ASKING = ("drop", "reload", "gateway", "engine")
HAS_ENDED = f"/done|stopped|failed/.test(({LAST})()?.dataset.state)"
HAS_GROWN = f"than => ({SHOWN})().length > than || {HAS_ENDED}"
IS_LOST = f"() => document.querySelector('[data-testid=lost]') || {HAS_ENDED}"
COUNTS = "count => document.querySelectorAll('[data-testid=answer]').length === count"


class Stalled(AssertionError):
    """A page has waited too long."""


class Torment:
    """Two tabs of one conversation, and what happens to them.

    ``blows`` counts what was struck. Raises Stalled and AssertionError where the page breaks its promise.
    """

    def __init__(
        self, server: Server, proxy: Proxy, portal: BlockingPortal, context: BrowserContext, seed: int
    ) -> None:
        self.blows: Counter[str] = Counter()
        self.errors: list[str] = []
        self._server, self._proxy, self._portal, self._context = server, proxy, portal, context
        self._draw = random.Random(seed)
        self._asked = 0
        self._strikes: dict[str, Callable[[], None]] = {
            "drop": self._drop,
            "cut": self._cut,
            "reload": lambda: come_back(self._draw.choice(self._tabs)),
            "reopen": self._reopen,
            "offline": self._lose_network,
            "gateway": lambda: server.kill("gateway"),
            "engine": lambda: server.kill("engine"),
        }
        self._tabs = [self._open(proxy.url)]
        self._ask()
        within(self._tabs[0], "() => location.hash.startsWith('#/c/')")
        self._tabs.append(self._open(self._tabs[0].url))

    def rage(self, blows: int) -> None:
        """Ask and strike until so many blows have been struck; every answer is compared."""
        while True:
            seen = 0
            while self.blows.total() < blows and (seen := self._until_grown(seen)):
                self._strike(WEIGHTS)
            self._compare()
            if self.blows.total() >= blows:
                return
            self._ask()
            if self._draw.random() < 0.5:
                self._strike(WHILE_ASKING)
            for tab in self._tabs:
                within(tab, COUNTS, self._asked)

    def _open(self, url: str) -> Page:
        tab = self._context.new_page()
        tab.on("pageerror", lambda error: self.errors.append(error.stack or str(error)))
        come_back(tab, url)
        return tab

    def _ask(self) -> None:
        self._asked += 1
        asker = self._draw.choice(self._tabs)
        within(asker, "() => document.querySelector('[data-testid=send]')")
        ask(asker, f"Question {self._asked}?")

    def _until_grown(self, seen: int) -> int:
        """Wait for words that were not there before; gives how many there are, or 0 at the end."""
        tab = self._draw.choice(self._tabs)
        within(tab, HAS_GROWN, seen + self._draw.randrange(IN_FLIGHT, 2 * IN_FLIGHT))
        return 0 if tab.evaluate(f"() => {HAS_ENDED}") else len(shown(tab))

    def _strike(self, among: Any) -> None:
        [name] = self._draw.choices(list(among), [WEIGHTS[name] for name in among])
        self._strikes[name]()
        self.blows[name] += 1

    def _drop(self) -> None:
        self._portal.call(self._proxy.drop)

    def _cut(self) -> None:
        self._portal.call(self._proxy.cut, *(self._draw.randrange(CUT_BYTES) for _ in range(3)))
        self._drop()

    def _reopen(self) -> None:
        at = self._draw.randrange(len(self._tabs))
        url = self._tabs[at].url
        self._tabs[at].close()
        self._tabs[at] = self._open(url)

    def _lose_network(self) -> None:
        self._context.set_offline(True)
        self._drop()
        within(self._draw.choice(self._tabs), IS_LOST)
        self._context.set_offline(False)

    def _compare(self) -> None:
        """Page, log, history and script tell the same, also when the page is read anew."""
        for tab in self._tabs:
            within(tab, f"() => {HAS_ENDED}")
            expect_text(tab)
            assert self._server.count_messages(tab) == 2 * self._asked, "a question was lost or asked twice"
            said = self._server.answer(tab)
            assert said["state"] == "done", said
            assert text_of(said) == ANSWER, "the history differs from the script"
            assert self._server.logged(said["run"]) == ANSWER, "the log differs from the script"
        come_back(self._tabs[0])
        within(self._tabs[0], COUNTS, self._asked)
        expect_text(self._tabs[0])
        assert not self.errors, f"the page has thrown: {self.errors}"


def within(page: Page, condition: str, arg: Any = None) -> None:
    """Wait for a condition in the page. Raises Stalled when it does not come."""
    deadline = time.monotonic() + STALL_SECONDS
    while not page.evaluate(condition, arg):
        if time.monotonic() > deadline:
            said = page.evaluate("document.body.innerText.slice(-300)")
            raise Stalled(f"{page.url} waits for {condition} with {arg!r}, and says: {said!r}")
        page.evaluate("() => new Promise(requestAnimationFrame)")


def expect_text(page: Page) -> None:
    within(page, f"text => ({SHOWN})() === text", ANSWER)


def come_back(page: Page, url: str | None = None) -> None:
    """Load a page as somebody does who will not be sent away."""
    deadline = time.monotonic() + STALL_SECONDS
    while True:
        try:
            page.reload() if url is None else page.goto(url)
        except Error:
            if time.monotonic() > deadline:
                raise
        else:
            return


@contextmanager
def tormented(browser: Browser, folder: Path, seed: int) -> Iterator[Torment]:
    """A server behind a proxy, and two tabs that read through it."""
    with closing(Server(folder, SCRIPT, {})) as server, start_blocking_portal() as portal:
        proxy = Proxy(urlsplit(server.url).port or 0)
        with portal.wrap_async_context_manager(proxy.open()), closing(browser.new_context()) as context:
            torment = Torment(server, proxy, portal, context, seed)
            try:
                yield torment
            except AssertionError as fault:
                fault.add_note(f"struck: {dict(torment.blows)}; the page has thrown: {torment.errors}")
                raise


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drops", description=__doc__)
    parser.add_argument("--blows", type=int, default=200, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    print(f"again with: python -m tests.drops --blows={options.blows} --seed={options.seed}", flush=True)
    started = time.monotonic()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with tormented(browser, Path(folder), options.seed) as torment:
            torment.rage(options.blows)
        browser.close()
    told = ", ".join(f"{name} {count}" for name, count in torment.blows.most_common())
    print(f"{torment.blows.total()} blows in {time.monotonic() - started:.0f} s, nothing lost: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
