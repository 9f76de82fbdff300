"""How answers come into view in a real browser: as the reader has chosen it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browsing import (
    Open,
    Serve,
    ask,
    expect_as_stored,
    paced,
    plain,
    prefer,
    shown,
    until_ended,
    until_longer,
)

pytestmark = pytest.mark.real


def test_how_answers_come_into_view_is_chosen_and_kept(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": plain(400), "tokens_per_second": 400})
    page = open_page(server.url)
    expect(page.get_by_test_id("reveal-smooth")).to_be_checked()
    prefer(page, reveal="typewriter")
    page.reload()
    expect(page.get_by_test_id("reveal-typewriter")).to_be_checked()
    ask(page)
    until_longer(page, 10)
    # The answer is there and whole; a typist takes half a minute for it, unless the reader asks for all.
    expect(page.get_by_test_id("answer")).to_have_attribute("data-state", "done")
    assert len(shown(page)) < 500
    page.keyboard.press("Escape")
    expect_as_stored(server, page)
    prefer(page, reveal="off")
    ask(page, "And now?")
    expect(page.get_by_test_id("answer")).to_have_count(2)
    expect_as_stored(server, page)


def test_who_wants_less_motion_gets_none(serve: Serve, open_page: Open, browser: Browser) -> None:
    server = serve(paced())
    context = browser.new_context(reduced_motion="reduce")
    page = open_page(f"{server.url}?trace", context=context)
    expect(page.get_by_test_id("reveal-off")).to_be_checked()
    ask(page)
    until_ended(page)
    expect_as_stored(server, page)
    samples = page.evaluate("performance.getEntriesByName('inkstream.reveal').map(({ detail }) => detail)")
    assert len(samples) > 20
    assert all(sample["shown"] == sample["arrived"] for sample in samples)
    context.close()
