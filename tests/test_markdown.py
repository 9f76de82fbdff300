"""Answers as the page draws them: Markdown, code, formulas, images."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Dialog, Locator, Page, expect

from tests.browsing import Open, Serve, Server, ask, until, until_ended

pytestmark = pytest.mark.real

CODE = "def f(x: int) -> str:\n\treturn '<b>' * x  # 注释\n\n\nprint(f(3))"


def answered(server: Server, page: Page) -> Locator:
    """Ask, and wait for the whole answer to be in view."""
    ask(page)
    until_ended(page)
    text = page.get_by_test_id("answer").get_by_test_id("text")
    expect(text).to_have_count(1)
    return text


@contextmanager
def quiet(page: Page, server: Server) -> Iterator[None]:
    """Nothing that happens inside asks another host or opens a dialog."""
    asked: list[str] = []
    dialogs: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.context.on("request", lambda request: asked.append(request.url))
    page.on("dialog", dismiss)
    yield
    assert [url for url in asked if not url.startswith(server.url)] == []
    assert dialogs == []


def test_bold_is_bold_beside_chinese_punctuation_too(serve: Serve, open_page: Open) -> None:
    server = serve(
        {"answer": "**Bold.** Then *soft*.\n\n**注意：**正文，**“引用”**也是。", "tokens_per_second": 60}
    )
    text = answered(server, open_page(server.url))
    expect(text.locator("strong")).to_have_text(["Bold.", "注意：", "“引用”"])
    expect(text.locator("em")).to_have_text(["soft"])
    expect(text.locator("p")).to_have_text(["Bold. Then soft.", "注意：正文，“引用”也是。"])


def test_code_is_shown_as_it_is_and_copied_as_it_is(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": f"So:\n\n```python\n{CODE}\n```\n\nDone.", "tokens_per_second": 60})
    page = open_page(server.url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    text = answered(server, page)
    # What is in view ends a little behind the answer.
    until(page, "code => document.querySelector('pre')?.textContent === code", f"{CODE}\n")
    expect(text.locator("figcaption")).to_contain_text("python")
    until(page, "() => document.querySelectorAll('pre .keyword').length > 1")
    text.get_by_role("button", name="Copy").click()
    expect(text.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == CODE


def test_code_is_copied_without_a_secure_context(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": f"```\n{CODE}\n```"}, HOSTS="ink.test")
    page = open_page(server.url.replace("127.0.0.1", "ink.test"))
    assert page.evaluate("'clipboard' in navigator") is False
    answered(server, page).get_by_role("button", name="Copy").click()
    page.get_by_test_id("question").focus()
    page.keyboard.press("Control+V")
    expect(page.get_by_test_id("question")).to_have_value(CODE)


def test_a_table_has_rows_and_alignment(serve: Serve, open_page: Open) -> None:
    table = "| run | 秒 |\n|:---|---:|\n| `a|b` | 1.5 |\n| **b** | 20 |\n"
    server = serve({"answer": table.replace("a|b", "a\\|b"), "tokens_per_second": 60})
    text = answered(server, open_page(server.url))
    expect(text.get_by_role("columnheader")).to_have_text(["run", "秒"])
    expect(text.get_by_role("cell")).to_have_text(["a|b", "1.5", "b", "20"])
    expect(text.get_by_role("cell", name="20")).to_have_css("text-align", "end")


def test_formulas_are_typeset(serve: Serve, open_page: Open) -> None:
    answer = "Inline $a^2 + b^2$ and \\(c\\), 共 $5 和 $6。\n\n\\[\\frac{1}{n}\\sum_i x_i\\]\n\nIt is \\$1."
    server = serve({"answer": answer, "tokens_per_second": 60})
    page = open_page(server.url)
    with quiet(page, server):
        text = answered(server, page)
        expect(text.locator(".katex")).to_have_count(3)
        expect(text.locator(".katex-display")).to_have_count(1)
        expect(text.locator("math annotation")).to_have_text(
            ["a^2 + b^2", "c", "\\frac{1}{n}\\sum_i x_i"], use_inner_text=False
        )
        expect(text).to_contain_text("共 $5 和 $6。")
        # Its fonts come from here, and have come.
        until(
            page,
            "() => [...document.fonts].some(font => /KaTeX/.test(font.family) && font.status === 'loaded')",
        )


class Pictures(http.server.BaseHTTPRequestHandler):
    """Another host; what it is asked for is kept."""

    PIXEL = b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>"

    def __init__(self, asked: list[tuple[str, str | None]], *given: Any) -> None:
        self._asked = asked
        super().__init__(*given)

    def do_GET(self) -> None:
        self._asked.append((self.path, self.headers["Referer"]))
        is_there = self.path == "/there.svg"
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Type", "image/svg+xml")
        self.end_headers()
        # A browser draws whatever picture comes, under any status.
        self.wfile.write(self.PIXEL if is_there else b"")

    def log_message(self, *_: Any) -> None:
        """Not to the test's output."""


@contextmanager
def pictures() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    asked: list[tuple[str, str | None]] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pictures, asked)) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        yield f"localhost:{host.server_port}", asked
        host.shutdown()
        thread.join()


def test_an_image_is_loaded_when_the_reader_asks_for_it_and_not_before(serve: Serve, open_page: Open) -> None:
    with pictures() as (host, asked):
        server = serve({"answer": f"![a river](http://{host}/there.svg)\n\n![gone](http://{host}/gone.svg)"})
        page = open_page(server.url)
        with quiet(page, server):
            text = answered(server, page)
            expect(text.get_by_role("button")).to_have_count(2)
            page.reload()
            expect(text.get_by_role("button").first).to_contain_text(host)
        assert asked == []
        text.get_by_role("button").first.click()
        image = text.get_by_role("img", name="a river")
        until(page, "() => document.querySelector('main img')?.naturalWidth === 8")
        expect(image).to_have_attribute("src", f"http://{host}/there.svg")
        text.get_by_role("button").click()
        expect(text.get_by_role("link", name="gone")).to_be_visible()
        assert asked == [("/there.svg", None), ("/gone.svg", None)]


