"""``inkstream model``: asks the running server which model answers, or for another one."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx

from inkstream.config import LOOPBACK, Settings
from inkstream.errors import ConfigError
from inkstream.probe import size
from inkstream.words import Words, aligned

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
TIMEOUT_SECONDS = 20.0
POLL_SECONDS = 0.5
AWAY_SECONDS = 30.0


def run(arguments: Namespace, settings: Settings, say: Words, on_line: Callable[[str], None]) -> str:
    """Show or switch, and return what there is to print. ``on_line`` hears how far a switch has come.

    Raises ConfigError where the server refuses, does not answer, or the switch fails.
    """
    # The key of this machine's settings is for its own server alone, so it is not sent unasked.
    key = (arguments.key or "") if arguments.url else settings.key
    with _client(arguments.url or _address(settings), key) as http:
        if arguments.cancel:
            model = _answered(http, "DELETE", "model")["model"]
            return say(f"called off: {model} stays", f"已取消，仍使用 {model}")
        if not arguments.name:
            return _shown(_answered(http, "GET", "models"), arguments, say)
        wish = {"model": arguments.name, "now": arguments.now}
        begun = _answered(http, "PUT", "model", wish)
        engine = _watched(http, begun["engine"], say, on_line)
        if arguments.json:
            return json.dumps({"engine": engine}, ensure_ascii=False)
        name = engine.get("model", begun["model"])
        return say(f"{name} answers", f"现由 {name} 回答")


def _address(settings: Settings) -> str:
    """Where the server of these settings can be reached from its own machine."""
    host = EVERYWHERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.base_path}"


def _client(address: str, key: str) -> httpx.Client:
    with suppress(httpx.InvalidURL):
        url = httpx.URL(f"{address.rstrip('/')}/api/")
        if url.scheme in ("http", "https") and url.host:
            return httpx.Client(
                base_url=url,
                headers={b"Authorization": f"Bearer {key}".encode()} if key else {},
                trust_env=url.host not in LOOPBACK,  # no proxy leads to this machine itself
                timeout=TIMEOUT_SECONDS,
            )
    raise ConfigError(f"{address!r} is no address of a server. Write it as http://HOST:PORT.")


def _answered(http: httpx.Client, method: str, path: str, body: Any = None) -> dict[str, Any]:
    try:
        reply = http.request(method, path, json=body)
        told: dict[str, Any] = reply.json()
    except httpx.HTTPError as error:
        raise ConfigError(
            f"no server answers at {http.base_url}: {error}. Is it running? --url says where it is."
        ) from error
    except ValueError as error:
        raise ConfigError(f"what answers at {http.base_url} is no inkstream.") from error
    if not reply.is_success:
        raise ConfigError(_refusal(reply.status_code, told), code=told["error"]["code"])
    return told


def _refusal(status: int, told: dict[str, Any]) -> str:
    message: str = told["error"]["message"]
    hint = " Give an admin's key with --key; 'inkstream keys add NAME' makes one." if status == 401 else ""
    return f"the server refuses: {message}{hint}"


def _watched(
    http: httpx.Client, engine: dict[str, Any], say: Words, on_line: Callable[[str], None]
) -> dict[str, Any]:
    """Say what happens until it is over. A server that is away for a while may come back with the answer."""
    said, away_since = "", None
    while (switch := engine["switch"]) is not None:
        if switch["stage"] == "failed":
            raise ConfigError(switch["message"], code=switch["code"])
        if (line := _line(switch, say)) != said:
            on_line(line)
            said = line
        time.sleep(POLL_SECONDS)
        try:
            engine = _answered(http, "GET", "status")["engine"]
            away_since = None
        except ConfigError:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > AWAY_SECONDS:
                raise
    return engine


def _line(switch: dict[str, Any], say: Words) -> str:
    """To the tenth of a share: each line is a new one."""
    stage = {
        "fetching": say("looking for the model, fetching it", "正在查找和下载模型"),
        "waiting": say(
            f"answers being written: {switch['answers']}", f"等待进行中的回答：{switch['answers']}"
        ),
        "loading": say("loading", "正在加载"),
        "returning": say("going back to the model before", "正在恢复原来的模型"),
    }[switch["stage"]]
    return stage if switch["share"] is None else f"{stage} {int(switch['share'] * 10) * 10} %"


def _shown(told: dict[str, Any], arguments: Namespace, say: Words) -> str:
    if arguments.json:
        return json.dumps(told, ensure_ascii=False)
    engine, switch = told["engine"], told["engine"]["switch"]
    lines = [f"{engine.get('model', told['model'])}  {engine['phase']}"]
    if switch is not None:
        lines.append(f"{switch['model']}: {switch['message'] or _line(switch, say)}")
    if not told["can_switch"]:
        lines.append(say("The engine runs apart from this server.", "引擎独立于此服务器运行。"))
    return "\n".join(lines + _table(told["models"], say))


def _table(models: list[dict[str, Any]], say: Words) -> list[str]:
    if not models:
        return []
    head = say("NAME,SIZE,MEMORY,FITS,HERE", "名称,大小,内存,装得下,本地").split(",")
    answer = {True: say("yes", "是"), False: say("no", "否"), None: "-"}
    rows = [
        (
            row["name"],
            "-" if row["size_bytes"] is None else size(row["size_bytes"]),
            "-" if row["memory_bytes"] is None else size(row["memory_bytes"]),
            answer[row["fits"]],
            answer[True] if row["is_here"] else "-",
        )
        for row in models
    ]
    return ["", aligned([tuple(head), *rows])]
