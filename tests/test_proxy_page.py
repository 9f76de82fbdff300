"""The page behind a real nginx, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from inkstream.probe import free_port
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
from tests.nginx import deployed, nginx, plain, secure

pytestmark = pytest.mark.real

# It does not hear that it should hold nothing back, and compresses: nothing leaves before the window is full.
HOLDING = "proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_types *;"


def port_of(server: Server) -> int:
    return int(server.url.split(":")[2].partition("/")[0])


@pytest.mark.parametrize("behind", ["", "/"])
def test_everything_works_below_a_path(serve: Serve, open_page: Open, tmp_path: Path, behind: str) -> None:
    """Page, assets, streams and links. ``behind`` takes the path off for the server, or leaves it on."""
    server, front = serve(BASE_PATH="/chat"), free_port("127.0.0.1")
    changes = {"proxy_pass http://127.0.0.1:8000;": f"proxy_pass http://127.0.0.1:{port_of(server)}{behind};"}
    locations = deployed("nginx-path.conf", changes)
    with nginx(tmp_path / "nginx", f"server {{ listen 127.0.0.1:{front}; {locations} }}", front):
        page = open_page(f"http://127.0.0.1:{front}/chat")
        assert page.url == f"http://127.0.0.1:{front}/chat/"
        ask(page)
        until_longer(page)
        page.reload()
        until_ended(page)
        expect_as_stored(server, page)
        linked = open_page(page.url)
        until_ended(linked)
        expect_as_stored(server, linked)


def test_the_docs_work_below_a_path_that_the_server_does_not_see(
    serve: Serve, browser: Browser, open_page: Open, tmp_path: Path
) -> None:
    server, front = serve(BASE_PATH="/chat"), free_port("127.0.0.1")
    home = f"http://127.0.0.1:{front}/chat/"
    asked: list[str] = []
    context = browser.new_context()
    context.on("request", lambda request: asked.append(request.url))
    proxied = plain(front, port_of(server), "proxy_set_header Host $http_host;", path="/chat/", behind="/")
    with nginx(tmp_path / "nginx", proxied, front):
        page = open_page(f"{home}docs", context=context)
        health = page.locator(".opblock", has_text="/healthz")
        health.click()
        health.get_by_role("button", name="Try it out").click()
        health.get_by_role("button", name="Execute").click()
        expect(health.locator(".live-responses-table")).to_contain_text('"ok"')
        context.close()
    assert [url for url in asked if not url.startswith((home, "data:"))] == []


def test_the_page_over_http_2(serve: Serve, browser: Browser, open_page: Open, tmp_path: Path) -> None:
    front = free_port("127.0.0.1")
    server = serve()
    context = browser.new_context(ignore_https_errors=True)
    with nginx(tmp_path, secure(tmp_path, front, port_of(server)), front):
        page = open_page(f"https://127.0.0.1:{front}/", context=context)
        protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
        assert page.evaluate(protocol) == "h2"
        ask(page)
        until_longer(page)
        until_ended(page)
        expect_as_stored(server, page)
        context.close()


def test_behind_a_proxy_that_holds_streams_back_an_answer_is_read_piece_by_piece(
    serve: Serve, open_page: Open, tmp_path: Path
) -> None:
    server, front = serve(paced(540)), free_port("127.0.0.1")
    lines = f"proxy_set_header Host $http_host; {HOLDING}"
    with nginx(tmp_path / "nginx", plain(front, port_of(server), lines), front):
        page = open_page(f"http://127.0.0.1:{front}/")
        ask(page)
        until_longer(page)
        assert server.answer(page)["state"] == "running"
        until(page, "() => performance.getEntriesByType('resource').some(e => /events.*wait=0/.test(e.name))")
        until_ended(page)
        expect_as_stored(server, page)
