"""``inkstream bench URL``: a plan from the command line, and what it found on the console and in files."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from pathlib import Path

import orjson

from inkstream.bench.measure import measure
from inkstream.bench.picture import svg
from inkstream.bench.plan import Plan
from inkstream.bench.report import Ticker, remarks, table
from inkstream.bench.result import Result
from inkstream.errors import ConfigError
from inkstream.words import Words


def run(arguments: Namespace, say: Words) -> int:
    """The exit code: 1 if an answer failed. Raises ConfigError, Unreachable."""
    given = vars(arguments)
    plan = Plan.parse({**given, "pids": given["pid"]})
    files = {suffix: Path(given[suffix]) for suffix in ("json", "svg") if given[suffix]}
    for path in files.values():
        _write(path, "")  # now rather than behind an hour of measuring
    ticker = Ticker(sys.stderr, say, sys.stderr.isatty(), plan.rounds)
    try:
        result = asyncio.run(measure(plan, ticker))
    finally:
        ticker.end()
    print(table(result, say))
    print()
    print(remarks(result, say))
    for suffix, path in files.items():
        _write(path, _as_json(result) if suffix == "json" else svg(result, say))
    return 1 if any(figures.errors for figures in result.rounds) else 0


def _as_json(result: Result) -> str:
    return orjson.dumps(result.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
