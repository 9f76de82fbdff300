"""A tree of OpenTelemetry spans for each run. It needs the extra ``inkstream[otel]``.

    run                     from the request to the durable terminal event
    ├── admission           waiting for a slot, also while the model loads
    ├── attempt             one engine, asked once; behind tokens of an earlier one it is a seam
    │   ├── prefill         until there is text
    │   └── decode          from there on
    └── log                 the last words and the terminal event become durable

A trace has its run's own id, and its root a span id made from that. So what several processes tell of one
run, each when it lets go of it, is one tree; what a killed one had not told is missing from it. They are made
from the timeline when all is over: an answer that is being written pays nothing for its spans.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from secrets import randbits

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

import inkstream
from inkstream.events import Kind
from inkstream.timeline import Attempt, Ending, Timeline

EXPORT_SECONDS = 1.0
CLOSE_SECONDS = 0.5  # a collector that does not answer must not hold up a restart
SPAN_BITS = 64

Value = str | int | float | list[str]


class Traces:
    def __init__(self, url: str) -> None:
        """``url`` is a collector's for OTLP over HTTP, such as http://127.0.0.1:4318."""
        self._exporter = OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._processor = BatchSpanProcessor(self._exporter)
        self._resource = Resource.create(
            {"service.name": "inkstream", "service.version": inkstream.__version__}
        )
        self._scope = InstrumentationScope("inkstream", inkstream.__version__)

    def close(self) -> None:
        """Send what is left, as far as that goes in ``CLOSE_SECONDS`` and one last export."""
        # The processor would wait for half a minute. Behind its exporter's end every export fails at once.
        too_late = threading.Timer(CLOSE_SECONDS, self._exporter.shutdown)
        too_late.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # it has no types
        too_late.cancel()
        too_late.join()

    def tell(self, timeline: Timeline) -> None:
        """What has happened to a run here. Never waits."""
        root = _root_of(timeline.run)
        for attempt in timeline.attempts:
            self._tell_attempt(root, attempt)
        if timeline.ending is not None:
            self._end("log", _child_of(root), root, timeline.ending.asked_at, timeline.ending.at)
            self._tell_run(root, timeline, timeline.ending)

    def _tell_run(self, root: SpanContext, timeline: Timeline, ending: Ending) -> None:
        told: dict[str, Value] = {
            "inkstream.run": timeline.run,
            "inkstream.attempts": len(timeline.attempts),
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": timeline.model,
            "gen_ai.usage.input_tokens": timeline.prompt_tokens,
            "gen_ai.usage.output_tokens": timeline.tokens,
        }
        status = Status(StatusCode.OK)
        if ending.kind is Kind.DONE:
            told["gen_ai.usage.output_tokens"] = ending.payload["usage"]["completion_tokens"]
            told["gen_ai.response.finish_reasons"] = [ending.payload["finish"]]
        elif ending.kind is Kind.FAILED:
            told["error.type"] = ending.payload["code"]
            status = Status(StatusCode.ERROR, ending.payload["code"])
        self._end("run", root, None, timeline.created_at, ending.at, told, status)

    def _tell_attempt(self, root: SpanContext, attempt: Attempt) -> None:
        assert attempt.ended_at is not None  # a run that is left is not asked for any more
        asked_at = attempt.asked_at or attempt.ended_at
        self._end("admission", _child_of(root), root, attempt.queued_at, asked_at)
        if attempt.asked_at is None:
            return
        context, told = _child_of(root), dict[str, Value]()
        told |= {"inkstream.epoch": attempt.epoch, "inkstream.behind_tokens": attempt.behind}
        told |= {"inkstream.outcome": attempt.outcome}
        told |= {f"inkstream.engine.{name}": value for name, value in attempt.timings.items()}
        status = Status(StatusCode.OK if attempt.outcome in ("finished", "cut") else StatusCode.ERROR)
        events = []
        first = attempt.first_text_at
        self._end("prefill", _child_of(context), context, asked_at, first or attempt.ended_at)
        if first is not None:
            events.append(Event("first token", timestamp=_nanoseconds(first)))
            self._end("decode", _child_of(context), context, first, attempt.ended_at)
        self._end("attempt", context, root, asked_at, attempt.ended_at, told, status, events)

    def _end(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        began_at: float,
        ended_at: float,
        attributes: Mapping[str, Value] | None = None,
        status: Status | None = None,
        events: list[Event] | None = None,
    ) -> None:
        span = ReadableSpan(
            name,
            context,
            parent,
            resource=self._resource,
            attributes=attributes or {},
            events=events or [],
            status=status or Status(),
            start_time=_nanoseconds(began_at),
            end_time=_nanoseconds(max(began_at, ended_at)),  # a clock may have been set back
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)


def _root_of(run: str) -> SpanContext:
    """The same in every process. A run's id has as many bits as a trace's."""
    trace = int(run, 16)
    return _context(trace, trace % (1 << SPAN_BITS))


def _child_of(parent: SpanContext) -> SpanContext:
    return _context(parent.trace_id, randbits(SPAN_BITS))


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
