"""What lies in ``deploy/`` for operators, against a real Prometheus that scrapes a live server under load."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
import yaml

from inkstream.engines.scripted import Script
from inkstream.probe import free_port
from tests.live import Live, serving
from tests.test_api import ask, client, follow, until
from tests.test_metrics import Driver, scraped

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
RULES = [
    rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
# Nothing is guessed by the scripted engine: nothing by nothing is no number.
WITHOUT_A_NUMBER = {"Guessed tokens that were right"}
SVG = "{http://www.w3.org/2000/svg}"
METRIC = re.compile(r"\b(?:vllm:|inkstream_|process_)[a-z0-9_]+|\bup\b")


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of prometheus and promtool."""
    said = subprocess.run([ROOT / "scripts/prometheus"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(said.stdout.strip())


def promtool(programs: Path, *arguments: str | Path) -> str:
    said = subprocess.run([programs / "promtool", *arguments], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_promtool_finds_no_fault_in_configuration_and_rules(programs: Path) -> None:
    assert f"{len(RULES)} rules found" in promtool(programs, "check", "config", DEPLOY / "prometheus.yml")
    promtool(programs, "check", "rules", "--lint=all", "--lint-fatal", DEPLOY / "alerts.yml")


def fires(alert: str, at: str, series: dict[str, str], labels: dict[str, str], **told: str) -> dict[str, Any]:
    """A test of promtool's: with these series the alert has fired by then, unless nothing is ``told``."""
    rule = next(rule for rule in RULES if rule["alert"] == alert)
    expected = {
        "exp_labels": {**rule["labels"], **labels},
        "exp_annotations": {**rule["annotations"], **told},
    }
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": alert, "exp_alerts": [expected] if told else []},
        ],
    }


def test_alerts_fire_when_they_should_and_not_before(programs: Path, tmp_path: Path) -> None:
    here = {"instance": "a"}
    given_up = 'inkstream_engine_phase{instance="a", phase="given_up"}'
    ends = 'vllm:request_success_total{{job="inkstream", instance="a", finished_reason="{}"}}'
    failing = {ends.format("stop"): "0+9x80", ends.format("error"): "0+1x80"}
    fine = {ends.format("stop"): "0+99x80", ends.format("error"): "0+1x80"}
    down = 'up{job="inkstream", instance="a"}'
    cache = 'vllm:kv_cache_usage_perc{job="inkstream", instance="a"}'
    cases = [
        fires(
            *("InkstreamEngineGivenUp", "1m", {given_up: "0x2 1x10"}, {**here, "phase": "given_up"}),
            summary="The engine of a will not come back by itself.",
        ),
        fires("InkstreamEngineGivenUp", "1m", {given_up: "0x10"}, here),
        fires("InkstreamAnswersFail", "18m", failing, here, summary="10% of the answers of a fail."),
        fires("InkstreamAnswersFail", "18m", fine, here),
        fires(
            "InkstreamDown", "3m", {down: "0x20"}, {**here, "job": "inkstream"}, summary="a does not answer."
        ),
        fires("InkstreamDown", "45s", {down: "0x20"}, here),
        fires(
            *("InkstreamCacheFull", "11m", {cache: "0.97x60"}, {**here, "job": "inkstream"}),
            summary="The key-value cache of a is full: answers give way to each other.",
        ),
        fires("InkstreamCacheFull", "20m", {cache: "0.97x20 0.5x20 0.97x40"}, here),
    ]
    path = tmp_path / "rules.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(DEPLOY / "alerts.yml")], "tests": cases}))
    assert "SUCCESS" in promtool(programs, "test", "rules", path)


async def test_the_first_of_what_alerts_wait_for_is_seen(tmp_path: Path) -> None:
    """Prometheus sees no increase in a series that begins with 1: they are there from the start."""
    async with serving(tmp_path) as live, client(live) as http:
        told = await scraped(http)
    waited_for = {
        f"{name}{{{label}={value}}}"
        for rule in RULES
        for name, label, values in re.findall(r'(inkstream_\w+){(\w+)=~?"([^"]+)"}', rule["expr"])
        for value in values.split("|")
    }
    assert len(waited_for) >= 6
    assert waited_for <= told.keys()


@asynccontextmanager
async def prometheus(programs: Path, folder: Path, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """Prometheus with our configuration, in a hurry."""
    config = (DEPLOY / "prometheus.yml").read_text()
    assert "127.0.0.1:8000" in config
    assert "15s" in config
    (folder / "prometheus.yml").write_text(config.replace("127.0.0.1:8000", target).replace("15s", "500ms"))
    (folder / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    process = await asyncio.create_subprocess_exec(
        programs / "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
        stdout=DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=10) as http:
            yield http
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def asked(http: httpx.AsyncClient, path: str, **query: str) -> Any:
    """The reply's data, None while Prometheus is starting."""
    try:
        reply = await http.get(path, params=query)
    except httpx.TransportError:
        return None
    if reply.status_code == 503:
        return None
    assert reply.status_code == 200, f"{query}: {reply.text}"
    return reply.json()["data"]


async def load(live: Live) -> None:
    """Answers, readers that come back, stops, failures, refusals and deaths of the engine, for ever."""
    async with client(live) as http:
        while True:
            live.engine.deaths = 1
            run = (await ask(http))["run"]["id"]
            events = [event async for event in follow(http, run)]
            [_ async for _ in follow(http, run, events[1].id)]
            stopped = (await ask(http))["run"]["id"]
            await http.post(f"/api/runs/{stopped}/stop")
            failed = (await ask(http, "fail"))["run"]["id"]
            [_ async for _ in follow(http, failed)]
            await http.get("/api/runs/nobodys")


def queries() -> list[tuple[str, str]]:
    """Each panel's title with each of its queries, Grafana's variables filled in."""
    found = []
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            filled = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "4s")
            assert "$" not in filled
            found.append((panel["title"], filled))
    return found


async def test_every_panel_and_every_alert_answers_from_a_loaded_server(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    script = Script(tokens_per_second=200, answer_tokens=30, fail_on="fail")
    async with (
        serving(tmp_path / "server", script) as live,
        prometheus(programs, tmp_path, f"127.0.0.1:{live.port}") as http,
    ):
        loading = asyncio.ensure_future(load(live))
        try:
            silent = queries()
            assert len(silent) > 40
            with suppress(TimeoutError):
                async with asyncio.timeout(25):
                    while silent := [each for each in silent if not await has_answer(http, *each)]:  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
            assert silent == []
            await require_rules(http)
            await require_picture(str(http.base_url))
        finally:
            assert not loading.done()
            loading.cancel()
            await asyncio.wait([loading])


async def has_answer(http: httpx.AsyncClient, title: str, query: str) -> bool:
    data = await asked(http, "/api/v1/query", query=query)
    if data is None:
        return False
    numbers = [float(series["value"][1]) for series in data["result"]]
    return bool(numbers) and (title in WITHOUT_A_NUMBER or not all(map(math.isnan, numbers)))


async def require_rules(http: httpx.AsyncClient) -> None:
    """Prometheus evaluates every rule, and all that they ask for is there."""

    async def all_are_evaluated() -> bool:
        groups = (await asked(http, "/api/v1/rules"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
        return len(rules) == len(RULES) and all(rule["health"] == "ok" for rule in rules)

    async with asyncio.timeout(20):
        await until(all_are_evaluated)
    known = set(await asked(http, "/api/v1/label/__name__/values"))
    for rule in RULES:
        names = set(METRIC.findall(rule["expr"]))
        assert names
        assert names <= known, rule["alert"]


async def require_picture(url: str) -> None:
    """The dashboard can be drawn, every panel with a line."""
    command = [sys.executable, str(ROOT / "scripts" / "dashboard.py"), url, "10"]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    drawn, _ = await process.communicate()
    assert process.returncode == 0
    texts = {text.text for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")}
    assert texts >= {panel["title"] for panel in DASHBOARD["panels"] if panel["type"] != "row"}
    assert drawn.count(b"<polyline") >= len(queries())
