"""Nothing that is written to a reader does anything: a corpus of attacks, rendered in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.browsing import Serve, Server, ask, shown, until, until_ended
from tests.payloads import GROUPS, HTML, LINKS
from tests.shots.chats import DONE, Turn, chat, document

pytestmark = pytest.mark.real

TITLE_CHARACTERS = 200
SENTINELS = """
window.seen = []
window.owned = () => seen.push(`ran: ${new Error().stack}`)
document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sample }) =>
    seen.push(`blocked: ${violatedDirective} ${blockedURI} ${sample}`))
"""
# Elements that no Markdown makes, attributes that run something, and whatever would lie over the page.
HARMFUL = """() => {
    const made = 'script, iframe, frame, object, embed, form, style, link, base, meta, video, audio, source,'
        + ' template, dialog, marquee, img, svg :is(script, animate, a, foreignObject),'
        + ' [data-testid=text] :is(details, textarea)'
    const runs = ({ name, value }) =>
        /^on|^srcdoc$|^formaction$/i.test(name) || /^\\s*(?:javascript|vbscript|data|blob):/i.test(value)
    const elements = [...document.querySelectorAll(':is(main, nav) *')]
    const attributes = elements.flatMap(element => [...element.attributes])
    const isOverAll = element => getComputedStyle(element).position === 'fixed'
    const page = document.documentElement
    return [
        ...elements.filter(one => one.matches(made) || isOverAll(one)).map(({ outerHTML }) => outerHTML),
        ...attributes.filter(runs).map(({ name, value }) => `${name}=${value}`),
        ...(page.scrollWidth > page.clientWidth ? ['wider than the window'] : []),
    ]
}"""
# Of every link: where it leads, how, and what of that is to be seen beside it.
LINK_FACTS = """links => links.map(link => {
    const host = link.nextElementSibling?.matches('.host') ? link.nextElementSibling : null
    return {
        href: link.href, rel: link.rel, target: link.target, text: link.textContent,
        host: host?.textContent ?? '',
        isolated: [link, host].every(part => !part || getComputedStyle(part).unicodeBidi === 'isolate'),
    }
})"""


@contextmanager
def watched(browser: Browser, server: Server) -> Iterator[Page]:
    """A page on which nothing runs that is not the page's own, and that asks nobody but its server."""
    happened: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        happened.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    context = browser.new_context(locale="en-GB", viewport={"width": 1000, "height": 640})
    context.add_init_script(SENTINELS)
    context.on("request", lambda request: happened.append(f"request: {request.url}"))
    page = context.new_page()
    page.on("dialog", dismiss)
    page.on("popup", lambda popup: happened.append(f"popup: {popup.url}"))
    page.on("pageerror", lambda error: happened.append(f"error: {error}"))
    page.goto(server.url)
    yield page
    context.close()
    assert [event for event in happened if not event.startswith(f"request: {server.url}")] == []


def expect_harmless(page: Page) -> None:
    assert page.evaluate(HARMFUL) == []
    assert page.evaluate("window.seen") == []
    expect(page.get_by_test_id("question")).to_be_visible()


def turns(payloads: dict[str, str]) -> Iterator[Turn]:
    """Each text as a question, as an answer, as a thought, and as the name of the model."""
    for text in payloads.values():
        yield Turn(text, text, DONE | {"made_with": {"model": text[:500]}}, thinking=text)


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_comes_of_a_conversation_from_elsewhere(browser: Browser, server: Server, group: str) -> None:
    payloads = GROUPS[group]
    [address] = server.import_chats(document([chat(group, turns(payloads))]))
    with watched(browser, server) as page:
        page.goto(address)
        answers = page.get_by_test_id("answer")
        expect(answers).to_have_count(len(payloads))
        for summary in page.locator("summary").all():
            summary.click()
        page.evaluate("document.fonts.ready")
        questions = page.get_by_test_id("asked").get_by_test_id("text")
        assert questions.evaluate_all("all => all.map(({ textContent }) => textContent)") == list(
            payloads.values()
        )
        expect_harmless(page)


def test_nothing_comes_of_titles(browser: Browser, server: Server) -> None:
    texts = [text for group in GROUPS.values() for text in group.values()]
    chats = [chat(text[:TITLE_CHARACTERS], [Turn("?", "!")]) for text in texts]
    addresses = server.import_chats(document(chats))
    with watched(browser, server) as page:
        page.reload()
        expect(page.get_by_role("navigation").get_by_role("link").first).to_be_visible()
        expect_harmless(page)
        for address, text in zip(addresses, texts, strict=True):
            if text in HTML.values():
                page.goto(address)
                expect(page.get_by_test_id("answer")).to_be_visible()
                assert page.evaluate("window.seen") == []
        expect_harmless(page)


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_comes_of_an_answer_while_it_arrives(browser: Browser, serve: Serve, group: str) -> None:
    said = "\n\n".join(GROUPS[group].values())
    server = serve({"answer": said, "tokens_per_second": 1000, "think": False})
    with watched(browser, server) as page:
        ask(page, said)
        until_ended(page)
        expect_harmless(page)
        page.reload()
        until_ended(page)
        expect_harmless(page)


def test_raw_markup_is_shown_as_text(browser: Browser, serve: Serve) -> None:
    evil = '<img src=x onerror="owned(1)"><script>owned(1)</script>'
    server = serve({"answer": f"{evil} &amp; **b**"})
    with watched(browser, server) as page:
        ask(page)
        until_ended(page)
        until(page, "() => document.querySelector('[data-testid=answer] strong')")
        assert shown(page) == f"{evil} & b"
        expect_harmless(page)


@pytest.mark.parametrize("name", LINKS)
def test_every_link_tells_where_it_leads(browser: Browser, server: Server, name: str) -> None:
    [address] = server.import_chats(document([chat(name, [Turn("Where to?", LINKS[name])])]))
    with watched(browser, server) as page:
        page.goto(address)
        expect(page.get_by_test_id("answer")).to_be_visible()
        links: list[dict[str, Any]] = (
            page.get_by_test_id("answer").get_by_role("link").evaluate_all(LINK_FACTS)
        )
        for link in links:
            assert urlsplit(link["href"]).scheme in ("http", "https", "mailto"), link
            assert (link["rel"], link["target"]) == ("noopener noreferrer nofollow", "_blank")
            assert link["text"].strip(" \u200b\u2060"), f"a link that none can see: {link}"
            assert link["isolated"], f"what is in this link may turn what is around it: {link}"
            assert tells_host(link), link


def tells_host(link: dict[str, Any]) -> bool:
    """Whether a reader sees the host: beside the link, or because the link is its own address."""
    host = urlsplit(link["href"]).netloc.rpartition("@")[2]
    written = urlsplit(link["text"] if "//" in link["text"] else f"//{link['text']}").netloc
    return link["href"].startswith("mailto:") or host in (link["host"], written)
