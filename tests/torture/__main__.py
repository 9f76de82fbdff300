"""``python -m tests.torture``: kill the processes a thousand times and compare every answer."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from inkstream import models
from tests.torture import conditions, load, trials
from tests.torture.report import Report

MODEL = "smollm2-135m"
MODELS = Path(__file__).parents[2] / ".build" / "models"
LLAMA_SHARES = {"scripted": (0.0, 0.0), "llama": (1.0, 1.0), "both": (0.1, 0.35)}
"""Of all blows and of the time: loading weights after each death makes these slow."""


def main() -> int:
    options = _options()
    print(f"seed {options.seed}; again with: {_command(options)}", flush=True)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="inkstream-torture-")).resolve()
    try:
        environ = conditions.environ(folder, loop=options.loop, slow_disk_ms=options.slow_disk)
    except conditions.Unavailable as error:
        print(error, file=sys.stderr)
        return 2
    reports = asyncio.run(_torture(options, folder, environ))
    violations = sum(len(report.violations) for report in reports)
    _tell(options, reports, violations, time.monotonic() - started)
    if violations:
        print(f"the data folders and consoles are kept in {folder}", file=sys.stderr)
    return 1 if violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="blows in all (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1500, help="longest time for them (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="what fixes every choice (default: drawn)")
    parser.add_argument("--engine", choices=("scripted", "llama", "both"), default="both")
    parser.add_argument("--model", default=MODEL, help="what llama runs: a name or a path (%(default)s)")
    parser.add_argument("--askers", type=int, default=24, help="conversations at a time (%(default)s)")
    parser.add_argument("--at-once", type=int, default=1000, help="answers of the load (%(default)s)")
    parser.add_argument("--loop", choices=("auto", "asyncio"), default="auto", help="asyncio: without uvloop")
    parser.add_argument(
        "--slow-disk",
        type=float,
        default=0,
        metavar="MS",
        help="what each write to the data folder takes more",
    )
    parser.add_argument("--only-kills", action="store_true", help="leave out the crash prompts and the load")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 31)
    return options


def _command(options: argparse.Namespace) -> str:
    told = {name: value for name, value in vars(options).items() if value not in (None, False)}
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in told.items()
    ]
    return f"python -m tests.torture {shlex.join(words)}"


async def _torture(options: argparse.Namespace, folder: Path, environ: Mapping[str, str]) -> list[Report]:
    reports = []
    async for report in _trials(options, folder, environ):
        report.show()
        sys.stdout.flush()
        reports.append(report)
    return reports


async def _trials(
    options: argparse.Namespace, folder: Path, environ: Mapping[str, str]
) -> AsyncIterator[Report]:
    seed, kills, seconds = options.seed, options.kills, options.seconds
    blows, time_share = LLAMA_SHARES[options.engine]
    if blows < 1:
        yield await trials.scripted(
            folder / "scripted",
            seed,
            kills=round(kills * (1 - blows)),
            seconds=seconds * (1 - time_share),
            askers=options.askers,
            environ=environ,
        )
    if blows > 0:
        model = await models.fetch(options.model, MODELS, on_progress=lambda _: None)
        yield await trials.llama(
            folder / "llama",
            seed,
            model.path,
            kills=round(kills * blows),
            seconds=seconds * time_share,
            askers=6,
            environ=environ,
        )
    if options.only_kills:
        return
    yield await trials.poison(folder / "poison", seed, poisoned=10, healthy=40, environ=environ)
    yield await load.long_answer(folder / "long", seed, tokens=100_000, environ=environ)
    yield await load.crowd(folder / "crowd", seed, runs=options.at_once, tokens_per_second=2, environ=environ)


def _tell(options: argparse.Namespace, reports: list[Report], violations: int, seconds: float) -> None:
    print(f"\nin all, seed {options.seed}, {seconds:.0f} s")
    for name in (
        "blows",
        "runs",
        "  seams",
        "readers",
        "  cut by the reader, at any byte",
        "  cut by a death",
    ):
        print(f"  {name:<44} {sum(int(report.figures[name]) for report in reports)}")
    print(f"  {'violations':<44} {violations}")
    if options.json:
        told = {"seed": options.seed, "seconds": seconds, "trials": [report.as_json() for report in reports]}
        options.json.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
