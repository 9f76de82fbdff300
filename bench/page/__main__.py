"""Measures and prints a Markdown table. Exit status 0 whatever the figures are: a timing is no test."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import sys
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from .browser import FLAGS
from .scenes import SCENES, Row, Stage


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="15 s instead of 100, 20 drops instead of 200")
    parser.add_argument("--throttle", type=float, nargs="+", default=[1, 4], help="times slower processors")
    parser.add_argument("--only", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seed", type=int, default=1, help="of what the drops hit")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    return parser.parse_args()


async def main(given: argparse.Namespace) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=given.chromium, args=FLAGS)
        try:
            print(f"{machine()}, Chromium {browser.version}\n")
            print("| | what | CPU | target | measured | |\n|---|---|---|---|---|---|", flush=True)
            for throttle in given.throttle:
                await play(browser, throttle, given)
        finally:
            await browser.close()


async def play(browser: Browser, throttle: float, given: argparse.Namespace) -> None:
    seconds, drops = (15, 20) if given.quick else (100, 200)
    stage = Stage(browser, throttle, seconds, drops, given.seed)
    for name in given.only:
        for row in await SCENES[name](stage):
            print(line(row, throttle), flush=True)


def line(row: Row, throttle: float) -> str:
    verdict = {True: "met", False: "**missed**", None: ""}[row.is_met]
    cells = (row.criterion, row.what, f"1/{throttle:g}", row.target, row.value, verdict)
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    cpus = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next(
        (text.partition(": ")[2] for text in cpus if text.startswith("model name")), platform.machine()
    )
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, load {load:.1f}, {platform.system()}"


if __name__ == "__main__":
    asyncio.run(main(arguments()))
