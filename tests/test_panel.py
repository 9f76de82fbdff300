"""What stands around the conversation, in a real browser: settings, context, figures, trace, shortcuts."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browsing import (
    Open,
    Serve,
    Server,
    ask,
    expect_as_stored,
    paced,
    until,
    until_ended,
    until_longer,
)

pytestmark = pytest.mark.real

SHORT = {"answer": "Yes. The river keeps its own time.", "tokens_per_second": 100}


def settings_of(server: Server, page: Page) -> dict[str, Any]:
    """As the server has them for the chat that the page shows."""
    chat = page.url.partition("#/c/")[2]
    reply = httpx.get(f"{server.url}api/chats/{chat}", trust_env=False)
    settings: dict[str, Any] = reply.json()["chat"]["settings"]
    return settings


def open_settings(page: Page) -> None:
    page.get_by_test_id("open-settings").click()
    expect(page.get_by_test_id("settings")).to_be_visible()


def save(page: Page) -> None:
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("settings")).to_have_count(0)


# Settings


def test_settings_made_before_the_first_question_go_with_it(serve: Serve, open_page: Open) -> None:
    server = serve(SHORT)
    page = open_page(server.url)
    open_settings(page)
    page.get_by_test_id("system").fill("Be brief.")
    page.get_by_test_id("parameter-temperature").fill("０.3")
    save(page)
    page.reload()
    open_settings(page)
    expect(page.get_by_test_id("system")).to_have_value("Be brief.")
    page.keyboard.press("Escape")
    ask(page)
    until_ended(page)
    assert settings_of(server, page) == {"system": "Be brief.", "sampling": {"temperature": 0.3}}
    page.reload()
    page.get_by_test_id("made-line").click()
    expect(page.get_by_test_id("made-with")).to_contain_text("Be brief.")
    expect(page.get_by_test_id("made-with")).to_contain_text("0.3")
    # The next new chat begins anew.
    page.get_by_test_id("new-chat").click()
    open_settings(page)
    expect(page.get_by_test_id("system")).to_have_value("")


def test_settings_of_a_chat_are_changed_and_reset(serve: Serve, open_page: Open) -> None:
    server = serve(SHORT)
    page = open_page(server.url)
    ask(page)
    until_ended(page)
    open_settings(page)
    # The model's own values stand where nothing is typed.
    expect(page.get_by_test_id("parameter-temperature")).to_have_attribute("placeholder", "0.7")
    expect(page.get_by_test_id("about")).to_contain_text("32,768")
    page.get_by_test_id("parameter-max_tokens").fill("3")
    page.get_by_test_id("settings").locator("summary").click()
    page.get_by_test_id("parameter-seed").fill("7")
    page.get_by_test_id("parameter-stop").fill("\\n\\n\nEND")
    save(page)
    ask(page, "And now?")
    expect(page.get_by_test_id("ended")).to_be_visible()
    sampling = {"max_tokens": 3, "seed": 7, "stop": ["\n\n", "END"]}
    assert settings_of(server, page) == {"system": None, "sampling": sampling}
    assert server.answer(page)["made_with"]["sampling"].items() >= sampling.items()
    page.reload()
    open_settings(page)
    expect(page.get_by_test_id("parameter-max_tokens")).to_have_value("3")
    page.get_by_test_id("reset").click()
    save(page)
    assert settings_of(server, page) == {"system": None, "sampling": {}}
    page.reload()
    open_settings(page)
    expect(page.get_by_test_id("parameter-max_tokens")).to_have_value("")


def test_what_the_server_would_refuse_is_said_where_it_is_typed(serve: Serve, open_page: Open) -> None:
    server = serve(SHORT)
    page = open_page(server.url)
    open_settings(page)
    page.get_by_test_id("settings").locator("summary").click()
    seed = page.get_by_test_id("parameter-seed")
    seed.fill("1.5")
    expect(seed).to_have_attribute("aria-invalid", "true")
    page.get_by_test_id("settings").locator("summary").click()
    page.get_by_test_id("save").click()
    # It is shown, also from among those that are folded away, and nothing is saved.
    expect(seed).to_be_focused()
    seed.fill("15")
    expect(seed).to_have_attribute("aria-invalid", "false")
    save(page)
    page.reload()
    open_settings(page)
    expect(page.get_by_test_id("parameter-seed")).to_have_value("15")


def test_settings_that_cannot_be_saved_now_are_not_lost(serve: Serve, open_page: Open) -> None:
    server = serve(SHORT)
    page = open_page(server.url)
    ask(page)
    until_ended(page)
    open_settings(page)
    page.get_by_test_id("system").fill("Be kind.")
    page.context.set_offline(True)
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("settings").get_by_role("alert")).to_be_visible()
    page.context.set_offline(False)
    save(page)
    page.reload()
    open_settings(page)
    expect(page.get_by_test_id("system")).to_have_value("Be kind.")


def test_presets_ours_and_ones_own(serve: Serve, open_page: Open) -> None:
    server = serve(SHORT)
    page = open_page(server.url)
    open_settings(page)
    preset = page.get_by_test_id("preset")
    expect(preset).to_have_value("model")
    preset.select_option("precise")
    expect(page.get_by_test_id("parameter-temperature")).to_have_value("0.2")
    page.get_by_test_id("parameter-temperature").fill("0.25")
    expect(preset).to_have_value("other")
    page.get_by_test_id("system").fill("Quote your sources.")
    page.get_by_test_id("preset-name").fill("查证")
    page.get_by_test_id("preset-name").press("Enter")
    expect(preset).to_have_value("own:查证")
    page.keyboard.press("Escape")
    page.reload()
    open_settings(page)
    expect(preset).to_have_value("model")
    preset.select_option("own:查证")
    save(page)
    expect(page.get_by_test_id("open-settings")).to_contain_text("查证")
    ask(page)
    until_ended(page)
    assert settings_of(server, page) == {
        "system": "Quote your sources.",
        "sampling": {"temperature": 0.25, "top_p": 0.9},
    }
    open_settings(page)
    page.get_by_test_id("remove-preset").click()
    expect(preset).to_have_value("other")
    page.keyboard.press("Escape")
    page.reload()
    open_settings(page)
    expect(preset.locator("option")).to_have_count(5)


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_the_settings_fit_a_narrow_phone(serve: Serve, open_page: Open, locale: str) -> None:
    server = serve(SHORT)
    page = open_page(server.url, locale=locale, width=320)
    page.get_by_test_id("open-settings").click()
    page.get_by_test_id("settings").locator("summary").click()
    for edge in ("document.documentElement", "document.querySelector('dialog')"):
        assert page.evaluate(f"{edge}.scrollWidth <= {edge}.clientWidth")
    expect(page.get_by_test_id("save")).to_be_in_viewport(ratio=1)
    page.get_by_test_id("keep-preset").scroll_into_view_if_needed()
    expect(page.get_by_test_id("keep-preset")).to_be_in_viewport(ratio=1)


# The model


def test_the_model_and_its_state_are_told(serve: Serve, open_page: Open) -> None:
    server = serve({**paced(), "load_seconds": 2})
    page = open_page(server.url)
    state = page.get_by_test_id("open-settings")
    expect(state).to_have_attribute("data-phase", "ready", timeout=15_000)
    expect(state).to_contain_text("scripted")
    server.kill("engine")
    expect(state).to_have_attribute("data-phase", "loading")
    expect(state).to_contain_text(re.compile(r"restarts \d+%"))
    expect(state).to_have_attribute("data-phase", "ready", timeout=15_000)
    page.reload()
    expect(state).to_contain_text("scripted")


# The context


def test_the_meter_tells_how_full_the_context_is_and_what_is_left_out(serve: Serve, open_page: Open) -> None:
    server = serve({"answer": "Yes. " * 10, "context": 256})
    page = open_page(server.url)
    meter, question = page.get_by_test_id("meter"), "Is it so? " + "Tell me why. " * 5
    ask(page, question)
    until_ended(page)
    expect(meter).to_have_attribute("data-counted", "true")
    told = httpx.post(
        f"{server.url}api/chats/{page.url.partition('#/c/')[2]}/context", json={}, trust_env=False
    )
    expect(meter).to_have_attribute("data-tokens", str(told.json()["tokens"]))
    expect(meter).to_have_attribute("data-level", "calm")
    # A draft counts before it is asked.
    page.get_by_test_id("question").fill(question * 4)
    expect(meter).not_to_have_attribute("data-level", "calm")
    expect(page.get_by_test_id("meter-remarks").locator("p")).to_have_count(1)
    page.get_by_test_id("question").fill("word " * 400)
    expect(meter).to_have_attribute("data-level", "too_long")
    page.get_by_test_id("question").fill("")
    expect(meter).to_have_attribute("data-level", "calm")
    for _ in range(3):
        ask(page, question)
        until_ended(page)
    expect(meter).to_have_attribute("data-level", "left_out")

    # The line stands before the first message that the model is still told.
    def left_out() -> int:
        path = "[data-testid=horizon]"
        return int(
            page.evaluate(
                f"""() => [...document.querySelectorAll('[data-testid=asked], [data-testid=answer], {path}')]
                    .findIndex(element => element.matches('{path}'))"""
            )
        )

    until(page, "() => document.querySelector('[data-testid=meter]').dataset.counted === 'true'")
    before = left_out()
    assert before >= 2
    assert before % 2 == 0
    page.reload()
    expect(page.get_by_test_id("horizon")).to_be_visible()
    until(page, "() => document.querySelector('[data-testid=meter]').dataset.counted === 'true'")
    assert left_out() == before
    meter.click()
    expect(page.get_by_test_id("meter-remarks")).to_contain_text("256")


# Figures


def test_an_answer_tells_its_figures_as_the_server_measured_them(serve: Serve, open_page: Open) -> None:
    server = serve({**paced(60), "tokens_per_second": 60})
    page = open_page(server.url)
    ask(page)
    until_ended(page)
    line = page.get_by_test_id("made-line")
    stored = server.answer(page)
    expect(line).to_contain_text(f"{stored['usage']['completion_tokens']} tokens")
    assert 40 < stored["timings"]["tokens_per_second"] < 70
    expect(line).to_contain_text(f"{stored['timings']['tokens_per_second']:.3g} tokens/s")
    said = line.inner_text()
    line.click()
    expect(page.get_by_test_id("made-with")).to_contain_text(str(stored["made_with"]["sampling"]["seed"]))
    expect(line).to_have_attribute("aria-expanded", "true")
    page.reload()
    expect(line).to_have_text(said, use_inner_text=True)


# Trace


def test_the_trace_is_drawn_where_it_is_asked_for(serve: Serve, open_page: Open) -> None:
    server = serve(paced())
    page = open_page(server.url)
    expect(page.get_by_test_id("open-settings")).to_have_attribute("data-phase", "ready")
    expect(page.get_by_test_id("trace")).to_have_count(0)
    page.goto(f"{server.url}?trace")
    ask(page)
    until_longer(page)
    points = "document.querySelector('[data-testid=trace] polyline.arrived').getAttribute('points')"
    until(page, f"() => {points}.split(' ').length > 20")
    until_ended(page)
    length = sum(len(part["text"].encode("utf-16-le")) // 2 for part in server.answer(page)["parts"])
    expect(page.get_by_test_id("trace-characters")).to_have_text(f"{length:,}")
    expect(page.get_by_test_id("trace-first")).to_contain_text("s")
    rate = server.answer(page)["timings"]["tokens_per_second"]
    expect(page.get_by_test_id("trace-speed")).to_have_text(f"{rate:.3g}")
    page.reload()
    expect(page.get_by_test_id("trace-speed")).to_have_text(f"{rate:.3g}")


# Shortcuts


def test_shortcuts_do_what_their_list_says(serve: Serve, open_page: Open) -> None:
    server = serve(paced())
    page = open_page(server.url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    question = page.get_by_test_id("question")
    question.fill("half a")
    page.keyboard.press("Control+/")
    listed = page.get_by_test_id("shortcut-list").locator("kbd")
    expect(listed.first).to_be_visible()
    keys = listed.all_inner_texts()
    assert keys[:2] == ["Alt", "N"]
    # What is behind the list does not hear it.
    page.keyboard.press("Alt+n")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("shortcut-list")).to_have_count(0)
    expect(question).to_be_focused()
    page.keyboard.type(" thought")
    expect(question).to_have_value("half a thought")
    ask(page)
    until_longer(page)
    page.get_by_test_id("open-menu").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("ended")).to_be_visible()
    expect_as_stored(server, page, "stopped")
    page.keyboard.press("Alt+y")
    copied = "async () => await navigator.clipboard.readText()"
    assert page.evaluate(copied) == "".join(part["text"] for part in server.answer(page)["parts"])
    page.get_by_test_id("open-menu").focus()
    page.keyboard.press("Alt+p")
    expect(question).to_be_focused()
    page.get_by_test_id("open-menu").focus()
    page.keyboard.press("Alt+n")
    expect(page.get_by_test_id("answer")).to_have_count(0)
    expect(question).to_be_focused()
    page.go_back()
    page.reload()
    expect_as_stored(server, page, "stopped")


# Builds


def test_a_page_of_another_build_offers_a_reload_and_loses_nothing(serve: Serve, open_page: Open) -> None:
    server = serve(SHORT)
    page = open_page("about:blank")

    def as_it_was(route: Route) -> None:
        reply = route.fetch()
        route.fulfill(
            response=reply, body=reply.text().replace('name="build" content="', 'name="build" content="0')
        )

    page.route(server.url, as_it_was)
    page.goto(server.url)
    page.unroute(server.url)
    expect(page.get_by_test_id("outdated")).to_be_visible()
    page.get_by_test_id("question").fill("half a thought")
    page.get_by_test_id("outdated").get_by_role("button").click()
    expect(page.get_by_test_id("outdated")).to_have_count(0)
    expect(page.get_by_test_id("question")).to_have_value("half a thought")
    expect(page.get_by_test_id("question")).to_be_focused()
    # The same build after a restart is nothing to tell.
    server.kill("gateway")
    ask(page)
    until_ended(page)
    expect_as_stored(server, page)
    expect(page.get_by_test_id("outdated")).to_have_count(0)


def test_a_part_that_is_not_there_any_more_offers_a_reload(serve: Serve, open_page: Open) -> None:
    server = serve(SHORT)
    page = open_page(server.url)
    page.get_by_test_id("question").fill("half a thought")
    page.route("**/assets/Settings-*", lambda route: route.fulfill(status=404))
    page.get_by_test_id("open-settings").click()
    expect(page.get_by_test_id("outdated")).to_be_visible()
    page.unroute_all()
    page.get_by_test_id("outdated").get_by_role("button").click()
    expect(page.get_by_test_id("question")).to_have_value("half a thought")
    open_settings(page)
