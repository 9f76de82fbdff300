"""The tutorial's server over a scripted generator: ``article.py PORT TOKENS_PER_SECOND``.

``POST /stream`` is what stands there: a thread per request, a queue that a blocking iterator empties, inside
``async def``, sent by sse-starlette. While one answer waits for its next token the event loop stands still.
``POST /threads/stream`` is the same where it works: a plain generator, which Starlette iterates in its thread
pool. Kinder than the original: uvloop and httptools are installed, and the queue detokenizes nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from queue import Queue
from threading import Thread

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from sse_starlette.sse import EventSourceResponse
from starlette.responses import StreamingResponse

PACE = float(sys.argv[2])

app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])


class Streamer:
    """What TextIteratorStreamer does, without its tokenizer."""

    def __init__(self) -> None:
        self._queue: Queue[str | None] = Queue()

    def put(self, text: str | None) -> None:
        self._queue.put(text)

    def __iter__(self) -> Iterator[str]:
        return iter(self._queue.get, None)


def generate(streamer: Streamer, tokens: int) -> None:
    """In the place of ``model.generate``."""
    start = time.monotonic()
    for number in range(1, tokens + 1):
        time.sleep(max(0.0, start + number / PACE - time.monotonic()))
        streamer.put("流式 ")
    streamer.put(None)


def started(prompt: str, tokens: int) -> Streamer:
    if not prompt or len(prompt) > 1000:
        raise HTTPException(status_code=400, detail="Invalid prompt")
    streamer = Streamer()
    Thread(target=generate, args=(streamer, tokens), daemon=True).start()
    return streamer


@app.post("/stream")
async def stream_response(prompt: str, max_tokens: int = 512) -> EventSourceResponse:
    streamer = started(prompt, max_tokens)

    async def event_generator() -> AsyncIterator[dict[str, str]]:
        for text in streamer:
            yield {"event": "message", "data": text.replace("\n", "\\n"), "id": "message_id"}
        yield {"event": "end", "data": "[DONE]"}

    return EventSourceResponse(event_generator())


@app.post("/threads/stream")
async def stream_from_threads(prompt: str, max_tokens: int = 512) -> StreamingResponse:
    streamer = started(prompt, max_tokens)

    def event_generator() -> Iterator[str]:
        for text in streamer:
            yield f"event: message\ndata: {json.dumps({'text': text}, ensure_ascii=False)}\n\n"
        yield "event: end\ndata: [DONE]\n\n"

    return StreamingResponse(event_generator(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", backlog=4096)
