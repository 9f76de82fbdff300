"""``inkstream doctor URL`` behind real proxies, each of them wrong in its own way."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from inkstream.errors import ConfigError
from inkstream.preflight import Finding
from inkstream.probe import free_port
from inkstream.reach import Reach, watch_seconds
from inkstream.visit import Visit, base_of
from inkstream.words import Language, Words
from tests.live import Live, serving
from tests.nginx import certified, nginx, plain, secure

pytestmark = pytest.mark.real

T = TypeVar("T")

GOOD = """
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
"""


@dataclass(frozen=True)
class Fault:
    """A proxy's fault and the finding that names it: its level, words of the text, words of the fix."""

    check: str
    level: str
    text: str
    fix: str
    lines: str = GOOD
    settings: dict[str, Any] = field(default_factory=dict)
    path: str = "/"
    behind: str = ""
    key: str = ""


FAULTS = {
    "compression": Fault(
        "stream", "fail", "within", "gzip off",
        f"{GOOD} proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_types *;",
    ),
    "compression of each event": Fault(
        "stream", "warn", "compressed (gzip)", "gzip off", f"{GOOD} gzip on; gzip_types text/event-stream;"
    ),
    "an idle connection is cut": Fault(
        "idle", "fail", "of silence; a comment comes every 10 s", "proxy_read_timeout",
        f"{GOOD} proxy_read_timeout 1s;",
    ),
    "another character set": Fault(
        "charset", "fail", "gbk", "charset utf-8",
        f"{GOOD} proxy_hide_header Content-Type; add_header Content-Type 'text/event-stream; charset=gbk';",
    ),
    "headers of safety": Fault(
        "headers", "warn", "content-security-policy", "proxy_hide_header",
        f"{GOOD} proxy_hide_header Content-Security-Policy;",
    ),
    "caching": Fault("headers", "warn", "cache-control", "expires", f"{GOOD} expires 1d;"),
    "HTTP/1.0": Fault(
        "upstream", "warn", "HTTP/1.0", "proxy_http_version 1.1", "proxy_set_header Host $http_host;"
    ),
    "another host": Fault(
        "server", "fail", "the proxy changes the host", "Host $http_host", "proxy_http_version 1.1;"
    ),
    "a host without its port, as the article has it": Fault(
        "server", "fail", "the proxy changes the host", "Host $http_host", "proxy_set_header Host $host;"
    ),
    "a host that is not ours": Fault(
        "server", "fail", "inkstream.internal", "Host $http_host", "proxy_set_header Host inkstream.internal;"
    ),
    "a path that the server does not know of": Fault(
        "server", "fail", "asked for /chat/healthz", "INKSTREAM_BASE_PATH=/chat", path="/chat/"
    ),
    "a path that is taken off, unknown to the server": Fault(
        "base", "warn", "believes to be at /", "INKSTREAM_BASE_PATH=/chat", path="/chat/", behind="/"
    ),
    "another path than the server knows": Fault(
        "base", "fail", "believes to be at /ink", "INKSTREAM_BASE_PATH=/chat",
        path="/chat/", behind="/", settings={"base_path": "/ink"},
    ),
    "a slash too few": Fault(
        "server", "fail", "asked for //healthz", "with a slash behind both",
        path="/chat", behind="/", settings={"base_path": "/chat"},
    ),
    "somebody else's page": Fault(
        "server", "fail", "something else answers: status 200", "proxy_pass", "return 200 welcome;"
    ),
    "another address": Fault(
        "server", "fail", "leads on to https://", "inkstream doctor https://elsewhere.test/",
        "rewrite ^ https://elsewhere.test$uri redirect;",
    ),
    "a body that is not what its header says": Fault(
        "address", "fail", "decompressing", "curl -v",
        f"{GOOD} location /healthz {{ add_header Content-Encoding gzip; return 200 plain; }}",
    ),
    "a key that is taken away": Fault(
        "access", "fail", "takes the key away", "Authorization",
        f'{GOOD} proxy_set_header Authorization "";', settings={"key": "sesame"}, key="sesame",
    ),
    "a wrong key": Fault(
        "access", "fail", "not accepted", "inkstream keys add", settings={"key": "sesame"}, key="simsim"
    ),
}  # fmt: skip


async def findings(
    url: str, key: str = "", language: Language = "en", seconds: float = 1
) -> dict[str, list[Finding]]:
    def examined() -> list[Finding]:
        with Visit(url, key) as visit:
            return list(Reach(visit, Words(language), seconds).examine())

    found: dict[str, list[Finding]] = {}
    for finding in await asyncio.to_thread(examined):
        found.setdefault(finding.check, []).append(finding)
        assert finding.fix or finding.level == "ok"
    return found


