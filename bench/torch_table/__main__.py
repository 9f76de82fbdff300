"""``python -m torch_table FOLDER --json FILE``: all rows, or ``--only`` these, within ``--within`` seconds.

FOLDER has a tokenizer as transformers saves it; weights of Qwen2-0.5B's shape are added to it. ``--real`` is
a checkpoint that says something, for the rows in which that counts. ``--rehearse`` runs everything on a CPU
with a tiny model: its figures mean nothing. FILE is read first: what it has is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from torch_table.crew import Crew
from torch_table.report import targets_table
from torch_table.results import Results
from torch_table.rows import ROWS

LEAST_SECONDS = 10
"""A row for which less is left is not begun."""


def run(names: list[str], crew: Crew, results: Results, deadline: float) -> None:
    """Measure what there is time for."""
    for name in names:
        left = deadline - time.monotonic()
        if left < LEAST_SECONDS:
            print(f"{name}: no time is left", flush=True)
            continue
        print(f"{name} …", flush=True)
        started = time.monotonic()
        ended = crew.measure(name, min(ROWS[name].seconds, left), results)
        results.end(name, ended, time.monotonic() - started)
        print(f"{name}: {ended}, {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m torch_table", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", metavar="NAME,NAME", help=", ".join(ROWS))
    parser.add_argument("--within", type=float, default=530, metavar="SECONDS")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(ROWS)}")
    deadline = time.monotonic() + given.within
    results = Results(given.json)
    if not given.only:
        names = [name for name in names if not results.has(name)]
    with Crew(given.folder, given.real, rehearses=given.rehearse) as crew:
        run(names, crew, results, deadline)
    print(targets_table(results.rows))
    missing = [name for name in ROWS if not results.has(name)]
    if missing:
        print(f"not measured: --only {','.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
