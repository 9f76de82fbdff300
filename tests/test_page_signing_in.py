"""Signing in on the page, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import Open, Serve, Server, ask, paced, text_of, until_ended, until_longer
from tests.test_accounts import console

pytestmark = pytest.mark.real

USER_HEADER = "X-Forwarded-User"


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_a_link_signs_in_and_leaves_no_trace_in_the_address(
    serve: Serve, open_page: Open, tmp_path: Path, locale: str
) -> None:
    server = serve()
    link = console(tmp_path / "data", "users", "add", "ada", "--public-url", server.url).split()[-1]
    page = open_page(link, locale=locale)
    expect(page.get_by_test_id("sign-in").get_by_role("textbox")).to_have_count(0)
    page.get_by_test_id("sign-in").get_by_role("button").click()
    expect(page.get_by_test_id("sign-in")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"/#/$"))
    ask(page)
    until_longer(page)
    until_ended(page)

    other = open_page(link, locale=locale)
    other.get_by_test_id("sign-in").get_by_role("button").click()
    expect(other.get_by_test_id("sign-in").get_by_role("alert")).to_be_visible()
    expect(other.get_by_test_id("sign-in").get_by_role("textbox")).to_be_visible()


def test_whoever_is_disabled_sees_the_sign_in_in_mid_answer(
    serve: Serve, open_page: Open, tmp_path: Path
) -> None:
    server = serve({"answer_tokens": 100_000, "tokens_per_second": 50})
    link = console(tmp_path / "data", "users", "add", "ada", "--public-url", server.url).split()[-1]
    page = open_page(link)
    page.get_by_test_id("sign-in").get_by_role("button").click()
    ask(page)
    until_longer(page)
    console(tmp_path / "data", "users", "disable", "ada")
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    assert httpx.get(f"{server.url}api/chats", trust_env=False).status_code == 401


def questions_of(server: Server, user: str) -> list[str]:
    """All that somebody has asked, whom the proxy names."""
    with httpx.Client(base_url=server.url, headers={USER_HEADER: user}, trust_env=False) as client:
        chats = [
            client.get(f"api/chats/{chat['id']}").json() for chat in client.get("api/chats").json()["chats"]
        ]
    messages = [message for chat in chats for message in chat["messages"]]
    return [text_of(message) for message in messages if message["role"] == "user"]


@pytest.fixture
def as_ada(serve: Serve, browser: Browser, open_page: Open) -> Iterator[tuple[Server, Page]]:
    """A page behind a proxy that has signed ada in."""
    server = serve(paced(), USER_HEADER=USER_HEADER, TRUSTED_PROXIES="127.0.0.1")
    context = browser.new_context(extra_http_headers={USER_HEADER: "ada"})
    page = open_page(server.url, context=context)
    # She is known by the time that her name is in the menu.
    page.get_by_test_id("open-menu").click()
    expect(page.get_by_test_id("menu")).to_contain_text("ada")
    page.keyboard.press("Escape")
    yield server, page
    context.close()


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_a_question_that_waits_for_an_answer_is_never_asked_by_somebody_else(
    as_ada: tuple[Server, Page], is_reloaded: bool
) -> None:
    server, page = as_ada
    ask(page, "What does ada want to know?")
    until_longer(page)
    ask(page, "And what else?")
    expect(page.get_by_test_id("outgoing")).to_be_visible()
    page.context.set_extra_http_headers({USER_HEADER: "bob"})
    if is_reloaded:
        page.reload()
    expect(page.get_by_test_id("outgoing")).to_have_count(0)
    expect(page.locator("body")).not_to_contain_text("what else")
    expect_asked_by_nobody_else(server, page, ["What does ada want to know?"])


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_a_question_that_waits_for_the_server_is_never_asked_by_somebody_else(
    as_ada: tuple[Server, Page], is_reloaded: bool
) -> None:
    server, page = as_ada
    page.route("**/api/chats", lambda route: route.abort())
    ask(page, "What does ada want to know?")
    expect(page.get_by_test_id("outgoing")).to_be_visible()
    page.context.set_extra_http_headers({USER_HEADER: "bob"})
    page.unroute("**/api/chats")
    if is_reloaded:
        page.reload()
    expect(page.get_by_test_id("outgoing")).to_have_count(0)
    expect_asked_by_nobody_else(server, page, [])


def expect_asked_by_nobody_else(server: Server, page: Page, asked: list[str]) -> None:
    """It is bob's page now, and what he asks is all that he has asked."""
    page.goto(f"{server.url}#/")
    page.get_by_test_id("open-menu").click()
    expect(page.get_by_test_id("menu")).to_contain_text("bob")
    page.keyboard.press("Escape")
    ask(page, "What does bob want to know?")
    until_longer(page)
    assert questions_of(server, "bob") == ["What does bob want to know?"]
    assert questions_of(server, "ada") == asked
