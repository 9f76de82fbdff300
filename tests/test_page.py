"""The page in a real browser, against real processes.

What the page shows is compared with what the server has stored. Its own language is fixed per test,
and things are found by role or test id, so that a changed wording breaks nothing here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import (
    SHOWN,
    Open,
    Serve,
    Server,
    ask,
    expect_as_stored,
    hub_with,
    paced,
    plain,
    prefer,
    shown,
    until,
    until_ended,
    until_longer,
)
from tests.fake_hub import Change, Cut

pytestmark = pytest.mark.real

# Both in one turn of the browser, as a quick hand and a slow machine have it.
NEW_CHAT_AND_TYPE = """() => {
    document.querySelector('[data-testid=new-chat]').click()
    const question = document.querySelector('[data-testid=question]')
    question.value = 'at once'
    question.dispatchEvent(new Event('input', { bubbles: true }))
}"""

IN_FLIGHT = 100  # characters that may still come when the one who sent them is dead


@contextmanager
def offline(page: Page) -> Iterator[None]:
    page.context.set_offline(True)
    yield
    page.context.set_offline(False)


def test_an_answer_streams_and_ends_as_the_server_has_it(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page)
    first = until_longer(page)
    assert until_longer(page, first) > first
    expect(page.get_by_test_id("stop")).to_be_visible()
    until_ended(page)
    expect_as_stored(server, page)
    page.reload()
    expect_as_stored(server, page)


def test_stop_ends_the_answer_and_continue_goes_on_with_it(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page)
    until_longer(page)
    page.get_by_test_id("stop").click()
    expect(page.get_by_test_id("ended")).to_be_visible()
    expect_as_stored(server, page, "stopped")
    before = shown(page)
    page.get_by_test_id("continue").click()
    until_longer(page, len(before))
    page.reload()
    until_ended(page)
    expect_as_stored(server, page)
    assert shown(page).startswith(before)
    assert server.count_messages(page) == 2


def test_a_reload_in_mid_answer_goes_on(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page)
    for _ in range(3):
        length = until_longer(page)
        page.reload()
        assert until_longer(page, length) > length
    until_ended(page)
    expect_as_stored(server, page)


def test_two_tabs_read_one_answer(server: Server, open_page: Open) -> None:
    first = open_page(server.url)
    ask(first)
    until_longer(first)
    second = open_page(first.url, context=first.context)
    until_longer(second)
    for page in (first, second):
        until_ended(page)
        expect_as_stored(server, page)
    assert shown(first) == shown(second)

    ask(second, "And now?")
    expect(first.get_by_test_id("answer")).to_have_count(2)
    until_ended(first)
    expect_as_stored(server, first)


def test_an_answer_outlives_the_gateway(serve: Serve, open_page: Open) -> None:
    server = serve(paced(300))
    page = open_page(server.url)
    ask(page)
    length = until_longer(page)
    server.kill("gateway")
    length = until_longer(page, length + IN_FLIGHT)
    server.kill("gateway")
    until_longer(page, length + IN_FLIGHT)
    until_ended(page)
    expect_as_stored(server, page)


def test_an_answer_outlives_the_engine(serve: Serve, open_page: Open) -> None:
    server = serve(paced(300))
    page = open_page(server.url)
    ask(page)
    length = until_longer(page)
    server.kill("engine")
    length = until_longer(page, length + IN_FLIGHT)
    server.kill("engine")
    until_longer(page, length + IN_FLIGHT)
    until_ended(page)
    expect_as_stored(server, page)


def test_an_answer_goes_on_while_the_network_is_away(serve: Serve, open_page: Open) -> None:
    server = serve(paced(300))
    page = open_page(server.url)
    ask(page)
    until_longer(page)
    with offline(page):
        server.kill("gateway")
        expect(page.get_by_test_id("lost")).to_be_visible()
    until_ended(page)
    expect_as_stored(server, page)


def test_a_question_asked_without_a_network_is_sent_once_when_it_is_back(
    server: Server, open_page: Open
) -> None:
    page = open_page(server.url)
    ask(page)
    until_ended(page)
    with offline(page):
        ask(page, "Still there?")
        expect(page.get_by_test_id("send-problem")).to_be_visible()
    expect(page.get_by_test_id("answer")).to_have_count(2)
    until_ended(page)
    expect_as_stored(server, page)
    assert server.count_messages(page) == 4


def test_whatever_reaches_the_server_again_ends_all_waiting_for_it(serve: Serve, open_page: Open) -> None:
    page = open_page(serve({"answer": "Yes."}).url)
    expect(page.get_by_test_id("question")).to_be_editable()
    page.evaluate("Math.random = () => 1")  # then pauses are as long as they can be
    page.route("**/api/**", lambda route: route.abort())
    page.evaluate("dispatchEvent(new Event('online'))")
    for _ in range(6):
        with page.expect_request("**/api/live"):
            pass
    expect(page.get_by_test_id("server-lost")).to_be_visible()
    # By itself the page tries again in eight seconds.
    page.unroute("**/api/**")
    ask(page)
    until_ended(page)
    expect(page.get_by_test_id("server-lost")).to_be_hidden()


def test_enter_that_confirms_a_composition_does_not_send(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    question = page.get_by_test_id("question")
    question.focus()
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "你好", "selectionStart": 2, "selectionEnd": 2})
    enter = {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    keyboard.send("Input.dispatchKeyEvent", enter)
    keyboard.send("Input.insertText", {"text": "你好"})
    # Safari sends this Enter when the composition is over.
    keyboard.send("Input.dispatchKeyEvent", enter)
    expect(question).to_have_value("你好")
    expect(page.get_by_test_id("asked")).to_have_count(0)
    question.press("Shift+Enter")
    expect(question).to_have_value("你好\n")
    question.press("Enter")
    expect(page.get_by_test_id("asked")).to_have_count(1)
    until_ended(page)


def test_a_reader_who_scrolls_up_is_left_there(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "A line of its own.\n" * 400, "tokens_per_second": 300})
    page = open_page(server.url)
    top = "document.querySelector('[data-testid=scroller]').scrollTop"
    ask(page)
    until(page, f"() => {top} > 600")
    page.get_by_test_id("scroller").hover()
    page.mouse.wheel(0, -400)
    expect(page.get_by_test_id("jump")).to_be_visible()
    until(page, f"() => window.still === (window.still = {top})")  # a smooth scroll has come to rest
    where, length = page.evaluate(top), until_longer(page, 0)
    until_longer(page, length + 400)
    assert page.evaluate(top) == where
    page.get_by_test_id("jump").click()
    expect(page.get_by_test_id("jump")).to_have_count(0)
    until_longer(page, until_longer(page, 0) + 200)
    until(page, f"() => {top} > {where} + 600")
    expect(page.get_by_test_id("jump")).to_have_count(0)


def test_the_page_speaks_english_and_chinese(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "好的。"})
    page = open_page(server.url, locale="zh-CN")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("button", name="发送")).to_be_visible()
    ask(page, "你好吗？")
    until_ended(page)
    expect(page.get_by_test_id("answer").get_by_test_id("text")).to_have_attribute("lang", "zh")
    prefer(page, language="en")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_test_id("answer")).to_have_count(1)


def test_a_chat_has_the_title_that_the_server_gave_it(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "Paris."})
    page = open_page(server.url)
    ask(page, "What is the capital of France?\nIn one word.")
    until_ended(page)
    expect(page).to_have_title("What is the capital of France? · inkstream")
    page.reload()
    expect(page).to_have_title("What is the capital of France? · inkstream")
    page.get_by_test_id("new-chat").click()
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(
        ["What is the capital of France?"]
    )
    expect(page).to_have_title("inkstream")


def test_an_answer_tells_who_wrote_it_and_what_was_left_out(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "Yes. " * 10, "context": 256})
    page = open_page(server.url)
    for number in range(1, 5):
        ask(page, f"Is it so, for the {number}th time? " + "Tell me why. " * 5)
        expect(page.get_by_test_id("made")).to_have_count(number)
    left_out = server.answer(page)["left_out"]
    assert left_out > 0
    expect(page.get_by_test_id("made").first).to_have_text("scripted")
    expect(page.get_by_test_id("made").last).to_contain_text(f": {left_out}")
    page.reload()
    expect(page.get_by_test_id("made").last).to_contain_text(f": {left_out}")


def test_a_question_waits_for_the_model(serve: Serve, open_page: Open) -> None:
    server = serve({**paced(), "load_seconds": 8})
    page = open_page(server.url)
    expect(page.get_by_test_id("engine")).to_be_visible()
    ask(page)
    expect(page.get_by_test_id("state")).to_have_attribute("data-phase", "loading")
    expect(page.get_by_test_id("state").get_by_role("progressbar")).to_be_visible()
    page.reload()
    until_longer(page)
    until_ended(page)
    expect_as_stored(server, page)


def test_a_question_waits_for_the_download(serve: Serve, open_page: Open, qwen2: Path) -> None:
    weights, gate = qwen2.read_bytes(), threading.Event()

    def hold() -> None:
        gate.wait()

    with hub_with("Owner/Tiny-GGUF", "tiny-q8_0.gguf", weights) as hub:
        hub.faults = [Cut(len(weights) // 2), Change(hold)]
        endpoints = {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
        server = serve(ENGINE="llama", MODEL="Owner/Tiny-GGUF", CONTEXT="512", **endpoints)
        try:
            page = open_page(server.url)
            ask(page)
            expect(page.get_by_test_id("state")).to_have_attribute("data-phase", "downloading")
            share = "() => document.querySelector('progress')?.value"
            assert (
                0.4 < until(page, f"() => {{ const share = ({share})(); return share > 0.4 && share }}") < 1
            )
            page.reload()
            expect(page.get_by_test_id("state")).to_have_attribute("data-phase", "downloading")
        finally:
            gate.set()
        until_ended(page)
        # A random text may have any markup: what came piece by piece is what the server has as a whole.
        assert server.answer(page)["state"] == "done"
        second = open_page(page.url, context=page.context)
        until_ended(second)
        until(page, f"text => ({SHOWN})() === text", shown(second))


def test_a_question_waits_in_line_and_says_where(serve: Serve, open_page: Open) -> None:
    server = serve({"slots": 1, "tokens_per_second": 30, "answer": plain(4000)})
    first, second = open_page(server.url), open_page(server.url)
    ask(first)
    until_longer(first)
    ask(second)
    expect(second.get_by_test_id("state")).to_have_attribute("data-phase", "queued")
    first.get_by_test_id("stop").click()
    until_longer(second)
    second.get_by_test_id("stop").click()
    expect_as_stored(server, second, "stopped")


def test_a_failure_says_what_happened_and_offers_a_way_on(serve: Serve, open_page: Open) -> None:
    server = serve({**paced(), "fail_on": "boom"})
    page = open_page(server.url)
    ask(page, "boom")
    expect(page.get_by_test_id("failure")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("failure")).to_be_visible()
    page.get_by_test_id("remedy-edit").click()
    page.get_by_test_id("edit-field").fill("fine")
    page.get_by_test_id("edit-send").click()
    until_ended(page)
    expect(page.get_by_test_id("failure")).to_have_count(0)
    assert server.count_messages(page) == 4
    expect_as_stored(server, page)


def test_a_draft_outlives_a_reload(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    page.get_by_test_id("question").fill("half a thought")
    page.reload()
    expect(page.get_by_test_id("question")).to_have_value("half a thought")


def test_what_is_typed_right_behind_a_new_chat_belongs_to_it(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page)
    until_ended(page)
    page.evaluate(NEW_CHAT_AND_TYPE)
    expect(page.get_by_test_id("answer")).to_have_count(0)
    expect(page.get_by_test_id("question")).to_have_value("at once")
    page.reload()
    expect(page.get_by_test_id("question")).to_have_value("at once")
    page.go_back()
    expect(page.get_by_test_id("answer")).to_have_count(1)
    expect(page.get_by_test_id("question")).to_have_value("")


def test_an_earlier_chat_is_found_again(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "Paris."})
    page = open_page(server.url)
    ask(page, "What is the capital of France?")
    until_ended(page)
    page.get_by_test_id("new-chat").click()
    expect(page.get_by_test_id("answer")).to_have_count(0)
    page.get_by_role("navigation").get_by_role("link").click()
    expect_as_stored(server, page)
    page.go_back()
    expect(page.get_by_test_id("answer")).to_have_count(0)


def test_without_a_secure_context(serve: Serve, open_page: Open) -> None:
    server = serve(HOSTS="ink.test")
    page = open_page(server.url.replace("127.0.0.1", "ink.test"))
    assert page.evaluate("isSecureContext") is False
    ask(page)
    until_longer(page)
    page.reload()
    until_ended(page)
    expect_as_stored(server, page)


def test_below_a_base_path(serve: Serve, open_page: Open) -> None:
    server = serve(BASE_PATH="/chat")
    page = open_page(server.url.rstrip("/"))
    assert page.url.endswith("/chat/")
    ask(page)
    until_longer(page)
    page.reload()
    until_ended(page)
    expect_as_stored(server, page)


def test_the_docs_work_below_a_base_path_and_ask_no_other_host(
    serve: Serve, browser: Browser, open_page: Open
) -> None:
    server = serve(BASE_PATH="/chat")
    asked: list[str] = []
    context = browser.new_context()
    context.on("request", lambda request: asked.append(request.url))
    page = open_page(f"{server.url}docs", context=context)
    health = page.locator(".opblock", has_text="/healthz")
    health.click()
    health.get_by_role("button", name="Try it out").click()
    health.get_by_role("button", name="Execute").click()
    expect(health.locator(".live-responses-table")).to_contain_text('"ok"')
    context.close()
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []


def test_a_server_with_a_key_asks_for_it(serve: Serve, open_page: Open) -> None:
    server = serve(KEY="open sesame")
    page = open_page(server.url)
    page.get_by_test_id("sign-in").get_by_role("textbox").fill("wrong")
    page.get_by_test_id("sign-in").get_by_role("button").click()
    expect(page.get_by_test_id("sign-in").get_by_role("alert")).to_be_visible()
    page.get_by_test_id("sign-in").get_by_role("textbox").fill("open sesame")
    page.get_by_test_id("sign-in").get_by_role("button").click()
    expect(page.get_by_test_id("sign-in")).to_have_count(0)
    ask(page)
    until_longer(page)
    page.reload()
    until_ended(page)
    expect_as_stored(server, page)


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_a_narrow_phone_shows_everything(serve: Serve, open_page: Open, locale: str) -> None:
    wide = f"```\n{'x' * 300}\n```\n\n| {'很长的中文 | ' * 9}\n{'|---' * 9}|\n\n$${'x+' * 90}x$$"
    server = serve({"answer": f"{'x' * 300}\n{'很长的中文' * 60}\n\n{wide}"})
    page = open_page(server.url, locale=locale, width=320)
    ask(page, "y" * 300)
    until_ended(page)
    expect(page.locator(".katex-display")).to_be_attached()
    for edge in ("document.documentElement", "document.querySelector('[data-testid=scroller]')"):
        assert page.evaluate(f"{edge}.scrollWidth <= {edge}.clientWidth")
    expect(page.get_by_test_id("send")).to_be_in_viewport(ratio=1)
