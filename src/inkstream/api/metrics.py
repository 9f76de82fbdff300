"""What Prometheus is told. See ``docs/operating.md``.

Names that begin with ``vllm:`` mean what they mean in vLLM, so that dashboards made for it show these
answers too; those with ``inkstream_`` say what nobody else counts. Everything is read off when it is asked
for. An answer's times are counted when it ends; ``vllm:inter_token_latency_seconds`` has each token with the
mean pause of its answer, because to look at a clock for every token costs more than to count it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

import inkstream
from inkstream.api.description import replies
from inkstream.api.services import Services, require_admin, services
from inkstream.engines import Phase
from inkstream.errors import EngineLost
from inkstream.histogram import Histogram
from inkstream.nvml import GpuLoad
from inkstream.tallies import ModelTally

router = APIRouter()

TAKEOVERS = ("engine_lost", "restart", "abandoned")
STOPS = ("asked", "unread")
FINISHED = ("stop", "length", "abort", "error")
FAILURES = ("disk_full", "engine_crashed", "engine_lost", "internal")
ERRORS = ("queue_full", "too_many_readers", "too_many_connections", "log_unwritable", "internal")
MOST_TOLD_READERS = 3

HISTOGRAMS = (
    ("vllm:time_to_first_token_seconds", "From the request to the first text.", "first_token"),
    ("vllm:inter_token_latency_seconds", "Pauses between tokens, each as its answer's mean.", "inter_token"),
    ("vllm:request_queue_time_seconds", "Waiting for a turn.", "queue"),
    ("vllm:request_prefill_time_seconds", "Reading the prompt, by the engine's clock.", "prefill"),
    ("vllm:request_decode_time_seconds", "Writing, by the engine's clock.", "decode"),
    ("vllm:e2e_request_latency_seconds", "From the request to the end.", "total"),
)
TOKENS = (
    ("vllm:prompt_tokens", "Tokens of prompts.", "prompt_tokens"),
    ("inkstream_cached_prompt_tokens", "Those of them that an engine had read before.", "cached_tokens"),
    ("vllm:spec_decode_num_draft_tokens", "Tokens guessed ahead.", "drafted_tokens"),
    ("vllm:spec_decode_num_accepted_tokens", "Those of them that were right.", "accepted_tokens"),
)
GPU = (
    ("memory_used_bytes", "GPU memory in use.", "used_bytes"),
    ("memory_total_bytes", "GPU memory.", "total_bytes"),
    ("load_ratio", "Share of the time in which the GPU computes.", "load"),
    ("temperature_celsius", "Temperature of the GPU.", "celsius"),
)

Sample = tuple[tuple[str, ...], float]


@router.get("/metrics", responses=replies("", kinds=("text/plain",)))
async def metrics(request: Request) -> Response:
    """Everything that is counted, for Prometheus. Admins only."""
    require_admin(request)
    here = services(request)
    loads = await asyncio.to_thread(here.nvml.loads)
    names = (
        {user.id: user.name for user in await here.accounts.users()} if here.settings.metrics_names else {}
    )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_Told(here, loads, names))
    # Not OpenMetrics, which Prometheus would rather have: this library writes vllm_ for vllm: there.
    headers = {"content-type": CONTENT_TYPE_PLAIN_0_0_4, "cache-control": "no-store"}
    return Response(generate_latest(registry), headers=headers)


class _Told(Collector):
    def __init__(self, here: Services, gpus: list[GpuLoad], names: dict[str, str]) -> None:
        self._here, self._gpus, self._names = here, gpus, names

    def collect(self) -> Iterator[Metric]:
        yield from self._engine()
        yield from self._models()
        yield from self._runs()
        yield from self._readers()
        yield from self._log()
        yield from self._principals()
        yield from self._machine()

    def _engine(self) -> Iterator[Metric]:
        runs = self._here.runs
        status, admission = runs.engine.status, runs.admission
        phases = [((phase.value,), status.phase is phase) for phase in Phase]
        yield _info("inkstream_build", "This release.", {"version": inkstream.__version__})
        yield _gauges("inkstream_engine_phase", "1 for what the engine is doing.", ("phase",), phases)
        model = ""
        try:
            engine = runs.engine.describe()
            model = engine.model
            told = {"engine": engine.engine, "model_name": model, "quantization": engine.quantization or ""}
            yield _info("inkstream_engine", "What answers now.", told)
            yield _gauge("inkstream_slots", "Answers that are generated at a time, at most.", engine.slots)
            yield from _cache(model, runs.engine.cache_usage)
        except EngineLost:  # it is on its way: the phase says so
            pass
        inside, waiting = [((model,), admission.inside)], [((model,), admission.waiting)]
        yield _gauges("vllm:num_requests_running", "Answers being generated.", ("model_name",), inside)
        yield _gauges("vllm:num_requests_waiting", "Answers that wait their turn.", ("model_name",), waiting)
        lost = self._here.tally.engine_losses
        yield _counter("inkstream_engine_losses", "How often an engine that was ready was so no more.", lost)

    def _models(self) -> Iterator[Metric]:
        models = self._here.tally.models
        for name, text, part in HISTOGRAMS:
            yield _histograms(name, text, {model: getattr(tally, part) for model, tally in models.items()})
        for name, text, part in TOKENS:
            told = [((model,), getattr(tally, part)) for model, tally in models.items()]
            yield _counters(name, text, ("model_name",), told)
        written = Counter({model: tally.tokens for model, tally in models.items()})
        for run in self._here.tally.living.values():
            if run.tokens:  # before that it may not be known which model will write it
                written[run.model] += run.tokens
        text = "Tokens written, those of living answers included."
        yield _counters("vllm:generation_tokens", text, ("model_name",), _by_one(written))
        yield _ends(models)

    def _runs(self) -> Iterator[Metric]:
        tally = self._here.tally
        yield _counter("inkstream_runs", "Answers begun or taken over by this gateway.", tally.begun)
        failures = _by_one(_with_zeros(FAILURES, tally.failures))
        yield _counters("inkstream_run_failures", "Answers that failed.", ("code",), failures)
        takeovers = _by_one(_with_zeros(TAKEOVERS, tally.takeovers))
        text = "Answers that were taken up where another process had left them."
        yield _counters("inkstream_takeovers", text, ("reason",), takeovers)
        text = "Answers that were stopped: somebody asked for it, or nobody read them."
        yield _counters("inkstream_stops", text, ("by",), _by_one(_with_zeros(STOPS, tally.stops)))
        errors = _by_one(_with_zeros(ERRORS, self._here.errors))
        yield _counters("inkstream_errors", "Requests that were refused or failed.", ("code",), errors)

    def _readers(self) -> Iterator[Metric]:
        tally, living = self._here.streams.tally, self._here.tally.living.values()
        yield _gauge("inkstream_streams", "Event streams that are open.", len(self._here.streams))
        readers = Counter(_several(run.readers) for run in living)
        named = _by_one(_with_zeros(map(_several, range(MOST_TOLD_READERS + 1)), readers))
        yield _gauges("inkstream_runs_by_readers", "Living answers by who follows them.", ("readers",), named)
        most = max((run.readers for run in living), default=0)
        yield _gauge("inkstream_run_readers_max", "Readers of the living answer that has most.", most)
        text = "Streams asked for with the id of a last event: a connection was lost."
        yield _counter("inkstream_reconnects", text, tally.reconnects)
        text = "Streams that went on behind what their readers had."
        yield _counter("inkstream_resumes", text, tally.resumes)
        text = "Readers that took nothing for too long and were cut off."
        yield _counter("inkstream_readers_dropped", text, tally.dropped)
        text = "Pauses of two seconds and more within an answer, for each of its readers."
        yield _counter("inkstream_reader_stalls", text, self._here.tally.stalls)

    def _log(self) -> Iterator[Metric]:
        tally = self._here.log_tally
        yield _counter("inkstream_commits", "Commits of events to the token log.", tally.commits)
        text = "Time until events were durable and given out, of every sixteenth commit."
        yield _histogram("inkstream_append_seconds", text, tally.seconds)
        text = "Events given from the store to readers that were behind."
        yield _counter("inkstream_replayed_events", text, tally.replayed_events)
        yield _counter("inkstream_replayed_bytes", "Their bytes.", tally.replayed_bytes)

    def _principals(self) -> Iterator[Metric]:
        tally = self._here.tally
        present = {run.principal for run in tally.living.values()}
        yield _gauge("inkstream_principals", "Users who have a living answer.", len(present))
        for part, text in (("runs", "Answers ended"), ("tokens", "Tokens written, counted as answers end")):
            told = [((self._name(id_),), getattr(each, part)) for id_, each in tally.principals.items()]
            yield _counters(f"inkstream_principal_{part}", f"{text}, by user.", ("principal",), told)

    def _name(self, principal: str) -> str:
        return self._names.get(principal, principal)

    def _machine(self) -> Iterator[Metric]:
        free = shutil.disk_usage(self._here.settings.data_dir).free
        yield _gauge("inkstream_data_free_bytes", "Room left where the data folder is.", free)
        for name, text, part in GPU:
            told = [((str(gpu.index), gpu.name), getattr(gpu, part)) for gpu in self._gpus]
            yield _gauges(f"inkstream_gpu_{name}", text, ("gpu", "name"), told)


def _cache(model: str, usage: float | None) -> Iterator[Metric]:
    if usage is not None:
        text = "Share of the key-value cache that living answers hold; 1 is all of it."
        yield _gauges("vllm:kv_cache_usage_perc", text, ("model_name",), [((model,), usage)])


def _ends(models: Mapping[str, ModelTally]) -> Metric:
    told = [
        ((model, reason), count)
        for model, tally in models.items()
        for reason, count in _with_zeros(FINISHED, tally.ended).items()
    ]
    labels = ("model_name", "finished_reason")
    return _counters("vllm:request_success", "Answers that have ended.", labels, told)


def _several(readers: int) -> str:
    return str(readers) if readers < MOST_TOLD_READERS else f"{MOST_TOLD_READERS}+"


def _with_zeros(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """What has not happened yet is told too: of a series that begins with 1, Prometheus sees no increase."""
    return {**dict.fromkeys(names, 0), **counts}


def _by_one(counts: Mapping[str, float]) -> list[Sample]:
    return [((name,), count) for name, count in counts.items()]


def _info(name: str, text: str, told: dict[str, str]) -> Metric:
    return InfoMetricFamily(name, text, value=told)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counters(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, text, buckets=list(histogram.buckets()), sum_value=histogram.sum)


def _histograms(name: str, text: str, of_models: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("model_name",))
    for model, histogram in of_models.items():
        family.add_metric((model,), list(histogram.buckets()), histogram.sum)
    return family
