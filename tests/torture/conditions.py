"""What the server runs under: Python's own event loop, a slow disk. Each is made by its environment alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal

Loop = Literal["auto", "asyncio"]
"""As uvicorn has it: ``auto`` is uvloop where there is one."""

SLOW_DISK = Path(__file__).with_name("slow_disk.c")
NO_UVLOOP = 'raise ImportError("there is none in this torture")\n'


class Unavailable(Exception):
    """This machine cannot make the conditions that were asked for."""


def environ(folder: Path, *, loop: Loop = "auto", slow_disk_ms: float = 0) -> dict[str, str]:
    """The environment that makes them. What it needs is built in ``folder``. Raises Unavailable."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, str] = {}
    if loop == "asyncio":
        made |= {"PYTHONPATH": _put_first(_without_uvloop(folder), "PYTHONPATH")}
    if slow_disk_ms:
        library = _slow_disk(folder)
        made |= {"LD_PRELOAD": _put_first(library, "LD_PRELOAD"), "SLOW_DISK_MS": f"{slow_disk_ms:g}"}
    return made


def _without_uvloop(folder: Path) -> Path:
    """A folder whose ``uvloop`` is found first and cannot be imported, as where none is installed."""
    hidden = folder / "without-uvloop"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text(NO_UVLOOP, encoding="utf-8")
    return hidden


def _slow_disk(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("a slow disk needs a C compiler, and there is no cc. Install gcc or clang.")
    library = folder / "slow_disk.so"
    flags = ["-std=c11", "-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    command = [compiler, *flags, "-o", str(library), str(SLOW_DISK), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise Unavailable(f"{compiler} cannot build {SLOW_DISK}:\n{built.stderr}")
    return library


def _put_first(path: Path, variable: str) -> str:
    return os.pathsep.join([str(path), *filter(None, [os.environ.get(variable)])])
