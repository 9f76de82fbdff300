"""The page in a real browser, as tests drive it: a server of their own, and what the page shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Page, expect

from inkstream.api.page import FOLDER
from inkstream.probe import free_port
from tests.fake_hub import FakeHub, fake_hub

SERVE = [sys.executable, "-m", "inkstream", "serve"]
START_SECONDS = 20.0
# The headless shell first: the same browser for three fifths of the processor's time.
CHROMIUMS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CHROMIUM = next(filter(None, map(shutil.which, CHROMIUMS)), "chromium")
FLAGS = shlex.split(
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --host-resolver-rules='MAP ink.test 127.0.0.1'"
)

# The last answer where nothing has been asked since, and its text: that of its blocks.
LAST = """() => {
    const said = document.querySelectorAll('[data-testid=asked], [data-testid=answer]')
    const last = said[said.length - 1]
    return last?.dataset.testid === 'answer' ? last : undefined
}"""
SHOWN = f"""() => {{
    const blocksOf = text => [...text.querySelectorAll(':scope > * > * > *')]
    return [...({LAST})()?.querySelectorAll('[data-testid=text]') ?? []]
        .map(text => blocksOf(text).map(block => block.textContent).join('\\n\\n'))
        .join('')
}}"""

SCROLLER = "document.querySelector('[data-testid=scroller]')"
TOP = f"{SCROLLER}.scrollTop"
# Long enough to break into other lines at every width.
PROSE = "".join(
    " ".join(f"word{60 * paragraph + at}" for at in range(60)) + "\n\n" for paragraph in range(60)
)
# The first word of the line at the top of the view, and how far below that top its line begins. (Where
# lines begin is asked of the answer: a paragraph of it that is out of view has no place.)
WORD_AT_TOP = f"""() => {{
    const view = {SCROLLER}.getBoundingClientRect()
    const answer = {SCROLLER}.querySelector('[data-testid=answer]').getBoundingClientRect()
    const lineAt = below => document.caretRangeFromPoint(answer.left + 1, view.top + below)
    // Between two paragraphs there is none.
    const range = [20, 40].map(lineAt).find(({{ startContainer }}) => startContainer instanceof Text)
    const word = /^\\w+/.exec(range.startContainer.data.slice(range.startOffset))[0]
    range.setEnd(range.startContainer, range.startOffset + word.length)
    return [word, range.getBoundingClientRect().top - view.top]
}}"""
TOP_OF_WORD = f"""word => {{
    const walker = document.createTreeWalker({SCROLLER}, NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {{
        const at = walker.currentNode.data.search(`\\\\b${{word}}\\\\b`)
        if (at < 0) continue
        const range = document.createRange()
        range.setStart(walker.currentNode, at)
        range.setEnd(walker.currentNode, at + word.length)
        return range.getBoundingClientRect().top - {SCROLLER}.getBoundingClientRect().top
    }}
}}"""
# Where the view is when it has not moved for a while.
AT_REST = f"""async () => {{
    for (let rests = 0, was = NaN; rests < 20; was = {TOP}) {{
        await new Promise(requestAnimationFrame)
        rests = {TOP} === was ? rests + 1 : 0
    }}
    return {TOP}
}}"""

SENTENCES = (
    "The river keeps its own time.",
    "Nothing is lost, nothing is said twice.",
    "A token, once seen, stays seen; e.g. 3.14 is not two sentences.",
    "墨水在纸上慢慢散开。",
    "「流式」是说：一个字一个字地来，不丢、不重。",
    "价格为 ¥1,234.50，比昨天便宜 3%！",
    "Ünïcödé naïveté, ελληνικά, русский.",
    "All of 👩‍👩‍👧‍👦 and 🏳️‍🌈 are one grapheme each, 👍🏽 too.",
    "𠮷野家 lies beyond the basic plane.",
    "It is a line\u2028separator, a next\u0085line.",
)
CHARACTERS_PER_TOKEN = 2.5

Serve = Callable[..., "Server"]
Open = Callable[..., Page]


def plain(tokens: int) -> str:
    """An answer without markup, about so long: what the page shows of it is the very text.

    No sentence comes twice, so what is lost or doubled shows.
    """
    text = ""
    for number in count(1):
        text += f"{SENTENCES[number % len(SENTENCES)]} ({number})"
        if len(text) >= tokens * CHARACTERS_PER_TOKEN:
            return text
        text += "\n\n" if number % 5 == 0 else "\n" if number % 3 == 0 else " "
    raise AssertionError


def paced(tokens: int = 180) -> dict[str, Any]:
    """A script: a plain answer at a reader's pace."""
    return {"tokens_per_second": 60, "answer": plain(tokens)}


@contextmanager
def hub_with(repo: str, name: str, weights: bytes) -> Iterator[FakeHub]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(fake_hub()) as hub:
        hub.add(repo, name, weights)
        yield hub


class Server:
    """``inkstream serve`` with the scripted engine on a port of its own."""

    def __init__(self, folder: Path, script: dict[str, Any], settings: dict[str, str]) -> None:
        assert (FOLDER / "index.html").is_file(), "the page is not built: run `make page`"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("INKSTREAM_")}
        given = {"ENGINE": "scripted", "SCRIPT": json.dumps(script), "DATA_DIR": str(folder)}
        given |= {"PORT": str(free_port("127.0.0.1"))} | settings
        environ |= {name if "_ENDPOINT" in name else f"INKSTREAM_{name}": given[name] for name in given}
        self._process = subprocess.Popen(SERVE, env=environ, stdout=subprocess.PIPE, text=True)
        self.url = self._address()
        self._client = httpx.Client(base_url=self.url, trust_env=False)
        if key := settings.get("KEY"):
            self._client.headers["Authorization"] = f"Bearer {key}"

    def _address(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"http://[\w.:\[\]]+(/\w+)?", line):
                return found[0].rstrip("/") + "/"
        raise AssertionError(f"the server ended with {self._process.wait()} before it was ready")

    def kill(self, child: str) -> None:
        """End a child the hard way, as soon as there is one."""
        deadline = time.monotonic() + START_SECONDS
        while (pid := self._pid_of(child)) is None:
            assert time.monotonic() < deadline, f"no child named {child!r}"
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    def _pid_of(self, child: str) -> int | None:
        parent = self._process.pid
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            for pid in children.read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):
                    if child in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                        return int(pid)
        return None

    def answer(self, page: Page) -> dict[str, Any]:
        """The newest message of the chat that the page shows, as the server has it."""
        return self.messages(page)[-1]

    def count_messages(self, page: Page) -> int:
        return len(self.messages(page))

    def messages(self, page: Page) -> list[dict[str, Any]]:
        """All of the chat that the page shows."""
        return self.messages_at(page.url)

    def messages_at(self, address: str) -> list[dict[str, Any]]:
        chat = address.partition("#/c/")[2]
        found: list[dict[str, Any]] = self._client.get(f"api/chats/{chat}").json()["messages"]
        return found

    def logged(self, run: str) -> str:
        """The text of a run that has ended, by its events."""
        blocks = self._client.get(f"api/runs/{run}/events").text.split("\n\n")
        events = [block.partition("\ndata: ")[2] for block in blocks if "event: text\n" in block]
        return "".join(json.loads(event)["text"] for event in events)

    def import_chats(self, document: dict[str, Any]) -> list[str]:
        """Take in what was exported elsewhere; gives the addresses on the page."""
        reply = self._client.post("api/import", json=document)
        assert reply.status_code == 200, reply.text
        return [f"{self.url}#/c/{chat['id']}" for chat in reply.json()["chats"]]

    def ask(self, question: str) -> dict[str, Any]:
        """Ask in a chat of its own, past every page; gives the run."""
        chat = self._client.post("api/chats", json={}).json()["id"]
        reply = self._client.post(f"api/chats/{chat}/messages", json={"content": question, "parent": None})
        assert reply.status_code == 202, reply.text
        run: dict[str, Any] = reply.json()["run"]
        return run

    def close(self) -> None:
        """More than once does no harm."""
        self._client.close()
        if self._process.poll() is None:
            self._process.terminate()
            self._process.communicate(timeout=15)


