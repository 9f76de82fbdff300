"""The page without a pointer and without a screen: every action by keys, the focus, what is announced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browsing import Open, Serve, ask, expect_as_stored, paced, plain, until, until_ended, until_longer

pytestmark = pytest.mark.real

STOPS = 60  # more than the page has places for the Tab key
FOCUS = "() => document.activeElement !== document.body && document.activeElement?.isConnected"
# A frame for the page to draw what an action has led to, one to take the focus away, one to give it back.
SETTLED = "() => new Promise(done => [1, 2, 3].reduce(next => () => requestAnimationFrame(next), done)())"
# Every text that a region has which screen readers read by themselves.
LISTEN = """() => {
    window.heard = []
    const live = ':is([aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log], output)'
    const hear = node => {
        const region = (node instanceof Element ? node : node.parentElement)?.closest(live)
        const text = region?.textContent.trim()
        if (text && window.heard.at(-1) !== text) window.heard.push(text)
    }
    new MutationObserver(changes => {
        for (const { target, addedNodes } of changes) {
            hear(target)
            for (const node of addedNodes)
                if (node instanceof Element) [node, ...node.querySelectorAll(live)].forEach(hear)
        }
    }).observe(document, { subtree: true, childList: true, characterData: true })
}"""


def tab_to(page: Page, name: str, key: str = "Tab") -> None:
    """Walk to the thing with this test id as the keyboard does."""
    for _ in range(STOPS):
        page.keyboard.press(key)
        if page.evaluate("document.activeElement?.dataset.testid") == name:
            return
    raise AssertionError(f"{key} never comes to {name!r}")


def expect_focus(page: Page, after: str) -> None:
    page.evaluate(SETTLED)
    assert page.evaluate(FOCUS), f"nothing has the focus after {after}"


def press(page: Page, name: str, until_done: Callable[[], Any]) -> None:
    """Use the thing with this test id by keyboard; afterwards something has the focus."""
    page.get_by_test_id(name).last.focus()
    page.keyboard.press("Enter")
    until_done()
    expect_focus(page, name)


def test_a_conversation_is_led_without_a_pointer(serve: Serve, open_page: Open) -> None:
    server = serve({**paced(300), "tokens_per_second": 60})
    page = open_page(server.url)
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("and second")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("asked")).to_contain_text("First line\nand second")
    until_longer(page)
    tab_to(page, "stop")
    page.keyboard.press("Space")
    expect(page.get_by_test_id("ended")).to_be_visible()
    tab_to(page, "continue", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("answer")).to_have_attribute("data-state", "running")
    until_ended(page)
    expect_as_stored(server, page)
    tab_to(page, "question")
    page.keyboard.type("Again?")
    page.keyboard.press("Enter")
    until_longer(page)
    page.keyboard.press("Escape")
    expect_as_stored(server, page, "stopped")
    tab_to(page, "new-chat", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("asked")).to_have_count(0)
    page.reload()
    expect(page.get_by_test_id("question")).to_be_focused()


def test_the_focus_is_never_lost(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": plain(1000), "tokens_per_second": 150, "fail_on": "boom"})
    page = open_page(server.url)
    expect(page.get_by_test_id("question")).to_be_focused()
    ask(page)
    expect_focus(page, "asking")
    until_longer(page)
    press(page, "stop", lambda: expect(page.get_by_test_id("ended")).to_be_visible())
    press(page, "continue", lambda: expect(page.get_by_test_id("continue")).to_have_count(0))
    press(page, "open-menu", lambda: expect(page.get_by_test_id("menu")).to_be_visible())
    page.get_by_test_id("language-en").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("menu")).to_be_hidden()
    expect_focus(page, "the menu")
    until_ended(page)
    page.get_by_test_id("scroller").evaluate("scroller => scroller.scrollTo(0, 0)")
    press(page, "jump", lambda: expect(page.get_by_test_id("jump")).to_have_count(0))
    ask(page, "boom")
    expect(page.get_by_test_id("failure")).to_be_visible()
    field = page.get_by_test_id("edit-field")
    press(page, "remedy-edit", lambda: expect(field).to_be_focused())
    press(page, "edit-cancel", lambda: expect(field).to_have_count(0))
    page.context.set_offline(True)
    ask(page, "Are you there?")
    expect(page.get_by_test_id("send-problem")).to_be_visible()
    press(page, "withdraw", lambda: expect(page.get_by_test_id("outgoing")).to_have_count(0))
    expect(page.get_by_test_id("question")).to_have_value("Are you there?")
    page.context.set_offline(False)
    press(page, "new-chat", lambda: expect(page.get_by_test_id("asked")).to_have_count(0))


def test_the_focus_stays_where_an_image_was_asked_for(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "See ![a river](http://127.0.0.1:9/there.png)."})
    page = open_page(server.url)
    ask(page)
    until_ended(page)
    # The state may be there before the image.
    page.get_by_test_id("answer").get_by_role("button", name="a river").press("Enter")
    expect(page.get_by_test_id("answer").get_by_role("link", name="a river")).to_be_visible()
    expect_focus(page, "loading an image")
    assert page.evaluate("document.querySelector('[data-testid=answer]').contains(document.activeElement)")


def test_signing_in_leads_to_the_question(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(KEY="open sesame").url)
    expect(page.get_by_test_id("sign-in").get_by_role("textbox")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("sign-in").get_by_role("alert")).to_be_visible()
    expect_focus(page, "a wrong key")
    page.keyboard.type("open sesame")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("question")).to_be_focused()


def test_who_clicks_on_nothing_keeps_it_so(serve: Serve, open_page: Open) -> None:
    page = open_page(serve().url)
    page.get_by_test_id("question").fill("Tell me something.")
    page.keyboard.press("Enter")
    until_longer(page)
    page.get_by_role("banner").click(position={"x": 300, "y": 10})
    until_ended(page)
    assert page.evaluate("document.activeElement === document.body")


@pytest.mark.parametrize("think", [False, True])
def test_start_and_end_are_announced_and_nothing_between(serve: Serve, open_page: Open, think: bool) -> None:
    server = serve({**paced(150), "think": think})
    page = open_page(server.url)
    page.evaluate(LISTEN)
    ask(page)
    until_ended(page)
    until(page, "() => window.heard.length > 1")
    assert page.evaluate("window.heard") == ["The answer begins", "The answer is complete"]
