"""What a reader does in a conversation, in a real browser: edits, branches, waiting questions, files, drafts.

Each test ends with a reload and finds again what was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from tests.browsing import (
    SHOWN,
    Open,
    Serve,
    Server,
    ask,
    expect_as_stored,
    paced,
    plain,
    shown,
    text_of,
    until,
    until_ended,
    until_longer,
)

pytestmark = pytest.mark.real

SHORT: dict[str, Any] = {"tokens_per_second": 200, "answer": plain(60)}
WRITTEN = "# 标题\n\n- 使用Python语言，`x中y`\n\n```python\nfor 甲b in ():\n\tpass\n```"
DROP = """([type, files]) => {
    const transfer = new DataTransfer()
    for (const [name, bytes] of files) {
        transfer.items.add(new File([new Uint8Array(bytes)], name))
    }
    const about = { bubbles: true, cancelable: true }
    const event = type === 'paste'
        ? new ClipboardEvent(type, { ...about, clipboardData: transfer })
        : new DragEvent(type, { ...about, dataTransfer: transfer })
    document.querySelector('[data-testid=question]').dispatchEvent(event)
    return event.defaultPrevented
}"""
OPACITY = "element => Number(getComputedStyle(element.parentElement).opacity)"


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answers are there in a third of a second."""
    server = Server(tmp_path_factory.mktemp("data"), SHORT, {})
    yield server
    server.close()


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An answer that loses its engine fails."""
    server = Server(tmp_path_factory.mktemp("data"), {**paced(), "continues": "no"}, {})
    yield server
    server.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"), {"answer": WRITTEN}, {"HOSTS": "ink.test"})
    yield server
    server.close()


def messages(server: Server, page: Page) -> list[dict[str, Any]]:
    """All messages of the chat that the page shows, as the server has them."""
    found: list[dict[str, Any]] = page.request.get(api_of(server, page)).json()["messages"]
    return found


def api_of(server: Server, page: Page) -> str:
    return f"{server.url}api/chats/{page.url.partition('#/c/')[2]}"


def asked(page: Page) -> Locator:
    return page.get_by_test_id("asked").get_by_test_id("text")


def version(page: Page) -> Locator:
    return page.get_by_test_id("version")


def answered(page: Page, question: str) -> None:
    ask(page, question)
    until_ended(page)


def edited(page: Page, at: int, question: str) -> None:
    """Ask the question at this place in other words."""
    page.get_by_test_id("edit").nth(at).click()
    page.get_by_test_id("edit-field").fill(question)
    page.get_by_test_id("edit-field").press("Enter")
    expect(asked(page).nth(at)).to_have_text(question)
    until_ended(page)


def test_an_edited_question_is_a_branch_beside_the_first(short: Server, open_page: Open) -> None:
    page = open_page(short.url)
    answered(page, "Where is the river?")
    answered(page, "And the sea?")
    edited(page, 0, "Where is the lake?")
    expect(asked(page)).to_have_text(["Where is the lake?"])
    expect(version(page)).to_have_text(["2/2"])
    expect_as_stored(short, page)
    assert [m["parent"] for m in messages(short, page) if m["role"] == "user"].count(None) == 2
    page.reload()
    expect(asked(page)).to_have_text(["Where is the lake?"])

    page.get_by_test_id("earlier").click()
    expect(asked(page)).to_have_text(["Where is the river?", "And the sea?"])
    expect(version(page)).to_have_text(["1/2"])
    page.reload()
    expect(asked(page)).to_have_text(["Where is the river?", "And the sea?"])
    second = open_page(page.url, context=page.context)
    expect(asked(second)).to_have_text(["Where is the river?", "And the sea?"])

    answered(second, "And the sky?")
    expect(asked(page)).to_have_text(["Where is the river?", "And the sea?", "And the sky?"])
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_count(3)


def test_what_is_newer_elsewhere_is_shown_when_the_chat_is_opened(short: Server, open_page: Open) -> None:
    page = open_page(short.url)
    answered(page, "First")
    edited(page, 0, "Second")
    page.get_by_test_id("earlier").click()
    expect(asked(page)).to_have_text(["First"])
    other = open_page(page.url)
    expect(asked(other)).to_have_text(["Second"])
    answered(other, "Third")
    expect(asked(page)).to_have_text(["First"])
    page.reload()
    expect(asked(page)).to_have_text(["Second", "Third"])


def test_branches_are_walked_by_keyboard_and_the_focus_stays(short: Server, open_page: Open) -> None:
    page = open_page(short.url)
    answered(page, "One")
    for again in (2, 3):
        page.get_by_test_id("regenerate").click()
        expect(version(page)).to_have_text([f"{again}/{again}"])
        until_ended(page)
    page.get_by_test_id("earlier").focus()
    page.keyboard.press("ArrowLeft")
    expect(version(page)).to_have_text(["2/3"])
    expect(page.get_by_test_id("earlier")).to_be_focused()
    page.keyboard.press("Enter")
    expect(version(page)).to_have_text(["1/3"])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_test_id("later")).to_be_focused()
    expect(version(page)).to_have_text(["2/3"])
    stored = [m for m in messages(short, page) if m["role"] == "assistant"]
    until(page, f"text => ({SHOWN})() === text", text_of(stored[1]).rstrip())
    page.reload()
    expect(version(page)).to_have_text(["2/3"])


def test_what_is_pressed_to_walk_stays_where_it_is(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": plain(1500)})
    page = open_page(server.url)
    for number in range(3):
        answered(page, f"Number {number}")
    edited(page, 1, "Another one, and at more length.\n" * 6)
    page.get_by_test_id("earlier").click()
    expect(asked(page)).to_have_count(3)
    for step in ("later", "earlier"):
        button = page.get_by_test_id(step)
        button.scroll_into_view_if_needed()
        before = button.bounding_box()
        button.click()
        expect(version(page)).to_have_text("2/2" if step == "later" else "1/2")
        after = button.bounding_box()
        assert before
        assert after
        assert abs(before["y"] - after["y"]) < 2


def test_escape_gives_an_edit_up_and_a_reload_keeps_it(short: Server, open_page: Open) -> None:
    page = open_page(short.url)
    answered(page, "Where is the river?")
    page.get_by_test_id("edit").click()
    field = page.get_by_test_id("edit-field")
    expect(field).to_be_focused()
    expect(field).to_have_value("Where is the river?")
    expect(page.get_by_test_id("edit-send")).to_be_disabled()
    field.fill("Where is the la")
    page.reload()
    expect(field).to_have_value("Where is the la")
    field.press("Escape")
    expect(field).to_have_count(0)
    expect(page.get_by_test_id("edit")).to_be_focused()
    page.reload()
    expect(asked(page)).to_have_text(["Where is the river?"])
    expect(field).to_have_count(0)
    assert len(messages(short, page)) == 2


def test_an_edit_while_the_answer_runs_leaves_it_to_its_branch(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page, "First")
    until_longer(page)
    page.get_by_test_id("edit").click()
    page.get_by_test_id("edit-field").fill("Second")
    page.get_by_test_id("edit-send").click()
    until_longer(page)
    page.get_by_test_id("earlier").click()
    expect(asked(page)).to_have_text(["First"])
    until_ended(page)
    stored = [m for m in messages(server, page) if m["role"] == "assistant"]
    until(page, f"text => ({SHOWN})() === text", text_of(stored[0]).rstrip())
    page.get_by_test_id("later").click()
    expect(asked(page)).to_have_text(["Second"])
    page.reload()
    until_ended(page)
    expect_as_stored(server, page)
    assert len(messages(server, page)) == 4


def test_questions_wait_in_their_order_and_are_sent_once(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page, "First")
    until_longer(page)
    ask(page, "Second")
    ask(page, "Third")
    expect(page.get_by_test_id("waits")).to_have_count(2)
    for said in (page.get_by_test_id("answer"), asked(page).last):
        expect(said).to_be_in_viewport()
    page.reload()
    expect(asked(page)).to_have_text(["First", "Second", "Third"])
    expect(page.get_by_test_id("answer")).to_have_count(2)
    page.reload()
    expect(page.get_by_test_id("answer")).to_have_count(3)
    until_ended(page)
    expect_as_stored(server, page)
    page.reload()
    expect(asked(page)).to_have_text(["First", "Second", "Third"])
    stored = messages(server, page)
    assert len(stored) == 6
    assert [m["parent"] for m in stored] == [None, *(m["id"] for m in stored[:-1])]


def test_a_waiting_question_is_sent_while_another_chat_is_shown(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page, "First")
    until_longer(page)
    ask(page, "Second")
    chat = page.url
    page.get_by_test_id("new-chat").click()
    expect(asked(page)).to_have_count(0)
    until(page, "() => !Object.keys(localStorage).some(name => name.startsWith('inkstream.outgoing.'))")
    page.goto(chat)
    expect(asked(page)).to_have_text(["First", "Second"])
    until_ended(page)
    page.reload()
    expect_as_stored(server, page)
    assert len(messages(server, page)) == 4


def test_a_waiting_question_can_be_edited_and_taken_back(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page, "First")
    until_longer(page)
    ask(page, "Second")
    ask(page, "Third")
    ask(page, "Fourth")
    page.get_by_test_id("withdraw").nth(1).click()
    expect(page.get_by_test_id("question")).to_have_value("Third")
    page.get_by_test_id("outgoing").first.get_by_test_id("edit").click()
    page.get_by_test_id("edit-field").fill("Second, in other words")
    # While it is being edited it stays, even when the answer has ended.
    expect(page.get_by_test_id("answer").first).to_have_attribute("data-state", "done")
    page.reload()
    expect(page.get_by_test_id("edit-field")).to_have_value("Second, in other words")
    assert len(messages(server, page)) == 2
    page.get_by_test_id("edit-send").click()
    expect(page.get_by_test_id("answer")).to_have_count(3)
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_text(["First", "Second, in other words", "Fourth"])
    expect(page.get_by_test_id("question")).to_have_value("Third")
    assert len(messages(server, page)) == 6


def test_after_a_stop_the_waiting_question_goes(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    ask(page, "First")
    until_longer(page)
    page.get_by_test_id("question").fill("Second")
    expect(page.get_by_test_id("stop")).to_be_visible()
    page.get_by_test_id("send").click()
    page.get_by_test_id("stop").click()
    expect(page.get_by_test_id("answer")).to_have_count(2)
    expect(page.get_by_test_id("ended")).to_have_count(1)
    until_ended(page)
    page.reload()
    expect(asked(page)).to_have_text(["First", "Second"])
    expect_as_stored(server, page)


def test_after_a_failure_the_waiting_question_is_the_readers(fragile: Server, open_page: Open) -> None:
    page = open_page(fragile.url)
    ask(page, "First")
    until_longer(page)
    ask(page, "Second")
    fragile.kill("engine")
    expect(page.get_by_test_id("held")).to_be_visible()
    expect(page.get_by_test_id("failure")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("held")).to_be_visible()
    assert len(messages(fragile, page)) == 2
    page.get_by_test_id("release").click()
    expect(page.get_by_test_id("answer")).to_have_count(2)
    until_ended(page)
    expect_as_stored(fragile, page)
    page.reload()
    expect(asked(page)).to_have_text(["First", "Second"])
    expect(page.get_by_test_id("held")).to_have_count(0)


def test_after_a_failure_a_new_answer_takes_the_waiting_question_along(
    fragile: Server, open_page: Open
) -> None:
    page = open_page(fragile.url)
    ask(page, "First")
    until_longer(page)
    ask(page, "Second")
    fragile.kill("engine")
    page.get_by_test_id("remedy-again").click()
    expect(page.get_by_test_id("waits")).to_be_visible()
    expect(page.get_by_test_id("answer")).to_have_count(2)
    until_ended(page)
    page.reload()
    expect(version(page)).to_have_text(["2/2"])
    first, failed, new, second, _ = messages(fragile, page)
    assert (failed["state"], new["state"], new["parent"]) == ("failed", "done", first["id"])
    assert second["parent"] == new["id"]


def test_every_end_is_marked_and_what_is_cut_goes_on(short: Server, open_page: Open) -> None:
    page = open_page(short.url)
    answered(page, "First")
    expect(page.get_by_test_id("complete")).to_have_count(1)
    settings = {"settings": {"sampling": {"max_tokens": 20}}}
    assert page.request.patch(api_of(short, page), data=settings).ok
    answered(page, "Second")
    expect(page.get_by_test_id("ended")).to_be_visible()
    expect(page.get_by_test_id("complete")).to_have_count(1)
    expect(page.get_by_test_id("remedy-again")).to_have_count(0)
    before = shown(page)
    page.reload()
    assert page.request.patch(api_of(short, page), data={"settings": {"sampling": None}}).ok
    page.get_by_test_id("continue").click()
    expect(page.get_by_test_id("complete")).to_have_count(2)
    page.reload()
    expect_as_stored(short, page)
    assert shown(page).startswith(before)
    assert len(messages(short, page)) == 4


@pytest.mark.parametrize("host", ["127.0.0.1", "ink.test"])
def test_a_message_is_copied_as_it_was_written(written: Server, open_page: Open, host: str) -> None:
    page = open_page(written.url.replace("127.0.0.1", host))
    if host == "127.0.0.1":
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answered(page, "*What*  is\nthis?")
    page.reload()
    field = page.get_by_test_id("question")
    for at, copied in enumerate(("*What*  is\nthis?", WRITTEN)):
        page.get_by_test_id("copy-message").nth(at).click()
        expect(page.get_by_role("status").filter(has_text="Copied")).to_have_count(1)
        expect(page.get_by_role("status").filter(has_text="Copied")).to_have_count(0)
        field.fill("")
        field.press("Control+V")
        expect(field).to_have_value(copied)


def test_text_files_come_into_the_question(short: Server, open_page: Open) -> None:
    page = open_page(short.url)
    field = page.get_by_test_id("question")
    field.fill("What do these do?")
    files: list[FilePayload] = [
        {"name": "one.py", "mimeType": "text/x-python", "buffer": b"print(1)\r\nprint(2)"},
        {"name": "fence.md", "mimeType": "text/markdown", "buffer": "```\n你好\n```\n".encode()},
        {"name": "picture.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n\0\0"},
        {"name": "huge.txt", "mimeType": "text/plain", "buffer": b"x" * 256_001},
    ]
    page.get_by_test_id("files").set_input_files(files)
    refused = page.get_by_test_id("refused").get_by_role("listitem")
    expect(refused).to_have_count(2)
    expect(refused.first).to_contain_text("picture.png")
    expect(refused.last).to_contain_text("huge.txt")
    expect(refused.last).to_contain_text("256")
    text = (
        "What do these do?\n\none.py:\n\n```py\nprint(1)\nprint(2)\n```\n\n"
        "fence.md:\n\n````md\n```\n你好\n```\n````"
    )
    expect(field).to_have_value(f"{text}\n\n")
    page.reload()
    expect(field).to_have_value(f"{text}\n\n")
    field.press("Enter")
    expect(refused).to_have_count(0)
    until_ended(page)
    page.reload()
    assert text_of(messages(short, page)[0]) == text
    assert asked(page).first.inner_text().replace("\xa0", " ") == text


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_text_file_can_be_dropped_and_pasted(short: Server, open_page: Open, way: str) -> None:
    page = open_page(short.url)
    field = page.get_by_test_id("question")
    field.fill("before  after")
    field.evaluate("field => field.setSelectionRange(7, 7)")
    assert page.evaluate(DROP, [way, [["note.txt", list(b"noted")], ["b.bin", [0, 1, 2]]]])
    expect(field).to_have_value("before\n\nnote.txt:\n\n```txt\nnoted\n```\n\nafter")
    expect(page.get_by_test_id("refused")).to_contain_text("b.bin")
    page.reload()
    expect(field).to_have_value("before\n\nnote.txt:\n\n```txt\nnoted\n```\n\nafter")


def test_a_long_question_is_folded_and_keeps_its_lines(short: Server, open_page: Open) -> None:
    page = open_page(short.url)
    question = "\n".join(f"line  {number}" for number in range(60))
    answered(page, question)
    said = asked(page).first
    assert said.inner_text().replace("\xa0", " ") == question
    folded = said.bounding_box()
    button = page.get_by_test_id("unfold")
    expect(button).to_have_attribute("aria-expanded", "false")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")
    whole = said.bounding_box()
    assert folded
    assert whole
    assert whole["height"] > 3 * folded["height"]
    page.reload()
    expect(button).to_have_attribute("aria-expanded", "false")


def test_each_tab_keeps_its_own_draft(short: Server, open_page: Open) -> None:
    first = open_page(short.url)
    answered(first, "Here?")
    second = open_page(first.url, context=first.context)
    expect(asked(second)).to_have_count(1)
    first.get_by_test_id("question").fill("typed here")
    second.get_by_test_id("question").fill("typed there")
    for page, text in ((first, "typed here"), (second, "typed there")):
        page.reload()
        expect(page.get_by_test_id("question")).to_have_value(text)
    third = open_page(first.url, context=first.context)
    expect(third.get_by_test_id("question")).to_have_value("typed there")
    answered(second, "typed there")
    first.reload()
    expect(first.get_by_test_id("question")).to_have_value("typed here")


def test_what_is_typed_while_a_chat_is_made_belongs_to_it(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    page.context.set_offline(True)
    ask(page, "First")
    expect(page.get_by_test_id("send-problem")).to_be_visible()
    page.get_by_test_id("question").fill("and then")
    page.context.set_offline(False)
    until_longer(page)
    page.reload()
    expect(page.get_by_test_id("question")).to_have_value("and then")
    page.get_by_test_id("new-chat").click()
    expect(page.get_by_test_id("question")).to_have_value("")


def test_messages_say_their_language(written: Server, open_page: Open) -> None:
    page = open_page(written.url)
    answered(page, "What is流式?")
    expect(asked(page)).to_have_attribute("lang", "en")
    answer = page.get_by_test_id("answer").get_by_test_id("text")
    expect(answer).to_have_attribute("lang", "zh")
    spacing = "element => getComputedStyle(element).getPropertyValue('text-autospace')"
    assert answer.locator("li").evaluate(spacing) == "normal"
    for code in ("li code", "pre code"):
        assert answer.locator(code).evaluate(spacing) == "no-autospace"
    page.reload()
    expect(answer).to_have_attribute("lang", "zh")
    # The space is drawn, and nothing else: what is copied and searched is what was written.
    assert "使用Python语言" in answer.inner_text()


def test_a_finger_finds_what_can_be_done(short: Server, browser: Browser, open_page: Open) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    page = open_page(short.url, context=context)
    page.get_by_test_id("question").fill("First")
    page.get_by_test_id("send").tap()
    until_ended(page)
    page.get_by_test_id("question").fill("Second")
    page.get_by_test_id("send").tap()
    expect(page.get_by_test_id("answer")).to_have_count(2)
    until_ended(page)
    last, first = page.get_by_test_id("regenerate").last, page.get_by_test_id("edit").first
    assert last.evaluate(OPACITY) == 1
    assert first.evaluate(OPACITY) == 0
    asked(page).first.tap()
    until(page, f"() => ({OPACITY})(document.querySelector('[data-testid=edit]')) === 1")
    for button in page.get_by_role("main").get_by_role("button").all():
        box = button.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= 36
    for edge in ("document.documentElement", "document.querySelector('[data-testid=scroller]')"):
        assert page.evaluate(f"{edge}.scrollWidth <= {edge}.clientWidth")
    context.close()
