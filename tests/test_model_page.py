"""Another model is chosen on the page, and every page sees what becomes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browsing import Open, Serve, ask, expect_as_stored, until_ended, until_longer

pytestmark = pytest.mark.real

SLOW = {"answer": " ".join(f"word{number}" for number in range(40)), "tokens_per_second": 20}
SWITCH_MS = 30_000


def script(folder: Path, name: str, load_seconds: float = 0) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "answer": f"This is {name}.", "load_seconds": load_seconds}))
    return str(path)


def open_models(page: Page) -> None:
    page.get_by_test_id("open-settings").click()
    page.get_by_test_id("choose-model").click()
    expect(page.get_by_test_id("models")).to_be_visible()
    expect(page.get_by_test_id("settings")).to_have_count(0)


def switch(page: Page, model: str) -> None:
    page.get_by_test_id("model-name").fill(model)
    page.get_by_test_id("switch-model").click()


def test_a_model_is_switched_on_the_page_and_all_pages_see_it(
    serve: Serve, open_page: Open, tmp_path: Path
) -> None:
    server = serve(SLOW)
    page, other = open_page(server.url), open_page(server.url, locale="zh-CN")
    expect(other.get_by_test_id("open-settings")).to_contain_text("scripted")
    ask(page)
    until_longer(page, 0)
    open_models(page)
    expect(page.get_by_test_id("current-model")).to_have_text("scripted")
    model = script(tmp_path, "second", load_seconds=2)
    switch(page, model)
    expect(page.get_by_test_id("switch")).to_contain_text("second")
    expect(page.get_by_test_id("switch-model")).to_be_disabled()
    page.get_by_test_id("call-off").click()
    expect(page.get_by_test_id("switch")).to_be_empty()
    switch(page, model)
    expect(other.get_by_test_id("open-settings")).to_contain_text(f"正在加载 {model}", timeout=SWITCH_MS)
    named = re.compile(r": second\s*$")
    expect(other.get_by_test_id("open-settings")).to_have_text(named, timeout=SWITCH_MS)
    expect(page.get_by_test_id("current-model")).to_have_text("second")
    expect(page.get_by_test_id("switch")).to_be_empty()
    page.keyboard.press("Escape")
    # The answer was finished by the model that began it.
    expect_as_stored(server, page)
    assert server.answer(page)["made_with"]["model"] == "scripted"
    page.reload()
    expect(page.get_by_test_id("open-settings")).to_contain_text("second")
    ask(page, "Who are you?")
    until_ended(page)
    expect_as_stored(server, page)
    assert server.answer(page)["made_with"]["model"] == "second"


def test_an_answer_that_was_cut_can_be_continued(serve: Serve, open_page: Open, tmp_path: Path) -> None:
    server = serve(SLOW | {"tokens_per_second": 2})
    page = open_page(server.url)
    ask(page)
    until_longer(page, 0)
    open_models(page)
    page.get_by_test_id("model-now").check()
    switch(page, script(tmp_path, "second"))
    expect(page.get_by_test_id("current-model")).to_have_text("second", timeout=SWITCH_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_text("The model was exchanged in mid-answer.")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Continue", exact=True).click()
    until_ended(page)
    expect_as_stored(server, page)
    assert server.answer(page)["made_with"]["model"] == "second"


def test_what_goes_wrong_is_said_and_the_model_stays(serve: Serve, open_page: Open, tmp_path: Path) -> None:
    server = serve(SLOW)
    page = open_page(server.url)
    open_models(page)
    switch(page, str(tmp_path / "nowhere.json"))
    expect(page.get_by_test_id("switch")).to_contain_text("nowhere.json", timeout=SWITCH_MS)
    expect(page.get_by_test_id("switch")).to_contain_text("There is no file")
    expect(page.get_by_test_id("switch-model")).to_be_enabled()
    page.reload()
    expect(page.get_by_test_id("open-settings")).to_contain_text("scripted")

    def as_user(route: Route) -> None:
        route.fulfill(json={"name": "bob", "role": "user", "by": "session"})

    # Whoever is no admin is offered no switch.
    page.route("**/api/me", as_user)
    with page.expect_response("**/api/me"):
        page.get_by_test_id("open-settings").click()
    expect(page.get_by_test_id("about")).to_contain_text("scripted")
    expect(page.get_by_test_id("choose-model")).to_have_count(0)
