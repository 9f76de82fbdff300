"""The page in WebKit, the engine of every browser on an iPhone. It is driven by its own driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import WebKitGTK
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service

from tests.browsing import (
    AT_REST,
    LAST,
    PROSE,
    SCROLLER,
    SHOWN,
    TOP,
    TOP_OF_WORD,
    WORD_AT_TOP,
    Serve,
    Server,
    paced,
    text_of,
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        sys.platform != "linux", reason="elsewhere there is no WebKit with a driver to install"
    ),
    # Selenium's own way of starting this driver.
    pytest.mark.filterwarnings("ignore:setting remote_server_addr:DeprecationWarning"),
]

SECONDS = 40
QUESTION = "[data-testid=question]"
HAS_ENDED = f"() => /done|stopped|failed/.test(({LAST})()?.dataset.state)"
FITS = f"""() => {{
    const field = document.querySelector('{QUESTION}')
    return field.scrollHeight <= field.clientHeight && field.clientHeight
}}"""
LONG_QUESTION = "为什么墨在有的纸上会洇开，在有的纸上却很清晰？" * 6


class WebKit:
    """One page in one window."""

    def __init__(self, driver: WebKitGTK) -> None:
        self._driver = driver

    def open(self, server: Server) -> None:
        self._driver.get(server.url)
        self.until(f"() => document.querySelector('{QUESTION}')")

    def reload(self) -> None:
        self._driver.refresh()
        self.until(f"() => document.querySelector('{QUESTION}')")

    def resize(self, width: int, height: int) -> None:
        self._driver.set_window_size(width, height)
        self.until(f"() => innerWidth === {width}")

    def type(self, text: str) -> None:
        self._driver.find_element("css selector", QUESTION).send_keys(text)

    def evaluate(self, function: str, *args: Any) -> Any:
        script = f"const done = [...arguments].pop(); Promise.resolve(({function})(...arguments)).then(done)"
        return self._driver.execute_async_script(script, *args)

    def until(self, condition: str, *args: Any) -> Any:
        """Wait in the page for a truthy value."""
        return self.evaluate(
            f"""(...args) => new Promise(done => {{
                const condition = {condition}
                const look = () => {{
                    const value = condition(...args)
                    if (value) done(value)
                    else requestAnimationFrame(look)
                }}
                look()
            }})""",
            *args,
        )

    def expect_as_stored(self, server: Server) -> None:
        self.until(HAS_ENDED)
        stored = server.messages_at(self._driver.current_url)[-1]
        assert stored["state"] == "done"
        self.until(f"text => ({SHOWN})() === text", text_of(stored).rstrip())


@pytest.fixture(scope="module")
def display() -> Iterator[None]:
    """A screen that nobody sees: WebKit knows no other way."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as screen:
        os.close(writing)
        with os.fdopen(reading) as said, pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISPLAY", f":{said.readline().strip()}")
            yield
        screen.terminate()


@pytest.fixture(scope="module")
def webkit(display: None) -> Iterator[WebKit]:
    options = Options()
    options.add_argument("--automation")
    driver = WebKitGTK(options, Service(shutil.which("WebKitWebDriver")))
    driver.set_script_timeout(SECONDS)
    yield WebKit(driver)
    driver.quit()


def test_an_answer_outlives_the_gateway_and_a_reload(webkit: WebKit, serve: Serve) -> None:
    server = serve(paced(240))
    webkit.open(server)
    webkit.type("你好，说点什么。" + Keys.ENTER)
    webkit.until(f"() => ({SHOWN})().length > 60")
    server.kill("gateway")
    webkit.until(f"() => ({SHOWN})().length > 240")
    webkit.reload()
    webkit.expect_as_stored(server)
    webkit.reload()
    webkit.expect_as_stored(server)


def test_the_line_at_the_top_stays_there_at_every_width(webkit: WebKit, serve: Serve) -> None:
    webkit.open(serve({"answer": PROSE}))
    webkit.resize(500, 700)
    webkit.type("Tell me something." + Keys.ENTER)
    webkit.until(HAS_ENDED)
    webkit.until(f"() => {TOP} > 2400")
    # The first time it has yet to be drawn there.
    for _ in range(2):
        webkit.evaluate(AT_REST)
        webkit.evaluate(f"() => void ({TOP} = 2200)")
    webkit.until("() => document.querySelector('[data-testid=jump]')")
    webkit.evaluate(AT_REST)
    word, top = webkit.evaluate(WORD_AT_TOP)
    for width, height in ((1280, 800), (500, 700), (900, 500), (500, 700)):
        webkit.resize(width, height)
        webkit.evaluate(AT_REST)
        assert abs(webkit.evaluate(TOP_OF_WORD, word) - top) < 2, (word, width)
    # What follows again has come to the end by itself.
    webkit.evaluate(f"() => void ({TOP} = {SCROLLER}.scrollHeight)")
    webkit.until("() => !document.querySelector('[data-testid=jump]')")


def test_the_question_is_seen_whole_at_every_width(webkit: WebKit, serve: Serve) -> None:
    webkit.open(serve())
    webkit.resize(500, 700)
    webkit.reload()
    line = webkit.until(FITS)
    webkit.type(LONG_QUESTION)
    narrow = webkit.until(FITS)
    assert narrow > line
    webkit.resize(1280, 700)
    webkit.until(f"narrow => ({FITS})() < narrow", narrow)
    webkit.resize(500, 700)
    webkit.until(f"narrow => ({FITS})() === narrow", narrow)
