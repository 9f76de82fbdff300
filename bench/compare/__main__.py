"""``make bench BENCHFLAGS="--quick --only paced"``: run the scenarios, print what holds, keep it all."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from compare.bench import Bench
from compare.llama import llama
from compare.outcome import RESULTS, Outcome
from compare.paced import latency, paced, unpaced
from compare.readers import crowd, fanout, stalled
from compare.stored import expiry, replay, resume
from inkstream.bench.machine import allow_many_files

SCENARIOS: dict[str, Callable[[Bench], Awaitable[Outcome]]] = {
    scenario.__name__: scenario
    for scenario in (paced, unpaced, latency, llama, crowd, fanout, stalled, resume, replay, expiry)
}
EVERY_DAY = ("paced", "unpaced", "latency", "fanout", "resume", "replay")


async def run(bench: Bench, names: list[str]) -> bool:
    """Whether everything held."""
    holds = True
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        outcome = await SCENARIOS[name](bench)
        outcome.write(f"{name}-quick" if bench.is_quick else name)
        print(outcome.markdown(), flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        holds &= all(row.holds is not False for row in outcome.rows)
    return holds


def main() -> int:
    allow_many_files()
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME,NAME", help=", ".join(SCENARIOS))
    parser.add_argument(
        "--quick", action="store_true", help="small loads, and of all only the quick scenarios"
    )
    parser.add_argument("--rounds", type=int, help="instead of each scenario's own number")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else [*(EVERY_DAY if given.quick else SCENARIOS)]
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    flags = " --quick" * given.quick + (f" --rounds {given.rounds}" if given.rounds else "")
    holds = asyncio.run(run(Bench(given.quick, given.rounds, flags), names))
    print(f"written to {RESULTS}", file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
