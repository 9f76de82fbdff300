"""Records when the text of a real answer arrives, as a trace for the unit tests of the page.

    python -m bench.page.record --tokens 200 > web/src/stream/traces/NAME.json

With ``--model FILE.gguf`` llama.cpp answers, else the scripted engine at ``--rate`` tokens a second.
"""

from __future__ import annotations

import argparse
import json
import time

import httpx
from httpx_sse import connect_sse

from .server import serving

QUESTION = "Tell me about rivers, in three paragraphs."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.page.record", description=__doc__)
    parser.add_argument("--model", default="")
    parser.add_argument("--rate", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args()
    settings = {"ENGINE": "llama", "MODEL": given.model} if given.model else {}
    script = None if given.model else {"tokens_per_second": given.rate}
    with serving(script, **settings) as server:
        arrivals = record(server.url, given.tokens)
    print("[" + ",\n ".join(json.dumps(arrival, ensure_ascii=False) for arrival in arrivals) + "]")


def record(url: str, tokens: int) -> list[tuple[float, str]]:
    """When, in milliseconds from the first, and what, for each piece of text."""
    arrivals: list[tuple[float, str]] = []
    with httpx.Client(base_url=url, trust_env=False, timeout=120) as client:
        chat = client.post("api/chats", json={}).raise_for_status().json()["id"]
        asked = {"content": QUESTION, "sampling": {"max_tokens": tokens, "seed": 1}}
        started = client.post(f"api/chats/{chat}/messages", json=asked).raise_for_status()
        run = started.json()["run"]["id"]
        with connect_sse(client, "GET", f"api/runs/{run}/events") as source:
            for event in source.iter_sse():
                if event.event == "text":
                    arrivals.append((time.monotonic() * 1000, event.json()["text"]))
    start = arrivals[0][0]
    return [(round(at - start, 1), text) for at, text in arrivals]


if __name__ == "__main__":
    main()
