"""``/metrics`` of a live server, read by Prometheus' own parsers."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import parser

from inkstream import tallies, timeline
from inkstream.accounts import Role
from inkstream.connection import MOST_HEAD_BYTES
from inkstream.engines.scripted import Script
from inkstream.events import Draft, Kind
from inkstream.histogram import Histogram
from inkstream.nvml import GpuLoad, Nvml
from inkstream.tallies import MOST_PRINCIPALS, OTHERS, RunTally
from inkstream.timeline import Timeline
from tests.live import serving
from tests.signing_in import browser, keyed, signed_in
from tests.test_api import ask, client, first_text, follow, text_of

SLOW = Script(tokens_per_second=200, answer_tokens=60)
ENDLESS = Script(tokens_per_second=200, answer_tokens=1_000_000)


async def scraped(http: httpx.AsyncClient) -> dict[str, float]:
    """Every sample by its name and labels, but for the model's, as Prometheus writes them."""
    reply = await http.get("/metrics")
    assert reply.status_code == 200, reply.text
    found: dict[str, float] = {}
    for family in parser.text_string_to_metric_families(reply.text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "model_name"}
            told = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
            key = f"{sample.name}{{{told}}}" if told else sample.name
            found[key] = found.get(key, 0) + sample.value
    return found


async def until_more(http: httpx.AsyncClient, name: str, than: float = 0) -> dict[str, float]:
    async with asyncio.timeout(10):
        while (told := await scraped(http))[name] <= than:  # noqa: ASYNC110  # it can only be asked
            await asyncio.sleep(0.01)
    return told


