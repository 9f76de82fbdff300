"""The chats beside the conversation, in a real browser against a real server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browsing import Open, Serve, Server, ask, plain, prefer, until, until_ended, until_longer

pytestmark = pytest.mark.real

DAY = 86_400.0


@pytest.fixture
def http(serve: Serve) -> Iterator[httpx.Client]:
    """To a server that answers at once, but for what is asked slowly."""
    server = serve({"answer": "As it should be.", "tokens_per_second": 400})
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


def chat(title: str, days_ago: float = 0.0, *said: str) -> dict[str, Any]:
    """A chat as an export has it: questions and answers in turn."""
    at = time.time() - days_ago * DAY
    messages = [
        {
            "id": f"m{n}",
            "parent": f"m{n - 1}" if n else None,
            "role": ("user", "assistant")[n % 2],
            "parts": [{"type": "text", "text": text}],
            "created_at": at + n / 1000,
        }
        for n, text in enumerate(said)
    ]
    return {"title": title, "created_at": at, "updated_at": at, "messages": messages}


def export(*chats: dict[str, Any]) -> dict[str, Any]:
    return {"format": "inkstream", "version": 1, "chats": chats}


def seed(http: httpx.Client, *chats: dict[str, Any]) -> list[str]:
    """Returns the ids."""
    reply = http.post("api/import", json=export(*chats))
    assert reply.status_code == 200, reply.text
    return [found["id"] for found in reply.json()["chats"]]


def titles(page: Page) -> Locator:
    return page.get_by_test_id("chat").get_by_role("link")


def open_options(page: Page, title: str) -> None:
    row = page.get_by_test_id("chat").filter(has_text=title)
    row.hover()
    row.get_by_test_id("options").click()


# The list


def test_chats_are_grouped_by_day_in_both_languages(http: httpx.Client, open_page: Open) -> None:
    seed(http, chat("of now"), chat("of the week", 4), chat("of old", 900))
    page = open_page(str(http.base_url))
    headings = page.get_by_role("navigation").get_by_role("heading")
    expect(headings).to_have_text(["Today", "Previous 7 days", re.compile(r"^\w+ 20\d\d$")])
    expect(titles(page)).to_have_text(["of now", "of the week", "of old"])
    prefer(page, language="zh")
    expect(headings).to_have_text(["今天", "过去 7 天", re.compile(r"^20\d\d年\d+月$")])
    page.reload()
    expect(headings.first).to_have_text("今天")
    titles(page).nth(1).click()
    expect(page).to_have_title("of the week · inkstream")
    expect(titles(page).nth(1)).to_have_attribute("aria-current", "page")


def test_a_new_chat_is_in_the_list_of_every_page(http: httpx.Client, open_page: Open) -> None:
    page = open_page(str(http.base_url))
    other = open_page(str(http.base_url))
    ask(page, "What is the capital of France?")
    until_ended(page)
    for each in (page, other):
        expect(titles(each)).to_have_text(["What is the capital of France?"])
    page.get_by_test_id("new-chat").click()
    ask(page, "And of Spain?")
    expect(titles(other)).to_have_text(["And of Spain?", "What is the capital of France?"])
    page.reload()
    expect(titles(page)).to_have_text(["And of Spain?", "What is the capital of France?"])


def test_five_thousand_chats_cost_the_page_what_a_hundred_do(http: httpx.Client, open_page: Open) -> None:
    seed(http, *(chat(f"chat {n}", n / 10) for n in range(5_000)))
    page = open_page(str(http.base_url))
    expect(titles(page).first).to_have_text("chat 0")
    nodes = "document.querySelectorAll('[data-testid=sidebar] *').length"
    assert page.evaluate(nodes) < 600
    last = """() => {
        const list = document.querySelector('[data-testid=sidebar] nav')
        list.scrollTop = list.scrollHeight
        return [...list.querySelectorAll('a')].some(link => link.textContent === 'chat 4999')
    }"""
    until(page, last)
    assert page.evaluate(nodes) < 600
    titles(page).last.click()
    expect(page).to_have_title("chat 4999 · inkstream")
    # What has the focus stays, and so does the keyboard's way from there.
    page.evaluate("document.querySelector('[data-testid=sidebar] nav').scrollTop = 0")
    expect(titles(page).first).to_have_text("chat 0")
    page.keyboard.press("ArrowUp")
    expect(titles(page).filter(has_text="chat 4998")).to_be_focused()
    page.reload()
    expect(page).to_have_title("chat 4999 · inkstream")
    expect(titles(page).first).to_have_text("chat 0")


# Changing


def test_a_chat_is_renamed_here_and_everywhere(http: httpx.Client, open_page: Open) -> None:
    seed(http, chat("first"), chat("second", 1))
    page = open_page(str(http.base_url))
    titles(page).first.click()
    other = open_page(page.url)
    open_options(page, "first")
    page.get_by_test_id("rename").click()
    field = page.get_by_test_id("new-title")
    expect(field).to_be_focused()
    field.fill("nothing of it")
    field.press("Escape")
    expect(titles(page).first).to_have_text("first")
    expect(titles(page).first).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    field.fill("墨水")
    field.press("Enter")
    expect(titles(page).first).to_be_focused()
    for each in (page, other):
        expect(titles(each)).to_have_text(["墨水", "second"])
        expect(each).to_have_title("墨水 · inkstream")
    page.reload()
    expect(titles(page)).to_have_text(["墨水", "second"])


def test_a_chat_is_deleted_and_brought_back(http: httpx.Client, open_page: Open) -> None:
    seed(http, chat("stays"), chat("goes", 1, "Why?", "Because."))
    page = open_page(str(http.base_url))
    titles(page).last.click()
    expect(page.get_by_test_id("answer")).to_have_count(1)
    other = open_page(page.url)
    expect(other.get_by_test_id("answer")).to_have_count(1)
    open_options(page, "goes")
    page.get_by_test_id("delete").click()
    expect(page.get_by_test_id("undo")).to_be_focused()
    expect(page.get_by_test_id("answer")).to_have_count(0)
    for each in (page, other):
        expect(titles(each)).to_have_text(["stays"])
    expect(other.get_by_test_id("load-problem")).to_be_visible()
    page.keyboard.press("Enter")
    for each in (page, other):
        expect(titles(each)).to_have_text(["stays", "goes"])
        expect(each.get_by_test_id("answer")).to_have_count(1)
    expect(page.get_by_test_id("undo")).to_have_count(0)
    expect(titles(page).last).to_be_focused()
    open_options(page, "goes")
    page.get_by_test_id("delete").click()
    expect(titles(page)).to_have_text(["stays"])
    page.reload()
    expect(titles(page)).to_have_text(["stays"])


# Searching


def test_a_search_leads_to_the_message(http: httpx.Client, open_page: Open) -> None:
    long = [plain(300) for _ in range(6)]
    seed(http, chat("About needles", 1), chat("Hay", 2, *long, "Where is the needle?", "Here.", *long))
    page = open_page(str(http.base_url))
    search = page.get_by_test_id("search")
    search.fill("NEEDLE")
    found = page.get_by_test_id("found")
    expect(found).to_have_count(2)
    expect(found.locator("mark")).to_have_text(["needle", "needle"])
    found.filter(has_text="Hay").click()
    question = page.get_by_test_id("asked").filter(has_text="Where is the needle?")
    expect(question).to_be_focused()
    expect(question).to_be_in_viewport(ratio=1)
    page.reload()
    expect(question).to_be_focused()
    expect(question).to_be_in_viewport(ratio=1)
    search.fill("nobody has said that")
    expect(page.get_by_role("status").filter(has_text="Nothing found")).to_be_visible()
    search.press("Escape")
    expect(titles(page)).to_have_text(["About needles", "Hay"])


def test_a_search_leads_into_another_branch(http: httpx.Client, open_page: Open) -> None:
    page = open_page(str(http.base_url))
    ask(page, "A way\nthe first one")
    until_ended(page)
    chat_path = f"api/chats/{page.url.rpartition('/')[2]}/messages"
    http.post(chat_path, json={"content": "A way\nthe second one", "parent": None})
    page.reload()
    asked = page.get_by_test_id("asked")
    expect(asked).to_contain_text("the second one")
    page.get_by_test_id("search").fill("first one")
    page.get_by_test_id("found").click()
    for _ in range(2):
        expect(asked).to_contain_text("the first one")
        expect(asked).to_be_focused()
        page.reload()


# What goes on elsewhere


def test_an_answer_that_ends_elsewhere_is_marked_until_it_is_looked_at(serve: Serve, open_page: Open) -> None:
    server = serve({"tokens_per_second": 60, "answer": plain(150)})
    page = open_page(server.url)
    ask(page, "Slowly, please.")
    until_longer(page)
    page.get_by_test_id("new-chat").click()
    expect(page.get_by_test_id("living")).to_have_count(1)
    page.reload()
    expect(page.get_by_test_id("living")).to_have_count(1)
    expect(page.get_by_test_id("finished")).to_be_visible()
    expect(page.get_by_test_id("living")).to_have_count(0)
    expect(page.get_by_test_id("unread")).to_have_count(1)
    page.reload()
    expect(page.get_by_test_id("unread")).to_have_count(1)
    titles(page).click()
    expect(page.get_by_test_id("unread")).to_have_count(0)
    expect(page.get_by_test_id("answer")).to_have_count(1)
    page.reload()
    expect(titles(page)).to_have_count(1)
    expect(page.get_by_test_id("unread")).to_have_count(0)


def test_the_notice_of_an_answer_leads_to_it(serve: Serve, open_page: Open) -> None:
    server = serve({"tokens_per_second": 60, "answer": plain(100)})
    page = open_page(server.url)
    ask(page, "Slowly, please.")
    until_longer(page)
    second = open_page(page.url, context=page.context)
    page.get_by_test_id("new-chat").click()
    expect(second.get_by_test_id("answer")).to_have_attribute("data-state", "done")
    # One of the reader's tabs shows it already.
    expect(page.get_by_test_id("unread")).to_have_count(0)
    second.close()
    ask(page, "Once more.")
    until_longer(page)
    page.get_by_test_id("new-chat").click()
    page.get_by_test_id("finished").click()
    expect(page).to_have_title("Once more. · inkstream")
    expect(page.get_by_test_id("finished")).to_have_count(0)


def read(page: Page, button: str) -> tuple[str, str]:
    """What is saved, and as what."""
    with page.expect_download() as saved:
        page.get_by_test_id(button).click()
    return saved.value.suggested_filename, Path(saved.value.path()).read_text(encoding="utf-8")


def test_chats_are_saved_and_imported(http: httpx.Client, open_page: Open) -> None:
    seed(http, chat("墨水", 0, "为什么？", "因为。"), chat("paper", 2, "Why?", "Because."))
    page = open_page(str(http.base_url))
    open_options(page, "墨水")
    assert read(page, "save-markdown") == (
        "墨水.md",
        "# 墨水\n\n## User\n\n为什么？\n\n## Assistant\n\n因为。\n",
    )
    open_options(page, "paper")
    name, text = read(page, "save-json")
    assert (name, json.loads(text)["chats"][0]["title"]) == ("paper.json", "paper")
    name, everything = read(page, "save-all")
    assert name.startswith("inkstream-")

    for title in ("墨水", "paper"):
        open_options(page, title)
        page.get_by_test_id("delete").click()
    expect(titles(page)).to_have_count(0)
    give(page, "backup.json", everything)
    expect(page.get_by_test_id("report")).to_contain_text("There already: 2")
    expect(titles(page)).to_have_text(["墨水", "paper"])
    page.reload()
    expect(titles(page)).to_have_text(["墨水", "paper"])


def give(page: Page, name: str, text: str) -> None:
    file = FilePayload(name=name, mimeType="application/json", buffer=text.encode())
    page.get_by_test_id("import-file").set_input_files(file)


def drop(page: Page, name: str, text: str) -> None:
    transfer = page.evaluate_handle(
        """([name, text]) => {
            const transfer = new DataTransfer()
            transfer.items.add(new File([text], name))
            return transfer
        }""",
        [name, text],
    )
    for event in ("dragover", "drop"):
        page.get_by_test_id("sidebar").dispatch_event(event, {"dataTransfer": transfer})


def test_files_that_are_dropped_are_imported_and_told_of(http: httpx.Client, open_page: Open) -> None:
    page = open_page(str(http.base_url))
    expect(page.get_by_role("navigation")).to_be_visible()
    said = {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Why?", {"image": 1}]}}
    foreign = json.dumps([{"title": "From elsewhere", "mapping": {"a": {"message": said}}}])
    report = page.get_by_test_id("report")
    drop(page, "conversations.json", foreign)
    expect(report).to_contain_text("Chats imported: 1")
    expect(report).to_contain_text("Left out: 1")
    expect(titles(page)).to_have_text(["From elsewhere"])
    drop(page, "conversations.json", foreign)
    expect(report).to_contain_text("There already: 1")
    drop(page, "notes.txt", "no JSON")
    expect(report.get_by_role("alert")).to_contain_text("This file is not JSON.")
    drop(page, "other.json", "{}")
    expect(report.get_by_role("alert")).to_contain_text("This is no export")
    page.reload()
    expect(titles(page)).to_have_text(["From elsewhere"])


def test_a_file_that_is_larger_than_a_request_comes_in_whole(serve: Serve, open_page: Open) -> None:
    server = serve(BODY_KIB="16")
    page = open_page(server.url)
    chats = [chat(f"chat {n}", n, f"Why {n}?", "x" * 2_000) for n in range(30)]
    give(page, "large.json", json.dumps(export(*chats)))
    expect(page.get_by_test_id("report")).to_contain_text("Chats imported: 30")
    expect(titles(page).first).to_have_text("chat 0")
    give(page, "too-large.json", json.dumps(export(chat("huge", 0, "x" * 20_000))))
    expect(page.get_by_test_id("report").get_by_role("alert")).to_be_visible()
    page.reload()
    expect(titles(page).first).to_have_text("chat 0")
    found = httpx.get(f"{server.url}api/chats", trust_env=False).json()["chats"]
    assert [each["title"] for each in found] == [each["title"] for each in chats]


def test_the_column_is_folded_away_and_stays_so(server: Server, open_page: Open) -> None:
    page = open_page(server.url)
    toggle = page.get_by_test_id("toggle-sidebar")
    expect(page.get_by_test_id("sidebar")).to_be_visible()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    toggle.click()
    expect(page.get_by_test_id("sidebar")).to_have_count(0)
    expect(toggle).to_be_focused()
    page.reload()
    expect(toggle).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_test_id("sidebar")).to_have_count(0)
    toggle.click()
    expect(page.get_by_test_id("sidebar")).to_be_visible()


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_on_a_phone_it_is_a_drawer_that_keeps_the_focus_and_gives_it_back(
    http: httpx.Client, open_page: Open, locale: str
) -> None:
    seed(http, chat("ink"), chat("很长的标题" * 20, 1))
    page = open_page(str(http.base_url), locale=locale, width=320)
    toggle, drawer = page.get_by_test_id("toggle-sidebar"), page.get_by_test_id("drawer")
    expect(drawer).to_be_hidden()
    for edge in ("new-chat", "open-menu"):
        expect(page.get_by_test_id(edge)).to_be_in_viewport(ratio=1)
    toggle.click()
    expect(page.get_by_test_id("close-drawer")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        inside = "document.querySelector('dialog').contains(document.activeElement)"
        # Beyond the last one the browser's own controls have the focus.
        assert page.evaluate(f"{inside} || document.activeElement === document.body")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(toggle).to_be_focused()

    toggle.click()
    open_options(page, "ink")
    expect(page.get_by_test_id("options-dialog")).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("chat").first.get_by_test_id("options")).to_be_focused()
    titles(page).first.click()
    expect(drawer).to_be_hidden()
    expect(page).to_have_title("ink · inkstream")
    page.reload()
    expect(drawer).to_be_hidden()
