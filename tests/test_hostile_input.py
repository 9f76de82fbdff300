"""Hostile cursors, bodies and imports, drawn at random and by hand, against a live server."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inkstream.engines.scripted import Script
from inkstream.history.index import _FOLDING, MEMO_CHARS, fold
from tests.hostile import Target, target

HUGE = 10**30
LIVELY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("data"), Script(answer_tokens=12), queue=1000) as found:
        yield found


@pytest.fixture(scope="module")
def http(server: Target) -> Iterator[httpx.Client]:
    with server.client() as found:
        yield found


@pytest.fixture(scope="module")
def asked(http: httpx.Client) -> dict[str, Any]:
    """An ended answer, with its chat, its run and the blocks of its stream."""
    chat = http.post("/api/chats", json={}).json()["id"]
    found: dict[str, Any] = http.post(f"/api/chats/{chat}/messages", json={"content": "hello"}).json()
    blocks = http.get(f"/api/runs/{found['run']['id']}/events").text.split("\n\n")
    return {**found, "blocks": [block for block in blocks if block.startswith("id: ")]}


def require_answer(reply: httpx.Response, server: Target) -> None:
    """It was answered in order: taken, or refused with a code."""
    assert reply.status_code < 500, (reply.request.content[:300], reply.text)
    if reply.status_code >= 400:
        error = reply.json()["error"]
        assert error["code"]
        assert error["message"]
    server.faults.require_none()


# Cursors

SEQS = st.integers(-5, 40) | st.integers(2**31, 2**70) | st.just(HUGE)
CURSORS = (
    st.builds("{}:{}".format, SEQS, SEQS)
    | SEQS.map(str)
    | st.text(st.characters(codec="latin-1", min_codepoint=32, exclude_characters="\x7f"), max_size=40)
    | st.sampled_from(
        ["1:²", ":1", "1:", ":", "1:1:1", "9" * 5000, "1:" + "9" * 5000, "٣", "1e3", "NaN", " 1:2 "]
    )
)


@given(cursor=CURSORS)
@example(cursor="1:99999999999999999999999")
@LIVELY
def test_a_cursor_gives_exactly_what_is_behind_it_or_is_refused(
    server: Target, http: httpx.Client, asked: dict[str, Any], cursor: str
) -> None:
    cursor = cursor.strip()
    headers = {b"Last-Event-ID": cursor.encode()}
    reply = http.get(f"/api/runs/{asked['run']['id']}/events", headers=headers)
    require_answer(reply, server)
    status, behind = expected(cursor, asked["blocks"])
    assert reply.status_code == status
    if status == 200:
        told = [block for block in reply.text.split("\n\n") if block.startswith("id: ")]
        assert told == asked["blocks"][behind:]


def expected(cursor: str, blocks: list[str]) -> tuple[int, int]:
    """The status of a reader who comes with this cursor, and how many blocks stand before what it is told."""
    found = re.fullmatch(r"(?:([0-9]{1,4300}):)?([0-9]{1,4300})", cursor)
    if found is None:
        return (400, 0) if cursor else (200, 0)
    epoch, seq = found[1], int(found[2])
    if seq > len(blocks) or (seq and epoch and not blocks[seq - 1].startswith(f"id: {int(epoch)}:")):
        return 409, 0
    return (204 if seq == len(blocks) else 200), seq


@given(after=SEQS.map(str) | st.text(max_size=20) | st.sampled_from(["1.0", "0x1", "1_0", "٣", "true"]))
@LIVELY
def test_a_number_to_read_behind_is_one_or_is_refused(
    server: Target, http: httpx.Client, asked: dict[str, Any], after: str
) -> None:
    reply = http.get(f"/api/runs/{asked['run']['id']}/events", params={"after": after})
    require_answer(reply, server)
    assert reply.status_code in (200, 204, 400, 409)


@given(cursor=st.text(st.characters(codec="ascii", min_codepoint=33), max_size=60) | CURSORS)
@LIVELY
def test_a_cursor_of_the_articles_stream_never_starts_a_run(
    server: Target, http: httpx.Client, cursor: str
) -> None:
    value = cursor.encode().strip()
    if not value:
        return
    before = len(server.live.engine.requests)
    reply = http.get("/stream", params={"prompt": "hello"}, headers={b"Last-Event-ID": value})
    require_answer(reply, server)
    assert reply.status_code in (400, 404)
    assert len(server.live.engine.requests) == before


def sealed(*fields: Any) -> str:
    return urlsafe_b64encode(orjson.dumps(fields)).decode().rstrip("=")


@given(
    before=st.text(max_size=40)
    | st.lists(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
    ).map(lambda fields: sealed(*fields)),
    query=st.text(max_size=20),
)
@example(before=sealed(2**63), query="a")
@example(before=sealed(-(2**63)), query="a")
@example(before=sealed(1e308, "x"), query="")
@LIVELY
def test_a_list_takes_its_own_cursors_alone(
    server: Target, http: httpx.Client, before: str, query: str
) -> None:
    reply = http.get("/api/chats", params={"before": before, "query": query})
    require_answer(reply, server)
    assert reply.status_code in (200, 400)


@given(query=st.text(max_size=130) | st.text(alphabet='"*^():-+\0 ANDORNOTEAR', max_size=30))
@LIVELY
def test_no_query_has_a_syntax(server: Target, http: httpx.Client, query: str) -> None:
    reply = http.get("/api/chats", params={"query": query})
    require_answer(reply, server)
    assert reply.status_code in (200, 400)


# Bodies

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([HUGE, -HUGE, 2**53, 2**63, 2**64])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["\0", "\u202e", "\ufeff", "\U0010ffff", "<script>", "{{7*7}}", "\r\ndata: x\r\n\r\n"])
)
NAMES = [
    "title",
    "settings",
    "system",
    "sampling",
    "content",
    "parent",
    "regenerate",
    "continue",
    "seed",
    "stop",
]
NAMES += [
    "temperature",
    "logit_bias",
    "key",
    "link",
    "label",
    "messages",
    "role",
    "stream",
    "model",
    "prompt",
    "chunk",
]
NAMES += [
    "max_tokens",
    "top_logprobs",
    "format",
    "chats",
    "mapping",
    "chat",
    "id",
    "n",
    "tools",
    "stream_options",
]
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
BY_HAND = {
    "half a character": b'{"%s": "\\ud800"}',
    "half a character in a name": b'{"\\ud800": 1, "%s": "x"}',
    "not a number": b'{"%s": NaN}',
    "infinity": b'{"%s": 1e999}',
    "a number of many digits": b'{"%s": ' + b"9" * 5000 + b"}",
    "nesting": b'{"%s": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "nesting of objects": b'{"a":' * 20_000 + b'"%s"' + b"}" * 20_000,
    "bytes that are no text": b'{"%s": "\xff\xfe"}',
    "another encoding": '{"title": "x"}'.encode("utf-16"),
    "a name twice": b'{"%s": "a", "%s": 7}',
    "a mark before it": b'\xef\xbb\xbf{"%s": "x"}',
    "nothing": b"",
    "a list": b"[]",
    "compressed": gzip.compress(b'{"%s": "x"}'),
}
FIELDS = ["title", "content", "link", "key", "label", "system", "prompt", "model", "seed", "messages"]


def posts(asked: dict[str, Any]) -> list[str]:
    chat = asked["chat"]["id"]
    return [
        "/api/chats",
        f"/api/chats/{chat}/messages",
        f"/api/chats/{chat}/context",
        "/api/session",
        "/api/keys",
        "/api/users",
        "/api/import",
        "/stream",
        "/v1/chat/completions",
    ]


@given(data=st.data(), body=OBJECTS | VALUES)
@settings(parent=LIVELY, max_examples=150)
def test_no_json_makes_the_server_stumble(
    server: Target, http: httpx.Client, asked: dict[str, Any], data: st.DataObject, body: Any
) -> None:
    path = data.draw(st.sampled_from(posts(asked)))
    if path == "/api/users" and isinstance(body, dict):
        body.pop("name", None)  # from the first user on nobody would be let in
    reply = http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    require_answer(reply, server)


@pytest.mark.parametrize("body", BY_HAND.values(), ids=BY_HAND)
def test_what_is_almost_json_is_refused_everywhere(
    server: Target, http: httpx.Client, asked: dict[str, Any], body: bytes
) -> None:
    for path in posts(asked):
        for field in FIELDS if b"%s" in body else [""]:
            said = body.replace(b"%s", field.encode())
            reply = http.post(path, content=said, headers={"Content-Type": "application/json"})
            require_answer(reply, server)
            assert reply.status_code >= 400 or (path, body) == ("/stream", b"") or field, (path, said[:80])


def part(kind: str, value: bytes, file: str = "") -> tuple[str, bytes]:
    """A form with one field, the prompt."""
    named = b'Content-Disposition: form-data; name="prompt"' + file.encode()
    return f"multipart/form-data; boundary=x{kind}", b"--x\r\n%b\r\n\r\n%b\r\n--x--\r\n" % (named, value)


URLENCODED = "application/x-www-form-urlencoded"
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
FORMS = {
    "without a boundary": ("multipart/form-data", b"--x--"),
    "with an empty boundary": ("multipart/form-data; boundary=", b"----"),
    "in a codec that makes halves of characters": part("; charset=unicode_escape", b"\\ud800"),
    "in a codec that only fails": part("; charset=undefined", b"a"),
    "with a file": part("", b"a", '; filename="../../etc/passwd"'),
    "with very many parts": ("multipart/form-data; boundary=x", FIELD * 1500 + b"--x--"),
    "with a head without end": ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 100_000),
    "with very many fields": (URLENCODED, b"&".join(b"a%d=" % n for n in range(5000))),
    "with a long field": (URLENCODED, b"prompt=" + b"a" * 2_000_000),
    "with a number that is none": (URLENCODED, b"prompt=%ff%fe%00&temperature=nan"),
    "of another encoding": ("application/json; charset=utf-16", '{"prompt": "x"}'.encode("utf-16")),
}


@pytest.mark.parametrize(("kind", "body"), FORMS.values(), ids=FORMS)
def test_a_form_that_is_none_is_refused(server: Target, http: httpx.Client, kind: str, body: bytes) -> None:
    reply = http.post("/stream", content=body, headers={"Content-Type": kind})
    require_answer(reply, server)
    assert reply.status_code == 400


# Imports


def ours(**changes: Any) -> dict[str, Any]:
    question = {"id": "q", "parent": None, "role": "user", "parts": [{"type": "text", "text": "x"}]}
    answer = {**question, "id": "a", "parent": "q", "role": "assistant", **changes}
    return {"format": "inkstream", "version": 1, "chats": [{"title": "t", "messages": [question, answer]}]}


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", b"0" * 20_000_000)
    return packed.getvalue()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", ""])
def test_a_bomb_is_not_unpacked(server: Target, http: httpx.Client, encoding: str) -> None:
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": encoding} if encoding else {})
    for bomb in (gzip.compress(b"[" + b"0," * 10_000_000 + b"0]"), zipped()):
        assert len(bomb) < 100_000
        reply = http.post("/api/import", content=bomb, headers=headers)
        require_answer(reply, server)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_json")


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": 1e30, "completion_tokens": 1}, {"prompt_tokens": 2**64 - 1, "completion_tokens": 1}],
)
def test_numbers_that_cannot_be_kept_are_refused(server: Target, http: httpx.Client, usage: Any) -> None:
    reply = http.post("/api/import", content=orjson.dumps(ours(usage=usage)))
    require_answer(reply, server)
    assert "usage.prompt_tokens" in reply.json()["error"]["message"]


@given(text=st.text(max_size=200), name=st.text(max_size=40))
@example(text="\u202e\u2066\0\ufeff" + "\u0300" * 2000, name="../../etc/passwd\r\nSet-Cookie: a=b")
@LIVELY
def test_hostile_text_comes_back_as_it_was(server: Target, http: httpx.Client, text: str, name: str) -> None:
    given = ours(parts=[{"type": "text", "text": text}])
    given["chats"][0]["title"] = name
    taken = http.post("/api/import", content=orjson.dumps(given)).json()
    [chat] = taken["chats"] + taken["known"]
    exported = http.get(f"/api/chats/{chat['id']}/export?format=json")
    [found] = exported.json()["chats"]
    assert found["messages"][1]["parts"] == [{"type": "text", "text": text}]
    assert "set-cookie" not in exported.headers
    assert "/" not in exported.headers["content-disposition"]
    server.faults.require_none()


OURS = b'{"format":"inkstream","version":1,"chats":'
FAULTS = {
    "a list of nothing but faults": b'[{"mapping":{}}' + b",5" * 2_000_000 + b"]",
    "messages that are none": OURS + b'[{"title":"","messages":[' + b"5," * 2_000_000 + b"5]}]}",
    "deep and wide": b"[" + b"[[[[[[[[]]]]]]]]," * 200_000 + b"0]",
}
PEAK = """
import resource, sys
from inkstream.api.transfer import _taken
from inkstream.errors import Invalid
body = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    _taken("local", body)
except Invalid as error:
    peak = resource.getrusage(resource.RUSAGE_SELF)
    print(error.code, (peak.ru_maxrss - before) // 1024, peak.ru_utime)
"""


@pytest.mark.real
@pytest.mark.parametrize("body", FAULTS.values(), ids=FAULTS)
def test_a_million_faults_cost_no_more_than_one(body: bytes) -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], input=body, capture_output=True, check=True)
    code, mib, seconds = done.stdout.split()
    assert code in (b"bad_import", b"unknown_format")
    assert int(mib) < 400, f"{int(mib)} MiB to refuse {len(body) / 2**20:.1f}"
    assert float(seconds) < 10


def test_what_is_known_of_characters_is_bounded() -> None:
    every = "".join(map(chr, range(0x20000)))
    assert len(fold(every)) > len(every)
    assert len(_FOLDING) <= MEMO_CHARS
