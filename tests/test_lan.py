"""The page from another machine of the house: plain HTTP, by name and by address, is no secure context.

The tests are those of the page itself, at another address. What only secure contexts have is missing in
them: the clipboard's API, random UUIDs, locks, service workers, notifications.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import Open, Serve, Server, ask, until_ended
from tests.test_keyboard import test_a_conversation_is_led_without_a_pointer
from tests.test_markdown import test_code_is_copied_without_a_secure_context
from tests.test_page import (
    test_a_draft_outlives_a_reload,
    test_a_question_asked_without_a_network_is_sent_once_when_it_is_back,
    test_a_reload_in_mid_answer_goes_on,
    test_an_answer_outlives_the_gateway,
    test_an_answer_streams_and_ends_as_the_server_has_it,
    test_an_earlier_chat_is_found_again,
    test_stop_ends_the_answer_and_continue_goes_on_with_it,
    test_two_tabs_read_one_answer,
)

__all__ = [
    "test_a_conversation_is_led_without_a_pointer",
    "test_a_draft_outlives_a_reload",
    "test_a_question_asked_without_a_network_is_sent_once_when_it_is_back",
    "test_a_reload_in_mid_answer_goes_on",
    "test_an_answer_outlives_the_gateway",
    "test_an_answer_streams_and_ends_as_the_server_has_it",
    "test_an_earlier_chat_is_found_again",
    "test_code_is_copied_without_a_secure_context",
    "test_stop_ends_the_answer_and_continue_goes_on_with_it",
    "test_two_tabs_read_one_answer",
]

pytestmark = pytest.mark.real

NAME = "ink.test"
KEY = "open sesame"
SECURE_ONLY = (
    "['randomUUID' in crypto, 'clipboard' in navigator, 'locks' in navigator, 'serviceWorker' in navigator,"
    " 'showNotification' in (window.ServiceWorkerRegistration?.prototype ?? {})]"
)


def own_address() -> str | None:
    """The address by which this machine's neighbours know it, if it has any. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = ip_address(probe.getsockname()[0])
    return None if address.is_loopback else str(address)


class NamedServer(Server):
    """A server whose page is opened by a name that only this browser knows, and that counts as foreign."""

    def __init__(self, folder: Path, script: dict[str, Any], settings: dict[str, str]) -> None:
        super().__init__(folder, script, {"HOSTS": NAME, **settings})
        self.url = self.url.replace("127.0.0.1", NAME)


class NumberedServer(Server):
    """A server that listens beyond loopback, where it wants a key; its page is opened by the address."""

    def __init__(self, folder: Path, script: dict[str, Any], settings: dict[str, str]) -> None:
        address = own_address()
        if address is None:
            pytest.skip("this machine has no address but loopback")
        super().__init__(folder, script, {"HOST": address, "KEY": KEY, **settings})


@pytest.fixture(scope="module", params=[NamedServer, NumberedServer], ids=["name", "address"])
def server_kind(request: pytest.FixtureRequest) -> type[Server]:
    given: type[Server] = request.param
    return given


@pytest.fixture
def open_page(open_page: Open, server_kind: type[Server]) -> Open:
    """Open a page; where there is a key, signed in."""

    def open_one(url: str, *, context: Any = None, **how: Any) -> Page:
        page = open_page(url, context=context, **how)
        if server_kind is NumberedServer and context is None:
            form = page.get_by_test_id("sign-in")
            form.get_by_role("textbox").fill(KEY)
            form.get_by_role("button").click()
            expect(page.get_by_test_id("question")).to_be_focused()
        return page

    return open_one


def test_this_is_no_secure_context(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    assert page.evaluate("isSecureContext") is False
    assert page.evaluate(SECURE_ONLY) == [False] * 5


def test_who_types_a_key_is_told_that_others_may_read_it(serve: Serve, browser: Browser) -> None:
    server = serve(KEY=KEY)
    page = browser.new_page()
    page.goto(server.url)
    expect(page.get_by_test_id("openly")).to_be_visible()
    if NAME in server.url:
        page.goto(server.url.replace(NAME, "127.0.0.1"))
        expect(page.get_by_test_id("sign-in")).to_be_visible()
        expect(page.get_by_test_id("openly")).to_have_count(0)
    page.close()


def test_a_browser_that_lets_no_page_copy_here_says_why(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page)
    until_ended(page)
    page.evaluate("document.execCommand = () => false")
    page.get_by_test_id("copy-message").last.click()
    said = page.get_by_role("status").filter(has_text="plain HTTP")
    expect(said).to_have_count(1)
    page.reload()
    expect(page.get_by_test_id("copy-message").last).to_be_visible()