async def test_an_answer_is_counted_with_its_tokens_and_times(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        [_ async for _ in follow(http, run)]
        await live.until_idle()
        told = await scraped(http)
    assert told["vllm:generation_tokens_total"] == 60
    assert told["vllm:prompt_tokens_total"] > 0
    assert told["vllm:request_success_total{finished_reason=stop}"] == 1
    assert told["vllm:request_success_total{finished_reason=abort}"] == 0
    for name in ("time_to_first_token", "request_queue_time", "e2e_request_latency", "request_decode_time"):
        assert told[f"vllm:{name}_seconds_count"] == 1
    assert told["vllm:inter_token_latency_seconds_count"] == 59
    pause = told["vllm:inter_token_latency_seconds_sum"] / 59
    assert 0.004 < pause < 0.1  # paced at 5 ms
    assert told["inkstream_append_seconds_count"] >= 1
    assert told["inkstream_engine_phase{phase=ready}"] == 1


async def test_tokens_are_counted_while_they_are_written(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        await first_text(http, run)
        early = await scraped(http)
        later = await until_more(http, "vllm:generation_tokens_total", 50)
        assert 0 < early["vllm:generation_tokens_total"] < later["vllm:generation_tokens_total"]
        assert later["vllm:num_requests_running"] == 1
        assert early["vllm:kv_cache_usage_perc"] < later["vllm:kv_cache_usage_perc"] < 1
        assert later["inkstream_principals"] == 1
        assert "vllm:request_success_total{finished_reason=abort}" not in later
        await http.post(f"/api/runs/{run}/stop")
        await live.until_idle()
        ended = await scraped(http)
        assert ended["vllm:generation_tokens_total"] >= later["vllm:generation_tokens_total"]
        assert ended["vllm:request_success_total{finished_reason=abort}"] == 1
        assert ended["inkstream_stops_total{by=asked}"] == 1
        assert ended["vllm:kv_cache_usage_perc"] == 0


async def test_readers_that_come_back_are_counted_with_what_they_are_given(tmp_path: Path) -> None:
    async with serving(tmp_path, SLOW) as live, client(live) as http:
        run = (await ask(http))["run"]["id"]
        events = [event async for event in follow(http, run)]
        before = await scraped(http)
        rest = [event async for event in follow(http, run, events[2].id)]
        assert [event async for event in follow(http, run, events[-1].id)] == []
        told = await scraped(http)
    assert told["inkstream_reconnects_total"] == 2
    assert told["inkstream_resumes_total"] == 1
    replayed = told["inkstream_replayed_events_total"] - before["inkstream_replayed_events_total"]
    assert replayed == len(rest) == len(events) - 3
    assert told["inkstream_replayed_bytes_total"] > len(text_of(rest))


async def test_living_answers_are_told_apart_by_their_readers(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        runs = [(await ask(http))["run"]["id"] for _ in range(2)]
        async with aclosing(follow(http, runs[0])) as one, aclosing(follow(http, runs[0])) as two:
            await anext(one)
            await anext(two)
            told = await scraped(http)
    assert told["inkstream_runs_by_readers{readers=0}"] == 1
    assert told["inkstream_runs_by_readers{readers=2}"] == 1
    assert told["inkstream_run_readers_max"] == 2
    assert told["inkstream_streams"] == 2


async def test_refusals_and_failures_are_counted_by_their_codes(tmp_path: Path) -> None:
    script = Script(fail_on="fail")
    async with serving(tmp_path, script) as live, client(live) as http:
        await http.get("/api/runs/nobodys")
        await http.get("/api/runs/nobodys", headers={"Host": "elsewhere.test"})
        await http.post("/api/chats", content=b"{", headers={"Content-Type": "application/json"})
        await http.get("/nothing/here", headers={"Accept": "application/json"})
        run = (await ask(http, "fail"))["run"]["id"]
        [_ async for _ in follow(http, run)]
        await live.until_idle()
        told = await scraped(http)
    for code in ("unknown_run", "foreign_host", "bad_json"):
        assert told[f"inkstream_errors_total{{code={code}}}"] == 1, code
    assert told["inkstream_run_failures_total{code=scripted_failure}"] == 1
    assert told["vllm:request_success_total{finished_reason=error}"] == 1


async def test_what_nobody_has_caught_is_counted_as_internal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        monkeypatch.setattr(live.services.runs, "get", None)
        assert (await http.get("/api/runs/any")).status_code == 500
        assert (await scraped(http))["inkstream_errors_total{code=internal}"] == 1


async def test_a_death_and_a_restart_are_takeovers(tmp_path: Path) -> None:
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        live.engine.deaths = 1
        run = (await ask(http))["run"]["id"]
        await first_text(http, run)
        told = await until_more(http, "inkstream_takeovers_total{reason=engine_lost}")
        assert told["inkstream_takeovers_total{reason=restart}"] == 0
    async with serving(tmp_path, ENDLESS) as live, client(live) as http:
        told = await scraped(http)
        assert told["inkstream_takeovers_total{reason=restart}"] == 1
        assert told["inkstream_takeovers_total{reason=engine_lost}"] == 0


async def test_a_pause_is_one_stall_for_each_of_its_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(tallies, "LOOK_SECONDS", 0.02)
    script = Script(tokens_per_second=0.7, answer_tokens=1000)
    async with serving(tmp_path, script) as live, client(live) as http:
        runs = [(await ask(http))["run"]["id"] for _ in range(2)]
        async with aclosing(follow(http, runs[0])) as one, aclosing(follow(http, runs[0])) as two:
            for events in (one, two):
                async for event in events:
                    if event.event == "text":
                        break
            told = await until_more(http, "inkstream_reader_stalls_total")
    assert told["inkstream_reader_stalls_total"] == 2


async def test_what_is_refused_before_any_route_is_counted_by_its_code(tmp_path: Path) -> None:
    async with serving(tmp_path, connections=2, header_seconds=0.2, body_kib=1) as live, client(live) as http:
        before = await scraped(http)  # one of the two connections is its own from here on
        assert (await http.post("/api/import", content=b"x" * 2048)).status_code == 413
        assert await answered(live.port, b"no HTTP\r\n\r\n") == 400
        assert await answered(live.port, b"GET / HTTP/1.1\r\nx: " + b"x" * MOST_HEAD_BYTES) == 431
        assert await answered(live.port, b"GET / HTTP/1.1\r\n") == 408
        _, second = await asyncio.open_connection("127.0.0.1", live.port)
        assert await answered(live.port, b"") == 503
        second.close()
        told = await scraped(http)
    for code in (
        "body_too_large",
        "bad_request",
        "headers_too_large",
        "request_timeout",
        "too_many_connections",
    ):
        name = f"inkstream_errors_total{{code={code}}}"
        assert told[name] - before.get(name, 0) == 1, code


async def answered(port: int, said: bytes) -> int:
    """The status with which a connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    reply = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return int(reply.split(b" ", 2)[1])


async def test_users_are_counted_without_their_names(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await keyed(live, "root", Role.ADMIN) as root:
        async with await keyed(live, "ada-lovelace") as ada:
            [_ async for _ in follow(ada, (await ask(ada))["run"]["id"])]
            await live.until_idle()
            assert (await ada.get("/metrics")).status_code == 403
        reply = await root.get("/metrics")
        user = await live.services.accounts.user_named("ada-lovelace")
    assert "lovelace" not in reply.text
    assert f'inkstream_principal_runs_total{{principal="{user.id}"}} 1.0' in reply.text


async def test_users_have_their_names_where_the_settings_say_so(tmp_path: Path) -> None:
    async with serving(tmp_path, metrics_names=True) as live, await keyed(live, "root", Role.ADMIN) as root:
        [_ async for _ in follow(root, (await ask(root))["run"]["id"])]
        await live.until_idle()
        assert (await scraped(root))["inkstream_principal_runs_total{principal=root}"] == 1


async def test_nobody_unknown_is_told_anything(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, await signed_in(live, "root", Role.ADMIN), browser(live) as nobody:
        assert (await nobody.get("/metrics")).status_code == 401


async def test_names_keep_their_colon_for_those_who_ask_for_openmetrics(tmp_path: Path) -> None:
    async with serving(tmp_path) as live, client(live) as http:
        reply = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "vllm:num_requests_running{" in reply.text


def test_principals_that_have_no_end_share_a_series() -> None:
    tally = RunTally()
    for number in range(MOST_PRINCIPALS + 5):
        run = Timeline(f"{number:032x}", f"user{number}", created_at=0.0)
        tally.begin(run)
        run.end(Draft(Kind.STOPPED, b"{}"), asked_at=0.0)
        tally.leave(run)
    assert len(tally.principals) == MOST_PRINCIPALS + 1
    assert tally.principals[OTHERS].runs == 5


def test_a_histogram_counts_up_to_and_with_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.observe(value)
    histogram.observe(2.0, 3)
    assert list(histogram.buckets()) == [("1.0", 2), ("2.0", 6), ("+Inf", 7)]
    assert (histogram.count, histogram.sum) == (7, 16.0)


class Driver(SimpleNamespace):
    """NVIDIA's library, with two GPUs of which one does not answer."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """As the library raises it."""

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 0:
            raise self.NVMLError
        return index

    def nvmlDeviceGetName(self, gpu: int) -> str:
        return f"GPU {gpu}"

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=3 << 30, total=80 << 30)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=42)

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        return 61


async def test_a_gpu_is_told_with_its_memory_load_and_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert Nvml().loads() == [GpuLoad(1, "GPU 1", 3 << 30, 80 << 30, 0.42, 61)]
    async with serving(tmp_path) as live, client(live) as http:
        told = await scraped(http)
    assert told["inkstream_gpu_memory_used_bytes{gpu=1,name=GPU 1}"] == 3 << 30
    assert told["inkstream_gpu_load_ratio{gpu=1,name=GPU 1}"] == 0.42


def test_without_the_package_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml().loads() == []
