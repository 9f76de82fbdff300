"""Signing in on the page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.browsing import Open, Serve, ask, until_ended, until_longer
from tests.test_accounts import console

pytestmark = pytest.mark.real


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
