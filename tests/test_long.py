"""Long answers and long conversations in a real browser: far from view they are their words only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from page.corpus import mixed
from page.history import imported
from tests.browsing import Server, ask, until

pytestmark = pytest.mark.real

ANSWER = mixed(3_000)
SCROLLER = "document.querySelector('[data-testid=scroller]')"
PARTS = f"[...{SCROLLER}.querySelectorAll('.part')]"
FORMULAS = f"{SCROLLER}.querySelectorAll('.katex').length"
TOP = f"{SCROLLER}.scrollTop"
# Formulas, colours and all: the text is drawn once more when the reader comes near.
DRAWN_AT_TOP = f"""() => {{
    const view = {SCROLLER}.getBoundingClientRect()
    const seen = {PARTS}.filter(part => {{
        const {{ top, bottom }} = part.getBoundingClientRect()
        return bottom > view.top && top < view.bottom
    }})
    return seen.length > 0 && seen.every(part => !part.matches('.away'))
}}"""
AT_TOP = f"""() => {{
    const view = {SCROLLER}.getBoundingClientRect()
    const seen = document.elementFromPoint(view.x + view.width / 2, view.y + 4)
    return [seen.textContent, Math.round(seen.getBoundingClientRect().top)]
}}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    script = {"answer": ANSWER, "tokens_per_second": 600}
    server = Server(tmp_path_factory.mktemp("data"), script, {})
    yield server
    server.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 900, "height": 600})
    yield context.new_page()
    context.close()


def until_written(page: Page) -> None:
    until(page, "() => document.querySelector('[data-testid=answer]')?.dataset.state === 'done'")
    expect(page.get_by_test_id("send")).to_be_visible()


def scroll_to(page: Page, top: str) -> None:
    page.get_by_test_id("scroller").hover()
    page.mouse.wheel(0, -10)
    page.evaluate(f"{TOP} = {top}")
    until(page, DRAWN_AT_TOP)


def words(page: Page) -> str:
    """What the page holds, drawn or not, without blanks: how they are drawn differs."""
    return "".join(page.get_by_test_id("answer").inner_text().split())


def test_what_is_far_from_view_is_its_words_and_is_drawn_when_it_comes_near(
    server: Server, page: Page
) -> None:
    page.goto(server.url)
    ask(page)
    until_written(page)
    for _ in range(2):  # as it was written, and as it is found after a reload
        until(page, f"() => {PARTS}.filter(part => part.matches('.away')).length > 5")
        assert page.evaluate(FORMULAS) < ANSWER.count("$") / 6
        assert page.evaluate(f"{SCROLLER}.textContent.includes('The river keeps its own time, and nothing')")
        scroll_to(page, "0")
        expect(page.locator(".part").first.locator("strong").first).to_have_text("nothing is lost")
        until(page, f"() => {PARTS}.at(-1).matches('.away') || {PARTS}.at(-2).matches('.away')")
        page.reload()
        until(page, f"() => {PARTS}.length > 5")


def test_what_is_read_stays_where_it_is_while_parts_come_near_and_go(server: Server, page: Page) -> None:
    page.goto(server.url)
    ask(page)
    until(page, f"() => {TOP} > 3000")
    page.get_by_test_id("scroller").hover()
    page.mouse.wheel(0, -2000)
    expect(page.get_by_test_id("jump")).to_be_visible()
    until(page, "() => document.querySelector('[data-testid=answer]').dataset.state === 'done'")
    until(page, DRAWN_AT_TOP)
    seen = page.evaluate(AT_TOP)
    # Everything above is drawn anew, and is as high as it was.
    where = page.evaluate(TOP)
    scroll_to(page, "0")
    until(page, f"() => {TOP} === 0")
    scroll_to(page, str(where))
    until(page, f"() => Math.abs({TOP} - {where}) < 2")
    assert page.evaluate(AT_TOP) == seen


def test_a_long_conversation_opens_at_its_end_and_its_beginning_is_found(server: Server, page: Page) -> None:
    page.goto(imported(server.url, 200, 1_500))
    expect(page.get_by_test_id("answer")).to_have_count(100)
    until(page, f"() => {SCROLLER}.scrollHeight - {SCROLLER}.clientHeight - {TOP} < 4")
    until(page, DRAWN_AT_TOP)
    assert page.locator(".far").count() > 80
    assert page.evaluate("window.find('Answer 1.', false, true, true)")
    first = page.get_by_test_id("answer").first
    expect(first.locator("h4").first).to_have_text("1. What the river keeps")
    expect(first.locator(".far")).to_have_count(0)


def test_all_of_a_conversation_can_be_printed(server: Server, page: Page) -> None:
    """It is drawn for that, also what is far from view, and put away again."""
    page.goto(imported(server.url, 40, 1_500))
    expect(page.get_by_test_id("answer").last).to_be_visible()
    page.evaluate("document.fonts.ready")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.get_by_role("button")).to_have_count(0)
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
    assert page.evaluate(f"{SCROLLER}.querySelectorAll('.away, .far').length") == 0
    hidden = "e => e.scrollHeight - e.clientHeight"
    assert page.get_by_test_id("scroller").evaluate(hidden) == 0
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    until(page, f"() => {PARTS}.some(part => part.matches('.away'))")