def ask(page: Page, question: str = "Tell me something.") -> None:
    page.get_by_test_id("question").fill(question)
    page.get_by_test_id("question").press("Enter")


def open_menu(page: Page) -> None:
    page.get_by_test_id("open-menu").click()
    expect(page.get_by_test_id("menu")).to_be_visible()


def prefer(page: Page, **chosen: str) -> None:
    """Choose in the menu: ``language``, ``theme``, ``reveal``."""
    open_menu(page)
    for name, value in chosen.items():
        page.get_by_test_id(f"{name}-{value}").check()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("menu")).to_be_hidden()


def shown(page: Page) -> str:
    """The text of the last answer, exactly."""
    return str(page.evaluate(SHOWN))


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"])


def until(page: Page, condition: str, arg: Any = None) -> Any:
    """Wait in the page for a truthy value. Playwright's own way evaluates text, which the policy forbids."""
    return page.evaluate(
        f"""arg => new Promise(done => {{
            const condition = {condition}
            const look = () => {{
                const value = condition(arg)
                if (value) done(value)
                else requestAnimationFrame(look)
            }}
            look()
        }})""",
        arg,
    )


def until_longer(page: Page, than: int = 40) -> int:
    """Wait for more of the last answer to be on the page; says how much there is."""
    size = f"than => {{ const size = ({SHOWN})().length; return size > than && size }}"
    return int(until(page, size, than))


def until_ended(page: Page) -> None:
    until(page, f"() => /done|stopped|failed/.test(({LAST})()?.dataset.state)")
    expect(page.get_by_test_id("send")).to_be_visible()


def expect_as_stored(server: Server, page: Page, state: str = "done") -> None:
    """What the page shows is what the server has, to the last character."""
    expect(page.get_by_test_id("answer").last).to_have_attribute("data-state", state)
    stored = server.answer(page)
    assert stored["state"] == state
    # Blanks at the end are not drawn.
    text = text_of(stored).rstrip()
    assert text
    until(page, f"text => ({SHOWN})() === text", text)