def wrong(found: dict[str, list[Finding]]) -> list[Finding]:
    return [finding for group in found.values() for finding in group if finding.level != "ok"]


@pytest.fixture(scope="module")
async def fronts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, int]]:
    """One nginx with all faults, each in front of a server of its own; by name, the ports."""
    ports = {name: free_port("127.0.0.1") for name in FAULTS}
    blocks = ""
    async with AsyncExitStack() as stack:
        for name, fault in FAULTS.items():
            live = await stack.enter_async_context(serving(tmp_path_factory.mktemp("data"), **fault.settings))
            blocks += plain(ports[name], live.port, fault.lines, path=fault.path, behind=fault.behind)
        with nginx(tmp_path_factory.mktemp("nginx"), blocks, ports[name]):
            yield ports


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_found_and_the_line_that_mends_it_named(fronts: dict[str, int], name: str) -> None:
    fault = FAULTS[name]
    seconds = 3 if fault.check == "idle" else 0
    found = await findings(f"http://127.0.0.1:{fronts[name]}{fault.path}", fault.key, seconds=seconds)
    said = [finding for finding in found[fault.check] if fault.text in finding.text]
    assert said, found
    assert said[0].level == fault.level
    assert fault.fix in said[0].fix


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_nothing_is_wrong_behind_our_configuration(
    tmp_path: Path, language: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = free_port("127.0.0.1")
    settings: dict[str, Any] = {"trusted_proxies": ("127.0.0.1",), "key": "sesame", "heartbeat_seconds": 0.5}
    async with serving(tmp_path / "data", **settings) as live:
        with nginx(tmp_path, secure(tmp_path, front, live.port), front):
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
            found = await findings(f"https://127.0.0.1:{front}", "sesame", language)
    assert wrong(found) == []
    checks = {"server", "page", "headers", "assets", "stream", "charset", "upstream", "scheme", "base"}
    assert found.keys() == checks | {"access", "idle"}
    assert any("\u4e00" <= letter <= "\u9fff" for letter in found["stream"][0].text) == (language == "zh")


async def test_a_proxy_that_hides_https_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = free_port("127.0.0.1")
    certificate, key = certified(tmp_path)
    tls = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
    async with serving(tmp_path / "data") as live:
        server = plain(front, live.port, GOOD).replace(f":{front};", f":{front} ssl; {tls}", 1)
        with nginx(tmp_path / "nginx", server, front):
            unknown = await findings(f"https://127.0.0.1:{front}/")
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            found = await findings(f"https://127.0.0.1:{front}/")
    assert "CERTIFICATE_VERIFY_FAILED" in unknown["address"][0].text
    assert [finding.check for finding in wrong(found)] == ["scheme"]
    assert "X-Forwarded-Proto $scheme" in found["scheme"][0].fix


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name for this machine under which it counts as another one."""
    look_up = socket.getaddrinfo

    def found(host: Any, *rest: Any, **options: Any) -> Any:  # Any: as typeshed has it, in many overloads
        return look_up("127.0.0.1" if host == "ink.test" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setenv("no_proxy", "ink.test")
    return "ink.test"


async def test_a_name_that_the_server_has_not_been_told_is_found(tmp_path: Path, elsewhere: str) -> None:
    async with serving(tmp_path) as live:
        found = await findings(f"http://{elsewhere}:{live.port}/")
    assert "does not go by the name ink.test" in found["server"][0].text
    assert found["server"][0].fix == "INKSTREAM_HOSTS=ink.test"


async def test_an_open_door_is_a_fault_beyond_this_machine(tmp_path: Path, elsewhere: str) -> None:
    async with serving(tmp_path, hosts=(elsewhere,)) as live:
        found = await findings(f"http://{elsewhere}:{live.port}/", seconds=0)
    assert [finding.check for finding in wrong(found)] == ["access"]
    assert "inkstream users add" in found["access"][0].fix


async def test_a_proxy_of_the_environment_that_leads_nowhere_is_named(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://ada:hunter2@127.0.0.1:{free_port('127.0.0.1')}")
    found = await findings(f"http://{elsewhere}/")
    assert "no_proxy=ink.test inkstream doctor" in found["address"][0].fix
    assert "hunter2" not in str(found)


async def test_a_proxys_password_opens_it_and_is_not_shown(tmp_path: Path) -> None:
    front = free_port("127.0.0.1")
    (tmp_path / "users").write_text("ada:{PLAIN}hunter2\n")
    lines = f"{GOOD} auth_basic ink; auth_basic_user_file {tmp_path}/users;"
    async with serving(tmp_path / "data") as live:
        with nginx(tmp_path / "nginx", plain(front, live.port, lines), front):
            shut = await findings(f"http://127.0.0.1:{front}/")
            found = await findings(f"http://ada:hunter2@127.0.0.1:{front}/", seconds=0)
    assert "a password" in shut["server"][0].text
    assert f"NAME:PASSWORD@127.0.0.1:{front}/" in shut["server"][0].fix
    assert wrong(found) == []
    assert "hunter2" not in str(found)


async def test_what_does_not_answer_is_told_from_what_stands_in_front_of_nothing(tmp_path: Path) -> None:
    front, nobody = free_port("127.0.0.1"), free_port("127.0.0.1")
    refused = await findings(f"http://127.0.0.1:{nobody}/")
    assert "refused" in refused["address"][0].text
    with nginx(tmp_path / "nginx", plain(front, nobody), front):
        found = await findings(f"http://127.0.0.1:{front}/")
    assert "502" in found["server"][0].text
    assert "curl" in found["server"][0].fix


async def test_a_proxy_that_limits_the_whole_reply_is_told_from_one_that_cuts_silence(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", heartbeat_seconds=0.1) as live, between(live.port, limited) as port:
        found = await findings(f"http://127.0.0.1:{port}/", seconds=10)
    assert [finding.check for finding in wrong(found)] == ["idle"]
    assert "although something was said" in found["idle"][0].text


async def test_a_proxy_that_looks_through_replies_before_it_passes_them_on_is_found(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as live, between(live.port, holding) as port:
        found = await findings(f"http://127.0.0.1:{port}/")
    assert [finding.check for finding in wrong(found)] == ["stream"]
    assert "held back" in found["stream"][0].text
    assert "proxy_buffering off" in found["stream"][0].fix


Passing = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def between(port: int, passing: Passing) -> AsyncIterator[int]:
    """A proxy that hands on what the server says as ``passing`` does; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        asking = asyncio.ensure_future(pour(reader, up_writer))
        try:
            await passing(up_reader, writer)
        finally:
            asking.cancel()
            up_writer.close()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def limited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(pour(reader, writer), 4)


async def holding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until nothing has come for a while."""
    held, is_open = b"", True
    while is_open:
        try:
            data = await asyncio.wait_for(reader.read(65536), 0.3)
            held, is_open = held + data, bool(data)
        except TimeoutError:
            writer.write(held)
            held = b""


async def test_the_command_tells_programs_and_people_the_same(tmp_path: Path) -> None:
    front = free_port("127.0.0.1")
    async with serving(tmp_path / "data", base_path="/ink") as live:
        lines = plain(front, live.port, GOOD, path="/chat/", behind="/")
        with nginx(tmp_path / "nginx", lines, front):
            url = f"http://127.0.0.1:{front}/chat/"
            (code, told), (same, shown) = await asyncio.gather(
                doctor(url, "--seconds", "0", "--json"), doctor(url, "--seconds", "0")
            )
    report = json.loads(told)
    assert (code, same, report["ok"]) == (1, 1, False)
    for finding in report["findings"]:
        assert f"{finding['level']:<4}  {finding['check']:<9}" in shown


async def doctor(*arguments: str) -> tuple[int | None, str]:
    command = [sys.executable, "-m", "inkstream", "doctor", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.parametrize("url", ["chat.example.org", "ftp://chat.example.org", "http://", "http://[::1"])
def test_what_is_no_address_of_a_page_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        base_of(url)


def test_an_address_is_shown_with_a_slash_and_without_question_and_password() -> None:
    assert str(base_of("https://ada:hunter2@ink.test:8443/chat?trace#/c/1")) == "https://ink.test:8443/chat/"


@pytest.mark.parametrize("text", ["-1", "abc", "901", "1.5"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--seconds"):
        watch_seconds(text)


# The server's side


async def visited(live: Live, ask: Callable[[Visit], T]) -> T:
    def visit() -> T:
        with Visit(live.url) as visit:
            return ask(visit)

    return await asyncio.to_thread(visit)


async def test_the_echo_asks_no_engine_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as live:
        found = await visited(live, lambda visit: visit.listen(0))
        assert [block.event for block in found.blocks if block.event] == ["seen", *["tick"] * 5, "end"]
        assert live.engine.requests == []
        await live.until(lambda: not live.services.echoes)


async def test_of_echoes_there_are_only_a_few_at_a_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as live:
        held = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(8)]
        for connection in held:
            connection.sendall(b"GET /api/echo?seconds=900 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await live.until(lambda: len(live.services.echoes) == 8)
        refused = await visited(live, lambda visit: visit.get("api/echo"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        for connection in held:
            connection.close()
        await live.until(lambda: not live.services.echoes)
