"""A conversation on the page with real weights: the engine dies in mid-answer, and nobody reading can tell.

SmolLM2-135M-Instruct in float32 on the CPU, where an answer that was cut must end as the undisturbed one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.browsing import (
    SHOWN,
    Open,
    Server,
    ask,
    expect_as_stored,
    shown,
    text_of,
    until_ended,
    until_longer,
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine in /proc"),
]

QUESTION = "Tell me a short story about a lighthouse keeper and a storm."
LOAD_MS = 120_000
WATCH = f"""() => {{
    window.lengths = []
    const look = () => {{
        window.lengths.push(({SHOWN})().length)
        requestAnimationFrame(look)
    }}
    look()
}}"""


@pytest.fixture(scope="module")
def torch_server(tmp_path_factory: pytest.TempPathFactory, smollm2_checkpoint: Path) -> Iterator[Server]:
    settings = {"ENGINE": "torch", "MODEL": str(smollm2_checkpoint), "DEVICE": "cpu", "THREADS": "1"}
    settings |= {"CONTEXT": "512", "SLOTS": "2", "OFFLINE": "true"}
    server = Server(tmp_path_factory.mktemp("data"), {}, settings)
    yield server
    server.close()


def choose(page: Page, **parameters: str) -> None:
    """Set what the answers of the chat are drawn by."""
    page.get_by_test_id("open-settings").click()
    page.get_by_test_id("settings").locator("summary").click()
    for name, value in parameters.items():
        page.get_by_test_id(f"parameter-{name}").fill(value)
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("settings")).to_have_count(0)


def answered(server: Server, page: Page, question: str) -> dict[str, Any]:
    """Ask on the page, and look that all of the answer is there."""
    ask(page, question)
    until_ended(page)
    expect_as_stored(server, page)
    return server.answer(page)


def test_a_conversation_outlives_its_engine(torch_server: Server, open_page: Open) -> None:
    page = open_page(torch_server.url)
    expect(page.get_by_test_id("open-settings")).to_contain_text("SmolLM2", timeout=LOAD_MS)
    choose(page, temperature="0", max_tokens="48")
    whole = answered(torch_server, page, QUESTION)
    assert len(text_of(whole)) > 120

    page.get_by_test_id("new-chat").click()
    choose(page, temperature="0", max_tokens="48")
    ask(page, QUESTION)
    until_longer(page, 20)
    page.evaluate(WATCH)
    torch_server.kill("engine")
    expect(page.get_by_test_id("state")).to_have_attribute("data-phase", "loading")
    before = shown(page)
    assert 20 < len(before) < len(text_of(whole)), "it came in mid-answer"
    until_ended(page)
    expect_as_stored(torch_server, page)
    cut = torch_server.answer(page)
    assert text_of(cut) == text_of(whole) == torch_server.logged(cut["run"])
    lengths = page.evaluate("window.lengths")
    assert lengths == sorted(lengths), "text that was there has gone"
    assert lengths[0] <= len(before) < lengths[-1]

    # What was said before the engine died is read again, and what was said since is not.
    first = answered(torch_server, page, "What is the keeper's name?")
    second = answered(torch_server, page, "And the name of the lighthouse?")
    assert first["usage"]["prompt_tokens"] < second["usage"]["cached_tokens"]

    page.get_by_test_id("new-chat").click()
    stop = text_of(whole)[60:69]
    choose(page, temperature="0", max_tokens="48", stop=stop.replace("\n", "\\n"))
    stopped = answered(torch_server, page, QUESTION)
    assert text_of(stopped) == text_of(whole)[: text_of(whole).index(stop)]
