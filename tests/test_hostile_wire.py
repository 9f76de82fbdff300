"""What stands between a hostile peer and the app: HTTP that is none, and requests of foreign pages."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkstream.api.page import NOT_BUILT
from inkstream.connection import MOST_AHEAD, MOST_HEAD_BYTES
from inkstream.engines.scripted import Script
from tests.hostile import Reply, Target, replies_in, say, target

LF = b"\r\n"
HOST = b"Host: localhost"
CLOSE = b"Connection: close"


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return LF.join([line, *headers, b"", b""]) + body


def get(path: bytes, *headers: bytes) -> bytes:
    return request(b"GET " + path + b" HTTP/1.1", HOST, CLOSE, *headers)


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return request(b"POST /api/chats HTTP/1.1", HOST, b"Content-Type: application/json", *headers, body=body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    script = Script(answer_tokens=5)
    with target(tmp_path_factory.mktemp("data"), script, header_seconds=1.0, body_seconds=2.0) as found:
        yield found


def require_refusal(reply: Reply, statuses: tuple[int, ...]) -> None:
    """Every refusal is JSON with a code, whoever has made it."""
    assert reply.status in statuses, reply
    if reply.status:
        error = json.loads(reply.body)["error"]
        assert error["code"]
        assert error["message"]


# Requests that are none

CHUNKED = b"Transfer-Encoding: chunked"
MALFORMED = {
    "two lengths": post(b"Content-Length: 2", b"Content-Length: 3", body=b"{} "),
    "a length and chunks": post(b"Content-Length: 2", CHUNKED, body=b"0\r\n\r\n"),
    "chunks and a length": post(CHUNKED, b"Content-Length: 2", body=b"0\r\n\r\n"),
    "a length with a sign": post(b"Content-Length: +2", body=b"{}"),
    "a negative length": post(b"Content-Length: -2", body=b"{}"),
    "a length in hexadecimal": post(b"Content-Length: 0x2", body=b"{}"),
    "a list of lengths": post(b"Content-Length: 2, 2", body=b"{}"),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999", body=b"{}"),
    "chunks that are not the last coding": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "a coding that is almost chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "a coding hidden by a tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "two codings": post(CHUNKED, b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "a chunk size that is no number": post(CHUNKED, body=b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": post(CHUNKED, body=b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n"),
    "a chunk longer than its size": post(CHUNKED, body=b"1\r\n{}\r\n0\r\n\r\n"),
    "a NUL in a header": get(b"/healthz", b"X-A: a\0b"),
    "a bare CR in a header": get(b"/healthz", b"X-A: a\rX-B: b"),
    "a folded header": get(b"/healthz", b"X-A: a\r\n b"),
    "a blank before the colon": get(b"/healthz", b"Content-Length : 5"),
    "a header without a name": get(b"/healthz", b": a"),
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "HTTP/2 without being asked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that is none": request(b"GET /healthz HTTP/9.9", HOST),
    "a method that is none": request(b"STEAL / HTTP/1.1", HOST),
    "a tunnel": request(b"CONNECT evil.example:443 HTTP/1.1", b"Host: evil.example:443"),
    "two hosts": get(b"/healthz", b"Host: evil.example"),
}


@pytest.mark.parametrize("said", MALFORMED.values(), ids=MALFORMED)
def test_what_two_readers_could_take_for_different_requests_is_refused_once(
    server: Target, said: bytes
) -> None:
    smuggled = get(b"/api/me")
    heard = say(server, said + smuggled)
    assert len(heard) == 1, "what stood behind it was taken for a request"
    require_refusal(heard[0], (400,))
    server.require_well()


@pytest.mark.parametrize(
    "path",
    [b"/\xff\xfe", b"/%ff%fe", b"/%00", b"/a%00b", b"/api/chats/%00", b"/%2e%2e/%2e%2e/etc/passwd"],
)
def test_an_address_that_is_no_text_leads_nowhere(server: Target, path: bytes) -> None:
    [reply] = say(server, get(path))
    assert reply.status in (400, 404, 503), reply  # 503 where the page is not built
    server.require_well()


LONG = 10 * MOST_HEAD_BYTES  # more than comes in one read, after which a head is whole or too long


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (get(b"/healthz", b"X-A: " + b"x" * LONG), 431),
        (get(b"/healthz?" + b"x" * LONG), 431),
        (get(b"/healthz", *[b"X-%d: x" % n for n in range(LONG // 8)]), 431),
        (get(b"/healthz?" + b"x" * (MOST_HEAD_BYTES + 1)), 400),
    ],
    ids=["a long header", "a long address", "many headers", "a long address that comes at once"],
)
def test_a_head_has_an_end(server: Target, said: bytes, status: int) -> None:
    [reply] = say(server, said)
    require_refusal(reply, (status,))
    server.require_well()


@pytest.mark.parametrize("inside", [b"0\r\nX-A: ", b"1;x="], ids=["trailers", "a chunk's extension"])
def test_what_stands_beside_a_body_has_an_end_too(server: Target, inside: bytes) -> None:
    flood = [b"x" * 16384] * 20
    [reply] = say(server, post(CHUNKED, body=b"2\r\n{}\r\n" + inside), *flood)
    assert reply.status in (0, 431), reply
    server.require_well()


def test_a_trailer_is_no_header(tmp_path: Path) -> None:
    """A proxy that passes trailers on would let its clients say who they are."""
    settings = {"user_header": "X-Forwarded-User", "trusted_proxies": ("127.0.0.1",)}
    with target(tmp_path, **settings) as found:  # type: ignore[arg-type]  # of several types
        asked = get(b"/api/me", CHUNKED, b"X-Forwarded-User: ada")
        [reply] = say(found, asked + b"0\r\nX-Forwarded-User: root\r\n\r\n")
        assert json.loads(reply.body)["name"] == "ada"


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes_at_all_are_refused_or_waited_for(server: Target, noise: bytes) -> None:
    with server.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(noise + b"\r\n\r\n")
        sock.settimeout(0.005)
        try:
            heard = sock.recv(65536)
        except (TimeoutError, ConnectionResetError):
            return
        sock.settimeout(10)
        while replies_in(heard)[-1].missing:
            heard += sock.recv(65536)
    for reply in replies_in(heard):
        require_refusal(reply, (0, 400, 403))  # 403: a request can be had from few bytes, but names no host


NAMES = ["Host", "Origin", "Cookie", "Authorization", "Last-Event-ID", "Idempotency-Key", "Content-Type"]
NAMES += ["Accept", "Range", "If-None-Match", "X-Forwarded-For", "X-Forwarded-Proto", "Sec-Fetch-Site", "TE"]
VALUES = st.binary(max_size=60).filter(lambda value: not set(value) & set(b"\r\n\0"))
ODD = st.sampled_from(
    [b"[", b"::1]", b"http://[", b"inkstream=\xff; inkstream", b'"', b"bytes=9-1", b"%00", b"null"]
)
PATHS = [
    "/",
    "/healthz",
    "/api/chats",
    "/api/session",
    "/api/runs/x/events",
    "/stream",
    "/v1/models",
    "/docs",
]


@given(
    path=st.sampled_from(PATHS),
    method=st.sampled_from(["GET", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH"]),
    headers=st.lists(st.tuples(st.sampled_from(NAMES), VALUES | ODD), max_size=6),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_header_makes_the_server_stumble(
    server: Target, path: str, method: str, headers: list[tuple[str, bytes]]
) -> None:
    lines = [name.encode() + b": " + value for name, value in headers]
    if not any(name == "Host" for name, _ in headers):
        lines.append(HOST)
    for reply in say(server, request(f"{method} {path} HTTP/1.1".encode(), CLOSE, *lines)):
        assert reply.status < 500 or reply.body == NOT_BUILT.encode(), reply
    server.faults.require_none()


# Many requests on one connection


def test_requests_that_come_together_are_answered_in_order(server: Target) -> None:
    paths = [b"/healthz", b"/api/nothing"] * (MOST_AHEAD // 2)
    together = b"".join(request(b"GET " + path + b" HTTP/1.1", HOST) for path in paths)
    heard = say(server, together + get(b"/healthz"))
    assert [reply.status for reply in heard] == [200, 404] * (MOST_AHEAD // 2) + [200]


def test_who_asks_on_and_on_without_waiting_is_cut_off(server: Target) -> None:
    before = len(server.live.services.streams)
    flood = request(b"GET /healthz HTTP/1.1", HOST) * 5000
    heard = say(server, *[flood] * 20)
    assert len(heard) < 2000
    assert len(server.live.services.streams) == before
    server.require_well()


def test_nobody_is_answered_into_the_middle_of_an_answer(tmp_path: Path) -> None:
    with target(tmp_path, Script(stall_on="hello")) as found, closing(found.connect()) as sock:
        sock.sendall(request(b"GET /stream?prompt=hello HTTP/1.1", HOST))
        heard = b""
        while b": ok" not in heard:
            heard += sock.recv(65536)
        sock.sendall(b"\0\0\0 no HTTP \r\n\r\n")
        assert b"HTTP/1.1 400" not in rest_of(sock)
        found.require_well()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_who_asks_in_an_older_http_reads_a_stream_without_chunks(server: Target, version: bytes) -> None:
    with closing(server.connect()) as sock:
        sock.sendall(request(b"GET /stream?prompt=hello HTTP/" + version, HOST, CLOSE))
        head, _, body = rest_of(sock).partition(LF + LF)
    is_chunked = version == b"1.1"
    assert (b"transfer-encoding: chunked" in head.lower()) == is_chunked
    assert body.startswith(b"retry: ") != is_chunked
    assert body.endswith(b"data: [DONE]\n\n") != is_chunked
    server.require_well()


def rest_of(sock: socket.socket) -> bytes:
    heard = b""
    try:
        while piece := sock.recv(65536):
            heard += piece
    except ConnectionResetError:
        pass
    return heard


def test_who_leaves_in_the_middle_of_a_body_leaves_no_traceback(server: Target) -> None:
    for path in (b"/api/chats", b"/api/import", b"/stream", b"/v1/chat/completions"):
        with server.connect() as sock:
            head = request(b"POST " + path + b" HTTP/1.1", HOST, b"Content-Length: 100")
            sock.sendall(head + b'{"a":')
    server.require_well()


# Foreign pages and hosts


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.evil.example",
        b"evil.example#localhost",
        b"evil.example@localhost",
        b"localhost@evil.example",
        b"localhost/evil.example",
        b"localhost\\evil.example",
        b"localhost?evil",
        b"localhost:80:80",
        b"localhost:999999",
        b"[",
        b"[::1",
        b"[::1]evil.example",
        b"",
        b"loc\xc3\xa4lhost",
    ],
)
def test_a_host_that_is_not_ours_is_refused_however_it_is_written(server: Target, host: bytes) -> None:
    [reply] = say(server, request(b"GET /api/chats HTTP/1.1", b"Host: " + host, CLOSE))
    require_refusal(reply, (403,))
    assert json.loads(reply.body)["error"]["code"] == "foreign_host"


ORIGINS = [
    "https://evil.example",
    "null",
    "",
    "http://[",
    "http://localhost.evil.example",
    "file://",
    "//localhost",
]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/stream?prompt=x"),
        ("POST", "/api/chats"),
        ("POST", "/api/session"),
        ("POST", "/api/import"),
        ("GET", "/"),
    ],
)
def test_no_foreign_page_can_ask_for_anything(server: Target, origin: str, method: str, path: str) -> None:
    with server.client(Origin=origin) as http:
        reply = http.request(method, path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_origin")


def test_a_second_origin_does_not_hide_behind_ours(server: Target) -> None:
    own = b"Origin: http://localhost"
    for origins in ((own, b"Origin: https://evil.example"), (b"Origin: https://evil.example", own)):
        [reply] = say(server, get(b"/api/chats", *origins))
        require_refusal(reply, (403,))
    [reply] = say(server, get(b"/api/chats", own))
    assert reply.status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
@pytest.mark.parametrize("path", ["/api/chats", "/api/session", "/v1/chat/completions"])
def test_what_a_form_can_send_is_no_json(server: Target, kind: str, path: str) -> None:
    """An old browser sends such requests from any page, without a word on where they come from."""
    body = b'{"title":"=","key":"=","messages":[{"role":"user","content":"="}]}'
    with server.client() as http:
        reply = http.post(path, content=body, headers={"Content-Type": kind} if kind else {})
        assert reply.status_code == 400, reply.text


def test_the_base_path_hides_nothing_from_the_guard(tmp_path: Path) -> None:
    with target(tmp_path, base_path="/chat", key="secret") as found, found.client() as http:
        for prefix in ("", "/chat", "/chat/chat", "/chat/chat/chat"):
            for path in ("/api/status", "/v1/models", "/openapi.json", "/docs", "/api/chats"):
                assert http.get(f"{prefix}{path}").status_code == 401, f"{prefix}{path}"
        found.require_well()


def test_a_session_that_the_browser_brings_along_is_not_adopted(tmp_path: Path) -> None:
    with target(tmp_path, key="secret") as found:
        planted = {"Cookie": "inkstream=planted"}
        with found.client(**planted) as http:
            reply = http.post("/api/session", json={"key": "secret"})
            assert reply.status_code == 204
            assert "planted" not in reply.headers["set-cookie"]
        with found.client(**planted) as http:
            assert http.get("/api/chats").status_code == 401


# Files


@pytest.mark.parametrize("top", ["/docs/", "/assets/", "/"])
@pytest.mark.parametrize(
    "way",
    [
        "../" * 9,
        "..%2f" * 9,
        "%2e%2e%2f" * 9,
        "..\\" * 9,
        "..%5c" * 9,
        "....//" * 9,
        "%252e%252e%252f" * 9,
        "/",
    ],
)
def test_no_address_leads_out_of_the_folders_that_are_served(server: Target, top: str, way: str) -> None:
    for file in ("etc/passwd", str(Path(__file__).resolve())[1:]):
        [reply] = say(server, get(f"{top}{way}{file}".encode()))
        assert reply.status in (400, 401, 404, 503), reply.head
        assert b"root:" not in reply.body
        assert b"from __future__" not in reply.body
    server.faults.require_none()
