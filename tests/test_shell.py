"""What stands around the words, in a real browser: the menu, who it is, ways out of failures, closed tabs.

Each test ends with a reload, or in another tab, and finds again what was done.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browsing import (
    Open,
    Serve,
    Server,
    ask,
    expect_as_stored,
    open_menu,
    plain,
    prefer,
    until,
    until_ended,
    until_longer,
)

pytestmark = pytest.mark.real

KEY = "open sesame"
BRIEF: dict[str, Any] = {"answer": "Yes.", "tokens_per_second": 100}
SLOW: dict[str, Any] = {"answer": plain(240), "tokens_per_second": 30}
NARROW: dict[str, Any] = {**BRIEF, "context": 64}
LONG = "Tell me why. " * 60
FITS = "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"
SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
KEPT = "() => Object.entries({ ...localStorage, ...sessionStorage }).flat().join(' ')"


def asked(page: Page) -> Locator:
    return page.get_by_test_id("asked").get_by_test_id("text")


def sign_in(page: Page) -> None:
    form = page.get_by_test_id("sign-in")
    form.get_by_role("textbox").fill(KEY)
    form.get_by_role("button").click()
    expect(form).to_have_count(0)


def set_system(server: Server, page: Page, system: str) -> None:
    chat = page.url.partition("#/c/")[2]
    reply = page.request.patch(f"{server.url}api/chats/{chat}", data={"settings": {"system": system}})
    assert reply.ok


# The menu


def test_what_is_preferred_is_chosen_by_pointer_or_keys_and_kept(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(BRIEF).url)
    prefer(page, theme="dark", reveal="typewriter")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_test_id("open-menu")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_test_id("language-en").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="偏好设置")).to_be_visible()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    open_menu(page)
    for chosen in ("language-zh", "theme-dark", "reveal-typewriter"):
        expect(page.get_by_test_id(chosen)).to_be_checked()
    # Nobody has signed in, so nobody can sign out.
    expect(page.get_by_test_id("signed-in")).to_have_count(0)
    expect(page.get_by_test_id("sign-out")).to_have_count(0)


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_the_menu_fits_a_narrow_phone(serve: Serve, open_page: Open, locale: str) -> None:
    page = open_page(serve(BRIEF).url, locale=locale, width=320)
    open_menu(page)
    assert page.evaluate(FITS)
    menu = page.get_by_test_id("menu")
    assert menu.evaluate("menu => menu.scrollWidth <= menu.clientWidth")
    for control in page.get_by_role("banner").get_by_role("button").all():
        expect(control).to_be_in_viewport(ratio=1)


def test_dialogs_that_the_menu_opens_give_the_focus_back(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(BRIEF).url)
    for item, dialog in (("menu-settings", "settings"), ("open-shortcuts", "shortcut-list")):
        open_menu(page)
        page.get_by_test_id(item).click()
        expect(page.get_by_test_id(dialog)).to_be_visible()
        expect(page.get_by_test_id("menu")).to_be_hidden()
        page.keyboard.press("Escape")
        expect(page.get_by_test_id(dialog)).to_have_count(0)
        expect(page.get_by_test_id("open-menu")).to_be_focused()


def test_escape_closes_the_menu_and_stops_no_answer(serve: Serve, open_page: Open) -> None:
    server = serve(SLOW)
    page = open_page(server.url)
    ask(page)
    until_longer(page)
    open_menu(page)
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("menu")).to_be_hidden()
    until_longer(page, until_longer(page, 0))
    assert server.answer(page)["state"] == "running"
    page.reload()
    until_longer(page)


# Who it is


def test_who_signs_out_leaves_nothing_in_any_tab(serve: Serve, open_page: Open) -> None:
    server = serve(BRIEF, KEY=KEY)
    page = open_page(server.url)
    sign_in(page)
    prefer(page, theme="dark")
    ask(page, "What was it?")
    until_ended(page)
    page.get_by_test_id("question").fill("my secret")
    other = open_page(page.url, context=page.context)
    expect(other.get_by_test_id("question")).to_have_value("my secret")
    open_menu(page)
    expect(page.get_by_test_id("signed-in")).to_have_text("Signed in with the access key")
    page.get_by_test_id("sign-out").click()
    for each in (page, other):
        expect(each.get_by_test_id("sign-in")).to_be_visible()
        assert "secret" not in each.evaluate(KEPT)
    page.reload()
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    sign_in(page)
    expect(page.get_by_test_id("question")).to_have_value("")
    expect(asked(page)).to_have_text(["What was it?"])


def test_another_user_of_the_browser_finds_nothing_of_the_first(serve: Serve, open_page: Open) -> None:
    server = serve(BRIEF, KEY=KEY)
    page = open_page(server.url)
    sign_in(page)
    page.get_by_test_id("question").fill("my secret")
    link = page.request.post(f"{server.url}api/users", data={"name": "ada"}).json()["link"]
    page.goto(f"{server.url}#{link.partition('#')[2]}")
    page.get_by_test_id("sign-in").get_by_role("button").click()
    expect(page.get_by_test_id("question")).to_have_value("")
    open_menu(page)
    expect(page.get_by_test_id("signed-in")).to_have_text("Signed in as ada")
    page.reload()
    expect(page.get_by_test_id("question")).to_have_value("")
    assert "secret" not in page.evaluate(KEPT)


# Ways out


def test_a_question_that_is_too_long_is_put_in_other_words(serve: Serve, open_page: Open) -> None:
    server = serve(NARROW)
    page = open_page(server.url)
    ask(page, "Is it so?")
    until_ended(page)
    ask(page, LONG)
    expect(page.get_by_test_id("send-problem")).to_contain_text("Shorten")
    expect(page.get_by_test_id("remedy-again")).to_have_count(0)
    page.reload()
    page.get_by_test_id("remedy-edit").click()
    page.get_by_test_id("edit-field").fill("Why?")
    page.get_by_test_id("edit-send").click()
    expect(page.get_by_test_id("answer")).to_have_count(2)
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_text(["Is it so?", "Why?"])
    expect_as_stored(server, page)


def test_shorter_settings_send_what_was_too_long_with_the_others(serve: Serve, open_page: Open) -> None:
    server = serve(NARROW)
    page = open_page(server.url)
    ask(page, "Is it so?")
    until_ended(page)
    set_system(server, page, LONG)
    ask(page, "Why?")
    page.get_by_test_id("remedy-settings").click()
    page.get_by_test_id("system").fill("")
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("answer")).to_have_count(2)
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_text(["Is it so?", "Why?"])
    assert server.count_messages(page) == 4


def test_what_is_too_long_here_can_be_asked_in_a_new_chat(serve: Serve, open_page: Open) -> None:
    server = serve(NARROW)
    page = open_page(server.url)
    ask(page, "Is it so?")
    until_ended(page)
    set_system(server, page, LONG)
    ask(page, "Why?")
    page.get_by_test_id("remedy-newChat").click()
    expect(page.get_by_test_id("question")).to_have_value("Why?")
    expect(page.get_by_test_id("question")).to_be_focused()
    page.keyboard.press("Enter")
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_text(["Why?"])
    assert server.count_messages(page) == 2


def test_an_answer_that_failed_for_its_question_offers_to_edit_that(serve: Serve, open_page: Open) -> None:
    # While the engine loads nobody knows how much it can read, so the question is taken.
    server = serve({**NARROW, "load_seconds": 12})
    page = open_page(server.url)
    ask(page, LONG)
    expect(page.get_by_test_id("failure")).to_contain_text("Shorten", timeout=40_000)
    expect(page.get_by_test_id("remedy-again")).to_have_count(0)
    page.reload()
    page.get_by_test_id("remedy-edit").click()
    page.get_by_test_id("edit-field").fill("Why?")
    page.get_by_test_id("edit-send").click()
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_text(["Why?"])
    expect_as_stored(server, page)


def test_a_chat_that_is_gone_offers_a_new_one_and_nothing_in_vain(serve: Serve, open_page: Open) -> None:
    page = open_page(f"{serve(BRIEF).url}#/c/nobody-knows-this")
    buttons = page.get_by_test_id("load-problem").get_by_role("button")
    expect(buttons).to_have_text(["New chat"])
    buttons.click()
    ask(page, "Is it so?")
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_text(["Is it so?"])


# What a closed tab leaves


def test_a_question_that_waits_outlives_its_tab_and_is_sent_once(serve: Serve, open_page: Open) -> None:
    server = serve(SLOW)
    page = open_page(server.url)
    ask(page, "First")
    until_longer(page)
    ask(page, "Second")
    ask(page, "Third")
    expect(page.get_by_test_id("waits")).to_have_count(2)
    chat, context = page.url, page.context
    page.close()
    next_page = open_page(chat, context=context)
    expect(next_page.get_by_test_id("waits")).to_have_count(2)
    next_page.get_by_test_id("withdraw").last.click()
    expect(next_page.get_by_test_id("question")).to_have_value("Third")
    next_page.get_by_test_id("stop").click()
    expect(next_page.get_by_test_id("answer")).to_have_count(2)
    next_page.get_by_test_id("stop").click()
    until_ended(next_page)
    next_page.reload()
    expect(asked(next_page)).to_have_text(["First", "Second"])
    assert server.count_messages(next_page) == 4


def test_a_tab_that_lives_keeps_what_waits_in_it(serve: Serve, open_page: Open) -> None:
    server = serve(SLOW)
    page = open_page(server.url)
    ask(page, "First")
    until_longer(page)
    ask(page, "Second")
    other = open_page(page.url, context=page.context)
    until_longer(other)
    # By now it has asked who is there, and has been answered.
    until(other, "start => performance.now() > 1_500")
    expect(other.get_by_test_id("outgoing")).to_have_count(0)
    expect(page.get_by_test_id("waits")).to_have_count(1)
    page.reload()
    expect(page.get_by_test_id("waits")).to_have_count(1)
    page.get_by_test_id("stop").click()
    for each in (page, other):
        expect(asked(each)).to_have_text(["First", "Second"])
    assert server.count_messages(page) == 4


# Figures


def test_an_answer_that_was_stopped_says_what_it_took(serve: Serve, open_page: Open) -> None:
    server = serve(SLOW)
    page = open_page(server.url)
    ask(page)
    until_longer(page)
    page.get_by_test_id("stop").click()
    expect(page.get_by_test_id("ended")).to_be_visible()
    line = page.get_by_test_id("made-line")
    tokens = server.answer(page)["usage"]["completion_tokens"]
    assert 0 < tokens < 240
    expect(line).to_contain_text(f"{tokens} tokens")
    expect(line).to_contain_text("in all")
    said = line.inner_text()
    page.reload()
    expect(line).to_have_text(said, use_inner_text=True)


def test_an_answer_that_failed_says_what_it_took(serve: Serve, open_page: Open) -> None:
    server = serve({**SLOW, "continues": "no"})
    page = open_page(server.url)
    ask(page)
    until_longer(page)
    server.kill("engine")
    expect(page.get_by_test_id("failure")).to_be_visible()
    stored = server.answer(page)
    assert stored["error"].keys() == {"code", "message", "retryable"}
    line = page.get_by_test_id("made-line")
    expect(line).to_contain_text(f"{stored['usage']['completion_tokens']} tokens")
    page.reload()
    expect(line).to_contain_text("in all")


# The start


def test_the_start_page_begins_at_its_top(serve: Serve, browser: Browser, open_page: Open) -> None:
    server = serve(ENGINE="llama", MODEL=f"/nowhere/{'a-model-with-a-long-name-' * 12}.gguf")
    context = browser.new_context(viewport={"width": 320, "height": 568})
    page = open_page(server.url, context=context)
    expect(page.get_by_test_id("given-up")).to_be_visible()
    scroller = page.get_by_test_id("scroller")
    assert scroller.evaluate("scroller => scroller.scrollHeight > scroller.clientHeight")
    page.reload()
    expect(page.get_by_test_id("given-up")).to_be_visible()
    page.evaluate(SETTLED)
    assert scroller.evaluate("scroller => scroller.scrollTop") == 0
    expect(page.get_by_test_id("jump")).to_have_count(0)
    context.close()
