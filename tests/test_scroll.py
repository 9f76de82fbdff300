"""The scroll position in a real browser: it follows the end, yields to the reader, and else stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browsing import (
    AT_REST,
    CHROMIUM,
    FLAGS,
    PROSE,
    SCROLLER,
    SHOWN,
    TOP,
    TOP_OF_WORD,
    WORD_AT_TOP,
    Serve,
    Server,
    ask,
    until,
    until_ended,
    until_longer,
)

pytestmark = pytest.mark.real

LINES: dict[str, Any] = {
    "answer": "".join(f"Line {number} of its own.\n\n" for number in range(1500)),
    "tokens_per_second": 90,
}
LINES_OF = f"{SCROLLER}.querySelector('[data-testid=answer] [data-testid=text]').querySelectorAll('p')"
IS_AT_END = f"() => {SCROLLER}.scrollHeight - {SCROLLER}.clientHeight - {TOP} < 4"
LINE_AT_TOP = f"""() => {{
    const view = {SCROLLER}.getBoundingClientRect()
    const line = document.elementFromPoint(view.x + view.width / 2, view.y + 4)
    return [line.textContent, Math.round(line.getBoundingClientRect().top)]
}}"""
WATCH_SHIFTS = """() => {
    window.shifted = 0
    new PerformanceObserver(list => {
        for (const { value } of list.getEntries()) window.shifted += value
    }).observe({ type: 'layout-shift' })
}"""
# As when a formula is typeset or a picture comes: something far above becomes higher, and lower again.
CHANGE_ABOVE = f"""height => {{
    {LINES_OF}[2].style.height = height
}}"""
# As in WebKit.
NO_ANCHORING = """
Document.prototype.caretPositionFromPoint = undefined
const supports = CSS.supports.bind(CSS)
CSS.supports = (...asked) => asked[0] !== 'overflow-anchor' && supports(...asked)
const style = new CSSStyleSheet()
style.replaceSync('* { overflow-anchor: none !important }')
document.adoptedStyleSheets.push(style)
"""
ANCHORING = pytest.mark.parametrize(
    "script", ["", NO_ANCHORING], ids=["anchored by the browser", "anchored by us"]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"), LINES, {})
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, ignore_default_args=["--hide-scrollbars"]
        )
        yield browser
        browser.close()


def open_one(browser: Browser, server: Server, script: str = "", **options: Any) -> Page:
    context = browser.new_context(viewport={"width": 900, "height": 600}, **options)
    page = context.new_page()
    if script:
        page.add_init_script(script)
    page.goto(server.url)
    return page


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Page]:
    """A page on which an answer is far longer than the view, and goes on."""
    page = open_one(browser, server)
    ask_and_follow(page)
    yield page
    leave(page)


def ask_and_follow(page: Page) -> None:
    ask(page)
    until_following(page)


def until_following(page: Page) -> None:
    until(page, f"() => {TOP} > 900")
    until(page, IS_AT_END)


def leave(page: Page) -> None:
    """Stop the answer, if it goes on, so that it costs the next test nothing."""
    page.get_by_test_id("question").press("Escape")
    expect(page.get_by_test_id("send")).to_be_visible()
    page.context.close()


def at_rest(page: Page) -> float:
    """Where the view is when a smooth scroll is over, or what was laid out anew is drawn and put back."""
    return float(page.evaluate(AT_REST))


def expect_left_alone(page: Page) -> None:
    """The reader has gone somewhere, and nothing that comes moves the view."""
    expect(page.get_by_test_id("jump")).to_be_visible()
    where = at_rest(page)
    until_longer(page, until_longer(page, 0) + 200)
    assert page.evaluate(TOP) == where


def gesture(page: Page, name: str) -> None:
    """Do what readers do to go up."""
    view = page.get_by_test_id("scroller").bounding_box()
    assert view is not None
    middle = (view["x"] + view["width"] / 2, view["y"] + view["height"] / 2)
    match name:
        case "wheel":
            page.mouse.move(*middle)
            page.mouse.wheel(0, -300)
        case "one notch of a fine wheel":
            page.mouse.move(*middle)
            page.mouse.wheel(0, -4)
        case "page up" | "home" | "arrow up":
            page.mouse.click(view["x"] + 8, middle[1])
            page.keyboard.press({"page up": "PageUp", "home": "Home", "arrow up": "ArrowUp"}[name])
        case "find in page":
            page.evaluate("window.find('Line 3 of its own', false, true, true)")
        case "moved focus":
            page.evaluate(f"() => {{ {LINES_OF}[5].tabIndex = 0 }}")
            page.get_by_test_id("question").focus()
            page.keyboard.press("Shift+Tab")
        case "scrollbar":
            page.mouse.move(view["x"] + view["width"] - 4, view["y"] + view["height"] - 20)
            page.mouse.down()
            page.mouse.move(view["x"] + view["width"] - 4, view["y"] + 60, steps=4)
            page.mouse.up()
        case "selection":
            page.mouse.move(view["x"] + 120, view["y"] + 100)
            page.mouse.down()
            page.mouse.move(view["x"] + 300, view["y"] + 160, steps=4)
            page.mouse.up()


GESTURES = [
    "wheel",
    "one notch of a fine wheel",
    "page up",
    "home",
    "arrow up",
    "find in page",
    "moved focus",
    "scrollbar",
    "selection",
]


@pytest.mark.parametrize("name", GESTURES)
def test_the_view_yields_to(page: Page, name: str) -> None:
    gesture(page, name)
    expect_left_alone(page)


def press(page: Page) -> float:
    """Press the mouse on a line of the answer while more of it comes; gives where the view was."""
    view = page.get_by_test_id("scroller").bounding_box()
    assert view is not None
    page.mouse.move(view["x"] + 120, view["y"] + 100)
    page.mouse.down()
    top = float(page.evaluate(TOP))
    until_longer(page, until_longer(page, 0) + 200)
    return top


def test_text_that_comes_takes_nothing_from_under_a_pressed_mouse(page: Page) -> None:
    top = press(page)
    assert page.evaluate(TOP) == top
    page.mouse.up()
    until(page, f"() => {TOP} > {top} + 200")
    until(page, IS_AT_END)
    expect(page.get_by_test_id("jump")).to_have_count(0)


def test_a_selection_is_dragged_while_text_comes(page: Page) -> None:
    press(page)
    page.mouse.move(300, 210, steps=4)
    until_longer(page, until_longer(page, 0) + 200)
    page.mouse.move(300, 255, steps=4)
    page.mouse.up()
    assert str(page.evaluate("getSelection().toString()")).count("of its own") >= 2
    expect_left_alone(page)


def test_the_view_yields_to_a_finger(server: Server, browser: Browser) -> None:
    page = open_one(browser, server, has_touch=True)
    page.get_by_test_id("question").fill("Tell me something.")
    page.get_by_test_id("send").tap()
    until_following(page)
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": 400, "y": 200}]})
    for y in range(220, 460, 20):
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": 400, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect_left_alone(page)
    leave(page)


@pytest.mark.parametrize("way", ["button", "wheel", "end key"])
def test_the_reader_comes_back_by(page: Page, way: str) -> None:
    gesture(page, "wheel")
    expect_left_alone(page)
    if way == "button":
        page.get_by_test_id("jump").click()
    elif way == "wheel":
        page.mouse.wheel(0, 100_000)
    else:
        page.locator("header").click(position={"x": 4, "y": 4})
        page.keyboard.press("End")
    expect(page.get_by_test_id("jump")).to_have_count(0)
    before = page.evaluate(TOP)
    until(page, f"() => {TOP} > {before} + 100")
    until(page, IS_AT_END)


@ANCHORING
def test_what_is_read_stays_where_it_is(server: Server, browser: Browser, script: str) -> None:
    page = open_one(browser, server, script)
    ask_and_follow(page)
    gesture(page, "wheel")
    expect_left_alone(page)
    page.evaluate(WATCH_SHIFTS)
    line = page.evaluate(LINE_AT_TOP)
    for height in ("400px", "20px", "0", "900px"):
        page.evaluate(CHANGE_ABOVE, height)
        until_longer(page, until_longer(page, 0) + 60)
        assert page.evaluate(LINE_AT_TOP) == line
    # What we put back has moved and has not: the metric counts it, the reader does not see it.
    assert script or page.evaluate("window.shifted") == 0
    leave(page)


def resize(page: Page, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    until(page, f"() => innerWidth === {width}")


def turn_up(page: Page) -> None:
    """Leave the end of a long answer that has been asked for in a narrow view."""
    resize(page, 390, 700)
    ask(page)
    until(page, f"() => {TOP} > 2400")
    page.mouse.move(195, 300)
    page.mouse.wheel(0, -1200)
    expect(page.get_by_test_id("jump")).to_be_visible()
    at_rest(page)


def expect_line_kept(page: Page) -> None:
    word, top = page.evaluate(WORD_AT_TOP)
    for width, height in ((844, 390), (390, 700), (1280, 800), (320, 568), (390, 700)):
        resize(page, width, height)
        at_rest(page)
        assert abs(page.evaluate(TOP_OF_WORD, word) - top) < 2, (word, width)
    assert page.evaluate(WORD_AT_TOP)[0] == word


@ANCHORING
@pytest.mark.parametrize("pace", [300, 0], ids=["while more comes", "of an answer that is there"])
def test_the_line_at_the_top_stays_there_at_every_width(
    serve: Serve, browser: Browser, script: str, pace: int
) -> None:
    page = open_one(browser, serve({"answer": PROSE, "tokens_per_second": pace}), script)
    turn_up(page)
    expect_line_kept(page)
    leave(page)


@ANCHORING
def test_a_line_among_what_was_not_drawn_yet_stays_there_as_well(
    serve: Serve, browser: Browser, script: str
) -> None:
    page = open_one(browser, serve({"answer": PROSE}), script)
    turn_up(page)
    page.evaluate(f"{TOP} = 1000")
    at_rest(page)
    expect_line_kept(page)
    leave(page)


@ANCHORING
def test_a_sidebar_that_opens_leaves_the_line_at_the_top(serve: Serve, browser: Browser, script: str) -> None:
    page = open_one(browser, serve({"answer": PROSE}), script)
    resize(page, 940, 600)
    ask(page)
    until_following(page)
    gesture(page, "wheel")
    at_rest(page)
    word, top = page.evaluate(WORD_AT_TOP)
    width = page.evaluate(f"{SCROLLER}.clientWidth")
    for _ in range(2):
        page.get_by_test_id("toggle-sidebar").click()
        until(page, f"() => {SCROLLER}.clientWidth !== {width}")
        at_rest(page)
        width = page.evaluate(f"{SCROLLER}.clientWidth")
        assert abs(page.evaluate(TOP_OF_WORD, word) - top) < 2
    leave(page)


def test_who_follows_the_end_does_so_at_every_width(serve: Serve, browser: Browser) -> None:
    page = open_one(browser, serve({"answer": PROSE, "tokens_per_second": 90}))
    ask_and_follow(page)
    for width, height in ((390, 700), (844, 390), (320, 568)):
        resize(page, width, height)
        until(page, IS_AT_END)
        expect(page.get_by_test_id("jump")).to_have_count(0)
    leave(page)


@ANCHORING
def test_a_question_that_is_edited_stays_in_view_at_every_width(
    serve: Serve, browser: Browser, script: str
) -> None:
    page = open_one(browser, serve({"answer": PROSE}), script)
    resize(page, 1280, 800)
    ask(page)
    until_ended(page)
    ask(page, "And then? " * 12)
    until_ended(page)
    page.get_by_test_id("asked").last.scroll_into_view_if_needed()
    page.get_by_test_id("asked").last.hover()
    page.get_by_test_id("edit").last.click()
    expect(page.get_by_test_id("edit-field")).to_be_focused()
    for width, height in ((768, 1024), (360, 740), (320, 568), (844, 390), (360, 300)):
        resize(page, width, height)
        expect(page.get_by_test_id("edit-field")).to_be_in_viewport(ratio=1)
        if height > 500:
            expect(page.get_by_test_id("edit-send")).to_be_in_viewport(ratio=1)
    leave(page)


def test_a_question_goes_to_the_top_and_its_answer_grows_without_motion(
    server: Server, browser: Browser
) -> None:
    page = open_one(browser, server)
    ask_and_follow(page)
    page.get_by_test_id("stop").click()
    expect(page.get_by_test_id("send")).to_be_visible()
    ask(page, "And then?")
    expect(page.get_by_test_id("answer")).to_have_count(2)
    asked = (
        f"() => [...{SCROLLER}.querySelectorAll('[data-testid=asked]')].at(-1).getBoundingClientRect().top"
    )
    until_longer(page, 20)
    top = page.evaluate(asked)
    assert top - page.evaluate(f"{SCROLLER}.getBoundingClientRect().top") < 40
    assert until(page, f"() => ({SHOWN})().length > 80 && ({asked})()") == top
    until(page, f"() => ({asked})() < 0")
    until(page, IS_AT_END)
    leave(page)


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_thinking_that_folds_takes_nobody_from_the_end(serve: Serve, browser: Browser, locale: str) -> None:
    server = serve({"answer": "A line of its own. " * 150, "think": True, "tokens_per_second": 60})
    context = browser.new_context(viewport={"width": 390, "height": 700}, locale=locale)
    page = context.new_page()
    page.goto(server.url)
    ask(page)
    expect(page.locator("details.thinking:not([open])")).to_be_visible()
    until(page, f"() => {TOP} > 300")
    expect(page.get_by_test_id("jump")).to_have_count(0)
    until(page, IS_AT_END)
    context.close()
