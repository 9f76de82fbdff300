"""The states of the page, each with how it comes about. A line in ``STATES`` adds one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from tests.browsing import ask, open_menu, until, until_longer
from tests.fake_hub import Change, Cut
from tests.shots.stage import PACE, Stage

MODEL = "Qwen/Qwen2-0.5B-Instruct-GGUF"
WEIGHTS = "qwen2-0_5b-instruct-q8_0.gguf"
WEIGHTS_BYTES = 40_000_000
SOME = 120  # characters of an answer that has begun
LOADING_SECONDS = 600
RESTART_SECONDS = 6
NOBODY = "http://127.0.0.1:9"


def show_phase(page: Page, phase: str) -> None:
    expect(page.get_by_test_id("state")).to_have_attribute("data-phase", phase, timeout=30_000)


def show(name: str) -> Callable[[Stage], None]:
    """A conversation of the past, to its end."""

    def visit(stage: Stage) -> None:
        page = stage.visit(name)
        expect(page.get_by_test_id("answer").last).to_have_attribute(
            "data-state", "failed" if "failed" in name else "stopped" if name == "stopped" else "done"
        )
        page.evaluate("document.fonts.ready")

    return visit


def start(stage: Stage) -> None:
    expect(stage.visit().get_by_role("navigation")).to_be_visible()


def first_visit(stage: Stage) -> None:
    stage.serve()
    expect(stage.page.get_by_test_id("question")).to_be_editable()


def draft(stage: Stage) -> None:
    stage.visit().get_by_test_id("question").fill(stage.texts.draft)


def top(stage: Stage) -> None:
    show("conversation")(stage)
    stage.page.get_by_test_id("scroller").evaluate("scroller => scroller.scrollTo(0, 0)")
    expect(stage.page.get_by_test_id("jump")).to_be_visible()


def live(stage: Stage) -> None:
    ask(stage.visit(), stage.texts.question)
    until_longer(stage.page, len(stage.texts.lore) // 4)


def waiting(stage: Stage) -> None:
    live(stage)
    ask(stage.page, stage.texts.follow_up)
    expect(stage.page.get_by_test_id("waits")).to_be_visible()


def editing(stage: Stage) -> None:
    show("conversation")(stage)
    stage.page.get_by_test_id("asked").last.hover()
    stage.page.get_by_test_id("edit").last.click()
    expect(stage.page.get_by_test_id("edit-field")).to_be_focused()


def found(stage: Stage) -> None:
    stage.visit().get_by_test_id("search").fill("Lucas")
    expect(stage.page.get_by_test_id("found").first).to_be_visible()


def settings(stage: Stage) -> None:
    stage.visit("conversation").get_by_test_id("open-settings").click()
    expect(stage.page.get_by_test_id("settings")).to_be_visible()


def models(stage: Stage) -> None:
    """There is none yet, and all that could be are offered."""
    stage.serve(ENGINE="llama", OFFLINE="true")
    stage.page.get_by_test_id("open-settings").click()
    stage.page.get_by_test_id("choose-model").click()
    expect(stage.page.get_by_role("radio").first).to_be_visible()


def shortcuts(stage: Stage) -> None:
    open_menu(stage.visit())
    stage.page.get_by_test_id("open-shortcuts").click()
    expect(stage.page.get_by_test_id("shortcut-list")).to_be_visible()


def menu(stage: Stage) -> None:
    stage.serve(KEY="open sesame")
    form = stage.page.get_by_test_id("sign-in")
    form.get_by_role("textbox").fill("open sesame")
    form.get_by_role("button").click()
    open_menu(stage.page)
    expect(stage.page.get_by_test_id("signed-in")).to_be_visible()


def thinking_live(stage: Stage) -> None:
    stage.serve({"think": True, "tokens_per_second": PACE / 2})
    ask(stage.page, stage.texts.question)
    expect(stage.page.get_by_test_id("answer").locator("details")).to_be_visible()


def opening(stage: Stage) -> None:
    def hold(_: Route) -> None:
        """Leave it unanswered."""

    stage.page.route("**/api/chats/*", hold)
    stage.visit("conversation")
    until(stage.page, "() => document.getAnimations().every(({ playState }) => playState === 'finished')")


def unknown_chat(stage: Stage) -> None:
    stage.page.goto(f"{stage.home.server.url}#/c/nobody-knows-this")
    expect(stage.page.get_by_test_id("load-problem")).to_be_visible()


def sign_in(stage: Stage) -> None:
    stage.serve(KEY="open sesame")
    expect(stage.page.get_by_test_id("sign-in")).to_be_visible()


def wrong_key(stage: Stage) -> None:
    sign_in(stage)
    form = stage.page.get_by_test_id("sign-in")
    form.get_by_role("textbox").fill("let me in")
    form.get_by_role("button").click()
    expect(form.get_by_role("alert")).to_be_visible()


def loading(stage: Stage) -> None:
    stage.serve({"load_seconds": LOADING_SECONDS})
    show_phase(stage.page, "loading")


def loading_asked(stage: Stage) -> None:
    loading(stage)
    ask(stage.page, stage.texts.question)
    expect(stage.page.get_by_test_id("answer")).to_be_visible()
    show_phase(stage.page, "loading")


def downloading(stage: Stage) -> None:
    hub, gate = stage.hub(MODEL, WEIGHTS, bytes(WEIGHTS_BYTES)), threading.Event()

    def hold() -> None:
        gate.wait()

    hub.faults = [Cut(WEIGHTS_BYTES // 3), Change(hold)]
    stage.afterwards(gate.set)
    stage.serve(ENGINE="llama", MODEL=MODEL, HF_ENDPOINT=hub.url, MODELSCOPE_ENDPOINT=NOBODY)
    show_phase(stage.page, "downloading")
    until(stage.page, "() => document.querySelector('progress')?.value > 0.3")


def given_up(stage: Stage) -> None:
    stage.serve(ENGINE="llama", MODEL="/nowhere/qwen2.gguf")
    expect(stage.page.get_by_test_id("given-up")).to_be_visible()


def queued(stage: Stage) -> None:
    server = stage.serve({"slots": 1, "tokens_per_second": 1})
    for _ in range(3):
        server.ask(stage.texts.question)
    ask(stage.page, stage.texts.question)
    show_phase(stage.page, "queued")


def reading(stage: Stage) -> None:
    stage.serve({"prefill_tokens_per_second": 1})
    ask(stage.page, stage.texts.question)
    show_phase(stage.page, "reading")


def engine_restarting(stage: Stage) -> None:
    server = stage.serve({"load_seconds": RESTART_SECONDS})
    ask(stage.page, stage.texts.question)
    until_longer(stage.page, SOME)
    server.kill("engine")
    show_phase(stage.page, "loading")


def connection_lost(stage: Stage) -> None:
    server = stage.serve()
    ask(stage.page, stage.texts.question)
    until_longer(stage.page, SOME)
    stage.page.context.set_offline(True)
    server.kill("gateway")
    expect(stage.page.get_by_test_id("lost")).to_be_visible()


def server_gone(stage: Stage) -> None:
    server = stage.serve()
    expect(stage.page.get_by_test_id("question")).to_be_editable()
    server.close()
    expect(stage.page.get_by_test_id("server-lost")).to_be_visible()


def not_sent(stage: Stage) -> None:
    server = stage.serve()
    server.close()
    ask(stage.page, stage.texts.question)
    expect(stage.page.get_by_test_id("send-problem")).to_be_visible()


def refused(stage: Stage) -> None:
    stage.serve({"context": 16})
    ask(stage.page, stage.texts.question)
    expect(stage.page.get_by_test_id("send-problem")).to_be_visible()


STATES: dict[str, Callable[[Stage], None]] = {
    "start": start,
    "first-visit": first_visit,
    "draft": draft,
    "conversation": show("conversation"),
    "top": top,
    "live": live,
    "waiting": waiting,
    "editing": editing,
    "found": found,
    "settings": settings,
    "models": models,
    "menu": menu,
    "shortcuts": shortcuts,
    "thinking": show("thinking"),
    "thinking-live": thinking_live,
    "cut": show("cut"),
    "stopped": show("stopped"),
    "failed": show("failed"),
    "failed-at-once": show("failed-at-once"),
    "left-out": show("left-out"),
    "long": show("long"),
    "opening": opening,
    "unknown-chat": unknown_chat,
    "sign-in": sign_in,
    "wrong-key": wrong_key,
    "loading": loading,
    "loading-asked": loading_asked,
    "downloading": downloading,
    "given-up": given_up,
    "queued": queued,
    "reading": reading,
    "engine-restarting": engine_restarting,
    "connection-lost": connection_lost,
    "server-gone": server_gone,
    "not-sent": not_sent,
    "refused": refused,
}