LONG_LINES = "".join(f"total_{at} = compute(seed={at}, of='words')  # the step {at}\n" for at in range(40))
PLACE_IN_CODE = """text => {
    const walker = document.createTreeWalker(document.querySelector('pre code'), NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
        const at = walker.currentNode.data.indexOf(text)
        if (at < 0) continue
        const range = document.createRange()
        range.setStart(walker.currentNode, at)
        range.setEnd(walker.currentNode, at + text.length)
        const { left, right, top, height } = range.getBoundingClientRect()
        return { left, right, middle: top + height / 2 }
    }
}"""
IS_COLOURED = """chunk => {
    const chunks = document.querySelectorAll('pre code > span')
    return chunks[chunk]?.querySelectorAll('.comment').length > 0
}"""


def coming_code(serve: Serve, open_page: Open) -> Page:
    """A page on which the first lines of code have come, and others follow."""
    server = serve({"answer": f"```python\n{LONG_LINES}```", "tokens_per_second": 35})
    page = open_page(server.url)
    ask(page)
    until(page, "() => document.querySelector('pre')?.textContent.includes('the step 0')")
    return page


def drag(page: Page, start: str, end: str) -> None:
    """From the left of one text to the right of another, button still down."""
    # Words whose end has just come are in two nodes until they are coloured.
    first, last = until(page, PLACE_IN_CODE, start), until(page, PLACE_IN_CODE, end)
    page.mouse.move(first["left"] + 1, first["middle"])
    page.mouse.down()
    page.mouse.move(last["right"], last["middle"], steps=4)


def selected(page: Page) -> str:
    return str(page.evaluate("getSelection().toString()"))


def test_what_is_selected_in_code_stays_selected_while_more_comes(serve: Serve, open_page: Open) -> None:
    page = coming_code(serve, open_page)
    drag(page, "compute", "the step 0")
    page.mouse.up()
    chosen = selected(page)
    assert chosen.startswith("compute(")
    assert chosen.endswith("the step 0")
    until(page, IS_COLOURED, 1)
    assert selected(page) == chosen
    page.get_by_test_id("question").click()
    until(page, "() => document.querySelectorAll('pre code > span:first-child .comment').length === 8")


def test_a_selection_in_code_is_dragged_while_more_comes(serve: Serve, open_page: Open) -> None:
    page = coming_code(serve, open_page)
    drag(page, "compute", "compute")
    until(page, IS_COLOURED, 1)
    end = until(page, PLACE_IN_CODE, "total_7")
    page.mouse.move(end["right"], end["middle"], steps=4)
    page.mouse.up()
    assert selected(page).startswith("compute(seed=0")
    assert selected(page).endswith("total_7")


def test_a_click_in_code_holds_no_colours(serve: Serve, open_page: Open) -> None:
    page = coming_code(serve, open_page)
    place = until(page, PLACE_IN_CODE, "compute")
    page.mouse.click(place["left"] + 1, place["middle"])
    assert selected(page) == ""
    until(page, "() => document.querySelectorAll('pre code > span:first-child .comment').length === 8")


def nested(mark: str, indent: int, depth: int) -> str:
    return "\n".join(f"{' ' * (indent * level)}{mark} words at level {level}" for level in range(depth))


@pytest.mark.parametrize(
    "deep",
    [nested("-", 2, 20), nested("1.", 3, 20), "> " * 20 + "words at level 20"],
    ids=["bullets", "numbers", "quotes"],
)
def test_what_is_nested_deep_can_be_read_on_a_phone(serve: Serve, open_page: Open, deep: str) -> None:
    server = serve({"answer": deep})
    text = answered(server, open_page(server.url, width=320))
    narrowest = text.evaluate("text => Math.min(...[...text.querySelectorAll('p')].map(p => p.clientWidth))")
    assert narrowest >= 80, f"{narrowest} px are left for the innermost words"


def test_numbers_of_four_digits_stand_within_the_page(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "1948. before\n1949. then\n1950. after"})
    text = answered(server, open_page(server.url, width=320))
    needed = text.evaluate("""text => {
        const number = document.createElement('span')
        number.style.fontVariantNumeric = "tabular-nums"
        number.textContent = '1949.\u00a0'
        text.querySelector('p').append(number)
        return number.getBoundingClientRect().width
    }""")
    # A marker stands in front of its item, and so in front of what the list is indented by.
    assert text.locator("li").first.evaluate("item => item.getBoundingClientRect().left") >= needed


def test_what_reads_from_right_to_left_has_its_marks_on_the_right(serve: Serve, open_page: Open) -> None:
    server = serve(
        {
            "answer": "- عنصر أول\n- English\n\n> اقتباس\n\n| اسم | قيمة |\n|--|--|\n| أ | ب |\n\n"
            "- [x] مهمة\n\nplain\n\n- one\n- عنصر"
        }
    )
    text = answered(server, open_page(server.url))
    directions = text.evaluate(
        "text => [...text.querySelectorAll('ul, blockquote, table')].map(e => getComputedStyle(e).direction)"
    )
    assert directions == ["rtl", "rtl", "rtl", "rtl", "ltr"]
    task = text.locator("li.task")
    box = task.locator("input").bounding_box()
    words = task.locator("p").bounding_box()
    assert box is not None
    assert words is not None
    assert box["x"] >= words["x"] + words["width"]
