"""Where a state is brought about: a browser, servers, a page in one language."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, Page

from tests.browsing import Server, hub_with
from tests.fake_hub import FakeHub
from tests.shots.chats import CUT, FAILED, FORGETFUL, STOPPED, Turn, chat, document
from tests.shots.texts import Texts

WIDTH, HEIGHT = 1280, 800
PACE = 40.0
LONG = 80


@dataclass(frozen=True, slots=True)
class Home:
    """A server with a past: ``addresses`` are those of its conversations, by name."""

    server: Server
    addresses: dict[str, str]


class Stage:
    """``enter`` brings a state about and leaves it behind; ``home`` stays until the stage is left."""

    page: Page

    def __init__(self, browser: Browser, texts: Texts) -> None:
        self.texts = texts
        self._browser = browser
        self._staying = ExitStack()
        self._passing = ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(self._staying.enter_context(tempfile.TemporaryDirectory(prefix="inkstream-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._staying.close()

    @contextmanager
    def enter(self, show: Callable[[Stage], None]) -> Iterator[Page]:
        with ExitStack() as self._passing:
            viewport = {"width": WIDTH, "height": HEIGHT}
            context = self._browser.new_context(locale=self.texts.locale, viewport=viewport)  # type: ignore[arg-type]  # a TypedDict
            self._passing.callback(context.close)
            self.page = context.new_page()
            show(self)
            yield self.page

    @cached_property
    def home(self) -> Home:
        script = {"answer": self.texts.lore, "tokens_per_second": PACE, "fail_on": "boom"}
        server = self._server(self._staying, script, {})
        past = _past(self.texts)
        addresses = server.import_chats(document(past.values()))
        return Home(server, dict(zip(past, addresses, strict=True)))

    def visit(self, name: str | None = None) -> Page:
        """Open home, or a conversation of its past."""
        self.page.goto(self.home.server.url if name is None else self.home.addresses[name])
        return self.page

    def serve(self, script: dict[str, Any] | None = None, **settings: str) -> Server:
        """A server for this state alone, and its page."""
        told = {"answer": self.texts.lore, "tokens_per_second": PACE} | (script or {})
        server = self._server(self._passing, told, settings)
        self.page.goto(server.url)
        return server

    def hub(self, repo: str, name: str, weights: bytes) -> FakeHub:
        return self._passing.enter_context(hub_with(repo, name, weights))

    def afterwards(self, tidy: Callable[[], object]) -> None:
        """Have something done when the state is left."""
        self._passing.callback(tidy)

    def _server(self, stack: ExitStack, script: dict[str, Any], settings: dict[str, str]) -> Server:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        return stack.enter_context(closing(Server(folder, script, settings)))


def _past(texts: Texts) -> dict[str, dict[str, Any]]:
    """The newest first. What has no title of its own is called by the titles of the texts."""
    full, short = Turn(texts.question, texts.lore), Turn(texts.follow_up, texts.prose)
    turns = {
        "conversation": [full, short],
        "thinking": [short._replace(thinking=texts.thinking)],
        "cut": [Turn(texts.question, texts.cut, CUT)],
        "stopped": [Turn(texts.question, texts.cut, STOPPED)],
        "failed": [Turn(texts.question, texts.cut, FAILED)],
        "failed-at-once": [Turn(texts.question, "", FAILED)],
        "left-out": [short, full, short._replace(ending=FORGETFUL)],
        "long": [full, short] * (LONG // 2),
    }
    titles = (texts.question, *texts.titles)
    return {
        name: chat(title, turns[name], days_ago)
        for days_ago, (name, title) in enumerate(zip(turns, titles, strict=True))
    }
