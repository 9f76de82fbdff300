"""Traces of answers as a collector receives them, over OTLP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from inkstream import tracing
from inkstream.config import Settings
from inkstream.engines.scripted import Script
from inkstream.errors import ConfigError
from inkstream.events import Draft, Kind
from inkstream.otel import Traces
from inkstream.timeline import Timeline
from tests.live import serving
from tests.test_api import ask, client, first_text, follow

CANARY = "quicksilver"


class Collector(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Span] = []
        self.received = b""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def tree(self, run: str) -> dict[str, list[Span]]:
        """The spans of a run by their names. They have one root, and everything else hangs on it."""
        spans = [span for span in self.spans if span.trace_id.hex() == run]
        ids = {span.span_id for span in spans}
        assert len(ids) == len(spans)
        assert [span.name for span in spans if not span.parent_span_id] == ["run"]
        assert {span.parent_span_id for span in spans} - {b""} <= ids
        named: dict[str, list[Span]] = {}
        for span in sorted(spans, key=lambda span: span.start_time_unix_nano):
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            named.setdefault(span.name, []).append(span)
        return named


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        self.server.received += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def told(span: Span) -> dict[str, Any]:
    values = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        assert kind is not None
        values[attribute.key] = getattr(attribute.value, kind)
    return values


async def test_an_answer_is_a_tree_of_spans_with_the_engines_timings(tmp_path: Path) -> None:
    with collector() as receiver:
        script = Script(tokens_per_second=200, answer_tokens=20)
        async with serving(tmp_path, script, traces=receiver.url) as live, client(live) as http:
            run = (await ask(http, CANARY))["run"]["id"]
            [_ async for _ in follow(http, run)]
            await live.until_idle()
        tree = receiver.tree(run)
    counts = {name: len(spans) for name, spans in tree.items()}
    assert counts == {"run": 1, "admission": 1, "attempt": 1, "prefill": 1, "decode": 1, "log": 1}
    [root], [attempt], [log] = tree["run"], tree["attempt"], tree["log"]
    assert told(root)["gen_ai.usage.output_tokens"] == 20
    assert told(root)["gen_ai.request.model"] == "scripted"
    assert told(attempt)["inkstream.outcome"] == "finished"
    assert told(attempt)["inkstream.engine.decode_seconds"] > 0
    assert [event.name for event in attempt.events] == ["first token"]
    assert {span.parent_span_id for span in (*tree["prefill"], *tree["decode"])} == {attempt.span_id}
    assert root.start_time_unix_nano <= attempt.start_time_unix_nano
    assert log.end_time_unix_nano == root.end_time_unix_nano
    assert CANARY.encode() not in receiver.received


async def test_a_seam_is_a_second_attempt(tmp_path: Path) -> None:
    with collector() as receiver:
        script = Script(tokens_per_second=500, answer_tokens=20)
        async with serving(tmp_path, script, traces=receiver.url) as live, client(live) as http:
            live.engine.deaths = 1
            run = (await ask(http))["run"]["id"]
            [_ async for _ in follow(http, run)]
            await live.until_idle()
        tree = receiver.tree(run)
    first, second = tree["attempt"]
    assert told(first)["inkstream.outcome"] == "engine_lost"
    assert first.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert told(first)["inkstream.behind_tokens"] == 0 < told(second)["inkstream.behind_tokens"]
    assert told(first)["inkstream.epoch"] < told(second)["inkstream.epoch"]


async def test_what_two_processes_tell_of_an_answer_is_one_tree(tmp_path: Path) -> None:
    script = Script(tokens_per_second=200, answer_tokens=100)
    with collector() as receiver:
        async with serving(tmp_path, script, traces=receiver.url) as live, client(live) as http:
            run = (await ask(http))["run"]["id"]
            await first_text(http, run)
        async with serving(tmp_path, script, traces=receiver.url) as live, client(live) as http:
            await live.until_ended(run)
            await live.until_idle()
        tree = receiver.tree(run)
    cut, finished = tree["attempt"]
    assert (told(cut)["inkstream.outcome"], told(finished)["inkstream.outcome"]) == ("cut", "finished")
    assert told(tree["run"][0])["gen_ai.usage.output_tokens"] == 100


async def test_a_failure_is_told_by_its_code(tmp_path: Path) -> None:
    with collector() as receiver:
        async with (
            serving(tmp_path, Script(fail_on=CANARY), traces=receiver.url) as live,
            client(live) as http,
        ):
            run = (await ask(http, CANARY))["run"]["id"]
            [_ async for _ in follow(http, run)]
            await live.until_idle()
        [root] = receiver.tree(run)["run"]
    assert root.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert told(root)["error.type"] == root.status.message
    assert CANARY.encode() not in receiver.received


async def test_a_collector_that_is_not_there_holds_nobody_up(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        async with serving(tmp_path, Script(), traces="http://127.0.0.1:9") as live, client(live) as http:
            events = [event async for event in follow(http, (await ask(http))["run"]["id"])]
            assert events[-1].event == "done"
            await live.until_idle()


def test_a_collector_that_takes_and_says_nothing_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        traces = Traces(f"http://127.0.0.1:{silent.getsockname()[1]}")
        for number in range(1000):
            timeline = Timeline(f"{number + 1:032x}", "local", created_at=1.0)
            timeline.end(Draft(Kind.STOPPED, b"{}"), asked_at=1.0)
            traces.tell(timeline)
        before = time.monotonic()
        traces.close()
    assert time.monotonic() - before < 2.5  # each of its batches would take a second


def test_nothing_of_it_is_imported_where_nobody_wants_traces() -> None:
    ask = "import sys, inkstream.gateway; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    # FastAPI imports the interface by itself.
    unwanted = ("inkstream.otel", "opentelemetry.sdk", "opentelemetry.exporter")
    assert [name for name in said.stdout.split() if name.startswith(unwanted)] == []


async def test_where_it_is_not_installed_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "inkstream.otel", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'inkstream\[otel\]'"):
        async with tracing.tracing("http://127.0.0.1:4318"):
            pass


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="INKSTREAM_TRACES"):
        Settings(traces="localhost:4318")
