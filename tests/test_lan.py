"""The page from another machine of the house: plain HTTP under a name, which is no secure context.

The tests are those of the page itself, at another address. What only secure contexts have is missing in
them: the clipboard's API, random UUIDs, locks, service workers, notifications.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import Open, Serve, Server, paced
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
SECURE_ONLY = (
    "['randomUUID' in crypto, 'clipboard' in navigator, 'locks' in navigator, 'serviceWorker' in navigator]"
)


class FarServer(Server):
    """A server whose page is opened by a name that only this browser knows, and that counts as foreign."""

    def __init__(self, folder: Path, script: dict[str, Any], settings: dict[str, str]) -> None:
        super().__init__(folder, script, {"HOSTS": NAME, **settings})
        self.url = self.url.replace("127.0.0.1", NAME)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(script: dict[str, Any] | None = None, **settings: str) -> Server:
        servers.append(FarServer(tmp_path / "data", paced() if script is None else script, settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = FarServer(tmp_path_factory.mktemp("data"), paced(), {})
    yield server
    server.close()


def test_this_is_no_secure_context(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    assert page.evaluate("isSecureContext") is False
    assert page.evaluate(SECURE_ONLY) == [False] * 4
